"""What is known at a place of a program, and what was found wrong so far."""

from __future__ import annotations

from collections.abc import Collection

from mdaflow.lang import ir
from mdaflow.lang.source import MAX_PROBLEMS, Problem, Span

MAX_ENTRIES = 500_000
"""Entries of the lists of all tests, each list counted as often as it is used."""
MAX_GROUPS = 32
"""Groups of one regular expression: RE2 copies them at each step."""
MAX_INSTRUCTIONS = 500_000
"""Instructions of all patterns of a program; each takes some 100 bytes, and time to search."""

_OF_SITE = "files of the site are checked with --site"
_ADVICE = {
    **dict.fromkeys(
        ("forward", "reply", "notify", "quarantine", "discard", "remember", "log"),
        "the site denies it (rules.deny)",
    ),
    "alias": _OF_SITE,
}
"""Powers that are not granted, and what is done about them."""


class Enough(Exception):
    """More is wrong than anybody reads."""


class Scope:
    """The names of a program as far as it was read, and its problems."""

    def __init__(self, powers: Collection[str], *, rules: bool = True) -> None:
        self.powers = powers
        self._of_rules = rules
        self.problems: list[Problem] = []
        self.instructions = 0
        self.entries = 0
        self.lists: dict[str, ir.Items] = {}
        self.variables: set[str] = set()
        self.scores: set[str] = set()
        self.rules: set[str] = set()
        self.captures: list[set[str]] = []
        """The groups that each of the blocks around this place has bound."""

    def problem(self, span: Span, code: str, /, **values: object) -> None:
        """Something is wrong here. Raises Enough when that is too much."""
        self.problems.append(Problem.of(span, code, **values))
        if len(self.problems) > MAX_PROBLEMS:
            raise Enough

    def power(self, span: Span, power: str, said: str = "") -> bool:
        """May the owner of the program do this? If not, it is a problem."""
        if power not in self.powers:
            granted = f"the site grants it by rules.grant: [{power}]"
            advice = _ADVICE.get(power, f"{granted}; {_OF_SITE}" if self._of_rules else granted)
            self.problem(span, "not-allowed", verb=said or power, advice=advice)
        return power in self.powers
