"""One message for all destinations of a recipient, and one status.

Whoever has a mailbox here gets the message by the whole way, each with rules and a log line of
their own. All who have none get it by the next MTA, many in one transaction. Programs and files
that aliases name are the site's: they are run and written as the server. The worst status is that
of the recipient. Who has the message already does not get it again when it comes back for the
others (P10).

A user of several has a share of the time until the deadline, so that a process that its user has
stopped does not keep the message from those behind it. Users come behind what is the site's, and
when the message comes again, those who did not answer come last of all.

A list with an owner (`owner-LIST`) sends with the owner as the sender, so that he is told what goes
wrong behind us; what goes wrong here for good, we tell him, and the list counts as delivered.

A sender who asked for a receipt gets one for the alias when all have the message; of the
destinations he hears only what goes wrong (RFC 3461 section 5.2.7.3). A single one stands for its
alias: what was asked goes on to it (5.2.7.2).
"""

from __future__ import annotations

import logging
import math
import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from mdaflow.deliver import forward, ledger
from mdaflow.deliver.execute import Done, execute
from mdaflow.deliver.job import Job
from mdaflow.deliver.mailbox import Mailbox
from mdaflow.engine.plan import Action, Plan
from mdaflow.errors import INTERNAL, NO_ANSWER, SAVED, TOO_SLOW, MailError, Status, TempFail
from mdaflow.mail.envelope import Envelope
from mdaflow.mail.message import Message
from mdaflow.mail.receipt import without_success
from mdaflow.mail.targets import mailbox_of, words
from mdaflow.route.destination import Destination
from mdaflow.route.users import User

from . import complaint
from .build import Site
from .failure import failed
from .receipts import confirm, confirm_expanded

AT_ONCE = 100
"""Addresses of one transaction with the next MTA: what all MTAs take (RFC 5321 section 4.5.3.1)."""
EVERY = 1.0
"""Seconds after which it is noted who has a message that goes to many."""
SHARE = 5.0
"""Seconds that each user of several has at least, but for a deadline that is near."""

log = logging.getLogger("mdaflow")
_NOWHERE = Mailbox("maildir", "/", "Maildir")
_SENT = ("address", "relay")
_ADDRESSES = ("user", *_SENT)

Deliver = Callable[[Message, Envelope, User, Callable[[], bool], float], Status]
"""Delivers to a user of ours with so many seconds of patience, and writes the log line."""
Tell = Callable[[Message, Envelope, Done, str], None]
"""Writes the log line of a destination that is no user, with file and line that named it."""


class Part(NamedTuple):
    """What is done at once: a destination, or addresses that share a transaction."""

    kind: str
    destinations: Sequence[Destination]

    @property
    def sender(self) -> str | None:
        """Instead of the sender of the message."""
        return self.destinations[0].sender


class Expansion:
    """One message on its way to all destinations of its recipient."""

    def __init__(
        self,
        site: Site,
        message: Message,
        envelope: Envelope,
        ident: str,
        fence: Callable[[], bool],
        deliver: Deliver,
        tell: Tell,
    ) -> None:
        self._site = site
        self._message = message
        self._envelope = envelope
        self._open = fence
        self._deliver = deliver
        self._tell = tell
        self._job = Job(message, envelope, _NOWHERE, ident, site.means)
        # what is done for all, and not for a user who is the recipient himself
        everybody = replace(envelope, recipient=f"all of {envelope.recipient}")
        self._record = replace(self._job, envelope=everybody)
        noted = ledger.already_done(self._record)
        self._slow = {word for word in noted if word.startswith(ledger.SLOW)}
        self._done = set(noted - self._slow)
        self._noted = self._began = time.monotonic()
        self._deadline = site.config.lmtp.deadline
        self._late = self._several = False
        self._behind = 0
        """Users whose turn is still to come."""
        self._worst = SAVED
        self._complaints: dict[str, list[tuple[Destination, Status]]] = {}

    def carry_out(self, destinations: Sequence[Destination]) -> Status:
        """Deliver to all; the worst status. Never raises."""
        several = self._several = len(destinations) > 1
        envelope = self._envelope
        todo = sorted((d for d in destinations if d.key not in self._done), key=self._turn)
        self._behind = sum(d.kind == "user" for d in todo)
        if several:
            self._envelope = replace(envelope, notify=without_success(envelope.notify))
        for part in _parts(todo):
            for destination, status in self._carry_out(part):
                self._count(destination, status)
            if time.monotonic() - self._noted > EVERY:
                self._note()
        self._complain()
        if self._noted > self._began or not self._worst.ok:  # who took long may come again
            self._note()
        if not self._worst.ok:
            return self._said() if several else self._worst
        if several:
            ident = envelope.queue_id or self._job.ident
            confirm_expanded(self._site, self._message, envelope, ident)
        return Status(250, "2.0.0", f"Delivered to {len(destinations)}")

    def _turn(self, destination: Destination) -> tuple[int, float]:
        """When it is due: first what no user can stop, last who was slow, in any order, so that
        of many nobody is always the last."""
        if destination.kind != "user":
            return 0, 0.0
        slow = f"{ledger.SLOW}{destination.key}" in self._slow
        return (2, random.random()) if slow else (1, 0.0)

    def _said(self) -> Status:
        """The worst status; not who, nor how many: that is the site's matter."""
        worst = self._worst
        return Status(worst.code, worst.enhanced, f"Not everybody has got it: {worst.text}")

    def _count(self, destination: Destination, status: Status) -> None:
        if status == NO_ANSWER:
            self._slow.add(f"{ledger.SLOW}{destination.key}")
            if self._left <= 0:
                self._fence()  # all that follow may be as slow
        if status.ok:
            self._done.add(destination.key)
        elif not status.temporary and destination.sender and self._envelope.sender:
            # not of a bounce: a report about a report would go round (RFC 5321 section 4.5.5)
            self._complaints.setdefault(destination.sender, []).append((destination, status))
        else:
            self._worst = max(self._worst, status, key=_badness)

    def _note(self) -> None:
        ledger.write(self._record, self._done | self._slow)
        self._noted = time.monotonic()

    def _carry_out(self, part: Part) -> Iterator[tuple[Destination, Status]]:
        """Do it; what became of each destination. Never raises."""
        if part.kind == "user":
            [destination] = part.destinations
            yield destination, self._to_user(destination)
            return
        for destination, done in self._guarded(part):
            about = self._about(destination)
            self._tell(self._message, about, done, destination.where)
            e = self._envelope
            confirm(self._site, self._message, e, done, e.queue_id or self._job.ident)
            yield destination, done.status

    def _about(self, destination: Destination) -> Envelope:
        """The envelope of a destination."""
        e, is_address = self._envelope, destination.kind in _ADDRESSES
        return replace(
            e,
            sender=e.sender and (destination.sender or e.sender),
            recipient=destination.name if is_address else e.recipient,
            original=e.original or e.recipient,
        )

    def _to_user(self, destination: Destination) -> Status:
        about = self._about(destination)
        try:
            self._behind -= 1
            self._in_time()
            assert destination.user is not None
            user, patience = destination.user, self._patience()
            return self._deliver(self._message, about, user, self._fence, patience)
        except Exception as error:  # one destination is no reason to fail the others (P7)
            done = failed(error, destination.name)
            self._tell(self._message, about, done, destination.where)
            return done.status

    @property
    def _left(self) -> float:
        """Seconds until the deadline; fewer in truth, if the message has waited for its turn."""
        return self._began + self._deadline - time.monotonic()

    def _patience(self) -> float:
        """Seconds for the process of a user: those behind it, and what comes then, have as much."""
        if not self._several:
            return math.inf
        return max(min(SHARE, self._deadline / 4), self._left / (self._behind + 2))

    def _fence(self) -> bool:
        """The fence of the message; it is remembered when that is closed."""
        self._late = self._late or not self._open()
        return not self._late

    def _in_time(self) -> None:
        if self._late:  # the fence will not open again: no work for nothing
            raise TempFail(TOO_SLOW, "the deadline passed before its turn")

    def _guarded(self, part: Part) -> list[tuple[Destination, Done]]:
        try:
            self._in_time()
            return _HOW[part.kind](self, part)
        except Exception as error:  # one destination is no reason to fail the others (P7)
            return [(d, failed(error, d.name)) for d in part.destinations]

    # --- what is no user -------------------------------------------------------------------

    def _send(self, part: Part) -> list[tuple[Destination, Done]]:
        """Send the message to addresses: each has a status of its own."""
        targets = {d.name: d for d in part.destinations}
        sender = self._about(part.destinations[0]).sender
        job = replace(self._job, envelope=replace(self._envelope, sender=sender))
        if part.kind == "relay":  # as an MTA does it: the sender stays
            means = job.means
            hop = means.relay or means.next_hop
            job = replace(job, means=replace(means, next_hop=hop, srs=None, resent=False))
        transaction = forward.prepare(job, Action("forward", targets=tuple(targets)), partly=True)
        if not self._fence():
            transaction.abort()
            raise TempFail(TOO_SLOW, "the deadline passed before the message was sent")
        transaction.commit()
        refused = transaction.refused
        sent = Done(SAVED, "forwarded", (transaction.where,), relay=transaction.relay)
        return [
            (d, failed(refused[name], name) if name in refused else _named(sent, name))
            for name, d in targets.items()
        ]

    def _act(self, part: Part) -> list[tuple[Destination, Done]]:
        """Run a program, write to a file, or drop the message: as a rule of the site does."""
        [destination] = part.destinations
        done = execute(
            Plan((_ACTIONS[part.kind](destination.name),)),
            self._message,
            self._about(destination),
            _NOWHERE,
            means=self._job.means,
            ident=self._job.ident,
            fence=self._fence,
        )
        return [(destination, done)]

    def _refuse(self, part: Part) -> list[tuple[Destination, Done]]:
        [destination] = part.destinations
        status = destination.status or INTERNAL
        outcome = "deferred" if status.temporary else "rejected"
        return [(destination, Done(status, outcome, trouble=destination.why))]

    # --- what the owner of a list is told --------------------------------------------------

    def _complain(self) -> None:
        """Tell the owners of lists who cannot have the message; the sender, if that fails."""
        for owner, refused in self._complaints.items():
            try:
                complaint.tell(self._job, owner, refused)
                self._done.update(destination.key for destination, _ in refused)
            except Exception as error:
                told = isinstance(error, MailError | OSError | ValueError)
                log.warning("<%s>: could not be told: %s", owner, error, exc_info=not told)
                failed_by = [status for _, status in refused]
                if isinstance(error, TempFail):  # the owner can be told when it comes again
                    failed_by = [error.status]
                self._worst = max([self._worst, *failed_by], key=_badness)


def _parts(destinations: Iterable[Destination]) -> Iterator[Part]:
    """What is done at once: addresses with one sender together, all else for itself; users, who
    are last, after all addresses."""
    users: list[Part] = []
    together: dict[tuple[str, str | None], list[Destination]] = {}
    for destination in destinations:
        if destination.kind == "user":
            users.append(Part("user", (destination,)))
            continue
        if destination.kind not in _SENT:
            yield Part(destination.kind, (destination,))
            continue
        group = together.setdefault((destination.kind, destination.sender), [])
        group.append(destination)
        if len(group) == AT_ONCE:
            yield Part(destination.kind, tuple(group))
            group.clear()
    yield from (Part(kind, group) for (kind, _), group in together.items() if group)
    yield from users


def _named(sent: Done, name: str) -> Done:
    """What became of one of several addresses."""
    how = sent.places[0].partition(" ")[0]  # smtp or lmtp
    return replace(sent, places=(f"{how} {name}",))


def _badness(status: Status) -> int:
    """What may still work is worse than what never will: the message has to come again."""
    return 0 if status.ok else 2 if status.temporary else 1


def _program(command: str) -> Action:
    options = (("from_line", 1.0),)  # programs of aliases expect an mbox, as vacation(1) does
    return Action("pipe", owner="site", targets=words(command), options=options)


def _file(path: str) -> Action:
    return Action("deliver", mailbox_of(path), owner="site")


_ACTIONS: dict[str, Callable[[str], Action]] = {
    "program": _program,
    "file": _file,
    "nothing": lambda _: Action("discard", owner="site"),
}
"""Destinations that are carried out as rules of the site are."""

_HOW: dict[str, Callable[[Expansion, Part], list[tuple[Destination, Done]]]] = {
    "address": Expansion._send,
    "relay": Expansion._send,
    "refused": Expansion._refuse,
    **dict.fromkeys(_ACTIONS, Expansion._act),
}
"""The kind of a destination that is no user -> how it is carried out."""
