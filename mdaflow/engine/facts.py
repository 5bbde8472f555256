"""What the subjects of tests are: one table from a subject to its values.

A value is a tuple of alternatives: an address is matched by its address or by its display
name, a text only by itself. What neither message nor envelope can tell is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from mdaflow.lang.ir import Subject
from mdaflow.mail.address import Address, split_local
from mdaflow.mail.envelope import Envelope
from mdaflow.mail.message import Message

Text = tuple[str, ...]


class Fact(NamedTuple):
    """A question that the world must answer, e.g. `attachment.type`."""

    name: str
    message: Message
    envelope: Envelope


Ask = Callable[[Fact], Sequence[str] | None]
"""Answers a fact with its values; None when nobody can (it is unknown)."""


class Context(NamedTuple):
    """What facts are taken from."""

    message: Message
    envelope: Envelope
    ask: Ask
    delimiters: str = "+"


Values = Sequence[Text] | Sequence[float] | None


def values(context: Context, subject: Subject) -> Values:
    """The values of a subject: texts with their alternatives, or numbers; None is unknown."""
    return _FACTS[subject.name](context, subject)


def _addresses(context: Context, subject: Subject, found: list[Address]) -> Values:
    part = subject.part
    if part == "count":
        return [float(len(found))]
    if not part:
        return [(a.address, a.name) if a.name else (a.address,) for a in found]
    if part in ("user", "detail"):
        at = part == "detail"
        return [(split_local(a.local, context.delimiters)[at],) for a in found]
    return [(getattr(a, part),) for a in found]


def _mailboxes(*names: str) -> Callable[[Context, Subject], Values]:
    def get(context: Context, subject: Subject) -> Values:
        found = [a for name in names for a in context.message.addresses(name)]
        return _addresses(context, subject, found)

    return get


def _envelope(name: str) -> Callable[[Context, Subject], Values]:
    def get(context: Context, subject: Subject) -> Values:
        address = getattr(context.envelope, name)
        if name == "original":
            address = address or context.envelope.recipient
        return _addresses(context, subject, [Address("", address)])

    return get


def _field(name: str = "") -> Callable[[Context, Subject], Values]:
    def get(context: Context, subject: Subject) -> Values:
        names = (name,) if name else subject.arguments
        found = [v for n in names for v in context.message.header(n, raw=subject.raw)]
        return [float(len(found))] if subject.part == "count" else [(v,) for v in found]

    return get


def _body(context: Context, subject: Subject) -> Values:
    if subject.raw:
        return [(context.message.raw_body.decode("utf-8", "surrogateescape"),)]
    return [1.0] if subject.part == "count" else [(context.message.body,)]


def _attachment(context: Context, subject: Subject) -> Values:
    parts = context.message.attachments
    match subject.part:
        case "count":
            return [float(len(parts))]
        case "size":
            return [float(len(part.content())) for part in parts]
        case "declared_type":
            return [(part.type,) for part in parts]
        case "extension":
            return [(p.name.rpartition(".")[2],) for p in parts if "." in p.name]
        case "type":
            found = context.ask(Fact("attachment.type", context.message, context.envelope))
            return None if found is None else [(value,) for value in found]
    return [(part.name or part.type,) for part in parts]


def _client(name: str) -> Callable[[Context, Subject], Values]:
    def get(context: Context, subject: Subject) -> Values:
        value = getattr(context.envelope.client, name)
        return [(value,)] if value else []

    return get


_FACTS: dict[str, Callable[[Context, Subject], Values]] = {
    "from": _mailboxes("From"),
    "to": _mailboxes("To"),
    "cc": _mailboxes("Cc"),
    "bcc": _mailboxes("Bcc"),
    "reply_to": _mailboxes("Reply-To"),
    "sender": _mailboxes("Sender"),
    "recipients": _mailboxes("To", "Cc", "Bcc", "Resent-To", "Resent-Cc", "Resent-Bcc"),
    "envelope.from": _envelope("sender"),
    "envelope.to": _envelope("recipient"),
    "envelope.original": _envelope("original"),
    "subject": _field("Subject"),
    "list_id": _field("List-Id"),
    "message_id": _field("Message-ID"),
    "header": _field(),
    "body": _body,
    "size": lambda context, _: [float(context.message.size)],
    "lines": lambda context, _: [float(context.message.lines)],
    "attachment": _attachment,
    "client.ip": _client("ip"),
    "client.name": _client("name"),
    "client.helo": _client("helo"),
}
