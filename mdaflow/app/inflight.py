"""What each worker is at, in memory that its master sees: a message that stops workers must not
come back for ever.

A thread notes the message that it finds facts of and runs rules on, and takes the note away
afterwards. When a worker dies, the master reads what it was at: each such message gets a strike.
Who has two is delivered without rules. A run that ends, well or with an error, takes the strikes
back: others were to blame. Only a run for the recipient who was struck can: a message may kill
by the rules of one of its recipients. The worker's event loop also counts beats here, so that
the master sees a worker that hangs.

A thread is at one thing at a time: while a scanner looks, it is not at the rules that have asked.

The memory is anonymous and shared (mmap(2)), made by the master before it forks. Nobody waits
for a lock: a row has one writer, and the master reads the rows of the dead only. Of strikes the
master is the writer, and workers set a count to none, one byte: at worst a strike that is taken
back while the next one is counted stays. What is half written is taken for nothing: a row is void
while it is filled. A copy of what a message is known by costs 1 µs for 4 KB, its digest 6 µs: so
that is made of the dead, and once there are strikes.

Known limits: all messages that a worker was at get a strike when it dies, so an innocent one
that was there twice, with no end of a run between, goes without rules, too. Strikes of a message
that was there for several recipients at once are not taken back. What a message breaks outside
of its rules is not noted. A new master knows of no strikes.
"""

from __future__ import annotations

import struct
import threading
import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from hashlib import blake2b
from mmap import mmap

from mdaflow.mail.envelope import Envelope
from mdaflow.mail.message import Message

RULES = 0
"""What a message was at: finding facts and running rules. A scanner gets a number of its own."""
TWO = 2
"""Strikes with which a message is spared what it was at."""
MAX_STRUCK = 4096
"""Messages with strikes that are remembered; the oldest go first."""
DAY = 86_400.0
"""Seconds after which a strike is forgotten."""

DEPTH = 2
"""What a thread can be at, one in another: rules, and a scanner that they ask."""

HEAD = 64 << 10
TAIL = 4 << 10
"""Bytes of a message by which it is known again, at its beginning and its end."""
ABOUT = 1 << 10
"""Bytes of its size and sender."""


def known_by(message: Message, envelope: Envelope) -> bytes:
    """What a message is known by when it comes again."""
    raw, size = message.raw, len(message.raw)
    about = f"{size} {envelope.sender}\0".encode("utf-8", "surrogateescape")[:ABOUT]
    tail = raw[max(HEAD, size - TAIL) :] if size > HEAD else b""
    return b"".join((about, raw[:HEAD], tail))


def mark(known: bytes, what: int = RULES) -> bytes:
    """The short form of: this message was at this."""
    return bytes((what,)) + blake2b(known, digest_size=16).digest()


def described(marks: Collection[bytes]) -> str:
    """What messages were at, in words: `the rules of 2 messages, scanners[0] with 1 messages`."""
    found = Counter(noted[0] for noted in marks)
    return ", ".join(f"{_name(what)} {found[what]} messages" for what in sorted(found))


def _name(what: int) -> str:
    """Our own tests are the first scanner, before those of the configuration."""
    if what == RULES:
        return "the rules of"
    return "the tests of spam of" if what == 1 else f"scanners[{what - 2}] with"


_FIRST = 32
"""Where the rows begin; before them is a counter."""


class Strikes:
    """The messages that have stopped workers. The master counts, workers look, and take back."""

    _ROW = 40
    """Bytes: a mark of 17, the strikes in one, at 24 whose run it was, at 32 when all this is
    forgotten."""
    _COUNT, _WHOSE, _UNTIL = 17, 24, 32

    def __init__(self) -> None:
        self._shared = mmap(-1, _FIRST + MAX_STRUCK * self._ROW)
        self._rows = memoryview(self._shared).cast("Q")
        """The first number is that of the rows that were ever filled; the oldest go first."""

    def add(self, marks: Mapping[bytes, int]) -> None:
        """A worker has died with these, for these recipients. Only the master may call this."""
        now = time.monotonic()
        for struck, whose in marks.items():
            at = self._find(struck)
            at = self._new(struck) if at < 0 else at
            count, until = self._look(at)
            self._shared[at + self._COUNT] = min(count + 1, TWO) if now < until else 1
            struct.pack_into("qd", self._shared, at + self._WHOSE, whose, now + DAY)

    def out(self, known: bytes, what: int = RULES) -> bool:
        """It has two strikes."""
        at = self._row(known, what)
        if at < 0:
            return False
        count, until = self._look(at)
        return count >= TWO and time.monotonic() < until

    def take_back(self, known: bytes, what: int, whose: int) -> None:
        """A run for this recipient has ended."""
        at = self._row(known, what)
        if at >= 0 and struct.unpack_from("q", self._shared, at + self._WHOSE) == (whose,):
            self._shared[at + self._COUNT] = 0

    def _row(self, known: bytes, what: int) -> int:
        return self._find(mark(known, what)) if self._rows[0] else -1

    def _look(self, at: int) -> tuple[int, float]:
        [until] = struct.unpack_from("d", self._shared, at + self._UNTIL)
        return self._shared[at + self._COUNT], until

    def _find(self, mark: bytes) -> int:
        """The row of a mark; -1 when there is none."""
        used = min(self._rows[0], MAX_STRUCK)
        at = self._shared.find(mark, _FIRST, _FIRST + used * self._ROW)
        return at if (at - _FIRST) % self._ROW == 0 else -1  # else it is in two rows by chance

    def _new(self, mark: bytes) -> int:
        """A row for a mark, without strikes: whoever sees half a mark sees none."""
        used = self._rows[0]
        at = _FIRST + used % MAX_STRUCK * self._ROW
        self._shared[at + self._COUNT] = 0
        self._shared[at : at + len(mark)] = mark
        self._rows[0] = used + 1
        return at


class InFlight:
    """What one worker is at: rows for each of its threads, and the beats of its event loop."""

    _HEAD = 16
    _ROW = _HEAD + ABOUT + HEAD + TAIL
    """Bytes: whether it is filled, what the message is at, at 4 the length of what follows, at 8
    for whom. Most are never touched, and so take no memory."""

    def __init__(self, threads: int, strikes: Strikes) -> None:
        self._strikes = strikes
        self._thread = threading.local()
        """`at` is the row that the thread has filled last; 0 for none."""
        self._shared = mmap(-1, _FIRST + DEPTH * threads * self._ROW)
        self._beats = memoryview(self._shared).cast("Q")
        self._rows = range(_FIRST, len(self._shared), self._ROW)
        self._free = list(self._rows)

    def beat(self) -> None:
        """The worker's event loop moves."""
        self._beats[0] += 1

    @property
    def beats(self) -> int:
        """How often it did."""
        return self._beats[0]

    @contextmanager
    def noted(self, message: Message, envelope: Envelope, what: int = RULES) -> Iterator[bool]:
        """Note a message for as long as this is open. True: it has two strikes, so spare it."""
        known = known_by(message, envelope)
        if self._strikes.out(known, what):
            yield True
            return
        whose = hash(envelope.recipient)  # the same in all workers of a master: they are forks
        outer = getattr(self._thread, "at", 0) if what != RULES else 0
        at = self._fill(known, what, whose)
        if at and outer:
            self._shared[outer] = 0
        self._thread.at = at or outer
        try:
            yield False
        finally:
            self._thread.at = outer
            if at:
                self._shared[at] = 0
                self._free.append(at)
            if at and outer:
                self._shared[outer] = 1
            self._strikes.take_back(known, what, whose)

    def _fill(self, known: bytes, what: int, whose: int) -> int:
        """Where a row is filled; 0 when there are more threads than we were told of."""
        try:
            at = self._free.pop()
        except IndexError:
            return 0
        start = at + self._HEAD
        self._shared[start : start + len(known)] = known
        struct.pack_into("<BxxIq", self._shared, at + 1, what, len(known), whose)
        self._shared[at] = 1
        return at

    @property
    def marks(self) -> dict[bytes, int]:
        """The messages that the worker is at, or was when it died, and for whom; 0 is several."""
        found: dict[bytes, int] = {}
        for at in self._rows:
            if self._shared[at]:
                what, length, whose = struct.unpack_from("<BxxIq", self._shared, at + 1)
                start = at + self._HEAD
                noted = mark(self._shared[start : start + length], what)
                found[noted] = whose if found.get(noted, whose) == whose else 0
        return found
