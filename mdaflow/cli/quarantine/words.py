"""Messages of the quarantine in words, safe on a terminal."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import click

from mdaflow.app.log import escaped
from mdaflow.app.quarantine import Entry, Held, NotHeld, called

MAX_WORDS = 200
"""Characters of a text that came by mail."""


def about(entry: Entry) -> dict[str, object]:
    """What there is to know of a message, by name."""
    found: dict[str, object] = {"id": entry.name, "size": entry.held.size}
    if entry.note is None:
        found["error"] = entry.trouble
    else:
        envelope = entry.note.envelope
        found |= {
            "recipient": envelope.recipient,
            "original": envelope.original,
            "sender": envelope.sender,
            "client": {"ip": envelope.client.ip, "name": envelope.client.name},
            "queue_id": envelope.queue_id,
            "why": entry.note.why,
            "rule": entry.note.rule,
            "where": entry.note.where,
        }
    return {
        **found,
        "received": entry.since,
        "from": field(entry, "From"),
        "subject": field(entry, "Subject"),
    }


def field(entry: Entry, name: str) -> str:
    """A field of the message; empty when it has none."""
    return next(iter(entry.message.header(name)), "")


def clean(text: str) -> str:
    """A text of the mail on one line, cut."""
    return escaped(" ".join(text[: 4 * MAX_WORDS].split()))[:MAX_WORDS]


def reason(entry: Entry) -> str:
    """Why it is here, and which rule has put it here."""
    if entry.note is None:
        return entry.trouble
    rule = f'rule "{clean(entry.note.rule)}"' if entry.note.rule else ""
    where = clean(entry.note.where)
    decided = f"{rule} ({where})" if rule and where else rule or where
    return ", ".join(filter(None, (clean(entry.note.why), decided))) or "no reason was given"


def when(seconds: float) -> str:
    """A time by the clock of whoever calls."""
    try:
        return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))
    except (ValueError, OverflowError, OSError):
        return "????-??-?? ??:??"


def found(root: str, names: Sequence[str]) -> Iterator[tuple[str, Held]]:
    """The messages that are called so, each with its name."""
    try:
        yield from called(root, names)
    except NotHeld as error:
        raise click.ClickException(str(error)) from error
