"""An LALR parser for the tables of grammar.py: right programs only, in one pass.

It gives the same tree as Lark does. Of a wrong program it says no more than that it is wrong;
stack.py and repair.py go over it again with the same tables.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from itertools import chain
from typing import Any

from . import grammar


class Token(str):
    """A piece of the text with its terminal and its offsets."""

    __slots__ = ("end_pos", "start_pos", "type")
    type: str
    start_pos: int
    end_pos: int

    @property
    def outer(self) -> tuple[int, int]:
        """As a Tree has it."""
        return self.start_pos, self.end_pos


class Tree:
    """A node: the name of its rule, what is below it, and its offsets.

    `outer` are the offsets with the parentheses around it, which belong to the node above.
    """

    __slots__ = ("children", "data", "end_pos", "outer", "start_pos")

    def __init__(self, data: str, children: list[Any], start_pos: int, end_pos: int) -> None:
        self.data = data
        self.children = children
        self.start_pos = start_pos
        self.end_pos = end_pos
        self.outer = start_pos, end_pos

    @property
    def meta(self) -> Tree:
        """Where Lark's trees have their offsets."""
        return self


class _Wrong(Exception):
    """The text is no program."""


@cache
def loaded_tables() -> tuple[grammar.Tables, re.Pattern[str]]:
    """The tables, and their lexer."""
    tables = grammar.load()
    return tables, re.compile(tables["lexer"])


def parse(text: str) -> Tree | None:
    """The tree of a program; None when the text is none."""
    try:
        return _parse(text)
    except _Wrong:
        return None


def _parse(text: str) -> Tree:
    tables, _ = loaded_tables()
    states, rules, end = tables["states"], tables["rules"], tables["end"]
    stack: list[int] = [tables["start"]]
    nodes: list[Any] = []
    for token in chain(lex(text), (None,)):
        kind = "$END" if token is None else token.type
        while True:
            row = states[stack[-1]]
            step = row.get(kind, row.get(""))
            if step is None:
                raise _Wrong
            if step >= 0:
                break
            origin, name, length, children, nones, alone = rules[-1 - step]
            below = nodes[len(nodes) - length :]
            del nodes[len(nodes) - length :], stack[len(stack) - length :]
            nodes.append(make_node(name, below, children, nones, alone))
            stack.append(states[stack[-1]][origin])
            if token is None and stack[-1] == end:
                break
        if token is not None:
            nodes.append(token)
            stack.append(step)
    tree: Tree = nodes[0]
    return tree


def lex(text: str) -> Iterator[Token]:
    """The pieces of a text without comments and space; it ends in _Wrong where there is none."""
    tables, lexer = loaded_tables()
    ignore, words = frozenset(tables["ignore"]), tables["words"]
    at, match = 0, lexer.match
    while at < len(text):
        piece = match(text, at)
        if piece is None:
            raise _Wrong
        end = piece.end()
        kind = piece.lastgroup
        if kind not in ignore:
            token = Token(text[at:end])
            token.type = words.get(token, kind) if kind == "WORD" else kind or ""
            token.start_pos, token.end_pos = at, end
            yield token
        at = end


def make_node(name: str, below: list[Any], children: list[Any], nones: int, alone: bool) -> Any:
    """The node that a rule makes of what is below it (see `grammar._rule`)."""
    inside: list[Any] = []
    for index, spliced, before in children:
        inside.extend([None] * before)
        child = below[index]
        if spliced and not inside:
            inside = child.children  # nobody else has it: a long list is not copied at each step
        elif spliced:
            inside.extend(child.children)
        else:
            inside.append(child)
    inside.extend([None] * nones)
    if alone and len(below) == 1:
        return inside[0]
    placed = [node.outer for node in below if node.end_pos]
    start, end = (placed[0][0], placed[-1][1]) if placed else (0, 0)
    if alone and len(inside) == 1:
        if isinstance(inside[0], Tree):
            inside[0].outer = start, end
        return inside[0]
    return Tree(name, inside, start, end)
