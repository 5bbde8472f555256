"""Carrying out a Plan: prepare every action, then commit them, and say what became of it.

A failure before the commits leaves nothing behind and is a 4xx (P4, P11). The fence is asked
once, between the two (P8): behind it the message is delivered, before it nothing was. What
cannot be taken back comes last: copies are made visible first, then mail leaves us, then
programs run. What was done when a later action fails is not done again (see ledger.py).

An action that can never work is refused to the sender only if it is all that the plan does
(P40); else the message goes to the inbox, and the trouble is told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import import_module

from mdaflow.engine.plan import OUTCOMES, Action, Plan, one_line
from mdaflow.errors import (
    DEFERRED,
    REJECTED,
    SAVED,
    TOO_SLOW,
    PermFail,
    Status,
    TempFail,
)
from mdaflow.mail.envelope import Envelope
from mdaflow.mail.message import Message
from mdaflow.mail.trace import stored, trace_fields

from . import ledger, prepare
from .job import Job, Means
from .mailbox import Mailbox, Prepared, elsewhere, locate

MAX_REPLY = 200
"""Characters of a rule's text in a reply."""

DELIVERERS = {
    "quarantine": "quarantine",
    "forward": "forward",
    "pipe": "pipe",
    "reply": "reply",
    "notify": "notify",
    "remember": "soft",
    "learn": "soft",
    "log": "soft",
}
"""Actions that make no copy in a mailbox -> the module that carries them out, in the order in
which they are committed behind the copies."""
_ORDER = tuple(DELIVERERS)
_INBOX = Action("keep", owner="site")


@dataclass(frozen=True, slots=True)
class Done:
    """What became of a message: the reply, the outcome in the words of the log, and where."""

    status: Status
    outcome: str
    places: tuple[str, ...] = ()
    """`maildir lists/dev` for each copy, and what else was done."""
    trouble: str = ""
    """What went wrong on the way and was got around."""


def execute(
    plan: Plan,
    message: Message,
    envelope: Envelope,
    mailbox: Mailbox,
    *,
    means: Means = Means(),  # noqa: B008  # a constant
    ident: str = "-",
    fence: Callable[[], bool] = lambda: True,
) -> Done:
    """Do what a plan says, for one recipient.

    `ident` is the id of this delivery in the trace fields. When `fence` says no, nothing is
    delivered. Raises TempFail when the message should come again, PermFail when all that the
    plan does can never be done.
    """
    last = plan.deciding
    if last.verb == "defer":
        return Done(_reply(DEFERRED, last.text), "deferred")
    delivery = _Delivery(plan, Job(message, envelope, mailbox, ident, means, plan.own))
    delivery.prepare()
    if not fence():
        delivery.abort()
        raise TempFail(TOO_SLOW, "the deadline passed before the commit")
    delivery.commit()
    places, trouble = tuple(delivery.places), "; ".join(delivery.trouble)
    verb = "keep" if delivery.fell_back else last.verb
    return Done(_STATUS[verb](last, delivery.places), OUTCOMES[verb], places, trouble)


@dataclass(slots=True)
class _Step:
    """One thing to do: the actions it carries out, and what is prepared for them."""

    actions: list[Action]
    prepared: Prepared


class _Delivery:
    """The steps of one plan."""

    def __init__(self, plan: Plan, job: Job) -> None:
        self.job = job
        self.chunks: dict[int, list[bytes | memoryview]] = {}
        self.places: list[str] = []
        self.trouble: list[str] = []
        self.fell_back = False
        """An action could not be carried out, so the message went to the inbox."""
        self.steps: list[_Step] = []
        self.done: set[str] = set()
        self.acts = [a for a in plan.actions if a.stores or a.verb in DELIVERERS]
        self.real = [a for a in self.acts if a.verb in OUTCOMES]
        self.in_inbox = any(a.stores and not a.folder for a in self.acts)
        if len(self.acts) > 1:
            self.done = set(ledger.already_done(job))
            self.acts = [a for a in self.acts if str(a) not in self.done]

    def prepare(self) -> None:
        """Prepare all; the copies in one order, so that no two deliveries lock each other out."""
        try:
            others = sorted(
                (a for a in self.acts if not a.stores), key=lambda a: _ORDER.index(a.verb)
            )
            for action in others:
                self._other(action)
            copies = [a for a in self.acts if a.stores]
            if self.fell_back and not self.in_inbox:
                copies.append(_INBOX)
            self.steps[:0] = self._copies(copies)
        except BaseException:
            self.abort()
            raise

    def _other(self, action: Action) -> None:
        module = import_module(f".{DELIVERERS[action.verb]}", __package__)
        try:
            self.steps.append(_Step([action], module.prepare(self.job, action)))
        except PermFail as error:
            self._fall_back(action, error)

    def _fall_back(self, action: Action, error: PermFail) -> None:
        if self.real == [action]:
            raise error
        self.trouble.append(f"{error}; kept in the inbox")
        self.fell_back = True

    def _copies(self, copies: list[Action]) -> list[_Step]:
        """The copies, each place once: a second one would wait for the lock of the first."""
        found: dict[tuple[object, ...], tuple[Mailbox, str, list[Action]]] = {}
        for action in copies:
            mailbox, folder, place = self._place(action)
            changed = id(action.message) if mailbox.format == "maildir" else 0
            key = (mailbox.home, *place, changed)
            _, _, before = found.pop(key, (mailbox, folder, []))
            found[key] = mailbox, folder, [*before, action]
        steps: dict[tuple[object, ...], _Step] = {}
        try:
            for key in sorted(found, key=str):
                steps[key] = self._copy(*found[key])
        except BaseException:
            for step in steps.values():
                step.prepared.abort()
            raise
        return [steps[key] for key in found]

    def _place(self, action: Action) -> tuple[Mailbox, str, tuple[str, ...]]:
        mailbox, folder = self.job.mailbox, action.folder
        try:
            mailbox, folder = elsewhere(folder) or (mailbox, folder)
            return mailbox, folder, locate(mailbox, folder)
        except PermFail as error:
            # It can never be a folder. What a rule says literally was checked when it was
            # compiled, so this name came out of the mail: waiting would not mend it.
            self.trouble.append(f"{error}; kept in the inbox")
            return mailbox, "", locate(mailbox, "")

    def _copy(self, mailbox: Mailbox, folder: str, actions: list[Action]) -> _Step:
        flags = frozenset(flag for action in actions for flag in action.flags)
        said = [action.option("expire") for action in actions]
        expire = next((e for e in reversed(said) if isinstance(e, float)), None)
        message = actions[-1].message or self.job.message
        sender, received = self.job.envelope.sender, self.job.envelope.received
        chunks = self._stored(message)
        return _Step(actions, prepare(mailbox, folder, chunks, flags, sender, received, expire))

    def _stored(self, message: Message) -> list[bytes | memoryview]:
        if id(message) not in self.chunks:
            job = self.job
            prefix = trace_fields(job.envelope, job.means.hostname, job.ident)
            self.chunks[id(message)] = stored(message, prefix)
        return self.chunks[id(message)]

    def commit(self) -> None:
        """Commit all. What can never work is got around; what may work later is for the next
        try, which finds in the ledger what was done in this one."""
        while self.steps:
            step = self.steps.pop(0)
            try:
                step.prepared.commit()
            except PermFail as error:
                self._instead(step.actions[0], error)
                continue
            except BaseException:
                self._give_up()
                raise
            self._did(step)

    def _did(self, step: _Step) -> None:
        self.places.append(step.prepared.where)
        self.done.update(str(action) for action in step.actions)

    def _instead(self, action: Action, error: PermFail) -> None:
        """A copy in the inbox, for an action that was refused when it was to be done."""
        try:
            first = not self.fell_back
            self._fall_back(action, error)
            if first and not self.in_inbox:
                self.steps[:0] = self._copies([_INBOX])
        except BaseException:
            self._give_up()
            raise

    def _give_up(self) -> None:
        self.abort()
        ledger.write(self.job, self.done)

    def abort(self) -> None:
        """Take back what was not committed."""
        for step in self.steps:
            step.prepared.abort()
        self.steps = []


def _saved(last: Action, places: Iterable[str]) -> Status:
    folders = [
        place.partition(" ")[2] for place in places if place.startswith(("maildir ", "mbox "))
    ]
    return _reply(SAVED, f"Saved to {', '.join(folders)}")


def _sent(last: Action, places: Iterable[str]) -> Status:
    return _reply(SAVED, f"Forwarded to {', '.join(last.targets)}")


def _reply(status: Status, text: str) -> Status:
    """The status with a text of a rule, on one line of ASCII (RFC 5321 section 4.2)."""
    line = one_line(text).encode("ascii", "replace").decode()[:MAX_REPLY]
    return Status(status.code, status.enhanced, line or status.text)


_STATUS: dict[str, Callable[[Action, list[str]], Status]] = {
    "deliver": _saved,
    "keep": _saved,
    "forward": _sent,
    "discard": lambda last, places: Status(250, "2.0.0", "Discarded"),
    "pipe": lambda last, places: Status(250, "2.0.0", "Taken by a program"),
    "quarantine": lambda last, places: Status(250, "2.0.0", "Quarantined"),
    "reject": lambda last, places: _reply(REJECTED, last.text),
}
