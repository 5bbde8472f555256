"""Receipts: delivery status notifications that say what went well (RFC 3461, RFC 3464).

A receipt tells the sender of a message that it was delivered, relayed to a next hop that sends
no receipts, or expanded to many. It is a multipart/report (RFC 6522) of a text for people, the
status for programs, and the header of the message: of a success never more comes back (RFC 3461
section 4.3). All of it is ASCII: addresses beyond it are utf-8-addr-xtext (RFC 6533 section 3),
a header that is not plain text is quoted-printable, which RFC 6522 section 4 allows. Only the
address in To is UTF-8 where the sender's is.

Whatever the strings and the header are, they can neither end a line nor begin a field or a part.
Nothing here says what a rule has made of the message. No I/O.
"""

from __future__ import annotations

import binascii
import re
from typing import NamedTuple

from . import xtext
from .envelope import Envelope
from .letter import is_address, message_ids
from .path import CONTROL
from .trace import date as date_of

MAX_HEAD = 16 << 10
"""Bytes of the header that come back."""
MAX_VALUE = 800
"""Characters of a field, so that none needs folding (RFC 5322 section 2.1.1)."""

_BOUNDARY = "=_mdaflow"  # no line of quoted-printable text can begin so (RFC 2045 section 6.7)
_NOT_PRINTABLE = re.compile(r"[^ -~]+")
_NOT_PLAIN = re.compile(rb"[^\t\n -~]|[^\n]{999}|^--=_", re.MULTILINE)
_ADDRESS = re.compile(r"[0-9.]+|[0-9A-Fa-f.:]*:[0-9A-Fa-f.:]*")


class Wishes(NamedTuple):
    """What the sender wants to be told: parameters of MAIL and RCPT (RFC 3461 section 4)."""

    ret: str = ""
    envid: str = ""
    notify: tuple[str, ...] = ()
    orcpt: str = ""
    """As it was sent."""

    @property
    def of_mail(self) -> str:
        """The parameters of MAIL; empty when there are none."""
        return _said(RET=self.ret, ENVID=xtext.encode(self.envid))

    @property
    def of_rcpt(self) -> str:
        """The parameters of RCPT; empty when there are none."""
        return _said(NOTIFY=",".join(self.notify), ORCPT=xtext.in_ascii(self.orcpt))


NO_WISHES = Wishes()


def _said(**parameters: str) -> str:
    return "".join(f" {keyword}={value}" for keyword, value in parameters.items() if value)


class Relay(NamedTuple):
    """How a message has left us."""

    host: str
    """The next hop, without its port."""
    answer: str
    """What it said when it took the message."""
    dsn: bool
    """It knows DSN, and was told what the sender wants to know."""
    targets: tuple[str, ...]


def without_success(notify: tuple[str, ...]) -> tuple[str, ...]:
    """What is asked of the others when we send the receipt (RFC 3461 section 5.2.7.3)."""
    return tuple(word for word in notify if word != "SUCCESS") or (("NEVER",) if notify else ())


def compose(
    envelope: Envelope,
    head: bytes,
    action: str,
    *,
    hostname: str,
    date: float,
    message_id: str,
    relay: Relay | None = None,
) -> bytes:
    """A receipt for one recipient, with LF line ends.

    `action` is one of `TEXTS`, `head` the header of the message as it came, `date` in seconds
    since the epoch; `relay` is told of what was relayed. Raises ValueError for a sender, a host
    name or a message id that is none.
    """
    daemon = f"MAILER-DAEMON@{hostname}"
    if not (is_address(envelope.sender) and is_address(daemon)):
        raise ValueError(f"not an address: {envelope.sender[:100]!r} or {daemon[:100]!r}")
    if message_ids(message_id) != [message_id]:
        raise ValueError(f"not a message id: {message_id[:100]!r}")
    header = (
        f"From: Mail Delivery System <{daemon}>\n"
        f"To: {envelope.sender}\n"
        f"Subject: Your message was {action}\n"
        f"Date: {date_of(date)}\n"
        f"Message-ID: {message_id}\n"
        "Auto-Submitted: auto-replied (delivery status)\n"  # RFC 3834 section 5.1
        "MIME-Version: 1.0\n"
        "Content-Type: multipart/report; report-type=delivery-status;\n"
        f' boundary="{_BOUNDARY}"\n'
    )
    parts = [_text(envelope, action, hostname), _status(envelope, action, hostname, relay)]
    parts += [_returned(head)] if head else []
    between = f"\n--{_BOUNDARY}".encode()
    return header.encode() + between.join([b"", *(b"\n" + part for part in parts), b"--\n"])


def _text(envelope: Envelope, action: str, hostname: str) -> bytes:
    recipient = CONTROL.sub(" ", envelope.recipient[:MAX_VALUE])
    about = (
        f"This is the mail system at {hostname}.\n\n{TEXTS[action]}\n\n    <{recipient}>\n\n"
        "You get this report because it was asked for. Nobody reads what is sent in answer.\n"
    )
    return _part("text/plain; charset=utf-8", about.encode("utf-8", "replace"), plain=False)


def _status(envelope: Envelope, action: str, hostname: str, relay: Relay | None) -> bytes:
    """The fields of RFC 3464 as RFC 3461 section 6.3 wants them; ENVID is decoded there."""
    e = envelope
    known = relay if action == "relayed" else None
    of_message = {
        "Reporting-MTA": f"{'dns' if '.' in hostname else 'x-local-hostname'}; {hostname}",
        "Original-Envelope-Id": e.envid,
        "Arrival-Date": date_of(e.received) if e.received > 0 else "",
    }
    of_recipient = {
        "Original-Recipient": _original(e.orcpt) if e.orcpt else "",
        "Final-Recipient": _typed(e.recipient),
        "Action": action,
        "Status": "2.0.0",
        "Remote-MTA": f"dns; {_host(known.host)}" if known else "",
        "Diagnostic-Code": f"smtp; {known.answer}" if known else "",
    }
    body = f"{_fields(of_message)}\n{_fields(of_recipient)}"
    return f"Content-Type: message/delivery-status\n\n{body}".encode()


def _fields(values: dict[str, str]) -> str:
    return "".join(f"{name}: {_visible(value)}\n" for name, value in values.items() if value)


def _returned(head: bytes) -> bytes:
    """The header of the message, cut at the end of a line."""
    if len(head) > MAX_HEAD:
        head = head[: head.rfind(b"\n", 0, MAX_HEAD) + 1 or MAX_HEAD]
    head = head.replace(b"\r", b" ").removesuffix(b"\n") + b"\n"
    return _part("text/rfc822-headers", head, plain=not _NOT_PLAIN.search(head))


def _part(kind: str, content: bytes, *, plain: bool) -> bytes:
    if plain:
        return f"Content-Type: {kind}\n\n".encode() + content
    coded = f"Content-Type: {kind}\nContent-Transfer-Encoding: quoted-printable\n\n".encode()
    return coded + binascii.b2a_qp(content)


def _host(name: str) -> str:
    """A host, or a domain literal (RFC 5321 section 4.1.3)."""
    if not _ADDRESS.fullmatch(name):
        return name
    return f"[IPv6:{name}]" if ":" in name else f"[{name}]"


def _typed(address: str) -> str:
    """An address with its type (RFC 3461 section 9.1, RFC 6533 section 3)."""
    if address.isascii():
        return f"rfc822; {address}"
    return f"utf-8; {xtext.encode_address(address)}"


def _original(orcpt: str) -> str:
    """The value of ORCPT: decoded, or as it is where that would not be ASCII."""
    kind, _, value = orcpt.partition(";")
    if kind.lower() == "utf-8":
        return f"{kind}; {xtext.in_ascii(value)}"
    try:
        text = xtext.decode(value)
    except ValueError:
        text = value
    return f"{kind}; {text if text.isascii() else value}"


def _visible(text: str) -> str:
    """Text for one line of ASCII."""
    return _NOT_PRINTABLE.sub("?", text)[:MAX_VALUE]


TEXTS = {
    "delivered": "Your message was delivered to",
    "relayed": "Your message was handed on to a mail system that sends no such reports, for",
    "expanded": "Your message was sent on to all that this address stands for:",
}
"""What happened (the Action of RFC 3464 section 2.3.3), in words."""
