"""What the deliverers of actions are given: one delivery, and the means to carry it out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from mdaflow.engine.plan import Action
from mdaflow.mail.address import without_detail
from mdaflow.mail.envelope import Envelope
from mdaflow.mail.message import Message

from .mailbox import Mailbox, Prepared


class Memory(Protocol):
    """Keys with times to live, shared by all processes. All calls raise OSError."""

    def get(self, key: str) -> str | None:
        """The value, unless there is none or its time is over."""

    def put(self, key: str, value: str, seconds: float | None = None) -> None:
        """Keep a value, for so many seconds or for good."""

    def add(self, key: str, value: str, seconds: float | None = None) -> bool:
        """Keep a value if there is none; whether it was kept. Of many at once, one does."""


class Steward(Protocol):
    """Has the rights of the site, which the process that delivers as a user has not."""

    def prepare(self, job: Job, action: Action) -> Prepared:
        """As the deliverer of the action, at the steward's."""


@dataclass(frozen=True, slots=True)
class Means:
    """What a site carries out actions with."""

    hostname: str = "localhost"
    next_hop: str = "127.0.0.1:25"
    """`host:port` of the MTA that takes what leaves us."""
    quarantine: str = ""
    """The folder of the quarantine; empty when there is none."""
    state: str = ""
    """The folder of small state, for lock files; empty when there is none."""
    key: bytes = b""
    """The site's secret: proves that a message was here before."""
    memory: Memory | None = None
    delimiters: str = "+"
    """Characters that divide user and detail of a local part."""
    steward: Steward | None = None
    """Who does what takes the rights of the site; None: we have them."""


@dataclass(frozen=True, slots=True)
class Job:
    """One message for one recipient, on its way."""

    message: Message
    envelope: Envelope
    mailbox: Mailbox
    ident: str
    """The id of this delivery in the log and in trace fields."""
    means: Means
    own: tuple[str, ...] = ()
    """The recipient's own addresses, which nothing is sent to automatically."""
    user: str = ""
    """The address that was found to be a user's; empty when nobody looked."""

    @property
    def whose(self) -> str:
        """Whose mail it is, however many details a sender may think of."""
        return self.user or without_detail(self.envelope.recipient, self.means.delimiters)
