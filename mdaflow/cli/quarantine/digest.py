"""`mdaflow quarantine digest`: tell users by mail what is new."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable

import click

from mdaflow import MailError, Site, User, find_user, read_config
from mdaflow.app.digest import digest, who_has_some
from mdaflow.cli import EX_TEMPFAIL
from mdaflow.cli.common import config_option, say, working

_UNITS = {"h": 3600, "d": 86_400, "w": 604_800}


def _seconds(_: click.Context, param: click.Parameter, value: str) -> float:
    found = re.fullmatch(r"([0-9]{1,4})([hdw])", value)
    if found is None:
        raise click.BadParameter(f"{value} is not a time like 12h, 1d or 2w", param=param)
    return float(found[1]) * _UNITS[found[2]]


@click.command("digest")
@click.option("-u", "names", multiple=True, metavar="ADDRESS", help="A user; may be repeated.")
@click.option("--all", "everybody", is_flag=True, help="All who have mail there.")
@click.option(
    "--since",
    callback=_seconds,
    default="1d",
    metavar="TIME",
    help="How far back the first one goes: 12h, 1d (the default), 2w.",
)
@click.option(
    "--contact", default="", metavar="ADDRESS", help="Who can release mail; else the postmaster."
)
@config_option
def command(
    names: tuple[str, ...], everybody: bool, since: float, contact: str, config: str | None
) -> int:
    """Tell users by mail what came into the quarantine since they were told last.

    Nobody gets a mail about nothing, nor more than one within an hour.
    """
    if bool(names) == everybody:
        raise click.UsageError("say -u ADDRESS or --all")
    settings = read_config(config)
    with working(settings) as here:
        users: Iterable[User]
        users = who_has_some(here) if everybody else [find_user(here, name) for name in names]
        return _tell(here, users, contact or f"postmaster@{here.hostname}", time.time() - since)


def _tell(here: Site, users: Iterable[User], contact: str, since: float) -> int:
    """Tell users; the exit code. One who cannot be told does not stop the others."""
    code = 0
    for user in users:
        try:
            count = digest(here, user, contact, since)
        except (MailError, ValueError) as error:
            say(f"mdaflow: {user.address}: {error}", err=True)
            code = EX_TEMPFAIL
        else:
            if count:
                say(f"{user.address}: told of {count}")
    return code
