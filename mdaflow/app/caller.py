"""Whose mail a command works for, and as whom, where accounts of this machine have mail.

A command of root becomes the account whose mail it is, before anything that the account's owner
chose is read (P22); one of an ordinary user works for that user alone. There is no worker with the
rights of the site then: what needs them fails for now, and small state is in `~/.mdaflow/state`.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from mdaflow.errors import PermFail, Status, TempFail
from mdaflow.route.users import User

from .build import Site, accounts_of, myself, with_store
from .config import Config
from .decide import find_user

if TYPE_CHECKING:
    from mdaflow.deliver.mailbox import Chunks, Mailbox, Prepared
    from mdaflow.route.accounts import SystemUsers

NOT_YOURS = Status(550, "5.7.1", "Not your mail")
OUT_OF_REACH = Status(451, "4.2.1", "Inbox is out of reach, try again later")


def user_of(site: Site, name: str | None) -> User:
    """The user of an address or of a login; without one, whoever calls.

    Raises PermFail when there is none, or when it is an account and the caller somebody else;
    TempFail when that cannot be told.
    """
    me = myself(site.hostname)
    login = me.address.rpartition("@")[0]
    if site.config.has_accounts:
        return _allowed(_find(site, login if name is None else name))
    return me if name in (None, login) else _allowed(find_user(site, str(name)))


def _allowed(user: User) -> User:
    if user.account is not None and os.geteuid() not in (0, user.account.uid):
        raise PermFail(NOT_YOURS, f"{user.address} is not you: call as that user, or as root")
    return user


def _find(site: Site, name: str) -> User:
    try:
        return (None if "@" in name else _by_login(site, name)) or find_user(site, name)
    except PermFail as error:
        raise PermFail(error.status, _why_none(site, name) or str(error)) from error


def _by_login(site: Site, name: str) -> User | None:
    """The account of a login, whose domain is the first that there is."""
    for source in accounts_of(site):
        user = source.find(f"{name}@{_domain(site, source)}")
        if user is not None:
            return user
    return None


def _domain(site: Site, source: SystemUsers) -> str:
    return site.hostname if source.knows(site.hostname.lower()) else source.domains[0]


def _why_none(site: Site, name: str) -> str:
    """Why an account has no mail; empty when there is no such account."""
    from mdaflow.route.accounts import account

    found = account(name.partition("@")[0])
    if found is None or any(found.uid in source.uids for source in accounts_of(site)):
        return ""
    return f"{found.name} (uid {found.uid}) has no mail of its own: make an alias"


def settle(site: Site, user: User, *, kept: bool) -> Site:
    """Be whoever works for a user, for good; the site as that one sees it.

    `kept`: with its store; else nothing is written. Raises ConfigError, TempFail, OSError; then the
    process has to end.
    """
    from .identity import check_home

    if os.geteuid() == 0:
        site = _become(site, user)
    elif user.account is not None and site.mailbox(user).inbox.startswith("/"):
        site = _with_spool(site, user)
    if user.account is not None:
        check_home(user)
    return with_store(site, state_of(site.config, user)) if kept else site


def _become(site: Site, user: User) -> Site:
    from .identity import settled
    from .privileges import drop
    from .rehearse import rehearse

    rehearse()
    if user.account is None:
        drop(site.config)
        return site
    _, found = settled(site, user.account.name, user.source)
    return replace(site, spooler=found.spooler)


def state_of(config: Config, user: User | None = None) -> str:
    """The folder for small state: the site's, or one's own for whoever may not write to that; the
    account's, if the `user` is one."""
    if user is None or user.account is None:
        with suppress(OSError):
            os.makedirs(config.state, mode=0o700, exist_ok=True)
        if os.access(config.state, os.W_OK | os.X_OK):
            return config.state
        user = myself("localhost")
    return os.path.join(user.home, ".mdaflow", "state")


def _with_spool(site: Site, user: User) -> Site:
    """The site for an account that is not in the group of the spool, which may be open to all."""
    directory = os.path.dirname(site.mailbox(user).inbox)
    return site if os.access(directory, os.W_OK | os.X_OK) else replace(site, spooler=_refuse)


def _refuse(
    mailbox: Mailbox, chunks: Chunks, flags: Collection[str], sender: str, received: float
) -> Prepared:
    """As a Spooler."""
    why = f"{mailbox.home}: you may make no file there: deliver by LMTP, or as root"
    raise TempFail(OUT_OF_REACH, why)
