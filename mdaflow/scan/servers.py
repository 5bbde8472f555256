"""Servers that look at messages: they are asked in order, the next one when one fails.

A server is `host:port`, `http://host:port` or `unix:/path`; an IPv6 address is in brackets. A
message is put to each of them at most once, and each has its share of the time that is left. One
that failed is asked last for a while, so that a hung one does not delay every message.

The peer is hostile: every wait ends before one deadline on the monotonic clock, however slowly
bytes drip, and nobody may say more than `MAX_REPLY` bytes, in headers or else.

Known limits: a server is the site's own, so no TLS. The resolver has time limits of its own.
"""

from __future__ import annotations

import logging
import re
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

from mdaflow.mail.path import CONTROL

from . import Unscanned

CONNECT = 5.0
"""Seconds for the connection to one address."""
PAUSE = 10.0
"""Seconds for which a server that failed is asked after the others."""
MAX_REPLY = 1 << 20
"""Bytes of a reply with all that is around it."""
SAYABLE = re.compile(r"[^\0-\x1f\x7f-\x9f\ud800-\udfff]{1,1000}")
"""What can be the value of a header field as it is; what is mended would be somebody else."""

_NAME = r"(?:\[([0-9A-Fa-f:.]+(?:%[A-Za-z0-9_.-]+)?)\]|([A-Za-z0-9._-]+)):([0-9]{1,5})"
_SERVER = re.compile(rf"(?:http://)?{_NAME}/?|unix:(/[^\0]{{1,106}})")
_Answer = TypeVar("_Answer")

log = logging.getLogger("mdaflow")


class Server(NamedTuple):
    """Where a server is."""

    host: str = ""
    port: int = 0
    path: str = ""
    """Of a unix socket; then there is no host."""

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"unix:{self.path}" if self.path else f"{host}:{self.port}"


def parse_server(text: str) -> Server:
    """The server of a text. Raises ValueError."""
    found = _SERVER.fullmatch(text)
    if found is None or (found[3] and not 0 < int(found[3]) < 65536):
        raise ValueError(f"{text!r} is neither host:port nor unix:/path")
    return Server(path=found[4]) if found[4] else Server(found[1] or found[2], int(found[3]))


class Line(socket.socket):
    """A connection whose every wait ends at one deadline, and which says at most `MAX_REPLY`."""

    deadline = 0.0
    _left = MAX_REPLY

    def hurry(self, most: float = float("inf")) -> None:
        """Wait no longer than there is time. Raises TimeoutError when there is none."""
        seconds = self.deadline - time.monotonic()
        if seconds <= 0:
            raise TimeoutError("timed out")
        self.settimeout(min(seconds, most))

    def sendall(self, data: Any, flags: int = 0) -> None:
        """As that of a socket, in what is left of the time."""
        self.hurry()
        super().sendall(data, flags)

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        """As that of a socket, which is how `makefile` reads. Raises OSError for too much."""
        self.hurry()
        got = super().recv_into(buffer, nbytes, flags)
        self._left -= got
        if self._left < 0:
            raise OSError("its reply is too long")
        return got


def dial(server: Server, deadline: float) -> Line:
    """A connection to a server, which is to be closed. Raises OSError."""
    failed = OSError("it has no address")
    for family, address in _addresses(server):
        line = Line(family, socket.SOCK_STREAM)
        line.deadline = deadline
        try:
            line.hurry(CONNECT)
            line.connect(address)
        except OSError as error:
            line.close()
            failed = error
        else:
            return line
    raise failed


def _addresses(server: Server) -> Iterator[tuple[int, Any]]:
    if server.path:
        yield socket.AF_UNIX, server.path
        return
    for family, _, _, _, address in socket.getaddrinfo(
        server.host, server.port, type=socket.SOCK_STREAM
    ):
        yield family, address


class Spared:
    """Servers of which one that has failed is the last for `PAUSE`. Any thread may ask."""

    def __init__(self, servers: Iterable[Server]) -> None:
        self._all = tuple(servers)
        self._until: dict[Server, float] = {}

    def in_order(self) -> list[Server]:
        """All of them, as they shall be asked."""
        now = time.monotonic()
        return sorted(self._all, key=lambda server: now < self._until.get(server, now))

    def has_failed(self, server: Server) -> None:
        """It is asked last for a while."""
        self._until[server] = time.monotonic() + PAUSE

    def has_answered(self, server: Server) -> None:
        """It has its place again."""
        self._until.pop(server, None)


class Servers:
    """Those that can do the same. Any thread may ask."""

    def __init__(self, addresses: Sequence[str]) -> None:
        """Raises ValueError for what is no address, and for none at all."""
        self._spared = Spared(map(parse_server, addresses))
        if not addresses:
            raise ValueError("no server is named")

    def ask(self, question: Callable[[Server, float], _Answer], seconds: float) -> _Answer:
        """The first answer to `question(server, deadline)`.

        What it raises is that server's failure. Raises Unscanned when all have failed.
        """
        start = time.monotonic()
        failures = []
        order = self._spared.in_order()
        for asked, server in enumerate(order):
            now = time.monotonic()
            share = (start + seconds - now) / (len(order) - asked)
            try:
                answer = question(server, now + share)
            except Exception as error:  # http.client and json have their own for nonsense
                self._spared.has_failed(server)
                said = CONTROL.sub("?", str(error))[:200]
                failures.append(f"{server}: {said or type(error).__name__}")
            else:
                self._spared.has_answered(server)
                if failures:
                    log.warning("%s answers instead of %s", server, "; ".join(failures))
                return answer
        raise Unscanned("; ".join(failures))
