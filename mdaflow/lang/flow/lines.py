"""How a statement is broken into lines; what is wanted is said in layout.py.

Words are measured in the column where they would stand. A line is broken at its joints of the
least level, then each piece that is still too long. Lists are hung, each entry in a line, when
nothing else helps.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise, takewhile

from mdaflow.lang.limits import DEFAULTS

from .pieces import Note, Statement, Word

WIDTH = 100
"""Columns of a line."""
HANGING = 8
"""How far a line goes in that continues one, and has nothing to stand under."""
_ROUNDS = 4
"""How often it is tried to hang only the lists that must be."""

_BRACKETS = frozenset(("RPAR", "LBRACE"))
_BEFORE_VERB = frozenset(("RBRACE", "EXPECT", "ALSO", "NOT"))
_OPENERS = frozenset(("WHEN", "IF", "ELIF", "GIVEN", "LPAR"))
"""What goes on behind these stands under its beginning."""
_OPTIONS = {
    "DELIVER": {"WITH", "EXPIRE"},
    "KEEP": {"WITH", "EXPIRE"},
    "PIPE": {"WITHIN", "LOCKED"},
    "FILTER": {"WITHIN"},
    "REPLY": {"HTML", "SUBJECT", "EVERY", "FROM", "AS", "BETWEEN"},
    "REMEMBER": {"FOR"},
    "SCORE": {"PER", "AT"},
}
"""Verb -> what can begin a line of its statement."""

Line = tuple[int, Sequence[Word]]
"""The column where a line begins, and what stands in it."""


def space(before: Word | None, word: Word) -> str:
    """What stands between two words of a line."""
    glued = before is None or before.kind == "LPAR" or word.kind in ("RPAR", "COMMA")
    return "" if glued else " "


def _columns(words: Sequence[Word], column: int) -> Iterator[tuple[int, int]]:
    """Where each word of a line begins, and where its first line ends."""
    at, before = column, None
    for word in words:
        at += len(space(before, word))
        first, _, rest = word.text.partition("\n")
        yield at, at + (1 if word.hung else len(first))
        if word.hung:
            at = column + 1
        elif rest:
            *_, last = rest.rsplit("\n", 1)  # quotes that are alone will stand at the column
            at = len(last) if last[:-3].strip() else column + 3
        else:
            at += len(first)
        before = word
        if word.notes:
            at, before = column + HANGING, None


def _fits(words: Sequence[Word], column: int) -> bool:
    """They can be one line, which lists and strings may break."""
    return not any(word.notes for word in words[:-1]) and all(
        end <= WIDTH for _, end in _columns(words, column)
    )


def flat(statement: Statement) -> str | None:
    """A statement on one line; None when it shall not be."""
    pieces: list[str] = []
    between: tuple[Note, ...] = ()
    for head, block in statement.parts:
        if between or not all(word.is_plain for word in head):
            return None
        pieces.append(_text(head))
        if block is not None:
            inside = [flat(inner) for inner in block.body] if block.is_short else [None]
            if None in inside:
                return None
            pieces += ["{", *filter(None, inside), "}"]
            between = block.closing.notes
    return " ".join(pieces)


def _text(words: Sequence[Word]) -> str:
    pairs = zip((None, *words), words, strict=False)
    return "".join(space(before, word) + word.text for before, word in pairs)


def _joints(words: Sequence[Word]) -> dict[int, int]:
    """Where a line can be broken: offset -> level, the least goes first."""
    found: dict[int, int] = {}
    verb = next((word.kind for word in words if word.kind not in _BEFORE_VERB), "")
    options = _OPTIONS.get(verb, set())
    depth, between = 0, False
    for before, word in pairwise(words):
        depth += (word.kind == "LPAR") - (word.kind == "RPAR")
        if word.kind == "AND" and between:
            between = False
        elif word.kind in ("OR", "AND") and depth < DEFAULTS.nesting:
            found[word.start] = 2 * depth + (word.kind == "AND")
        elif word.kind in options or before.kind == "COMMA":
            found[word.start] = 0
        between = between or word.kind == "BETWEEN"
    return found


def _split(words: Sequence[Word], column: int, joints: dict[int, int]) -> list[Line]:
    """The lines of what begins in a column."""
    level = min((joints[word.start] for word in words[1:] if word.start in joints), default=None)
    if level is None or _fits(words, column):
        return [(column, words)]
    cuts = [n for n, word in enumerate(words) if n and joints.get(word.start) == level]
    pieces = [words[a:b] for a, b in pairwise([0, *cuts, len(words)])]
    under = _under(words, column, cuts[0])
    far = column + HANGING
    if under > WIDTH // 2 or any(_fits(p, far) and not _fits(p, under) for p in pieces[1:]):
        under = far
    lines = _split(pieces[0], column, joints)
    for piece in pieces[1:]:
        lines += _split(piece, under, joints)
    return lines


def _under(words: Sequence[Word], column: int, cut: int) -> int:
    """The column of what a broken line stands under: the beginning of its condition."""
    depth = 0
    for at in range(cut - 1, -1, -1):
        kind = words[at].kind
        if depth == 0 and (kind in _OPENERS or (at == 0 and kind in ("AND", "OR"))):
            *_, (begin, _) = _columns(words[: at + 2], column)
            return begin
        depth += (kind == "RPAR") - (kind == "LPAR")
    return column + HANGING


def _lines(words: Sequence[Word], column: int, joints: dict[int, int]) -> list[Line]:
    """The lines of a statement or of a head; `when` begins one if it helps."""
    lines = _split(words, column, joints)
    at = next((n for n, word in enumerate(words) if word.kind == "WHEN"), 0)
    if at and not _fits(lines[0][1], column):
        condition = _split(words[at:], column + HANGING, joints)
        if _fits(condition[0][1], column + HANGING):
            return [(column, words[:at]), *condition]
    return lines


def arranged(words: Sequence[Word], column: int) -> list[Line]:
    """The lines, with lists hung where they must be. To do it again changes nothing."""
    joints = _joints(words)
    for _ in range(_ROUNDS):
        lines = _lines(words, column, joints)
        hung = [word for line in lines for word in _hung(*line)]
        if hung == words:
            return lines
        words = hung
    every = [word._replace(hung=word.hung or bool(word.entries)) for word in words]
    return _lines(every, column, joints)


def _hung(column: int, words: Sequence[Word]) -> Sequence[Word]:
    """A line with its first list hung that does not fit, with the brackets behind it."""
    ends = [end for _, end in _columns(words, column)]
    for at, word in enumerate(words):
        if word.entries and not word.hung:
            closing = takewhile(lambda n: words[n].kind in _BRACKETS, range(at + 1, len(words)))
            if ends[max([at, *closing])] > WIDTH:
                return [*words[:at], word._replace(hung=True), *words[at + 1 :]]
    return words
