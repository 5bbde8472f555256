"""What is doubtful in the tables of aliases: circles, names of nobody, lines that nothing reaches.

Every name is resolved as if mail had come for it; names without a domain in all domains that are
given. It reads the tables, and the lists and users that they name, and changes nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from mdaflow.errors import UNKNOWN_USER
from mdaflow.mail.targets import words

from .aliases import Alias, AliasTable
from .resolve import Destination, Router, Step

CIRCLE = "a loop, passed over"


class Doubt(NamedTuple):
    """Something doubtful."""

    where: str
    """File and line."""
    text: str


def doubts(router: Router, domains: Sequence[str]) -> Iterator[Doubt]:
    """All that is doubtful, table by table. Raises TempFail when a table cannot be read at all."""
    domains = domains or (router.hostname,)
    earlier: list[AliasTable] = []
    for table in (table.get() for table in router.tables.aliases):
        yield from (Doubt(table.where(line), text) for line, text in table.shadowed)
        for alias in table.all():
            yield from _unreached(alias, earlier)
            yield from _alias(router, alias, domains)
        earlier.append(table)
    if not router.postmaster:
        yield from _postmasters(router, domains)


def _unreached(alias: Alias, earlier: Sequence[AliasTable]) -> Iterator[Doubt]:
    found = (table.find((alias.name,), "") for table in earlier)
    first = next(filter(None, found), None)
    if first is not None and first.name == alias.name:
        yield Doubt(alias.where, f"{alias.name}: {first.where} answers before")


def _alias(router: Router, alias: Alias, domains: Sequence[str]) -> Iterator[Doubt]:
    for target in alias.targets:
        if target.kind in _LOOKS:
            yield from (Doubt(alias.where, text) for text in _LOOKS[target.kind](target.value))
    recipients = _recipients(alias, domains)
    if not recipients:
        return
    ways = [_resolved(router, recipient) for recipient in recipients]
    if any(map(_has_circle, (steps for _, steps in ways))):
        yield Doubt(alias.where, f"{alias.name}: in a circle, which is passed over")
    for name, why in _refused_everywhere([found for found, _ in ways], alias):
        yield Doubt(alias.where, f"{alias.name}: {name}: {why}")


def _recipients(alias: Alias, domains: Sequence[str]) -> list[str]:
    """The addresses by which an alias can be met; none of an expression, which may be many."""
    name = alias.name
    if name.startswith(("/", "@")):
        return []
    return [name] if "@" in name else [f"{_quoted(name)}@{domain}" for domain in domains]


def _quoted(name: str) -> str:
    return name if name.replace(".", "").replace("-", "").isalnum() else f'"{name}"'


def _resolved(router: Router, recipient: str) -> tuple[Sequence[Destination], list[Step]]:
    steps: list[Step] = []
    return router.resolve(recipient, steps), steps


def _has_circle(steps: Sequence[Step]) -> bool:
    waiting = list(steps)
    while waiting:
        step = waiting.pop()
        if step.answer == CIRCLE:
            return True
        waiting += step.below
    return False


def _refused_everywhere(
    ways: Sequence[Sequence[Destination]], alias: Alias
) -> Iterator[tuple[str, str]]:
    """What this alias names, and nobody can have mail for, whatever the domain."""
    texts = {target.value for target in alias.targets if target.kind in ("fail", "defer")}
    refused = [
        {_local(d.name): d for d in found if d.status is not None and d.where == alias.where}
        for found in ways
    ]
    for name, d in refused[0].items():
        if all(name in other for other in refused) and not texts:
            unknown = d.status is not None and d.status == UNKNOWN_USER
            yield d.name if len(ways) == 1 else name, "nobody has this name" if unknown else d.why


def _local(address: str) -> str:
    return address.rpartition("@")[0] or address


def _postmasters(router: Router, domains: Sequence[str]) -> Iterator[Doubt]:
    for domain in domains:
        [first, *_] = router.resolve(f"postmaster@{domain}")
        if first.status is not None and first.status == UNKNOWN_USER:
            text = f"postmaster@{domain} is nobody (RFC 5321 section 4.5.1): set `postmaster:`"
            yield Doubt("configuration", text)


def _no_program(command: str) -> Iterator[str]:
    program = words(command)[0]
    if program.startswith("/") and not os.access(program, os.X_OK):
        yield f"{program} is no program that can be run"


def _no_folder(path: str) -> Iterator[str]:
    folder = os.path.dirname(path.rstrip("/"))
    if not os.path.isdir(folder):
        yield f"{path}: there is no folder {folder}"


_LOOKS = {"program": _no_program, "file": _no_folder}
"""What can be said of a target without mail."""
