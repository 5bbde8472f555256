"""Users in a database (database.py), by the queries of the site.

An address reaches them as bound parameters: `:address`, `:local` and `:domain` in the spelling
that is tried, `:user` and `:detail` as the delimiter divides the local part. A row is a user. Its
columns are told by their names, those of COLUMNS; several rows are a mistake.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from mdaflow.errors import INTERNAL, TempFail
from mdaflow.mail.address import split_local

from .database import Database, Query, Rows
from .users import Make, User, made, plain, spellings

COLUMNS = (
    "address", "home", "mailbox", "quota", "quota_messages", "uid", "gid", "rules", "own",
    "timezone", "spam_required",
)  # fmt: skip
"""What a row may say of a user."""
PARAMETERS = {
    "user": ("address", "local", "domain", "user", "detail"), "domains": ("domain",), "users": (),
}  # fmt: skip
"""The queries: who has an address, a row if a domain is ours, all users; and what each is told."""


class SqlUsers:
    """The users of one database; of `queries` only `user` is needed, see PARAMETERS."""

    def __init__(
        self, database: Database, queries: Mapping[str, Query], make: Make, delimiters: str = "+"
    ) -> None:
        self._database = database
        self._queries = queries
        self._make = make
        self._delimiters = delimiters

    def find(self, address: str) -> User | None:
        """The user that an address belongs to; None when there is none here. Raises TempFail when
        the database cannot tell, or says what cannot be right."""
        parts = plain(address)
        if parts is None:
            return None
        local, domain = parts
        _, detail = split_local(local, self._delimiters)
        for name in dict.fromkeys(spellings(local, self._delimiters)):
            user, _ = split_local(name, self._delimiters)
            asked = f"{name}@{domain}"
            rows = self._users("user", 2, address=asked, local=name, domain=domain, user=user,
                               detail=detail)  # fmt: skip
            if len(rows) > 1:
                raise TempFail(INTERNAL, f"{self}: several rows for {asked}")
            if rows:
                return self._make(asked, rows[0])
        return None

    def by_login(self, login: str) -> User | None:
        """The user whose account is called so: by the address. Raises TempFail."""
        return self.find(login)

    def has_domain(self, domain: str) -> bool:
        """Has the query for domains a row? Without one the answer is no. Raises TempFail."""
        query = self._queries.get("domains")
        return query is not None and bool(self._database.ask(query, {"domain": domain}, 1)[1])

    def all(self) -> Iterator[User]:
        """All users that the query for them has. Raises TempFail."""
        if "users" not in self._queries:
            raise TempFail(INTERNAL, f"{self}: no `users:` query lists them")
        for row in self._users("users"):
            yield from made(self._make, str(row.get("address")), row)

    @property
    def database(self) -> Database:
        """Where they are."""
        return self._database

    def columns(self, name: str) -> tuple[str, ...]:
        """The columns of a query. Raises TempFail when it cannot be asked."""
        query = self._queries[name]
        return tuple(self._database.ask(query, dict.fromkeys(query.parameters, ""), 1)[0])

    def _users(self, name: str, most: int = 0, **told: str) -> Rows:
        columns, rows = self._database.ask(self._queries[name], told, most)
        unknown = [column for column in columns if column not in COLUMNS]
        if unknown:
            raise TempFail(INTERNAL, f"{self}: {name}: unknown column {unknown[0]}")
        return rows

    def __str__(self) -> str:
        return f"sql {self._database}"
