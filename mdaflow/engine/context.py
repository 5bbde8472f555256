"""What facts are taken from, and the forms that their values have."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from mdaflow.lang.limits import DEFAULTS, Limits
from mdaflow.mail.envelope import Envelope
from mdaflow.mail.message import Message

if TYPE_CHECKING:
    from datetime import tzinfo

Text = tuple[str, ...]
Values = Sequence[Any] | None
"""Texts with their alternatives, floats or bools; None is unknown."""


class Fact(NamedTuple):
    """A question that the world must answer, e.g. `attachment.type`.

    `arguments` are what it is about: a folder, a zone, a program; `owner` is "site" or "user".
    """

    name: str
    message: Message
    envelope: Envelope
    arguments: tuple[str, ...] = ()
    owner: str = "user"
    within: float = 0.0
    """Seconds that the answer may take; 0 when nothing is said."""


Ask = Callable[[Fact], Sequence[Any] | None]
"""Answers a fact with its values; None when nobody can (it is unknown).

Raises Unanswerable (plan.py) when the rule that asks cannot be carried out.
"""


class Settings(NamedTuple):
    """What a site says about its facts."""

    delimiters: str = "+"
    """Characters that divide user and detail of a local part."""
    zone: tzinfo | None = None
    """The zone of the recipient's clock; None is that of the machine."""
    trusted: tuple[str, ...] = ()
    """The authserv-ids whose Authentication-Results are believed (RFC 8601)."""
    own: tuple[str, ...] = ()
    """The recipient's own addresses, besides that of the envelope."""
    spam_score: float = 5.0
    """The `spam.score` from which on a message is spam."""
    limits: Limits = DEFAULTS
    separator: str = "/"
    """What divides the levels of a folder name in the recipient's mailbox."""


class Context(NamedTuple):
    """What facts are taken from."""

    message: Message
    envelope: Envelope
    ask: Ask
    settings: Settings = Settings()
    given: Mapping[tuple[str, str], Sequence[Any]] = {}
    """(subject, argument) -> values that are given, as they were written."""
    owner: str = "user"


class Told(float):
    """A number with a form in which it is read: the month 04, a date."""

    text: str

    def __new__(cls, value: float, text: str) -> Told:
        """The number, shown as `text`."""
        self = super().__new__(cls, value)
        self.text = text
        return self


def shown(value: Any) -> str:
    """A value as a hole puts it into a text."""
    if isinstance(value, Told):
        return value.text
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.15g}" if isinstance(value, float) else str(value[0])


def ask(context: Context, name: str, *arguments: str) -> Sequence[Any] | None:
    """Ask for a fact about the message; None is unknown."""
    return context.ask(
        Fact(name, context.message, context.envelope, arguments, owner=context.owner)
    )
