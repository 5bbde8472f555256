"""The state of one run: what its statements read and write, and how it goes on.

It also keeps the bounds of a run: its actions, its variables, and the CPU that it takes (P31).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import IntEnum
from functools import cache
from time import monotonic, thread_time
from typing import Any, TypeVar

from mdaflow.lang import ir
from mdaflow.lang.source import Span

from .facts import Context, values
from .plan import STORING, Action, EvaluationError, Event, united

T = TypeVar("T")
MAX_ACTIONS = 64
MAX_VARIABLES = 4 << 20
"""Characters of all variables together."""
MAX_CPU = 1.0
"""Seconds of CPU that all stages of one run may take (P31)."""
LOOK = 0.01
"""Seconds of real time between two looks at the clock of the CPU."""


class Step(IntEnum):
    """How a run goes on after a statement."""

    CONTINUE = 0
    STOP = 1
    END = 2


CONTINUE, STOP, END = Step.CONTINUE, Step.STOP, Step.END


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

    def values(self, subject: ir.Subject) -> Any:
        """The values of a subject (see facts.py), which are found once a run."""
        key = (subject.name, subject.part, subject.arguments, subject.raw)
        if key not in self.cache:
            self.cache[key] = values(self.context, subject)
        return self.cache[key]

    def act(self, act: ir.Act, folder: str, text: str) -> Step:
        """Plan an action."""
        flags = self.flags | frozenset(act.flags) if act.verb in STORING else frozenset()
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
