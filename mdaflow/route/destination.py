"""Where the way of a recipient ends, and the steps that led there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from mdaflow.errors import Status

from .users import User

TOO_MANY = Status(451, "4.3.0", "Alias expansion too large, or a loop")
ONLY_BOUNCES = Status(550, "5.7.1", "Only bounces are taken here")


@dataclass(frozen=True, slots=True)
class Destination:
    """Where a message ends, as far as routing can tell."""

    kind: str
    """`user`, `address`, `relay`, `program`, `file`, `nothing` or `refused`; `unknown` where nobody
    has looked to the end."""
    name: str
    """The address, with its detail; a command, a path; empty for nothing."""
    user: User | None = None
    """Of `user`: whose mailbox and rules these are."""
    sender: str | None = None
    """Who is told what goes wrong, instead of the sender: the owner of a list."""
    status: Status | None = None
    """Of `refused`: the reply."""
    why: str = ""
    """Of `refused`: the cause, for our log."""
    where: str = ""
    """File and line that named it; empty for the recipient itself."""

    @property
    def key(self) -> str:
        """What makes it one destination, however it was reached."""
        if self.user is not None:  # by whatever spelling
            return f"user {self.name.lower()}"
        if self.kind not in ("address", "relay"):
            return f"{self.kind} {self.name}"
        local, at, domain = self.name.rpartition("@")
        return f"{self.kind} {local}{at}{domain.lower()}"

    def __str__(self) -> str:
        if self.status is not None:
            return str(self.status)
        return f"{_SAID.get(self.kind, self.kind)} {self.name}".rstrip()


_SAID = {"address": "sent on to", "relay": "handed on to", "nothing": "dropped"}
"""Kinds of destinations that their own name would not explain."""


class Step(NamedTuple):
    """One thing that was found out on the way, and what was done then."""

    asked: str
    """An address, or who was asked for what."""
    answer: str
    where: str
    """File and line of the answer."""
    below: list[Step]
