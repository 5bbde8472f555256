"""rspamd, by HTTP: `/checkv2` of a normal worker, `/learnspam` and `/learnham` of a controller.

https://docs.rspamd.com/developers/protocol. The envelope goes in header fields of the request.
`User` is not among them: to rspamd that is somebody who has logged in to send mail. `Deliver-To`
is, where what is found may depend on the recipient.

What rspamd would do (its action) is a finding: rules decide what becomes of mail. Its score is
measured by its `required_score`, from which on it would refuse a message. It calls a message spam
from a lower score on, which a reply does not name: what it calls spam has the scale at least.

An answer has all that is asked of it, or is none: whatever else comes is `Unscanned`. Known
limits: no TLS, no HTTPCrypt, no path before that of the command.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from mdaflow.mail.envelope import Envelope
from mdaflow.mail.message import Message
from mdaflow.mail.raw import pieces

from . import Hit, Report, Unscanned
from .servers import MAX_REPLY, SAYABLE, Server, Servers, dial

MAX_SIZE = 50 << 20
"""Bytes of a message; rspamd has the same."""
MAX_SCORE = 1e6
LEAST = 0.01
"""A lower score is required by nobody."""
NAMED = 10
"""Symbols that are named beside a score, the weightiest first."""

_SPAM = ("add header", "rewrite subject", "reject")
"""Actions that call a message spam."""
_LEARN = {"spam": "/learnspam", "ham": "/learnham"}
_DONE = (200, 208)  # 208: it was learned before
_LATE = "timeout processing message"

_SYMBOL = re.compile(r"[!-~]{1,100}")
_ACTION = re.compile(r"[a-z][a-z _-]{0,49}")


class Rspamd:
    """A scanner; see `Scanner`. The score is on the scale of the site, whatever rspamd's is."""

    def __init__(
        self,
        servers: Sequence[str],
        *,
        controllers: Sequence[str] = (),
        password: str = "",
        name: str = "rspamd",
        per_recipient: bool = False,
        scale: float = 5.0,
        weight: float = 1.0,
        max_size: int = MAX_SIZE,
    ) -> None:
        """`controllers` learn, and want the password.

        `scale`: the score of a message that has just what rspamd requires, times `weight`. Raises
        ValueError for an address or a password that is none.
        """
        if password and not SAYABLE.fullmatch(password):
            raise ValueError("the password of rspamd has a control character, or is too long")
        self.name = name
        self.per_recipient = per_recipient
        """What is found for one recipient is not true for the next."""
        self._servers = Servers(servers)
        self._controllers = Servers(controllers) if controllers else None
        self._password = {"Password": password} if password else {}
        self._scale = scale * weight
        self._max_size = max_size

    def scan(self, message: Message, envelope: Envelope, seconds: float) -> Report:
        """What rspamd finds. Raises Unscanned."""
        self._check_size(message)
        fields = self._password | dict(_told(envelope, self.per_recipient))

        def question(server: Server, deadline: float) -> Report:
            return self._report(_parsed(_post(server, deadline, "/checkv2", fields, message)))

        return self._servers.ask(question, seconds)

    def learn(self, message: Message, kind: Literal["spam", "ham"], seconds: float) -> None:
        """Have the message learned. Raises Unscanned when that cannot be, or not now."""
        if self._controllers is None:
            raise Unscanned(f"{self.name} has no controller to learn")
        self._check_size(message)

        def question(server: Server, deadline: float) -> None:
            _post(server, deadline, _LEARN[kind], self._password, message)

        self._controllers.ask(question, seconds)

    def _check_size(self, message: Message) -> None:
        if message.size > self._max_size:
            raise Unscanned(f"larger than {self._max_size:,} bytes")

    def _report(self, reply: Mapping[str, Any]) -> Report:
        """What a reply says. Raises ValueError, or what else wrong types do, when it is none."""
        score, required = _number(reply.get("score")), _number(reply.get("required_score"))
        if required < LEAST:
            raise ValueError(f"a score of {required} is required, so nothing can be said")
        action = _word(_ACTION, reply.get("action"))
        share = max(score / required, 1.0) if action in _SPAM else score / required
        symbols = _symbols(reply)
        why = f"{score:.2f} of {required:.2f} ({action}): {', '.join(symbols[:NAMED])}"
        late = _LATE in str(reply.get("messages"))
        return Report(
            hits=(Hit(self.name.upper(), share * self._scale, why),),
            findings={
                f"{self.name}.score": (f"{score:.2f}",),
                f"{self.name}.action": (action,),
                f"{self.name}.symbols": tuple(symbols),
            },
            unscanned="rspamd ran out of time" if late else "",
        )


def _told(envelope: Envelope, per_recipient: bool) -> Iterator[tuple[str, str]]:
    """What rspamd is told of an envelope: what is known, and can be said."""
    client = envelope.client
    values = {
        "From": f"<{envelope.sender}>",
        "Rcpt": f"<{envelope.recipient}>" if envelope.recipient else "",
        "Deliver-To": envelope.recipient if per_recipient else "",
        "IP": client.ip,
        "Helo": client.helo,
        "Hostname": client.name,
        "Queue-Id": envelope.queue_id,
    }
    return ((name, value) for name, value in values.items() if SAYABLE.fullmatch(value))


def _post(
    server: Server, deadline: float, path: str, fields: Mapping[str, str], message: Message
) -> bytes:
    """The body of a reply. Raises OSError, HTTPException, and ValueError when it is a refusal."""
    from http.client import HTTPConnection

    with dial(server, deadline) as line:
        connection = HTTPConnection(server.host or "localhost", server.port or None)
        connection.sock = line
        connection.putrequest("POST", path, skip_accept_encoding=True)
        for name, value in fields.items():
            connection.putheader(name, value.encode())
        connection.putheader("Connection", "close")
        connection.putheader("Content-Length", str(message.size))
        connection.endheaders()
        for piece in pieces(message.under(message.head)):
            line.sendall(piece)
        with connection.getresponse() as response:
            body = response.read(MAX_REPLY)
            if response.status not in _DONE:
                raise ValueError(f"HTTP status {response.status}: {body[:100]!r}")
            return body


def _parsed(reply: bytes) -> Mapping[str, Any]:
    found = json.loads(reply, parse_constant=_number)  # NaN, Infinity
    if not isinstance(found, dict):
        raise ValueError(f"no answer of rspamd: {reply[:100]!r}")
    return found


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{value!r:.100} is no number")
    if not math.isfinite(value) or abs(value) > MAX_SCORE:
        raise ValueError(f"{value!r:.100} is no score")
    return float(value)


def _word(pattern: re.Pattern[str], value: object) -> str:
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise ValueError(f"no answer of rspamd: {value!r:.100}")
    return value


def _symbols(reply: Mapping[str, Any]) -> list[str]:
    """The tests of rspamd that the message has met, the weightiest first."""
    met = reply.get("symbols")
    if not isinstance(met, dict):
        raise ValueError("no answer of rspamd: there are no symbols")
    weights = {_word(_SYMBOL, name): _number(about["score"]) for name, about in met.items()}
    return sorted(weights, key=lambda name: -abs(weights[name]))
