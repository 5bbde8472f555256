"""The directory of a site: all tables that lead from a recipient to its destinations.

They are opened here, and what is wrong in them is told together. What they mean is in `route/`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from mdaflow.errors import ConfigError
from mdaflow.files import trust
from mdaflow.lang import ir
from mdaflow.route.aliases import AliasTable, of_rules, parse_members, parse_table
from mdaflow.route.resolve import Router, Tables
from mdaflow.route.tables import Table
from mdaflow.route.tables import Tables as Files
from mdaflow.route.users import Users

from . import sources
from .config import Config
from .privileges import uid_of

if TYPE_CHECKING:
    from mdaflow.route.access import Access

    from .senders import SiteSenders


class Directory(NamedTuple):
    """What is asked about a recipient."""

    router: Router
    access: Access | None = None
    """Who may write to whom; None: everybody to everybody."""
    senders: SiteSenders | None = None
    """Who rewrites senders, and knows them again where mail to them comes back."""

    @property
    def tables(self) -> list[Table[Any]]:
        """The tables of aliases and of access."""
        return [*self.router.tables.aliases, *(self.access.tables if self.access else ())]

    def load(self) -> None:
        """Read all tables. Raises ConfigError with all that is wrong in them."""
        problems: list[str] = []
        for table in self.tables:
            try:
                table.load()
            except ConfigError as error:
                problems += error.problems
        if problems:
            raise ConfigError(tuple(problems))


def open_directory(
    config: Config, hostname: str, users: Sequence[Users], said: Iterable[ir.Alias] = ()
) -> Directory:
    """The directory with some sources of users, and what rules say of aliases. Reads nothing."""
    statements = list(said)
    aliases = [_of_rules(statements)] if statements else []
    for named in config.aliases:
        kind, _, path = named.partition(":")
        aliases.append(Table(path, partial(parse_table, kind)))
    router = Router(
        Tables(users, tuple(aliases), Files(parse_members, shared=True).get),
        hostname,
        config.domains,
        config.recipient_delimiter,
        config.postmaster,
    )
    return Directory(router, _access(config), _senders(config, router))


def check(config: Config) -> None:
    """Raise ConfigError for a file of users, aliases, access or keys that is not there, or has
    anything wrong in it."""
    problems = sources.wrong(config) + wrong(config)
    if problems:
        raise ConfigError(tuple(problems))


def wrong(config: Config) -> list[str]:
    """What is wrong in the files of aliases, access and keys that a configuration names."""
    trust(uid_of(config))
    directory = open_directory(config, "localhost", ())
    problems: list[str] = []
    loads = [directory.load]
    if directory.senders is not None:
        loads.append(directory.senders.load)
    for load in loads:
        try:
            load()
        except ConfigError as error:
            problems += error.problems
    return problems


def _of_rules(said: Iterable[ir.Alias]) -> Table[AliasTable]:
    return Table.fixed(of_rules((s.name, s.targets, str(s.span)) for s in said))


def _access(config: Config) -> Access | None:
    if not config.access:
        return None
    from mdaflow.route.access import Access

    return Access(config.access, config.recipient_delimiter)


def _senders(config: Config, router: Router) -> SiteSenders | None:
    srs = config.forward.srs
    if not srs.domain:
        return None
    from .senders import SiteSenders

    senders = SiteSenders(srs.domain, srs.secrets, router.has_domain)
    router.tables = router.tables._replace(srs=senders)
    return senders
