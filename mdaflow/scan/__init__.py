"""Scanners: who looks into a message, and what is found there.

A scanner looks at a message once, whoever it is for, and says in a `Report` what it has found. What
it could not look at it never calls clean: it says so, or raises `Unscanned`. What becomes of such
mail is the site's policy, not the scanner's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from mdaflow.errors import MdaflowError
from mdaflow.mail.envelope import Envelope
from mdaflow.mail.message import Message


class Unscanned(MdaflowError):
    """A scanner cannot tell: it is down, slow, talks nonsense, or the message is too large for it.

    The text is for the log and for `mdaflow test`.
    """


class Hit(NamedTuple):
    """A named test of spam that a message has met."""

    name: str
    """Capitals, digits and `_`."""
    score: float
    """More than 0 speaks for spam, less against it."""
    why: str = ""
    """One line of what it is, and what was seen."""


@dataclass(frozen=True, slots=True)
class Report:
    """What a scanner has found in a message."""

    viruses: tuple[str, ...] = ()
    """The names of viruses."""
    hits: tuple[Hit, ...] = ()
    """What speaks for or against spam."""
    findings: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """What else it says, for rules to ask by `finding "NAME"`: name -> values."""
    unscanned: str = ""
    """Why it has not looked at all of the message; empty when it has."""


class Scanner(Protocol):
    """Looks at messages, from many threads at once."""

    name: str
    """How the log and the configuration call it."""

    def scan(self, message: Message, envelope: Envelope, seconds: float) -> Report:
        """What is found within so many seconds. The envelope may be that of any recipient.

        Raises Unscanned; whatever else it raises counts as that.
        """
