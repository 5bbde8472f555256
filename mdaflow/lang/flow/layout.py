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
from collections.abc import Sequence
from typing import Any

from mdaflow.lang import ir
from mdaflow.lang.limits import DEFAULTS
from mdaflow.lang.source import Problem, Source, SourceError

from . import driver, strings
from .form import Form
from .lines import HANGING, arranged, flat, space
from .lines import WIDTH as WIDTH
from .parse import parse_tree
from .pieces import Note, Statement, Word, nodes, read

INDENT = 4


def layout(text: str | bytes, file: str = "rules") -> str:
    """The text in the one layout; `file` names it in messages.

    Its names may mean nothing, but its syntax must be right: raises SourceError.
    """
    source = _source(text, file)
    tree, problems = parse_tree(source)
    tokens = [] if problems else list(driver.lex(source.text))
    if problems := problems or _problems(tree, tokens, source):
        raise SourceError(problems, [source])
    notes, statements = read(tree, tokens, source.text)
    page = _Page()
    page.notes(notes, 0)
    page.body(statements, 0)
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
    for node in nodes(tree):
        if node.data == "junk":
            form.junk(node)
    depth = 0
    for token in tokens:
        depth += (token.type == "LBRACE") - (token.type == "RBRACE")
        if depth > DEFAULTS.nesting:
            form.problem(token, "too-deep", most=DEFAULTS.nesting)
            break
    return form.problems


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

    def notes(self, notes: Sequence[Note], column: int) -> None:
        """Comments behind the last line."""
        for note in notes:
            if not note.alone:
                self.lines[-1] += f"  {note.text}"
                continue
            if note.apart:
                self.blank()
            self.lines.append(" " * column + note.text)

    def body(self, statements: list[Statement], column: int) -> None:
        """Statements of one level."""
        for statement in statements:
            if statement.parts[0][0][0].apart:
                self.blank()
            self.statement(statement, column)

    def statement(self, statement: Statement, column: int) -> None:
        """One statement with its blocks."""
        head, last = statement.parts[-1]
        if last is None:
            self.phrase(head, column, column)
        elif (line := flat(statement)) is not None and column + len(line) <= WIDTH:
            self.lines.append(" " * column + line)
            self.notes(last.closing.notes, column)
        else:
            self.blocks(statement, column)

    def blocks(self, statement: Statement, column: int) -> None:
        """Heads, each with its block below it; a `}` begins the line of the next head."""
        closed: list[Word] = []
        for head, block in statement.parts:
            assert block is not None
            self.phrase([*closed, *head, block.opening], column, column + INDENT)
            self.body(block.body, column + INDENT)
            closed = [block.closing]
            if block.closing.notes:
                self.phrase(closed, column, column)
                closed = []
        if closed:
            self.phrase(closed, column, column)

    def phrase(self, words: Sequence[Word], column: int, inside: int) -> None:
        """Words up to the end of a statement, or to its block; comments then go `inside`."""
        lines = arranged(words, column)
        following = [*(begin for begin, _ in lines[1:]), inside]
        for (begin, line), after in zip(lines, following, strict=True):
            self.line(line, begin, after)

    def line(self, words: Sequence[Word], column: int, after: int) -> None:
        """A line, which lists, strings and comments may break."""
        text, before = " " * column, None
        for word in words:
            text += space(before, word)
            if word.hung:
                self.entries(text, word, column)
                text = " " * column + "]"
            else:
                text += _moved(word.text, column)
            before = word
            if word.notes and word is not words[-1]:
                self.lines.append(text)
                self.notes(word.notes, column + HANGING)
                text, before = " " * (column + HANGING), None
        self.lines.append(text)
        if words[-1].kind == "LBRACE":
            self.top = len(self.lines)
        self.notes(words[-1].notes, after)

    def entries(self, text: str, items: Word, column: int) -> None:
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
