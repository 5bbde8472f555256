"""Running programs on a message: stages in, one Plan out. Pure: nothing happens to the mail.

A program is compiled once into closures (compile.py) and run often. Three stages, the site's
`before`, the user's, the site's `after`, run into one Plan. An error in the user's stage drops
what that stage planned, keeps what came before and adds a keep; an error in a site stage is
for the caller: `EvaluationError`.
"""

from __future__ import annotations

from collections.abc import Sequence

from mdaflow.lang import ir
from mdaflow.mail.envelope import Envelope
from mdaflow.mail.message import Message

from .compile import Compiled, compile_block
from .facts import Ask, Context
from .plan import Action, EvaluationError, Event, Plan, united
from .state import END, MAX_VARIABLES, Run, Step


class Stage:
    """A compiled program with its owner, "site" or "user"."""

    def __init__(self, program: ir.Program, owner: str = "user") -> None:
        self.owner = owner
        self.name = program.name
        self.block: Compiled = compile_block(program.body)


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
