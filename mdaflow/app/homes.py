"""The homes of users: whose they are, and how they are made when the first mail comes.

They are made only below a folder in which there is something: an empty one may be the mount point
of a disk that is away. For a home that a source names itself that is the nearest folder that is
there. Users with a uid of their own have a home already, or their mail waits.
"""

from __future__ import annotations

import os

from mdaflow.errors import INTERNAL, TempFail, from_oserror
from mdaflow.route.users import User, has_entries


def is_foreign(user: User) -> bool:
    """Does the home of an account belong to somebody else? Then nothing in it is the user's. Raises
    OSError."""
    return user.account is not None and os.stat(user.home).st_uid not in (0, user.account.uid)


def make_home(user: User) -> None:
    """Make the home of a user who may have one made, if it is missing. Raises TempFail."""
    if not user.made_below or os.path.isdir(user.home):
        return
    there, missing = user.home, list[str]()
    while not os.path.isdir(there):
        there, name = os.path.split(there)
        missing.insert(0, name)
    _check(there if user.made_below == "/" else user.made_below, user)
    try:
        _make(there, missing)
    except OSError as error:
        raise from_oserror(error) from error


def _check(folder: str, user: User) -> None:
    if not has_entries(folder):
        why = "is not there, or there is nothing in it"
        advice = "not mounted? if it is new, make a folder in it"
        what = f"no home for {user.address} is made"
        raise TempFail(INTERNAL, f"{folder} {why} ({advice}): {what}")


def _make(there: str, missing: list[str]) -> None:
    """Make folders, one in the other, so that they are on the disk. Raises OSError."""
    from mdaflow.deliver.mailbox import enter  # a dry run makes none

    here = os.open(there, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    for name in missing:
        try:
            below = enter(here, name)
        finally:
            os.close(here)
        here = below
    os.close(here)
