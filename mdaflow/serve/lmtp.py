"""The LMTP server: one connection of it (RFC 2033, 5321, 2034, 1870, 6152, 6531).

The lines come from wire.py; the commands are here, one method each, in the table COMMANDS.

- Addresses are literal (mail/path.py); DATA ends at CRLF.CRLF only (data.py).
- After DATA there is one reply for each accepted RCPT, in order, on every path (P6). Where we
  lost our place in the stream instead, 421 and the end of the connection.
- Nothing that goes wrong here is a 5xx, and no reply tells what it was (P4).
- A client that goes away stops nothing that has begun (P9).
- Connections, errors, recipients, sizes and times are capped (P33).

Not announced, therefore refused: DSN, STARTTLS, AUTH, BDAT, BINARYMIME.
"""

from __future__ import annotations

import logging
import re
import socket
import time
from collections.abc import Awaitable, Callable

from ..app import config
from ..errors import INTERNAL, SHUTTING_DOWN, TOO_BIG, MailError, PermFail, Status, TempFail
from ..mail.envelope import Envelope
from ..mail.message import Message
from . import arguments, reply, xforward
from .courier import Crew
from .data import DataReader
from .wire import Wire

log = logging.getLogger("mdaflow")

MAX_ERRORS = 10
MAX_PER_ADDRESS = 50
"""Connections of one TCP address that is not our own machine."""
DATA_IDLES = 12
"""A message must arrive within so many idle times, however busily it trickles."""

_NAME = re.compile(rb"[!-~]{1,255}")
_ERRORS = {500, 501, 502, 503, 504, 555}


class Service:
    """What all connections of one worker share."""

    def __init__(self, limits: config.Lmtp, hostname: str, crew: Crew) -> None:
        self.limits = limits
        self.crew = crew
        self.connections: set[Connection] = set()
        self.draining = False
        """A connection that had its transaction is over."""
        self.dismissing = False
        """So is one that has not begun any."""
        self.greeting = f"220 {hostname} LMTP mdaflow".encode()
        words = [
            hostname,
            "PIPELINING",
            "ENHANCEDSTATUSCODES",
            f"SIZE {limits.max_size}",
            "8BITMIME",
            "SMTPUTF8",
        ]
        self.extensions = _multiline(words)
        self.more_extensions = _multiline([*words, "XFORWARD " + " ".join(xforward.ATTRIBUTES)])

    def admit(self, connection: Connection) -> Status | None:
        """Take a connection in, or say why not."""
        if self.dismissing:
            return SHUTTING_DOWN
        same = sum(c.address == connection.address for c in self.connections)
        crowded = not connection.trusted and same >= MAX_PER_ADDRESS
        if crowded or len(self.connections) >= self.limits.max_connections:
            return reply.BUSY
        self.connections.add(connection)
        return None

    def drain(self) -> None:
        """Let running transactions end, and who has just come begin one."""
        self.draining = True
        self._dismiss()

    def dismiss(self) -> None:
        """Let running transactions end; nobody begins one."""
        self.dismissing = True
        self._dismiss()

    def abandon(self) -> None:
        """Answer 451 or 421 to all that still runs."""
        self.crew.abandon()
        self._dismiss(open_too=True)

    def _dismiss(self, *, open_too: bool = False) -> None:
        for connection in tuple(self.connections):
            connection.dismiss(open_too=open_too)


class Connection(Wire):
    """One client and its transaction."""

    def __init__(self, service: Service) -> None:
        super().__init__(service.limits.idle)
        self.address = ""
        self.trusted = False
        self._service = service
        self._limits = service.limits
        self._errors = 0
        self._served = False
        self._peer = ""

    def _set_rset_state(self) -> None:
        """No transaction is open."""
        self._sender: str | None = None
        self._recipients: list[str] = []
        self._utf8 = False
        self._forwarded: dict[str, str] = {}

    def connection_lost(self, error: Exception | None) -> None:
        """The client is gone."""
        self._service.connections.discard(self)
        super().connection_lost(error)

    async def _converse(self) -> None:
        self._look_at_peer()
        refusal = self._service.admit(self)
        if refusal:
            self._farewell(refusal)
        else:
            self._replies.append(self._service.greeting)
        while not self.closing:
            await self._step()

    def _look_at_peer(self) -> None:
        peer: socket.socket = self._writer.get_extra_info("socket")
        if peer.family == socket.AF_UNIX:
            self.trusted = True
        else:
            self.address = self._writer.get_extra_info("peername")[0]
            self.trusted = self.address.startswith("127.") or self.address == "::1"

    async def _step(self) -> None:
        """Read one command, do it, and answer."""
        try:
            if self._over:
                raise TempFail(SHUTTING_DOWN)
            command, _, argument = (await self._line()).partition(b" ")
            act = COMMANDS.get(command.upper(), Connection.unknown)
            self._replies.append(await act(self, argument.strip(b" ")))
        except MailError as error:
            self._refuse(error.status)
        except (EOFError, OSError):
            raise
        except Exception:
            log.exception("internal error in a connection")
            self._farewell(reply.LOST)

    def _refuse(self, status: Status) -> None:
        self._errors += status.code in _ERRORS and status is not reply.NO_RECIPIENTS
        if self._errors > MAX_ERRORS:
            status = reply.TOO_MANY_ERRORS
        if status.code == 421:
            self._farewell(status)
        else:
            self._replies.append(reply.line(status))

    @property
    def _over(self) -> bool:
        had_its_turn = self._served or self._service.dismissing
        return self._service.draining and had_its_turn and self._sender is None

    def dismiss(self, *, open_too: bool) -> None:
        """Say 421 if the client has the word and its time is over, or, if `open_too`, anyway."""
        if self._waiting and (open_too or self._over):
            self._farewell(SHUTTING_DOWN)

    # --- commands: each takes its argument and returns its reply, or raises a MailError -----

    async def lhlo(self, argument: bytes) -> bytes:
        """LHLO name"""
        if not _NAME.fullmatch(argument):
            raise PermFail(reply.syntax("LHLO hostname"))
        self._set_rset_state()
        self._peer = argument.decode("ascii")
        return self._service.more_extensions if self.trusted else self._service.extensions

    async def mail(self, argument: bytes) -> bytes:
        """MAIL FROM:<sender> with SIZE, BODY, SMTPUTF8"""
        if not self._peer:
            raise PermFail(reply.LHLO_FIRST)
        if self._sender is not None:
            raise PermFail(reply.NESTED)
        self._sender, self._utf8 = arguments.sender(argument, self._limits.max_size)
        return _SENDER_OK

    async def rcpt(self, argument: bytes) -> bytes:
        """RCPT TO:<recipient>"""
        if self._sender is None:
            raise PermFail(reply.MAIL_FIRST)
        recipient = arguments.recipient(argument)
        if len(self._recipients) >= self._limits.max_recipients:
            raise TempFail(reply.TOO_MANY_RECIPIENTS)
        status = self._service.crew.known(recipient)
        if status is None:
            await self._flush()
            status = await self._service.crew.check(recipient)
        if status.ok:
            self._recipients.append(recipient)
        return reply.line(status, utf8=self._utf8)

    async def data(self, argument: bytes) -> bytes:
        """DATA, the message, and a reply for each recipient"""
        if argument:
            raise PermFail(reply.NO_ARGUMENT)
        if not self._recipients:
            raise PermFail(reply.NO_RECIPIENTS)
        self._replies.append(b"354 End data with <CR><LF>.<CR><LF>")
        statuses = await self._deliver(await self._content())
        lines = [
            reply.line(status, recipient, utf8=self._utf8)
            for recipient, status in zip(self._recipients, statuses, strict=True)
        ]
        self._set_rset_state()
        self._served = True
        return b"\r\n".join(lines)

    async def _content(self) -> bytes | None:
        """The message up to its end; None when it is too big."""
        reader = DataReader(self._limits.max_size)
        last = self.loop.time() + DATA_IDLES * self._idle
        rest = reader.feed(bytes(self._input))
        self._input.clear()
        while rest is None:
            rest = reader.feed(await self._more(min(last, self.loop.time() + self._idle)))
        self._input += rest
        return None if reader.too_big else reader.message()

    async def _deliver(self, raw: bytes | None) -> list[Status]:
        """A status for each accepted RCPT, whatever happens."""
        if raw is None:
            ident = self._forwarded.get("IDENT", "-")
            log.warning("%s: from=<%s>, over the limit of size, refused", ident, self._sender)
            return [TOO_BIG for _ in self._recipients]
        try:
            envelopes = self._envelopes()
            found = await self._service.crew.deliver(Message(raw), list(envelopes.values()))
            statuses = dict(zip(envelopes, found, strict=True))
            return [statuses[recipient] for recipient in self._recipients]
        except Exception:
            log.exception("internal error after DATA")
            return [INTERNAL for _ in self._recipients]

    def _envelopes(self) -> dict[str, Envelope]:
        """An envelope for each recipient: who was named twice gets one message."""
        now = time.time()
        client = xforward.client(self._forwarded)
        return {
            recipient: Envelope(
                sender=self._sender or "",
                recipient=recipient,
                client=client,
                queue_id=self._forwarded.get("IDENT", ""),
                peer=self._peer,
                received=now,
            )
            for recipient in self._recipients
        }

    async def rset(self, argument: bytes) -> bytes:
        """RSET"""
        if argument:
            raise PermFail(reply.NO_ARGUMENT)
        self._set_rset_state()
        return _OK

    async def noop(self, argument: bytes) -> bytes:
        """NOOP, with any argument"""
        return _OK

    async def quit(self, argument: bytes) -> bytes:
        """QUIT"""
        if argument:
            raise PermFail(reply.NO_ARGUMENT)
        self._farewell(reply.BYE)
        return b""

    async def vrfy(self, argument: bytes) -> bytes:
        """VRFY, which tells nothing"""
        return reply.line(reply.VRFY)

    async def help(self, argument: bytes) -> bytes:
        """HELP"""
        return reply.line(reply.HELP)

    async def xforward(self, argument: bytes) -> bytes:
        """XFORWARD NAME=value ..., from our own machine only, outside a transaction"""
        if not self.trusted:
            raise PermFail(reply.NOT_YOU)
        if self._sender is not None:
            raise PermFail(reply.NESTED)
        try:
            self._forwarded.update(xforward.parse(argument))
        except ValueError:
            raise PermFail(reply.syntax("XFORWARD attribute=value...")) from None
        return _OK

    async def smtp(self, argument: bytes) -> bytes:
        """HELO and EHLO, which LMTP does not have (RFC 2033 section 4.1)"""
        raise PermFail(reply.NOT_LMTP)

    async def unknown(self, argument: bytes) -> bytes:
        """Anything else"""
        raise PermFail(reply.UNKNOWN)


COMMANDS: dict[bytes, Callable[[Connection, bytes], Awaitable[bytes]]] = {
    b"LHLO": Connection.lhlo,
    b"MAIL": Connection.mail,
    b"RCPT": Connection.rcpt,
    b"DATA": Connection.data,
    b"RSET": Connection.rset,
    b"NOOP": Connection.noop,
    b"QUIT": Connection.quit,
    b"VRFY": Connection.vrfy,
    b"HELP": Connection.help,
    b"XFORWARD": Connection.xforward,
    b"HELO": Connection.smtp,
    b"EHLO": Connection.smtp,
}

_OK = reply.line(reply.OK)
_SENDER_OK = reply.line(reply.SENDER_OK)


def _multiline(words: list[str]) -> bytes:
    lines = [f"250-{word}" for word in words[:-1]] + [f"250 {words[-1]}"]
    return "\r\n".join(lines).encode()
