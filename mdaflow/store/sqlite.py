"""A store in an SQLite file: shared by the processes of one machine, kept over restarts.

A file is opened at the first use, so after a fork; one connection serves all threads of a
process under a lock. Write-ahead logging lets readers and the writer work side by side. A
power cut may lose the last writes, never the file.

No delivery waits for it long: a call gives up after `WAIT`, and when one has waited in vain for
another process, the next ones fail at once for `REST`, as mail goes on without a store. Reading
needs no lock of a writer. Rows whose time is over go a few at a time, with every write.

When a time is over is told by clock.py, whose mark is a row of its own.

In the home of a user anything may lie in the place of such a file, and views can give any number
of rows of any size for one of the file. So there it has to hold the very tables that we make, none
of its values is larger than ours, and no call takes long.
"""

from __future__ import annotations

import os
import sqlite3
import stat
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from errno import EBUSY, EPERM
from typing import TypeVar

from . import clock

T = TypeVar("T")
WAIT = 0.2
"""Seconds that a call may wait for others."""
REST = 2.0
"""Seconds for which nobody waits again, when somebody has waited in vain."""

LONGEST = 2.0
"""Seconds that a call may take besides, in a file that others could have put there."""
LARGEST = 8 << 20
"""Bytes of a value in such a file, or of a statement about it."""
MOST_BYTES = 128 << 20
"""Bytes of such a file; we make it half as large at most."""

NOTED = 60.0
"""Seconds after which a write notes what time it is."""

_CLOCK = "clock"  # the key of the mark; all others have a blank
_BUSY = (5, 6)  # SQLITE_BUSY, SQLITE_LOCKED
_TABLE = "CREATE TABLE IF NOT EXISTS state (key TEXT PRIMARY KEY, value TEXT, until REAL)"
_INDEX = "CREATE INDEX IF NOT EXISTS state_until ON state (until) WHERE until IS NOT NULL"
_GET = "SELECT value FROM state WHERE key = ? AND (until IS NULL OR until > ?)"
_PUT = "INSERT OR REPLACE INTO state VALUES (:key, :value, :until)"
_ADD = """INSERT INTO state VALUES (:key, :value, :until) ON CONFLICT (key) DO UPDATE
SET value = excluded.value, until = excluded.until WHERE until <= :now"""
_CLEAN = "DELETE FROM state WHERE key IN (SELECT key FROM state WHERE until <= ? LIMIT 10)"


class File:
    """An SQLite file. `prepare` makes in it what is missing, when it is opened; `wait` is how many
    seconds a call may wait for others. `schema`: in a place where others could have put one, what
    it is made with; it may have nothing else in it."""

    def __init__(
        self,
        path: str,
        prepare: Callable[[sqlite3.Connection], None],
        wait: float = WAIT,
        schema: Sequence[str] = (),
    ) -> None:
        self._path = path
        self._prepare = prepare
        self._wait = wait
        self._schema = {statement.replace("IF NOT EXISTS ", "") for statement in schema}
        self._ends = 0.0
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._inode = 0
        self._rests_until = 0.0

    def do(self, work: Callable[[sqlite3.Connection], T], *, make: bool = True) -> T:
        """What some work gives. Unless `make`, a file that is missing stays so. Raises OSError."""
        until = time.monotonic() + self._wait
        if not self._lock.acquire(timeout=self._wait):
            raise OSError(EBUSY, "others are at it", self._path)
        self._ends = time.monotonic() + self._wait + LONGEST
        try:
            return self._try(work, until, make)
        except (sqlite3.Error, ValueError) as error:
            raise OSError(f"{self._path}: {error}") from error
        finally:
            self._lock.release()

    def close(self) -> None:
        """Close the file; the next use opens it again."""
        with self._lock:
            self._drop()

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _opened(self, make: bool) -> sqlite3.Connection:
        """The file that is there now: who has removed a broken one, or put another one in its
        place, need not start the server again."""
        if self._connection is not None and self._moved():
            self._drop()
        if self._connection is None:
            self._connection = self._open(make)
            self._inode = os.stat(self._path).st_ino
        return self._connection

    def _moved(self) -> bool:
        try:
            return os.stat(self._path).st_ino != self._inode
        except FileNotFoundError:
            return True
        except OSError:  # nobody can tell
            return False

    def _try(self, work: Callable[[sqlite3.Connection], T], until: float, make: bool) -> T:
        """Do it as soon as no other process is in the way, for which sqlite itself waits in some
        cases and in some it does not."""
        while True:
            try:
                return work(self._opened(make))
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF not in _BUSY:
                    raise
                now = time.monotonic()
                if now < self._rests_until:
                    raise
                if now >= until:
                    self._rests_until = now + REST
                    raise
            time.sleep(0.001 + os.urandom(1)[0] / 50_000)  # at random, so as not to march in step

    def _open(self, make: bool) -> sqlite3.Connection:
        if make:
            os.makedirs(os.path.dirname(self._path), mode=0o700, exist_ok=True)
        else:
            os.lstat(self._path)
        if self._schema:
            _claim(self._path)
        db = sqlite3.connect(self._path, timeout=0, isolation_level=None, check_same_thread=False)
        try:
            if self._schema:
                self._distrust(db)
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = NORMAL")
            self._prepare(db)
        except BaseException:
            db.close()
            raise
        return db

    def _distrust(self, db: sqlite3.Connection) -> None:
        """Bound what a file can make us do that somebody else has written. Raises OSError."""
        db.set_progress_handler(lambda: time.monotonic() > self._ends, 10_000)
        db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LARGEST)
        db.execute("PRAGMA trusted_schema = OFF")
        db.execute(f"PRAGMA max_page_count = {MOST_BYTES // 2 // 4096}")
        for (statement,) in db.execute("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL"):
            if statement not in self._schema:
                raise OSError(EPERM, "is no file of ours", self._path)


def _claim(path: str) -> None:
    """Make a file that nobody else reads, or be sure that it is ours. Raises OSError.

    One that is there is not opened: to close it would end the locks of this process on it.
    """
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    about = os.lstat(path)
    ours = stat.S_ISREG(about.st_mode) and about.st_uid == os.geteuid()
    if not ours or about.st_size > MOST_BYTES:
        raise OSError(EPERM, "is no file of ours", path)


class SqliteStore:
    """See `Store`. `path` is the file; its folder is made when it is missing. `private`: in a
    place where others could have put one."""

    def __init__(self, path: str, *, private: bool = False) -> None:
        schema = (_TABLE, _INDEX) if private else ()
        self._file = File(path, self._prepare, schema=schema)
        self._mark = clock.Mark("", 0.0, 0.0, 0.0)

    def get(self, key: str) -> str | None:
        """The value, unless there is none or its time is over."""
        row = self._file.do(lambda db: db.execute(_GET, (key, self._mark.now())).fetchone())
        return None if row is None else str(row[0])

    def put(self, key: str, value: str, seconds: float | None = None) -> None:
        """Keep a value, for so many seconds or for good."""
        self._write(_PUT, key, value, seconds)

    def add(self, key: str, value: str, seconds: float | None = None) -> bool:
        """Keep a value if there is none; whether it was kept. Of many at once, one does."""
        return self._write(_ADD, key, value, seconds) == 1

    def close(self) -> None:
        """Close the file; the next use opens it again."""
        self._file.close()

    def _write(self, statement: str, key: str, value: str, seconds: float | None) -> int:
        """Write one row; how many it were."""

        def write(db: sqlite3.Connection) -> int:
            now = self._mark.now()
            row = {"key": key, "value": value, "now": now}
            row["until"] = None if seconds is None else now + seconds
            with db:  # one transaction, so that it costs one
                db.execute("BEGIN IMMEDIATE")
                db.execute(_CLEAN, (now,))
                if now - self._mark.last > NOTED:
                    self._note(db, clock.begin(self._mark))
                return db.execute(statement, row).rowcount

        return self._file.do(write)

    def _prepare(self, db: sqlite3.Connection) -> None:
        db.execute(_TABLE)
        db.execute(_INDEX)
        row = db.execute(_GET, (_CLOCK, 0.0)).fetchone()
        before = None if row is None else clock.parse(str(row[0]))
        self._mark = clock.begin(before)
        if before is None or before.boot != self._mark.boot:
            with suppress(sqlite3.OperationalError):  # somebody writes: the next one will
                self._note(db, self._mark)

    def _note(self, db: sqlite3.Connection, mark: clock.Mark) -> None:
        db.execute(_PUT, {"key": _CLOCK, "value": clock.written(mark), "until": None})
        self._mark = mark
