"""Hand a message to the next MTA: one mail transaction (RFC 5321 section 3.3).

`prepare` connects and asks up to the last RCPT, so that nearly everything that can be refused
is refused before anything is stored. `commit` sends the data, and returns when the next hop has
taken the message. All targets are taken, or none.

A 4xx, silence, a lost connection and nonsense may all be over later: TempFail. A 5xx about
this message is PermFail; a 5xx about the connection is for the site to mend, so TempFail too.
Every step ends before a deadline, and only so much of what the peer says is read. Replies to
QUIT are not waited for, as in Postfix. A hop that did not answer is left alone for a while, whoever
asks: see breaker.py.

Only CRLF . CRLF ends the data, for any reader: a bare CR and a NUL, which SMTP does not allow
(RFC 5321 section 2.3.8, RFC 2045 section 2.8), become spaces, as in Postfix.

What the sender wants to be told goes to a next hop that knows DSN (RFC 3461 section 5.2.1).
Whoever wants to hear nothing is no sender to one that does not (5.2.2).

Known limits: the next hop is the site's own MTA, so no TLS and no login. The resolver has time
limits of its own, and each address of a name is given 10 seconds. 8-bit text is sent also to a
peer without 8BITMIME, long lines are sent as they are. When the connection is lost behind the
final dot, the peer may have the message, and gets it again.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import smtplib
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

from mdaflow.engine.plan import one_line
from mdaflow.errors import MailError, PermFail, Status, TempFail
from mdaflow.mail.letter import is_address
from mdaflow.mail.raw import pieces
from mdaflow.mail.receipt import NO_WISHES, Relay, Wishes

from . import breaker
from .job import Job, Means
from .mailbox import Chunk, Chunks

log = logging.getLogger("mdaflow")

CONNECT = 10.0
"""Seconds for the connection to one address of the next hop."""
PREPARE = 30.0
"""Seconds from the connection to the answer to the last RCPT."""
DATA = 60.0
"""Seconds from DATA to the answer to the final dot."""
LETTER = 10.0
"""The same two for a letter of ours, which is not worth waiting for."""

NO_ANSWER = Status(451, "4.4.1", "Next hop does not answer, try again later")
NOT_NOW = Status(451, "4.3.0", "Next hop has trouble, try again later")
REFUSED = Status(554, "5.0.0", "Refused by the next hop")
BAD_SENDER = Status(553, "5.1.7", "Bad sender address")
BAD_TARGET = Status(553, "5.1.3", "Bad address to send to")
ASCII_ONLY = Status(550, "5.6.7", "Next hop takes only addresses in ASCII")

_HOP = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+)):([0-9]{1,5})")
_ENHANCED = re.compile(r"[45]\.[0-9]{1,3}\.[0-9]{1,3}(?= |\Z)")
_BEFORE_MAIL = ("greeting", "EHLO")
_CONNECTION = frozenset({500, 502, 503, 504, 530, 534, 535, 538})
"""Codes about the way we talk, whatever they answer (RFC 5321 section 4.2, RFC 4954)."""
_GOODBYE = 1.0  # seconds that QUIT may take
_MAX_READ = 64 << 10  # bytes of all replies together
_MAX_CAUSE = 300  # characters of a reply in our log
_NO_WAY = frozenset({errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENETDOWN})
_TO_SPACE = bytes.maketrans(b"\r\0", b"  ")


def parse_hop(text: str) -> tuple[str, int]:
    """Host and port of `host:port` or `[IPv6]:port`. Raises ValueError."""
    found = _HOP.fullmatch(text)
    if found is None or not 0 < int(found[3]) < 65536:
        raise ValueError(f"{text!r} is not host:port")
    return found[1] or found[2], int(found[3])


def prepare(
    means: Means,
    sender: str,
    targets: Sequence[str],
    chunks: Chunks,
    limit: float | None = None,
    wishes: Wishes = NO_WISHES,
) -> Transaction:
    """A transaction with the next hop that waits for its data.

    `sender` is "" for the null sender, `chunks` together are the message with LF line ends.
    `limit` is in seconds, once for this and once for the data.

    Raises TempFail, and PermFail for a bad address or what the next hop refuses for good.
    """
    if sender and not is_address(sender):
        raise PermFail(BAD_SENDER, f"bad sender address {sender[:100]!r}")
    bad = [target for target in targets if not is_address(target)]
    if bad or not targets:
        raise PermFail(BAD_TARGET, f"bad address to send to: {''.join(bad[:1])[:100]!r}")
    if not breaker.may_ask(means.next_hop):
        raise TempFail(NO_ANSWER, f"{means.next_hop} did not answer a moment ago")
    transaction = Transaction(means, targets, chunks, limit or DATA, wishes)
    try:
        transaction.open(sender, limit or PREPARE)
    except BaseException:
        transaction.close()
        raise
    return transaction


class Transaction:
    """One message for one or more targets, on its way to the next hop."""

    def __init__(
        self,
        means: Means,
        targets: Sequence[str],
        chunks: Chunks,
        limit: float,
        wishes: Wishes = NO_WISHES,
    ) -> None:
        self.where = f"smtp {', '.join(targets)}"
        self.answer = ""
        """What the next hop said when it took the message: its queue id is there."""
        self._hop, self._targets, self._chunks, self._limit = means.next_hop, targets, chunks, limit
        self._wishes = wishes
        self._dsn = False
        self._smtp = smtplib.SMTP(local_hostname=means.hostname)

    def open(self, sender: str, seconds: float) -> None:
        """The dialogue before DATA. Raises TempFail, PermFail."""
        smtp = self._smtp
        with _talk(self._hop):
            self._line = _dial(parse_hop(self._hop), seconds)
            smtp.sock, smtp.file = self._line, None
            self._agreed("greeting", smtp.getreply())
            self._agreed("EHLO", smtp.ehlo())
            of_mail, of_rcpt = self._wishes.of_mail, self._wishes.of_rcpt
            self._dsn = smtp.has_extn("DSN")
            if not self._dsn:
                of_mail = of_rcpt = ""
                if self._wishes.notify == ("NEVER",):  # nobody can be told then
                    sender = ""
            parameters = self._parameters(sender) + of_mail
            # not smtp.mail and smtp.rcpt, which take an address for a header field
            self._agreed("MAIL", smtp.docmd("MAIL", f"FROM:<{sender}>{parameters}"))
            for target in self._targets:
                self._agreed(f"RCPT <{target}>", smtp.docmd("RCPT", f"TO:<{target}>{of_rcpt}"))

    def commit(self) -> None:
        """Send the message; then the next hop has it. Raises TempFail, PermFail."""
        try:
            with _talk(self._hop):
                self._line.deadline = time.monotonic() + self._limit
                self._agreed("DATA", self._smtp.docmd("DATA"), 3)
                for piece in wire(self._chunks):
                    self._smtp.send(piece)
                self.answer = self._agreed("message", self._smtp.getreply())
        except BaseException:
            self.close()  # without QUIT, which would be text of the message
            raise
        self.abort()  # nothing is left to take back

    def abort(self) -> None:
        """Say goodbye; a message that was not sent is forgotten."""
        with suppress(OSError, ValueError):
            self._line.deadline = time.monotonic() + _GOODBYE
            self._smtp.putcmd("QUIT")
        self.close()
        breaker.answered(self._hop)

    def close(self) -> None:
        """Drop the connection, whatever its state."""
        with suppress(OSError):
            self._smtp.close()

    @property
    def relay(self) -> Relay:
        """How the message has left us, when it has."""
        host, _ = parse_hop(self._hop)
        return Relay(host, self.answer, self._dsn, tuple(self._targets))

    def _parameters(self, sender: str) -> str:
        """Those of MAIL (RFC 1870, RFC 6152, RFC 6531)."""
        smtp = self._smtp
        offers = {"SIZE": f" SIZE={sum(map(len, self._chunks))}", "8BITMIME": " BODY=8BITMIME"}
        said = "".join(text for name, text in offers.items() if smtp.has_extn(name))
        if sender.isascii() and all(map(str.isascii, self._targets)):
            return said
        if not smtp.has_extn("SMTPUTF8"):
            raise PermFail(ASCII_ONLY, f"{self._hop}: no SMTPUTF8")
        smtp.command_encoding = "utf-8"
        return f"{said} SMTPUTF8"

    def _agreed(self, step: str, reply: tuple[int, bytes], good: int = 2) -> str:
        """The reply, if its first digit is `good`. Raises TempFail, PermFail."""
        code, raw = reply
        text = one_line(raw.decode("utf-8", "replace"))[:_MAX_CAUSE]
        if code // 100 == good:
            return f"{code} {text}"
        for_good = code // 100 == 5 and code not in _CONNECTION and step not in _BEFORE_MAIL
        failure, ours = (PermFail, REFUSED) if for_good else (TempFail, NOT_NOW)
        found = _ENHANCED.match(text)
        enhanced = found[0] if found and found[0][0] == ours.enhanced[0] else ours.enhanced
        # x5z speaks of mail (RFC 5321 section 4.2.1) and is passed on; 421 would be about us
        code = code if code // 10 == ours.code // 10 else ours.code
        status = Status(code, enhanced, ours.text)
        raise failure(status, f"{self._hop}: {step}: {reply[0]} {text}")


@contextmanager
def _talk(hop: str) -> Iterator[None]:
    """Whatever goes wrong on the way to the next hop may work later; see `Transaction`."""
    try:
        yield
    except (OSError, ValueError) as error:  # what smtplib raises is an OSError
        (breaker.silent if _silent(error) else breaker.answered)(hop)
        raise TempFail(NO_ANSWER, f"{hop}: {error or type(error).__name__}") from error
    except BaseException:
        breaker.answered(hop)
        raise


def _silent(error: BaseException) -> bool:
    """Whether somebody was waited for in vain, or could not be reached."""
    found = error.__context__ if isinstance(error, smtplib.SMTPException) else error
    return isinstance(found, TimeoutError | ConnectionRefusedError | socket.gaierror) or (
        isinstance(found, OSError) and found.errno in _NO_WAY
    )


def _dial(address: tuple[str, int], seconds: float) -> _Line:
    deadline = time.monotonic() + seconds
    plain = socket.create_connection(address, min(seconds, CONNECT))
    line = _Line(fileno=plain.detach())
    line.deadline = deadline
    return line


class _Line(socket.socket):
    """A socket whose every step ends before a deadline, and that reads only so much."""

    deadline = 0.0
    unread = _MAX_READ

    def recv_into(self, *args: Any) -> int:
        self._clock()
        size = super().recv_into(*args)
        self.unread -= size
        if self.unread < 0:
            raise OSError("the peer says too much")
        return size

    def sendall(self, *args: Any) -> None:
        self._clock()
        super().sendall(*args)

    def _clock(self) -> None:
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        self.settimeout(left)


def wire(chunks: Iterable[Chunk]) -> Iterator[bytes]:
    """A message as DATA sends it: lines end in CRLF, dots are doubled, the end is there."""
    fresh = True  # at the start of a line
    for view in pieces(chunks):
        piece = bytes(view).translate(_TO_SPACE)
        lines = piece.replace(b"\n.", b"\n..").replace(b"\n", b"\r\n")
        yield b"." + lines if fresh and piece.startswith(b".") else lines
        fresh = piece.endswith(b"\n")
    yield b".\r\n" if fresh else b"\r\n.\r\n"


def message_id(job: Job) -> str:
    """A message id for a letter of ours."""
    return f"<{job.ident}.{os.urandom(6).hex()}@{job.means.hostname}>"


class Nothing(NamedTuple):
    """What is not sent, and why."""

    where: str

    def commit(self) -> None:
        """Do nothing."""

    def abort(self) -> None:
        """Do nothing."""


class Letter:
    """A letter of ours, with the null sender, that is sent at commit: nothing waits for it
    before. When it cannot be sent, `where` and the log say so, and nothing else fails (P38)."""

    def __init__(
        self,
        job: Job,
        kind: str,
        target: str,
        write: Callable[[], bytes],
        why_not: Callable[[], str] = lambda: "",
    ) -> None:
        self.where = f"{kind} {one_line(target)}"
        self._job, self._kind, self._target, self._write = job, kind, target, write
        self._why_not = why_not  # asked last, when the next hop has agreed

    def commit(self) -> None:
        """Send it, if that is possible. Never raises."""
        try:
            reason = self._send()
        except Exception as error:  # a bug, too, must not bring back what is stored already
            reason = error.status.text if isinstance(error, MailError) else "it failed"
            told = isinstance(error, MailError | OSError | ValueError)
            words = (self._job.ident, self._kind, self._target, error)
            log.warning("%s: no %s to <%s>: %s", *words, exc_info=not told)
        if reason:
            self.where = f"no {self._kind}: {reason}"

    def abort(self) -> None:
        """Do nothing: nothing was done."""

    def _send(self) -> str:
        transaction = prepare(self._job.means, "", (self._target,), [self._write()], LETTER)
        try:
            reason = self._why_not()
        except BaseException:
            transaction.abort()
            raise
        if reason:
            transaction.abort()
        else:
            transaction.commit()
        return reason
