"""`mdaflow quarantine show`: all about one message, and never what could do harm."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

import click

from mdaflow import Message, read_config
from mdaflow.app.log import escaped
from mdaflow.app.quarantine import Entry, whole
from mdaflow.cli.common import config_option, say, step_down

from .words import about, clean, found, reason, when

MOST_LINES = 40
"""Lines of the header, and of the text."""
LONGEST = 400
"""Characters of one."""


@click.command("show")
@click.argument("name", metavar="ID")
@click.option("--raw", is_flag=True, help="The message itself, and nothing else.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@config_option
def command(name: str, raw: bool, as_json: bool, config: str | None) -> int:
    """Show a message: its envelope, why it is here, header, text and attachments.

    With --raw it is written as it came, whatever is in it.
    """
    settings = read_config(config)
    step_down(settings)
    [(_, each)] = found(settings.quarantine, [name])
    entry = whole(settings.quarantine, each)
    if raw:
        sys.stdout.buffer.write(entry.message.raw)
    elif as_json:
        attachments = [part._asdict() for part in _attachments(entry.message)]
        say(json.dumps(about(entry) | {"attachments": attachments}))
    else:
        say("\n".join(_lines(entry)))
    return 0


def _lines(entry: Entry) -> Iterator[str]:
    yield from (f"{name + ':':<12}{text}" for name, text in _facts(entry) if text)
    yield ""
    yield from _shown(entry.message.head.decode("utf-8", "replace"))
    yield ""
    yield from _shown(entry.message.body)
    for part in _attachments(entry.message):
        yield f"attachment: {clean(part.name)}  {clean(part.type)}  {part.size:,} bytes"


def _facts(entry: Entry) -> Iterator[tuple[str, str]]:
    yield "id", entry.name
    yield "why", reason(entry)
    yield "received", when(entry.since)
    yield "size", f"{entry.held.size:,}"
    yield "file", "/".join(map(escaped, entry.held[:3]))
    if entry.note is not None:
        envelope = entry.note.envelope
        original = "" if envelope.original == envelope.recipient else envelope.original
        client = " ".join(filter(None, (envelope.client.ip, envelope.client.name)))
        yield "sender", f"<{clean(envelope.sender)}>"
        yield "recipient", f"<{clean(envelope.recipient)}>"
        yield "original", clean(original)
        yield "client", clean(client)
        yield "queue id", clean(envelope.queue_id)


def _shown(text: str) -> Iterator[str]:
    lines = text.rstrip("\n").split("\n")
    for line in lines[:MOST_LINES]:
        yield f"    {escaped(line.expandtabs().rstrip(chr(13)))[:LONGEST]}"
    if len(lines) > MOST_LINES:
        yield f"    ({len(lines) - MOST_LINES} more lines)"


class _Attachment(NamedTuple):
    name: str
    type: str
    size: int
    """Bytes, decoded."""


def _attachments(message: Message) -> Iterator[_Attachment]:
    for part in islice(message.attachments, MOST_LINES):
        size = sum(map(len, part.pieces()))
        yield _Attachment(part.name[:LONGEST], part.type[:LONGEST], size)
