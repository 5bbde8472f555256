"""Counts of tokens in two classes of messages, in an SQLite file (see sqlite.py for its ways).

Messages are learned in one transaction: a process that is killed leaves whole messages. Each counts
once, as what it was learned last, because its name is kept with its class. Who reads waits for no
writer.

The file is bounded. When there are too many tokens, those go that were in few messages and not in
one for long: of some thousand neighbours, again and again, so that no index is needed and no writer
is held up. Keys have to be hashes, so that neighbours are any tokens. Time is told by the messages
that were learned, not by a clock. Of the names the last ones are kept.

Known limit: a token that went and came back is counted too low by what was forgotten meanwhile.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress

from .sqlite import WAIT, File

MOST_TOKENS = 500_000
MOST_NAMES = 100_000
WORTH = 2_000
"""By how many messages a token seems younger for each one that it was in."""

_CACHE = 16 << 10  # KiB of the file that a connection keeps in memory
_CACHE_OF_MANY = 1 << 10
_BULK = 8_000  # pages of 4 KiB that are written before the disk is waited for; else 1,000
_SLICE = 8_000  # tokens that are looked at for those that have to go: a quarter of them
_SMALLEST = -(2**63)
_SETUP = (
    "CREATE TABLE IF NOT EXISTS tokens (key INTEGER PRIMARY KEY, spam INT, ham INT, seen INT)",
    "CREATE TABLE IF NOT EXISTS names (name BLOB PRIMARY KEY, spam INT, seen INT UNIQUE)",
    "CREATE TABLE IF NOT EXISTS state (spam INT, ham INT, tokens INT, seen INT, hand INT)",
)
_FIRST = "INSERT INTO state SELECT 0, 0, 0, 0, ? WHERE NOT EXISTS (SELECT 1 FROM state)"
RECENT = 50_000
"""Tokens whose counts are kept in memory."""
RECENT_OF_MANY = 5_000
"""The same where many files are open: those of some messages."""
_GET = """SELECT tokens.key, CAST(spam AS INT), CAST(ham AS INT)
FROM json_each(?) AS asked CROSS JOIN tokens ON tokens.key = asked.value"""
_PUT = "INSERT OR REPLACE INTO tokens VALUES (?, ?, ?, ?)"
_TOTALS = "SELECT CAST(spam AS INT), CAST(ham AS INT) FROM state"
_NAME = "SELECT spam FROM names WHERE name = ?"
_STATE = "UPDATE state SET spam = spam + ?, ham = ham + ?, tokens = tokens + ?, seen = ?"
_NEXT = """SELECT key, spam + ham, CAST(seen AS INT)
FROM tokens WHERE key > ? ORDER BY key LIMIT ?"""

Pair = tuple[int, int]
Lesson = tuple[bytes, bool | None, Sequence[int]]
"""The name of a message, whether it is spam (None: forget it), and the keys of its tokens."""


class SqliteCounts:
    """Counts by the key of a token, and the class of each message by its name.

    `path` is the file, which the first message that is learned makes; `most` tokens and names are
    kept; `wait` is how many seconds a call may wait for others; `bulk`: much is learned, and the
    disk is waited for less often; `many`: so many files are open that each has little memory. All
    calls raise OSError.
    """

    def __init__(
        self,
        path: str,
        most: int = MOST_TOKENS,
        names: int = MOST_NAMES,
        wait: float = WAIT,
        bulk: bool = False,
        many: bool = False,
    ) -> None:
        self._most = most
        self._names = names
        self._most_recent = RECENT_OF_MANY if many else RECENT
        prepare = _prepare_one_of_many if many else _prepare
        self._reader = File(path, prepare, wait, _SETUP)
        self._writer = File(path, _prepare_much if bulk else prepare, wait, _SETUP)
        self._recent: dict[int, Pair | None] = {}
        """What was read of the file lately: most words of mail are in other mail, too."""
        self._version: tuple[sqlite3.Connection, int] | None = None
        """The file's when that was read."""

    def totals(self) -> Pair:
        """How many messages of each class were learned: spam, ham."""
        row = self._read(_TOTALS)
        return (row[0], row[1]) if row else (0, 0)

    def get(self, keys: Sequence[int]) -> Mapping[int, Pair]:
        """Of those tokens that are known, in how many messages of each class they were."""
        try:
            return self._reader.do(lambda db: self._look(db, keys), make=False)
        except FileNotFoundError:
            return {}

    def _look(self, db: sqlite3.Connection, keys: Sequence[int]) -> dict[int, Pair]:
        """The counts of those that are known; only what is not known lately is read."""
        version = db, db.execute("PRAGMA data_version").fetchone()[0]  # others' commits change it
        if version != self._version or len(self._recent) > self._most_recent:
            self._version, self._recent = version, {}
        recent = self._recent
        missing = [key for key in keys if key not in recent]
        if missing:
            recent.update(dict.fromkeys(missing) | _get(db, missing))
        return {key: found for key in keys if (found := recent[key]) is not None}

    def class_of(self, name: bytes) -> bool | None:
        """What the message of this name was learned as: whether as spam; None: not at all."""
        row = self._read(_NAME, name)
        return bool(row[0]) if row else None

    def learn(self, lessons: Sequence[Lesson]) -> list[bool]:
        """Count messages, all or none; of each, whether that is new. A message is counted by its
        name: as spam, as ham, or (None) no more."""
        if all(self.class_of(name) is spam for name, spam, _ in lessons):
            return [False] * len(lessons)
        return self._writer.do(lambda db: self._learn(db, lessons))

    def close(self) -> None:
        """Close the file; the next use opens it again."""
        self._reader.close()
        self._writer.close()

    def _read(self, statement: str, *values: object) -> tuple[int, ...] | None:
        """A row, if there is one."""
        found: tuple[int, ...] | None = None
        with suppress(FileNotFoundError):
            found = self._reader.do(lambda db: db.execute(statement, values).fetchone(), make=False)
        return found

    def _learn(self, db: sqlite3.Connection, lessons: Sequence[Lesson]) -> list[bool]:
        with db:
            db.execute("BEGIN IMMEDIATE")
            tokens, seen, hand = db.execute("SELECT tokens, seen, hand FROM state").fetchone()
            changes = _Changes(db, [key for _, _, keys in lessons for key in keys], seen)
            done = [self._note(db, lesson, changes) for lesson in lessons]
            more = changes.write()
            _make_room(db, tokens + more - self._most, hand)
        return done

    def _note(self, db: sqlite3.Connection, lesson: Lesson, changes: _Changes) -> bool:
        name, spam, keys = lesson
        row = db.execute(_NAME, (name,)).fetchone()
        before = bool(row[0]) if row else None
        if before is spam:
            return False
        more = (spam is True) - (before is True), (spam is False) - (before is False)
        seen = changes.count(keys, more)
        db.execute("DELETE FROM names WHERE name = ? OR seen <= ?", (name, seen - self._names))
        if spam is not None:
            db.execute("INSERT INTO names VALUES (?, ?, ?)", (name, spam, seen))
        return True


class _Changes:
    """What becomes of some tokens, in one transaction."""

    def __init__(self, db: sqlite3.Connection, keys: Iterable[int], seen: int) -> None:
        self._db = db
        self._known = _get(db, set(keys))
        self._after: dict[int, tuple[int, int, int]] = {}  # spam, ham, seen
        self._totals = [0, 0]
        self._seen = seen

    def count(self, keys: Iterable[int], more: Pair) -> int:
        """Count a message more of a class, or less; the number of the message."""
        self._seen += 1
        for of in (0, 1):
            self._totals[of] += more[of]
        for key in set(keys):
            spam, ham, *_ = self._after.get(key) or self._known.get(key, (0, 0))
            self._after[key] = max(0, spam + more[0]), max(0, ham + more[1]), self._seen
        return self._seen

    def write(self) -> int:
        """Write all of it; how many more tokens there are."""
        kept = sorted((key, *now) for key, now in self._after.items() if now[0] or now[1])
        gone = [(key,) for key, now in self._after.items() if not (now[0] or now[1])]
        self._db.executemany(_PUT, kept)
        self._db.executemany("DELETE FROM tokens WHERE key = ?", gone)
        more = sum(key not in self._known for key, *_ in kept)
        more -= sum(key in self._known for (key,) in gone)
        self._db.execute(_STATE, (*self._totals, more, self._seen))
        return more


def _prepare(db: sqlite3.Connection, cache: int = _CACHE) -> None:
    db.execute(f"PRAGMA cache_size = -{cache}")
    for table in _SETUP:
        db.execute(table)
    if db.execute("SELECT 1 FROM state").fetchone() is None:
        db.execute(_FIRST, (_SMALLEST,))


def _prepare_one_of_many(db: sqlite3.Connection) -> None:
    _prepare(db, _CACHE_OF_MANY)


def _prepare_much(db: sqlite3.Connection) -> None:
    _prepare(db)
    db.execute(f"PRAGMA wal_autocheckpoint = {_BULK}")


def _get(db: sqlite3.Connection, keys: Iterable[int]) -> dict[int, Pair]:
    """In their order, so that neighbours are read together."""
    asked = json.dumps(sorted(keys))
    return {key: (spam, ham) for key, spam, ham in db.execute(_GET, (asked,))}


def _make_room(db: sqlite3.Connection, over: int, hand: int) -> None:
    """Let so many tokens go and some more: from `hand` on those that were in few messages, and
    long ago."""
    while over > 0:
        rows = db.execute(_NEXT, (hand, _SLICE)).fetchall()
        hand = rows[-1][0] if len(rows) == _SLICE else _SMALLEST
        rows.sort(key=lambda row: row[2] + WORTH * row[1])
        gone = [(key,) for key, _, _ in rows[: len(rows) // 4 + 1]]
        db.executemany("DELETE FROM tokens WHERE key = ?", gone)
        db.execute("UPDATE state SET tokens = max(0, tokens - ?), hand = ?", (len(gone), hand))
        over = over - len(gone) if rows else 0
