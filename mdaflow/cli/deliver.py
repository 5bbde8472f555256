"""`mdaflow deliver`: one message from standard input, as procmail and dovecot-lda take it."""

from __future__ import annotations

import sys
from dataclasses import replace

import click

from mdaflow import (
    Config,
    MailError,
    MdaflowError,
    Message,
    PermFail,
    Site,
    Status,
    TempFail,
    User,
    deliver_message,
    read_config,
)
from mdaflow.app import log
from mdaflow.app.caller import settle, state_of, user_of
from mdaflow.app.config import Forward
from mdaflow.errors import INTERNAL
from mdaflow.mail.address import without_detail

from .common import (
    as_each,
    config_option,
    envelope,
    original_option,
    sender_option,
    site_of,
    step_down,
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
    # whoever calls a delivery agent has read `.forward` himself, and it may name this command
    settings = replace(read_config(config), forward=Forward(file=""))
    log.set_up(settings.log)
    here, whose = (_each if as_each(settings, named=bool(user)) else _own)(settings, user)
    recipient, original = _addresses(here, user, whose, original)
    mail = Message.from_wire(sys.stdin.buffer.read())
    return deliver_message(here, mail, envelope(sender, recipient, original), user=whose)


def _addresses(here: Site, user: str | None, whose: User, original: str) -> tuple[str, str]:
    """The recipient, and the one before aliases, as local(8) of Postfix has them: without a domain
    for its own users. A detail is that of the recipient if it was the user's own."""
    login, _, domain = whose.address.rpartition("@")
    recipient = user if user and "@" in user else whose.address
    if original and "@" not in original:
        original = f"{original}@{domain}"
    delimiters = here.config.recipient_delimiter
    if without_detail(original, delimiters).lower() == f"{login}@{domain}".lower():
        recipient = original if "@" not in (user or "") else recipient
    return recipient, original


def _each(settings: Config, user: str | None) -> tuple[Site, User]:
    """As the one whose mail it is."""
    here = site_of(settings, kept=False)
    whose = user_of(here, user)
    return settle(here, whose, kept=True), whose


def _own(settings: Config, user: str | None) -> tuple[Site, User]:
    """As whoever calls, or as the user of the mail."""
    step_down(settings)
    here = site_of(replace(settings, state=state_of(settings)), kept=True)
    return here, user_of(here, user)
