"""Tables of a site in one word each: users, aliases, a router of both."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mdaflow.errors import INTERNAL, TempFail
from mdaflow.mail.targets import Target
from mdaflow.route.aliases import AliasTable, parse_members, parse_table
from mdaflow.route.destination import Step
from mdaflow.route.resolve import Router, Tables
from mdaflow.route.tables import Table
from mdaflow.route.users import User


class Known:
    """Users by their addresses; `away`: nobody can tell."""

    def __init__(self, *addresses: str, away: bool = False) -> None:
        self.addresses = addresses
        self.away = away
        self.asked: list[str] = []

    def find(self, address: str) -> User | None:
        self.asked.append(address)
        if self.away:
            raise TempFail(INTERNAL, "the users are away")
        local, _, domain = address.rpartition("@")
        address = f"{local.partition('+')[0]}@{domain}".lower()
        return User(address, f"/home/{address}", "maildir:x") if address in self.addresses else None

    def has_domain(self, domain: str) -> bool:
        return any(address.endswith(f"@{domain}") for address in self.addresses)

    def all(self) -> Iterator[User]:
        return (User(address, "/", "maildir:x") for address in self.addresses)

    def __str__(self) -> str:
        return "known users"


def aliases(text: str, kind: str = "aliases", path: str = "/etc/aliases") -> Table[AliasTable]:
    """The table of a text."""
    return Table.fixed(parse_table(kind, text.encode(), path))


def virtual(text: str) -> Table[AliasTable]:
    return aliases(text, "virtual", "/etc/virtual")


def regexp(text: str) -> Table[AliasTable]:
    return aliases(text, "regexp", "/etc/regexp")


def router(
    *tables: Table[AliasTable],
    users: Known | None = None,
    lists: dict[str, str] | None = None,
    **more: str,
) -> Router:
    """A router for ann, bob and carl @example.org."""
    known = users or Known("ann@example.org", "bob@example.org", "carl@example.org")

    def members(path: str) -> Sequence[Target]:
        if path not in (lists or {}):
            raise TempFail(INTERNAL, f"{path}: No such file or directory")
        return parse_members((lists or {})[path].encode(), path, False)

    return Router(Tables((known,), tables, members), "mx.example.org", **more)


def way(made: Router, recipient: str) -> list[str]:
    """The destinations of a recipient as words."""
    if "@" not in recipient:
        recipient += "@example.org"
    return [
        " ".join(filter(None, (d.kind, d.name, d.sender and f"from {d.sender}")))
        if d.status is None
        else f"{d.status} ({d.why})"
        for d in made.resolve(recipient)
    ]


def steps(made: Router, recipient: str) -> list[Step]:
    found: list[Step] = []
    made.resolve(recipient, found)
    return found
