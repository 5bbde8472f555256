"""Tables of the site that stand in files: aliases, access, users.

A table is read when it is first asked for, and again when its file has changed; it is looked at
once a second at most. What is wrong in a new version leaves the last good one in force, and the log
says so. One thread reads, the others go on with what there was.

A file counts when it and its folder are root's or ours, and nobody else can write to them (P52). A
`shared` one may be anybody's, and of a group, but not everybody's.
"""

from __future__ import annotations

import logging
import os
import time
from collections import OrderedDict
from collections.abc import Callable, Sized
from threading import Lock
from typing import Generic, TypeVar

from mdaflow.errors import INTERNAL, ConfigError, TempFail
from mdaflow.files import FOR_GOOD, Reading, Versions, version_of

T = TypeVar("T")
S = TypeVar("S", bound=Sized)
LOOK = 1.0
"""Seconds between two looks at a file."""
SETTLE = 2.0
"""Seconds for which a file that has changed has to stay as it is: the first half of one that is
just being written is a table, too."""
MAX_TABLE = 256 << 20
"""Bytes of a file."""
MAX_SHARED = 4 << 20
"""Bytes of one that others may write: more addresses than mail may go to."""
MAX_TABLES = 1000
"""Files of one kind that are kept."""
MAX_ITEMS = 200_000
"""What all of them together may hold, before the one that is read next: some 50 MiB (P30)."""
MAX_PROBLEMS = 100
"""Problems that are said of one file."""

log = logging.getLogger("mdaflow")


class Table(Generic[T]):
    """What `parse(content, path)` makes of a file: it raises ConfigError with all that is wrong.

    Of a `shared` one it is told, too, whether others than root and we could have written it. Never
    holds up whoever asks, but for the first time.
    """

    def __init__(self, path: str, parse: Callable[..., T], *, shared: bool = False) -> None:
        self.path = path
        self._parse = parse
        self._shared = shared
        self._value: T | None = None
        self._versions: Versions = {}
        self._trouble: tuple[str, ...] = ()
        self._look_at = 0.0
        self._lock = Lock()

    @classmethod
    def fixed(cls, value: T) -> Table[T]:
        """A table that stands in no file."""
        table = cls("", lambda text, path: value)
        table._value, table._look_at = value, float("inf")
        return table

    @property
    def last(self) -> T | None:
        """What was there when somebody looked; None if nobody has. Costs nothing."""
        return self._value

    def get(self) -> T:
        """The last good version. Raises TempFail when there never was one."""
        if time.monotonic() >= self._look_at:
            self._look()
        if self._value is None:
            raise TempFail(INTERNAL, "\n".join(self._trouble))
        return self._value

    def load(self) -> T:
        """The same, to begin with. Raises ConfigError with all that is wrong in the file."""
        try:
            return self.get()
        except TempFail as error:
            raise ConfigError(self._trouble) from error

    def _look(self) -> None:
        if not self._lock.acquire(blocking=self._value is None):
            return  # another thread is at it
        try:
            if (
                time.monotonic() >= self._look_at
                and not self._is_current()
                and not self._is_being_written()
            ):
                self._read()
            self._look_at = time.monotonic() + LOOK
        finally:
            self._lock.release()

    def _is_current(self) -> bool:
        seen = self._versions.items()
        return bool(seen) and all(version_of(path) == version for path, version in seen)

    def _is_being_written(self) -> bool:
        """Has it changed a moment ago, and is there an older version to go on with?"""
        if self._value is None:
            return False
        try:
            age = time.time() - os.stat(self.path).st_mtime
        except OSError:
            return False
        return 0 <= age < min(SETTLE, 2 * LOOK)

    def _read(self) -> None:
        most = MAX_SHARED if self._shared else MAX_TABLE
        reading = Reading(most, shared=self._shared)
        try:
            text = reading(self.path)
            if len(text) > most:
                raise ConfigError((f"{self.path}: larger than {most >> 20} MiB",))
            about = (reading.foreign,) if self._shared else ()
            self._value = self._parse(text, self.path, *about)
            self._trouble = ()
        except ConfigError as error:
            self._tell(error.problems)
        except OSError as error:
            self._tell((f"{self.path}: {error.strerror}",))
            if error.errno not in FOR_GOOD:  # the next look may find it
                return
        self._versions = reading.versions

    def _tell(self, trouble: tuple[str, ...]) -> None:
        """Log it, once, a record for each problem; without a good version whoever asks is told."""
        if trouble != self._trouble and self._value is not None:
            for problem in (*trouble, f"{self.path}: its last good version stays in force"):
                log.error("%s", problem)
        self._trouble = trouble


class Tables(Generic[S]):
    """Tables in files whose names stand in other tables, all read alike.

    Those that were not asked for longest go when there are too many, or too much is in them.
    """

    def __init__(self, parse: Callable[..., S], *, shared: bool = False) -> None:
        self._parse = parse
        self._shared = shared
        self._kept: OrderedDict[str, Table[S]] = OrderedDict()
        self._lock = Lock()

    def get(self, path: str) -> S:
        """What the file says. Raises TempFail."""
        with self._lock:
            table = self._kept.pop(path, None)
            if table is None:
                table = Table(path, self._parse, shared=self._shared)
                self._make_room()
            self._kept[path] = table
        return table.get()

    def _make_room(self) -> None:
        items = sum(len(table.last or ()) for table in self._kept.values())
        while self._kept and (len(self._kept) >= MAX_TABLES or items > MAX_ITEMS):
            _, gone = self._kept.popitem(last=False)
            items -= len(gone.last or ())
