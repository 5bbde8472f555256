"""The state of one run: what its statements read and write, and how it goes on.

It also keeps the bounds of a run: its actions, its variables, and the CPU that it takes (P31).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from copy import copy
from enum import IntEnum
from functools import cache
from time import monotonic, thread_time
from typing import Any, TypeVar

from mdaflow.lang import ir
from mdaflow.lang.source import Span
from mdaflow.lang.subjects import SCORE, SUBJECTS, is_asked
from mdaflow.mail.message import Message

from .context import Context, Fact
from .facts import items, values
from .plan import OUTCOMES, Action, EvaluationError, Event, Unanswerable, united

T = TypeVar("T")
MAX_VARIABLES = 4 << 20
"""Characters of all variables together."""
LOOK = 0.01
"""Seconds of real time between two looks at the clock of the CPU."""


class Step(IntEnum):
    """How a run goes on after a statement."""

    CONTINUE = 0
    STOP = 1
    END = 2


class Caught(Exception):
    """A rule would quarantine what somebody has released from there."""


LETTERS = ("forward", "notify", "reply")
"""The actions that send mail."""
CONTINUE, STOP, END = Step.CONTINUE, Step.STOP, Step.END
_PERSONAL = ("personal", "", (), False)
DUPLICATE = ("duplicate", "", (), False)
"""It is about the message as it came, whatever a filter makes of it."""
_UNDONE = (
    "actions", "flags", "edits", "context", "changed", "acted", "cache", "variables", "scores",
    "texts_left",
)  # fmt: skip
"""What is as before when a rule was passed."""


class Run:
    """The state of one run, which the closures read and write."""

    def __init__(self, context: Context, traced: bool) -> None:
        self.context = context
        self.limits = context.settings.limits
        self.cache: dict[object, Any] = {}
        self.variables: dict[str, tuple[tuple[str, bool], ...]] = {}
        self.scores: dict[str, float] = {}
        self.captures: dict[str, str] = {}
        self.pending: dict[str, str] = {}
        """Captures of the condition that is being tested; bound when it holds."""
        self.item: int | None = None
        """The attachment that `where` is about."""
        self.flags: frozenset[str] = frozenset()
        self.actions: list[Action] = []
        self.edits: list[str] = []
        self.changed = False
        """The message is not as it came any more."""
        self.acted = False
        """The stage has planned an action that does something with the message."""
        self.texts_left = MAX_VARIABLES
        self.rule = ""
        self.depth = 0
        self.trace: list[Event] | None = [] if traced else None
        self._look_again = monotonic() + LOOK
        self._cpu_limit: float | None = None
        self.fold = cache(str.casefold)

    def begin(self, owner: str, own: tuple[str, ...]) -> None:
        """A stage begins: flags and edits go on, names do not."""
        settings = self.context.settings
        self.context = self.context._replace(owner=owner, settings=settings._replace(own=own))
        self.cache.pop(_PERSONAL, None)
        self.acted = False
        self._cpu_limit = None  # no stage can use up the time of the next one
        self.variables, self.captures, self.scores = {}, {}, {}
        self.texts_left = MAX_VARIABLES
        self.rule, self.depth = "", 0

    # facts

    def values(self, subject: ir.Subject) -> Any:
        """The values of a subject (see facts.py), which are found once a run."""
        if subject.name not in SUBJECTS:
            return self._kept(subject)
        key = (subject.name, subject.part, subject.arguments, subject.raw)
        if self.item is not None and subject.name == "attachment":
            found = self._answer(subject.span, (*key, "each"), items, subject)
            if found is None:
                return None
            return found[self.item] if self.item < len(found) else []
        return self._answer(subject.span, key, values, subject)

    def _kept(self, subject: ir.Subject) -> Any:
        """A running score, or a variable."""
        if subject.name == SCORE:
            return [self.scores.get(subject.part, 0.0)]
        pieces = self.variables.get(subject.words)
        return [] if pieces is None else [("".join(text for text, _ in pieces),)]

    def _answer(self, span: Span, key: object, get: Any, subject: ir.Subject) -> Any:
        if key not in self.cache:
            try:
                self.cache[key] = get(self.context, subject)
            except Unanswerable as error:
                raise EvaluationError(span, str(error)) from error
        return self.cache[key]

    def ask(
        self, span: Span, name: str, arguments: tuple[str, ...], within: float = 0.0
    ) -> Sequence[Any] | None:
        """Ask the world something about arguments, once a run. None is unknown."""
        context = self.context
        given = context.given.get((name, arguments[0] if arguments else ""))
        if given is None:
            given = context.given.get((name, ""))
        if given is not None:
            return given
        key = (name, arguments, context.owner)
        if key not in self.cache:
            fact = Fact(name, context.message, context.envelope, arguments, context.owner, within)
            try:
                self.cache[key] = context.ask(fact)
            except Unanswerable as error:
                raise EvaluationError(span, str(error)) from error
        found: Sequence[Any] | None = self.cache[key]
        return found

    def change(self, message: Message, *, content: bool = False) -> None:
        """Go on with another message; `content`: not only its header is another one.

        What was asked about the old one stays true of an edited header.
        """
        self.context = self.context._replace(message=message)
        self.changed = True
        stays = DUPLICATE.__eq__ if content else _stays
        self.cache = {key: value for key, value in self.cache.items() if stays(key)}
        self.fold.cache_clear()

    # effects

    def act(self, act: ir.Act, **what: Any) -> Step:
        """Plan an action. Raises Caught, for `passing`."""
        if act.verb == "quarantine" and self.context.envelope.released:
            self.tell(act.span, f"{act.text} (passed: the message was released)")
            if self.depth:
                raise Caught
            return CONTINUE
        final = act.verb in OUTCOMES
        action = Action(
            act.verb,
            also=final and not act.ends,
            owner=self.context.owner,
            rule=self.rule,
            span=act.span,
            message=self.context.message if self.changed else None,
            **what,
        )
        if act.verb == "reject" and self.acted:
            raise EvaluationError(act.span, "a reject after an action of the same rules")
        self.acted = self.acted or final
        before, self.actions = self.actions, united(self.actions, action)
        if len(self.actions) > self.limits.actions:
            raise EvaluationError(act.span, f"more than {self.limits.actions} actions")
        most = self.limits.forwards
        if sum(len(a.targets) or 1 for a in self.actions if a.verb in LETTERS) > most:
            raise EvaluationError(act.span, f"sends to more than {most} addresses")
        unheard = " (not sent: one reply is planned)" if self.actions is before else ""
        self.tell(act.span, f"{action}{unheard}")
        return END if act.ends else CONTINUE

    def passing(self, block: Callable[[Run], Step]) -> Step:
        """Carry out a rule; if it would quarantine a released message, it has done nothing at all:
        nothing learns a second time that this was spam."""
        before = {name: copy(getattr(self, name)) for name in _UNDONE}
        try:
            return block(self)
        except Caught:
            for name, value in before.items():
                setattr(self, name, value)
            return CONTINUE

    def tell(self, span: Span, text: str) -> None:
        """Put what is done into the trace."""
        if self.trace is not None:
            self.trace.append(Event(self.depth, "action", span, text, None, None))

    # bounds

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
            self._cpu_limit = used + self.limits.cpu
        elif used > self._cpu_limit:
            raise EvaluationError(span, f"more than {self.limits.cpu:g} s of CPU in the rules")

    def watched(self, span: Span, items: Sequence[T]) -> Iterator[T]:
        """The items, with a look at the clock now and then."""
        for at, item in enumerate(items, 1):
            if at % 64 == 0:
                self.watch(span)
            yield item


def _stays(key: object) -> bool:
    name = key[0] if isinstance(key, tuple) else ""
    asked = name in ir.QUESTIONS or name == "list"
    return asked or (isinstance(key, tuple) and is_asked(str(name), str(key[1])))
