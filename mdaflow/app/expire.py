"""Expiry in many mailboxes: one that cannot be entered does not stop the others."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import chain
from typing import NamedTuple

from mdaflow.deliver.expire import Counts, expire
from mdaflow.deliver.mailbox import elsewhere, parse_mailbox
from mdaflow.errors import INTERNAL, TempFail
from mdaflow.route.users import User, Users

from . import privileges
from .build import Site
from .config import Folders, System
from .deputies import Task

ACCOUNT = 600.0
"""Seconds for the mailbox of an account: its home may be on a server that does not answer."""
Go = Callable[[Iterable[User]], int]
"""Goes through mailboxes; the exit code."""


class Expired(NamedTuple):
    """What became of one folder of a user, or why a mailbox could not be gone through."""

    user: str
    counts: Counts | None
    trouble: str = ""


def expire_users(users: Iterable[User], now: float, *, dry_run: bool = False) -> Iterator[Expired]:
    """Delete what has expired `now`, in seconds since the epoch, from the mailboxes of users."""
    for user in users:
        try:
            mailbox = parse_mailbox(user.mailbox, user.home)
            for counts in expire(mailbox, now, dry_run=dry_run):
                yield Expired(user.address, counts)
        except TempFail as error:
            yield Expired(user.address, None, str(error))


def owner(place: str) -> User | None:
    """Whoever would have the Maildir `maildir:/path`, called by its place; None for another text.

    Raises PermFail for a path that cannot be one.
    """
    found = elsewhere(place)
    if found is None or found[0].format != "maildir":
        return None
    mailbox, _ = found
    return User(place, mailbox.home, f"maildir:{mailbox.path}")


def tasks(
    site: Site, users: Sequence[User], go: Go, *, everybody: bool, only: str = "maildir:"
) -> Iterator[Task]:
    """What root has to do for these users, and for `everybody`: for an account as that account,
    for all others as the user of the mail. `only` is how the mailbox of an account begins."""
    sources = [*zip(site.config.users, site.users, strict=True)] if everybody else []
    others = [user for user in users if user.account is None]
    ours = [source for said, source in sources if not isinstance(said, System)]
    if others or ours:
        yield Task(site.config.user, partial(_as_mail_user, site, others, ours, go))
    theirs = [source for said, source in sources if not isinstance(said, Folders)]
    for user in chain(users, listed(theirs)):
        if user.account is not None and user.mailbox.startswith(only):
            yield Task(user.address, partial(_as_account, user, go), ACCOUNT)


def listed(sources: Iterable[Users]) -> Iterator[User]:
    """All users of some sources. One that cannot list them does not stop the others: it raises its
    TempFail at the end."""
    trouble: TempFail | None = None
    for source in sources:
        try:
            yield from source.all()
        except TempFail as error:
            trouble = error
    if trouble is not None:
        raise trouble


def _as_mail_user(site: Site, users: list[User], sources: list[Users], go: Go) -> int:
    privileges.drop(site.config)
    return go(chain(users, (user for user in listed(sources) if user.account is None)))


def _as_account(user: User, go: Go) -> int:
    assert user.account is not None
    try:
        privileges.become(user.account)
    except OSError as error:
        raise TempFail(INTERNAL, f"{user.address}: {error}") from error
    os.umask(0o077)
    return go([user])
