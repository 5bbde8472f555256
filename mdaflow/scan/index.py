"""What is known of the messages of some folders: an SQLite file that follows them.

Each message is read once, and what is taken of it are prints: pairs of numbers, of which the first
is looked up. A message that is gone takes its prints with it, unless they are to be kept. At most
`most` messages count; the oldest go.

A delivery never waits for a large folder: it reads on for `SECONDS` where the one before has ended,
also in another process, and uses what there is. Processes share the file (see cache.py).

Known limit: what is gone is noticed by a process that has gone through the whole folder, which one
that ends after a delivery has no time for in one of many thousand messages.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import struct
import threading
import time
from collections.abc import Callable, Collection, Container, Iterable, Iterator, Sequence
from contextlib import contextmanager
from errno import EBUSY
from struct import iter_unpack, pack

from .cache import WAIT, CacheFile, is_broken, is_busy
from .letters import Folder, Letter, Opened, Version

SECONDS = 0.02
"""Seconds for which a delivery reads folders."""
PAUSE = 5.0
"""Seconds after which a folder that changes all the time is looked at again."""
LONGEST = 0.5
"""Seconds that a look may take."""
FRESH = 2.0
"""Seconds for which a change may have the time of the next one."""
MAX_VALUES = 500
"""Values that are compared with a print."""
AT_MOST = 1_000
"""Messages that are dropped at once."""
AT_ONCE = 20_000
"""Keys that are held in memory, so that they need not be looked up."""

Print = tuple[int, int]
Take = Callable[[bytes], Collection[Print]]
"""The prints of a message; never raises."""

log = logging.getLogger("mdaflow")

_SCHEMA = (
    "CREATE TABLE letters (key INTEGER PRIMARY KEY, place INTEGER, changed INTEGER, prints BLOB)",
    "CREATE INDEX letters_changed ON letters (changed)",
    "CREATE TABLE places (place INTEGER PRIMARY KEY, version TEXT, begun TEXT, at INTEGER)",
    "CREATE TABLE prints (look INTEGER, value INTEGER, letters INTEGER,"
    " PRIMARY KEY (look, value)) WITHOUT ROWID",
)
_ADD = """INSERT INTO prints VALUES (?, ?, 1)
ON CONFLICT (look, value) DO UPDATE SET letters = letters + 1"""
_LESS = "UPDATE prints SET letters = letters - 1 WHERE look = ? AND value = ?"
_NONE = "DELETE FROM prints WHERE look = ? AND value = ? AND letters <= 0"
_SOME = "SELECT key, place, prints FROM letters WHERE key > ? ORDER BY key LIMIT 100"
_OLDEST = "SELECT key, prints FROM letters ORDER BY changed LIMIT ?"


class Index:
    """What `take` makes of each message in some folders, of which at most `head` bytes are read.

    `path` is its file, whose folder is made when only that is missing. All calls may come from
    many threads.
    """

    def __init__(
        self,
        path: str,
        folders: Sequence[Folder],
        take: Take,
        *,
        most: int,
        head: int,
        keep: bool = False,
        pause: float = PAUSE,
    ) -> None:
        self._file, self._folders, self._take = CacheFile(path, _SCHEMA), folders, take
        self._most, self._head, self._keep, self._pause = most, head, keep, pause
        self._lock = threading.Lock()
        self._work: Iterator[object] | None = None
        self._worked_on: sqlite3.Connection | None = None
        self._rests_until = 0.0
        self._came_to: tuple[object, ...] = ()
        self._told = ""

    # what is asked

    def has(self, prints: Iterable[Print]) -> bool:
        """Is one of these prints known? Raises OSError when that cannot be told."""
        one = "SELECT 1 FROM prints WHERE look = ? AND value = ?"
        with self._looking() as db:
            return db is not None and any(db.execute(one, p).fetchone() for p in prints)

    def values(self, looks: Iterable[int]) -> set[int]:
        """The values of prints that are found under some numbers. Raises OSError."""
        some = "SELECT CAST(value AS INT) FROM prints WHERE look = ? LIMIT ?"
        with self._looking() as db:
            if db is None:
                return set()
            return {v for look in looks for (v,) in db.execute(some, (look, MAX_VALUES))}

    def refresh(self, seconds: float = SECONDS) -> bool:
        """Read on in the folders for so long; whether all is read. Never raises.

        Others may look and write every `SECONDS`. Does nothing when another thread is at it, or the
        index is not ours to write.
        """
        until = time.monotonic() + seconds
        while True:
            now = time.monotonic()
            done = self._refresh(min(until, now + SECONDS))
            if done is not False or time.monotonic() >= until:
                return bool(done)

    def close(self) -> None:
        """Close the file; the next use opens it again."""
        with self._lock:
            self._stop()

    @contextmanager
    def _looking(self) -> Iterator[sqlite3.Connection | None]:
        """The file to be looked into; None when there is none yet."""
        if not self._lock.acquire(timeout=WAIT):
            raise OSError(EBUSY, "others are at it", self._file.path)
        try:
            yield self._file.open(LONGEST)
        except sqlite3.Error as error:
            self._stop()
            raise OSError(f"{self._file.path}: {error}") from error
        finally:
            self._lock.release()

    def _stop(self) -> None:
        self._work = None
        self._file.close()

    def _tell(self, error: Exception) -> None:
        """Say once what is wrong; that somebody else is at it is nothing."""
        if not is_busy(error) and str(error) != self._told:
            self._told = str(error)
            log.warning("%s: %s", self._file.path, error)

    # following the folders

    def _refresh(self, until: float) -> bool | None:
        """Whether all is read; None when that cannot be."""
        if not self._lock.acquire(blocking=False):
            return None
        try:
            return self._go_on(until)
        except (OSError, sqlite3.Error) as error:
            self._stop()
            if is_broken(error):
                self._file.remove()
            self._tell(error)
            return None
        except (struct.error, TypeError, ValueError) as error:  # nothing that we have written
            self._stop()
            self._file.remove()
            self._tell(error)
            return None
        finally:
            self._lock.release()

    def _go_on(self, until: float) -> bool | None:
        if self._work is None and time.monotonic() < self._rests_until:
            return True
        paths = (self._file.path, *(folder.path for folder in self._folders))
        if not any(map(os.path.lexists, paths)):
            return True  # nothing to begin with
        self._file.create()
        db = self._file.open(until - time.monotonic() + LONGEST)
        if db is None:
            return None
        if self._work is None or db is not self._worked_on:
            self._work, self._worked_on, self._came_to = self._follow(db), db, ()
        for _ in self._work:
            if time.monotonic() >= until:
                self._note(db)
                self._commit(db)
                return False
        self._commit(db)
        self._work = None
        return True

    def _commit(self, db: sqlite3.Connection) -> None:
        if not db.in_transaction:
            return
        (count,) = db.execute("SELECT count(*) FROM letters").fetchone()
        if count > self._most:
            over = min(count - self._most, AT_MOST)
            for key, prints in db.execute(_OLDEST, (over,)).fetchall():
                self._drop(db, key, prints)
        db.execute("COMMIT")

    def _follow(self, db: sqlite3.Connection) -> Iterator[object]:
        for folder in self._folders:
            try:
                with Opened(folder) as opened:
                    yield from self._read(db, folder.key, opened)
            except FileNotFoundError:
                continue  # its disk may be away: what is known of it stays
            except OSError as error:
                log.debug("%s: %s", folder.path, error)

    def _read(self, db: sqlite3.Connection, place: int, opened: Opened) -> Iterator[object]:
        """Go once through a folder, from where the last one had to end."""
        version = opened.version
        one = "SELECT version, begun, at FROM places WHERE place = ?"
        before, begun, at = db.execute(one, (place,)).fetchone() or ("", "", 0)
        if before == repr(version):
            return
        self._rests_until = time.monotonic() + self._pause
        if opened.is_mbox:
            at = opened.begins_at(at)
            yield from self._sweep(db, place, ()) if at == 0 else ()
        start, begun, met = at, (at and begun) or repr(version), set[int]()
        known = _Known(db)
        for letter in opened.letters(known, self._head, at):
            if letter is not None:
                if len(met) <= self._most:
                    met.add(letter.key)
                self._add(db, place, letter)
                at = letter.end
            self._came_to = place, "", begun, at
            yield None
        version = opened.version
        same = begun == repr(version)
        if same and start == 0 and not opened.is_mbox and len(met) <= self._most:
            yield from self._sweep(db, place, met)
        done = repr(version) if same and not _is_fresh(version) else ""
        self._came_to = place, done, "", version.size
        self._note(db)

    def _note(self, db: sqlite3.Connection) -> None:
        """Where the next process goes on."""
        if self._came_to:
            self._write(db, "INSERT OR REPLACE INTO places VALUES (?, ?, ?, ?)", *self._came_to)
        self._came_to = ()

    def _add(self, db: sqlite3.Connection, place: int, letter: Letter) -> None:
        if letter.raw is not None:
            prints = self._prints(letter.raw)
            held = b"".join(pack("qq", *print) for print in prints)
            row = letter.key, place, letter.changed, held
            if self._write(db, "INSERT OR IGNORE INTO letters VALUES (?, ?, ?, ?)", *row):
                db.executemany(_ADD, prints)  # else another process was faster

    def _prints(self, raw: bytes) -> list[Print]:
        """Those of a message. One that breaks `take` has none, so that it is not read again with
        all mail that comes."""
        try:
            return list(dict.fromkeys(self._take(raw)))
        except Exception:
            log.exception("%s: a message has no prints", self._file.path)
            return []

    def _sweep(self, db: sqlite3.Connection, place: int, met: Container[int]) -> Iterator[object]:
        """Drop what was not met in a place."""
        if self._keep:
            return
        last = -1
        while some := db.execute(_SOME, (last,)).fetchall():
            for key, its_place, prints in some:
                if its_place == place and key not in met:
                    self._drop(db, key, prints)
                last = key
            yield None

    def _drop(self, db: sqlite3.Connection, key: int, held: bytes) -> None:
        if self._write(db, "DELETE FROM letters WHERE key = ?", key):
            prints = list(iter_unpack("qq", held))
            db.executemany(_LESS, prints)
            db.executemany(_NONE, prints)

    def _write(self, db: sqlite3.Connection, statement: str, *values: object) -> int:
        """The number of rows that it was."""
        if not db.in_transaction:
            db.execute("BEGIN IMMEDIATE")
        return db.execute(statement, values).rowcount


class _Known:
    """The messages that are known, by key: as they were, and as they are by now."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._before = {key for (key,) in db.execute("SELECT key FROM letters LIMIT ?", (AT_ONCE,))}

    def __contains__(self, key: object) -> bool:
        one = "SELECT 1 FROM letters WHERE key = ?"
        return key in self._before or self._db.execute(one, (key,)).fetchone() is not None


def _is_fresh(version: Version) -> bool:
    """The next change may have the same time: a clock of files has ticks."""
    return any(abs(time.time() - changed / 1e9) < FRESH for changed in version.changed)
