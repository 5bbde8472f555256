"""Running programs on a message: stages in, one Plan out. Pure: nothing happens to the mail.

A program is compiled once into closures (compile.py) and run often. Three stages, the site's
`before`, the user's, the site's `after`, run into one Plan. An error in the user's stage drops
what that stage planned, keeps what came before and adds a keep; an error in a site stage is
for the caller: `EvaluationError`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mdaflow.lang import ir
from mdaflow.mail.envelope import Envelope
from mdaflow.mail.message import Message

from .compile import Compiled, compile_block
from .context import Ask, Context, Settings
from .plan import Action, EvaluationError, Event, Plan, united
from .state import DUPLICATE, END, Run, Step


class Stage:
    """A compiled program with its owner, "site" or "user"."""

    def __init__(self, program: ir.Program, owner: str = "user") -> None:
        self.owner = owner
        self.name = program.name
        self.block: Compiled = compile_block(program.body)
        self.own = tuple(entry for entries in map(_me, program.body) for entry in entries)
        """What the list `me` says."""


def _me(statement: ir.Statement) -> tuple[str, ...]:
    if isinstance(statement, ir.Assign) and statement.name == "me":
        return statement.value.entries if isinstance(statement.value, ir.Items) else ()
    return ()


def _nobody(_: object) -> None:
    return None


def run(
    program: ir.Program | Stage | Sequence[Stage],
    message: Message,
    envelope: Envelope | None = None,
    ask: Ask = _nobody,
    *,
    trace: bool = False,
    settings: Settings = Settings(),  # noqa: B008  # a constant
    given: Mapping[tuple[str, str], Sequence[Any]] | None = None,
) -> Plan:
    """The Plan for one message and one recipient.

    `program` is one program (the user's) or the stages in their order. `ask` answers the facts
    that the message cannot; None from it is unknown. `given` are facts that come before all:
    (subject, argument) -> values as they are written. Raises EvaluationError only for a rule of
    the site.
    """
    if isinstance(program, ir.Program):
        program = Stage(program)
    stages = [program] if isinstance(program, Stage) else program
    context = Context(message, envelope or Envelope(), ask, settings, given or {})
    state = Run(context, trace)
    errors: list[str] = []
    own = settings.own
    ended = False
    for stage in stages:
        own = (*own, *stage.own)
        state.begin(stage.owner, (*settings.own, *stage.own))
        ended = _stage(state, stage, errors) == END
        if ended:
            break
    if not ended:
        keep = Action("keep", flags=state.flags, owner="site", message=_changed(state))
        state.actions = united(state.actions, keep)
    return Plan(
        tuple(state.actions),
        not ended,
        tuple(state.trace or ()),
        tuple(errors),
        tuple(state.edits),
        own,
        DUPLICATE in state.cache,
    )


def _changed(state: Run) -> Message | None:
    return state.context.message if state.changed else None


def _stage(state: Run, stage: Stage, errors: list[str]) -> Step:
    before, flags, edits = state.actions, state.flags, list(state.edits)
    context, changed = state.context, state.changed
    try:
        return stage.block(state)
    except EvaluationError as error:
        if stage.owner == "site":
            raise
        errors.append(str(error))
        if state.trace is not None:
            state.trace.append(Event(0, "error", error.span, str(error), None, None))
        state.context, state.changed, state.edits = context, changed, edits
        keep = Action("keep", flags=flags, owner="user", span=error.span, message=_changed(state))
        state.actions = united(before, keep)
        return END
