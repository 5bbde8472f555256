"""IR to closures: one function a node, found in one table.

A compiled statement takes the Run and says how to go on; a compiled test says whether it
holds. Constants are prepared here, once: lists become hash tables, patterns are compiled,
text is folded.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from mdaflow.lang import ir
from mdaflow.lang.check import compile_glob, compile_regex
from mdaflow.lang.source import Span
from mdaflow.lang.subjects import SUBJECTS

from .plan import EvaluationError, Event
from .state import CONTINUE, STOP, Run, Step
from .texts import Pieces, compile_text, folder, length, plain

MAX_SHOWN = 8
"""Values that a trace shows of one subject."""
MAX_STEPS = 1 << 28
"""Instructions of a pattern times bytes of a text that it looks at: RE2 is linear in both."""

LONG = 1 << 16
"""Characters of a text that takes time to search."""


Compiled = Callable[[Run], Step]
Test = Callable[[Run], bool]
Match = Callable[[Run, Sequence[str]], bool]
"""Does one value, given by its alternatives, stand in the relation?"""

Lists = dict[str, tuple[str, ...]]


def compile_block(statements: Iterable[ir.Statement], lists: Lists | None = None) -> Compiled:
    """The statements of a block as one step; lists are known from their declaration on."""
    lists = {} if lists is None else lists
    steps: list[tuple[Span, Compiled]] = []
    for statement in statements:
        if isinstance(statement, ir.Assign) and isinstance(statement.value, ir.Items):
            lists[statement.name] = statement.value.entries
        else:
            steps.append((statement.span, _STATEMENTS[type(statement)](statement, lists)))

    def block(run: Run) -> Step:
        for span, step in steps:
            run.watch(span)
            if how := step(run):
                return how
        return CONTINUE

    return block


# statements


def _branch(node: ir.Branch, lists: Lists) -> Compiled:
    test = compile_test(node.test, lists) if node.test is not None else None
    body, otherwise = compile_block(node.body, lists), compile_block(node.otherwise, lists)
    span, name, text = node.span, node.name, node.text

    def branch(run: Run) -> Step:
        rule, captures, depth = run.rule, run.captures, run.depth
        run.pending = {}
        at = len(run.trace) if run.trace is not None else 0
        run.depth += 1
        held = test is None or test(run)
        if run.trace is not None:
            run.trace.insert(at, Event(depth, "rule", span, text, None, held))
        if held and run.pending:
            run.captures = {**captures, **run.pending}
        run.rule = name or rule
        how = body(run) if held else otherwise(run)
        run.rule, run.captures, run.depth = rule, captures, depth
        return how

    return branch


def _act(node: ir.Act, lists: Lists) -> Compiled:
    operand = compile_text(node.operand) if node.operand is not None else None
    if operand is None:
        return lambda run: run.act(node, "", "")
    if node.verb == "deliver":
        return lambda run: run.act(node, folder(operand(run)), "")
    return lambda run: run.act(node, "", plain(operand(run)))


def _flag(node: ir.Flag, lists: Lists) -> Compiled:
    flags = frozenset(node.flags)
    add = node.operation == "add"

    def flag(run: Run) -> Step:
        run.flags = run.flags | flags if add else _without(run.flags, flags)
        if run.trace is not None:
            run.trace.append(Event(run.depth, "action", node.span, node.text, None, None))
        return CONTINUE

    return flag


def _without(flags: frozenset[str], gone: frozenset[str]) -> frozenset[str]:
    lower = {flag.lower() for flag in gone}
    return frozenset(flag for flag in flags if flag.lower() not in lower)


def _assign(node: ir.Assign, lists: Lists) -> Compiled:
    assert isinstance(node.value, ir.Text)
    name, get = node.name, compile_text(node.value)

    def assign(run: Run) -> Step:
        run.texts_left += length(run.variables.get(name, ()))
        run.variables[name] = get(run)
        run.texts_left -= length(run.variables[name])
        if run.texts_left < 0:
            raise EvaluationError(node.span, "the variables are too large together")
        return CONTINUE

    return assign


def _stop(node: ir.Stop, lists: Lists) -> Compiled:
    def stop(run: Run) -> Step:
        if run.trace is not None:
            run.trace.append(Event(run.depth, "action", node.span, node.text, None, None))
        return STOP

    return stop


_STATEMENTS: dict[type, Callable[[Any, Lists], Compiled]] = {
    ir.Branch: _branch,
    ir.Act: _act,
    ir.Flag: _flag,
    ir.Assign: _assign,
    ir.Stop: _stop,
}


# tests


def compile_test(node: ir.Test, lists: Lists) -> Test:
    """A test as a function."""
    if isinstance(node, ir.Constant):
        value = node.value
        return lambda run: value
    if isinstance(node, ir.Compare):
        return _compare(node, lists)
    tests = [compile_test(inner, lists) for inner in node.tests]
    if node.word == "not":
        # written as one comparison, `is not`, it is shown as one
        return _not(tests[0], whole=node.tests[0].span == node.span)
    return _and(tests) if node.word == "and" else _or(tests)


def _and(tests: list[Test]) -> Test:
    return lambda run: all(test(run) for test in tests)


def _or(tests: list[Test]) -> Test:
    return lambda run: any(test(run) for test in tests)


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
    subject, every, span = node.subject, node.every, node.span
    matches = None if node.relation == "exists" else _match(node, lists)

    def compare(run: Run) -> bool:
        found = run.values(subject)
        run.watch(span)
        if not found:
            held = False
        elif matches is None:
            held = True
        elif every:
            held = all(matches(run, value) for value in run.watched(span, found))
        else:
            held = any(matches(run, value) for value in run.watched(span, found))
        if run.trace is not None:
            _trace(run, node, found, held)
        return held

    return compare


def _trace(run: Run, node: ir.Compare, found: Any, held: bool) -> None:
    shown: tuple[str, ...] = ("unknown",)
    if found is not None:
        shown = tuple(_shown(value) for value in found[:MAX_SHOWN])
    assert run.trace is not None
    run.trace.append(Event(run.depth, "test", node.span, node.text, shown, held))


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if value.is_integer() else f"{value:g}"
    text = " ".join(reversed(value)) if len(value) == 1 else f"{value[1]} <{value[0]}>"
    text = "".join(c if c.isprintable() else " " for c in text[:200])
    return text if len(text) <= 100 else f"{text[:99]}…"


def _match(node: ir.Compare, lists: Lists) -> Match:
    """How one value is matched with the operands."""
    if node.relation in _NUMBERS or any(isinstance(o, ir.Number) for o in node.operands):
        return _number_match(node)
    entries: list[Callable[[Run, Sequence[str]], bool]] = []
    if node.relation == "in":
        return _membership(node, lists)
    for operand in node.operands:
        if isinstance(operand, ir.Items):
            entries += [_literal_match(node, entry) for entry in _entries(operand, lists)]
        elif isinstance(operand, ir.Pattern):
            flags = operand.flags + "c" * node.exact
            entries.append(_search(node.span, compile_regex(operand.source, flags)))
        elif isinstance(operand, ir.Text):
            entries.append(_text_match(node, operand))
    if len(entries) == 1:
        return entries[0]
    joined, span = all if node.all else any, node.span
    return lambda run, value: joined(e(run, value) for e in run.watched(span, entries))


def _entries(items: ir.Items, lists: Lists) -> tuple[str, ...]:
    return lists[items.name] if items.name else items.entries


# texts

_STRINGS: dict[str, Callable[[str, str], bool]] = {
    "is": str.__eq__,
    "contains": str.__contains__,
    "starts": str.startswith,
    "ends": str.endswith,
}


def _text_match(node: ir.Compare, text: ir.Text) -> Match:
    """Matching with a string, which may have holes."""
    if text.literal is not None:
        return _literal_match(node, text.literal)
    get = _glob_text(text) if node.relation == "glob" else compile_text(text)
    return lambda run, value: _literal_match(node, plain(get(run)))(run, value)


def _glob_text(text: ir.Text) -> Callable[[Run], Pieces]:
    """A glob with holes: only what was written makes wildcards, what is put in is literal."""
    parts = [(isinstance(p, str), compile_text(ir.Text(text.span, (p,)))) for p in text.parts]

    def get(run: Run) -> Pieces:
        whole = [(written, plain(part(run))) for written, part in parts]
        return tuple((t if written else _WILD.sub(r"\\\g<0>", t), True) for written, t in whole)

    return get


_WILD = re.compile(r"[\\*?]")


def _literal_match(node: ir.Compare, wanted: str) -> Match:
    if node.relation == "glob":
        try:
            return _search(node.span, compile_glob(wanted, node.exact))
        except ValueError:  # only what was put in can have made it so large
            raise EvaluationError(node.span, "the pattern is too large") from None
    holds = _STRINGS[node.relation]
    whole = node.relation == "is"  # `is` is about the address, not about the display name
    if node.exact:
        if whole:
            return lambda run, value: value[0] == wanted
        return lambda run, value: any(holds(v, wanted) for v in value)
    wanted = wanted.casefold()
    if whole:
        return lambda run, value: run.fold(value[0]) == wanted
    return lambda run, value: any(holds(run.fold(v), wanted) for v in value)


def _search(span: Span, pattern: Any) -> Match:
    names: tuple[str, ...] = tuple(pattern.groupindex)
    longest = MAX_STEPS // (pattern.programsize * (pattern.groups + 1))

    def search(run: Run, value: Sequence[str]) -> bool:
        for text in value:
            if len(text) > LONG:
                run.watch(span)
            found = pattern.search(text.encode("utf-8", "surrogateescape")[:longest])
            if found:
                groups = [found[0], *found.groups()]
                texts = [(g or b"").decode("utf-8", "replace") for g in groups]
                run.pending = {k: v for k, v in run.pending.items() if not k.isdecimal()}
                run.pending.update(zip(map(str, range(len(texts))), texts, strict=True))
                for name in names:
                    run.pending[name] = texts[pattern.groupindex[name]]
                return True
        return False

    return search


def _membership(node: ir.Compare, lists: Lists) -> Match:
    """`in`: one look-up a value, however long the list is.

    For addresses an entry is an address, `@domain`, `.domain` (its subdomains too) or `word@`.
    """
    fold: Callable[[str], str] = str if node.exact else str.casefold
    operands = [o for o in node.operands if isinstance(o, ir.Items)]
    wanted = {fold(entry) for operand in operands for entry in _entries(operand, lists)}
    if SUBJECTS[node.subject.name].type != "address" or node.subject.part not in ("", "address"):
        return lambda run, value: fold(value[0]) in wanted

    def member(run: Run, value: Sequence[str]) -> bool:
        address = fold(value[0])
        local, at, domain = address.rpartition("@")
        if address in wanted or (at and (f"@{domain}" in wanted or f"{local}@" in wanted)):
            return True
        labels = domain.split(".")[-128:] if at else []
        return any("." + ".".join(labels[i:]) in wanted for i in range(len(labels)))

    return member


# numbers

_NUMBERS: dict[str, Callable[..., bool]] = {
    "=": lambda a, b: a == b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
    "between": lambda a, low, high: low <= a <= high,
}


def _number_match(node: ir.Compare) -> Match:
    holds = _NUMBERS.get(node.relation, _NUMBERS["="])
    wanted = [o.amount for o in node.operands if isinstance(o, ir.Number)]

    def match(run: Run, value: Any) -> bool:
        number = value if isinstance(value, float) else leading_number(value[0])
        return number is not None and holds(number, *wanted)

    return match


def leading_number(text: str) -> float | None:
    """The number that a text starts with; None when it starts with none."""
    found = re.match(r"\s*([+-]?\d{1,18}(?:\.\d{1,18})?)", text, re.ASCII)
    return float(found[1]) if found else None
