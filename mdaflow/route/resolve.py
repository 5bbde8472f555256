"""The way from a recipient to its destinations.

    recipient -> access table -> SRS -> aliases -> users -> catch-all -> required names -> next hop

An address of ours is looked up in the tables of aliases, one after the other, then in the sources
of users; then comes what catches all of a domain (`@domain`), then postmaster and its like, which
every site has to have (RFC 5321 section 4.5.1, RFC 2142). What an alias stands for goes the same
way. Ours is the domain that a recipient came with, since whoever brought it has decided so, and
the domains that the configuration or a source of users names. All others leave by the next hop.

An alias among its own targets is the user of that name: so an alias can add a reader. A longer
circle is a mistake of the site: its members are passed over, and when nothing else is left the mail
is put off. Every destination is there once. Depth and number are bounded (P35).

`resolve` never raises: what cannot be told is a destination, too, a refusal for now. With a list
for the steps it notes whom it asked, what was answered, and where that stands.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from mdaflow.errors import INTERNAL, UNKNOWN_USER, Status, TempFail
from mdaflow.mail.address import split_local
from mdaflow.mail.letter import is_address
from mdaflow.mail.targets import Target, enhanced

from .aliases import Alias, AliasTable, keys_of
from .destination import ONLY_BOUNCES, TOO_MANY, Destination, Step
from .tables import Table
from .users import User, Users

MAX_DEPTH = 10
"""Aliases of aliases."""
MAX_TARGETS = 10_000
"""Destinations that one recipient may have, and ten times as many names on the way (P35)."""
GONE = Status(550, "5.1.1", "No such user here")
NOT_NOW = Status(451, "4.3.0", "Try again later")
CIRCLE = "a loop, passed over"
"""The answer of a step that would go round."""
QUICK = 1.0
"""Seconds to find somebody who can have mail, where that is all one wants to know."""
REQUIRED = ("postmaster", "abuse", "mailer-daemon")
"""Names that every site has: they fall back to the configured `postmaster`."""


class Reversal(Protocol):
    """Knows the addresses that we have made for senders (SRS)."""

    domain: str
    """Their domain."""

    def reverse(self, address: str) -> str | None:
        """The sender that it stands for; None for other addresses. Raises ValueError for a forged
        or an old one."""


class Tables(NamedTuple):
    """What a router asks, in order."""

    users: Sequence[Users]
    aliases: Sequence[Table[AliasTable]] = ()
    members: Callable[[str], Sequence[Target]] | None = None
    """The members of a list in a file. Raises TempFail."""
    srs: Reversal | None = None


class Router:
    """Finds destinations. `hostname` is the domain of addresses that have none."""

    def __init__(
        self,
        tables: Tables,
        hostname: str = "localhost",
        domains: Sequence[str] = (),
        delimiters: str = "+",
        postmaster: str = "",
    ) -> None:
        self.tables = tables
        self.hostname = hostname
        self.domains = frozenset((hostname.lower(), *map(str.lower, domains)))
        self.named = self.domains if domains else None
        """Where names without a domain count; None: in every domain of ours."""
        self.delimiters = delimiters
        self.postmaster = postmaster

    def resolve(
        self,
        recipient: str,
        steps: list[Step] | None = None,
        *,
        bounce: bool = True,
        quick: bool = False,
    ) -> tuple[Destination, ...]:
        """The destinations of a recipient, at least one. Never raises.

        `bounce`: the sender is the null one; only that mail goes back to a rewritten sender.
        `quick`: to know whether anybody can have mail; the first who can is enough, and after
        `QUICK` seconds it is taken for granted.
        """
        walk = _Walk(self, recipient, steps, bounce)
        if quick:
            walk.until = time.monotonic() + QUICK
        return walk.destinations()

    def has_domain(self, domain: str) -> bool:
        """Does mail for this domain end here, whoever brings it? Raises TempFail."""
        return domain in self.domains or any(s.has_domain(domain) for s in self.tables.users)

    def only(self, recipient: str) -> str:
        """The one address that a recipient stands for; who stands for none or for several, stands
        for itself. By what is known already: cheap, asks nobody, and never raises."""
        for _ in range(MAX_DEPTH):
            local, _, domain = recipient.rpartition("@")
            keys = keys_of(local, domain.lower(), self.delimiters, ours=True)
            tables = (table.last for table in self.tables.aliases)
            found = (table.find(keys, recipient) for table in tables if table)
            alias = next(filter(None, found), None)
            targets = alias.targets if alias is not None else ()
            if len(targets) != 1 or targets[0].kind != "address":
                break
            target = targets[0].value
            recipient = target if "@" in target else f"{target}@{domain}"
        return recipient

    def find_user(self, address: str) -> User | None:
        """The user in the first source that knows the address. Raises TempFail."""
        return next(filter(None, (source.find(address) for source in self.tables.users)), None)


class _Place(NamedTuple):
    """Where on the way an address was met."""

    depth: int = 0
    parent: str = ""
    """The alias that named it."""
    above: frozenset[str] = frozenset()
    """All aliases on the way to it."""
    sender: str | None = None
    where: str = ""
    plain: bool = False
    """It is a user, whatever aliases say."""
    domain: str = ""
    """Of names without one."""
    steps: list[Step] | None = None
    """Where to note what is found out; None: nobody wants to know."""


class _TooMany(Exception):
    """There is no end to it."""


class _Walk:
    """One recipient on its way."""

    def __init__(
        self, router: Router, recipient: str, steps: list[Step] | None, bounce: bool
    ) -> None:
        self.router = router
        self.bounce = bounce
        self.until: float | None = None
        self.circle = False
        """Some alias leads back to itself."""
        self.someone = False
        """Somebody can have the mail."""
        self.recipient = recipient if "@" in recipient else f"{recipient}@{router.hostname}"
        self.origin = self.recipient.rpartition("@")[2]
        self.waiting: deque[tuple[str, _Place]] = deque([(self.recipient, _Place(steps=steps))])
        self.found: dict[str, Destination] = {}
        self.listed: set[tuple[object, ...]] = set()
        """What was met already, with all that it depends on."""
        self.expanded: set[tuple[str, str, str, str | None]] = set()
        self.met = 0

    def destinations(self) -> tuple[Destination, ...]:
        first = self.waiting[0][1]
        try:
            while self.waiting and not self._knows_enough():
                # the nearest first, so that no way is longer than it need be
                self._address(*self.waiting.popleft())
        except _TooMany:
            self.found.clear()
            self._refuse(self.recipient, TOO_MANY, "more than it may stand for", first)
        if not self.found and self.circle:
            self._refuse(self.recipient, TOO_MANY, "only loops and empty lists", first)
        elif not self.found:
            self._refuse(self.recipient, NOT_NOW, "it stands for nobody now", first)
        return tuple(self.found.values())

    def _knows_enough(self) -> bool:
        if self.until is None:
            return False
        if not self.someone and time.monotonic() > self.until:
            self.found = {"": Destination("unknown", self.recipient)}
            self.someone = True
        return self.someone

    # --- addresses -------------------------------------------------------------------------

    def _address(self, said: str, at: _Place) -> None:
        address = said if "@" in said else f"{said}@{at.domain}"
        at = self._tell(at, address)
        if at.depth > MAX_DEPTH:
            self._refuse(address, TOO_MANY, "aliases of aliases, too deep", at)
            return
        try:
            if not at.depth and self._came_back_to(address, at):
                return
            self._find(address, at)
        except TempFail as error:
            self._refuse(address, error.status, str(error), at)

    def _find(self, address: str, at: _Place) -> None:
        local, _, domain = address.rpartition("@")
        domain = domain.lower()
        ours = domain == self.origin.lower() or self.router.has_domain(domain)
        if not at.plain and not self._is_for_senders(domain):
            names = ours and (self.router.named is None or domain in self.router.named)
            keys = keys_of(local, domain, self.router.delimiters, ours=names)
            alias = None if at.parent in keys else self._alias(keys, address, at)
            if alias is not None:
                self._expand(alias, local, domain, at)
                return
        if ours:
            self._find_user(address, local, domain, at)
        else:
            self._add(Destination("address", address, sender=at.sender, where=at.where), at)

    def _is_for_senders(self, domain: str) -> bool:
        """Is it the domain of rewritten senders, in which nobody else has a name?"""
        srs = self.router.tables.srs
        return srs is not None and domain == srs.domain.lower()

    def _came_back_to(self, address: str, at: _Place) -> bool:
        """It is an address that SRS has made of a sender's, and goes there."""
        if self.router.tables.srs is None:
            return False
        try:
            sender = self.router.tables.srs.reverse(address)
        except ValueError as error:
            self._refuse(address, GONE, str(error), at)
            return True
        if sender is None:
            return False
        if not self.bounce:
            self._refuse(address, ONLY_BOUNCES, "only bounces go back to a rewritten sender", at)
            return True
        self._tell(at, "SRS", f"the way back to {sender}")
        self._add(Destination("address", sender), at)
        return True

    def _find_user(self, address: str, local: str, domain: str, at: _Place) -> None:
        user = self._user(address, at)
        if user is not None:
            self._add(Destination("user", address, user, at.sender, where=at.where), at)
            return
        catch_all = None if at.plain else self._alias((f"@{domain}",), "", at)
        if catch_all is not None and catch_all.name not in at.above:
            self._expand(catch_all, local, domain, at)
            return
        name, _ = split_local(local.lower(), self.router.delimiters)
        if name in REQUIRED and self.router.postmaster and "postmaster:" not in at.above:
            below = self._tell(at, name, f"falls back to {self.router.postmaster}", "postmaster:")
            above, where = at.above | {"postmaster:"}, "postmaster:"
            below = below._replace(depth=at.depth + 1, above=above, where=where, domain=domain)
            self.waiting.append((self.router.postmaster, below))
            return
        self._refuse(address, UNKNOWN_USER, "nobody has this address", at)

    def _user(self, address: str, at: _Place) -> User | None:
        for source in self.router.tables.users:
            user = source.find(address)
            if at.steps is not None:
                said = "no" if user is None else f"{user.address} ({user.home})"
                self._tell(at, str(source), said)
            if user is not None:
                return user
        return None

    # --- aliases ---------------------------------------------------------------------------

    def _alias(self, keys: tuple[str, ...], address: str, at: _Place) -> Alias | None:
        """What the first table that knows one of the names says."""
        for table in self.router.tables.aliases:
            aliases = table.get()
            alias = aliases.find(keys, address)
            if alias is not None:
                return alias
            if at.steps is not None:
                self._tell(at, f"aliases in {aliases.path}", f"no {keys[0]}")
        return None

    def _expand(self, alias: Alias, local: str, domain: str, at: _Place) -> None:
        name = alias.name
        depends = alias.match is not None or name[0] == "@"  # on the whole address
        what = name, local if depends else "", domain, at.sender
        if name in at.above or what in self.expanded:
            again = CIRCLE if name in at.above else "as above"
            self.circle = self.circle or name in at.above
            self._tell(at, name, again, alias.where)
            return
        self.expanded.add(what)
        if at.steps is not None:
            at = self._tell(at, name, ", ".join(map(str, alias.targets[:20])), alias.where)
        sender = self._owner(name, domain) or at.sender
        above = at.above | {name}
        where = alias.where
        below = _Place(at.depth + 1, name, above, sender, where, False, domain, at.steps)
        self._targets(alias.targets, alias, local, below)

    def _targets(self, targets: Sequence[Target], alias: Alias, local: str, at: _Place) -> None:
        detail = self._passed_on(alias, local)
        for target in targets:
            if target.kind == "address" and target.value[:1] == "@" and alias.match is None:
                target = target._replace(value=f"{local}{target.value}")
            elif target.kind == "address" and detail:
                target = target._replace(value=_with_detail(target.value, detail))
            _KINDS[target.kind](self, target, at)

    def _passed_on(self, alias: Alias, local: str) -> str:
        """The detail that targets get, with its delimiter; empty for none."""
        if alias.kind != "virtual" or "@" not in alias.name[1:]:
            return ""
        user, detail = split_local(local, self.router.delimiters)
        whole = detail and alias.name.rpartition("@")[0] == user.casefold()
        return local[len(user) :] if whole else ""

    def _owner(self, name: str, domain: str) -> str | None:
        """The owner of a list, if it has one."""
        local, at, of = name.partition("@")
        if not local or local.startswith(("/", "owner-")):
            return None
        owner = f"owner-{local}"
        keys = (f"{owner}@{of}",) if at else (f"{owner}@{domain}", owner)
        return f"{owner}@{of or domain}" if self._alias(keys, "", _Place()) is not None else None

    def _named(self, target: Target, at: _Place) -> None:
        value = target.value
        if is_address(value if "@" in value else f"{value}@x"):
            self._meet(value, at)
        else:  # what a regular expression has made
            self._refuse(repr(value), INTERNAL, "this is no address", at)

    def _plain_user(self, target: Target, at: _Place) -> None:
        self._meet(target.value, at._replace(plain=True))

    def _meet(self, name: str, at: _Place) -> None:
        self.met += 1
        if self.met > 10 * MAX_TARGETS:
            raise _TooMany
        said = _said(name, at)
        if at.steps is not None or said not in self.listed:
            self.listed.add(said)
            self.waiting.append((name, at))

    def _include(self, target: Target, at: _Place) -> None:
        path, members = target.value, self.router.tables.members
        what = path, "", at.domain, at.sender
        if path in at.above or members is None or what in self.expanded:
            return
        self.expanded.add(what)
        if at.depth > MAX_DEPTH:
            self._refuse(path, TOO_MANY, "lists in lists, too deep", at)
            return
        try:
            found = members(path)
        except TempFail as error:
            self._refuse(path, error.status, str(error), at)
            return
        places = {"user": at._replace(plain=True)}
        more = sum(_said(m.value, places.get(m.kind, at)) not in self.listed for m in found)
        if len(self.found) + len(self.waiting) + more > MAX_TARGETS:
            self._refuse(path, TOO_MANY, f"{len(found):,} members are too many here", at)
            return
        if at.steps is not None:
            number = f"{len(found)} member{'s' * (len(found) != 1)}"
            at = self._tell(at, str(target), number, path)
        below = at._replace(depth=at.depth + 1, above=at.above | {path}, where=path)
        for member in found:
            _KINDS[member.kind](self, member, below)

    def _leaf(self, target: Target, at: _Place) -> None:
        found = Destination(target.kind, target.value, sender=at.sender, where=at.where)
        self._add(found, at)

    def _say_no(self, target: Target, at: _Place) -> None:
        status = GONE if target.kind == "fail" else NOT_NOW
        code, text = enhanced(target.value, status.enhanced)
        line = text.encode("ascii", "replace").decode()[:200] or status.text
        self._refuse(at.parent, Status(status.code, code, line), str(target), at)

    # --- what was found --------------------------------------------------------------------

    def _refuse(self, name: str, status: Status, why: str, at: _Place) -> None:
        self._add(Destination("refused", name, None, at.sender, status, why, at.where), at)

    def _add(self, found: Destination, at: _Place) -> None:
        key = found.key
        self.someone = self.someone or found.status is None
        if key not in self.found:
            self.found[key] = found
            if len(self.found) > MAX_TARGETS:
                raise _TooMany
            answer = ""
        else:
            answer = " (already there)"
        if at.steps is not None:
            owner = f"errors go to {found.sender}" if found.sender else ""
            self._tell(at, f"=> {found}{answer}", found.why or owner, at.where)

    def _tell(self, at: _Place, asked: str, answer: str = "", where: str = "") -> _Place:
        """Note a step, if somebody wants to know; the place for what follows from it."""
        if at.steps is None:
            return at
        below: list[Step] = []
        at.steps.append(Step(asked, answer, where, below))
        return at._replace(steps=below)


_KINDS: dict[str, Callable[[_Walk, Target, _Place], None]] = {
    "address": _Walk._named,
    "user": _Walk._plain_user,
    "include": _Walk._include,
    "program": _Walk._leaf,
    "file": _Walk._leaf,
    "nothing": _Walk._leaf,
    "fail": _Walk._say_no,
    "defer": _Walk._say_no,
}
"""The kind of a target -> where it leads."""


def _said(name: str, at: _Place) -> tuple[object, ...]:
    """A name that was met, with all that its meaning depends on."""
    return name, at.plain, at.sender, at.domain, at.parent


def _with_detail(address: str, detail: str) -> str:
    """An address with the detail that the alias came with, as Postfix passes it on."""
    local, at, domain = address.rpartition("@")
    return f"{local}{detail}{at}{domain}" if at else f"{address}{detail}"
