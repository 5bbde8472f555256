"""An SQLite file that may be lost at any time, as all in it can be made again.

So it is not synced: a power cut may cost no more than that. It is made anew when it is broken or
has another schema. No write-ahead log: on a network disk several machines may share it as far as
its locks work.

The file and its folder must be nobody's but ours to be written, and are never made by root for a
user: who is somebody else looks only. As a user may have put anything in its place, no look takes
longer than it may, no value is larger than ours, and nothing of the file is run.
"""

from __future__ import annotations

import os
import sqlite3
import stat
import time
from collections.abc import Sequence
from contextlib import suppress
from errno import EPERM
from urllib.parse import quote

WAIT = 0.2
"""Seconds to wait for other processes."""
MAX_PAGES = 64 << 8
"""64 MiB of 4 KiB."""
LARGEST = 64 << 10
"""Bytes of a value."""

_PRAGMAS = (
    *("trusted_schema = OFF", "synchronous = OFF", "cache_size = -2000"),
    f"max_page_count = {MAX_PAGES}",
)


class CacheFile:
    """The file `path`, whose folder is made when only that is missing, with the tables of `schema`.

    For one thread at a time. Calls raise OSError and sqlite3.Error.
    """

    def __init__(self, path: str, schema: Sequence[str]) -> None:
        self.path = path
        self._schema = schema
        self._db: sqlite3.Connection | None = None
        self._inode = 0
        self._until = 0.0

    def open(self, seconds: float) -> sqlite3.Connection | None:
        """The file that is there now, the same object as long as it is the same file, to be used
        for so many seconds; None when there is none."""
        self._until = time.monotonic() + seconds
        try:
            about = os.lstat(self.path)
        except FileNotFoundError:
            self.close()
            return None
        if self._db is None or about.st_ino != self._inode:
            self.close()
            _refuse(self.path, about)
            mine = about.st_uid == os.geteuid()
            self._db, self._inode = self._connect("rw" if mine else "ro"), about.st_ino
        return self._db

    def create(self) -> None:
        """Make the file if it is missing."""
        folder = os.path.dirname(self.path)
        with suppress(FileExistsError):
            os.mkdir(folder, 0o700)
        about = os.lstat(folder)
        if not stat.S_ISDIR(about.st_mode) or about.st_uid != os.geteuid():
            raise OSError(EPERM, "a folder that is not ours", folder)
        with suppress(FileExistsError):
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))

    def remove(self) -> None:
        """Remove the file. Never raises."""
        self.close()
        for path in (self.path, f"{self.path}-journal"):
            with suppress(OSError):
                os.unlink(path)

    def close(self) -> None:
        """Close the file; what was not committed is not done. Never raises."""
        if self._db is not None:
            self._db.close()
        self._db = None

    def _connect(self, mode: str) -> sqlite3.Connection:
        db = sqlite3.connect(
            f"file:{quote(self.path)}?mode={mode}",
            uri=True,
            timeout=WAIT,
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LARGEST)
            db.set_progress_handler(lambda: time.monotonic() > self._until, 10_000)
            for pragma in _PRAGMAS:
                db.execute(f"PRAGMA {pragma}")
            found = {sql for (sql,) in db.execute("SELECT sql FROM sqlite_schema") if sql}
            if not found and mode == "rw":
                self._make(db)
            elif found != set(self._schema):
                raise sqlite3.DatabaseError("it is none of ours")
        except BaseException:
            db.close()
            raise
        return db

    def _make(self, db: sqlite3.Connection) -> None:
        db.execute("BEGIN IMMEDIATE")
        if not db.execute("SELECT 1 FROM sqlite_schema").fetchone():  # nobody was faster
            for statement in self._schema:
                db.execute(statement)
        db.execute("COMMIT")


def is_broken(error: Exception) -> bool:
    """Is the file itself to blame? Then it has to be made anew."""
    return type(error) is sqlite3.DatabaseError  # all else has a class of its own


def is_busy(error: Exception) -> bool:
    """Is another process at it?"""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (5, 6)  # SQLITE_BUSY, SQLITE_LOCKED


def _refuse(path: str, about: os.stat_result) -> None:
    """Raises OSError for what must not count."""
    folder = os.lstat(os.path.dirname(path))
    owners = (0, os.geteuid(), folder.st_uid)
    if not (stat.S_ISREG(about.st_mode) and about.st_nlink == 1 and about.st_uid in owners):
        raise OSError(EPERM, "not a file of its owner", path)
    if not stat.S_ISDIR(folder.st_mode):
        raise OSError(EPERM, "in a folder that is a symbolic link", path)
