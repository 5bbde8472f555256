"""Running programs on a message: stages in, one Plan out. Pure: nothing happens to the mail.

A program is compiled once into closures (compile.py) and run often. Three stages, the site's
`before`, the user's, the site's `after`, run into one Plan. An error in the user's stage drops
what that stage planned, keeps what came before and adds a keep; an error in a site stage is
for the caller: `EvaluationError`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from time import monotonic, thread_time
from typing import TypeVar

from mdaflow.lang import ir
from mdaflow.lang.source import Span
from mdaflow.mail.envelope import Envelope
from mdaflow.mail.message import Message

from .compile import CONTINUE, END, Compiled, Step, compile_block
from .facts import Ask, Context
from .plan import Action, Event, Plan, united
from .plan import EvaluationError as EvaluationError  # callers of `run` look for it here

T = TypeVar("T")
MAX_ACTIONS = 64
MAX_VARIABLES = 4 << 20
"""Characters of all variables together."""
MAX_CPU = 1.0
"""Seconds of CPU that all stages of one run may take (P31)."""
LOOK = 0.01
"""Seconds of real time between two looks at the clock of the CPU."""


class Stage:
    """A compiled program with its owner, "site" or "user"."""

    def __init__(self, program: ir.Program, owner: str = "user") -> None:
        self.owner = owner
        self.name = program.name
        self.block: Compiled = compile_block(program.body)


class Run:
    """The state of one run, which the closures read and write."""

    def __init__(self, context: Context, traced: bool) -> None:
        self.context = context
        self.cache: dict[object, object] = {}
        self.variables: dict[str, tuple[tuple[str, bool], ...]] = {}
        self.captures: dict[str, str] = {}
        self.pending: dict[str, str] = {}
        """Captures of the condition that is being tested; bound when it holds."""
        self.flags: frozenset[str] = frozenset()
        self.actions: list[Action] = []
        self.owner = "user"
        self.acted = False
        """The stage has planned an action."""
        self.texts_left = MAX_VARIABLES
        self.rule = ""
        self.depth = 0
        self.trace: list[Event] | None = [] if traced else None
        self._look_again = monotonic() + LOOK
        self._cpu_limit: float | None = None
        self.fold = cache(str.casefold)

    def act(self, act: ir.Act, folder: str, text: str) -> Step:
        """Plan an action."""
        flags = (
            self.flags | frozenset(act.flags) if act.verb in ("deliver", "keep") else frozenset()
        )
        action = Action(
            act.verb, folder, text, flags, not act.ends, self.owner, self.rule, act.span
        )  # fmt: skip
        if act.verb == "reject" and self.acted:
            raise EvaluationError(act.span, "a reject after an action of the same rules")
        self.acted = True
        if len(self.actions) >= MAX_ACTIONS:
            raise EvaluationError(act.span, f"more than {MAX_ACTIONS} actions")
        self.actions = united(self.actions, action)
        if self.trace is not None:
            self.trace.append(Event(self.depth, "action", act.span, str(action), None, None))
        return END if act.ends else CONTINUE

    def watch(self, span: Span) -> None:
        """End a run that takes too long.

        The CPU's clock is a system call, so it is asked only when real time has gone by.
        """
        now = monotonic()
        if now < self._look_again:
            return
        self._look_again = now + LOOK
        used = thread_time()
        if self._cpu_limit is None:
            self._cpu_limit = used + MAX_CPU
        elif used > self._cpu_limit:
            raise EvaluationError(span, f"more than {MAX_CPU:g} s of CPU in the rules")

    def watched(self, span: Span, items: Sequence[T]) -> Iterator[T]:
        """The items, with a look at the clock now and then."""
        for at, item in enumerate(items, 1):
            if at % 64 == 0:
                self.watch(span)
            yield item


def _nobody(_: object) -> None:
    return None


def run(
    program: ir.Program | Stage | Sequence[Stage],
    message: Message,
    envelope: Envelope | None = None,
    ask: Ask = _nobody,
    *,
    trace: bool = False,
    delimiters: str = "+",
) -> Plan:
    """The Plan for one message and one recipient.

    `program` is one program (the user's) or the stages in their order. `ask` answers the facts
    that the message cannot; None from it is unknown. Raises EvaluationError only for a rule of
    the site.
    """
    if isinstance(program, ir.Program):
        program = Stage(program)
    stages = [program] if isinstance(program, Stage) else program
    state = Run(Context(message, envelope or Envelope(), ask, delimiters), trace)
    errors: list[str] = []
    ended = any(_stage(state, stage, errors) == END for stage in stages)
    if not ended:
        keep = Action("keep", flags=state.flags, owner="site")
        state.actions = united(state.actions, keep)
    return Plan(tuple(state.actions), not ended, tuple(state.trace or ()), tuple(errors))


def _stage(state: Run, stage: Stage, errors: list[str]) -> Step:
    before, flags = state.actions, state.flags
    state.owner, state.acted = stage.owner, False
    state.variables, state.captures = {}, {}
    state.texts_left = MAX_VARIABLES
    state.rule, state.depth = "", 0
    try:
        return stage.block(state)
    except EvaluationError as error:
        if stage.owner == "site":
            raise
        errors.append(str(error))
        if state.trace is not None:
            state.trace.append(Event(0, "error", error.span, str(error), None, None))
        keep = Action("keep", flags=flags, owner="user", span=error.span)
        state.actions = united(before, keep)
        return END
