"""Viruses, by ClamAV's daemon: the command INSTREAM of clamd(8).

clamd is sent the message as it came, then each of its decoded parts, and stops at the first virus.
The servers are asked in order. Who fails is not asked again in this scan, so that a message that
brings clamd down does so once for each server, and is asked last for a while, so that one that
hangs does not delay all mail. Only `stream: OK` is clean: an error, silence, two answers or
nonsense is `Unscanned`, and so is what goes over a limit of ours or of clamd's.

The package `clamd` speaks the protocol. It has no limit of time for its connection, knows only
IPv4, sends a part of what it should, and keeps its socket (T14); so it is given a line of ours,
another one for each scan.

Known limits: clamd says OK to what is over MaxScanSize, MaxFileSize or MaxRecursion, and not that
it has not looked, unless clamd.conf has `AlertExceedsMax yes`; and even then to the member of an
archive that is over MaxFileSize but not over MaxScanSize, so the first must not be the smaller one.
The resolver has limits of time of its own. While the queue of a unix socket is full, that server
counts as one that has failed.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from typing import NamedTuple

from mdaflow.mail.envelope import Envelope
from mdaflow.mail.message import Message
from mdaflow.mail.raw import Raw, pieces

from . import Report, Unscanned
from .servers import Server, Spared, dial, parse_server

# It asks setuptools for its own version, which takes 0.1 s and may warn; it does without.
_absent = sys.modules.setdefault("pkg_resources", None) is None  # type: ignore[arg-type]
import clamd  # noqa: E402

if _absent:
    del sys.modules["pkg_resources"]

MAX_SIZE = 25 << 20
"""Bytes of a message or part: StreamMaxLength of Debian's clamd.conf."""
TOGETHER = 64 << 10
"""Bytes that are sent at once, if there are so many."""
MAX_ANSWER = 4096
"""Bytes that clamd answers."""
MAX_NAME = 200
"""Characters of the name of a virus."""
OVER_LIMIT = "Heuristics.Limits.Exceeded"
"""How the name begins that clamd gives to what it has not looked at."""

Chunk = Raw | memoryview
Parts = Callable[[Message], Iterable[bytes | memoryview | Iterable[Chunk]]]
"""What is scanned besides the message itself, each whole or in chunks; not without end. What cannot
be had raises Unscanned: another error of a chunk would count as one of the server."""

log = logging.getLogger("mdaflow")


class Clamd:
    """A Scanner that asks clamd."""

    def __init__(
        self,
        servers: Iterable[str],
        *,
        name: str = "clamd",
        parts: Parts | None = None,
        max_size: int = MAX_SIZE,
    ) -> None:
        """Servers are as `parse_server` has them. What is over `max_size` bytes is not sent.

        Raises ValueError for what is no server.
        """
        self.name = name
        self._servers = Spared(map(parse_server, servers))
        self._parts = parts
        self._max_size = max_size

    def scan(self, message: Message, envelope: Envelope, seconds: float) -> Report:
        """The first virus, and why something before it was not scanned. Raises Unscanned.

        While another server is left, one has no more than its share of the time.
        """
        until = time.monotonic() + seconds
        servers = self._servers.in_order()
        missed = ""
        for stream in self._streams(message):
            try:
                virus = self._ask(servers, stream, until)
            except Unscanned as error:
                missed = missed or str(error)
                if not servers:
                    break
            else:
                if virus:
                    return Report(viruses=(virus,), unscanned=missed)
        if missed:
            raise Unscanned(missed)
        return Report()

    def _streams(self, message: Message) -> Iterator[Iterable[Chunk]]:
        yield (message.raw,)
        for part in self._parts(message) if self._parts else ():
            yield (part,) if isinstance(part, bytes | memoryview) else part

    def _ask(self, servers: list[Server], stream: Iterable[Chunk], until: float) -> str:
        """The virus in it, if any, by the first server that can tell; those before are removed.

        Raises Unscanned.
        """
        trouble = "no server is left"
        while servers:
            left = until - time.monotonic()
            try:
                virus = _virus(servers[0], self._sized(stream), left / len(servers))
            except (OSError, ValueError, clamd.ClamdError) as error:
                self._servers.has_failed(servers[0])
                trouble = f"{servers.pop(0)}: {_plain(str(error))}"
            else:
                self._servers.has_answered(servers[0])
                return virus
            if isinstance(stream, Iterator):
                break  # the next server would see the rest of it only
            if servers:
                log.warning("%s: %s; %s is asked instead", self.name, trouble, servers[0])
        raise Unscanned(trouble)

    def _sized(self, stream: Iterable[Chunk]) -> Iterator[memoryview]:
        """Its pieces. Raises Unscanned when they are too many."""
        left = self._max_size
        for chunk in stream:
            left -= len(chunk)
            if left < 0:
                raise Unscanned(f"larger than {self._max_size:,} bytes")
            yield from pieces((chunk,))


def _virus(server: Server, stream: Iterator[memoryview], seconds: float) -> str:
    """The virus in a stream, if any. Raises Unscanned when it is over a limit of clamd's;
    OSError, ValueError or ClamdError when the server has failed."""
    first = tuple(islice(stream, 1))  # what is too large at once needs no connection
    line = _Line(server, time.monotonic() + seconds)
    try:
        answer = _Client(line).instream(_File(chain(first, stream), line))
    except clamd.BufferTooLongError as error:
        raise Unscanned("larger than StreamMaxLength of clamd") from error
    match answer:
        case {"stream": ("OK", None)} if not line.deaf:
            return ""
        case {"stream": ("FOUND", str(name))} if name.startswith(OVER_LIMIT):
            raise Unscanned(_plain(name))
        case {"stream": ("FOUND", str(name))}:
            return _plain(name)
    raise ValueError(f"it answers {answer!r}")


def _plain(text: str) -> str:
    """Fit to be shown."""
    return (text if text.isprintable() else repr(text)[1:-1])[:MAX_NAME]


class _Client(clamd.ClamdNetworkSocket):  # type: ignore[misc]
    """The package's client, on a line that is there."""

    def __init__(self, line: _Line) -> None:
        self.clamd_socket = line

    def _init_socket(self) -> None:
        """Nothing: the package would connect here."""

    def _recv_response(self) -> str:
        """The answer; the package would read a line, and nothing behind it."""
        return self.clamd_socket.answer()


class _Line:
    """What the package needs of a socket, on one of ours. Every step raises OSError."""

    def __init__(self, server: Server, until: float) -> None:
        self.deaf = False
        """The peer has not read all; it may have said why."""
        self._socket = dial(server, until)
        self._waiting = bytearray()

    def send(self, data: bytes) -> None:
        """Send all of it, small pieces together: each wakes the peer."""
        self._waiting += data
        if len(self._waiting) >= TOGETHER:
            self._flush()

    def _flush(self) -> None:
        try:
            self._socket.sendall(self._waiting)
        except (BrokenPipeError, ConnectionResetError):
            self.deaf = True
        self._waiting.clear()

    def answer(self) -> str:
        """The line that the peer says before it closes. Raises ValueError for anything else."""
        self._flush()
        said = b""
        while len(said) <= MAX_ANSWER:
            got = self._heard()
            if not got:
                break
            said += got
        if not said:
            raise ConnectionResetError("it has left without an answer")
        if said.find(b"\n") != len(said) - 1 or len(said) > MAX_ANSWER:
            raise ValueError(f"it answers {said[:100]!r}")
        return said[:-1].decode()

    def _heard(self) -> bytes:
        self._socket.hurry()
        try:
            return self._socket.recv(MAX_ANSWER)
        except ConnectionResetError:  # it closed before it had read all
            self.deaf = True
            return b""

    def close(self) -> None:
        """Drop it, whatever its state."""
        self._socket.close()


class _File(NamedTuple):
    """What the package reads a stream from; it ends when nobody listens any more."""

    stream: Iterator[memoryview]
    line: _Line

    def read(self, _: int) -> memoryview | bytes:
        """The next piece, whose size is ours to choose."""
        return b"" if self.line.deaf else next(self.stream, b"")
