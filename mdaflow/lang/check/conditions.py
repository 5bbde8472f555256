"""Tests: does the operator fit the subject, and the operand the operator?"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from mdaflow.lang import ir
from mdaflow.lang.patterns import compile_glob, compile_regex, wildcards
from mdaflow.lang.source import Span, near, one_of
from mdaflow.lang.subjects import SUBJECTS, TYPES, type_of

from .names import check_subject, check_text
from .scope import MAX_ENTRIES, MAX_GROUPS, MAX_INSTRUCTIONS, Enough, Scope
from .times import TIMES, is_time
from .values import check_folder, check_program

_COMPARISONS = {"=", "<", "<=", ">", ">=", "between"}
_TEXT = {"is", "contains", "starts", "ends", "glob", "regex", "in", "exists"}
_AMOUNT = {"is", "exists", *_COMPARISONS}
RELATIONS: Mapping[str, Collection[str]] = {
    "address": _TEXT,
    "text": _TEXT | _COMPARISONS,  # text that starts with a number
    **dict.fromkeys(("number", *TIMES), _AMOUNT),
}
"""The operators of each type of subject."""
_WORDS = {"starts": "starts with", "ends": "ends with", "glob": "matches", "regex": "matches"}
_QUOTED = {"in": '["{}"]', "glob": '"*{}*"'}
"""How a text is written behind an operator, if not as a string."""
_GROUP_NAME = re.compile(r"\(\?P<(\w+)>")


def check_test(scope: Scope, test: ir.Test) -> None:
    """Judge a test and all those in it."""
    _TESTS[type(test)](scope, test)


def _join(scope: Scope, join: ir.Join) -> None:
    for inner in join.tests:
        check_test(scope, inner)


def _constant(scope: Scope, constant: ir.Constant) -> None:
    pass


def _some(scope: Scope, some: ir.Some) -> None:
    check_test(scope, some.test)


def _question(scope: Scope, question: ir.Question) -> None:
    for text in question.arguments:
        check_text(scope, text)
    if question.name == "command":
        scope.power(question.span, "command")
        check_program(scope, question.span, question.arguments)
    elif question.name == "folder":
        for text in question.arguments:
            check_folder(scope, text)


def _compare(scope: Scope, test: ir.Compare) -> None:
    subject = test.subject
    if not check_subject(scope, subject):
        return
    kind, name = type_of(subject.name, subject.part), subject.words
    if subject.raw and not (subject.name in SUBJECTS and SUBJECTS[subject.name].raw):
        scope.problem(subject.span, "no-raw", subject=name)
    word = _WORDS.get(test.relation, test.relation)
    if kind == "truth":
        if test.relation != "true":
            scope.problem(test.span, "truth-compared", subject=name, word=word)
        elif test.every:
            scope.problem(test.span, "every-one", subject=name)
    elif test.relation == "true":
        scope.problem(test.span, "not-a-truth", subject=name)
    elif test.relation not in RELATIONS[kind]:
        words = {_WORDS.get(relation, relation) for relation in RELATIONS[kind]}
        allowed = one_of(sorted(words, key=lambda word: (word != "is", word)))
        scope.problem(
            test.span, "relation", subject=name, type=TYPES[kind], word=word, allowed=allowed
        )
    else:
        _operands(scope, test, kind)


def _operands(scope: Scope, test: ir.Compare, kind: str) -> None:
    comparing = test.relation in _COMPARISONS or kind in ("number", *TIMES)
    if comparing and (test.exact or test.all):
        scope.problem(test.span, "no-modes")
        return
    for operand in test.operands:
        if kind in TIMES:
            _time(scope, kind, operand)
        else:
            _operand(scope, test, operand, comparing)


def _time(scope: Scope, kind: str, operand: ir.Value) -> None:
    literal = operand.literal if isinstance(operand, ir.Text) else None
    if literal is None or not is_time(kind, literal):
        scope.problem(operand.span, f"needs-{kind}")


def _operand(scope: Scope, test: ir.Compare, operand: ir.Value, comparing: bool) -> None:
    if isinstance(operand, ir.Items):
        if operand.name and not comparing:
            _named_list(scope, operand, _QUOTED.get(test.relation, '"{}"'))
        scope.entries += len(_literals(scope, operand))
        if scope.entries > MAX_ENTRIES:
            scope.problem(operand.span, "lists-too-long")
            raise Enough
    if isinstance(operand, ir.Text):
        check_text(scope, operand)
    if comparing and not isinstance(operand, ir.Number):
        scope.problem(operand.span, "needs-number")
    elif not comparing and isinstance(operand, ir.Number):
        scope.problem(operand.span, "number-as-text")
    elif test.relation == "in" and not isinstance(operand, ir.Items):
        scope.problem(operand.span, "needs-list")
    elif isinstance(operand, ir.Pattern):
        if test.relation != "regex":
            scope.problem(operand.span, "regex-place")
        else:
            check_regex(scope, operand)
    elif test.relation == "glob":
        for glob in _literals(scope, operand):
            _glob(scope, operand.span, glob, test.exact)


def _named_list(scope: Scope, items: ir.Items, quoted: str) -> None:
    if items.name in scope.variables:
        scope.problem(items.span, "variable-as-list", name=items.name)
    elif items.name not in scope.lists:
        text = f"; a text stands in quotes: {quoted.format(items.name)}"
        hint = near(items.name, scope.lists) or text
        scope.problem(items.span, "unknown-list", name=items.name, hint=hint)


def check_regex(scope: Scope, pattern: ir.Pattern) -> None:
    """Is it a pattern of RE2 that is small enough, and do its groups have names of their own?"""
    if unknown := set(pattern.flags) - set("csm"):
        scope.problem(pattern.span, "regex-flag", flag=min(unknown))
        return
    try:
        compiled = compile_regex(pattern.source, pattern.flags)
    except ValueError as error:
        scope.problem(pattern.span, "regex", reason=error)
        return
    _count(scope, pattern.span, compiled)
    if compiled.groups > MAX_GROUPS:
        scope.problem(pattern.span, "regex-groups", most=MAX_GROUPS)
    for name in compiled.groupindex:
        if name in SUBJECTS or name in scope.lists or name in scope.variables:
            scope.problem(pattern.span, "group-is-name", name=name)


def _glob(scope: Scope, span: Span, glob: str, exact: bool) -> None:
    try:
        _count(scope, span, compile_glob(glob, exact))
    except ValueError:
        scope.problem(span, "glob-too-large")


def _count(scope: Scope, span: Span, compiled: Any) -> None:
    scope.instructions += compiled.programsize
    if scope.instructions > MAX_INSTRUCTIONS:
        scope.problem(span, "patterns-too-large")
        raise Enough


def _literals(scope: Scope, operand: ir.Value) -> tuple[str, ...]:
    """The literal strings of an operand: of a text, or of the list that it names."""
    if isinstance(operand, ir.Items):
        return scope.lists.get(operand.name, operand).entries
    literal = operand.literal if isinstance(operand, ir.Text) else None
    return () if literal is None else (literal,)


def bound(scope: Scope, test: ir.Test) -> set[str]:
    """The captures that a condition may bind: numbers and names."""
    if isinstance(test, ir.Join):
        inner = () if test.word == "not" else test.tests
        return set().union(*(bound(scope, t) for t in inner))
    if isinstance(test, ir.Some):
        return bound(scope, test.test)
    if not isinstance(test, ir.Compare) or test.relation not in ("regex", "glob"):
        return set()
    return set().union(*(_groups(scope, operand) for operand in test.operands))


def _groups(scope: Scope, operand: ir.Value) -> set[str]:
    """The groups of an operand; of a wrong one all that were meant, so that it is said once."""
    any_number = {*map(str, range(MAX_GROUPS + 1))}
    if isinstance(operand, ir.Pattern):
        try:
            pattern = compile_regex(operand.source, operand.flags)
        except ValueError:
            return {*any_number, *_GROUP_NAME.findall(operand.source)}
        return {*map(str, range(pattern.groups + 1)), *pattern.groupindex}
    named: ir.Value | None = operand
    if isinstance(operand, ir.Items) and operand.name:
        named = scope.lists.get(operand.name)
    texts = _literals(scope, operand)
    if isinstance(operand, ir.Text):
        texts = ("".join(p for p in operand.parts if isinstance(p, str)),)
    elif not isinstance(named, ir.Items) or named.file:
        return any_number
    most = max((len(wildcards(text)) for text in texts), default=0)
    return {*map(str, range(most + 1))}


_TESTS: dict[type, Any] = {
    ir.Compare: _compare,
    ir.Question: _question,
    ir.Some: _some,
    ir.Join: _join,
    ir.Constant: _constant,
}
