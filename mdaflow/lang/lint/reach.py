"""What a run never comes to: statements behind its end, and tests that never hold there.

The blocks are walked as a run goes through them, with the tests that have failed before.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from typing import NamedTuple

from mdaflow.lang import ir
from mdaflow.lang.source import Problem, Span

from .ranges import bounds, numbers
from .shadows import Shadows, Taken
from .view import View, steps, where

_EVERY_MESSAGE = {"size", "lines", "received", "count"}
"""Subjects and parts that have a value in every message."""

_STORING = {"deliver": 'deliver to "…"', "keep": "keep"}
"""Actions that take flags, and how they are written."""


class _Flow(NamedTuple):
    """What a statement does with those behind it."""

    ends: bool = False
    """None of them is reached."""
    edits: bool = False
    """They see another message."""


_Walk = Generator[Problem, None, _Flow]


def never_reached(view: View) -> Iterator[Problem]:
    """`unreachable`, `flag-late`, `shadowed`: what a run never comes to."""
    yield from _block(view.program.body, (), Shadows(view))


def _block(block: Iterable[ir.Statement], above: tuple[Taken, ...], shadows: Shadows) -> _Walk:
    """Walk statements before which the tests of `above` have failed."""
    taken = (*(table for table in above if table.places), Taken())
    ended: Span | None = None
    last: ir.Statement | None = None
    edits = False
    for statement in steps(block):
        if ended:
            yield _behind_the_end(statement, last, where(ended, statement.span))
            break
        flow = yield from _statement(statement, taken, shadows)
        if flow.ends:
            ended, last = statement.span, statement
        if flow.edits:
            edits, taken = True, (Taken(),)
    return _Flow(ended is not None, edits)


def _behind_the_end(statement: ir.Statement, last: ir.Statement | None, at: str) -> Problem:
    if isinstance(statement, ir.Flag) and isinstance(last, ir.Act) and last.verb in _STORING:
        return Problem.of(statement.span, "flag-late", where=at, text=_STORING[last.verb])
    return Problem.of(statement.span, "unreachable", where=at)


def _statement(statement: ir.Statement, taken: tuple[Taken, ...], shadows: Shadows) -> _Walk:
    match statement:
        case ir.Branch():
            return (yield from _branch(statement, taken, shadows))
        case ir.Act(ends=ends):
            return _Flow(ends=ends)
        case ir.Stop():
            return _Flow(ends=True)
        case ir.Edit() | ir.Filter():
            return _Flow(edits=True)
    return _Flow()


def _branch(branch: ir.Branch, taken: tuple[Taken, ...], shadows: Shadows) -> _Walk:
    test, failed = branch.test, Taken()
    if test is not None and (earlier := shadows.find(taken, test)):
        yield Problem.of(test.span, "shadowed", where=where(earlier, test.span))
    body = yield from _block(branch.body, taken, shadows)
    if branch.otherwise and test is not None:
        shadows.fail(failed, test, branch.span)
    rest = yield from _block(branch.otherwise, (*taken, failed), shadows)
    if body.ends and test is not None:
        shadows.fail(taken[-1], test, branch.span)
    ends = {True: body.ends, False: rest.ends, None: body.ends and rest.ends}[_sure(test)]
    return _Flow(ends, (body.edits and not body.ends) or (rest.edits and not rest.ends))


def _sure(test: ir.Test | None) -> bool | None:
    """What a condition always is; None when that depends on the message."""
    match test:
        case None:
            return True
        case ir.Constant(value=value):
            return value
        case ir.Join(word="not", tests=(inner,)):
            refused = _sure(inner)
            return None if refused is None else not refused
        case ir.Join(word=word):
            found = [_sure(inner) for inner in test.tests]
            decisive = word == "or"
            return decisive if decisive in found else None if None in found else not decisive
        case ir.Compare():
            return _sure_amount(test)
    return None


def _sure_amount(test: ir.Compare) -> bool | None:
    found, limits = numbers(test), bounds(test)
    if found is None or limits is None:
        return None
    if found.meet(limits).empty:
        return False
    always = {test.subject.name, test.subject.part} & _EVERY_MESSAGE
    return True if always and found.covers(limits) else None
