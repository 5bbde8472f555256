"""What a run decides: actions in their order, and why. A Plan changes nothing by itself."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

from mdaflow.errors import MdaflowError
from mdaflow.lang.source import Span
from mdaflow.mail.message import Message

STORING = ("deliver", "keep")
"""The actions that make a copy in the recipient's mailbox."""
OUTCOMES = {
    "deliver": "delivered",
    "keep": "delivered",
    "discard": "discarded",
    "reject": "rejected",
    "defer": "deferred",
    "forward": "forwarded",
    "pipe": "piped",
    "quarantine": "quarantined",
}
"""What an action makes of a message, in the words of log, JSON and metrics."""


class EvaluationError(MdaflowError):
    """A rule that cannot be carried out on this message."""

    def __init__(self, span: Span, message: str) -> None:
        super().__init__(f"{span}: {message}")
        self.span = span


class Unanswerable(MdaflowError):
    """Raised by whoever is asked: the rule that asks cannot be carried out."""


def printable(text: str) -> str:
    """Text with a space for everything that would do something to a terminal or a log."""
    return "".join(char if char.isprintable() else " " for char in text)


def one_line(text: str) -> str:
    """Text for a terminal or a reply: printable, on one line, with single spaces."""
    return " ".join(printable(text).split())


@dataclass(frozen=True, slots=True)
class Action:
    """One decided action. `folder` is empty for the inbox; `owner` is "site" or "user"."""

    verb: str
    folder: str = ""
    text: str = ""
    """What is said: of a refusal, a reply or a notice; why it is quarantined; a key; a class."""
    flags: frozenset[str] = frozenset()
    also: bool = False
    owner: str = "user"
    rule: str = ""
    """The name of the innermost rule; empty outside of one."""
    span: Span | None = None
    """Where it was said; None for the implicit keep."""
    targets: tuple[str, ...] = ()
    """Addresses, or a program with its arguments."""
    options: tuple[tuple[str, str | float], ...] = ()
    """What else was said, by its word: `expire`, `every`, `for`, `within` (seconds), `subject`,
    `html`, `from`, `as`, `locked`."""
    handle: str = ""
    """Which replies count as the same."""
    message: Message | None = None
    """The message as it was when this was planned, if rules have changed it before."""

    @property
    def stores(self) -> bool:
        """It makes a copy in the recipient's mailbox."""
        return self.verb in STORING

    def option(self, name: str) -> str | float | None:
        """What was said by this word; None when nothing was."""
        return dict(self.options).get(name)

    def __str__(self) -> str:
        also = "also " if self.also else ""
        if self.stores:
            flags = f" with flags {' '.join(sorted(self.flags))}" if self.flags else ""
            return f'{also}deliver to "{printable(self.folder) or "INBOX"}"{flags}{self._options()}'
        to = f" to {' '.join(map(one_line, self.targets))}" if self.targets else ""
        what = self.text and f' "{one_line(self.text)}"'
        return f"{also}{self.verb}{to}{what}{self._options()}"

    def _options(self) -> str:
        return "".join(f" {name} {_said(value)}" for name, value in self.options)


_UNITS = {"weeks": 604_800, "days": 86_400, "hours": 3600, "minutes": 60}


def _said(value: str | float) -> str:
    """An option as it is written in rules."""
    if isinstance(value, str):
        return f'"{one_line(value)}"'
    unit = next((unit for unit, size in _UNITS.items() if value % size == 0), "")
    number = value / _UNITS[unit] if unit else value
    return f"{number:.15g} {(unit or 'seconds')[: -1 if number == 1 else None]}"


class Event(NamedTuple):
    """One step of a run: a rule entered or passed, a test with what it saw, an action."""

    depth: int
    kind: str
    """"rule", "test", "action" or "error"."""
    span: Span
    text: str
    values: tuple[str, ...] | None
    """The values a test saw; None when the fact is unknown or there are none to show."""
    result: bool | None

    def __str__(self) -> str:
        said = "" if self.result is None else f" -> {str(self.result).lower()}"
        seen = f" ({', '.join(self.values)})" if self.values else ""
        return f"{'  ' * self.depth}{self.span.short}  {self.text}{said}{seen}"


@dataclass(frozen=True, slots=True)
class Plan:
    """The actions of a run; never empty: what nobody finished is kept."""

    actions: tuple[Action, ...]
    implicit_keep: bool = False
    trace: tuple[Event, ...] = ()
    errors: tuple[str, ...] = ()
    """What went wrong in the user's rules; the message is kept then."""
    edits: tuple[str, ...] = ()
    """What was done to the header."""
    own: tuple[str, ...] = ()
    """The recipient's own addresses, as far as the rules know them."""
    asked_duplicate: bool = False
    """The rules asked whether the message was here before: this one is to be remembered."""

    @property
    def deciding(self) -> Action:
        """The action that says what became of the message."""
        return next(a for a in reversed(self.actions) if a.verb in OUTCOMES and not a.also)

    @property
    def outcome(self) -> str:
        """`delivered`, `forwarded` and so on: one of the words of `OUTCOMES`."""
        return OUTCOMES[self.deciding.verb]

    def __str__(self) -> str:
        return "\n".join(map(str, self.actions))


def united(actions: list[Action], new: Action) -> list[Action]:
    """The actions with one more.

    The same folder twice is one copy with the flags of both and what was said last, unless
    the message has changed in between. A message is answered once, by the first reply.
    """
    if new.verb == "reply" and any(old.verb == "reply" for old in actions):
        return actions
    if new.stores:
        for at, old in enumerate(actions):
            if old.stores and old.folder == new.folder and old.message is new.message:
                both = replace(
                    new,
                    flags=old.flags | new.flags,
                    also=old.also and new.also,
                    options=new.options or old.options,
                )
                return [*actions[:at], *actions[at + 1 :], both]
    return [*actions, new]
