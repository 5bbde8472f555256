"""What each worker is at, in memory that its master sees: a message that stops workers must not
come back for ever.

A thread notes the message that it finds facts of and runs rules on, and takes the note away
afterwards. When a worker dies, the master reads what it was at: each such message gets a strike.
Who has two is delivered without rules. The worker's event loop also counts beats here, so that
the master sees a worker that hangs.

The memory is anonymous and shared (mmap(2)), made by the master before it forks. Nobody waits
for a lock: a row has one writer, and the master reads the rows of the dead only. What is half
written is taken for nothing: a row is void while it is filled. A copy of what a message is known
by costs 1 µs for 4 KB, its digest 6 µs: so that is made of the dead, and while anybody is out.

Known limits: all messages that a worker was at get a strike when it dies, so an innocent one
that was there twice goes without rules, too. What a message breaks outside of its rules is not
noted. A new master knows of no strikes.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Iterable, Iterator
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


_FIRST = 32
"""Where the rows begin; before them is a counter."""


class Strikes:
    """The messages that have stopped workers. The master counts, all can see who is out."""

    _ROW = 32
    """Bytes: a mark of 17, and at 24 when it is forgotten."""

    def __init__(self) -> None:
        self._counts: dict[bytes, tuple[int, float]] = {}
        """By mark, the oldest first: strikes, and when they are forgotten. The master's own."""
        self._shared = mmap(-1, _FIRST + MAX_STRUCK * self._ROW)
        self._rows = memoryview(self._shared).cast("Q")
        """The first number is that of the rows that were ever filled."""

    def add(self, marks: Iterable[bytes]) -> None:
        """A worker has died with these. Only the master may call this."""
        now = time.monotonic()
        for struck in marks:
            count, until = self._counts.pop(struck, (0, 0.0))
            count = count + 1 if now < until else 1
            self._counts[struck] = count, now + DAY
            if count >= TWO:
                self._publish(struck, now + DAY)
        while len(self._counts) > MAX_STRUCK:
            del self._counts[next(iter(self._counts))]

    def out(self, known: bytes, what: int = RULES) -> bool:
        """It has two strikes."""
        at = self._find(mark(known, what)) if self._rows[0] else -1
        if at < 0:
            return False
        [until] = struct.unpack_from("d", self._shared, at + 24)
        return bool(time.monotonic() < until)

    def _find(self, mark: bytes) -> int:
        """The row of a mark; -1 when there is none."""
        used = min(self._rows[0], MAX_STRUCK)
        at = self._shared.find(mark, _FIRST, _FIRST + used * self._ROW)
        return at if at % self._ROW == 0 else -1  # else it is in two rows by chance

    def _publish(self, mark: bytes, until: float) -> None:
        at, used = self._find(mark), self._rows[0]
        new = at < 0
        if new:
            at = _FIRST + used % MAX_STRUCK * self._ROW
        struct.pack_into("d", self._shared, at + 24, 0.0)
        self._shared[at : at + len(mark)] = mark
        struct.pack_into("d", self._shared, at + 24, until)
        self._rows[0] = used + new


class InFlight:
    """What one worker is at: a row for each of its threads, and the beats of its event loop."""

    _HEAD = 8
    _ROW = _HEAD + ABOUT + HEAD + TAIL
    """Bytes: whether it is filled, what the message is at, at 4 the length of what follows. Most
    are never touched, and so take no memory."""

    def __init__(self, threads: int, strikes: Strikes) -> None:
        self._strikes = strikes
        self._shared = mmap(-1, _FIRST + threads * self._ROW)
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
        try:
            at = self._free.pop()
        except IndexError:  # more threads than we were told of: one goes without
            yield False
            return
        shared, start = self._shared, at + self._HEAD
        shared[start : start + len(known)] = known
        struct.pack_into("<BxxI", shared, at + 1, what, len(known))
        shared[at] = 1
        try:
            yield False
        finally:
            shared[at] = 0
            self._free.append(at)

    @property
    def marks(self) -> set[bytes]:
        """The messages that the worker is at, or was when it died."""
        return {self._mark(at) for at in self._rows if self._shared[at]}

    def _mark(self, at: int) -> bytes:
        what, length = struct.unpack_from("<BxxI", self._shared, at + 1)
        start = at + self._HEAD
        return mark(self._shared[start : start + length], what)
