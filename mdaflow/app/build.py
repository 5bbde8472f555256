"""The one place that wires things: a configuration in, a `Site` out."""

from __future__ import annotations

import os
import pwd
from collections.abc import Sequence
from dataclasses import dataclass

from mdaflow.engine.facts import Ask, Fact
from mdaflow.engine.run import Stage
from mdaflow.errors import INTERNAL, TempFail
from mdaflow.route.users import FolderUsers, User
from mdaflow.store import Store

from .config import Config
from .rulebook import UserRules, site_program


@dataclass(frozen=True, slots=True)
class Site:
    """Everything a delivery needs, made from a configuration."""

    config: Config
    hostname: str
    users: tuple[FolderUsers, ...]
    before: tuple[Stage, ...]
    after: tuple[Stage, ...]
    rules: UserRules
    ask: Ask


def open_site(config: Config, store: Store | None = None) -> Site:
    """A site. Raises ConfigError when its rules do not compile."""
    if store is None:
        from mdaflow.store.sqlite import SqliteStore

        store = SqliteStore(os.path.join(config.state, "state.sqlite"))
    delimiters = config.recipient_delimiter
    return Site(
        config,
        config.hostname or os.uname().nodename,
        tuple(FolderUsers(f.folders, f.mailbox, delimiters) for f in config.users),
        _stages(config.rules.before),
        _stages(config.rules.after),
        UserRules(store, config.rules.grant),
        ask,
    )


def _stages(folder: str) -> tuple[Stage, ...]:
    program = site_program(folder)
    return () if program is None else (Stage(program, "site"),)


def myself(hostname: str) -> User:
    """Whoever runs this process, with the mailbox `~/Maildir`. Raises TempFail for nobody known."""
    try:
        me = pwd.getpwuid(os.geteuid())
    except KeyError:
        raise TempFail(INTERNAL, f"uid {os.geteuid()} is not in the user database") from None
    return User(f"{me.pw_name}@{hostname}", os.environ.get("HOME", me.pw_dir), "maildir:Maildir")


def ask(fact: Fact) -> Sequence[str] | None:
    """Answer a fact by the scanner it belongs to; None when there is none."""
    if fact.name == "attachment.type":
        from mdaflow.scan.magic import attachment_types

        return attachment_types(fact)
    return None
