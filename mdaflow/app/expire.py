"""Expiry in many mailboxes: one that cannot be entered does not stop the others."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from mdaflow.deliver.expire import Counts, expire
from mdaflow.deliver.mailbox import elsewhere, parse_mailbox
from mdaflow.errors import TempFail
from mdaflow.route.users import User


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
