"""Conditions that always go one way, or do not say what was meant."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence

from mdaflow.lang import ir
from mdaflow.lang.source import Problem, Span
from mdaflow.lang.subjects import type_of

from .about import is_address, read_by, shown
from .implied import AFFIXES
from .keys import contrary, key_of
from .ranges import Range, bounds, moments, numbers
from .view import View, walk

_ONCE = {
    "from", "sender", "subject", "list_id", "message_id", "size", "lines", "date", "received",
    "envelope.from", "envelope.to", "envelope.original", "client.ip", "client.name",
    "client.helo", "spam.score", "spam.bayes",
}  # fmt: skip
"""Subjects with one value: no rule is written for a second From or Subject."""
_DECIDED = {"and": "contradiction", "or": "always-other"}


def amounts(view: View) -> Iterator[Problem]:
    """`empty-range`, `out-of-range`, `always`: tests of numbers or dates that go one way."""
    for test in view.all(ir.Compare):
        found, limits = numbers(test) or moments(test), bounds(test)
        if found is None:
            continue
        if found.empty and test.relation == "between":
            yield Problem.of(test.span, "empty-range")
        elif limits and found.meet(limits).empty:
            subject = shown(test.subject)
            yield Problem.of(test.span, "out-of-range", subject=subject, range=limits)
        elif limits and found.covers(limits):
            yield _always(test.span, shown(test.subject))


def empty_texts(view: View) -> Iterator[Problem]:
    """`always`: every text contains the empty one, and begins and ends with it."""
    for test in view.all(ir.Compare):
        for operand in test.operands if test.relation in AFFIXES and not test.all else ():
            if "" in view.values((operand,)):
                yield _always(operand.span, shown(test.subject))


def parts_exist(view: View) -> Iterator[Problem]:
    """`always`: each address has a name and a detail, though it may be empty."""
    for test in view.all(ir.Compare):
        name, part = test.subject.name, test.subject.part
        is_part = part in ("name", "detail") and type_of(name, "") == "address"
        if is_part and test.relation == "exists":
            subject = shown(test.subject)
            yield _always(test.span, subject, f'{subject} is not ""')


def _always(span: Span, subject: str, instead: str = "") -> Problem:
    instead = instead or f"{subject} exists"
    return Problem.of(span, "always", subject=subject, instead=instead)


def no_entries(view: View) -> Iterator[Problem]:
    """A test with a list that is written as an empty one."""
    for test in view.all(ir.Compare):
        for operand in test.operands:
            if isinstance(operand, ir.Items) and operand == ir.Items(operand.span):
                yield Problem.of(operand.span, "no-entries")


def joined(view: View) -> Iterator[Problem]:
    """`contrary`, `contradiction`, `always-other`: tests that decide the condition together."""
    inside = {id(node) for some in view.all(ir.Some) for node in walk(some.test)}
    for join in view.all(ir.Join):
        if join.word == "not":
            continue
        known = {key for test in join.tests if (key := key_of(view, test)) is not None}
        if any(contrary(key) in known for key in known):
            value = "true" if join.word == "or" else "false"
            yield Problem.of(join.span, "contrary", word=join.word, value=value)
        elif last := _never_at_once(view, _together(join), id(join) in inside):
            yield Problem.of(last.span, _DECIDED[join.word], subject=shown(last.subject))


def _together(join: ir.Join) -> Sequence[ir.Test]:
    """The tests that decide it if they cannot hold at once: for `or`, those that it refuses."""
    if join.word == "and":
        return join.tests
    return [t.tests[0] for t in join.tests if isinstance(t, ir.Join) and t.word == "not"]


def _never_at_once(view: View, tests: Iterable[ir.Test], in_where: bool) -> ir.Compare | None:
    """The first test that cannot hold with those before it, as their subject has one value."""
    ranges: dict[Hashable, Range] = {}
    texts: dict[Hashable, set[str]] = {}
    for test in tests:
        if not isinstance(test, ir.Compare) or not _has_one(test, in_where):
            continue
        subject = tuple(read_by(test.subject))
        found = numbers(test) or moments(test)
        if found and not found.empty:
            ranges[subject] = ranges.get(subject, found).meet(found)
            if ranges[subject].empty:
                return test
        elif not found and (said := _texts(view, test)):
            texts[subject] = texts.get(subject, said) & said
            if not texts[subject]:
                return test
    return None


def _has_one(test: ir.Compare, in_where: bool) -> bool:
    """The subject has one value, which is any of what it is compared with."""
    subject = test.subject
    if test.every or test.all or subject.part == "inner":
        return False
    of_one = in_where and subject.name == "attachment"
    return of_one or subject.name in _ONCE or subject.part == "count"


def _texts(view: View, test: ir.Compare) -> set[str]:
    """The texts one of which the value is, folded; none for another test."""
    if test.relation != "is" and (test.relation != "in" or is_address(test.subject)):
        return set()
    values = list(view.values(test.operands))
    texts = {value.casefold() for value in values if isinstance(value, str)}
    return texts if all(isinstance(value, str) for value in values) else set()
