"""What is known of the messages of some folders: an SQLite file that follows them.

Each message is read once, and what is taken of it are prints: pairs of numbers, of which the first
is looked up. A message that is gone takes its prints with it, unless they are to be kept. At most
`most` messages count; the oldest go.

A delivery never waits for a large folder: it reads on for `SECONDS` where the one before has ended,
also in another process, and uses what there is. Processes share the file. It may be deleted at any
time, and is made anew when it is none of ours: so it is not synced, and a power cut may cost no
more than that. No write-ahead log: on a network disk several machines may share it as far as its
locks work.

The file and its folder must be nobody's but ours, and are never made by root for a user; what a
user has put there in its place is not believed for long.

Known limit: what is gone is noticed by a process that has gone through the whole folder, which one
that ends after a delivery has no time for in one of many thousand messages.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import stat
import threading
import time
from collections.abc import Callable, Collection, Container, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from errno import EBUSY, EPERM
from struct import iter_unpack, pack
from urllib.parse import quote

from .letters import Folder, Letter, Opened, Version

SECONDS = 0.02
"""Seconds for which a delivery reads folders."""
PAUSE = 5.0
"""Seconds after which a folder that changes all the time is looked at again."""
WAIT = 0.2
"""Seconds to wait for others."""
LONGEST = 0.5
"""Seconds that a look may take."""
FRESH = 2.0
"""Seconds for which a change may have the time of the next one."""
MAX_VALUES = 500
"""Values that are compared with a print."""
AT_ONCE = 20_000
"""Keys that are held in memory, so that they need not be looked up."""
MAX_PAGES = 64 << 8
"""64 MiB of 4 KiB."""

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
_BUSY = (5, 6)  # SQLITE_BUSY, SQLITE_LOCKED
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
        self._path, self._folders, self._take = path, folders, take
        self._most, self._head, self._keep, self._pause = most, head, keep, pause
        self._paths = [folder.path for folder in folders]
        self._lock = threading.Lock()
        self._db: sqlite3.Connection | None = None
        self._inode = 0
        self._until = 0.0
        self._work: Iterator[object] | None = None
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
        some = "SELECT value FROM prints WHERE look = ? LIMIT ?"
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

    # the file

    @contextmanager
    def _looking(self) -> Iterator[sqlite3.Connection | None]:
        """The file to be looked into; None when there is none yet."""
        if not self._lock.acquire(timeout=WAIT):
            raise OSError(EBUSY, "others are at it", self._path)
        try:
            self._until = time.monotonic() + LONGEST
            yield self._opened()
        except sqlite3.Error as error:
            self._stop()
            raise OSError(f"{self._path}: {error}") from error
        finally:
            self._lock.release()

    def _opened(self) -> sqlite3.Connection | None:
        """The file that is there now. Raises OSError, sqlite3.Error."""
        try:
            about = os.lstat(self._path)
        except FileNotFoundError:
            self._stop()
            return None
        if self._db is None or about.st_ino != self._inode:
            self._stop()
            _refuse(self._path, about)
            mine = about.st_uid == os.geteuid()
            self._db, self._inode = self._connect("rw" if mine else "ro"), about.st_ino
        return self._db

    def _connect(self, mode: str) -> sqlite3.Connection:
        db = sqlite3.connect(
            f"file:{quote(self._path)}?mode={mode}",
            uri=True,
            timeout=WAIT,
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            db.set_progress_handler(lambda: time.monotonic() > self._until, 10_000)
            for pragma in ("trusted_schema = OFF", "synchronous = OFF", "cache_size = -2000"):
                db.execute(f"PRAGMA {pragma}")
            db.execute(f"PRAGMA max_page_count = {MAX_PAGES}")
            found = {sql for (sql,) in db.execute("SELECT sql FROM sqlite_schema") if sql}
            if not found and mode == "rw":
                self._make(db)
            elif found != set(_SCHEMA):
                raise sqlite3.DatabaseError("it is none of ours")
        except BaseException:
            db.close()
            raise
        return db

    def _make(self, db: sqlite3.Connection) -> None:
        db.execute("BEGIN IMMEDIATE")
        if not db.execute("SELECT 1 FROM sqlite_schema").fetchone():  # nobody was faster
            for statement in _SCHEMA:
                db.execute(statement)
        db.execute("COMMIT")

    def _create(self) -> None:
        """Make the file if it is missing. Raises OSError."""
        folder = os.path.dirname(self._path)
        with suppress(FileExistsError):
            os.mkdir(folder, 0o700)
        about = os.lstat(folder)
        if not stat.S_ISDIR(about.st_mode) or about.st_uid != os.geteuid():
            raise OSError(EPERM, "a folder that is not ours", folder)
        with suppress(FileExistsError):
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))

    def _stop(self) -> None:
        self._work, self._came_to = None, ()
        if self._db is not None:
            self._db.close()
        self._db = None

    def _tell(self, error: Exception) -> None:
        """Say once what is wrong; that somebody else is at it is nothing."""
        busy = getattr(error, "sqlite_errorcode", 0) & 0xFF in _BUSY
        if not busy and str(error) != self._told:
            self._told = str(error)
            log.warning("%s: %s", self._path, error)

    def _forget(self) -> None:
        for path in (self._path, f"{self._path}-journal"):
            with suppress(OSError):
                os.unlink(path)

    # following the folders

    def _refresh(self, until: float) -> bool | None:
        """Whether all is read; None when that cannot be."""
        if not self._lock.acquire(blocking=False):
            return None
        try:
            return self._go_on(until)
        except (OSError, sqlite3.Error) as error:
            self._stop()
            if type(error) is sqlite3.DatabaseError:  # it is broken, or none of ours
                self._forget()
            self._tell(error)
            return None
        finally:
            self._lock.release()

    def _go_on(self, until: float) -> bool | None:
        if self._work is None and time.monotonic() < self._rests_until:
            return True
        if not any(os.path.lexists(path) for path in (self._path, *self._paths)):
            return True  # nothing to begin with
        self._create()
        self._until = until + LONGEST
        db = self._opened()
        if db is None:
            return None
        self._work = self._work or self._follow(db)
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
            for key, prints in db.execute(_OLDEST, (count - self._most,)).fetchall():
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
            prints = list(dict.fromkeys(self._take(letter.raw)))
            held = b"".join(pack("qq", *print) for print in prints)
            row = letter.key, place, letter.changed, held
            if self._write(db, "INSERT OR IGNORE INTO letters VALUES (?, ?, ?, ?)", *row):
                db.executemany(_ADD, prints)  # else another process was faster

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


def _refuse(path: str, about: os.stat_result) -> None:
    """Raises OSError for what must not count."""
    folder = os.lstat(os.path.dirname(path))
    owners = (0, os.geteuid(), folder.st_uid)
    if not (stat.S_ISREG(about.st_mode) and about.st_nlink == 1 and about.st_uid in owners):
        raise OSError(EPERM, "not a file of its owner", path)
    if not stat.S_ISDIR(folder.st_mode):
        raise OSError(EPERM, "in a folder that is a symbolic link", path)
