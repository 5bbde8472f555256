"""Subjects, variables and what is put into texts: is it known, and has it this part?"""

from __future__ import annotations

import re

from mdaflow.lang import ir
from mdaflow.lang.source import Span, near, one_of
from mdaflow.lang.subjects import SCORE, SUBJECTS, split

from .scope import Scope

FIELD_NAME = re.compile(r"[!-9;-~]+")
_FOREIGN = {
    "list": "; did you mean 'list_id'?",
    "mailing": "; did you mean 'mailing_list'?",
    "virus": "; did you mean 'virus.found'?",
    "auth": "; did you mean 'auth.dkim'?",
    "client": "; did you mean 'client.ip'?",
    "received_date": "; did you mean 'received'?",
    "sent": "; did you mean 'date'?",
    "time": "; did you mean 'received.time'?",
    "attachments": "; did you mean 'attachment'?",
    "recipient": "; did you mean 'envelope.to'?",
}
"""Words that are no subjects, and what was meant."""


def check_text(scope: Scope, text: ir.Text) -> None:
    """Is all known that is put into a text?"""
    for part in text.parts:
        if isinstance(part, ir.Hole):
            _hole(scope, part)


def _hole(scope: Scope, hole: ir.Hole) -> None:
    for name, number in hole.filters:
        if name not in ir.FILTERS:
            scope.problem(hole.span, "unknown-filter", name=name, hint=near(name, ir.FILTERS))
        elif ir.FILTERS[name] != (number > 0):
            code = "filter-number" if ir.FILTERS[name] else "filter-no-number"
            scope.problem(hole.span, code, name=name)
    name, part = split(hole.name)
    if name in SUBJECTS or name == SCORE:
        arguments = (hole.argument,) if hole.argument else ()
        is_subject(scope, hole.span, name, part, arguments, "{{{} X}}")
    elif hole.argument:
        scope.problem(hole.span, "no-argument", name=hole.name)
    elif hole.name.isdecimal():
        if not any(hole.name in bound for bound in scope.captures):
            scope.problem(hole.span, "no-group", name=hole.name)
    elif hole.name not in scope.variables and not any(hole.name in c for c in scope.captures):
        known = {*SUBJECTS, *scope.variables, *(n for c in scope.captures for n in c)}
        scope.problem(hole.span, "unknown-name", name=hole.name, hint=near(hole.name, known))


def check_subject(scope: Scope, subject: ir.Subject) -> bool:
    """Is it a subject that gives values? If not, that is a problem."""
    return is_subject(scope, subject.span, subject.name, subject.part, subject.arguments)


def is_subject(
    scope: Scope, span: Span, name: str, part: str, arguments: tuple[str, ...], like: str = '{} "X"'
) -> bool:
    """Is it a subject that gives values?"""
    if name == SCORE and not part:
        scope.problem(span, "needs-argument", name=name, example="score.x")
        return False
    if name == SCORE:
        if part not in scope.scores:
            hint = near(part, scope.scores)
            scope.problem(span, "unknown-score", name=part, hint=hint)
        return part in scope.scores
    if name not in SUBJECTS:
        return _variable(scope, span, f"{name}.{part}" if part else name, arguments)
    kind = SUBJECTS[name]
    if part and not kind.parts:
        return _variable(scope, span, f"{name}.{part}", arguments)
    if part and part not in kind.parts:
        parts = one_of([f".{p}" for p in kind.parts])
        values = {"name": name, "part": part, "parts": parts, "hint": near(part, kind.parts)}
        scope.problem(span, "unknown-part", **values)
        return False
    if kind.argument and not arguments:
        scope.problem(span, "needs-argument", name=name, example=like.format(name))
        return False
    if arguments and not kind.argument:
        scope.problem(span, "no-argument", name=name)
        return False
    for argument in arguments:
        if not FIELD_NAME.fullmatch(argument):
            scope.problem(span, "no-field-name", name=argument, hint=field_hint(argument))
    return True


def _variable(scope: Scope, span: Span, name: str, arguments: tuple[str, ...]) -> bool:
    if name in scope.variables and arguments:
        scope.problem(span, "no-argument", name=name)
        return False
    if name in scope.variables:
        return True
    if name in scope.lists:
        scope.problem(span, "list-as-subject", name=name)
        return False
    first = name.partition(".")[0]
    known = {*SUBJECTS, *(f"{n}.{p}" for n, kind in SUBJECTS.items() for p in kind.parts)}
    known |= scope.variables
    hint = near(name, known) or near(name.lower(), known) or near(first.lower(), SUBJECTS)
    scope.problem(span, "unknown-subject", name=name, hint=_FOREIGN.get(name.lower(), hint))
    return False


def field_hint(name: str) -> str:
    """What was meant by a name of a header field that is none."""
    meant = name.strip(" :")
    return f'; write "{meant}"' if FIELD_NAME.fullmatch(meant) else ""


def check_literal(scope: Scope, text: ir.Text) -> None:
    """Nothing is put into this text."""
    if text.literal is None:
        scope.problem(text.span, "no-holes")
