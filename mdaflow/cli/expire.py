"""`mdaflow expire`: delete what rules stored with `expire`, once its time is over.

Exit codes: 0; 67 for a user that is none; 75 if a mailbox could not be gone through.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Sequence
from functools import partial
from itertools import chain

import click

from mdaflow import PermFail, Site, User, read_config
from mdaflow.app.caller import NOT_YOURS, user_of
from mdaflow.app.deputies import run_all
from mdaflow.app.expire import Expired, Go, expire_users, listed, owner, tasks
from mdaflow.app.log import escaped

from . import EX_TEMPFAIL
from .common import as_deputy, config_option, site_of, step_down

AT_ONCE = 8
"""Mailboxes of accounts that are gone through at the same time."""


@click.command("expire")
@click.argument("places", metavar="[maildir:/PATH]...", nargs=-1)
@click.option(
    "-u", "names", multiple=True, metavar="USER", help="A user, by address or login; repeatable."
)
@click.option("--all", "everybody", is_flag=True, help="All users of the configuration.")
@click.option("--dry-run", is_flag=True, help="Delete nothing, only say what would be deleted.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object for each folder.")
@config_option
def command(
    places: Sequence[str],
    names: Sequence[str],
    everybody: bool,
    dry_run: bool,
    as_json: bool,
    config: str | None,
) -> int:
    """Delete the messages that rules stored with `expire`, once their time is over.

    In your own mailbox, those of the users that are named, or Maildirs at absolute paths.
    Messages that are flagged stay.
    """
    owners = [_owner(place) for place in places]
    settings = read_config(config)
    as_root = os.geteuid() == 0 and (settings.has_accounts or settings.has_uids)
    if not as_root:
        step_down(settings)
    here = site_of(settings, kept=False)
    named: Sequence[str | None] = names or ([] if everybody or owners else [None])
    users = [*owners, *(user_of(here, name) for name in named)]
    go = partial(_go, dry_run=dry_run, as_json=as_json)
    if as_root:
        return _as_each(here, users, everybody, go)
    if everybody and settings.has_accounts:
        raise PermFail(NOT_YOURS, "the mail of accounts is gone through by root, as each of them")
    return go(chain(users, listed(here.users if everybody else ())))


def _go(users: Iterable[User], *, dry_run: bool, as_json: bool) -> int:
    """Go through the mailboxes of users; the exit code."""
    show = _as_json if as_json else _as_line
    code = 0
    for folder in expire_users(users, time.time(), dry_run=dry_run):
        click.echo(show(folder, dry_run), err=bool(folder.trouble) and not as_json)
        code = EX_TEMPFAIL if folder.trouble else code
    return code


def _as_each(here: Site, users: list[User], everybody: bool, go: Go) -> int:
    """As root, where accounts have mail: go through each mailbox as whose it is."""
    code = 0
    deputed = (
        task._replace(act=partial(as_deputy, task.act))
        for task in tasks(here, users, go, everybody=everybody)
    )
    for name, ended in run_all(deputed, most=AT_ONCE):
        if ended < 0:
            click.echo(escaped(f"mdaflow: {name}: not done in time, or killed"), err=True)
        code = max(code, ended if ended >= 0 else EX_TEMPFAIL)
    return code


def _owner(place: str) -> User:
    found = owner(place)
    if found is None:
        raise click.UsageError(f"{place} is not maildir:/PATH")
    return found


def _as_line(folder: Expired, dry_run: bool) -> str:
    counts = folder.counts
    if counts is None:
        return escaped(f"mdaflow: {folder.user}: {folder.trouble}")
    done = f"{counts.expired} {'to delete' if dry_run else 'deleted'}"
    kept = f"{counts.flagged} kept for their flag, {counts.waiting} to come"
    return f"{escaped(f'{folder.user}  {counts.folder}')}: {done}, {kept}"


def _as_json(folder: Expired, dry_run: bool) -> str:
    about: dict[str, object] = {"user": folder.user}
    if folder.counts is None:
        about["error"] = folder.trouble
    else:
        about |= {**folder.counts._asdict(), "dry_run": dry_run}
    text = json.dumps(about, ensure_ascii=False)
    return text.encode(errors="backslashreplace").decode()  # a name on the disk may be no text
