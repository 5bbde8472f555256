"""What is doubtful in the tables of aliases: circles, names of nobody, lines that nothing reaches.

Every name is resolved as if mail had come for it; one without a domain in each domain, until it is
good in one. It reads the tables, and the lists and users that they name, and changes nothing.

Known limits: nobody can tell what comes to an expression, so what it stands for is not looked at.
Programs are looked for by absolute paths only, in the line of a shell the first.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from mdaflow.errors import UNKNOWN_USER, TempFail
from mdaflow.mail.targets import words

from .aliases import Alias, AliasTable, keys_of
from .destination import Destination, Step
from .resolve import CIRCLE, Router

ANYBODY = "a-name-that-nobody-has"
"""Whoever comes to a catch-all."""
_PLAIN = re.compile(r"[\w+=-]+(?:\.[\w+=-]+)*")
_SPECIAL = re.compile(r'(["\\])')


class Doubt(NamedTuple):
    """Something doubtful."""

    where: str
    """File and line."""
    text: str


def doubts(router: Router, domains: Sequence[str]) -> Iterator[Doubt]:
    """All that is doubtful, table by table, each once.

    Raises ConfigError with what is wrong in a table, TempFail when users cannot be told.
    """
    domains = domains or (router.hostname,)
    tables = [table.load() for table in router.tables.aliases]
    [first, *_] = router.resolve(f"{ANYBODY}@{domains[0]}")
    if first.status is not None and first.status.temporary and not first.where:
        raise TempFail(first.status, first.why)
    told: set[Doubt] = set()
    for doubt in _all(router, tables, domains):
        if doubt not in told:
            told.add(doubt)
            yield doubt


def _all(router: Router, tables: Sequence[AliasTable], domains: Sequence[str]) -> Iterator[Doubt]:
    for number, table in enumerate(tables):
        yield from (Doubt(table.where(line), text) for line, text in table.shadowed)
        for alias in table.all():
            if alias.name[:1] != "/":
                yield from _unreached(router, alias, tables[:number])
                yield from _looks(alias)
                yield from _ways(router, alias, domains)
    yield from _postmasters(router, domains)


def _unreached(router: Router, alias: Alias, earlier: Sequence[AliasTable]) -> Iterator[Doubt]:
    """Does another table answer for it?"""
    local, at, domain = alias.name.rpartition("@") if "@" in alias.name else (alias.name, "", "")
    keys: tuple[str, ...] = (alias.name,)
    if local:
        ours = not at or router.has_domain(domain)
        keys = keys_of(_quoted(local), domain, router.delimiters, ours=ours)
    address = alias.name if local and at else ""
    found = next(filter(None, (table.find(keys, address) for table in earlier)), None)
    if found is not None:
        yield Doubt(alias.where, f"{alias.name}: {found.name} answers before ({found.where})")


# --- what it stands for ------------------------------------------------------------------------


def _ways(router: Router, alias: Alias, domains: Sequence[str]) -> Iterator[Doubt]:
    """Circles, and what it names though nobody can have mail for it, whatever the domain."""
    left: dict[str, Doubt] | None = None
    for recipient in _recipients(alias, domains):
        steps: list[Step] = []
        found = router.resolve(recipient, steps)
        met = list(_flat(steps))
        if any(s.answer == CIRCLE and (s.asked, s.where) == (alias.name, alias.where) for s in met):
            yield Doubt(alias.where, f"{alias.name}: in a circle, which is passed over")
        lists = {step.where for step in met if step.asked.startswith(":include:")}
        refused = dict(_refused(alias, found, lists))
        left = {n: doubt for n, doubt in (left or refused).items() if n in refused}
        if not left:
            return
    yield from (left or {}).values()


def _recipients(alias: Alias, domains: Sequence[str]) -> Iterator[str]:
    """The addresses by which an alias can be met."""
    local, at, domain = alias.name.rpartition("@")
    if at:
        yield f"{_quoted(local or ANYBODY)}@{domain}"
    else:
        yield from (f"{_quoted(alias.name)}@{domain}" for domain in domains)


def _quoted(local: str) -> str:
    return local if _PLAIN.fullmatch(local) else '"{}"'.format(_SPECIAL.sub(r"\\\1", local))


def _flat(steps: Sequence[Step]) -> Iterator[Step]:
    waiting = list(steps)
    while waiting:
        step = waiting.pop()
        yield step
        waiting += step.below


def _refused(
    alias: Alias, found: Sequence[Destination], lists: set[str]
) -> Iterator[tuple[str, Doubt]]:
    """What the alias itself names, or a list in it, and is refused though the site does not say so;
    by the name as it is written in the alias."""
    said = {word for target in alias.targets for word in (target.value, str(target))}
    for d in found:
        name = d.name if d.name in said else d.name.rpartition("@")[0] or d.name
        if d.status is None or d.why in said or name == ANYBODY:
            continue
        why = "nobody has this name" if d.status == UNKNOWN_USER else d.why
        if d.where == alias.where:
            text = why if why.startswith(name) else f"{name}: {why}"
            yield name, Doubt(d.where, f"{alias.name}: {text}")
        elif d.where in lists:
            yield name, Doubt(d.where, f"{d.name}: {why}")


def _postmasters(router: Router, domains: Sequence[str]) -> Iterator[Doubt]:
    for domain in domains:
        found = router.resolve(f"postmaster@{domain}")
        if all(d.status is not None for d in found):
            wanted = "" if router.postmaster else "; set `postmaster:`"
            why = f"{found[0].name}: {found[0].why}{wanted}"
            text = f"nobody is postmaster@{domain} (RFC 5321 section 4.5.1): {why}"
            yield Doubt("configuration", text)


# --- what can be said of a target without mail -------------------------------------------------


def _looks(alias: Alias) -> Iterator[Doubt]:
    for target in alias.targets:
        if target.kind in _LOOKS:
            yield from (Doubt(alias.where, text) for text in _LOOKS[target.kind](target.value))


def _no_program(command: str) -> Iterator[str]:
    program, *shell = words(command)
    if shell[:1] == ["-c"]:
        program = command.split()[0]
    if program.startswith("/") and not (os.path.isfile(program) and os.access(program, os.X_OK)):
        yield f"{program} is no program that can be run"


def _no_folder(path: str) -> Iterator[str]:
    folder = os.path.dirname(path.rstrip("/"))
    if not os.path.isdir(folder):
        yield f"{path}: there is no folder {folder}"


_LOOKS = {"program": _no_program, "file": _no_folder}
