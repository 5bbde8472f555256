"""The stack of the parser as a value: what fits on it, and what can stand where.

A stack is a state, its node, and the stack below it, as tuples: a trial changes nothing, and
leaves no trace.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

from .driver import lex, loaded_tables, make_node

MAX_STEPS, MAX_TRIAL = 1_000_000, 100
"""Reductions before a token is taken; a trial shall not cost more than it may bring."""
COMPLETE = frozenset(("RBRACE", "$END"))
"""What fits behind each statement."""

Stack = Any


@cache
def after(text: str) -> frozenset[str]:
    """The terminals that fit behind the beginning of a program."""
    stack = bottom()
    for token in lex(text):
        stack = step(stack, token.type)
    return fitting(stack)


@cache
def outside() -> frozenset[str]:
    """What stands in no block."""
    return after("") - after("if true {")


@cache
def starts() -> frozenset[str]:
    """What can stand first in a line, because what was before it is complete."""
    return after("") | after("if true {") | after('test "" {')


def bottom() -> Stack:
    """The stack before the first token."""
    return loaded_tables()[0]["start"], None, None


def step(stack: Stack, kind: str, node: Any = None, most: int = MAX_TRIAL) -> Stack:
    """The stack when a token was taken, None if it does not fit; with a node nodes are built."""
    tables, _ = loaded_tables()
    states, rules, end = tables["states"], tables["rules"], tables["end"]
    for _ in range(most):
        if kind == "$END" and stack[0] == end:
            return stack
        row = states[stack[0]]
        move = row.get(kind, row.get(""))
        if move is None:
            return None
        if move >= 0:
            return move, node, stack
        origin, name, length, children, nones, alone = rules[-1 - move]
        below = []
        for _ in range(length):
            below.append(stack[1])
            stack = stack[2]
        made = None if node is None else make_node(name, below[::-1], children, nones, alone)
        stack = states[stack[0]][origin], made, stack
    return None


def taken(stack: Stack, kinds: Iterable[str]) -> tuple[int, Stack]:
    """How many tokens fit, one behind the other, and the stack then."""
    count = 0
    for kind in kinds:
        then = step(stack, kind)
        if then is None:
            break
        stack = then
        count += 1
    return count, stack


def fits(stack: Stack, kinds: Sequence[str]) -> bool:
    """Do all fit?"""
    return taken(stack, kinds)[0] == len(kinds)


def fitting(stack: Stack) -> frozenset[str]:
    """The terminals of which each fits."""
    return frozenset(kind for kind in _terminals() if step(stack, kind) is not None)


@cache
def _terminals() -> frozenset[str]:
    rows = loaded_tables()[0]["states"]
    return frozenset(["$END"]).union(name for row in rows for name in row if name.isupper())


def is_complete(stack: Stack) -> bool:
    """Does a statement end here?"""
    return any(step(stack, kind) is not None for kind in COMPLETE)
