"""`mdaflow deliver`: one message from standard input, as procmail and dovecot-lda take it."""

from __future__ import annotations

from dataclasses import replace

import click

from mdaflow.app import log
from mdaflow.app.load import read
from mdaflow.app.pipeline import deliver
from mdaflow.errors import INTERNAL, ConfigError, PermFail, TempFail

from .common import (
    config_option,
    envelope,
    original_option,
    read_message,
    sender_option,
    site_of,
    step_down,
    user_of,
)


@click.command("deliver")
@click.option(
    "-d", "user", metavar="USER", help="The user, by address or login; else whoever calls."
)
@sender_option
@original_option
@click.option("-e", "reject", is_flag=True, help="Refuse by exit code. Always so; for dovecot-lda.")
@config_option
def command(user: str | None, sender: str, original: str, reject: bool, config: str | None) -> int:
    """Deliver the message on standard input.

    Exit code 0: it is stored. 75: try again. 67: no such user. 77: a rule refused it.
    """
    try:
        settings = read(config)
        log.set_up(settings.log)
        step_down(settings)
        here = site_of(settings, kept=True)
    except (OSError, ConfigError) as error:  # a mistake of ours is no reason to bounce mail (P4)
        raise TempFail(INTERNAL, str(error)) from error
    whose = user_of(here, user)
    mail = read_message("-")
    about = envelope(sender.strip("<>"), whose.address, original)
    status = deliver(here, mail, replace(about, protocol="local"), user=whose)
    if status.ok:
        return 0
    raise (TempFail if status.temporary else PermFail)(status)
