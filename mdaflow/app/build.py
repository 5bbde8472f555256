"""The one place that wires things: a configuration in, a `Site` out."""

from __future__ import annotations

import logging
import os
import pwd
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from mdaflow.engine.context import Settings
from mdaflow.engine.plan import STORING
from mdaflow.engine.run import Stage
from mdaflow.errors import INTERNAL, MAILBOX_FULL, OVER_QUOTA, ConfigError, TempFail, install
from mdaflow.lang import ir
from mdaflow.lang.limits import Limits
from mdaflow.mail.envelope import Envelope
from mdaflow.mail.message import Message
from mdaflow.route.resolve import Router
from mdaflow.route.users import User, Users
from mdaflow.store import Store

from . import guard
from .answers import Answers
from .config import Config
from .directory import Directory, open_directory
from .learn import learners
from .personal_indexes import PersonalIndexes
from .rulebook import UserRules, powers_of_users, site_program
from .scanners import open_scanners
from .scanning import Scanning
from .sources import open_source
from .spam import Own

if TYPE_CHECKING:
    from mdaflow.deliver.job import Learner, Means, Steward
    from mdaflow.deliver.mailbox import Mailbox, Spooler
    from mdaflow.route.accounts import SystemUsers
    from mdaflow.scan.dns import Dns

    from .identities import Identities
    from .inflight import InFlight

DETAILS = """
rule "detail" when not envelope.to.detail is "" {
    if folder "{envelope.to.detail}" exists { deliver to "{envelope.to.detail}" }
    if folder "{envelope.to.detail|lower}" exists { deliver to "{envelope.to.detail|lower}" }
}
"""
"""What `detail_folders` does, in our own words."""
OVER = {"defer": OVER_QUOTA, "reject": MAILBOX_FULL}
"""`over_quota` -> the reply to mail that has no room."""
STAYS = ("done ", "seen ", "rules ", "scan ", "of ", "digest ")
"""How keys begin that no other machine is asked for: what was done with a message, whether it was
here (P43); the last good rules; what scanners say; what the processes of accounts keep; what was
told of the quarantine of this machine."""

MAX_FORWARD = 64 << 10
"""Bytes of a `.forward` with all that it includes."""
log = logging.getLogger("mdaflow")


@dataclass(frozen=True, slots=True)
class Site:
    """Everything a delivery needs, made from a configuration."""

    config: Config
    hostname: str
    before: tuple[Stage, ...]
    after: tuple[Stage, ...]
    spared: tuple[Stage, ...]
    """What is run on a message that has stopped workers."""
    rules: UserRules
    forwards: UserRules
    """The `.forward` files of users."""
    directory: Directory
    """The tables that lead from a recipient to its destinations."""
    answers: Answers
    settings: Settings
    says: frozenset[tuple[str, str]]
    """The actions in the rules of the site, each with the path of its mailbox, if it names one."""
    key: bytes
    """The site's secret; empty when there is none."""
    inflight: InFlight | None
    """Where a worker notes what it is at; None when nobody watches."""
    identities: Identities | None = None
    """Who delivers as the accounts of this machine; None: we are the one whose mail it is."""
    learners: Mapping[str, Learner] = field(default_factory=dict)
    """Who learns from messages, by their class."""
    steward: Steward | None = None
    """Who has the rights of the site, in a process that delivers as an account."""
    spooler: Spooler | None = None
    """Who writes to an inbox in the spool of the system, where we may not."""

    def noted(self, message: Message, envelope: Envelope) -> AbstractContextManager[bool]:
        """Open while rules run on a message. True: it has stopped workers, so none shall run."""
        if self.inflight is None:
            return nullcontext(False)
        return self.inflight.noted(message, envelope)

    @property
    def router(self) -> Router:
        """Who finds the destinations of a recipient."""
        return self.directory.router

    @property
    def users(self) -> Sequence[Users]:
        """The sources of users, in their order."""
        return self.router.tables.users

    @property
    def means(self) -> Means:
        """What actions are carried out with."""
        from mdaflow.deliver.job import Means  # a dry run needs none

        c, store = self.config, self.answers.store
        places = c.next_hop, c.quarantine, c.state
        return Means(
            self.hostname,
            *places,
            self.key,
            store,
            c.recipient_delimiter,
            self.steward,
            relay=c.relay,
            srs=self.directory.senders,
            resent=c.forward.resent,
            learners=self.learners,
        )

    def mailbox(self, user: User, *, refuse: bool = True) -> Mailbox:
        """The mailbox of a user, with its quota; unless `refuse`, that only counts."""
        from mdaflow.deliver.mailbox import Quota, parse_mailbox

        quota = None
        if user.quota or user.quota_messages:
            over = OVER[self.config.over_quota] if refuse else None
            quota = Quota(user.quota, user.quota_messages, over)
        mailbox = parse_mailbox(user.mailbox, user.home, quota)
        return mailbox if self.spooler is None else replace(mailbox, spooler=self.spooler)


def open_site(
    config: Config,
    store: Store | None = None,
    inflight: InFlight | None = None,
    identities: Identities | None = None,
) -> Site:
    """A site. With a `store` of the caller's nothing is written below `state:`.

    `inflight` is where a worker notes what it is at, `identities` deliver as the accounts of this
    machine. Raises ConfigError when the site's rules do not compile, and for a quota of mbox files.
    """
    kept = store is None
    if store is None:
        store = _store(config, config.state)
    limits = _limits(config)
    hostname = config.hostname or os.uname().nodename
    spared = guard.viruses(config)
    before = (spared, guard.tags(config), site_program(config.rules.before, limits))
    after = (guard.junk(config), site_program(config.rules.after, limits))
    powers = powers_of_users(config.rules.grant, config.rules.deny)
    key = _key(config.state) if kept else b""
    users = tuple(open_source(number, config) for number in range(len(config.users)))
    directory = open_directory(config, hostname, users, _aliases(*before, *after))
    if kept and inflight is None:
        directory.load()
    elif kept:  # a worker: the master has looked at them, and one that comes later has to serve
        with suppress(ConfigError):
            directory.load()
    if directory.senders is not None and inflight is not None:  # a server refuses to begin (P51)
        directory.senders.load()
    answers = _answers(config, hostname, store, config.state if kept else "", inflight)
    if kept:
        answers.scanning.load()
    return Site(
        config,
        hostname,
        _stages(*before),
        (*_stages(*after), *_detail_folders(config)),
        _stages(spared),
        UserRules(store, powers, limits),
        _forwards(store, powers, limits),
        directory,
        answers,
        _settings(config, limits),
        frozenset(_actions(*before, *after)),
        key,
        inflight,
        identities,
        learners(config),
    )


def accounts_of(site: Site) -> list[SystemUsers]:
    """The sources of users that are accounts of this machine."""
    if not site.config.has_accounts:
        return []
    from mdaflow.route.accounts import SystemUsers

    sources = (getattr(source, "source", source) for source in site.users)  # behind a memory
    return [source for source in sources if isinstance(source, SystemUsers)]


def with_store(site: Site, state: str) -> Site:
    """The site with its state in a folder: a store, and its secret."""
    config = site.config
    store = _store(config, state)
    return replace(
        site,
        config=replace(config, state=state),
        rules=UserRules(store, site.rules.powers, _limits(config)),
        forwards=_forwards(store, site.rules.powers, _limits(config)),
        answers=_answers(config, site.hostname, store, state),
        key=_key(state),
    )


def _store(config: Config, state: str) -> Store:
    """The store of this machine in a folder, and with it the one of all. Raises ConfigError."""
    from mdaflow.store.sqlite import SqliteStore

    near = SqliteStore(os.path.join(state, "state.sqlite"))
    if not config.store:
        return near
    from mdaflow.store.shared import Shared

    return Shared(_shared(config), near, lambda key: key.startswith(STAYS))


def _shared(config: Config) -> Store:
    """The store of all machines. Raises ConfigError; it is not asked yet."""
    try:
        from mdaflow.store.redis import RedisStore
    except ImportError as error:
        why = f"store: needs the Python package redis: {install('redis')} ({error})"
        raise ConfigError((why,)) from None
    return RedisStore(config.store)


def examine(config: Config) -> list[str]:
    """What is wrong with lists in the DNS, and with the store of all machines: packages that are
    missing. Nobody is asked."""
    problems: list[str] = []
    for wanted in (_shared if config.store else None, _dns):
        try:
            if wanted is not None:
                wanted(config)
        except ConfigError as error:
            problems += error.problems
    return problems


def _answers(
    config: Config, hostname: str, store: Store, state: str, inflight: InFlight | None = None
) -> Answers:
    """Who answers what rules ask. Without `state` nothing is kept of what scanners say. Raises
    ConfigError."""
    dns = _dns(config)
    own = Own(config, hostname, dns, kept=bool(state))
    kept = store if state else None
    scanning = Scanning(
        lambda: [own.post(), *open_scanners(config)],
        kept,
        state,
        inflight,
        told=lambda: repr((config.scanners, config.spam, own.table)),
    )
    delimiters, required = config.recipient_delimiter, config.spam.required
    trusted = config.trusted_authserv_ids
    answers = Answers(store, delimiters, config.rules.user, scanning, required, trusted, own)
    answers.dns = dns
    answers.indexes = PersonalIndexes(config.rules.user, config.spam.sent, config.spam.junk)
    return answers


def _dns(config: Config) -> Dns | None:
    """Who asks lists in the DNS, if the configuration names some. Raises ConfigError."""
    said = config.spam.dns
    if not (said.clients or said.domains or said.nameservers):
        return None
    try:
        from mdaflow.scan.dns import Dns

        return Dns(said.clients, said.domains, said.nameservers, said.timeout)
    except ImportError as error:
        why = f"spam.dns: needs more packages: {install('dns')} ({error})"
        raise ConfigError((why,)) from None
    except (ValueError, OSError) as error:
        raise ConfigError((f"spam.dns: {error}",)) from None


def _stages(*programs: ir.Program | None) -> tuple[Stage, ...]:
    return tuple(Stage(program, "site") for program in programs if program is not None)


def _forwards(store: Store, powers: Collection[str], limits: Limits) -> UserRules:
    def compiled(*what: Any, **about: Any) -> ir.Program:
        from mdaflow.lang.forward import compile_forward  # few users have one

        return compile_forward(*what, **about)

    limits = limits._replace(file=min(limits.file, MAX_FORWARD))
    return UserRules(store, powers, limits, compiled, room=MAX_FORWARD)


def _detail_folders(config: Config) -> tuple[Stage, ...]:
    """What sorts the mail that nobody else did by the detail it came with."""
    if not config.detail_folders:
        return ()
    from mdaflow.lang import compile_rules

    return (Stage(compile_rules(DETAILS, "detail_folders"), "site"),)


def _aliases(*programs: ir.Program | None) -> Iterator[ir.Alias]:
    statements = (s for p in programs if p is not None for s in p.body)
    yield from (s for s in statements if isinstance(s, ir.Alias))


def _actions(*programs: ir.Program | None) -> Iterator[tuple[str, str]]:
    waiting = [s for p in programs if p is not None for s in p.body]
    while waiting:
        statement = waiting.pop()
        if isinstance(statement, ir.Branch):
            waiting += (*statement.body, *statement.otherwise)
        elif isinstance(statement, ir.Act):
            stores = statement.verb in STORING and statement.operands
            yield statement.verb, (statement.operands[0].literal or "") if stores else ""


def _limits(config: Config) -> Limits:
    said = config.rules.limits
    return Limits(*(getattr(said, name) for name in Limits._fields))


def _settings(config: Config, limits: Limits) -> Settings:
    zone = None
    if config.timezone:
        from zoneinfo import ZoneInfo

        zone = ZoneInfo(config.timezone)
    trusted, delimiters = config.trusted_authserv_ids, config.recipient_delimiter
    return Settings(delimiters, zone, trusted, (), config.spam.required, limits)


def _key(state: str) -> bytes:
    """The site's secret, made when it is missing; none when it can be neither read nor made."""
    path = os.path.join(state, "key")
    try:
        if not os.path.lexists(path):
            _make_key(path)
        with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW), "rb") as file:
            return file.read(64)
    except OSError as error:
        log.warning("%s: %s; mail loops are found by their length only", path, error.strerror)
        return b""


def _make_key(path: str) -> None:
    """Write a key; who comes first wins, and nobody reads half of one. Raises OSError."""
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    mine = f"{path}.{os.urandom(8).hex()}"
    file = os.open(mine, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.write(file, os.urandom(32))
        os.fsync(file)
        with suppress(FileExistsError):
            os.link(mine, path)
    finally:
        os.close(file)
        os.unlink(mine)


def myself(hostname: str) -> User:
    """Whoever runs this process, with the mailbox `~/Maildir`. Raises TempFail for nobody known."""
    try:
        me = pwd.getpwuid(os.geteuid())
    except KeyError:
        raise TempFail(INTERNAL, f"uid {os.geteuid()} is not in the user database") from None
    return User(f"{me.pw_name}@{hostname}", os.environ.get("HOME", me.pw_dir), "maildir:Maildir")
