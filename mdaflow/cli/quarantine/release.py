"""`mdaflow quarantine release`: deliver messages as if they had just come."""

from __future__ import annotations

from collections.abc import Sequence

import click

from mdaflow import MdaflowError, PermFail, Site, TempFail, read_config
from mdaflow.app.quarantine import Held, NotHeld
from mdaflow.app.release import NotDeleted, learn, release
from mdaflow.cli import EX_NOINPUT, exit_code
from mdaflow.cli.common import config_option, say, working

from .words import found

EX_IOERR = 74


@click.command("release")
@click.argument("names", metavar="ID...", nargs=-1, required=True)
@click.option("--to", default="", metavar="ADDRESS", help="To this user instead.")
@click.option("--learn", "learned", is_flag=True, help="Learn that it is no spam, too.")
@config_option
def command(names: Sequence[str], to: str, learned: bool, config: str | None) -> int:
    """Deliver messages to their recipients as if they had just come.

    Rules that would put them here again do nothing. What is delivered is deleted here; what is
    not, stays.
    """
    settings = read_config(config)
    with working(settings) as here:
        chosen = [*found(settings.quarantine, names)]
        return max([_release(here, name, each, to, learned) for name, each in chosen])


def _release(here: Site, name: str, each: Held, to: str, learned: bool) -> int:
    """Release a message and say what became of it; the exit code. One that fails does not stop the
    others."""
    try:
        if learned:
            learn(here, each, "ham")
        status = release(here, each, to)
        if not status.ok:
            raise (TempFail if status.temporary else PermFail)(status, str(status))
    except MdaflowError as error:
        say(f"mdaflow: {name}: {error}", err=True)
        return _CODES.get(type(error)) or exit_code(error)
    say(f"{name}: {status}")
    return 0


_CODES: dict[type, int] = {NotHeld: EX_NOINPUT, NotDeleted: EX_IOERR}
