"""What a run decides: actions in their order, and why. A Plan changes nothing by itself."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

from mdaflow.errors import MdaflowError
from mdaflow.lang.source import Span

STORING = ("deliver", "keep")
"""The actions that make a copy in the recipient's mailbox."""
OUTCOMES = {
    "deliver": "delivered",
    "keep": "delivered",
    "discard": "discarded",
    "reject": "rejected",
    "defer": "deferred",
}
"""What an action makes of a message, in the words of log, JSON and metrics."""


class EvaluationError(MdaflowError):
    """A rule that cannot be carried out on this message."""

    def __init__(self, span: Span, message: str) -> None:
        super().__init__(f"{span}: {message}")
        self.span = span


def one_line(text: str) -> str:
    """Text for a terminal or a reply: printable, on one line."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


@dataclass(frozen=True, slots=True)
class Action:
    """One decided action. `folder` is empty for the inbox; `owner` is "site" or "user"."""

    verb: str
    folder: str = ""
    text: str = ""
    flags: frozenset[str] = frozenset()
    also: bool = False
    owner: str = "user"
    rule: str = ""
    """The name of the innermost rule; empty outside of one."""
    span: Span | None = None
    """Where it was said; None for the implicit keep."""

    @property
    def stores(self) -> bool:
        """It makes a copy in the recipient's mailbox."""
        return self.verb in STORING

    def __str__(self) -> str:
        what = self.text and f' "{one_line(self.text)}"'
        if self.stores:
            what = f' to "{self.folder or "INBOX"}"'
            what += f" with flags {' '.join(sorted(self.flags))}" if self.flags else ""
        verb = "deliver" if self.stores else self.verb
        return f"{'also ' if self.also else ''}{verb}{what}"


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

    @property
    def deciding(self) -> Action:
        """The action that says what became of the message."""
        return next((a for a in reversed(self.actions) if not a.also), self.actions[-1])

    @property
    def outcome(self) -> str:
        """`delivered`, `rejected`, `discarded` or `deferred`."""
        return OUTCOMES[self.deciding.verb]

    def __str__(self) -> str:
        return "\n".join(map(str, self.actions))


def united(actions: list[Action], new: Action) -> list[Action]:
    """The actions with one more; the same folder twice is one copy with the flags of both."""
    if new.stores:
        for at, old in enumerate(actions):
            if old.stores and old.folder == new.folder:
                both = replace(new, flags=old.flags | new.flags, also=old.also and new.also)
                return [*actions[:at], *actions[at + 1 :], both]
    return [*actions, new]
