"""Is a program right? Names, types, places: every problem of the IR, whatever language it was.

What this finds are errors: with one of them a program is not run. The checks are those that
need no message and no outside world.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from contextlib import suppress
from functools import cache, lru_cache
from typing import Any

from . import ir
from .source import MAX_PROBLEMS, Problem, Span, near, one_of
from .subjects import SUBJECTS, split, type_of

RE2_MEMORY = 2 << 20
"""Bytes that one compiled pattern may take."""
MAX_ENTRIES = 500_000
"""Entries of the lists of all tests, each list counted as often as it is used."""
MAX_GROUPS = 32
"""Groups of one regular expression: RE2 copies them at each step."""
MAX_INSTRUCTIONS = 500_000
"""Instructions of all patterns of a program; each takes some 100 bytes, and time to search."""

_TEXT_RELATIONS = {"is", "contains", "starts", "ends", "glob", "regex", "in", "exists"}
_NUMBER_RELATIONS = {"is", "=", "<", "<=", ">", ">=", "between", "exists"}
_COMPARISONS = {"=", "<", "<=", ">", ">=", "between"}
_RELATIONS = {
    "address": _TEXT_RELATIONS,
    "text": _TEXT_RELATIONS | _COMPARISONS,  # text that starts with a number
    "number": _NUMBER_RELATIONS,
}
_KINDS = {"address": "an address", "text": "text", "number": "a number"}
_WORDS = {"starts": "starts with", "ends": "ends with", "glob": "matches", "regex": "matches"}
_HEADER_NAME = re.compile(r"[!-9;-~]+")


@cache
def _options(flags: str) -> Any:
    import re2

    options = re2.Options()
    options.log_errors = False
    options.max_mem = RE2_MEMORY
    options.case_sensitive = "c" in flags
    options.dot_nl = "s" in flags
    return options


def compile_regex(pattern: str, flags: str = "") -> Any:
    """An RE2 pattern over UTF-8 bytes; raises ValueError with RE2's words when it is none."""
    import re2

    prefix = "(?m)" if "m" in flags else ""
    try:
        return re2.compile(prefix + pattern, _options(flags))
    except re2.error as error:
        reason = error.args[0]
        raise ValueError(reason.decode() if isinstance(reason, bytes) else str(reason)) from None


def wildcards(glob: str) -> list[re.Match[str]]:
    """The `*` and `?` of a glob; a backslash before one takes its meaning away."""
    return [m for m in re.finditer(r"\\.|[*?]", glob, re.DOTALL) if len(m[0]) == 1]


@lru_cache(512)
def compile_glob(glob: str, exact: bool) -> Any:
    """A glob as a pattern over the whole value: `*` as little as it can, `?` one character.

    Raises ValueError when it is too large.
    """
    import re2

    out, at = [r"\A"], 0
    for wild in wildcards(glob):
        out += [re2.escape(_unescaped(glob[at : wild.start()]))]
        out += ["(.*?)" if wild[0] == "*" else "(.)"]
        at = wild.end()
    out += [re2.escape(_unescaped(glob[at:])), r"\z"]
    return compile_regex("".join(out), "sc" if exact else "s")


def _unescaped(literal: str) -> str:
    return re.sub(r"\\([\\*?])", r"\1", literal)


def check(program: ir.Program, actions: Collection[str] = ir.ACTIONS) -> list[Problem]:
    """Everything wrong with a program. `actions` are the verbs that its owner may use."""
    checking = _Check(actions)
    with suppress(_Enough):
        checking.block(program.body)
    return checking.problems


class _Enough(Exception):
    """More is wrong than anybody reads."""


class _Check:
    def __init__(self, actions: Collection[str]) -> None:
        self.actions = actions
        self.problems: list[Problem] = []
        self.instructions = 0
        self.entries = 0
        self.lists: dict[str, ir.Items] = {}
        self.variables: set[str] = set()
        self.captures: list[set[str]] = []

    def problem(self, span: Span, message: str) -> None:
        self.problems.append(Problem(span, message))
        if len(self.problems) > MAX_PROBLEMS:
            raise _Enough

    # statements

    def block(self, statements: Iterable[ir.Statement]) -> None:
        for statement in statements:
            _STATEMENTS[type(statement)](self, statement)

    def _branch(self, branch: ir.Branch) -> None:
        bound: set[str] = set()
        if branch.test is not None:
            self.test(branch.test)
            bound = self._bound(branch.test)
        self.captures.append(bound)
        self.block(branch.body)
        self.captures.pop()
        self.block(branch.otherwise)

    def _act(self, act: ir.Act) -> None:
        if act.verb not in self.actions:
            allowed = one_of(sorted(self.actions))
            self.problem(
                act.span, f"'{act.verb}' is not allowed in these rules; they may {allowed}"
            )
        if not act.ends and not act.cancels and act.verb in ("discard", "reject", "defer"):
            self.problem(act.span, f"'also {act.verb}' makes no sense: nothing can follow it")
        if act.operand is not None:
            self.text(act.operand)
            if act.verb == "deliver":
                self._folder(act.operand)
        self._flags(act.span, act.flags)

    def _flag(self, flag: ir.Flag) -> None:
        self._flags(flag.span, flag.flags)

    def _flags(self, span: Span, flags: tuple[str, ...]) -> None:
        known = {name.lower() for name in ir.FLAGS}
        for flag in flags:
            if flag.lower() not in known:
                names = one_of([name.replace("\\", "\\\\") for name in ir.FLAGS])
                self.problem(span, f"unknown flag '{flag}'; known are {names}")

    def _folder(self, folder: ir.Text) -> None:
        for part in folder.parts:
            if isinstance(part, str) and (wrong := _folder_problem(part, folder)):
                self.problem(folder.span, wrong)

    def _assign(self, assign: ir.Assign) -> None:
        name = assign.name
        if split(name)[0] in SUBJECTS:
            self.problem(assign.span, f"'{name}' is a subject; take another name")
        elif "." in name:
            self.problem(assign.span, f"'{name}': a name has no dots")
        elif name in self.lists:
            self.problem(assign.span, f"there is a list '{name}' already")
        if isinstance(assign.value, ir.Items):
            if name in self.variables and name not in self.lists:
                self.problem(assign.span, f"there is a variable '{name}' already")
            self.lists[name] = assign.value
        else:
            self.text(assign.value)
            self.variables.add(name)

    def _stop(self, stop: ir.Stop) -> None:
        pass

    # tests

    def test(self, test: ir.Test) -> None:
        if isinstance(test, ir.Join):
            for inner in test.tests:
                self.test(inner)
        elif isinstance(test, ir.Compare):
            self._compare(test)

    def _compare(self, test: ir.Compare) -> None:
        subject = test.subject
        if not self._subject(subject.span, subject.name, subject.part, subject.arguments):
            return
        kind = type_of(subject.name, subject.part)
        if subject.raw and not SUBJECTS[subject.name].raw:
            self.problem(subject.span, f"'raw' does not fit '{subject.words}'")
        if test.relation == "true":
            hint = "say what it is compared with: is, contains, matches, in, =, exists …"
            self.problem(test.span, f"'{subject.words}' is not true or false; {hint}")
            return
        if test.relation not in _RELATIONS[kind]:
            word = _WORDS.get(test.relation, test.relation)
            allowed = one_of(sorted({_WORDS.get(r, r) for r in _RELATIONS[kind]}))
            what = f"'{subject.words}' is {_KINDS[kind]}"
            self.problem(test.span, f"{what}: '{word}' does not fit; use {allowed}")
            return
        comparing = test.relation in _COMPARISONS or kind == "number"
        if comparing and (test.exact or test.all):
            self.problem(test.span, "'all' and 'exactly' are for text, not for numbers")
        for operand in test.operands:
            self._operand(test, operand, comparing)

    def _subject(
        self, span: Span, name: str, part: str, arguments: tuple[str, ...], like: str = '{} "X"'
    ) -> bool:
        kind = SUBJECTS.get(name)
        if kind is None:
            self._unknown_subject(span, name)
        elif part and part not in kind.parts:
            parts = one_of([f".{p}" for p in kind.parts]) or "no parts"
            self.problem(span, f"'{name}' has no '.{part}'; it has {parts}{near(part, kind.parts)}")
        elif kind.argument != bool(arguments):
            wants = f"needs a name: {like.format(name)}" if kind.argument else "takes no name"
            self.problem(span, f"'{name}' {wants}")
        else:
            for argument in arguments:
                if not _HEADER_NAME.fullmatch(argument):
                    self.problem(span, f"'{argument}' is no header name")
            return True
        return False

    def _unknown_subject(self, span: Span, name: str) -> None:
        first = name.partition(".")[0]
        if name in self.lists or name in self.variables:
            self.problem(span, f"'{name}' cannot stand here: a test starts with a subject")
        else:
            known = {*SUBJECTS, *(f"{n}.{p}" for n, kind in SUBJECTS.items() for p in kind.parts)}
            hint = near(name, known) or near(first, SUBJECTS)
            self.problem(span, f"unknown subject '{name}'{hint}")

    def _operand(self, test: ir.Compare, operand: ir.Value, comparing: bool) -> None:
        if isinstance(operand, ir.Items):
            if operand.name:
                self._named_list(operand)
            self.entries += len(self._literals(operand))
            if self.entries > MAX_ENTRIES:
                message = "the lists of all tests up to this one are too long together"
                self.problem(operand.span, message)
                raise _Enough
        if isinstance(operand, ir.Text):
            self.text(operand)
        if comparing and not isinstance(operand, ir.Number):
            message = "a number is needed here, e.g. 5, 10K or 5M; text is compared with 'is'"
            self.problem(operand.span, message)
        elif not comparing and isinstance(operand, ir.Number):
            self.problem(operand.span, "a number cannot be compared so; write a string")
        elif test.relation == "in" and not isinstance(operand, ir.Items):
            self.problem(operand.span, "'in' needs a list: [\"…\"] or the name of one")
        elif isinstance(operand, ir.Pattern):
            self._pattern(test, operand)
        elif test.relation == "glob":
            for glob in self._literals(operand):
                self._glob(operand.span, glob, test.exact)

    def _named_list(self, items: ir.Items) -> None:
        if items.name in self.variables:
            self.problem(items.span, f"'{items.name}' is a variable; write \"{{{items.name}}}\"")
        elif items.name not in self.lists:
            hint = near(items.name, self.lists)
            message = f"unknown list '{items.name}'; lists are declared before their use{hint}"
            self.problem(items.span, message)

    def _pattern(self, test: ir.Compare, pattern: ir.Pattern) -> None:
        if test.relation != "regex":
            self.problem(pattern.span, "a regular expression needs 'matches'")
        elif unknown := set(pattern.flags) - set("csm"):
            self.problem(pattern.span, f"unknown flag '{min(unknown)}'; known are c, s and m")
        else:
            try:
                compiled = compile_regex(pattern.source, pattern.flags)
            except ValueError as error:
                self.problem(pattern.span, f"not a regular expression of RE2: {error}")
                return
            self._count(pattern.span, compiled)
            if compiled.groups > MAX_GROUPS:
                message = f"more than {MAX_GROUPS} groups; write (?:…) for those not captured"
                self.problem(pattern.span, message)
            for name in compiled.groupindex:
                if name in SUBJECTS or name in self.lists or name in self.variables:
                    self.problem(pattern.span, f"the group '{name}' has the name of something else")

    def _glob(self, span: Span, glob: str, exact: bool) -> None:
        try:
            self._count(span, compile_glob(glob, exact))
        except ValueError:
            self.problem(span, "this pattern is too large")

    def _count(self, span: Span, compiled: Any) -> None:
        self.instructions += compiled.programsize
        if self.instructions > MAX_INSTRUCTIONS:
            self.problem(span, "all patterns up to this one are too large together")
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
                self.problem(hole.span, f"unknown filter '{name}'{near(name, ir.FILTERS)}")
            elif ir.FILTERS[name] != (number > 0):
                wants = "needs a number" if ir.FILTERS[name] else "takes no number"
                self.problem(hole.span, f"the filter '{name}' {wants}")
        name, part = split(hole.name)
        if name in SUBJECTS:
            arguments = (hole.argument,) if hole.argument else ()
            self._subject(hole.span, name, part, arguments, "{{{} X}}")
        elif hole.argument:
            self.problem(hole.span, f"'{hole.name}' takes no name")
        elif hole.name.isdecimal():
            self._numbered(hole)
        elif hole.name not in self.variables and not any(hole.name in c for c in self.captures):
            known = {*SUBJECTS, *self.variables, *(n for c in self.captures for n in c)}
            message = f"unknown name '{hole.name}'{near(hole.name, known)}"
            self.problem(hole.span, message)

    def _numbered(self, hole: ir.Hole) -> None:
        if not any(hole.name in bound for bound in self.captures):
            wants = "it needs a 'matches' with so many groups in the condition of this block"
            self.problem(hole.span, f"there is no group {hole.name} here: {wants}")

    def _bound(self, test: ir.Test) -> set[str]:
        """The captures that a condition may bind: numbers and names."""
        if isinstance(test, ir.Join):
            inner = () if test.word == "not" else test.tests
            return set().union(*(self._bound(t) for t in inner))
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
        most = max((len(wildcards(text)) for text in texts), default=0)
        return {*map(str, range(most + 1))}


_STATEMENTS: dict[type, Any] = {
    ir.Branch: _Check._branch,
    ir.Act: _Check._act,
    ir.Flag: _Check._flag,
    ir.Assign: _Check._assign,
    ir.Stop: _Check._stop,
}


def _folder_problem(piece: str, folder: ir.Text) -> str:
    """What is wrong with a literal piece of a folder name; empty when nothing is."""
    whole = folder.literal is not None
    if any(ord(char) < 32 or ord(char) == 127 for char in piece):
        return "a folder name has no control characters"
    if "\\" in piece:
        return "a folder name has no backslash; levels are divided by /"
    levels = piece.split("/")
    inner = levels if whole else levels[1:-1]
    if any(level.startswith(".") for level in (levels if whole else levels[1:])):
        return "no level of a folder name begins with a dot"
    if any(not level for level in inner) or (piece.startswith("/") and folder.parts[0] == piece):
        return 'a folder name has no empty levels; write "a/b"'
    return ""
