"""The words of a rule text with the comments between them, in statements and blocks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from . import driver

_BLANKS = " \t\r"
_DURATION = re.compile(r"([\d.]+)\s*(\w+)")
_BODIES = frozenset(("start", "block", "test"))
"""Rules of the grammar that have statements in them."""
_CONTINUES = frozenset(("ELIF", "ELSE", "OTHERWISE"))


class Note(NamedTuple):
    """A comment: whether it has the line for itself, and a blank one before it."""

    text: str
    alone: bool
    apart: bool


class Word(NamedTuple):
    """A token, or a whole list, with the comments between it and the next one."""

    kind: str
    text: str
    start: int
    notes: tuple[Note, ...] = ()
    apart: bool = False
    """A blank line is before it."""
    entries: tuple[Word, ...] = ()
    inner: tuple[Note, ...] = ()
    """The comments behind the `[` of a list."""
    hung: bool = False
    """Each entry of the list has a line."""

    @property
    def is_plain(self) -> bool:
        """It can stand within a line."""
        return not (self.notes or self.hung or "\n" in self.text)


class Block(NamedTuple):
    """Braces and what is between them."""

    opening: Word
    body: list[Statement]
    closing: Word
    is_short: bool
    """It was written on one line, and has one statement at most."""


class Statement(NamedTuple):
    """What begins in a line of a body: heads with their blocks, or words without one."""

    parts: list[tuple[list[Word], Block | None]]


def read(
    tree: Any, tokens: list[driver.Token], text: str
) -> tuple[tuple[Note, ...], list[Statement]]:
    """The comments before the first word, and the statements of a text."""
    first, *words = _with_lists(_words(tokens, text), text)
    return first.notes, _Reader(words, _starts(tree), text).body()


def nodes(tree: Any) -> Iterator[Any]:
    """A tree and all that is in it, but for tokens."""
    below = [tree]
    while below:
        node = below.pop()
        yield node
        below += (child for child in node.children if isinstance(child, driver.Tree))


def _starts(tree: Any) -> set[int]:
    """The offsets where statements begin."""
    bodies = (node.children for node in nodes(tree) if node.data in _BODIES)
    return {node.start_pos for body in bodies for node in body if isinstance(node, driver.Tree)}


def _words(tokens: list[driver.Token], text: str) -> Iterator[Word]:
    """Nothing, which has the comments before the first word, then all words, then the end."""
    ends = [0, *(token.end_pos for token in tokens)]
    starts = [*(token.start_pos for token in tokens), len(text)]
    gaps = [_gap(text[end:start]) for end, start in zip(ends, starts, strict=True)]
    yield Word("", "", 0, tuple(note._replace(alone=True) for note in gaps[0][0]))
    for token, (_, apart), (notes, _) in zip(tokens, gaps, gaps[1:], strict=False):
        said = _DURATION.sub(r"\1 \2", token) if token.type == "DURATION" else str(token)
        yield Word(token.type, said, token.start_pos, notes, apart)
    yield Word("$END", "", len(text))


def _gap(gap: str) -> tuple[tuple[Note, ...], bool]:
    """The comments between two words, and whether a blank line is before the second."""
    notes: list[Note] = []
    apart = False
    lines = gap.split("\n")
    for number, line in enumerate(lines):
        if said := line.strip(_BLANKS):
            notes.append(Note(said, number > 0, apart))
            apart = False
        elif 0 < number < len(lines) - 1:
            apart = True
    return tuple(notes), apart


def _joined_notes(notes: tuple[Note, ...], more: tuple[Note, ...]) -> tuple[Note, ...]:
    """Comments behind one word: only the first can end its line."""
    both = notes + more
    return both[:1] + tuple(note._replace(alone=True) for note in both[1:])


def _with_lists(words: Iterator[Word], text: str) -> Iterator[Word]:
    """The words, with lists as one; their commas go without saying."""
    for word in words:
        yield _list(word, words, text) if word.kind == "LSQB" else word


def _list(opening: Word, words: Iterator[Word], text: str) -> Word:
    """The list whose `[` was the last word."""
    entries: list[Word] = []
    for word in words:
        if word.kind == "RSQB":
            break
        if word.kind == "COMMA":
            entry = entries.pop()
            word = entry._replace(notes=_joined_notes(entry.notes, word.notes))
        entries.append(word)
    first = entries[0] if entries else opening
    hung = "\n" in text[opening.start : first.start] or any(e.notes for e in (opening, *entries))
    said = f"[{', '.join(entry.text for entry in entries)}]"
    return opening._replace(
        kind="ITEMS", text=said, notes=word.notes, inner=opening.notes, entries=tuple(entries),
        hung=hung,
    )  # fmt: skip


class _Reader:
    """Finds statements and blocks in the words."""

    def __init__(self, words: list[Word], starts: set[int], text: str) -> None:
        self.words = words
        self.starts = starts
        self.text = text
        self.at = 0

    def next(self) -> Word:
        """The next word, which is then behind us."""
        self.at += 1
        return self.words[self.at - 1]

    def body(self) -> list[Statement]:
        """The statements up to a `}` or the end."""
        found = []
        while self.words[self.at].kind not in ("RBRACE", "$END"):
            found.append(self.statement())
        return found

    def statement(self) -> Statement:
        """The statement that begins here."""
        parts: list[tuple[list[Word], Block | None]] = []
        while not parts or self.words[self.at].kind in _CONTINUES:
            head = [self.next()]
            while not self._ends(self.words[self.at]):
                head.append(self.next())
            has_block = self.words[self.at].kind == "LBRACE"
            parts.append((head, self.block(head) if has_block else None))
        return Statement(parts)

    def _ends(self, word: Word) -> bool:
        return word.kind in ("LBRACE", "RBRACE", "$END") or word.start in self.starts

    def block(self, head: list[Word]) -> Block:
        """The block that begins here; it takes the comments behind its head."""
        opening = self.next()
        opening = opening._replace(notes=_joined_notes(head[-1].notes, opening.notes))
        head[-1] = head[-1]._replace(notes=())
        body = self.body()
        closing = self.next()
        on_one_line = "\n" not in self.text[opening.start : closing.start]
        return Block(opening, body, closing, on_one_line and len(body) < 2 and not opening.notes)
