"""What is not seen in a text, or not put into it: hidden characters, `$x` of other languages."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Any
from unicodedata import name as name_of

from mdaflow.lang import ir
from mdaflow.lang.source import Problem, Span
from mdaflow.lang.subjects import SUBJECTS, split

from .view import View, literals, walk

_HIDDEN = re.compile(
    "[\u00ad\u061c\u180e\u200b\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff]"
    # joiners and marks of direction have their place between letters of some scripts, and emoji
    "|(?<![^\0-\x7f])[\u200c-\u200f]|[\u200c-\u200f](?![^\0-\x7f])"
)

_DOLLAR = re.compile(r"\$([^\W\d]\w*(?:\.[^\W\d]\w*)*|[0-9])(?!\w)")


def dollar(view: View) -> Iterator[Problem]:
    """`$x`, where something of that name could be put in."""
    variables = {assign.name for assign in view.all(ir.Assign)}
    folders = {id(t) for a in view.all(ir.Act) if a.verb == "deliver" for t in a.operands}
    for text in view.all(ir.Text):
        for sign, name in _dollars(text):
            # in other texts `$5` are dollars
            known = split(name)[0] in SUBJECTS or name in variables
            if known or (id(text) in folders and (name.isdecimal() or sign == text.literal)):
                yield Problem.of(text.span, "dollar", sign=sign, name=name)


def _dollars(text: ir.Text) -> Iterator[tuple[str, str]]:
    """The names behind a `$` in a text, and what is written there."""
    for part, behind in pairwise((*text.parts, "")):
        if isinstance(part, str):
            yield from ((found[0], found[1]) for found in _DOLLAR.finditer(part))
            if part.endswith("$") and isinstance(behind, ir.Hole):
                yield f"${{{behind.name}}}", behind.name


def hidden_character(view: View) -> Iterator[Problem]:
    """A character that turns the direction of a text, or cannot be seen in it at all."""
    for node in view.nodes:
        for span, char in _found_in(node):
            values = {"point": f"{ord(char):04X}", "name": name_of(char, "no name").lower()}
            yield Problem.of(span, "hidden-character", **values)


def _found_in(node: Any) -> Iterator[tuple[Span, str]]:
    """The characters that nobody sees in what a node was written as, and where they stand."""
    match node:
        case ir.Assign(value=value):
            for text in literals(value) if not _has_escapes(value) else ():
                # a text of nothing else is meant so, and was an escape, as far as can be known
                if (char := _hidden(text)) and _HIDDEN.sub("", text):
                    yield value.span, char
        case ir.Edit(test=ir.Compare()):
            pass  # its test says so
        case ir.Branch():  # so does its condition
            char = _hidden(node.name)
            if char and char in node.text and node.name != node.text:
                yield node.span, char
        case _ if char := _hidden(getattr(node, "text", "")):
            yield _place(node, char), char


def _hidden(text: str) -> str:
    """The first character of a text that is not seen where it should be; empty for none."""
    found = None if text.isascii() else _HIDDEN.search(text)
    return found[0] if found else ""


def _has_escapes(value: ir.Text | ir.Items) -> bool:
    """A string is not written as it is."""
    literal = value.literal if isinstance(value, ir.Text) else None
    _, line, column, end_line, end_column = value.span
    return literal is not None and line == end_line and end_column - column != len(literal) + 2


def _place(node: Any, char: str) -> Span:
    """The place of the value in a node that has a character; else that of the node."""
    values = (v for v in walk(tuple(node)) if isinstance(v, ir.Text | ir.Pattern | ir.Items))
    found = (v.span for v in values if any(char in text for text in literals(v)))
    span: Span = next(found, node.span)
    return span
