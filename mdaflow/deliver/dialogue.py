"""A dialogue with a next hop: commands go there, replies come back (RFC 5321 section 4.2).

A hop is `host:port` or `smtp://host:port` for SMTP, `lmtp://host:port` or `lmtp:unix:/path` for
LMTP (RFC 2033). An IPv6 address is in brackets.

The peer is hostile: every step ends before a deadline, a line and a reply have a limit, and what is
no reply is never guessed at. After the first such trouble nothing that it says counts, because
nobody knows what it answers.

Known limits: the next hop is the site's own, so no TLS and no login. The resolver has time limits
of its own, and each address of a name is given 10 seconds.
"""

from __future__ import annotations

import re
import socket
import time
from contextlib import suppress
from typing import NamedTuple

CONNECT = 10.0
"""Seconds for the connection to one address."""
MAX_LINE = 8192
"""Bytes of a line; RFC 5321 section 4.5.3.1.5 has 512."""
MAX_REPLY = 64 << 10
"""Bytes of a reply."""

_NAME = r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+)):([0-9]{1,5})"
_HOP = re.compile(rf"(?:(?:(smtp|lmtp)://)?{_NAME}|lmtp:unix:(/[^\0]+))")
_REPLY = re.compile(rb"([2-5][0-9][0-9])(?:([ -])(.*))?", re.DOTALL)


class Hop(NamedTuple):
    """Where a next hop is, and what it speaks."""

    protocol: str
    """`smtp` or `lmtp`."""
    host: str = ""
    port: int = 0
    path: str = ""
    """Of a unix socket; then there is no host."""


class Reply(NamedTuple):
    """What the peer said: the code, and the text of all lines."""

    code: int
    lines: tuple[str, ...]

    @property
    def text(self) -> str:
        """The text on one line."""
        return " ".join(self.lines)


def parse_hop(text: str) -> Hop:
    """The next hop of a text. Raises ValueError."""
    found = _HOP.fullmatch(text)
    if found is None or (found[4] and not 0 < int(found[4]) < 65536):
        raise ValueError(f"{text!r} is neither host:port nor lmtp:unix:/path")
    if found[5]:
        return Hop("lmtp", path=found[5])
    return Hop(found[1] or "smtp", found[2] or found[3], int(found[4]))


class Dialogue:
    """A connection to a hop. Every step raises OSError, TimeoutError when its time is over."""

    def __init__(self, hop: Hop, seconds: float) -> None:
        self.deadline = time.monotonic() + seconds
        """When all has to be said, on the monotonic clock."""
        self.broken = False
        """Nothing that comes counts any more."""
        self._held = b""
        self._line = _dial(hop, min(seconds, CONNECT))

    def say(self, data: bytes) -> None:
        """Send bytes as they are."""
        try:
            self._line.settimeout(self._left())
            self._line.sendall(data)
        except OSError:
            self.broken = True
            raise

    def ask(self, command: str) -> Reply:
        """Send a command, and wait for its reply. Raises ValueError for what is no reply."""
        self.say(f"{command}\r\n".encode())
        return self.reply()

    def reply(self) -> Reply:
        """The next reply. Raises ValueError for what is none."""
        if self.broken:
            raise OSError("the dialogue has broken off")
        try:
            return self._reply()
        except (OSError, ValueError):
            self.broken = True
            raise

    def listen(self) -> None:
        """Make sure that nothing was said out of turn: it would be taken for the next reply."""
        if not self.broken and not self._held:
            self._line.settimeout(0)
            with suppress(BlockingIOError):
                self._held = self._line.recv(1, socket.MSG_PEEK) or b"-"
        if self._held:
            self.broken = True
            raise OSError("the peer speaks out of turn, or is gone")

    def close(self) -> None:
        """Drop the connection, whatever its state."""
        self.broken = True
        self._line.close()

    def _reply(self) -> Reply:
        code, lines, size = b"", [], 0
        while True:
            line = self._read_line()
            size += len(line)
            found = _REPLY.fullmatch(line)
            if found is None or code not in (b"", found[1]) or size > MAX_REPLY:
                raise ValueError(f"no reply of SMTP: {line[:100]!r}")
            code = found[1]
            lines.append((found[3] or b"").decode("utf-8", "replace").strip())
            if found[2] != b"-":
                return Reply(int(code), tuple(lines))

    def _read_line(self) -> bytes:
        while b"\n" not in self._held:
            if len(self._held) > MAX_LINE:
                raise ValueError("no reply of SMTP: a line without end")
            self._line.settimeout(self._left())
            got = self._line.recv(MAX_LINE)
            if not got:
                raise ConnectionResetError("the peer has left")
            self._held += got
        line, _, self._held = self._held.partition(b"\n")
        if len(line) > MAX_LINE:
            raise ValueError("no reply of SMTP: a line too long")
        return line.removesuffix(b"\r")

    def _left(self) -> float:
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        return left


def _dial(hop: Hop, seconds: float) -> socket.socket:
    if not hop.path:
        return socket.create_connection((hop.host, hop.port), seconds)
    line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        line.settimeout(seconds)
        line.connect(hop.path)
    except BaseException:
        line.close()
        raise
    return line
