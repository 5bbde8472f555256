"""`mdaflow expire`: delete what rules stored with `expire`, once its time is over.

Exit codes: 0; 67 for a user that is none; 75 if a mailbox could not be gone through.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence

import click

from mdaflow import Site, User, read_config
from mdaflow.app.expire import Expired, expire_users, owner
from mdaflow.app.log import escaped

from . import EX_TEMPFAIL
from .common import config_option, site_of, step_down, user_of


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
    step_down(settings)
    here = site_of(settings, kept=False)
    named: Sequence[str | None] = names or ([] if everybody or owners else [None])
    users = [*owners, *(user_of(here, name) for name in named)]
    show = _as_json if as_json else _as_line
    code = 0
    for folder in expire_users(_chain(users, here, everybody), time.time(), dry_run=dry_run):
        click.echo(show(folder, dry_run), err=bool(folder.trouble) and not as_json)
        code = EX_TEMPFAIL if folder.trouble else code
    return code


def _owner(place: str) -> User:
    found = owner(place)
    if found is None:
        raise click.UsageError(f"{place} is not maildir:/PATH")
    return found


def _chain(users: list[User], here: Site, everybody: bool) -> Iterator[User]:
    yield from users
    for source in here.users if everybody else ():
        yield from source.all()


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
