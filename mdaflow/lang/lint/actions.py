"""Actions that do nothing, or not what was meant."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise

from mdaflow.lang import ir
from mdaflow.lang.source import Problem, Span

from .view import View, where

_STORING = ("deliver", "keep")
_SYSTEM_FLAGS = {flag[1:].lower(): flag[1:] for flag in ir.FLAGS}


def flag_backslash(view: View) -> Iterator[Problem]:
    """The name of a system flag without its backslash."""
    nodes: Iterator[ir.Act | ir.Flag] = view.all(ir.Act, ir.Flag)
    for node in nodes:
        for flag in node.flags:
            if known := _SYSTEM_FLAGS.get(flag.lower()):
                yield Problem.of(node.span, "flag-backslash", flag=known)


def program_words(view: View) -> Iterator[Problem]:
    """A command line where the name of a program stands."""
    nodes: Iterator[ir.Act | ir.Filter | ir.Question] = view.all(ir.Act, ir.Filter, ir.Question)
    for node in nodes:
        for text in _program(node)[:1]:
            if " " in (text.literal or "").strip():
                yield Problem.of(text.span, "program-words")


def _program(node: ir.Act | ir.Filter | ir.Question) -> tuple[ir.Text, ...]:
    """A program and its arguments; nothing of a node that runs none."""
    match node:
        case ir.Question(name="command", arguments=texts):
            return texts
        case ir.Filter(operands=texts) | ir.Act(verb="pipe", operands=texts):
            return texts
    return ()


def flag_undone(view: View) -> Iterator[Problem]:
    """A flag that is set, and taken away by the next statement."""
    for first, second in _pairs(view):
        if isinstance(first, ir.Flag) and isinstance(second, ir.Flag):
            both = {f.lower() for f in first.flags} & {f.lower() for f in second.flags}
            if both and (first.operation, second.operation) == ("add", "remove"):
                at = where(first.span, second.span)
                yield Problem.of(second.span, "flag-undone", flag=min(both), where=at)


def copy_again(view: View) -> Iterator[Problem]:
    """A copy, and then the same as the final action."""
    for first, second in _pairs(view):
        if isinstance(first, ir.Act) and isinstance(second, ir.Act):
            plain = first.verb in _STORING and not (first.ends or first.flags or first.options)
            if plain and second.ends and _stored(first) == _stored(second):
                yield Problem.of(first.span, "copy-again")


def _pairs(view: View) -> Iterator[tuple[ir.Statement, ir.Statement]]:
    """Statements, one directly after the other."""
    for block in view.blocks():
        yield from pairwise(block)


def _stored(act: ir.Act) -> object:
    """Equal for actions that store in the same place."""
    places = [[p[1:] if isinstance(p, ir.Hole) else p for p in text.parts] for text in act.operands]
    return act.verb, places


def reject_after_copy(view: View) -> Iterator[Problem]:
    """A reject behind a copy: the run would end in an error."""
    yield from _rejects(view.program.body, None)


def _rejects(block: Iterable[ir.Statement], copied: Span | None) -> Iterator[Problem]:
    for statement in block:
        match statement:
            case ir.Branch():
                yield from _rejects(statement.body, copied)
                yield from _rejects(statement.otherwise, copied)
            case ir.Act(verb="reject") if copied:
                at = where(copied, statement.span)
                yield Problem.of(statement.span, "reject-after-copy", where=at)
            case ir.Act(verb=verb, ends=False) if verb in _STORING:
                copied = statement.span
