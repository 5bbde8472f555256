"""`mdaflow quarantine expire`: delete what has been there for too long."""

from __future__ import annotations

import json
import time

import click

from mdaflow import read_config
from mdaflow.app.log import escaped
from mdaflow.app.quarantine import Counts, expire
from mdaflow.cli.common import config_option, say, step_down

DAY = 86_400.0


@click.command("expire")
@click.option(
    "--days",
    type=click.IntRange(1),
    metavar="DAYS",
    help="Days that it may stay; else `quarantine_days` of the configuration.",
)
@click.option("--dry-run", is_flag=True, help="Delete nothing, only say what would be deleted.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object for each user.")
@config_option
def command(days: int | None, dry_run: bool, as_json: bool, config: str | None) -> int:
    """Delete what has been in the quarantine for too long, and what crashes have left there."""
    settings = read_config(config)
    step_down(settings)
    seconds = (days or settings.quarantine_days) * DAY
    for counts in expire(settings.quarantine, time.time(), seconds, dry_run=dry_run):
        if as_json:
            say(json.dumps({**counts._asdict(), "dry_run": dry_run}))
        elif any(counts[1:]):
            say(_line(counts, dry_run))
    return 0


def _line(counts: Counts, dry_run: bool) -> str:
    done = f"{counts.expired} {'to delete' if dry_run else 'deleted'}"
    left = f", {counts.leftovers} envelopes without a message" if counts.leftovers else ""
    return f"{escaped(counts.folder)}: {done}, {counts.waiting} to come{left}"
