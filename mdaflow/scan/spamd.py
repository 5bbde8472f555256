"""SpamAssassin, by its daemon spamd: the SPAMC protocol 1.5, command SYMBOLS.

https://svn.apache.org/repos/asf/spamassassin/trunk/spamd/PROTOCOL. The message is sent as it is
stored, below a Return-Path with its sender: that is where SpamAssassin looks for it.

The protocol is spoken here, on a plain socket. The library aiospamc has an event loop for every
request, logs every time-out with a traceback, and takes a reply of any size.

An answer is exactly what spamd says, or none: whatever else comes is `Unscanned`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from socket import SHUT_WR

from mdaflow.mail.envelope import Envelope
from mdaflow.mail.message import Message
from mdaflow.mail.raw import pieces

from . import Hit, Report, Unscanned
from .servers import SAYABLE, Server, Servers, dial

RECIPIENT = "recipient"
"""As the user: whoever the message is for, by address."""
MAX_SIZE = 512 << 10
"""Bytes of a message; spamc has the same."""
LEAST = 0.01
"""A lower score is required by nobody."""

_NUMBER = rb"(-?[0-9]{1,6}(?:\.[0-9]{1,6})?)"
_REPLY = re.compile(
    rb"SPAMD/[0-9.]{1,9} 0 EX_OK\r\nContent-length: ([0-9]{1,7})\r\n"
    rb"Spam: (?:True|False) ; %b / %b\r\n\r\n" % (_NUMBER, _NUMBER)
)
_TESTS = re.compile(rb"(?:[A-Za-z0-9_]{1,100}(?:,|\Z))*")
_OUT_OF_TIME = "TIME_LIMIT_EXCEEDED"


class Spamd:
    """A scanner; see `Scanner`. The score is on the scale of the site, whatever spamd requires."""

    def __init__(
        self,
        servers: Sequence[str],
        *,
        name: str = "spamd",
        user: str = "",
        scale: float = 5.0,
        weight: float = 1.0,
        max_size: int = MAX_SIZE,
    ) -> None:
        """`user`: whose preferences count: a name, RECIPIENT, or empty for spamd's own.

        `scale`: the score of a message that has just what spamd requires, times `weight`. Raises
        ValueError for an address or a user that is none.
        """
        if user and not SAYABLE.fullmatch(user):
            raise ValueError(f"{user!r} is no user")
        self.name = name
        self.per_recipient = user == RECIPIENT
        """What is found for one recipient is not true for the next."""
        self._servers = Servers(servers)
        self._user = user
        self._scale = scale * weight
        self._max_size = max_size

    def scan(self, message: Message, envelope: Envelope, seconds: float) -> Report:
        """What SpamAssassin finds. Raises Unscanned."""
        path = f"Return-Path: <{envelope.sender}>"
        sender = f"{path}\n".encode() if SAYABLE.fullmatch(path) else b""
        chunks = message.under(sender, message.head)
        size = sum(map(len, chunks))
        if size > self._max_size:
            raise Unscanned(f"larger than {self._max_size:,} bytes")
        request = "".join(self._request(envelope, size)).encode()

        def question(server: Server, deadline: float) -> Report:
            with dial(server, deadline) as line, line.makefile("rb") as reply:
                line.sendall(request)
                for piece in pieces(chunks):
                    line.sendall(piece)
                line.shutdown(SHUT_WR)  # else it waits for the end of a last line without one
                return self._report(reply.read())

        return self._servers.ask(question, seconds)

    def _request(self, envelope: Envelope, size: int) -> Iterator[str]:
        user = envelope.recipient if self.per_recipient else self._user
        yield "SYMBOLS SPAMC/1.5\r\n"
        if SAYABLE.fullmatch(user):
            yield f"User: {user}\r\n"
        yield f"Content-length: {size}\r\n\r\n"

    def _report(self, reply: bytes) -> Report:
        """What a reply says. Raises ValueError when it is none."""
        found = _REPLY.match(reply)
        names = reply[found.end() :] if found else b""
        if found is None or len(names) != int(found[1]) or not _TESTS.fullmatch(names):
            raise ValueError(f"no answer of spamd: {reply[:100]!r}")
        score, required = float(found[2]), float(found[3])
        if required < LEAST:
            raise ValueError(f"a score of {required} is required, so nothing can be said")
        tests = tuple(filter(None, names.decode().split(",")))
        why = f"{score} of {required}: {', '.join(tests)}"
        return Report(
            hits=(Hit(self.name.upper(), score / required * self._scale, why),),
            findings={
                f"{self.name}.score": (str(score),),
                f"{self.name}.required": (str(required),),
                f"{self.name}.tests": tests,
            },
            unscanned="spamd ran out of time" if _OUT_OF_TIME in tests else "",
        )
