"""What a client may send to the LMTP server: any bytes, in any pieces, with any end.

An input is a header of six bytes, and what the client sends. The header says how the
connection ends, how slowly replies are taken, and how long the pieces are: four lengths in
turn, 0 for all that is left. `check` plays it to a real Connection on a transport in memory,
with a crew that answers at once by the first letter of the local part. All limits are made
small, so that short inputs reach them. Nothing here knows what reply a command should have;
what must hold is this:

- no exception escapes, none is caught as an internal error, nothing is left running;
- replies are what RFC 5321 and RFC 2034 let them be, one for each command;
- after DATA there is one for each RCPT that was accepted, in order (RFC 2033);
- delivered is what a plain reading of RFC 5321 section 4.5.2 gives, once to each recipient.

run.py looks for inputs that break it; tests/serve/test_fuzz_corpus.py plays those that are kept.
"""

from __future__ import annotations

import asyncio
import logging
import re
import socket
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import cycle
from typing import Any, NamedTuple
from unittest import mock

from mdaflow.app.config import Config, Lmtp
from mdaflow.errors import (
    DISK_FULL,
    RECIPIENT_OK,
    REJECTED,
    SAVED,
    TOO_BIG,
    TOO_SLOW,
    UNKNOWN_USER,
    Status,
)
from mdaflow.mail.envelope import Envelope
from mdaflow.mail.message import Message
from mdaflow.serve import lmtp, spool, wire
from mdaflow.serve.service import Service

MAX_INPUT = 2048
HEADER = 6
MAX_SIZE, MAX_LINE, MAX_RECIPIENTS = 300, 512, 5
SPOOL = tempfile.gettempdir()
"""Files there have no names: nothing is left."""
TURNS = 5000
"""Of the event loop, until a connection must have ended."""

CHECKED = {"u": UNKNOWN_USER, "t": TOO_SLOW}
DELIVERED = {
    "r": REJECTED,
    "f": DISK_FULL,
    "e": Status(250, "2.0.0", "a\r\n250 2.0.0 b\0\x1b[2J\u202e" + "x" * 600),
}
LIMITS: dict[Any, dict[str, int | float]] = {
    wire: {"MAX_LINE": MAX_LINE, "MAX_INPUT": 2 * MAX_LINE},
    lmtp: {"MAX_USELESS": 30, "PAUSE": 0},
    spool: {"THRESHOLD": 64},
}
ENDS = ("EOF", "lost", "drained", "abandoned")


class Broken(Exception):
    """The server did what it must not do."""


def demand(condition: object, *what: object) -> None:
    if not condition:
        raise Broken(*what)


# the other side of the connection


class Crew:
    """Answers at once, and remembers."""

    def __init__(self) -> None:
        self.accepted: list[str] = []
        self.delivered: list[tuple[str, bytes]] = []

    def known(self, recipient: str, *_: object) -> Status | None:
        if recipient not in self.accepted:
            return None
        self.accepted.append(recipient)
        return RECIPIENT_OK

    async def check(self, recipient: str, *_: object) -> Status:
        await asyncio.sleep(0)
        status = CHECKED.get(recipient[0], RECIPIENT_OK)
        if status.ok:
            self.accepted.append(recipient)
        return status

    async def deliver(self, message: Message, envelopes: Sequence[Envelope]) -> list[Status]:
        await asyncio.sleep(0)
        self.delivered += [(envelope.recipient, message.raw[:]) for envelope in envelopes]
        return [DELIVERED.get(envelope.recipient[0], SAVED) for envelope in envelopes]

    def unconfirmed(self, message: Message, envelopes: Sequence[Envelope]) -> None:
        demand(all(DELIVERED.get(e.recipient[0], SAVED).ok for e in envelopes), "not delivered")

    def abandon(self) -> None:
        pass


class Transport(asyncio.Transport):
    """Memory. `slow`: for so many turns of the loop a reply is not taken."""

    def __init__(self, protocol: lmtp.Connection, sock: socket.socket, slow: int) -> None:
        super().__init__({"socket": sock, "peername": ""})
        self.written = b""
        self.paused = False
        self._protocol = protocol
        self._slow = slow
        self._closing = self._gone = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._gone:  # nobody has told the connection yet
            return
        demand(not self._closing, "written behind the end")
        self.written += data
        if self._slow:
            self._protocol.pause_writing()
            asyncio.get_running_loop().create_task(self._resume())

    async def _resume(self) -> None:
        for _ in range(self._slow):
            await asyncio.sleep(0)
        self._protocol.resume_writing()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        self.lose(None)

    def abort(self) -> None:
        self.lose(None)

    def lose(self, error: Exception | None) -> None:
        if not self._closing:
            self._closing, self._gone = True, error is not None
            asyncio.get_running_loop().call_soon(self._protocol.connection_lost, error)

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False


class Log(logging.Handler):
    """What the server took for a bug of its own."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.found.append(logging.Formatter().format(record))


class Play(NamedTuple):
    """What went over a connection, and what came of it."""

    end: str
    sent: bytes
    written: bytes
    crew: Crew


async def play(data: bytes, sock: socket.socket) -> Play:
    """Send an input to a connection."""
    end, slow, *lengths = data[:HEADER].ljust(HEADER, b"\0")
    rest = sent = data[HEADER:]
    crew, ending = Crew(), ENDS[end % len(ENDS)]
    limits = Lmtp(max_size=MAX_SIZE, max_recipients=MAX_RECIPIENTS, spool=SPOOL, reserve=0)
    service = Service(Config(hostname="mx.example.org", lmtp=limits), crew)  # type: ignore[arg-type]
    before = asyncio.all_tasks()
    connection = lmtp.Connection(service)
    transport = Transport(connection, sock, slow % 4)
    connection.connection_made(transport)
    tasks = asyncio.all_tasks() - before
    for length in cycle(lengths):
        await turns(lambda: transport.is_closing() or not transport.paused)
        if transport.is_closing() or not rest:
            break
        buffer = connection.get_buffer(-1)
        size = min(length or len(rest), len(buffer), len(rest))
        buffer[:size], rest = rest[:size], rest[size:]
        connection.buffer_updated(size)
        await asyncio.sleep(0)
    finish(ending, connection, transport, service)
    await turns(lambda: connection.transport is None and asyncio.all_tasks() == before)
    for task in tasks:
        task.result()
    return Play(ending, sent, transport.written, crew)


def finish(
    ending: str, connection: lmtp.Connection, transport: Transport, service: Service
) -> None:
    if transport.is_closing():
        return
    if ending == "lost":
        transport.lose(ConnectionResetError())
        return
    if ending != "EOF":
        service.drain()
        service.dismiss()
    if ending == "abandoned":
        service.abandon()
    if not connection.eof_received():
        transport.close()


async def turns(condition: Any) -> None:
    """Wait for a condition."""
    for _ in range(TURNS):
        if condition():
            return
        await asyncio.sleep(0)
    raise Broken("the connection does not go on")


# what must hold

_LINE = re.compile(
    rb"(?:220 |250[ -]|354 |([245])[0-5][0-9] \1\.[0-9]{1,3}\.[0-9]{1,3} )[^\0-\x1f\x7f]+"
)
_BARE = re.compile(rb"250[ -](?!2\.)")  # RFC 2034: only LHLO is answered without
_STRAY = re.compile(rb"[\r\n\0]")


def replies(written: bytes) -> list[bytes]:
    """The last line of each reply."""
    *lines, rest = written.split(b"\r\n")
    demand(not rest, "no CRLF at the end", rest)
    for line in lines:
        demand(_LINE.fullmatch(line) and len(line) <= 510, "not a reply", line)
    demand(not lines or lines[-1][3:4] == b" ", "a reply is not complete")
    return [line for line in lines if line[3:4] == b" "]


def content(sent: bytes) -> tuple[bytes, bytes, int] | None:
    """A message, what follows it, and its size with CRLF. None: it has no end."""
    found, size = b"", 0
    while (end := sent.find(b"\r\n")) >= 0:
        line, sent = sent[:end], sent[end + 2 :]
        if line == b".":
            return found, sent, size
        line = line.removeprefix(b".")
        found, size = found + line + b"\n", size + len(line) + 2
    return None


class Reading:
    """Goes through what was sent and answered, and finds what had to be delivered."""

    def __init__(self, played: Play) -> None:
        self.rest = played.sent
        self.replies = replies(played.written)
        self.end = played.end
        self.accepted = played.crew.accepted
        self.wanted: list[tuple[str, bytes]] = []
        self.open: list[str] = []

    def reply(self) -> bytes:
        """The next one; empty when the connection has ended."""
        return self.replies.pop(0) if self.replies else b""

    def read(self) -> None:
        drained = self.end in ("drained", "abandoned")
        last = self.reply()
        greetings = {b"220 ", b"421 "} if drained else {b"220 "}
        demand(last[:4] in greetings or self.end == "lost", "no greeting", last)
        while last and not over(last) and (end := self.rest.find(b"\r\n")) >= 0:
            line, self.rest = self.rest[:end], self.rest[end + 2 :]
            last = self.reply()
            demand(last or self.end == "lost", "no reply", line)
            if last and not over(last):
                self._command(line, last)
        if drained and not over(last) and self.replies:
            last = self.reply()
            demand(last[:4] == b"421 ", "answered without a command", last)
        demand(not self.replies, "too many replies", self.replies)
        complete = self.end == "lost" or over(last) or b"\r\n" not in self.rest
        demand(complete, "too few replies", self.rest)

    def _command(self, line: bytes, reply: bytes) -> None:
        verb = line.split(b" ")[0].upper()
        demand(verb == b"LHLO" or not _BARE.match(reply), "no enhanced code", reply)
        if len(line) > MAX_LINE - 2 or _STRAY.search(line):
            demand(reply[:4] == b"500 ", "a line that is none", line, reply)
        elif reply[:3] == b"354":
            demand(verb == b"DATA" and self.open, "a message is expected, but why", line)
            self._data()
        elif reply[:1] == b"2" and verb in (b"LHLO", b"MAIL", b"RSET"):
            self.open = []
        elif reply[:1] == b"2" and verb == b"RCPT":
            demand(self.accepted, "accepted, but by whom", reply)
            self.open.append(self.accepted.pop(0))

    def _data(self) -> None:
        found = content(self.rest)
        if found is None:
            self.rest = b""
            return
        message, self.rest, size = found
        fits = size <= MAX_SIZE
        if fits:
            self.wanted += [(recipient, message) for recipient in dict.fromkeys(self.open)]
        for recipient in self.open:
            reply = self.reply()
            if not reply and self.end == "lost":
                return
            status = DELIVERED.get(recipient[0], SAVED) if fits else TOO_BIG
            name = recipient if recipient.isascii() else ""
            start = f"{status.code} {status.enhanced} <{name}"
            demand(reply.startswith(start.encode()), "after DATA", reply, recipient)
        self.open = []


def over(reply: bytes) -> bool:
    """Is it the last?"""
    return reply[:3] in (b"221", b"421")


def check(data: bytes) -> None:
    """Play an input. Raises Broken, or what escaped."""
    with surroundings() as (loop, sock):
        judge(loop.run_until_complete(play(data[:MAX_INPUT], sock)))


def judge(played: Play) -> None:
    """Raises Broken when it is not what must hold."""
    reading = Reading(played)
    reading.read()
    found, wanted = played.crew.delivered, reading.wanted
    if played.end == "lost":  # what came before goes on, but the replies to it are not here
        found = found[: len(wanted)]
    demand(found == wanted, "delivered", found, wanted)


@contextmanager
def surroundings() -> Iterator[tuple[asyncio.AbstractEventLoop, socket.socket]]:
    """A loop and a socket, small limits, and an eye on the log."""
    with ExitStack() as stack:
        for module, values in LIMITS.items():
            for name, value in values.items():
                stack.enter_context(mock.patch.object(module, name, value))
        sock, other = socket.socketpair()
        stack.enter_context(sock)
        stack.enter_context(other)
        log, watch = logging.getLogger("mdaflow"), Log()
        log.addHandler(watch)
        stack.callback(log.removeHandler, watch)
        loop = asyncio.new_event_loop()
        stack.callback(loop.close)
        escaped: list[object] = []
        loop.set_exception_handler(lambda _, context: escaped.append(context))
        yield loop, sock
        demand(not watch.found and not escaped, *watch.found, *escaped)
