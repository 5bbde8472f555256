"""Text of a program, places in it, and messages that point at them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import NamedTuple

from mdaflow.errors import MdaflowError

MAX_PROBLEMS = 100
"""Problems that are said of one text, the first ones."""
MAX_SHOWN = 120
"""Characters of a line, or of what stands in a message, that are shown."""


class Span(NamedTuple):
    """A place in a file: lines and columns count from 1, the end is behind the last character."""

    file: str
    line: int
    column: int
    end_line: int
    end_column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"

    def covers(self, other: Span) -> bool:
        """The other place lies in this one."""
        return self.file == other.file and self[1:3] <= other[1:3] and other[3:] <= self[3:]

    @property
    def short(self) -> str:
        """File without its folder, and line: what a log line has room for."""
        return f"{self.file.rpartition('/')[2]}:{self.line}"


class Source:
    """A named text."""

    def __init__(self, text: str, file: str = "rules") -> None:
        self.text = text
        self.file = file

    @cached_property
    def _starts(self) -> list[int]:
        return [0, *(at + 1 for at, char in enumerate(self.text) if char == "\n")]

    def span(self, start: int, end: int) -> Span:
        """The place between two offsets."""
        line, end_line = bisect_right(self._starts, start), bisect_right(self._starts, end)
        return Span(
            self.file,
            line,
            start - self._starts[line - 1] + 1,
            end_line,
            end - self._starts[end_line - 1] + 1,
        )

    def line(self, number: int) -> str:
        """One line of the text, without its end."""
        start = self._starts[number - 1]
        end = self.text.find("\n", start)
        return self.text[start : len(self.text) if end < 0 else end]

    def decode_error(self, error: UnicodeDecodeError) -> Problem:
        """The problem of a file that is not UTF-8."""
        before = error.object[: error.start].decode("utf-8", "replace")
        span = Source(before + " ", self.file).span(len(before), len(before) + 1)
        return Problem.of(span, "not-utf8")


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong at a place, said to the author of the file."""

    span: Span
    code: str
    """Its key in the table of messages."""
    message: str

    @classmethod
    def of(cls, span: Span, code: str, /, **values: object) -> Problem:
        """The problem of a key, with what is filled in."""
        from .messages import ERRORS, WARNINGS  # only what is wrong pays for the texts

        text = ERRORS[code] if code in ERRORS else WARNINGS[code]
        return cls(span, code, text.format_map(values))

    @property
    def is_warning(self) -> bool:
        """The program can run all the same."""
        from .messages import WARNINGS

        return self.code in WARNINGS

    def __str__(self) -> str:
        return f"{self.span}: {_printable(self.message[: 4 * MAX_SHOWN])}"

    def show(self, source: Source) -> str:
        """The message, the line and a caret below the place."""
        line = source.line(self.span.line).rstrip("\r")
        same_line = self.span.end_line == self.span.line
        end = (self.span.end_column if same_line else len(line) + 1) - 1
        at = self.span.column - 1
        cut = max(0, at - MAX_SHOWN // 2) if len(line) > MAX_SHOWN else 0
        line = _printable(line[cut : cut + MAX_SHOWN])
        lead = "".join(c if c == "\t" else " " for c in line[: at - cut])
        carets = "^" * max(1, min(end - at, len(line) - len(lead)))
        return f"{self}\n    {line}\n    {lead}{carets}"


def _printable(text: str) -> str:
    """A text that does nothing to a terminal, not even turn its direction round."""
    return "".join(char if char.isprintable() or char == "\t" else "\ufffd" for char in text)


class SourceError(MdaflowError):
    """A text that is no program: every problem found in it.

    `sources` are its files, if their lines shall be shown.
    """

    def __init__(self, problems: Iterable[Problem], sources: Iterable[Source] = ()) -> None:
        self.problems = tuple(
            sorted(set(problems), key=lambda p: (p.span, p.message))[:MAX_PROBLEMS]
        )
        self.sources = {source.file: source for source in sources}
        super().__init__("\n".join(map(self.show, self.problems)))

    def show(self, problem: Problem) -> str:
        """A problem with its line, if that is known."""
        source = self.sources.get(problem.span.file)
        return problem.show(source) if source else str(problem)


def near(word: str, known: Iterable[str]) -> str:
    """`; did you mean '…'?` for the word that was probably meant, else nothing."""
    from difflib import get_close_matches  # only errors pay for it

    # the comparison is slow: a file with thousands of names must not make it slow for others
    alike = (name for name in known if abs(len(name) - len(word)) < 5 and len(name) < 60)
    close = get_close_matches(word[:60], list(islice(alike, 200)), 1, 0.6)
    return f"; did you mean '{close[0]}'?" if close else ""


def one_of(words: Sequence[str]) -> str:
    """Words as a sentence: `a, b or c`."""
    return " or ".join(filter(None, (", ".join(words[:-1]), words[-1]))) if words else ""
