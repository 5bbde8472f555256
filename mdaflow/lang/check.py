"""Is a program right? Names, types, places: every problem of the IR, whatever language it was.

What this finds are errors: with one of them a program is not run. What is only doubtful is
found by lint.py. The checks are those that need no message and no outside world.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from typing import Any

from . import ir
from .patterns import compile_glob, compile_regex, wildcards
from .source import MAX_PROBLEMS, Problem, Span, near, one_of
from .subjects import SCORE, SUBJECTS, TYPES, split, type_of

MAX_ENTRIES = 500_000
"""Entries of the lists of all tests, each list counted as often as it is used."""
MAX_GROUPS = 32
"""Groups of one regular expression: RE2 copies them at each step."""
MAX_INSTRUCTIONS = 500_000
"""Instructions of all patterns of a program; each takes some 100 bytes, and time to search."""
DAY = 86_400.0

_COMPARISONS = {"=", "<", "<=", ">", ">=", "between"}
_TEXT = {"is", "contains", "starts", "ends", "glob", "regex", "in", "exists"}
_AMOUNT = {"is", "exists", *_COMPARISONS}
_RELATIONS: Mapping[str, Collection[str]] = {
    "address": _TEXT,
    "text": _TEXT | _COMPARISONS,  # text that starts with a number
    **dict.fromkeys(("number", "moment", "day", "clock"), _AMOUNT),
}
_TIMES = ("moment", "day", "clock")
"""Types whose operands are strings of a form."""
_WORDS = {"starts": "starts with", "ends": "ends with", "glob": "matches", "regex": "matches"}
_FIELD_NAME = re.compile(r"[!-9;-~]+")
_KEYWORD = re.compile(r'[^\x00-\x20\x7f-\U0010ffff(){%*"\\\]]{1,60}')
_ADDRESS = re.compile(r"[^\s@<>,;:\"\\]+@[^\s@<>,;:\"\\]+")
_PATHS = ("mbox:", "maildir:", "/")


def check(program: ir.Program, powers: Collection[str] = ir.POWERS) -> list[Problem]:
    """Everything wrong with a program. `powers` are what its owner may do."""
    checking = _Check(powers)
    with suppress(_Enough):
        checking.block(program.body)
        for case in program.cases:
            checking.case(case)
    return checking.problems


class _Enough(Exception):
    """More is wrong than anybody reads."""


class _Check:
    def __init__(self, powers: Collection[str]) -> None:
        self.powers = powers
        self.problems: list[Problem] = []
        self.instructions = 0
        self.entries = 0
        self.lists: dict[str, ir.Items] = {}
        self.variables: set[str] = set()
        self.scores: set[str] = set()
        self.rules: set[str] = set()
        self.captures: list[set[str]] = []

    def problem(self, span: Span, code: str, /, **values: object) -> None:
        self.problems.append(Problem.of(span, code, **values))
        if len(self.problems) > MAX_PROBLEMS:
            raise _Enough

    # statements

    def block(self, statements: Iterable[ir.Statement]) -> None:
        for statement in statements:
            _STATEMENTS[type(statement)](self, statement)

    def _branch(self, branch: ir.Branch) -> None:
        bound: set[str] = set()
        self.rules.add(branch.name)
        if branch.test is not None:
            self.test(branch.test)
            bound = self._bound(branch.test)
        self.captures.append(bound)
        self.block(branch.body)
        self.captures.pop()
        self.block(branch.otherwise)

    def _power(self, span: Span, verb: str) -> None:
        if verb not in self.powers:
            allowed = one_of([verb for verb in ir.ACTIONS if verb in self.powers])
            self.problem(span, "not-allowed", verb=verb, allowed=allowed)

    def _act(self, act: ir.Act) -> None:
        self._power(act.span, act.verb)
        if not act.ends and act.verb in ("discard", "reject", "defer"):
            self.problem(act.span, "also-makes-no-sense", verb=act.verb)
        for text in act.operands:
            self.text(text)
        if act.verb in _OPERANDS:
            _OPERANDS[act.verb](self, act)
        self._flags(act.span, act.flags)
        for name, value in act.options:
            self._option(act, name, value)

    def _option(self, act: ir.Act, name: str, value: ir.Text | ir.Number) -> None:
        if isinstance(value, ir.Text):
            self.text(value)
            if name == "from":
                self._address(value.span, value.literal or "")
        elif value.amount <= 0:
            self.problem(value.span, "no-time")
        elif name == "every" and value.amount < DAY:
            self.problem(value.span, "every-short")

    def _deliver(self, act: ir.Act) -> None:
        for folder in act.operands:
            self._folder(folder)

    def _forward(self, act: ir.Act) -> None:
        if not act.operands:
            self.problem(act.span, "no-targets")
        for text in act.operands:
            if text.literal is not None:
                self._address(text.span, text.literal)

    def _notify(self, act: ir.Act) -> None:
        for text in act.operands[:1]:
            if text.literal is not None:
                self._address(text.span, text.literal)

    def _learn(self, act: ir.Act) -> None:
        if act.operands[0].literal not in ("spam", "ham"):
            self.problem(act.operands[0].span, "learn-what")

    def _pipe(self, act: ir.Act) -> None:
        self._program(act.span, act.operands)

    def _program(self, span: Span, program: tuple[ir.Text, ...]) -> None:
        if not program or not program[0].literal:
            self.problem(program[0].span if program else span, "program-literal")

    def _address(self, span: Span, address: str) -> None:
        if not _ADDRESS.fullmatch(address):
            self.problem(span, "no-address", address=address)

    def _flag(self, flag: ir.Flag) -> None:
        self._flags(flag.span, flag.flags)

    def _flags(self, span: Span, flags: tuple[str, ...]) -> None:
        known = {name.lower() for name in ir.FLAGS}
        for flag in flags:
            if flag.lower() not in known and not _KEYWORD.fullmatch(flag):
                names = one_of([name.replace("\\", "\\\\") for name in ir.FLAGS])
                self.problem(span, "unknown-flag", flag=flag, known=names)

    def _folder(self, folder: ir.Text) -> None:
        first = folder.parts[0] if folder.parts else ""
        if isinstance(first, str) and first.startswith(_PATHS[: 2 + ("files" in self.powers)]):
            self._power(folder.span, "files")
            if folder.literal is None or not is_mailbox(folder.literal):
                self.problem(folder.span, "folder-path")
            return
        for part in folder.parts:
            if isinstance(part, str) and (wrong := _folder_problem(part, folder)):
                self.problem(folder.span, wrong)

    def _edit(self, edit: ir.Edit) -> None:
        from mdaflow.mail.edit import protected

        if edit.value is not None:
            self.text(edit.value)
        if not _FIELD_NAME.fullmatch(edit.name):
            self.problem(edit.span, "header-name", name=edit.name)
        elif protected(edit.name):
            self.problem(edit.span, "header-protected", name=edit.name)
        elif edit.test is not None:
            self.test(edit.test)

    def _filter(self, node: ir.Filter) -> None:
        self._power(node.span, "filter")
        self._program(node.span, node.operands)
        for text in node.operands:
            self.text(text)

    def _score(self, score: ir.Score) -> None:
        if "." in score.name:
            self.problem(score.span, "name-has-dots", name=score.name)
        self.scores.add(score.name)
        subject = score.subject
        if subject is None or not self._subject_of(subject):
            return
        kind = type_of(subject.name, subject.part)
        if kind not in ("text", "address"):
            name = subject.words
            self.problem(subject.span, "score-subject", subject=name, type=TYPES[kind])
        elif isinstance(score.pattern, ir.Pattern):
            self._regex(score.pattern)
        elif score.pattern is not None:
            self.text(score.pattern)

    def _assign(self, assign: ir.Assign) -> None:
        name = assign.name
        if split(name)[0] in SUBJECTS or name in ir.QUESTIONS:
            self.problem(assign.span, "name-is-subject", name=name)
        elif "." in name:
            self.problem(assign.span, "name-has-dots", name=name)
        elif name in self.lists:
            self.problem(assign.span, "name-is-list", name=name)
        if isinstance(assign.value, ir.Items):
            if name in self.variables and name not in self.lists:
                self.problem(assign.span, "name-is-variable", name=name)
            self.lists[name] = assign.value
        else:
            self.text(assign.value)
            self.variables.add(name)

    def _stop(self, stop: ir.Stop) -> None:
        pass

    def _alias(self, alias: ir.Alias) -> None:
        self._power(alias.span, "alias")
        for name in (alias.name, *alias.targets):
            if not re.fullmatch(r"[^\s<>,;:\"\\]+", name):
                self.problem(alias.span, "no-address", address=name)
        if not alias.targets:
            self.problem(alias.span, "no-targets")

    # tests

    def test(self, test: ir.Test) -> None:
        _TESTS[type(test)](self, test)

    def _join(self, join: ir.Join) -> None:
        for inner in join.tests:
            self.test(inner)

    def _constant(self, constant: ir.Constant) -> None:
        pass

    def _some(self, some: ir.Some) -> None:
        self.test(some.test)

    def _question(self, question: ir.Question) -> None:
        for text in question.arguments:
            self.text(text)
        if question.name == "command":
            self._power(question.span, "command")
            self._program(question.span, question.arguments)
        elif question.name == "folder":
            for text in question.arguments:
                self._folder(text)

    def _compare(self, test: ir.Compare) -> None:
        subject = test.subject
        if not self._subject_of(subject):
            return
        kind, name = type_of(subject.name, subject.part), subject.words
        if subject.raw and not (subject.name in SUBJECTS and SUBJECTS[subject.name].raw):
            self.problem(subject.span, "no-raw", subject=name)
        word = _WORDS.get(test.relation, test.relation)
        if kind == "truth":
            if test.relation != "true":
                self.problem(test.span, "truth-compared", subject=name, word=word)
            elif test.every:
                self.problem(test.span, "every-one", subject=name)
        elif test.relation == "true":
            self.problem(test.span, "not-a-truth", subject=name)
        elif test.relation not in _RELATIONS[kind]:
            allowed = one_of(sorted({_WORDS.get(r, r) for r in _RELATIONS[kind]}))
            self.problem(
                test.span, "relation", subject=name, type=TYPES[kind], word=word, allowed=allowed
            )
        else:
            self._operands(test, kind)

    def _operands(self, test: ir.Compare, kind: str) -> None:
        comparing = test.relation in _COMPARISONS or kind in ("number", *_TIMES)
        if comparing and (test.exact or test.all):
            self.problem(test.span, "no-modes")
            return
        for operand in test.operands:
            if kind in _TIMES:
                self._time(kind, operand)
            else:
                self._operand(test, operand, comparing)

    def _time(self, kind: str, operand: ir.Value) -> None:
        literal = operand.literal if isinstance(operand, ir.Text) else None
        if literal is None or not _is_time(kind, literal):
            self.problem(operand.span, f"needs-{kind}")

    def _subject_of(self, subject: ir.Subject) -> bool:
        return self._subject(subject.span, subject.name, subject.part, subject.arguments)

    def _subject(
        self, span: Span, name: str, part: str, arguments: tuple[str, ...], like: str = '{} "X"'
    ) -> bool:
        """Is it a subject that gives values?"""
        if name == SCORE:
            if part not in self.scores:
                hint = near(part, self.scores)
                self.problem(span, "unknown-score", name=part, hint=hint)
            return part in self.scores
        if name not in SUBJECTS:
            return self._variable(span, f"{name}.{part}" if part else name, arguments)
        kind = SUBJECTS[name]
        if part and part not in kind.parts:
            parts = one_of([f".{p}" for p in kind.parts])
            values = {"name": name, "part": part, "parts": parts, "hint": near(part, kind.parts)}
            self.problem(span, "unknown-part", **values)
            return False
        if kind.argument and not arguments:
            self.problem(span, "needs-argument", name=name, example=like.format(name))
        elif arguments and not kind.argument:
            self.problem(span, "no-argument", name=name)
        for argument in arguments:
            if not _FIELD_NAME.fullmatch(argument):
                self.problem(span, "no-field-name", name=argument)
        return True

    def _variable(self, span: Span, name: str, arguments: tuple[str, ...]) -> bool:
        if name in self.variables and not arguments:
            return True
        if name in self.lists:
            self.problem(span, "list-as-subject", name=name)
            return False
        first = name.partition(".")[0]
        known = {*SUBJECTS, *(f"{n}.{p}" for n, kind in SUBJECTS.items() for p in kind.parts)}
        hint = near(name, {*known, *self.variables}) or near(first, SUBJECTS)
        self.problem(span, "unknown-subject", name=name, hint=_FOREIGN.get(name, hint))
        return False

    def _operand(self, test: ir.Compare, operand: ir.Value, comparing: bool) -> None:
        if isinstance(operand, ir.Items):
            if operand.name:
                self._named_list(operand)
            self.entries += len(self._literals(operand))
            if self.entries > MAX_ENTRIES:
                self.problem(operand.span, "lists-too-long")
                raise _Enough
        if isinstance(operand, ir.Text):
            self.text(operand)
        if comparing and not isinstance(operand, ir.Number):
            self.problem(operand.span, "needs-number")
        elif not comparing and isinstance(operand, ir.Number):
            self.problem(operand.span, "number-as-text")
        elif test.relation == "in" and not isinstance(operand, ir.Items):
            self.problem(operand.span, "needs-list")
        elif isinstance(operand, ir.Pattern):
            if test.relation != "regex":
                self.problem(operand.span, "regex-place")
            else:
                self._regex(operand)
        elif test.relation == "glob":
            for glob in self._literals(operand):
                self._glob(operand.span, glob, test.exact)

    def _named_list(self, items: ir.Items) -> None:
        if items.name in self.variables:
            self.problem(items.span, "variable-as-list", name=items.name)
        elif items.name not in self.lists:
            hint = near(items.name, self.lists)
            self.problem(items.span, "unknown-list", name=items.name, hint=hint)

    def _regex(self, pattern: ir.Pattern) -> None:
        if unknown := set(pattern.flags) - set("csm"):
            self.problem(pattern.span, "regex-flag", flag=min(unknown))
            return
        try:
            compiled = compile_regex(pattern.source, pattern.flags)
        except ValueError as error:
            self.problem(pattern.span, "regex", reason=error)
            return
        self._count(pattern.span, compiled)
        if compiled.groups > MAX_GROUPS:
            self.problem(pattern.span, "regex-groups", most=MAX_GROUPS)
        for name in compiled.groupindex:
            if name in SUBJECTS or name in self.lists or name in self.variables:
                self.problem(pattern.span, "group-is-name", name=name)

    def _glob(self, span: Span, glob: str, exact: bool) -> None:
        try:
            self._count(span, compile_glob(glob, exact))
        except ValueError:
            self.problem(span, "glob-too-large")

    def _count(self, span: Span, compiled: Any) -> None:
        self.instructions += compiled.programsize
        if self.instructions > MAX_INSTRUCTIONS:
            self.problem(span, "patterns-too-large")
            raise _Enough

    def _literals(self, operand: ir.Value) -> tuple[str, ...]:
        """The literal strings of an operand: of a text, or of the list that it names."""
        if isinstance(operand, ir.Items):
            return self.lists.get(operand.name, operand).entries
        literal = operand.literal if isinstance(operand, ir.Text) else None
        return () if literal is None else (literal,)

    # texts

    def text(self, text: ir.Text) -> None:
        for part in text.parts:
            if isinstance(part, ir.Hole):
                self._hole(part)

    def _hole(self, hole: ir.Hole) -> None:
        for name, number in hole.filters:
            if name not in ir.FILTERS:
                self.problem(hole.span, "unknown-filter", name=name, hint=near(name, ir.FILTERS))
            elif ir.FILTERS[name] != (number > 0):
                code = "filter-number" if ir.FILTERS[name] else "filter-no-number"
                self.problem(hole.span, code, name=name)
        name, part = split(hole.name)
        if name in SUBJECTS or name == SCORE:
            arguments = (hole.argument,) if hole.argument else ()
            self._subject(hole.span, name, part, arguments, "{{{} X}}")
        elif hole.argument:
            self.problem(hole.span, "takes-no-name", name=hole.name)
        elif hole.name.isdecimal():
            if not any(hole.name in bound for bound in self.captures):
                self.problem(hole.span, "no-group", name=hole.name)
        elif hole.name not in self.variables and not any(hole.name in c for c in self.captures):
            known = {*SUBJECTS, *self.variables, *(n for c in self.captures for n in c)}
            self.problem(hole.span, "unknown-name", name=hole.name, hint=near(hole.name, known))

    def _bound(self, test: ir.Test) -> set[str]:
        """The captures that a condition may bind: numbers and names."""
        if isinstance(test, ir.Join):
            inner = () if test.word == "not" else test.tests
            return set().union(*(self._bound(t) for t in inner))
        if isinstance(test, ir.Some):
            return self._bound(test.test)
        if not isinstance(test, ir.Compare) or test.relation not in ("regex", "glob"):
            return set()
        return set().union(*(self._groups(operand) for operand in test.operands))

    def _groups(self, operand: ir.Value) -> set[str]:
        if isinstance(operand, ir.Pattern):
            try:
                pattern = compile_regex(operand.source, operand.flags)
            except ValueError:
                return set()
            return {*map(str, range(pattern.groups + 1)), *pattern.groupindex}
        texts = self._literals(operand)
        if isinstance(operand, ir.Text):
            texts = ("".join(p for p in operand.parts if isinstance(p, str)),)
        elif isinstance(operand, ir.Items) and self.lists.get(operand.name, operand).file:
            return {*map(str, range(MAX_GROUPS + 1))}
        most = max((len(wildcards(text)) for text in texts), default=0)
        return {*map(str, range(most + 1))}

    # cases

    def case(self, case: ir.Case) -> None:
        for given in case.given:
            self._given(given)
        for expected in case.expected:
            if expected.rule and expected.rule not in self.rules:
                hint = near(expected.rule, self.rules)
                self.problem(expected.span, "unknown-rule", name=expected.rule, hint=hint)
            if expected.act is not None:
                for text in expected.act.operands:
                    self._literal(text)
                self._flags(expected.act.span, expected.act.flags)

    def _literal(self, text: ir.Text) -> None:
        if text.literal is None:
            self.problem(text.span, "no-holes")

    def _given(self, given: ir.Given) -> None:
        name, part = split(given.name)
        if name in ir.QUESTIONS:
            kind = "truth"
        elif not self._subject(given.span, name, part, (given.argument,) * bool(given.argument)):
            return
        else:
            kind = type_of(name, part)
        for value in given.values:
            if not _is_of(kind, value):
                self.problem(given.span, "given-value", name=given.name, type=TYPES[kind])


def _is_time(kind: str, text: str) -> bool:
    from mdaflow.mail.date import parse_clock, parse_moment  # few programs have one

    if kind == "clock":
        return parse_clock(text) is not None
    return parse_moment(text, None) is not None and (kind == "moment" or len(text) == 10)


def _is_of(kind: str, value: str | float | bool) -> bool:
    if kind in _TIMES:
        return isinstance(value, str) and _is_time(kind, value)
    wanted = {"truth": bool, "number": float}.get(kind, str)
    return isinstance(value, wanted)


_STATEMENTS: dict[type, Any] = {
    ir.Branch: _Check._branch,
    ir.Act: _Check._act,
    ir.Flag: _Check._flag,
    ir.Edit: _Check._edit,
    ir.Filter: _Check._filter,
    ir.Score: _Check._score,
    ir.Assign: _Check._assign,
    ir.Stop: _Check._stop,
    ir.Alias: _Check._alias,
}
_OPERANDS: dict[str, Any] = {
    "deliver": _Check._deliver,
    "forward": _Check._forward,
    "notify": _Check._notify,
    "pipe": _Check._pipe,
    "learn": _Check._learn,
}
_TESTS: dict[type, Any] = {
    ir.Compare: _Check._compare,
    ir.Question: _Check._question,
    ir.Some: _Check._some,
    ir.Join: _Check._join,
    ir.Constant: _Check._constant,
}
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


def is_mailbox(path: str) -> bool:
    """Is it the whole path of a mailbox, `mbox:/path` or `maildir:/path`?"""
    kind, _, rest = path.partition(":")
    levels = rest.split("/")
    whole = kind in ("mbox", "maildir") and not levels[0] and len(levels) > 1
    return whole and all(
        level not in ("", ".", "..") and level.isprintable() for level in levels[1:]
    )


def _folder_problem(piece: str, folder: ir.Text) -> str:
    """What is wrong with a literal piece of a folder name; empty when nothing is."""
    whole = folder.literal is not None
    if any(ord(char) < 32 or ord(char) == 127 for char in piece):
        return "folder-control"
    if "\\" in piece:
        return "folder-backslash"
    levels = piece.split("/")
    inner = levels if whole else levels[1:-1]
    if any(level.startswith(".") for level in (levels if whole else levels[1:])):
        return "folder-dot"
    if any(not level for level in inner) or (piece.startswith("/") and folder.parts[0] == piece):
        return "folder-empty"
    return ""
