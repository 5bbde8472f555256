"""An LALR parser for wrong programs: it tells where each error is, and goes on behind it.

A token is tried before it is taken, so that at an error the stack is as it was, and what could
stand there is known exactly. Then small repairs are tried: to leave out the token or the one
before it, to put one in, to take another one instead (Burke and Fisher, "A practical method for
LR and LL syntactic error diagnosis and recovery", 1987). The one that lets the parser read
furthest is made. If none does, tokens are skipped up to where a statement or a block begins or
ends, and what was begun is ended there, or forgotten. All of it is bounded: after `MAX_ERRORS`
there is no tree.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

from .driver import Token, loaded_tables
from .mend import JUNK, new
from .stack import (
    COMPLETE,
    MAX_STEPS,
    Stack,
    after,
    bottom,
    fits,
    fitting,
    is_complete,
    outside,
    starts,
    step,
    taken,
)

MAX_ERRORS = 200
AHEAD, ENOUGH = 20, 3
"""Tokens from an error on that a repair shall make fit, and how many must."""
MAX_BACK = 100
"""Nodes that are forgotten to go on."""
MAX_TRIES = 100
"""Places that are tried to go on at."""

_TEXTS = {
    "STRING": '""', "LONG_STRING": '""', "NUMBER": "1", "DURATION": "1 day", "REGEX": "/x/",
    "WORD": "x", "COMPARE": "<", "CHANGE": "+=",
}  # fmt: skip
_NAME = re.compile(r'"?([^\W\d]\w*)"?')
_QUOTES = {"STRING": '"{}"', "WORD": "{}"}
"""Names that only have quotes, or have none."""
_ENDINGS = (
    (), ("STRING",), ("RSQB",), ("LSQB", "RSQB"), ("EQUAL", "STRING"), ("EQUAL", "LSQB", "RSQB"),
    ("LBRACE",), ("RPAR",), ("TRUE",), ("TRUE", "LBRACE"), ("IF", "TRUE"),
)  # fmt: skip
"""What ends something that was begun."""
_MISPLACED = frozenset(("WORD", "ELSE", "ELIF", "OTHERWISE", "WHEN"))
"""What begins a line only if a statement was meant to."""
_SIGNS = ("LBRACE", "RBRACE", "$END")


class Error(NamedTuple):
    """A token that does not fit."""

    token: Token
    before: Token
    begins_line: bool
    accepted: frozenset[str]
    """The terminals that fit."""
    block: Token | None
    """The brace of the block that is open."""


class _Repair(NamedTuple):
    """A stack, what is put on it, and the token with which the parser goes on."""

    stack: Stack
    put: tuple[str, ...]
    at: int


def read(tokens: Sequence[Token], text: str, report: Callable[[Error], str]) -> Any:
    """The tree of tokens, the last of which is `$END`; None when too much is wrong.

    `report` may answer with the terminal that was meant.
    """
    return _Parser(tokens, text, report).read()


def stand_in(kind: str, start: int, end: int, written: str = "") -> Token:
    """A token that is not written so."""
    words = {name: word for word, name in loaded_tables()[0]["words"].items()}
    name = _NAME.fullmatch(written) if kind in _QUOTES else None
    text = _QUOTES[kind].format(name[1]) if name else _TEXTS.get(kind) or words.get(kind, "")
    return new(kind, text, start, end)


class _Parser:
    def __init__(self, tokens: Sequence[Token], text: str, report: Callable[[Error], str]) -> None:
        self.tokens = tokens
        self.text = text
        self.report = report
        self.stack = bottom()
        self.at = 0
        self.errors = 0
        self.repaired = -1
        """The last token that did not fit."""
        self.in_one_line = False
        """We opened a block within a line."""
        self.closed = 0
        """Blocks that we ended, whose brace may still come."""

    def read(self) -> Any:
        while self.at < len(self.tokens):
            token = self.tokens[self.at]
            if self.in_one_line and self.begins_line(self.at):
                self.end_line()
            elif step(self.stack, token.type, None, MAX_STEPS) is not None:
                self.stack = step(self.stack, token.type, token, MAX_STEPS)
                self.at += 1
            elif token.type == "RBRACE" and self.closed:
                self.closed -= 1
                self.at += 1
            else:
                repair = self.repair(token)
                if repair is None:
                    return None
                self.make(repair)
        return self.stack[1]

    def end_line(self) -> None:
        """End a block that we opened within a line, if its brace was not there."""
        self.in_one_line = False
        if next(self.blocks(), None) == "" and fits(self.stack, ("RBRACE",)):
            self.make(_Repair(self.stack, ("RBRACE",), self.at))

    def make(self, repair: _Repair) -> None:
        """Go on where a repair says."""
        at = self.tokens[self.at - 1].end_pos if self.at else 0
        written = self.tokens[self.at] if repair.at > self.at else stand_in("", at, at)
        self.stack, self.at = repair.stack, repair.at
        self.in_one_line |= "LBRACE" in repair.put and not self.begins_line(self.at)
        for kind in repair.put:
            token = stand_in(kind, written.start_pos, written.end_pos, written)
            self.stack = step(self.stack, kind, token)

    def repair(self, token: Token) -> _Repair | None:
        """Where to go on; None if nowhere."""
        block, kind = next(self.blocks(), None), token.type
        if block == "" and fits(self.stack, ("RBRACE", *([] if kind in outside() else [kind]))):
            return _Repair(self.stack, ("RBRACE",), self.at)  # what we opened we close
        self.errors += 1
        if self.errors > MAX_ERRORS:
            return None
        if self.follows() and (found := self.fit(self.at, "STOP")):
            return found
        self.repaired = self.at
        accepted = fitting(self.stack)
        before = self.tokens[self.at - 1] if self.at else stand_in("", 0, 0)
        meant = self.report(Error(token, before, self.begins_line(self.at), accepted, block))
        if kind in outside() and "RBRACE" in accepted:
            return self.close(self.stack, (), self.at, sum(1 for _ in self.blocks()))
        return self.change(accepted, meant) or self.skip(accepted)

    def follows(self) -> bool:
        """Does a statement begin here, when the line before it was not understood?"""
        if self.repaired < 0 or not self.begins_line(self.at) or is_complete(self.stack):
            return False
        since = range(self.repaired + 1, self.at)
        begins = self.tokens[self.at].type in starts() | after("list")
        return begins and not any(map(self.begins_line, since))

    def close(self, stack: Stack, put: tuple[str, ...], at: int, blocks: int) -> _Repair:
        """End all blocks."""
        self.closed += blocks
        return _Repair(stack, put + ("RBRACE",) * blocks, at)

    def change(self, accepted: frozenset[str], meant: str) -> _Repair | None:
        """The change of one token that lets the parser read furthest."""
        ahead = [token.type for token in self.tokens[self.at : self.at + AHEAD]]
        named = _NAME.fullmatch(self.tokens[self.at])
        likely = [kind for kind in (meant, *(_QUOTES if named else ())) if kind in accepted]
        furthest, found = (0, False), None
        for stack, put, left_out in self.changes(accepted, likely):
            if not (rest := ahead[left_out:]):
                continue  # the end is not left out
            count, then = taken(stack, (*put, *rest))
            read = count - len(put)
            enough = 1 if left_out and put and put[0] in likely else ENOUGH
            # where a line ends, a statement better does so too
            end = self.at + left_out + read
            whole = read < len(rest) and self.begins_line(end) and is_complete(then)
            if read >= min(len(rest), enough) and (left_out + read, whole) > furthest:
                furthest = left_out + read, whole
                found = _Repair(stack, put, self.at + left_out)
            if furthest[0] == len(ahead):
                break
        return found

    def changes(
        self, accepted: frozenset[str], likely: list[str]
    ) -> Iterator[tuple[Stack, tuple[str, ...], int]]:
        """Stacks, what is put on them, and how many tokens are left out."""
        _, node, below = self.stack
        yield from ((self.stack, (kind,), 1) for kind in likely)
        if isinstance(node, Token) and not self.begins_line(self.at):
            yield below, (), 0
            yield from ((below, (kind,), 1) for kind in _kinds(fitting(below)))
        stays = self.is_first(self.at)
        if not stays:
            yield self.stack, (), 1
        for left_out in (0,) if stays else (0, 1):
            yield from ((self.stack, (kind,), left_out) for kind in _kinds(accepted))

    def skip(self, accepted: frozenset[str]) -> _Repair | None:
        """Leave out what cannot be read."""
        complete = bool(accepted & COMPLETE)  # then each line begins a statement
        for at in islice(self.places(complete), MAX_TRIES):
            kind = self.tokens[at].type
            if (kind in _SIGNS or kind in starts()) and (found := self.fit(at, kind)):
                return found
            if at > self.at and self.begins_line(at):
                return _Repair(self.stack, (), at) if complete else self.fit(at, "STOP")
        return None

    def places(self, complete: bool) -> Iterator[int]:
        """Where something can begin or end, outside of the blocks that are left out."""
        depth = 0
        for at in range(self.at, len(self.tokens)):
            token = self.tokens[at]
            kind = token.type
            begins = kind in _MISPLACED or (complete and token[:1].isalpha())
            if not depth and (
                kind in _SIGNS or self.is_first(at) or (begins and self.begins_line(at))
            ):
                yield at
            depth += (kind == "LBRACE") - (kind == "RBRACE" and depth > 0)

    def fit(self, at: int, kind: str) -> _Repair | None:
        """End or forget what was begun, until a token fits."""
        ends = ["RBRACE" for _ in self.blocks()] if kind in outside() else []
        stack = self.stack
        for _ in range(MAX_BACK):
            for put in _ENDINGS:
                if fits(stack, (*put, *ends, kind)):
                    return self.close(stack, put, at, len(ends))
            if stack[2] is None or _is(stack[1], "LBRACE", "RBRACE"):
                break
            stack = stack[2]
        return None

    def blocks(self) -> Iterator[Token]:
        """The braces that are open, the last one first."""
        stack, closed = self.stack, 0
        while stack is not None:
            _, node, stack = stack
            if _is(node, "RBRACE"):
                closed += 1
            elif _is(node, "LBRACE"):
                if not closed:
                    yield node
                closed = max(0, closed - 1)

    def is_first(self, at: int) -> bool:
        """Does the token begin a line, and what stands there?"""
        return self.tokens[at].type in starts() and self.begins_line(at)

    def begins_line(self, at: int) -> bool:
        """Is the token the first of its line?"""
        end = self.tokens[at - 1].end_pos if at else 0
        return not at or "\n" in self.text[end : self.tokens[at].start_pos]


def _kinds(accepted: frozenset[str]) -> list[str]:
    """Terminals that are tried; one name is as good as another."""
    names = after("list") - {"WORD"} if "WORD" in accepted else set()
    return sorted(accepted - names - JUNK.keys())


def _is(node: Any, *kinds: str) -> bool:
    return isinstance(node, Token) and node.type in kinds
