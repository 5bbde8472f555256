"""`mdaflow quarantine learn`: learn that messages are spam, or are none."""

from __future__ import annotations

from collections.abc import Sequence

import click

from mdaflow import MdaflowError, Site, read_config
from mdaflow.app.quarantine import Held
from mdaflow.app.release import learn
from mdaflow.cli import exit_code
from mdaflow.cli.common import config_option, say, working

from .words import found


@click.command("learn")
@click.argument("kind", metavar="spam|ham", type=click.Choice(["spam", "ham"]))
@click.argument("names", metavar="ID...", nargs=-1, required=True)
@config_option
def command(kind: str, names: Sequence[str], config: str | None) -> int:
    """Learn that messages are spam, or are none (ham). They stay in the quarantine."""
    settings = read_config(config)
    with working(settings) as here:
        chosen = [*found(settings.quarantine, names)]
        return max([_learn(here, name, each, kind) for name, each in chosen])


def _learn(here: Site, name: str, each: Held, kind: str) -> int:
    try:
        learn(here, each, kind)
    except MdaflowError as error:
        say(f"mdaflow: {name}: {error}", err=True)
        return exit_code(error)
    say(f"{name}: learned as {kind}")
    return 0
