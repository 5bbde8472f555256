"""Statements, one function each, found in one table."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from mdaflow.lang import ir
from mdaflow.lang.subjects import SUBJECTS, TYPES, split, type_of

from .conditions import bound, check_regex, check_test
from .names import FIELD_NAME, check_subject, check_text, field_hint
from .scope import Scope
from .values import check_address, check_flags, check_folder, check_program

DAY = 86_400.0
"""Seconds; the least between two automatic replies to one sender."""
CENTURY = 36_525 * DAY
_NAME = re.compile(r"[^\s<>,;:\"\\]+")


def check_block(scope: Scope, statements: Iterable[ir.Statement]) -> None:
    """Judge statements in their order."""
    for statement in statements:
        _STATEMENTS[type(statement)](scope, statement)


def _branch(scope: Scope, branch: ir.Branch) -> None:
    groups: set[str] = set()
    scope.rules.add(branch.name)
    if branch.test is not None:
        check_test(scope, branch.test)
        groups = bound(scope, branch.test)
    scope.captures.append(groups)
    check_block(scope, branch.body)
    scope.captures.pop()
    check_block(scope, branch.otherwise)


def _act(scope: Scope, act: ir.Act) -> None:
    scope.power(act.span, act.verb)
    if not act.ends and act.verb in ("discard", "reject", "defer"):
        scope.problem(act.span, "also-makes-no-sense", verb=act.verb)
    for text in act.operands:
        check_text(scope, text)
    if act.verb in _OPERANDS:
        _OPERANDS[act.verb](scope, act)
    check_flags(scope, act.span, act.flags)
    for name, value in act.options:
        _option(scope, act, name, value)


def _option(scope: Scope, act: ir.Act, name: str, value: ir.Text | ir.Number) -> None:
    if isinstance(value, ir.Text):
        check_text(scope, value)
        if name == "from":
            from mdaflow.mail.letter import address_of  # few rules have one

            check_address(scope, value.span, address_of(value.literal or ""))
        elif name == "as" and not (value.literal or "").strip():
            scope.problem(value.span, "as-literal")
    elif not 0 < value.amount < CENTURY:
        scope.problem(value.span, "no-time")
    elif name == "every" and value.amount < DAY:
        scope.problem(value.span, "every-short")


def _deliver(scope: Scope, act: ir.Act) -> None:
    for folder in act.operands:
        check_folder(scope, folder)


def _forward(scope: Scope, act: ir.Act) -> None:
    if not act.operands:
        scope.problem(act.span, "no-targets")
    for text in act.operands:
        if text.literal is not None:
            check_address(scope, text.span, text.literal)


def _notify(scope: Scope, act: ir.Act) -> None:
    for text in act.operands[:1]:
        if text.literal is not None:
            check_address(scope, text.span, text.literal)


def _learn(scope: Scope, act: ir.Act) -> None:
    if act.operands[0].literal not in ("spam", "ham"):
        scope.problem(act.operands[0].span, "learn-what")


def _pipe(scope: Scope, act: ir.Act) -> None:
    check_program(scope, act.span, act.operands)


def _flag(scope: Scope, flag: ir.Flag) -> None:
    check_flags(scope, flag.span, flag.flags)


def _edit(scope: Scope, edit: ir.Edit) -> None:
    from mdaflow.mail.edit import protected

    if edit.value is not None:
        check_text(scope, edit.value)
    if not FIELD_NAME.fullmatch(edit.name):
        scope.problem(edit.span, "header-name", name=edit.name, hint=field_hint(edit.name))
    elif protected(edit.name):
        scope.problem(edit.span, "header-protected", name=edit.name)
    elif edit.test is not None:
        check_test(scope, edit.test)


def _filter(scope: Scope, node: ir.Filter) -> None:
    scope.power(node.span, "filter")
    if not 0 < node.within < CENTURY:
        scope.problem(node.span, "no-time")
    check_program(scope, node.span, node.operands)
    for text in node.operands:
        check_text(scope, text)


def _score(scope: Scope, score: ir.Score) -> None:
    if "." in score.name:
        scope.problem(score.span, "name-has-dots", name=score.name)
    scope.scores.add(score.name)
    subject = score.subject
    if subject is None or not check_subject(scope, subject):
        return
    kind = type_of(subject.name, subject.part)
    if kind not in ("text", "address"):
        name = subject.words
        scope.problem(subject.span, "score-subject", subject=name, type=TYPES[kind])
    elif isinstance(score.pattern, ir.Pattern):
        check_regex(scope, score.pattern)
    elif score.pattern is not None:
        check_text(scope, score.pattern)


def _assign(scope: Scope, assign: ir.Assign) -> None:
    name = assign.name
    if split(name)[0] in SUBJECTS or name in ir.QUESTIONS:
        scope.problem(assign.span, "name-is-subject", name=name)
    elif "." in name:
        scope.problem(assign.span, "name-has-dots", name=name)
    elif name in scope.lists:
        scope.problem(assign.span, "name-is-list", name=name)
    if isinstance(assign.value, ir.Items):
        if name in scope.variables and name not in scope.lists:
            scope.problem(assign.span, "name-is-variable", name=name)
        scope.lists[name] = assign.value
    else:
        check_text(scope, assign.value)
        scope.variables.add(name)


def _stop(scope: Scope, stop: ir.Stop) -> None:
    pass


def _alias(scope: Scope, alias: ir.Alias) -> None:
    scope.power(alias.span, "alias")
    for name in (alias.name, *alias.targets):
        if not _NAME.fullmatch(name):
            scope.problem(alias.span, "no-address", address=name)
    if not alias.targets:
        scope.problem(alias.span, "no-targets")


_STATEMENTS: dict[type, Any] = {
    ir.Branch: _branch,
    ir.Act: _act,
    ir.Flag: _flag,
    ir.Edit: _edit,
    ir.Filter: _filter,
    ir.Score: _score,
    ir.Assign: _assign,
    ir.Stop: _stop,
    ir.Alias: _alias,
}
_OPERANDS: dict[str, Any] = {
    "deliver": _deliver,
    "forward": _forward,
    "notify": _notify,
    "pipe": _pipe,
    "learn": _learn,
}
