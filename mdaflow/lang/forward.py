r"""`.forward` files as programs: where the mail of a user goes, as sendmail and Postfix read it.

Each target becomes an action that goes on, the last one a final action: the message is not kept,
for it went elsewhere. A target that is the user, `\bob`, his name or his address, is no action: the
program stops, and the message goes on to the user's own rules and the inbox. A name without a
domain is in the domain of the user. Other users, too, get their mail by the next hop: nothing is
delivered from within a delivery. What stands there twice is done once. An empty file does nothing.

What programs and files take is for the owner's powers to allow, as in rules. No I/O.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from mdaflow.mail.address import without_detail
from mdaflow.mail.targets import Target, TargetError, mailbox_of, parse_targets, words

from . import ir
from .check import check
from .files import Gathering, Reader
from .limits import DEFAULTS, Limits
from .source import Problem, Source, SourceError, Span

MAX_ITEMS = 1000
"""Items of a file. A message meets fewer actions."""


def compile_forward(
    text: str | bytes,
    file: str,
    powers: Collection[str] = ir.POWERS,
    read: Reader | None = None,
    limits: Limits = DEFAULTS,
    *,
    whose: str = "",
    delimiters: str = "+",
) -> ir.Program:
    """The program of a `.forward` of the user whose address is `whose`.

    All else is as of `compile_rules`. Raises SourceError with every problem of the text.
    """
    front_end = _FrontEnd(whose.lower(), delimiters)
    gathering = Gathering(front_end, read, limits)
    program = gathering.program(text, file)
    program = program._replace(body=_ended(_once(program.body)))
    problems = gathering.problems + check(program, powers, rules=False)
    if problems:
        raise SourceError(problems, gathering.sources)
    return program


def _once(body: tuple[ir.Statement, ...]) -> list[ir.Statement]:
    """The actions without those that are there already: nobody gets a message twice. Among others,
    what drops the message does nothing."""
    first: dict[object, ir.Statement] = {}
    for statement in body:
        key: object = statement
        if isinstance(statement, ir.Act):
            said = tuple(text.literal for text in statement.operands if isinstance(text, ir.Text))
            key = statement.verb, str(said).casefold() if statement.verb == "forward" else said
        first.setdefault(key, statement)
    found = list(first.values())
    others = [s for s in found if not (isinstance(s, ir.Act) and s.verb == "discard")]
    return others or found


def _ended(body: list[ir.Statement]) -> tuple[ir.Statement, ...]:
    """The actions with the stop at the end, if there is one; else the last one is final."""
    acts = [s for s in body if not isinstance(s, ir.Stop)]
    stops = [s for s in body if isinstance(s, ir.Stop)][:1]
    if acts and not stops and isinstance(acts[-1], ir.Act):
        acts[-1] = acts[-1]._replace(ends=True, cancels=True)
    return *acts, *stops


class _FrontEnd:
    """Text to a program; who the user is decides what a name stands for."""

    def __init__(self, whose: str, delimiters: str) -> None:
        self._whose = whose
        self._delimiters = delimiters

    def __call__(self, source: Source) -> tuple[ir.Program, list[Problem]]:
        try:
            targets = parse_targets(source.text, by_line=True, most=MAX_ITEMS)
        except TargetError as error:
            span = source.span(error.start, error.end)
            return ir.Program(source.file, ()), [Problem(span, "target", str(error))]
        body = tuple(self._statement(source, target) for target in targets)
        return ir.Program(source.file, body), []

    def _statement(self, source: Source, target: Target) -> ir.Statement:
        span, text = source.span(target.start, target.end), source.text[target.start : target.end]
        if target.kind == "include":
            folder = source.file[: source.file.rfind("/") + 1]
            return ir.Include(span, target.value.removeprefix(folder))
        if target.kind in ("address", "user"):
            address = self._whole(target.value)
            if without_detail(address, self._delimiters).lower() == self._whose:
                return ir.Stop(span, text)
            return _act(span, text, "forward", address)
        verb, operands = _ACTS[target.kind](target.value)
        return _act(span, text, verb, *operands)

    def _whole(self, name: str) -> str:
        return name if "@" in name else f"{name}@{self._whose.rpartition('@')[2]}"


def _act(span: Span, text: str, verb: str, *operands: str) -> ir.Act:
    said = tuple(ir.Text(span, (operand,) if operand else ()) for operand in operands)
    options = ((("from_line", ir.Number(span, 1)),)) if verb == "pipe" else ()
    return ir.Act(span, text, verb, False, False, said, (), options)


_ACTS: dict[str, Callable[[str], tuple[str, tuple[str, ...]]]] = {
    "program": lambda command: ("pipe", words(command)),
    "file": lambda path: ("deliver", (mailbox_of(path),)),
    "nothing": lambda _: ("discard", ()),
    "fail": lambda text: ("reject", (text,)),
    "defer": lambda text: ("defer", (text,)),
}
"""The kind of a target -> the action that it is, and its operands."""
