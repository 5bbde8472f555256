"""Which tests hold only for what an earlier one held for.

Where a statement is reached, all tests have failed that lead away from there: those of earlier
branches that end the run, and of the branch whose `otherwise` it is in. To compare a test with
them is look-ups (see implied.py), which are counted.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence

from mdaflow.lang import ir
from mdaflow.lang.source import Span

from .about import Key, read_by
from .implied import AFFIXES, implied, said
from .keys import key_of
from .ranges import Range, numbers
from .view import View

MAX_STEPS = 1_000_000
"""Look-ups to compare tests; what comes after them is not compared."""
MAX_JOINED = 64
"""Conditions of several tests with one in common that a test is compared with."""


class Taken:
    """Tests that are known to have failed where a statement is reached, with their places."""

    def __init__(self) -> None:
        self.places: dict[Hashable, Span] = {}
        """Of whole tests, and of what they say of single values."""
        self.lengths: dict[Key, set[int]] = {}
        """Of the texts that start or end a value, or are in one."""
        self.ranges: dict[Key, list[tuple[Range, Span]]] = {}
        self.joined: dict[Hashable, list[tuple[frozenset[Hashable], Span]]] = {}
        """Tests joined by `and`, below the last of them."""

    def add(self, key: Key, place: Span) -> None:
        """What is not so of a value; its first place counts."""
        self.places.setdefault(key, place)
        if len(key) == 4 and key[1] in AFFIXES:
            self.lengths.setdefault(key[:3], set()).add(len(str(key[3])))


class Shadows:
    """Notes what has failed, and finds what follows from it."""

    def __init__(self, view: View) -> None:
        self.view = view
        self.steps = 0

    def fail(self, taken: Taken, test: ir.Test, place: Span) -> None:
        """Note that a test has failed where a statement is reached."""
        key = key_of(self.view, test)
        if key is not None:
            taken.places.setdefault(key, place)
        match test:
            case ir.Join(word="or"):
                for inner in test.tests:
                    self.fail(taken, inner, place)
            case ir.Join(word="and") if key is not None:
                parts = [key_of(self.view, inner) for inner in test.tests]
                taken.joined.setdefault(parts[-1], []).append((frozenset(parts), place))
            case ir.Compare() if key is not None:
                self._fail_values(taken, test, place)

    def _fail_values(self, taken: Taken, test: ir.Compare, place: Span) -> None:
        found = numbers(test)
        if test.every or test.all or (test.relation == "between" and found is None):
            return  # no single comparison has failed
        for subject in read_by(test.subject, wide=True):
            if found is not None:
                taken.ranges.setdefault(subject, []).append((found, place))
            elif test.relation == "exists":
                taken.add((subject, "exists"), place)
            for value in self.view.values(test.operands):
                for key in said(subject, test, value):
                    taken.add(key, place)
                self.steps += 1
                if self.steps > MAX_STEPS:
                    return

    def find(self, tables: Sequence[Taken], test: ir.Test) -> Span | None:
        """Where a test has failed that holds whenever this one does."""
        key = key_of(self.view, test)
        if found := _place(tables, key):
            return found
        match test:
            case ir.Compare() if key is not None:
                each = (self._find_values(tables, s, test) for s in read_by(test.subject))
                return _last(each)
            case ir.Join(word="or"):
                return _last(self.find(tables, inner) for inner in test.tests)
            case ir.Join(word="and"):
                places = (self.find(tables, inner) for inner in test.tests)
                return _first(places) or self._find_joined(tables, test)
        return None

    def _find_joined(self, tables: Sequence[Taken], test: ir.Join) -> Span | None:
        keys = dict.fromkeys(key_of(self.view, inner) for inner in test.tests)
        for table in tables:
            for key in keys:
                for joined, place in table.joined.get(key, ())[:MAX_JOINED]:
                    if joined <= keys.keys():
                        return place
        return None

    def _find_values(self, tables: Sequence[Taken], subject: Key, test: ir.Compare) -> Span | None:
        if missing := _place(tables, (subject, "exists")):
            return missing
        if (found := numbers(test)) is not None:
            return self._find_range(tables, subject, found)
        values = self.view.values(test.operands)
        each = (self._find_value(tables, subject, test, value) for value in values)
        return _first(each) if test.all else _last(each)

    def _find_range(self, tables: Sequence[Taken], subject: Key, found: Range) -> Span | None:
        for table in tables:
            for wider, place in table.ranges.get(subject, ()):
                self.steps += 1
                if self.steps > MAX_STEPS:
                    return None
                if wider.covers(found):
                    return place
        return None

    def _find_value(
        self, tables: Sequence[Taken], subject: Key, test: ir.Compare, value: Hashable
    ) -> Span | None:
        for table in tables:
            for key in implied(subject, test, value, table.lengths):
                self.steps += 1
                if self.steps > MAX_STEPS:
                    return None
                if key in table.places:
                    return table.places[key]
        return None


def _place(tables: Iterable[Taken], key: Hashable) -> Span | None:
    return next((table.places[key] for table in tables if key in table.places), None)


def _first(places: Iterable[Span | None]) -> Span | None:
    return next(filter(None, places), None)


def _last(places: Iterable[Span | None]) -> Span | None:
    """The last of several places; None when one is missing or there is none."""
    last = None
    for place in places:
        if place is None:
            return None
        last = place if last is None else max(last, place)
    return last
