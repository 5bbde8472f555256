"""What the subjects of tests are: one table from a subject to its values.

A value is a tuple of alternatives (an address is matched by its address or by its display name,
a text only by itself), a number, or a truth. What neither message nor envelope can tell is
asked for. Facts that are given, in tests of rules, come before all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from mdaflow.lang.ir import Subject
from mdaflow.lang.subjects import SUBJECTS, type_of
from mdaflow.mail.address import Address, parse_addresses, split_local
from mdaflow.mail.message import MAX_TEXT

from .context import Context, Text, Values, ask


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
        from .attachments import attachment_values  # most rules look at none

        return attachment_values(context, subject.part)
    return [[value] for value in _typed(context, type_of(subject.name, subject.part), given) or ()]


def _typed(context: Context, kind: str, given: Sequence[Any]) -> Values:
    if kind == "text":
        return [(str(value),) for value in given]
    if kind == "address":
        found = [a for value in given for a in parse_addresses(str(value).encode())]
        return _addresses(context, "", found)
    if kind in ("moment", "day", "clock"):
        from .moments import given_moment

        return [given_moment(context, kind, str(value)) for value in given]
    return list(given)


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


# what few rules look at


def _attachment(context: Context, subject: Subject) -> Values:
    from .attachments import attachment

    return attachment(context, subject)


def _moment(context: Context, subject: Subject) -> Values:
    from .moments import moment

    return moment(context, subject)


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


def _asked(context: Context, subject: Subject) -> Values:
    found = ask(context, subject.name)
    return None if found is None else _typed(context, SUBJECTS[subject.name].type, found)


def _finding(context: Context, subject: Subject) -> Values:
    asked = [ask(context, subject.name, name.lower()) for name in subject.arguments]
    known = [found for found in asked if found is not None]
    return [(str(value),) for found in known for value in found] if known else None


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
    "finding": _finding,
    "spam": _spam,
}
