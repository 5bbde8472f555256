"""What the deliverers of actions are given: one delivery, and the means to carry it out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
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


class Senders(Protocol):
    """Rewrites the senders of what is forwarded (SRS, see mail/srs.py)."""

    def forward(self, sender: str) -> str:
        """The sender with which a message goes on. Raises TempFail."""

    def reverse(self, address: str) -> str | None:
        """Whom mail to a rewritten address is for; None when it is none of ours. Raises TempFail,
        ValueError with a reason for one that we never made, or that is too old."""


class Steward(Protocol):
    """Has the rights of the site, which the process that delivers as a user has not."""

    def prepare(self, job: Job, action: Action) -> Prepared:
        """As the deliverer of the action, at the steward's."""


class Learner(Protocol):
    """Learns from messages of one class."""

    def __call__(self, job: Job, message: Message, owner: str) -> None:
        """Learn for whoever owns the rule, `site` or `user`. Raises OSError."""


@dataclass(frozen=True, slots=True)
class Means:
    """What a site carries out actions with."""

    hostname: str = "localhost"
    next_hop: str = "127.0.0.1:25"
    """The MTA that takes what leaves us; see dialogue.py for its forms."""
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
    relay: str = ""
    """The MTA that takes mail for other domains; empty for `next_hop`."""
    srs: Senders | None = None
    """Who rewrites the senders of what is forwarded; None: they stay."""
    resent: bool = False
    """A forward tells who has sent the message on, in Resent fields."""
    learners: Mapping[str, Learner] = field(default_factory=dict)
    """Who learns from a message, by the class that it is of: `spam`, `ham`."""


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
