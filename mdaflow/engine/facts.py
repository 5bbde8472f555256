"""What the subjects of tests are: one table from a subject to its values.

A value is a tuple of alternatives (an address is matched by its address or by its display name,
a text only by itself), a number, or a truth. What neither message nor envelope can tell is
asked for. Facts that are given, in tests of rules, come before all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from mdaflow.lang.ir import Subject
from mdaflow.lang.limits import DEFAULTS, Limits
from mdaflow.lang.subjects import SUBJECTS, type_of
from mdaflow.mail.address import Address, parse_addresses, split_local
from mdaflow.mail.envelope import Envelope
from mdaflow.mail.message import MAX_TEXT, Message

if TYPE_CHECKING:
    from datetime import tzinfo

Text = tuple[str, ...]
Values = Sequence[Any] | None
"""Texts with their alternatives, floats or bools; None is unknown."""


class Fact(NamedTuple):
    """A question that the world must answer, e.g. `attachment.type`.

    `arguments` are what it is about: a folder, a zone, a program; `owner` is "site" or "user".
    """

    name: str
    message: Message
    envelope: Envelope
    arguments: tuple[str, ...] = ()
    owner: str = "user"
    within: float = 0.0
    """Seconds that the answer may take; 0 when nothing is said."""


Ask = Callable[[Fact], Sequence[Any] | None]
"""Answers a fact with its values; None when nobody can (it is unknown).

Raises Unanswerable (plan.py) when the rule that asks cannot be carried out.
"""


class Settings(NamedTuple):
    """What a site says about its facts."""

    delimiters: str = "+"
    """Characters that divide user and detail of a local part."""
    zone: tzinfo | None = None
    """The zone of the recipient's clock; None is that of the machine."""
    trusted: tuple[str, ...] = ()
    """The authserv-ids whose Authentication-Results are believed (RFC 8601)."""
    own: tuple[str, ...] = ()
    """The recipient's own addresses, besides that of the envelope."""
    spam_score: float = 5.0
    """The `spam.score` from which on a message is spam."""
    limits: Limits = DEFAULTS


class Context(NamedTuple):
    """What facts are taken from."""

    message: Message
    envelope: Envelope
    ask: Ask
    settings: Settings = Settings()
    given: Mapping[tuple[str, str], Sequence[Any]] = {}
    """(subject, argument) -> values that are given, as they were written."""
    owner: str = "user"


class Told(float):
    """A number with a form in which it is read: the month 04, a date."""

    text: str

    def __new__(cls, value: float, text: str) -> Told:
        """The number, shown as `text`."""
        self = super().__new__(cls, value)
        self.text = text
        return self


def values(context: Context, subject: Subject) -> Values:
    """The values of a subject; None is unknown."""
    key = (subject.words, subject.arguments[0].lower() if subject.arguments else "")
    if key in context.given and len(subject.arguments) < 2:
        return _typed(context, type_of(subject.name, subject.part), context.given[key])
    return _FACTS[subject.name](context, subject)


def items(context: Context, subject: Subject) -> Sequence[Values] | None:
    """The values of a part of an attachment, for each of them.

    Of given values, each is that of one attachment.
    """
    given = context.given.get((subject.words, ""))
    if given is None:
        return _attachment_values(context, subject.part)
    return [[value] for value in _typed(context, type_of(subject.name, subject.part), given) or ()]


def shown(value: Any) -> str:
    """A value as a hole puts it into a text."""
    if isinstance(value, Told):
        return value.text
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.15g}" if isinstance(value, float) else str(value[0])


def _typed(context: Context, kind: str, given: Sequence[Any]) -> Values:
    if kind == "text":
        return [(str(value),) for value in given]
    if kind == "address":
        found = [a for value in given for a in parse_addresses(str(value).encode())]
        return _addresses(context, "", found)
    if kind in ("moment", "day", "clock"):
        return [_moment_given(context, kind, str(value)) for value in given]
    return list(given)


def _moment_given(context: Context, kind: str, text: str) -> float:
    from mdaflow.mail.date import parse_clock, parse_moment

    found = parse_clock(text) if kind == "clock" else parse_moment(text, context.settings.zone)
    return Told(found[0] if found else 0.0, text)


# addresses


def _addresses(context: Context, part: str, found: list[Address]) -> Values:
    if part == "count":
        return [float(len(found))]
    if not part:
        return [(a.address, a.name) if a.name else (a.address,) for a in found]
    if part in ("user", "detail"):
        at = part == "detail"
        return [(split_local(a.local, context.settings.delimiters)[at],) for a in found]
    return [(getattr(a, part),) for a in found]


def _mailboxes(*names: str) -> Callable[[Context, Subject], Values]:
    def get(context: Context, subject: Subject) -> Values:
        told = context.given.get((subject.name, ""))
        if told is not None:
            found = [a for value in told for a in parse_addresses(str(value).encode())]
        else:
            found = [a for name in names for a in context.message.addresses(name)]
        return _addresses(context, subject.part, found)

    return get


def _envelope(name: str) -> Callable[[Context, Subject], Values]:
    def get(context: Context, subject: Subject) -> Values:
        address = getattr(context.envelope, name)
        if name == "original":
            address = address or context.envelope.recipient
        return _addresses(context, subject.part, [Address("", address)])

    return get


# texts


def _field(name: str = "") -> Callable[[Context, Subject], Values]:
    def get(context: Context, subject: Subject) -> Values:
        names = (name,) if name else subject.arguments
        found = [v for n in names for v in _header(context, n, subject.raw)]
        return [float(len(found))] if subject.part == "count" else [(v,) for v in found]

    return get


def _header(context: Context, name: str, raw: bool) -> Sequence[str]:
    told = context.given.get(("header", name.lower()))
    return context.message.header(name, raw=raw) if told is None else [str(v) for v in told]


def _body(context: Context, subject: Subject) -> Values:
    if subject.raw:
        return [(context.message.raw_body.decode("utf-8", "surrogateescape"),)]
    return [1.0] if subject.part == "count" else [(context.message.body,)]


def _html(context: Context, _: Subject) -> Values:
    found: list[Text] = []
    left = MAX_TEXT
    for part in context.message.parts:
        if left > 0 and part.type == "text/html" and not part.attached:
            found.append((part.text[:left],))
            left -= len(found[-1][0])
    return found


def _client(name: str) -> Callable[[Context, Subject], Values]:
    def get(context: Context, subject: Subject) -> Values:
        client = context.envelope.client
        if not client.ip:  # no XFORWARD: our own MTA has written it down
            from mdaflow.mail.received import client as received_from

            client = received_from(context.message) or client
        value = getattr(client, name)
        return [(value,)] if value else []

    return get


def _auth(method: str) -> Callable[[Context, Subject], Values]:
    def get(context: Context, _: Subject) -> Values:
        from mdaflow.mail.authres import results

        return [(r,) for r in results(context.message, context.settings.trusted)[method]]

    return get


# attachments


def _attachment(context: Context, subject: Subject) -> Values:
    if subject.part == "count":
        return [float(len(context.message.attachments))]
    found = _attachment_values(context, subject.part)
    return None if found is None else [value for several in found for value in several or ()]


def _attachment_values(context: Context, part: str) -> Sequence[Values] | None:
    parts = context.message.attachments
    match part:
        case "count":  # of all, also in a test of one
            return [[float(len(parts))] for _ in parts]
        case "size":
            return [[float(len(p.content()))] for p in parts]
        case "declared_type":
            return [[(p.type,)] for p in parts]
        case "extension":
            names = [p.name.rstrip(" .") for p in parts]  # some systems leave those out
            return [[(name.rpartition(".")[2],)] if "." in name else [] for name in names]
        case "sha256":
            from hashlib import sha256

            return [[(sha256(p.content()).hexdigest(),)] for p in parts]
        case "type" | "inner":
            return _asked_of_attachments(context, f"attachment.{part}")
    return [[(p.name or p.type,)] for p in parts]


def _asked_of_attachments(context: Context, name: str) -> Sequence[Values] | None:
    """One answer for each attachment, as far as somebody looked: a text, or several."""
    found = _ask(context, name)
    if found is None:
        return None
    return [[(v,) for v in ([each] if isinstance(each, str) else each)] for each in found]


# times


def _moment(context: Context, subject: Subject) -> Values:
    found = _date(context) if subject.name == "date" else (context.envelope.received, None)
    if found is None:
        return []
    seconds, offset = found
    if subject.part == "age":
        return [context.envelope.received - seconds]
    from mdaflow.mail.date import parts

    at = parts(seconds, context.settings.zone)
    match subject.part:
        case "":
            return [Told(seconds, f"{at.date} {at.time}")]
        case "date":
            return [Told(seconds, at.date)]
        case "time":
            return [Told(at.hour * 3600 + at.minute * 60 + at.second, at.time)]
        case "weekday":
            return [(at.weekday,)]
        case "zone":
            return [(at.zone if subject.name == "received" else _zone(offset),)]
        case "year":
            return [Told(at.year, f"{at.year:04}")]
    number = getattr(at, subject.part)
    return [Told(number, f"{number:02}")]


def _date(context: Context) -> tuple[float, int | None] | None:
    told = context.given.get(("date", ""))
    from mdaflow.mail.date import parse_date

    if told is not None:
        return (_moment_given(context, "moment", str(told[0])), None) if told else None
    for value in context.message.header("Date", raw=True)[:1]:
        return parse_date(value)
    return None


def _zone(offset: int | None) -> str:
    """As the Date field says it; -0000 is unknown (RFC 5322 section 3.3)."""
    if offset is None:
        return "-0000"
    hours, minutes = divmod(abs(offset) // 60, 60)
    return f"{'-' if offset < 0 else '+'}{hours:02}{minutes:02}"


# truths


def _nature(name: str) -> Callable[[Context, Subject], Values]:
    def get(context: Context, _: Subject) -> Values:
        from mdaflow.mail import nature

        return [bool(getattr(nature, name)(context.message, context.envelope))]

    return get


def _personal(context: Context, _: Subject) -> Values:
    from mdaflow.mail.nature import personal

    own, delimiters = context.settings.own, context.settings.delimiters
    return [personal(context.message, context.envelope, own, delimiters)]


# what is asked


def _ask(context: Context, name: str) -> Sequence[Any] | None:
    return context.ask(Fact(name, context.message, context.envelope, owner=context.owner))


def _asked(context: Context, subject: Subject) -> Values:
    found = _ask(context, subject.name)
    return None if found is None else _typed(context, SUBJECTS[subject.name].type, found)


def _unscanned(context: Context, subject: Subject) -> Values:
    found = _asked(context, subject)
    return [True] if found is None else found  # whom nobody has looked at is not clean


def _spam(context: Context, subject: Subject) -> Values:
    found = None if ("spam.score", "") in context.given else _asked(context, subject)
    if found is not None:
        return found
    score = values(context, Subject(subject.span, "spam.score"))
    return None if score is None else [s >= context.settings.spam_score for s in score]


_FACTS: dict[str, Callable[[Context, Subject], Values]] = {
    **{name: _asked for name, kind in SUBJECTS.items() if kind.asked},
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
    "body.html": _html,
    "size": lambda context, _: [float(context.message.size)],
    "lines": lambda context, _: [float(context.message.lines)],
    "attachment": _attachment,
    "date": _moment,
    "received": _moment,
    "client.ip": _client("ip"),
    "client.name": _client("name"),
    "client.helo": _client("helo"),
    **{f"auth.{method}": _auth(method) for method in ("spf", "dkim", "dmarc")},
    **{
        name: _nature(name)
        for name in ("bounce", "automatic", "mailing_list", "encrypted", "signed", "multipart")
    },
    "personal": _personal,
    "virus.unscanned": _unscanned,
    "spam": _spam,
}
