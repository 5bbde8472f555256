"""`mdaflow deliver`: one message from standard input, as procmail and dovecot-lda take it."""

from __future__ import annotations

import sys

import click

from mdaflow import (
    MailError,
    MdaflowError,
    Message,
    PermFail,
    Status,
    TempFail,
    deliver_message,
    read_config,
)
from mdaflow.app import log
from mdaflow.errors import INTERNAL

from .common import (
    config_option,
    envelope,
    original_option,
    sender_option,
    site_of,
    step_down,
    user_of,
    with_state,
)


@click.command("deliver")
@click.option(
    "-d", "user", metavar="USER", help="The user, by address or login; else whoever calls."
)
@sender_option
@original_option
@click.option("-e", "reject", is_flag=True, help="Refuse by exit code. Always so; for dovecot-lda.")
@config_option
def command(
    user: str | None, sender: str | None, original: str, reject: bool, config: str | None
) -> int:
    """Deliver the message on standard input.

    Exit code 0: it is stored. 75: try again. 67: no such user. 77: a rule refused it.
    """
    try:
        status = _deliver(user, _sender(sender or ""), original, config)
    except MailError:
        raise
    except Exception as error:  # a mistake of ours is no reason to bounce mail (P4)
        cause = error if isinstance(error, MdaflowError) else repr(error)
        raise TempFail(INTERNAL, str(cause)) from error
    if status.ok:
        return 0
    raise (TempFail if status.temporary else PermFail)(status)


def _sender(said: str) -> str:
    """The reverse-path: pipe(8) of Postfix calls the null one MAILER-DAEMON."""
    bare = said.strip("<>")
    return "" if bare.upper() == "MAILER-DAEMON" else bare


def _deliver(user: str | None, sender: str, original: str, config: str | None) -> Status:
    settings = read_config(config)
    log.set_up(settings.log)
    step_down(settings)
    here = site_of(with_state(settings), kept=True)
    whose = user_of(here, user)
    recipient = user if user and "@" in user else whose.address
    mail = Message.from_wire(sys.stdin.buffer.read())
    return deliver_message(here, mail, envelope(sender, recipient, original), user=whose)
