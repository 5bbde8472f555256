"""The intermediate representation: what a rule program means, in no language's words.

Front ends lower to it, `check` judges it, the engine runs it. Every node knows its place, and
tests and statements carry the text they were written as, which is how a trace names them.
Effects are explicit: an action says whether it ends the run and whether it cancels the
implicit keep, so that other filter languages fit without a new node.

Nodes are named tuples, not dataclasses: to define these would be a tenth of the time that
`mdaflow test` takes. They are told apart by their type, never by comparing.
"""

from __future__ import annotations

from typing import NamedTuple

from .source import Span

VERSION = 1
"""Raised when the meaning of a node changes: programs dumped before it are not loaded."""


class Hole(NamedTuple):
    """A value put into a text: a capture, a variable or a subject, through filters."""

    span: Span
    name: str
    argument: str = ""
    filters: tuple[tuple[str, int], ...] = ()


class Text(NamedTuple):
    """A string: literal pieces and holes."""

    span: Span
    parts: tuple[str | Hole, ...]

    @property
    def literal(self) -> str | None:
        """The string itself when nothing is put into it."""
        if not self.parts:
            return ""
        return self.parts[0] if len(self.parts) == 1 and isinstance(self.parts[0], str) else None


class Pattern(NamedTuple):
    """A regular expression (RE2) with its flags: `c` case counts, `s` and `m` as in RE2."""

    span: Span
    source: str
    flags: str = ""


class Number(NamedTuple):
    """A number; bytes when a size was written, seconds when a duration was."""

    span: Span
    amount: float


class Items(NamedTuple):
    """A list of literal strings, or the name of one."""

    span: Span
    entries: tuple[str, ...] = ()
    name: str = ""


Value = Text | Pattern | Number | Items


class Subject(NamedTuple):
    """What a test looks at: `from.domain`, `header "X"`. `raw` asks for undecoded text."""

    span: Span
    name: str
    part: str = ""
    arguments: tuple[str, ...] = ()
    raw: bool = False

    @property
    def words(self) -> str:
        """The subject as it is written."""
        return f"{self.name}.{self.part}" if self.part else self.name


class Compare(NamedTuple):
    """A test: a relation between the values of a subject and operands.

    It holds if any value does (`every`: all of at least one), for any operand (`all`: for
    each). `exact` compares octets, else Unicode caseless (casefold).
    """

    span: Span
    text: str
    subject: Subject
    relation: str
    operands: tuple[Value, ...] = ()
    every: bool = False
    all: bool = False
    exact: bool = False


class Join(NamedTuple):
    """Tests joined: `word` is "and", "or" or "not" (of one test)."""

    span: Span
    word: str
    tests: tuple[Test, ...]


class Constant(NamedTuple):
    """A test that is always so."""

    span: Span
    value: bool


Test = Compare | Join | Constant


class Branch(NamedTuple):
    """A block under a condition (none: always), and what is done otherwise.

    With a name it is a rule: the name is what traces, logs and coverage show.
    """

    span: Span
    text: str
    name: str
    test: Test | None
    body: tuple[Statement, ...]
    otherwise: tuple[Statement, ...] = ()


class Act(NamedTuple):
    """An action: `verb` is one of `ACTIONS`.

    `ends`: the run ends after it. `cancels`: the message is not kept for want of a final action.
    """

    span: Span
    text: str
    verb: str
    ends: bool
    cancels: bool
    operand: Text | None = None
    flags: tuple[str, ...] = ()


class Flag(NamedTuple):
    """An edit of the flags that stored copies get from here on: "add" or "remove"."""

    span: Span
    text: str
    operation: str
    flags: tuple[str, ...]


class Assign(NamedTuple):
    """A variable gets a value: a text, or a list of literal strings that is never changed."""

    span: Span
    name: str
    value: Text | Items


class Stop(NamedTuple):
    """The stage ends here."""

    span: Span
    text: str


Statement = Branch | Act | Flag | Assign | Stop


class Program(NamedTuple):
    """The statements of one file or folder of files."""

    name: str
    body: tuple[Statement, ...]


ACTIONS = ("deliver", "keep", "discard", "reject", "defer")
"""What a plan can hold: store in a folder, store in the inbox, drop, refuse, ask to come again."""

RELATIONS = (
    "is", "contains", "starts", "ends", "glob", "regex", "in", "exists", "true",
    "=", "<", "<=", ">", ">=", "between",
)  # fmt: skip

FLAGS = ("\\Seen", "\\Answered", "\\Flagged", "\\Deleted", "\\Draft")
"""The system flags of IMAP (RFC 3501 section 2.3.2) that a delivery can set."""

FILTERS = {"lower": False, "upper": False, "slug": False, "first": True}
"""What a hole's value can go through; whether it takes a number."""
