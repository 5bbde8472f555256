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

VERSION = 2
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
    """A list of literal strings: its entries, the name of one, or the file they stand in."""

    span: Span
    entries: tuple[str, ...] = ()
    name: str = ""
    file: str = ""
    """Absolute, or relative to the working directory, when the entries are read at run time."""


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
    each). `exact` compares octets, else Unicode caseless (casefold). The relation "true" has no
    operand: the subject itself is true or false.
    """

    span: Span
    text: str
    subject: Subject
    relation: str
    operands: tuple[Value, ...] = ()
    every: bool = False
    all: bool = False
    exact: bool = False


class Question(NamedTuple):
    """A test that the world answers: one of `QUESTIONS`, with arguments put together when it is
    asked."""

    span: Span
    text: str
    name: str
    arguments: tuple[Text, ...]


class Some(NamedTuple):
    """A test that holds if another one holds for one attachment (`every`: for all of them).

    In it the parts of the subject `over` are those of that attachment.
    """

    span: Span
    text: str
    over: str
    test: Test
    every: bool = False


class Join(NamedTuple):
    """Tests joined: `word` is "and", "or" or "not" (of one test)."""

    span: Span
    word: str
    tests: tuple[Test, ...]


class Constant(NamedTuple):
    """A test that is always so."""

    span: Span
    value: bool


Test = Compare | Question | Some | Join | Constant


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
    operands: tuple[Text, ...] = ()
    flags: tuple[str, ...] = ()
    options: tuple[tuple[str, Text | Number], ...] = ()


class Flag(NamedTuple):
    """An edit of the flags that stored copies get from here on: "add" or "remove"."""

    span: Span
    text: str
    operation: str
    flags: tuple[str, ...]


class Edit(NamedTuple):
    """An edit of the header, for what follows: "add", "set" or "remove".

    `value` is what the field says then. Fields are removed if the test holds for their value
    (none: all of the name).
    """

    span: Span
    text: str
    operation: str
    name: str
    value: Text | None = None
    test: Compare | None = None


class Filter(NamedTuple):
    """The message is replaced by what a program makes of it, within so many seconds."""

    span: Span
    text: str
    operands: tuple[Text, ...]
    within: float


class Score(NamedTuple):
    """Points are added to a running score: once, or for each match in the values of a subject.

    `most` bounds what one run of the statement adds, whatever its sign.
    """

    span: Span
    text: str
    name: str
    points: float
    pattern: Pattern | Text | None = None
    subject: Subject | None = None
    most: float | None = None


class Assign(NamedTuple):
    """A variable gets a value: a text, or a list of literal strings that is never changed."""

    span: Span
    name: str
    value: Text | Items


class Stop(NamedTuple):
    """The stage ends here."""

    span: Span
    text: str


class Alias(NamedTuple):
    """A recipient that stands for others. It is no step of a run: it holds before there is one."""

    span: Span
    name: str
    targets: tuple[str, ...]


class Include(NamedTuple):
    """Another file, in whose place its statements stand; none is left in a compiled program."""

    span: Span
    path: str


Statement = Branch | Act | Flag | Edit | Filter | Score | Assign | Stop | Alias | Include


class Given(NamedTuple):
    """What a case says of the world: a subject and its values."""

    span: Span
    name: str
    argument: str
    values: tuple[str | float | bool, ...]


class Expected(NamedTuple):
    """What a case expects: an action or a rule. `how` is "" (with its like it names all that is
    planned), "also" (one of several) or "not"."""

    span: Span
    text: str
    how: str
    act: Act | None = None
    rule: str = ""


class Case(NamedTuple):
    """A test of a program: a message, given facts, and what is expected of the run."""

    span: Span
    name: str
    message: str
    """The message itself, or with `file` the path of one, relative to the program's file."""
    file: bool
    given: tuple[Given, ...]
    expected: tuple[Expected, ...]


class Program(NamedTuple):
    """The statements of one file or folder of files, and the cases that stand beside them."""

    name: str
    body: tuple[Statement, ...]
    cases: tuple[Case, ...] = ()


ACTIONS = {
    "deliver": True, "keep": True, "discard": True, "reject": True, "defer": True,
    "forward": True, "pipe": True, "quarantine": True,
    "reply": False, "notify": False, "log": False, "remember": False, "learn": False,
}  # fmt: skip
"""What a plan can hold; whether it is final, so that a run may end with it."""

POWERS = (*ACTIONS, "filter", "command", "alias", "files")
"""What the owner of a program may be allowed: its actions, to put a program in the message's
way, to ask one, to name recipients, and to name mailboxes by absolute paths."""

QUESTIONS = {"listed": 1, "remembered": 1, "folder": 1, "command": None}
"""What can be asked of the world with arguments; how many, None for any number."""

RELATIONS = (
    "is", "contains", "starts", "ends", "glob", "regex", "in", "exists", "true",
    "=", "<", "<=", ">", ">=", "between",
)  # fmt: skip

FLAGS = ("\\Seen", "\\Answered", "\\Flagged", "\\Deleted", "\\Draft")
"""The system flags of IMAP (RFC 3501 section 2.3.2) that a delivery can set."""

FILTERS = {"lower": False, "upper": False, "slug": False, "first": True}
"""What a hole's value can go through; whether it takes a number."""
