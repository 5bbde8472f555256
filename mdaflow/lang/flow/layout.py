"""The one layout of a rule text.

Only what stands between words is changed, and the comma behind the last entry of a list. So the
program stays the same, and every comment stays between its words.

- One statement a line, four spaces for each level, one space between words; of several blank
  lines one is left, of those at the ends of a block none.
- `{` ends the line of its head. Blocks stay on one line when they were written so, each holds
  one statement at most, and all of it fits into `WIDTH` columns.
- What is too long is broken before `or`, else before `and`, then at the same within what is
  still too long; at the options of an action; at the facts of `given`.
- A list stands on one line. When it does not fit, or a line ended behind its `[`, each entry has
  a line.
- A string over several lines moves with its closing quotes, as long as its value stays the same.
- A comment before a `{` or a comma goes behind it.

Known limits: a long string or regular expression makes a long line, and the line ends in a
string over several lines stay as they are, be they CR LF.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator, Sequence
from itertools import pairwise, takewhile
from typing import Any, NamedTuple

from mdaflow.lang import ir
from mdaflow.lang.limits import DEFAULTS
from mdaflow.lang.source import Problem, Source, SourceError

from . import driver, strings
from .form import Form
from .parse import parse_tree

WIDTH = 100
"""Columns of a line."""
INDENT = 4
_HANGING = 8
"""How far a line goes in that continues one, and has nothing to stand under."""
_ROUNDS = 4
"""How often it is tried to hang only the lists that must be."""

_BLANKS = " \t\r"
_DURATION = re.compile(r"([\d.]+)\s*(\w+)")
_BODIES = frozenset(("start", "block", "test"))
"""Rules of the grammar that have statements in them."""
_BRACKETS = frozenset(("RPAR", "LBRACE"))
_CONTINUES = frozenset(("ELIF", "ELSE", "OTHERWISE"))
_BEFORE_VERB = frozenset(("RBRACE", "EXPECT", "ALSO", "NOT"))
_OPENERS = frozenset(("WHEN", "IF", "ELIF", "GIVEN", "LPAR"))
"""What goes on behind these stands under its beginning."""
_OPTIONS = {
    "DELIVER": {"WITH", "EXPIRE"},
    "KEEP": {"WITH", "EXPIRE"},
    "PIPE": {"WITHIN", "LOCKED"},
    "FILTER": {"WITHIN"},
    "REPLY": {"SUBJECT", "EVERY", "FROM"},
    "REMEMBER": {"FOR"},
    "SCORE": {"PER", "AT"},
}
"""Verb -> what can begin a line of its statement."""


class _Note(NamedTuple):
    """A comment: whether it has the line for itself, and a blank one before it."""

    text: str
    alone: bool
    apart: bool


class _Word(NamedTuple):
    """A token, or a whole list, with the comments between it and the next one."""

    kind: str
    text: str
    start: int
    notes: tuple[_Note, ...] = ()
    apart: bool = False
    """A blank line is before it."""
    entries: tuple[_Word, ...] = ()
    inner: tuple[_Note, ...] = ()
    """The comments behind the `[` of a list."""
    hung: bool = False
    """Each entry of the list has a line."""

    @property
    def is_plain(self) -> bool:
        """It can stand within a line."""
        return not (self.notes or self.hung or "\n" in self.text)


class _Block(NamedTuple):
    """Braces and what is between them."""

    opening: _Word
    body: list[_Statement]
    closing: _Word
    is_short: bool
    """It was written on one line, and has one statement at most."""


class _Statement(NamedTuple):
    """What begins in a line of a body: heads with their blocks, or words without one."""

    parts: list[tuple[list[_Word], _Block | None]]


_Line = tuple[int, Sequence[_Word]]
"""The column where a line begins, and what stands in it."""


def layout(text: str | bytes, file: str = "rules") -> str:
    """The text in the one layout; `file` names it in messages.

    Its names may mean nothing, but its syntax must be right: raises SourceError.
    """
    source = _source(text, file)
    tree, problems = parse_tree(source)
    tokens = [] if problems else list(driver._tokens(source.text))
    if problems := problems or _problems(tree, tokens, source):
        raise SourceError(problems, [source])
    first, *words = _with_lists(_words(tokens, source.text), source.text)
    page = _Page()
    page.notes(first.notes, 0)
    page.body(_Reader(words, _starts(tree), source.text).body(), 0)
    found = "".join(f"{line}\n" for line in page.lines)
    return _source(found.encode(), file).text  # what has become too large is no program any more


def _source(text: str | bytes, file: str) -> Source:
    source = Source("", file)
    if len(text) > DEFAULTS.file:
        most = f"{DEFAULTS.file >> 20} MiB"
        raise SourceError([Problem.of(source.span(0, 0), "too-large", most=most)])
    if isinstance(text, str):
        return Source(text, file)
    try:
        return Source(text.removeprefix(codecs.BOM_UTF8).decode(), file)
    except UnicodeDecodeError as error:
        raise SourceError([source.decode_error(error)]) from error


def _problems(tree: Any, tokens: list[driver.Token], source: Source) -> list[Problem]:
    """What the parser lets through: what is never right, and deep nesting."""
    form = Form(source)
    for node in _nodes(tree):
        if node.data == "junk":
            form.junk(node)
    depth = 0
    for token in tokens:
        depth += (token.type == "LBRACE") - (token.type == "RBRACE")
        if depth > DEFAULTS.nesting:
            form.problem(token, "too-deep", most=DEFAULTS.nesting)
            break
    return form.problems


def _nodes(tree: Any) -> Iterator[Any]:
    """A tree and all that is in it, but for tokens."""
    below = [tree]
    while below:
        node = below.pop()
        yield node
        below += (child for child in node.children if isinstance(child, driver.Tree))


# reading


def _starts(tree: Any) -> set[int]:
    """The offsets where statements begin."""
    bodies = (node.children for node in _nodes(tree) if node.data in _BODIES)
    return {node.start_pos for body in bodies for node in body if isinstance(node, driver.Tree)}


def _words(tokens: list[driver.Token], text: str) -> Iterator[_Word]:
    """Nothing, which has the comments before the first word, then all words, then the end."""
    ends = [0, *(token.end_pos for token in tokens)]
    starts = [*(token.start_pos for token in tokens), len(text)]
    gaps = [_gap(text[end:start]) for end, start in zip(ends, starts, strict=True)]
    yield _Word("", "", 0, tuple(note._replace(alone=True) for note in gaps[0][0]))
    for token, (_, apart), (notes, _) in zip(tokens, gaps, gaps[1:], strict=False):
        said = _DURATION.sub(r"\1 \2", token) if token.type == "DURATION" else str(token)
        yield _Word(token.type, said, token.start_pos, notes, apart)
    yield _Word("$END", "", len(text))


def _gap(gap: str) -> tuple[tuple[_Note, ...], bool]:
    """The comments between two words, and whether a blank line is before the second."""
    notes: list[_Note] = []
    apart = False
    lines = gap.split("\n")
    for number, line in enumerate(lines):
        if said := line.strip(_BLANKS):
            notes.append(_Note(said, number > 0, apart))
            apart = False
        elif 0 < number < len(lines) - 1:
            apart = True
    return tuple(notes), apart


def _joined_notes(notes: tuple[_Note, ...], more: tuple[_Note, ...]) -> tuple[_Note, ...]:
    """Comments behind one word: only the first can end its line."""
    both = notes + more
    return both[:1] + tuple(note._replace(alone=True) for note in both[1:])


def _with_lists(words: Iterator[_Word], text: str) -> Iterator[_Word]:
    """The words, with lists as one; their commas go without saying."""
    for word in words:
        yield _list(word, words, text) if word.kind == "LSQB" else word


def _list(opening: _Word, words: Iterator[_Word], text: str) -> _Word:
    """The list whose `[` was the last word."""
    entries: list[_Word] = []
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

    def __init__(self, words: list[_Word], starts: set[int], text: str) -> None:
        self.words = words
        self.starts = starts
        self.text = text
        self.at = 0

    def next(self) -> _Word:
        """The next word, which is then behind us."""
        self.at += 1
        return self.words[self.at - 1]

    def body(self) -> list[_Statement]:
        """The statements up to a `}` or the end."""
        found = []
        while self.words[self.at].kind not in ("RBRACE", "$END"):
            found.append(self.statement())
        return found

    def statement(self) -> _Statement:
        """The statement that begins here."""
        parts: list[tuple[list[_Word], _Block | None]] = []
        while not parts or self.words[self.at].kind in _CONTINUES:
            head = [self.next()]
            while not self._ends(self.words[self.at]):
                head.append(self.next())
            has_block = self.words[self.at].kind == "LBRACE"
            parts.append((head, self.block(head) if has_block else None))
        return _Statement(parts)

    def _ends(self, word: _Word) -> bool:
        return word.kind in ("LBRACE", "RBRACE", "$END") or word.start in self.starts

    def block(self, head: list[_Word]) -> _Block:
        """The block that begins here; it takes the comments behind its head."""
        opening = self.next()
        opening = opening._replace(notes=_joined_notes(head[-1].notes, opening.notes))
        head[-1] = head[-1]._replace(notes=())
        body = self.body()
        closing = self.next()
        on_one_line = "\n" not in self.text[opening.start : closing.start]
        return _Block(opening, body, closing, on_one_line and len(body) < 2 and not opening.notes)


# measuring


def _space(before: _Word | None, word: _Word) -> str:
    glued = before is None or before.kind == "LPAR" or word.kind in ("RPAR", "COMMA")
    return "" if glued else " "


def _columns(words: Sequence[_Word], column: int) -> Iterator[tuple[int, int]]:
    """Where each word of a line begins, and where its first line ends."""
    at, before = column, None
    for word in words:
        at += len(_space(before, word))
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
            at, before = column + _HANGING, None


def _fits(words: Sequence[_Word], column: int) -> bool:
    """They can be one line, which lists and strings may break."""
    return not any(word.notes for word in words[:-1]) and all(
        end <= WIDTH for _, end in _columns(words, column)
    )


def _flat(statement: _Statement) -> str | None:
    """A statement on one line; None when it shall not be."""
    pieces: list[str] = []
    between: tuple[_Note, ...] = ()
    for head, block in statement.parts:
        if between or not all(word.is_plain for word in head):
            return None
        pieces.append(_text(head))
        if block is not None:
            inside = [_flat(inner) for inner in block.body] if block.is_short else [None]
            if None in inside:
                return None
            pieces += ["{", *filter(None, inside), "}"]
            between = block.closing.notes
    return " ".join(pieces)


def _text(words: Sequence[_Word]) -> str:
    return "".join(
        _space(*pair) + pair[1].text for pair in zip((None, *words), words, strict=False)
    )


# breaking


def _joints(words: Sequence[_Word]) -> dict[int, int]:
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


def _split(words: Sequence[_Word], column: int, joints: dict[int, int]) -> list[_Line]:
    """The lines of what begins in a column."""
    level = min((joints[word.start] for word in words[1:] if word.start in joints), default=None)
    if level is None or _fits(words, column):
        return [(column, words)]
    cuts = [n for n, word in enumerate(words) if n and joints.get(word.start) == level]
    pieces = [words[a:b] for a, b in pairwise([0, *cuts, len(words)])]
    under = _under(words, column, cuts[0])
    far = column + _HANGING
    if under > WIDTH // 2 or any(_fits(p, far) and not _fits(p, under) for p in pieces[1:]):
        under = far
    lines = _split(pieces[0], column, joints)
    for piece in pieces[1:]:
        lines += _split(piece, under, joints)
    return lines


def _under(words: Sequence[_Word], column: int, cut: int) -> int:
    """The column of what a broken line stands under: the beginning of its condition."""
    depth = 0
    for at in range(cut - 1, -1, -1):
        kind = words[at].kind
        if depth == 0 and (kind in _OPENERS or (at == 0 and kind in ("AND", "OR"))):
            *_, (begin, _) = _columns(words[: at + 2], column)
            return begin
        depth += (kind == "RPAR") - (kind == "LPAR")
    return column + _HANGING


def _lines(words: Sequence[_Word], column: int, joints: dict[int, int]) -> list[_Line]:
    """The lines of a statement or of a head; `when` begins one if it helps."""
    lines = _split(words, column, joints)
    at = next((n for n, word in enumerate(words) if word.kind == "WHEN"), 0)
    if at and not _fits(lines[0][1], column):
        condition = _split(words[at:], column + _HANGING, joints)
        if _fits(condition[0][1], column + _HANGING):
            return [(column, words[:at]), *condition]
    return lines


def _arranged(words: Sequence[_Word], column: int) -> list[_Line]:
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


def _hung(column: int, words: Sequence[_Word]) -> Sequence[_Word]:
    """A line with its first list hung that does not fit, with the brackets behind it."""
    ends = [end for _, end in _columns(words, column)]
    for at, word in enumerate(words):
        if word.entries and not word.hung:
            closing = takewhile(lambda n: words[n].kind in _BRACKETS, range(at + 1, len(words)))
            if ends[max([at, *closing])] > WIDTH:
                return [*words[:at], word._replace(hung=True), *words[at + 1 :]]
    return words


# writing


class _Page:
    """The lines that are written."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.top = 0
        """Lines up to the bracket that was opened last: no blank line follows it."""

    def blank(self) -> None:
        """A blank line, but not behind an opening bracket."""
        if len(self.lines) > self.top:
            self.lines.append("")

    def notes(self, notes: Sequence[_Note], column: int) -> None:
        """Comments behind the last line."""
        for note in notes:
            if not note.alone:
                self.lines[-1] += f"  {note.text}"
                continue
            if note.apart:
                self.blank()
            self.lines.append(" " * column + note.text)

    def body(self, statements: list[_Statement], column: int) -> None:
        """Statements of one level."""
        for statement in statements:
            if statement.parts[0][0][0].apart:
                self.blank()
            self.statement(statement, column)

    def statement(self, statement: _Statement, column: int) -> None:
        """One statement with its blocks."""
        head, last = statement.parts[-1]
        if last is None:
            self.phrase(head, column, column)
            return
        flat = _flat(statement)
        if flat is not None and column + len(flat) <= WIDTH:
            self.lines.append(" " * column + flat)
            self.notes(last.closing.notes, column)
            return
        closed: list[_Word] = []
        for head, block in statement.parts:
            assert block is not None
            self.phrase([*closed, *head, block.opening], column, column + INDENT)
            self.body(block.body, column + INDENT)
            closed = [block.closing]
            if block.closing.notes or block is last:
                self.phrase(closed, column, column)
                closed = []

    def phrase(self, words: Sequence[_Word], column: int, inside: int) -> None:
        """Words up to the end of a statement, or to its block; comments then go `inside`."""
        lines = _arranged(words, column)
        following = [*(begin for begin, _ in lines[1:]), inside]
        for (begin, line), after in zip(lines, following, strict=True):
            self.line(line, begin, after)

    def line(self, words: Sequence[_Word], column: int, after: int) -> None:
        """A line, which lists, strings and comments may break."""
        text, before = " " * column, None
        for word in words:
            text += _space(before, word)
            if word.hung:
                self.entries(text, word, column)
                text = " " * column + "]"
            else:
                text += _moved(word.text, column)
            before = word
            if word.notes and word is not words[-1]:
                self.lines.append(text)
                self.notes(word.notes, column + _HANGING)
                text, before = " " * (column + _HANGING), None
        self.lines.append(text)
        if words[-1].kind == "LBRACE":
            self.top = len(self.lines)
        self.notes(words[-1].notes, after)

    def entries(self, text: str, items: _Word, column: int) -> None:
        """A list behind a text, without its `]`."""
        self.lines.append(f"{text}[")
        self.top = len(self.lines)
        self.notes(items.inner, column + INDENT)
        for entry in items.entries:
            if entry.apart:
                self.blank()
            self.lines.append(f"{' ' * (column + INDENT)}{entry.text},")
            self.notes(entry.notes, column + INDENT)


def _moved(text: str, column: int) -> str:
    """A string over several lines with its closing quotes in a column, if it stays the same."""
    first, *lines = text.split("\n")
    indent = lines[-1][:-3] if lines else text
    if indent.strip() or any(s.strip() and not s.startswith(indent) for s in lines):
        return text
    for number, line in enumerate(lines):
        if line.startswith(indent):
            rest = line[len(indent) :]
            lines[number] = " " * column + rest if rest.strip("\r") else rest
    moved = "\n".join([first, *lines])
    return moved if moved == text or _value(moved) == _value(text) else text


def _value(text: str) -> object:
    """What a long string says, with holes and without."""
    parts = strings.text(text, 0, Source(text), []).parts
    return strings.raw(text), [p[1:] if isinstance(p, ir.Hole) else p for p in parts]
