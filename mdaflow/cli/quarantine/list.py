"""`mdaflow quarantine list`: what is there, and why."""

from __future__ import annotations

import json

import click

from mdaflow import read_config
from mdaflow.app.quarantine import Entry, entries, folder_of
from mdaflow.cli.common import config_option, say, site_of, step_down

from .words import about, clean, field, reason, when


@click.command("list")
@click.option("-u", "user", metavar="ADDRESS", help="Only what is for this user.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object for each message.")
@config_option
def command(user: str | None, as_json: bool, config: str | None) -> int:
    """Show what is in the quarantine, what came last first."""
    settings = read_config(config)
    step_down(settings)
    folder = folder_of(site_of(settings, kept=False), user) if user else ""
    for entry in entries(settings.quarantine, folder):
        say(json.dumps(about(entry)) if as_json else _line(entry))
    return 0


def _line(entry: Entry) -> str:
    note = entry.note
    to = f"<{clean(note.envelope.recipient)}>" if note else "nobody knows whom"
    sender = clean(note.envelope.sender if note else field(entry, "From"))
    words = (
        entry.short,
        when(entry.since),
        f"{entry.held.size:>11,}",
        f"<{sender}> to {to}",
        clean(field(entry, "Subject")) or "(no subject)",
        f"[{reason(entry)}]",
    )
    return "  ".join(words)
