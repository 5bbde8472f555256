"""A store in an SQLite file: shared by the processes of one machine, kept over restarts.

The file is opened at the first use, so after a fork; one connection serves all threads of a
process under a lock. Write-ahead logging lets readers and the writer work side by side. A
power cut may lose the last writes, never the file.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
BUSY = 5.0
"""Seconds to wait for another process that writes."""

_TABLE = "CREATE TABLE IF NOT EXISTS state (key TEXT PRIMARY KEY, value TEXT, until REAL)"
_GET = "SELECT value FROM state WHERE key = ? AND (until IS NULL OR until > ?)"
_PUT = "INSERT OR REPLACE INTO state VALUES (?, ?, ?)"
_ADD = """INSERT INTO state VALUES (?, ?, ?) ON CONFLICT (key) DO UPDATE
SET value = excluded.value, until = excluded.until WHERE until <= ?"""
_CLEAN = "DELETE FROM state WHERE until <= ?"


class SqliteStore:
    """See `Store`. `path` is the file; its folder is made when it is missing."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None

    def get(self, key: str) -> str | None:
        """The value, unless there is none or its time is over."""
        row = self._do(lambda db: db.execute(_GET, (key, time.time())).fetchone())
        return None if row is None else str(row[0])

    def put(self, key: str, value: str, seconds: float | None = None) -> None:
        """Keep a value, for so many seconds or for good."""
        until = None if seconds is None else time.time() + seconds
        self._do(lambda db: db.execute(_PUT, (key, value, until)))

    def add(self, key: str, value: str, seconds: float | None = None) -> bool:
        """Keep a value if there is none; whether it was kept. Of many at once, one does."""
        now = time.time()
        until = None if seconds is None else now + seconds
        return self._do(lambda db: db.execute(_ADD, (key, value, until, now)).rowcount == 1)

    def close(self) -> None:
        """Close the file; the next use opens it again."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _do(self, work: Callable[[sqlite3.Connection], T]) -> T:
        with self._lock:
            try:
                if self._connection is None:
                    self._connection = self._open()
                return work(self._connection)
            except (sqlite3.Error, ValueError) as error:
                raise OSError(f"{self._path}: {error}") from error

    def _open(self) -> sqlite3.Connection:
        os.makedirs(os.path.dirname(self._path), mode=0o700, exist_ok=True)
        db = sqlite3.connect(
            self._path, timeout=BUSY, isolation_level=None, check_same_thread=False
        )
        try:
            _log_ahead(db)
            db.execute("PRAGMA synchronous = NORMAL")
            db.execute(_TABLE)
            db.execute(_CLEAN, (time.time(),))
        except BaseException:
            db.close()
            raise
        return db


def _log_ahead(db: sqlite3.Connection) -> None:
    """Switch a new file to write-ahead logging, for which sqlite itself waits for nobody."""
    deadline = time.monotonic() + BUSY
    while True:
        try:
            db.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() >= deadline:
                raise
            time.sleep(0.01)
        else:
            return
