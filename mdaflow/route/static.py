"""Domains in which every local part is a user: a catch-all.

An address without its detail and in lower case is the user; where the mail is say the templates of
the source alone. Who has a home already can be listed, nobody else.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass

from mdaflow.errors import INTERNAL, TempFail
from mdaflow.mail.address import split_local

from .users import Make, User, folders, plain


@dataclass(frozen=True, slots=True)
class StaticUsers:
    """Everybody in some domains."""

    domains: tuple[str, ...]
    """In lower case."""
    home: str
    """The template of their homes: `%u` is the address, `%n` its local part, `%d` its domain."""
    make: Make
    delimiters: str = "+"

    def find(self, address: str) -> User | None:
        """The user that an address belongs to; None in other domains, and for what is no plain
        name. Raises TempFail for what cannot be right."""
        parts = plain(address)
        if parts is None or parts[1] not in self.domains:
            return None
        local, domain = parts
        user, _ = split_local(local.lower(), self.delimiters)
        return self.make(f"{user}@{domain}", {})

    def by_login(self, login: str) -> User | None:
        """The user whose account is called so: by the address. Raises TempFail."""
        return self.find(login)

    def has_domain(self, domain: str) -> bool:
        """Is it one of these?"""
        return domain in self.domains

    def all(self) -> Iterator[User]:
        """Who has a home already. Raises TempFail."""
        for domain in self.domains:
            for name in _names(self.home, domain):
                user = self.find(f"{name}@{domain}")
                if user is not None and os.path.isdir(user.home):
                    yield user

    def __str__(self) -> str:
        return f"static {', '.join(self.domains)}"


def _names(template: str, domain: str) -> Iterator[str]:
    """The local parts that have a folder where a template says; one of all, where it names none."""
    path = template.replace("%u", "%n@%d").replace("%d", domain)
    if "%n" not in path:
        yield "postmaster"
        return
    parts = path.split("/")
    at = next(number for number, part in enumerate(parts) if "%n" in part)
    before, behind = (re.escape(text) for text in parts[at].split("%n", 1))
    parent = "/".join(parts[:at]) or "/"
    if "%n" in behind:
        raise TempFail(INTERNAL, f"{template}: who has a home cannot be listed")
    if os.path.isdir(parent):
        for folder in folders(parent):
            if match := re.fullmatch(f"{before}(.+){behind}", folder):
                yield match[1]
