"""Regular expressions and globs that are not what they look like."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise

from mdaflow.lang import ir
from mdaflow.lang.patterns import compile_regex, wildcards
from mdaflow.lang.source import Problem

from .about import aspect
from .view import View, literals

_PIECE = re.compile(
    r"\\Q.*?(?:\\E|\Z)|\\[pP]\{[^}]*\}|\\x\{[^}]*\}|\\."
    r"|\[\^?\]?(?:\[:\^?\w+:\]|\\.|[^\]\\])*\]|\(\?(?:P?<\w+>|[a-zA-Z-]*:?)|[*+?]\??"
    r"|\{\d+(?:,\d*)?\}\??|.",
    re.DOTALL,
)
_COUNT = re.compile(r"[*+?]|\{\d")
_MAYBE = re.compile(r"[*?]|\{0")
"""How a quantifier begins, and one that allows for nothing."""
_LINES = re.compile(r"\(\?[a-zA-Z-]*m")
_ANCHORS = {"^", "$", r"\A", r"\z", r"\b", r"\B"}
_NO_CHARACTERS = {*_ANCHORS, "|", ")"}
_EMPTY_CLASS = re.compile(r"\[\^(?:\\s\\S|\\S\\s|\\d\\D|\\D\\d|\\w\\W|\\W\\w)\]")
_DOMAIN = re.compile(
    r"\^?<?(?:\.[*+])?(?:[\w.-]*@)?(?:[\w-]+\.)*[\w-]+\.(?P<last>[a-z]{2,})>?\$?", re.IGNORECASE
)
_TOPMOST = {
    "com", "org", "net", "edu", "gov", "info", "example", "test", "invalid", "localhost",
}  # fmt: skip
_DOMAIN_SUBJECTS = {"list_id", "message_id", "client.name", "client.helo"}
_GLOB_SIGNS = re.compile(
    r"""\A(\^)                         # ^foo
    | (\\[dDwWsSbB.+$^()|[\]])         # \d
    | (?:(?<=[a-z)\]])|(?<=\.\*))(\$)\Z  # foo$, but not 100$
    | (?<=\w)(\|)(?=\w)                # a|b
    | (\[\^?(?:a-z|A-Z|0-9)[^]]*\]?)   # [a-z]
    | \A(\.[*+])                       # .*foo
    | \A(\(\?i\))
    """,
    re.VERBOSE,
)


def globs(view: View) -> Iterator[Problem]:
    """`glob-regex`, `glob-plain`: what is no glob."""
    for test in view.all(ir.Compare):
        for operand in test.operands if test.relation == "glob" else ():
            globs = literals(operand)
            signs = [found[0] for glob in globs if (found := _GLOB_SIGNS.search(glob))]
            if signs and (signs[0] != ".*" or test.subject.name != "attachment"):
                yield Problem.of(operand.span, "glob-regex", sign=signs[0])
            elif globs and _is_whole(operand) and not any(map(wildcards, globs)):
                yield Problem.of(operand.span, "glob-plain", value=globs[0])


def _is_whole(operand: ir.Value) -> bool:
    """Nothing is put into it."""
    return not isinstance(operand, ir.Text) or operand.literal is not None


def exactly_caseless(view: View) -> Iterator[Problem]:
    """Case shall count, and shall not."""
    for test in view.all(ir.Compare):
        for operand in test.operands if test.exact else ():
            if isinstance(operand, ir.Pattern) and operand.source.startswith("(?i"):
                yield Problem.of(operand.span, "exactly-caseless")


def regexes(view: View) -> Iterator[Problem]:
    """`regex-nothing`, `regex-anchor`, `regex-everything`, `regex-dot`."""
    for pattern, subject in _searched(view):
        if wrong := _impossible(pattern.source, pattern.flags):
            code, sign = wrong
            yield Problem.of(pattern.span, code, sign=sign)
        elif _matches_all(pattern):
            yield Problem.of(pattern.span, "regex-everything")
        elif _has_bare_dot(pattern.source, subject):
            yield Problem.of(pattern.span, "regex-dot")


def _searched(view: View) -> Iterator[tuple[ir.Pattern, ir.Subject]]:
    """The regular expressions, and what they are searched in."""
    nodes: Iterator[ir.Compare | ir.Score] = view.all(ir.Compare, ir.Score)
    for node in nodes:
        for pattern in node.operands if isinstance(node, ir.Compare) else (node.pattern,):
            if isinstance(pattern, ir.Pattern) and node.subject:
                yield pattern, node.subject


def _steps(source: str) -> list[tuple[str, bool]]:
    """The pieces of a regular expression, each with: may it be left out?"""
    steps: list[tuple[str, bool]] = []
    for piece in _PIECE.findall(source):
        if steps and _COUNT.match(piece):
            steps[-1] = (steps[-1][0], steps[-1][1] or bool(_MAYBE.match(piece)))
        else:
            steps.append((piece, False))
    return steps


def _takes_a_character(piece: str, may_miss: bool) -> bool:
    return not (may_miss or piece in _NO_CHARACTERS or piece.startswith(("(", r"\Q")))


def _impossible(source: str, flags: str) -> tuple[str, str] | None:
    """What in a regular expression can match nothing: the code of the warning, and the sign."""
    steps = _steps(source)
    for piece, _ in steps:
        if _EMPTY_CLASS.fullmatch(piece):
            return "regex-nothing", piece
    if "m" in flags or any(_LINES.match(piece) for piece, _ in steps):
        return None  # there are lines, which begin and end in the middle
    for one, other in pairwise(steps):
        if other == ("^", False) and _takes_a_character(*one):
            return "regex-anchor", "^"
        if one == ("$", False) and _takes_a_character(*other):
            return "regex-anchor", "$"
    return None


def _matches_all(pattern: ir.Pattern) -> bool:
    """It matches wherever it is tried, as it matches nothing at all, and keeps nothing."""
    if not _ANCHORS.isdisjoint(_PIECE.findall(pattern.source)):
        return False
    compiled = compile_regex(pattern.source, pattern.flags)
    return compiled.groups == 0 and compiled.search(b"") is not None


def _has_bare_dot(source: str, subject: ir.Subject) -> bool:
    """A domain whose dots were not escaped, where one is looked for or by its last label."""
    found = _DOMAIN.fullmatch(source)
    if found is None:
        return False
    about = aspect(subject)
    return (
        about in ("address", "path", "address field", "domain")
        or subject.name in _DOMAIN_SUBJECTS
        or {name.lower() for name in subject.arguments} == {"list-id"}
        or found["last"].lower() in _TOPMOST
    )
