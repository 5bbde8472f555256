"""Which rules of a block can hold, looked up for all of them at once.

For each rule a *trigger* is derived from its condition, if there is one: texts of which some
must be found in a subject of the message for the condition to hold. The triggers of all rules
are looked up together (see triggers.py and lookup.py, which small files do not pay for). Only
rules whose trigger is found are tried, in their order, and by the same functions as ever. So
what is looked up may say too much, never too little: 5,000 rules cost about what 50 do, and
they decide the same.

A rule is passed over only if trying it could do nothing but say no. A subject is read
when a run comes to the first rule that may need it, and looked up anew when a rule has changed
the message. A traced run tries every rule, because it shows them.

Known limits: a rule is always tried when its condition has no trigger (a negation, a number, an
expression that can do without three letters in a row), when few others ask for the same
subject, and when the text is longer than `MAX_LOOKED`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from operator import attrgetter
from threading import Lock
from typing import TYPE_CHECKING, Any

from mdaflow.lang import ir
from mdaflow.lang.source import Span

from .match import Lists
from .state import Run, Step

if TYPE_CHECKING:
    from .lookup import Look

ENABLED = True
"""Else every rule is tried."""
MIN_RULES = 8
"""Rules of a block from which on they are looked up."""
MIN_SHARED = 4
"""Rules that need the same subject, from which on it is looked up for them."""

Lookable = tuple[Span, Callable[[Run], Step]]
Choose = Callable[[Run], Iterable[Lookable]]
"""The steps of a block that a run has to take, in their order."""


def compile_choice(
    steps: Sequence[Lookable], statements: Sequence[tuple[ir.Statement, Lists]]
) -> Choose:
    """How a run chooses from the steps of a block, made of these statements, each with the lists
    that are known at its place."""
    tests = {
        at: (node.test, lists)
        for at, (node, lists) in enumerate(statements)
        if isinstance(node, ir.Branch) and node.test is not None and not node.otherwise
    }
    if len(tests) < MIN_RULES:
        return lambda run: steps
    return _Index(steps, tests).choose


class _Index:
    """The steps of a block, by what must be found for them. Several threads may share it."""

    def __init__(
        self, steps: Sequence[Lookable], tests: Mapping[int, tuple[ir.Test, Lists]]
    ) -> None:
        self.steps = steps
        self.source: Mapping[int, tuple[ir.Test, Lists]] | None = tests
        """What the look-ups are made of when a run first needs them."""
        self.lock = Lock()
        self.always: list[int] = []
        """The numbers of the steps that are always taken."""
        self.looks: list[Look] = []

    def choose(self, run: Run) -> Iterable[Lookable]:
        """The steps that a run has to take, in their order."""
        if run.trace is not None or not ENABLED:
            return self.steps
        with self.lock:
            if self.source is not None:
                self.build(self.source)
                self.source = None
        return map(self.steps.__getitem__, self.candidates(run)) if self.looks else self.steps

    def build(self, tests: Mapping[int, tuple[ir.Test, Lists]]) -> None:
        """Choose a trigger for each rule, and gather them by subject."""
        from .lookup import Look
        from .triggers import cost, triggers

        known = {at: found for at, test in tests.items() if (found := triggers(*test)[0])}
        shared = Counter(atom for found in known.values() for one in found for atom in one)
        wanted: dict[ir.Subject, dict[Any, list[int]]] = defaultdict(lambda: defaultdict(list))
        for at, found in known.items():
            for atom in min(found, key=lambda one: cost(one, shared)):
                wanted[atom.subject][atom].append(at)
        alone = set[int]()
        for subject, atoms in wanted.items():
            rules = {at for found in atoms.values() for at in found}
            if len(rules) < MIN_SHARED:
                alone |= rules
            else:
                self.looks.append(Look(subject, atoms, sorted(rules), self.steps[min(rules)][0]))
        self.looks.sort(key=attrgetter("first"))
        self.always = [at for at in range(len(self.steps)) if at not in known or at in alone]

    def candidates(self, run: Run) -> Iterator[int]:
        """The numbers of the steps to take."""
        taken, message = -1, None
        while message is not run.context.message:
            message = run.context.message
            for at in self.ahead(run, taken):
                yield at
                taken = at
                if run.context.message is not message:
                    break

    def ahead(self, run: Run, at: int) -> Iterator[int]:
        """The numbers behind `at`, as long as the message is the same."""
        from heapq import heappop, heappush

        found = self.always[bisect_right(self.always, at) :]  # a sorted list is a heap
        looks = [look for look in reversed(self.looks) if look.last > at]
        while found or looks:
            if looks and (not found or looks[-1].first <= found[0]):
                for number in looks.pop().up(run):
                    heappush(found, number)
            elif (number := heappop(found)) > at:  # it may have been found more than once
                at = number
                yield at
