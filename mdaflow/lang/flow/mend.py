"""What is never right, and what could not be read: out of the tokens, and out of the tree.

A semicolon, an operator of another language or a quote that is not closed is reported, and
replaced by what was meant, so that the parser need not stumble over it. Behind the parser, what
stands on a line with an error is left out of the tree, so that nobody judges what could not be
read; names that others need stay.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from mdaflow.lang.source import MAX_PROBLEMS, Problem, Source

from . import hints
from .driver import Token, Tree, lex

JUNK = {
    "OPEN_LONG": ("open-long-string", '""'),
    "QUOTE": ("open-string", '""'),
    "OPEN_REGEX": ("open-regex", "/x/"),
    "BARE_DATE": ("bare-time", '"2026-12-31"'),
    "BARE_CLOCK": ("bare-time", '"22:00"'),
    "BAD_NUMBER": ("no-number", "1"),
    "SINGLE_QUOTED": ("single-quotes", '""'),
    "CURLY_QUOTED": ("curly-quotes", '""'),
    "LINE_COMMENT": ("line-comment", ""),
    "SEMICOLON": ("semicolon", ""),
    "C_OPERATOR": ("c-operator", ""),
    "UNKNOWN": ("meaningless", ""),
}
"""Tokens that are never right: the message, and what was meant."""
_SWALLOW = {"OPEN_LONG", "QUOTE", "OPEN_REGEX"}
"""Nobody knows where they were meant to end."""
_VAGUE = {*_SWALLOW, "UNKNOWN"}
"""Nobody knows what they were meant to be."""
_LONE_QUOTES = set("'“”„«»‘’")
_BRACES = re.compile(r"\{[\w.|,]*\}|([{}])")
"""A hole or a repetition, or the brace of a block."""
_SIGN = re.compile("|".join(map(re.escape, sorted(hints.OPERATORS, key=len, reverse=True))))

_LISTS = ("start", "block", "test")
"""What has parts of which each can be left out."""
_CONDITION = {"rule": 1, "if": 0, "elif": 0}
"""What has a condition, and where; its block comes next."""
_GROUP_NAME = re.compile(r"\?P<([A-Za-z_]\w*)>", re.ASCII)
_MAX_NAMES = 20


def never_right(source: Source, token: Any) -> Problem:
    """The problem of a token of `JUNK`."""
    start, word = token.start_pos, str(token)
    here = source.text[start : start + 2]
    hint = next((said for pattern, said in hints.MEANINGLESS if re.match(pattern, here)), "")
    if word == "-":
        before = source.text[max(0, start - 80) : start].rpartition("\n")[2]
        hint = hints.hyphened(before, source.text[start : start + 80]) or hint
    shown = f"'{word}'" if word.isprintable() else f"U+{ord(word[0]):04X}"
    values = {"word": shown, "meant": hints.OPERATORS.get(word, ""), "hint": hint}
    return Problem.of(source.span(start, token.end_pos), JUNK[token.type][0], **values)


def new(kind: str, text: str, start: int, end: int) -> Token:
    """A token for a place of the text."""
    token = Token(text)
    token.type, token.start_pos, token.end_pos = kind, start, end
    return token


class Mending:
    """The tokens of a text, and what is known of its lines."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.problems: list[Problem] = []
        self.unless: dict[int, Problem] = {}
        """Line -> what is said of it if there is nothing else."""
        self.doubtful: dict[int, int] = {}
        """Line -> offset from which on nothing more is said of it."""
        self.replaced: set[int] = set()
        """Offsets of tokens that stand for others."""
        self.unread: set[int] = set()
        """Lines that were not understood."""
        self.swallowed: set[int] = set()
        """Lines of which nobody knows how they were meant to end."""

    def tokens(self, tokens: Iterable[Token]) -> Iterator[Token]:
        """The tokens, with what was meant in the place of what is never right."""
        read, left_out = 0, False
        for token in tokens:
            if token.start_pos < read:
                continue
            whole = self._whole(token)
            read = whole.end_pos
            if left_out:  # what comes next need not fit
                self.replaced.add(token.start_pos)
            found = [*self._meant(whole)] if whole.type in JUNK else [token]
            left_out = not found
            yield from found

    def _whole(self, token: Token) -> Token:
        """A token with those behind it that belong to it in other languages."""
        text, start = self.source.text, token.start_pos
        sign = _SIGN.match(text, start)
        if sign and (len(sign[0]) > len(token) or token.type == "C_OPERATOR"):
            return new("C_OPERATOR", sign[0], start, sign.end())
        if token.startswith("/*"):
            end = text.find("*/", start) + 2
            return new("LINE_COMMENT", "/*", start, end if end > 1 else token.end_pos)
        return token

    def _meant(self, token: Token) -> Iterator[Token]:
        start, end, word, kind = token.start_pos, token.end_pos, str(token), token.type
        vague = kind in _VAGUE or word in _LONE_QUOTES
        self._report(token, vague)
        meant = JUNK[kind][1]
        if kind == "C_OPERATOR":
            meant = hints.OPERATORS[word]
        elif kind in ("SINGLE_QUOTED", "CURLY_QUOTED") and not re.search(r'^.?$|["\\]', word):
            meant = f'"{word[1:-1]}"'
        for piece in lex(meant):
            yield new(piece.type, str(piece), start, end)
        for brace in _BRACES.finditer(word if vague else ""):
            if brace[1]:
                at = start + brace.start()
                yield new("LBRACE" if brace[1] == "{" else "RBRACE", brace[1], at, at + 1)

    def _report(self, token: Token, vague: bool) -> None:
        """Say what is never right; behind what is vague nothing is sure in its line."""
        if len(self.problems) + len(self.unless) >= MAX_PROBLEMS:
            return
        problem = never_right(self.source, token)
        line, end = problem.span.line, problem.span.end_line
        if token.type not in ("UNKNOWN", "OPEN_REGEX") and token not in _LONE_QUOTES:
            self.problems.append(problem)
        elif line not in self.doubtful:
            self.unless[line] = problem
        if vague:
            self.doubtful.setdefault(line, token.start_pos)
            if end != line or token.type == "QUOTE":
                self.doubtful[end] = 0
            self.unread |= {line, end}
            if token.type in _SWALLOW:
                self.swallowed.add(end)
        else:
            self.replaced.add(token.start_pos)


def _completed(test: Tree) -> None:
    """Put in what a test must have, for what was left out."""
    start, end = test.start_pos, test.end_pos
    message = [new("MESSAGE", "message", start, end), new("STRING", '""', start, end)]
    needed: dict[str, list[Any]] = {
        "message": message,
        "expect": [None, Tree("keep", [], start, end)],
    }
    missing = needed.keys() - {getattr(child, "data", "") for child in test.children}
    test.children += [Tree(data, needed[data], start, end) for data in sorted(missing)]


def leave_out(tree: Any, source: Source, lines: Sequence[int]) -> None:
    """Take what stands on some lines, which are sorted, out of a tree."""
    todo = [tree] if lines else []
    while todo:
        node = todo.pop()
        children = []
        for child in node.children:
            if isinstance(child, Tree) and _has_any(child, child.end_pos, source, lines):
                if node.data in _LISTS and not _is_needed(child):
                    continue
                todo.append(child)
            children.append(child)
        node.children[:] = children
        if node.data == "test":
            _completed(node)
        if node.data == "score":
            node.children[-1] = None
        at = _CONDITION.get(node.data)
        if at is not None and _has_any(node, node.children[at + 1].start_pos, source, lines):
            node.children[at] = _condition(source.text, node, node.children[at + 1].start_pos)


def _has_any(node: Tree, end: int, source: Source, lines: Sequence[int]) -> bool:
    """Is one of the lines between the beginning of a node and an offset?"""
    span = source.span(node.start_pos, end)
    first = bisect_left(lines, span.line)
    return first < len(lines) and lines[first] <= span.end_line


def _is_needed(node: Tree) -> bool:
    """Do others need it, for what stands in it or for its name?"""
    if node.data in ("list", "set", "score"):
        return any(isinstance(child, Token) and child.type == "WORD" for child in node.children)
    return node.data in ("rule", "if", "test")


def _condition(text: str, node: Tree, end: int) -> Tree:
    """One that surely is right, with all groups that the statements below it may ask for."""
    start = node.start_pos
    names = sorted({*_GROUP_NAME.findall(text, start, end)})[:_MAX_NAMES]
    groups = "()" * 9 + "".join(f"(?P<{name}>)" for name in names)
    regex = Tree("regex", [new("REGEX", f"/{groups}/", start, end)], start, end)
    subject = Tree("subject", [new("WORD", "subject", start, end), None], start, end)
    relation = Tree("matches", [Tree("value", [regex], start, end)], start, end)
    return Tree("comparison", [subject, relation], start, end)
