"""Hand a message to the next MTA: one mail transaction, by SMTP (RFC 5321 section 3.3) or by LMTP.

`prepare` connects and asks up to the last RCPT, so that nearly everything that can be refused
is refused before anything is stored. `commit` sends the data, and returns when the next hop has
taken the message. All targets are taken, or none; `partly`, each for itself.

By LMTP each target has a result of its own behind the final dot (RFC 2033 section 4.2). Who was
told 250 has the message, whatever becomes of the others; who was not told anything gets it again.

A 4xx, silence, a lost connection and nonsense may all be over later: TempFail. A 5xx about
this message is PermFail; a 5xx about the connection is for the site to mend, so TempFail too.
Replies to QUIT are not waited for, as in Postfix. A hop that did not answer is left alone for a
while, whoever asks: see breaker.py.

Only CRLF . CRLF ends the data, for any reader: a bare CR and a NUL, which SMTP does not allow
(RFC 5321 section 2.3.8, RFC 2045 section 2.8), become spaces, as in Postfix.

What the sender wants to be told goes to a next hop that knows DSN (RFC 3461 section 5.2.1).
Whoever wants to hear nothing is no sender to one that does not (5.2.2).

Known limits: those of dialogue.py. 8-bit text is sent also to a peer without 8BITMIME, long lines
are sent as they are. When the connection is lost behind the final dot, the peer may have the
message, and gets it again.
"""

from __future__ import annotations

import errno
import re
import socket
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress

from mdaflow.engine.plan import one_line
from mdaflow.errors import MailError, PermFail, Status, TempFail
from mdaflow.mail.letter import is_address
from mdaflow.mail.raw import pieces
from mdaflow.mail.receipt import NO_WISHES, Relay, Wishes

from . import breaker
from .dialogue import Dialogue, Reply, parse_hop
from .job import Means
from .mailbox import Chunk, Chunks

PREPARE = 30.0
"""Seconds from the connection to the answer to the last RCPT."""
DATA = 60.0
"""Seconds from DATA to the answer to the final dot, by LMTP to the last of them."""
AT_ONCE = 100
"""RCPT commands that are sent before their replies are read, to a hop with PIPELINING: so few
that both fit into what lies between, and neither side waits for the other (RFC 2920)."""

NO_ANSWER = Status(451, "4.4.1", "Next hop does not answer, try again later")
NOT_NOW = Status(451, "4.3.0", "Next hop has trouble, try again later")
REFUSED = Status(554, "5.0.0", "Refused by the next hop")
BAD_SENDER = Status(553, "5.1.7", "Bad sender address")
BAD_TARGET = Status(553, "5.1.3", "Bad address to send to")
ASCII_ONLY = Status(550, "5.6.7", "Next hop takes only addresses in ASCII")

_HELLO = {"smtp": "EHLO", "lmtp": "LHLO"}
_ENHANCED = re.compile(r"[45]\.[0-9]{1,3}\.[0-9]{1,3}(?= |\Z)")
_BEFORE_MAIL = ("greeting", *_HELLO.values())
_CONNECTION = frozenset({500, 502, 503, 504, 530, 534, 535, 538})
"""Codes about the way we talk, whatever they answer (RFC 5321 section 4.2, RFC 4954)."""
_GOODBYE = 1.0  # seconds that QUIT may take
_MAX_CAUSE = 300  # characters of a reply in our log
_MAX_NAMED = 20  # targets in the log
_NO_WAY = frozenset({errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENETDOWN})
_TO_SPACE = bytes.maketrans(b"\r\0", b"  ")


def prepare(
    means: Means,
    sender: str,
    targets: Sequence[str],
    chunks: Chunks,
    limit: float | None = None,
    wishes: Wishes = NO_WISHES,
    *,
    hop: str = "",
    partly: bool = False,
) -> Transaction:
    """A transaction with the next hop, or with `hop`, that waits for its data.

    `sender` is "" for the null sender, `chunks` together are the message with LF line ends.
    `limit` is in seconds, once for this and once for the data. `partly`: who is refused is named
    in `refused` of what is returned, and fails nobody else.

    Raises TempFail, and PermFail for a bad address or what the next hop refuses for good; `partly`
    only when nobody is left, and then TempFail if it may work later for one of them.
    """
    if sender and not is_address(sender):
        raise PermFail(BAD_SENDER, f"bad sender address {sender[:100]!r}")
    hop = hop or means.next_hop
    transaction = Transaction(hop, means.hostname, targets, chunks, limit or DATA, wishes, partly)
    if not breaker.may_ask(hop):
        raise TempFail(NO_ANSWER, f"{hop} did not answer a moment ago")
    try:
        transaction.open(sender, limit or PREPARE)
    except BaseException:
        transaction.close()
        raise
    return transaction


class Transaction:
    """One message for one or more targets, on its way to a hop."""

    def __init__(
        self,
        hop: str,
        hostname: str,
        targets: Sequence[str],
        chunks: Chunks,
        limit: float,
        wishes: Wishes = NO_WISHES,
        partly: bool = False,
    ) -> None:
        self.answer = ""
        """What the hop said when it took the message: its queue id is there."""
        self.refused: dict[str, MailError] = {}
        """Who does not get it, and why. After `commit` that is everybody who has not got it,
        also when it raises."""
        self._hop, self._hostname, self._chunks, self._limit = hop, hostname, chunks, limit
        self._wishes, self._partly = wishes, partly
        self._targets = tuple(dict.fromkeys(targets))
        self._offers: frozenset[str] = frozenset()
        self._line: Dialogue | None = None
        bad = [target for target in self._targets if not is_address(target)]
        for target in bad:
            cause = f"bad address to send to: {target[:100]!r}"
            self._refuse(target, PermFail(BAD_TARGET, cause))
        if not targets:
            raise PermFail(BAD_TARGET, "no address to send to")
        self._settle()

    @property
    def targets(self) -> tuple[str, ...]:
        """Who gets it."""
        return tuple(target for target in self._targets if target not in self.refused)

    @property
    def where(self) -> str:
        """What is done, for the log."""
        names = self.targets
        more = f" and {len(names) - _MAX_NAMED} more" if len(names) > _MAX_NAMED else ""
        return f"{self._protocol} {', '.join(names[:_MAX_NAMED])}{more}"

    @property
    def relay(self) -> Relay:
        """How the message has left us, when it has."""
        host = parse_hop(self._hop).host or self._hostname  # a unix socket is on this machine
        return Relay(host, self.answer, "DSN" in self._offers, self.targets)

    def open(self, sender: str, seconds: float) -> None:
        """The dialogue before DATA. Raises TempFail, PermFail."""
        with _talk(self._hop):
            hop = parse_hop(self._hop)
            self._line = line = Dialogue(hop, seconds)
            self._agreed("greeting", line.reply())
            hello = _HELLO[hop.protocol]
            said = line.ask(f"{hello} {self._hostname}")
            self._agreed(hello, said)
            self._offers = frozenset(text.partition(" ")[0].upper() for text in said.lines[1:])
            of_mail, of_rcpt = self._wishes.of_mail, self._wishes.of_rcpt
            if "DSN" not in self._offers:
                of_mail = of_rcpt = ""
                if self._wishes.notify == ("NEVER",):  # nobody can be told then
                    sender = ""
            parameters = self._parameters(sender) + of_mail
            self._agreed("MAIL", line.ask(f"MAIL FROM:<{sender}>{parameters}"))
            self._ask_for_all(line, of_rcpt)

    def _ask_for_all(self, line: Dialogue, parameters: str) -> None:
        """RCPT for each target, many at once where the hop knows PIPELINING."""
        targets, some = self.targets, AT_ONCE if "PIPELINING" in self._offers else 1
        for first in range(0, len(targets), some):
            asked = targets[first : first + some]
            line.say("".join(f"RCPT TO:<{target}>{parameters}\r\n" for target in asked).encode())
            for target in asked:
                reply = line.reply()
                try:
                    self._agreed(f"RCPT <{target}>", reply)
                except MailError as error:
                    self._refuse(target, error)
        self._settle()

    def commit(self) -> None:
        """Send the message; then the hop has it. Raises TempFail, PermFail; `partly` only when
        nobody got it. Who has it all the same is in `done` of what is raised."""
        assert self._line is not None
        try:
            with _talk(self._hop):
                self._line.deadline = time.monotonic() + self._limit
                self._agreed("DATA", self._line.ask("DATA"), 3)
                for piece in wire(self._chunks):
                    self._line.listen()
                    self._line.say(piece)
                self._hear(self._line)
        except BaseException as error:
            self.close()  # without QUIT, which would be text of the message
            if isinstance(error, MailError):
                self.refused.update(dict.fromkeys(self.targets, error))
            raise
        self.abort()  # nothing is left to take back
        self._settle(self.targets)

    def _hear(self, line: Dialogue) -> None:
        """What became of the message: by SMTP one reply for all, by LMTP one for each."""
        if self._protocol == "smtp":
            self.answer = self._agreed("message", line.reply())
            return
        targets = self.targets
        for n, target in enumerate(targets):
            try:
                with _talk(self._hop):
                    reply = line.reply()
            except TempFail as error:  # those who were answered have it
                self.refused.update(dict.fromkeys(targets[n:], error))
                return
            try:
                self.answer = self._agreed(f"message for <{target}>", reply)
            except MailError as error:
                self.refused[target] = error

    def abort(self) -> None:
        """Say goodbye; a message that was not sent is forgotten."""
        line = self._line
        if line is not None and not line.broken:
            with suppress(OSError):
                line.deadline = time.monotonic() + _GOODBYE
                line.say(b"QUIT\r\n")
            breaker.answered(self._hop)
        self.close()

    def close(self) -> None:
        """Drop the connection, whatever its state."""
        if self._line is not None:
            self._line.close()

    @property
    def _protocol(self) -> str:
        return "lmtp" if self._hop.startswith("lmtp:") else "smtp"

    def _parameters(self, sender: str) -> str:
        """Those of MAIL (RFC 1870, RFC 6152, RFC 6531)."""
        offers = {"SIZE": f" SIZE={sum(map(len, self._chunks))}", "8BITMIME": " BODY=8BITMIME"}
        said = "".join(text for name, text in offers.items() if name in self._offers)
        if sender.isascii() and all(map(str.isascii, self.targets)):
            return said
        if "SMTPUTF8" in self._offers:
            return f"{said} SMTPUTF8"
        failure = PermFail(ASCII_ONLY, f"{self._hop}: no SMTPUTF8")
        if not sender.isascii():
            raise failure
        for target in self.targets:
            if not target.isascii():
                self._refuse(target, failure)
        self._settle()
        return said

    def _refuse(self, target: str, error: MailError) -> None:
        """Before anything is sent: one who is refused is one who fails, or all do."""
        self.refused[target] = error
        if not self._partly:
            raise error

    def _settle(self, done: tuple[str, ...] = ()) -> None:
        """Raise the worst that was said, unless enough have it, or may have it yet."""
        errors = list(self.refused.values())
        if errors and not (self._partly and self.targets):
            worst = next((e for e in errors if isinstance(e, TempFail)), errors[0])
            raise type(worst)(worst.status, str(worst), done)

    def _agreed(self, step: str, reply: Reply, good: int = 2) -> str:
        """The reply, if its first digit is `good`. Raises TempFail, PermFail."""
        text = one_line(reply.text)[:_MAX_CAUSE]
        code = reply.code
        if code // 100 == good:
            return f"{code} {text}"
        found = _ENHANCED.match(text)
        for_good = code // 100 == 5 and code not in _CONNECTION and step not in _BEFORE_MAIL
        if found and found[0].endswith(".5.3"):  # too many recipients (RFC 5321 4.5.3.1.10)
            for_good = False
        failure, ours = (PermFail, REFUSED) if for_good else (TempFail, NOT_NOW)
        enhanced = found[0] if found and found[0][0] == ours.enhanced[0] else ours.enhanced
        # x5z speaks of mail (RFC 5321 section 4.2.1) and is passed on; 421 would be about us
        code = code if code // 10 == ours.code // 10 else ours.code
        status = Status(code, enhanced, ours.text)
        raise failure(status, f"{self._hop}: {step}: {reply.code} {text}")


@contextmanager
def _talk(hop: str) -> Iterator[None]:
    """Whatever goes wrong on the way to the next hop may work later; see `Transaction`."""
    try:
        yield
    except (OSError, ValueError) as error:
        (breaker.silent if _silent(error) else breaker.answered)(hop)
        raise TempFail(NO_ANSWER, f"{hop}: {error or type(error).__name__}") from error
    except BaseException:
        breaker.answered(hop)
        raise


def _silent(error: BaseException) -> bool:
    """Whether somebody was waited for in vain, or could not be reached."""
    return isinstance(error, TimeoutError | ConnectionRefusedError | socket.gaierror) or (
        isinstance(error, OSError) and error.errno in _NO_WAY
    )


def wire(chunks: Iterable[Chunk]) -> Iterator[bytes]:
    """A message as DATA sends it: lines end in CRLF, dots are doubled, the end is there."""
    fresh = True  # at the start of a line
    for view in pieces(chunks):
        piece = bytes(view).translate(_TO_SPACE)
        lines = piece.replace(b"\n.", b"\n..").replace(b"\n", b"\r\n")
        yield b"." + lines if fresh and piece.startswith(b".") else lines
        fresh = piece.endswith(b"\n")
    yield b".\r\n" if fresh else b"\r\n.\r\n"
