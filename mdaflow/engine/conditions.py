"""Tests of the IR to closures, one function a node, found in one table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from mdaflow.lang import ir

from .context import shown
from .match import Lists, compile_match
from .plan import Event, printable
from .state import Run
from .texts import compile_text, folder, plain

Test = Callable[[Run], bool]
"""A compiled test says whether it holds."""

MAX_SHOWN = 8
"""Values that a trace shows of one subject."""


def compile_test(node: ir.Test, lists: Lists) -> Test:
    """A test as a function."""
    return _TESTS[type(node)](node, lists)


def _constant(node: ir.Constant, lists: Lists) -> Test:
    value = node.value
    return lambda run: value


def _join(node: ir.Join, lists: Lists) -> Test:
    tests = [compile_test(inner, lists) for inner in node.tests]
    if node.word == "not":
        # written as one comparison, `is not`, it is shown as one
        return _not(tests[0], whole=node.tests[0].span == node.span)
    joined = all if node.word == "and" else any
    return lambda run: joined(test(run) for test in tests)


def _not(test: Test, *, whole: bool) -> Test:
    def negated(run: Run) -> bool:
        pending = run.pending
        run.pending = {}  # nothing is bound under `not`
        held = test(run)
        run.pending = pending
        if whole and run.trace is not None:
            run.trace[-1] = run.trace[-1]._replace(result=not held)
        return not held

    return negated


def _compare(node: ir.Compare, lists: Lists) -> Test:
    subject, span = node.subject, node.span
    holds = _holds(node, lists)

    def compare(run: Run) -> bool:
        found = run.values(subject)
        run.watch(span)
        pending = run.pending
        held = bool(found) and holds(run, found)
        if not held:  # some values may have matched, and some operands
            run.pending = pending
        if run.trace is not None:
            _trace(run, node, found, held)
        return held

    return compare


def _holds(node: ir.Compare, lists: Lists) -> Callable[[Run, Sequence[Any]], bool]:
    """Do the values of a subject, of which there are some, stand in the relation?"""
    if node.relation == "exists":
        return lambda run, found: True
    if node.relation == "true":
        return lambda run, found: bool(found[0])
    matches, span = compile_match(node, lists), node.span
    if node.every:
        return lambda run, found: all(matches(run, value) for value in run.watched(span, found))
    return lambda run, found: any(matches(run, value) for value in run.watched(span, found))


def _question(node: ir.Question, lists: Lists) -> Test:
    texts = [compile_text(text) for text in node.arguments]
    literal = node.arguments[0].literal or ""

    def question(run: Run) -> bool:
        if node.name == "folder":
            name = literal or folder(texts[0](run), run.context.settings.separator)
            arguments: tuple[str, ...] = (name,)
        else:
            arguments = tuple(plain(text(run)) for text in texts)
        found = run.ask(node.span, node.name, arguments)
        held = bool(found and found[0])
        if run.trace is not None:
            _trace(run, node, None if found is None else [(a,) for a in arguments], held)
        return held

    return question


def _some(node: ir.Some, lists: Lists) -> Test:
    test, span = compile_test(node.test, lists), node.span
    joined = all if node.every else any

    def some(run: Run) -> bool:
        outside, pending, count = run.item, run.pending, len(run.context.message.attachments)
        at = len(run.trace) if run.trace is not None else 0

        def each(item: int) -> bool:
            run.item = item
            run.pending = dict(pending)
            return test(run)

        run.depth += 1
        held = count > 0 and joined(each(i) for i in run.watched(span, range(count)))
        run.depth -= 1
        run.item = outside
        if not held:
            run.pending = pending
        if run.trace is not None:
            run.trace.insert(at, Event(run.depth, "test", span, node.text, None, held))
        return held

    return some


_TESTS: dict[type, Callable[[Any, Lists], Test]] = {
    ir.Constant: _constant,
    ir.Join: _join,
    ir.Compare: _compare,
    ir.Question: _question,
    ir.Some: _some,
}


def _trace(run: Run, node: ir.Compare | ir.Question, found: Any, held: bool) -> None:
    seen: tuple[str, ...] = ("unknown",)
    if found is not None:
        seen = tuple(_seen(v) for v in found[:MAX_SHOWN] if not isinstance(v, bool))
    assert run.trace is not None
    run.trace.append(Event(run.depth, "test", node.span, node.text, seen, held))


def _seen(value: Any) -> str:
    if isinstance(value, tuple):
        text = value[0] if len(value) == 1 else f"{value[1]} <{value[0]}>"
    elif type(value) is float and value.is_integer():
        text = f"{value:,.0f}"
    else:
        text = shown(value)
    text = printable(text[:200])
    return text if len(text) <= 100 else f"{text[:99]}…"
