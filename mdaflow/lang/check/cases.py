"""Test blocks: are the facts of their kind, and the rules those of the program?"""

from __future__ import annotations

from mdaflow.lang import ir
from mdaflow.lang.source import near
from mdaflow.lang.subjects import TYPES, split, type_of

from .names import check_literal, is_subject
from .scope import Scope
from .times import TIMES, is_time
from .values import check_flags

MAX_SHOWN = 40
"""Characters of a value that are shown."""
_FORMS = {
    "address": '"ann@example.org"',
    "text": '"…"',
    "number": "5, 2.5 or 10K",
    "truth": "true or false",
    "moment": '"2026-12-31" or "2026-12-31 22:00"',
    "day": '"2026-12-31"',
    "clock": '"22:00"',
}
"""How values of a type are written."""


def check_case(scope: Scope, case: ir.Case) -> None:
    """Judge a test block, when all rules are known."""
    for given in case.given:
        _given(scope, given)
    for expected in case.expected:
        if expected.rule and expected.rule not in scope.rules:
            hint = near(expected.rule, scope.rules)
            scope.problem(expected.span, "unknown-rule", name=expected.rule, hint=hint)
        if expected.act is not None:
            for text in expected.act.operands:
                check_literal(scope, text)
            check_flags(scope, expected.act.span, expected.act.flags)


def _given(scope: Scope, given: ir.Given) -> None:
    name, part = split(given.name)
    if name in ir.QUESTIONS:
        kind = "truth"
    elif not is_subject(scope, given.span, name, part, (given.argument,) * bool(given.argument)):
        return
    else:
        kind = type_of(name, part)
    for value in given.values:
        if not _is_of(kind, value):
            shown = {"value": _shown(value), "form": _FORMS[kind]}
            scope.problem(given.span, "given-value", name=given.name, type=TYPES[kind], **shown)


def _shown(value: str | float | bool) -> str:
    """A value as it is written, or its beginning."""
    if isinstance(value, str):
        return f'"{value}"' if len(value) <= MAX_SHOWN else f'"{value[:MAX_SHOWN]}…"'
    return str(value).lower() if isinstance(value, bool) else f"{value:g}"


def _is_of(kind: str, value: str | float | bool) -> bool:
    if kind in TIMES:
        return isinstance(value, str) and is_time(kind, value)
    wanted = {"truth": bool, "number": float}.get(kind, str)
    return isinstance(value, wanted)
