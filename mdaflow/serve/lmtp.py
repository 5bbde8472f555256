"""The LMTP server: one connection of it (RFC 2033, 5321, 2034, 1870, 6152, 6531, 3461, 3207).

The bytes come and go in wire.py, what all connections share is in service.py; the commands are
here, one method each, in the table COMMANDS.

- Addresses are literal (mail/path.py); DATA ends at CRLF.CRLF only (data.py).
- After DATA there is one reply for each accepted RCPT, in order, on every path (P6). Where we
  lost our place in the stream instead, 421 and the end of the connection.
- Nothing that goes wrong here is a 5xx, and no reply tells what it was (P4).
- A client that goes away stops nothing that has begun (P9). When it went without a word after
  its replies, it may not have had them: what was delivered is remembered (P10).
- Connections, errors, recipients, sizes and times are capped (P33).

Not announced, therefore refused: AUTH, BDAT, BINARYMIME.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from ..app.log import refused
from ..errors import INTERNAL, SHUTTING_DOWN, MailError, PermFail, Status, TempFail
from ..mail.envelope import Envelope
from ..mail.message import Message
from . import arguments, proxy, reply, xforward
from .arguments import Recipient, Sender
from .service import Peer, Service
from .spool import Arrival
from .wire import Wire

log = logging.getLogger("mdaflow")

MAX_ERRORS = 10
MAX_USELESS = 100
"""Commands in a row that bring no mail on its way."""
FREE_USELESS = 20
"""After so many of them, each has to wait; so has each error."""
PAUSE = 0.05
"""Seconds: others come first."""
HOLD = 5.0
"""Seconds for which a client may say nothing after its replies, before that is remembered."""
MAX_HELD = 8
"""Transactions in one go of which that can be remembered."""
MAX_ADDRESSES = 128 << 10
"""Bytes of all that RCPT says in one transaction."""
TURN = 8
"""Commands in a row before others get their turn."""
DATA_IDLES = 12
"""A message must arrive within so many idle times, however busily it trickles."""

_NAME = re.compile(rb"[!-~]{1,255}")
_ERRORS = {500, 501, 502, 503, 504, 555}
_USEFUL = {b"MAIL", b"RCPT", b"DATA"}


class Connection(Wire):
    """One client and its transaction."""

    def __init__(self, service: Service) -> None:
        super().__init__(service.limits.idle, service.buffer)
        self.peer = Peer()
        self._service = service
        self._errors = 0
        self._useless = self._turn = 0
        self._served = False
        self._name = ""
        self._delivered: deque[tuple[Message, list[Envelope]]] = deque(maxlen=MAX_HELD)
        """What was acknowledged, until the client has surely had its replies."""
        self._went_on = False
        """It has said something behind that, perhaps before it had them."""
        self._reset()

    def _reset(self) -> None:
        """No transaction is open."""
        self._sender: Sender | None = None
        self._recipients: list[Recipient] = []
        self._refused = self._said = 0
        self._forwarded: dict[str, str] = {}

    @property
    def open(self) -> bool:
        """A transaction is."""
        return self._sender is not None

    async def _converse(self) -> None:
        refusal = await self._come_in()
        if refusal:
            self._farewell(refusal)
        else:
            self._replies.append(f"220 {self._service.hostname} LMTP mdaflow".encode())
        try:
            while not self.closing:
                await self._step()
        finally:
            # Not when the client goes: who leaves mail behind keeps its place until that is done.
            self._service.connections.discard(self)
            if self.lost or not self._went_on:
                self._remember()

    async def _come_in(self) -> Status | None:
        assert self.transport is not None
        sock, peername = map(self.transport.get_extra_info, ("socket", "peername"))
        if peername is None:
            raise EOFError  # gone before it was let in
        self.peer = self._service.look_at(sock, peername)
        refusal = self._service.admit(self)
        if refusal or not self.peer.proxied:
            return refusal
        try:
            address = await proxy.source(self._some)
        except ValueError as error:
            log.warning("%s: no PROXY header: %s", self.peer, error)
            return reply.NO_PROXY
        if address:
            log.info("connect from %s, by way of %s", address, self.peer)
        peer = self._service.behind(address) if address else Peer(self.peer.address)
        crowded = self._service.crowded(peer)
        self.peer = peer
        return reply.BUSY if crowded else None

    async def _some(self, size: int) -> bytes:
        """The next bytes that are no command."""
        if not self._input:
            await self._more(self._loop.time() + self._idle)
        found = bytes(self._input[:size])
        del self._input[:size]
        return found

    async def _step(self) -> None:
        """Read one command, do it, and answer."""
        try:
            if self._over:
                raise TempFail(SHUTTING_DOWN)
            line = await self._line()
            self._hear()
            command, _, argument = line.partition(b" ")
            command = command.upper()
            await self._take_turn(command)
            act = COMMANDS.get(command, Connection.unknown)
            said = await act(self, argument.strip(b" "))
            if said:
                self._replies.append(said)
        except MailError as error:
            await self._refuse(error.status)
        except (EOFError, OSError):
            raise
        except Exception:
            log.exception("internal error in a connection")
            self._farewell(reply.LOST)

    def _hear(self) -> None:
        """The client goes on. What came in one go with the message, as Postfix's QUIT, does not
        show that it has had our replies."""
        self._went_on = True
        if not self._replies:
            self._delivered.clear()
            self._turn = 0  # others have had theirs while we waited

    def _remember(self) -> None:
        """What was delivered may come again (P10)."""
        for message, envelopes in self._delivered:
            self._service.crew.unconfirmed(message, envelopes)
        self._delivered.clear()

    def sweep(self, now: float) -> None:
        """Let go of what was delivered long ago, in seconds of the loop: it holds a message."""
        if self._delivered and now - self.since > HOLD:
            self._remember()

    async def _take_turn(self, command: bytes) -> None:
        """Let others come first, the more the less mail comes of what the client says."""
        self._useless += command not in _USEFUL
        self._turn += 1
        if self._useless > MAX_USELESS and command not in _USEFUL:
            raise TempFail(reply.TOO_MANY_COMMANDS)
        if self._useless > FREE_USELESS:
            await asyncio.sleep(PAUSE)
        elif self._turn % TURN == 0:
            await asyncio.sleep(0)

    async def _refuse(self, status: Status) -> None:
        if status.code in _ERRORS and status is not reply.NO_RECIPIENTS:
            self._errors += 1
            await asyncio.sleep(PAUSE)
        if self._errors > MAX_ERRORS:
            status = reply.TOO_MANY_ERRORS
        if status.code == 421:
            self._farewell(status)
        else:
            self._replies.append(reply.line(status))

    @property
    def _over(self) -> bool:
        had_its_turn = self._served or self._service.dismissing
        return self._service.draining and had_its_turn and not self.open

    def dismiss(self, *, open_too: bool) -> None:
        """Say 421 if the client has the word and its time is over, or, if `open_too`, anyway."""
        if self.has_word and (open_too or self._over):
            self._farewell(SHUTTING_DOWN)

    def give_place(self) -> None:
        """Leave, for somebody who has more to say."""
        self._service.connections.discard(self)
        self._farewell(reply.BUSY)

    # --- commands: each takes its argument and returns its reply, or raises a MailError -----

    async def lhlo(self, argument: bytes) -> bytes:
        """LHLO name"""
        if not _NAME.fullmatch(argument):
            raise PermFail(reply.syntax("LHLO hostname"))
        self._reset()
        self._name = argument.decode("ascii")
        return self._service.extensions(trusted=self.peer.trusted, secure=self.secure)

    async def mail(self, argument: bytes) -> bytes:
        """MAIL FROM:<sender> with SIZE, BODY, SMTPUTF8, RET, ENVID"""
        if not self._name:
            raise PermFail(reply.LHLO_FIRST)
        if self.open:
            raise PermFail(reply.NESTED)
        try:
            sender = arguments.sender(argument, self._service.limits.max_size)
            self._service.spool.need_room(sender.size)
        except MailError as error:
            ident, said = self._forwarded.get("IDENT", "NOQUEUE"), argument[:400].decode("latin-1")
            log.warning("%s: refused at MAIL: %s: %s", ident, said, error)
            raise
        self._sender = sender
        return _SENDER_OK

    async def rcpt(self, argument: bytes) -> bytes:
        """RCPT TO:<recipient> with NOTIFY, ORCPT"""
        if self._sender is None:
            raise PermFail(reply.MAIL_FIRST)
        utf8, most = self._sender.utf8, self._service.limits.max_recipients
        recipient = arguments.recipient(argument, utf8)
        self._said += len(argument)
        if len(self._recipients) >= most or self._said > MAX_ADDRESSES:
            await self._refuse_recipient(FREE_USELESS)
            raise TempFail(reply.TOO_MANY_RECIPIENTS)
        asked = recipient.address, self._sender.address, xforward.client(self._forwarded)
        status = self._service.crew.known(*asked)
        if status is None:
            await self._flush()
            status = await self._service.crew.check(*asked)
        if status.ok:
            self._recipients.append(recipient)
        else:
            await self._refuse_recipient(FREE_USELESS + len(self._recipients))
        return reply.line(status, utf8=utf8)

    async def _refuse_recipient(self, free: int) -> None:
        """Count it; when there were more than are `free`, others come first."""
        self._refused += 1
        if self._refused > free:
            await asyncio.sleep(PAUSE)
        if self._refused > self._service.limits.max_recipients:
            raise TempFail(reply.TOO_MANY_ERRORS)

    async def data(self, argument: bytes) -> bytes:
        """DATA, the message, and a reply for each recipient"""
        if argument:
            raise PermFail(reply.NO_ARGUMENT)
        if not self._recipients:
            raise PermFail(reply.NO_RECIPIENTS)
        self._replies.append(b"354 End data with <CR><LF>.<CR><LF>")
        arrival = Arrival(self._service.spool)
        try:
            await self._content(arrival.feed, DATA_IDLES * self._idle)
            statuses = await self._deliver(arrival)
        finally:
            arrival.close()
        utf8 = self._sender is not None and self._sender.utf8
        lines = [
            reply.line(status, recipient.address, utf8=utf8)
            for recipient, status in zip(self._recipients, statuses, strict=True)
        ]
        self._reset()
        self._served = True
        self._useless = 0
        return b"\r\n".join(lines)

    async def _deliver(self, arrival: Arrival) -> list[Status]:
        """A status for each accepted RCPT, whatever happens."""
        try:
            envelopes = self._envelopes()
            if arrival.refusal is not None:
                for envelope in envelopes.values():
                    refused(envelope, arrival.size, arrival.refusal)
                return [arrival.refusal.status for _ in self._recipients]
            message = Message(arrival.raw())
            arrival.close()
            found = await self._service.crew.deliver(message, list(envelopes.values()))
            statuses = dict(zip(envelopes, found, strict=True))
            self._acknowledge(message, [envelopes[r] for r in envelopes if statuses[r].ok])
            return [statuses[recipient.address] for recipient in self._recipients]
        except Exception:
            log.exception("internal error after DATA")
            return [INTERNAL for _ in self._recipients]

    def _acknowledge(self, message: Message, envelopes: list[Envelope]) -> None:
        self._delivered.append((message, envelopes))
        self._went_on = False
        self.progress = self._loop.time()

    def _envelopes(self) -> dict[str, Envelope]:
        """An envelope for each recipient: who was named twice gets one message."""
        assert self._sender is not None
        sender, said = self._sender, self._forwarded
        about: dict[str, Any] = {  # not dataclasses.replace, which takes longer than all else here
            "sender": sender.address,
            "client": xforward.client(said),
            "queue_id": said.get("IDENT", ""),
            "protocol": "LMTPS" if self.secure else "LMTP",
            "peer": self._name,
            "received": time.time(),
            "ret": sender.ret,
            "envid": sender.envid,
        }
        return {
            address: Envelope(
                recipient=address, original=original, notify=notify, orcpt=orcpt, **about
            )
            for address, original, notify, orcpt in arguments.merged(self._recipients)
        }

    async def rset(self, argument: bytes) -> bytes:
        """RSET"""
        if argument:
            raise PermFail(reply.NO_ARGUMENT)
        self._reset()
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
        """XFORWARD NAME=value ..., from trusted peers only, outside a transaction"""
        if not self.peer.trusted:
            raise PermFail(reply.NOT_YOU)
        if self.open:
            raise PermFail(reply.NESTED)
        try:
            self._forwarded.update(xforward.parse(argument))
        except ValueError:
            raise PermFail(reply.syntax("XFORWARD attribute=value...")) from None
        return _OK

    async def starttls(self, argument: bytes) -> bytes:
        """STARTTLS; the conversation begins again (RFC 3207 section 4.2)"""
        if argument:
            raise PermFail(reply.NO_ARGUMENT)
        if self._service.tls is None or self.secure:
            raise PermFail(reply.NO_TLS)
        if self.open:
            raise PermFail(reply.NESTED)
        if self._input:  # said in the clear, and it would count as said in secret
            raise TempFail(reply.BEFORE_TLS)
        self._replies.append(reply.line(reply.START_TLS))
        await self._flush()
        if self._input:  # it came while the client was slow to take its replies
            raise TempFail(reply.BEFORE_TLS)
        try:
            await self._start_tls(self._service.tls)
        except OSError as error:
            log.info("%s: no TLS: %s", self.peer, error or "the client went away")
            raise
        self._reset()
        self._name = ""
        return b""

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
    b"STARTTLS": Connection.starttls,
    b"HELO": Connection.smtp,
    b"EHLO": Connection.smtp,
}

_OK = reply.line(reply.OK)
_SENDER_OK = reply.line(reply.SENDER_OK)
