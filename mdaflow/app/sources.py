"""The sources of users of a configuration, opened; and what is wrong with them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from mdaflow.errors import ConfigError, TempFail
from mdaflow.route.users import FolderUsers, Users

from . import privileges
from .config import Config, Folders, Passwd, Source, Sql, Static, System
from .kinds import NO_QUOTA

if TYPE_CHECKING:
    from .profile import Profiles


def open_source(number: int, config: Config) -> Users:
    """The source of users `users[number]`. Raises ConfigError; nobody is asked yet."""
    source = config.users[number]
    limits = source.quota, source.quota_messages
    if any(limits) and source.mailbox.startswith("mbox:"):  # load.py has told where it stands
        raise ConfigError((f"users[{number}]: quota: must be {NO_QUOTA}",))
    return _OPEN[type(source)](number, source, config)


def _folders(number: int, source: Folders, config: Config) -> Users:
    limits = source.quota, source.quota_messages
    return FolderUsers(source.folders, source.mailbox, config.recipient_delimiter, *limits)


def _system(number: int, source: System, config: Config) -> Users:
    from mdaflow.route.accounts import SystemUsers
    from mdaflow.route.cached import CachedUsers

    uids = range(max(1, source.min_uid), source.max_uid + 1)
    limits = source.quota, source.quota_messages
    domains, delimiters = _lower(source.system), config.recipient_delimiter
    return CachedUsers(SystemUsers(number, source.mailbox, uids, domains, delimiters, *limits))


def _passwd(number: int, source: Passwd, config: Config) -> Users:
    from mdaflow.route.passwd import PasswdUsers, lines
    from mdaflow.route.tables import Table

    make, table = _profiles(number, source, config), Table(source.passwd, lines)
    return PasswdUsers(table, make, _lower(source.domains), config.recipient_delimiter)


def _sql(number: int, source: Sql, config: Config) -> Users:
    from mdaflow.route.cached import CachedUsers
    from mdaflow.route.database import Database, Query
    from mdaflow.route.sql import PARAMETERS, SqlUsers

    key, asked = "sql", {key: getattr(source, key) for key in PARAMETERS}
    try:
        database = Database(source.sql, source.password, partial(privileges.as_mail_user, config))
        queries = {}
        for key, text in asked.items():
            if text:
                queries[key] = Query(text, PARAMETERS[key])
    except ConfigError as error:
        told = (f"users[{number}].{key}: {problem}" for problem in error.problems)
        raise ConfigError(tuple(told)) from None
    make = _profiles(number, source, config)
    return CachedUsers(SqlUsers(database, queries, make, config.recipient_delimiter))


def _static(number: int, source: Static, config: Config) -> Users:
    from mdaflow.route.static import StaticUsers

    if not source.home:
        raise ConfigError((f"users[{number}].home: is required with static",))
    make = _profiles(number, source, config)
    return StaticUsers(_lower(source.static), source.home, make, config.recipient_delimiter)


_OPEN: dict[type, Callable[[int, Any, Config], Users]] = {
    Folders: _folders, System: _system, Passwd: _passwd, Sql: _sql, Static: _static,
}  # fmt: skip


def _lower(domains: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(domain.lower() for domain in domains)


def _profiles(number: int, source: Passwd | Sql | Static, config: Config) -> Profiles:
    from .profile import Profiles  # folders and accounts need none

    return Profiles(number, source, privileges.uid_of(config))


def places(source: Source) -> Iterator[str]:
    """The files and folders that whoever asks a source, or writes to its users, has to reach."""
    match source:
        case Folders():
            yield source.folders
        case Passwd() | Sql() | Static():
            from .profile import fixed_part

            yield fixed_part(source.home)
            yield getattr(source, "passwd", "")
            yield getattr(source, "password", "")
            _, lite, path = getattr(source, "sql", "").partition("sqlite:///")
            yield os.path.dirname(path) if lite else ""


# --- what is wrong with them -------------------------------------------------------------------


def wrong(config: Config) -> list[str]:
    """What is wrong in files of users. Raises ConfigError for what cannot even be opened."""
    return [problem for number in range(len(config.users)) for problem in _wrong(number, config)]


def examine(config: Config) -> tuple[list[str], list[str]]:
    """What is wrong with the sources, and what may be only now: that a database is away."""
    problems: list[str] = []
    warnings: list[str] = []
    for number, source in enumerate(config.users):
        try:
            problems += _wrong(number, config)
            if isinstance(source, Sql):
                problems += _wrong_queries(number, source, config)
        except ConfigError as error:
            problems += error.problems
        except TempFail as error:
            warnings.append(f"users[{number}]: {error}")
    return problems, warnings


def _wrong(number: int, config: Config) -> Iterator[str]:
    """Raises ConfigError for what cannot even be opened."""
    table = getattr(open_source(number, config), "table", None)
    if table is not None:
        try:
            table.load()
        except ConfigError as error:
            yield from error.problems


def _wrong_queries(number: int, source: Sql, config: Config) -> Iterator[str]:
    """Raises TempFail when the database cannot be reached."""
    from mdaflow.route.sql import COLUMNS, SqlUsers

    users: Any = getattr(open_source(number, config), "source")  # noqa: B009 - behind a memory
    assert isinstance(users, SqlUsers)
    try:
        users.database.password()
    except TempFail as error:
        yield f"users[{number}].password: {error}"
        return
    users.database.connect()
    needed = {"user": () if source.home else ("home",), "users": ("address",)}
    for key in filter(partial(getattr, source), ("user", "domains", "users")):
        try:
            columns = users.columns(key)
        except TempFail as error:
            yield f"users[{number}].{key}: {error}"
            continue
        if key in needed:
            unknown = [column for column in columns if column not in COLUMNS]
            missing = [column for column in needed[key] if column not in columns]
            yield from (f"users[{number}].{key}: unknown column {column}" for column in unknown)
            yield from (f"users[{number}].{key}: has no column {column}" for column in missing)
