"""Our own tests of spam: what each is worth, and the sum of what a message has met.

`tests.yaml` says of every test its name, its weight and one line of what it means. A test whose
function is in this package gives how far a message meets it, from 0 to 1; the weight is what it
gives at most. Other names are said by others: lists in the DNS, known spam, what was learned.

What was learned comes as evidence: more than 0 for spam, less for ham. It is made points by a
smooth function, so that it ranks messages, and can never give more than its weight.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from math import isfinite, tanh
from pathlib import Path
from typing import NamedTuple

from mdaflow.mail.envelope import Envelope
from mdaflow.mail.message import Message

from .. import Hit, Report
from .clues import Clues, Site, Tests

log = logging.getLogger("mdaflow")

KNOWN_SENDER = "KNOWN_SENDER"
BAYES = {True: "BAYES_SPAM", False: "BAYES_HAM"}
"""The test that evidence for spam, or for ham, hits."""
CONVINCED = 16.0
"""Evidence above the middle that is worth three quarters of the weight."""
MIDDLE = 1.0
"""Evidence that tells nothing: mail of a kind that was never learned looks a little like spam."""


class Worth(NamedTuple):
    """What a test is worth."""

    weight: float
    about: str
    """One line of what it means."""


Table = Mapping[str, Worth]
Other = Callable[[Message, Envelope, float], Iterable[Hit | str]]
"""Somebody else who tells, within so many seconds, the names of tests of the table; a Hit where
there is more to say: its own score does not count."""
Bayes = Callable[[Message], float | None]
"""The evidence of what was learned; None where too little was."""


class Spam:
    """The scanner. It raises nothing of its own, and looks at no more than clues.py allows."""

    name = "spam"

    def __init__(
        self,
        table: Table,
        our: Site | None = None,
        *,
        bayes: Bayes | None = None,
        others: Sequence[Other] = (),
    ) -> None:
        self._table = table
        self._our = our or Site()
        self._bayes = bayes
        self._others = others

    def scan(self, message: Message, envelope: Envelope, seconds: float) -> Report:
        """The tests that a message meets, those that tell most first."""
        hits = own_hits(message, envelope, self._our, self._table)
        for other in self._others:
            with _neutral():
                hits += _told(other(message, envelope, seconds), self._table)
        if self._bayes:
            with _neutral():
                hits += bayes_hits(self._bayes(message), self._table)
        return Report(hits=_sorted(hits))


@contextmanager
def _neutral() -> Iterator[None]:
    """Who cannot tell says nothing, and the rest of the score stands (P42)."""
    try:
        yield
    except OSError as error:
        log.warning("spam: a test is left out: %s", error)


def own_hits(message: Message, envelope: Envelope, our: Site, table: Table) -> list[Hit]:
    """What the tests of this package find; those with a weight of 0 are not made."""
    clues = Clues(message, envelope, our)
    found = []
    for name, test in own_tests().items():
        weight = table[name].weight if name in table else 0
        degree = float(test(clues)) if weight else 0.0
        if degree > 0:
            found.append(_hit(name, degree, table))
    return found


def bayes_hits(evidence: float | None, table: Table) -> list[Hit]:
    """The hit of what was learned; none where nothing is known."""
    if evidence is None or not isfinite(evidence):
        return []
    degree = tanh((evidence - MIDDLE) / CONVINCED)
    return [_hit(BAYES[degree > 0], abs(degree), table, f"evidence {evidence:+.1f}")]


def for_recipient(
    hits: Sequence[Hit], *, known: bool, evidence: float | None, table: Table
) -> tuple[Hit, ...]:
    """The hits of one recipient: his own evidence, where there is some, instead of the site's,
    and whether he knows the sender."""
    own = bayes_hits(evidence, table)
    kept = [hit for hit in hits if not own or hit.name not in BAYES.values()]
    return _sorted([*kept, *own, *([_hit(KNOWN_SENDER, 1, table)] if known else [])])


def _told(found: Iterable[Hit | str], table: Table) -> list[Hit]:
    told = ((hit.name, hit.why) if isinstance(hit, Hit) else (hit, "") for hit in found)
    return [_hit(name, 1, table, why) for name, why in told if name in table]


def _hit(name: str, degree: float, table: Table, seen: str = "") -> Hit:
    worth = table.get(name, Worth(0, ""))
    return Hit(
        name, round(worth.weight * degree, 2), f"{worth.about}: {seen}" if seen else worth.about
    )


def _sorted(hits: Iterable[Hit]) -> tuple[Hit, ...]:
    return tuple(sorted((h for h in hits if h.score), key=lambda h: (-abs(h.score), h.name)))


@cache
def own_tests() -> Tests:
    """The tests of this package by name."""
    from . import bodies, headers, pages, senders  # a hundred expressions to compile

    return {**senders.TESTS, **headers.TESTS, **bodies.TESTS, **pages.TESTS}


@cache
def default_table() -> bytes:
    """The table as it is shipped, as YAML."""
    return Path(__file__).with_name("tests.yaml").read_bytes()
