"""Carrying out a Plan: prepare every action, then commit them, and say what became of it.

A failure before the commits leaves nothing behind and is a 4xx (P4, P11). The fence is asked
once, between the two (P8): behind it the message is delivered, before it nothing was. What
cannot be taken back comes last: copies are made visible first, then mail leaves us, then
programs run. What was done when a later action fails is not done again (see ledger.py).

An action that can never work is refused to the sender only if it is all that the plan does
(P40); else the message goes to the inbox, and the trouble is told.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple

from mdaflow.engine.plan import OUTCOMES, Action, Plan, one_line
from mdaflow.errors import (
    DEFERRED,
    REJECTED,
    SAVED,
    TOO_SLOW,
    MailError,
    PermFail,
    Status,
    TempFail,
)
from mdaflow.mail.envelope import Envelope
from mdaflow.mail.message import Message
from mdaflow.mail.trace import stored, trace_fields

from . import ledger, prepare
from .job import Job, Means
from .mailbox import BAD_FOLDER, Mailbox, Prepared, elsewhere, in_spool, locate

if TYPE_CHECKING:
    from mdaflow.mail.receipt import Relay

    from .quota import Use

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
STEWARDED = frozenset({"quarantine", "forward", "reply", "notify", "remember", "learn"})
"""Actions that take what only the site has: its folders, its secret, its store."""
_ORDER = tuple(DELIVERERS)
_INBOX = "inbox"  # the copy that was not planned, in the ledger
_KEEP = Action("keep", owner="site")
_KEPT = "kept in the inbox"


def is_stewarded(action: Action) -> bool:
    """Does it take what only the site has? What a user learns is the user's own."""
    return action.verb in STEWARDED and (action.verb, action.owner) != ("learn", "user")


@dataclass(frozen=True, slots=True)
class Done:
    """What became of a message: the reply, the outcome in the words of the log, and where."""

    status: Status
    outcome: str
    places: tuple[str, ...] = ()
    """`maildir lists/dev` for each copy, and what else was done."""
    trouble: str = ""
    """What went wrong on the way and was got around."""
    told: str = ""
    """The part of the trouble that rules of the user have caused."""
    relay: Relay | None = None
    """How it has left us, if it was sent on and nothing else."""
    use: Use | None = None
    """What it has made of a quota."""


def execute(
    plan: Plan,
    message: Message,
    envelope: Envelope,
    mailbox: Mailbox,
    *,
    means: Means = Means(),  # noqa: B008  # a constant
    ident: str = "-",
    user: str = "",
    fence: Callable[[], bool] = lambda: True,
) -> Done:
    """Do what a plan says, for one recipient.

    `ident` is the id of this delivery in the trace fields, `user` the address of the mailbox's
    owner; empty for the recipient without detail. When `fence` says no, nothing is
    delivered. Raises TempFail when the message should come again, PermFail when all that the
    plan does can never be done.
    """
    last = plan.deciding
    if last.verb == "defer":
        return Done(_reply(DEFERRED, last.text), "deferred")
    delivery = _Delivery(plan, Job(message, envelope, mailbox, ident, means, plan.own, user))
    delivery.prepare()
    if not fence():
        delivery.abort()
        raise TempFail(TOO_SLOW, "the deadline passed before the commit")
    delivery.commit()
    verb = "keep" if delivery.kept_instead else last.verb
    return Done(
        _STATUS[verb](last, delivery.places),
        OUTCOMES[verb],
        tuple(delivery.places),
        "; ".join(text for _, text in delivery.trouble),
        "; ".join(text for owner, text in delivery.trouble if owner == "user"),
        delivery.relay,
        delivery.use,
    )


class _Copy(NamedTuple):
    """A copy in a mailbox. `key` is its name in the ledger; two for one `place` are one."""

    key: str
    action: Action
    mailbox: Mailbox
    folder: str
    path: str

    @property
    def place(self) -> tuple[str, int]:
        """The path, and the version of the message where a path can hold several: a second copy
        in one mbox would wait for the lock of the first."""
        return self.path, id(self.action.message) if self.mailbox.format == "maildir" else 0


class _Step(NamedTuple):
    """One thing to do, with the names in the ledger of what it carries out."""

    keys: tuple[str, ...]
    action: Action
    prepared: Prepared


class _Delivery:
    """The steps of one plan."""

    def __init__(self, plan: Plan, job: Job) -> None:
        self.job = job
        self.chunks: dict[int, list[bytes | memoryview]] = {}
        self.places: list[str] = []
        self.trouble: list[tuple[str, str]] = []
        """Whose rule it was, and what went wrong."""
        self.kept_instead = False
        """An action could not be carried out, so the message went to the inbox."""
        self.relay: Relay | None = None
        self.use: Use | None = None
        self.steps: list[_Step] = []
        acts = {f"{n} {a}": a for n, a in enumerate(plan.actions) if _is_done_here(a)}
        several = len(acts) > 1 or any(len(a.targets) > 1 for a in acts.values())
        self.done = set(ledger.already_done(job)) if several else set()
        self.refuses = plan.deciding.verb == "reject"
        self.moves = [action for action in acts.values() if action.verb in OUTCOMES]
        self.by_path = any(":/" in action.folder for action in acts.values())
        """Some mailbox is named by its path, which may lead to another one's."""
        self.copies = [self._copy(key, action) for key, action in acts.items() if action.stores]
        self.waiting = [copy for copy in self.copies if copy.key not in self.done]
        """Copies that are not prepared yet."""
        left = [item for item in acts.items() if item[0] not in self.done and not item[1].stores]
        self.others = sorted(left, key=lambda item: _ORDER.index(item[1].verb))

    def _copy(self, key: str, action: Action) -> _Copy:
        mailbox, folder = self.job.mailbox, action.folder
        try:
            found = elsewhere(folder) or in_spool(mailbox, folder)
            mailbox, folder = found or (mailbox, folder)
            path = locate(mailbox, folder)
        except PermFail as error:
            # It can never be a folder. What a rule says literally was checked when it was
            # compiled, so this name came out of the mail: waiting would not mend it.
            if key not in self.done:
                self.trouble.append((action.owner, f"{error}; {_KEPT}"))
            return self._copy(key, replace(action, folder=""))
        home = os.path.realpath(mailbox.home) if self.by_path else mailbox.home
        return _Copy(key, action, mailbox, folder, os.path.join(home, *path))

    def prepare(self) -> None:
        """Prepare all; the copies last, so that no lock is held while a next hop is slow."""
        try:
            for key, action in self.others:
                self._prepare(key, action)
            self._store()
        except BaseException:
            self.abort()
            raise

    def _prepare(self, key: str, action: Action) -> None:
        if reason := _hopeless(action):
            self._keep_instead(action, reason)
            return
        try:
            self.steps.append(_Step((key,), action, self._prepared(self._left(key, action))))
        except PermFail as error:
            self._refused(action, error)

    def _left(self, key: str, action: Action) -> Action:
        """The action for those targets that an earlier try has not reached."""
        left = tuple(t for t in action.targets if _of_target(key, t) not in self.done)
        return action if left == action.targets else replace(action, targets=left)

    def _prepared(self, action: Action) -> Prepared:
        steward = self.job.means.steward
        if steward is not None and is_stewarded(action):
            return steward.prepare(self.job, action)
        module = import_module(f".{DELIVERERS[action.verb]}", __package__)
        prepared: Prepared = module.prepare(self.job, action)
        return prepared

    def _refused(self, action: Action, error: PermFail) -> None:
        """Pass on what was refused, if that is all there is to do (P40) and nobody has it."""
        if self.moves == [action] and not self.refuses and not error.done:
            raise error
        self._keep_instead(action, str(error))

    def _keep_instead(self, action: Action, reason: str) -> None:
        """Keep the message for what can never be done; not if its sender is told no anyway."""
        self.trouble.append((action.owner, reason if self.refuses else f"{reason}; {_KEPT}"))
        self.kept_instead = not self.refuses
        copy = self._copy(_INBOX, replace(_KEEP, message=action.message))
        there = _INBOX in self.done or any(copy.path == other.path for other in self.copies)
        if not there and not self.refuses:
            self.copies.append(copy)
            self.waiting.append(copy)

    def _store(self) -> None:
        """Prepare the copies that wait, to be committed first; all in one order, so that no two
        deliveries lock each other out."""
        places: dict[tuple[str, int], list[_Copy]] = {}
        for copy in self.waiting:
            places[copy.place] = [*places.pop(copy.place, ()), copy]
        self.waiting = []
        steps: dict[tuple[str, int], _Step] = {}
        try:
            for place in sorted(places):
                steps[place] = self._step(places[place])
        except PermFail as error:  # only now do we know that something else has this name
            if error.status != BAD_FOLDER:
                raise
            while steps:
                steps.popitem()[1].prepared.abort()
            self.waiting = [
                self._in_the_inbox(copy, error) if copy.place == place else copy
                for copies in places.values()
                for copy in copies
            ]
            self._store()
        finally:
            self.steps[:0] = [steps[place] for place in places if place in steps]

    def _in_the_inbox(self, copy: _Copy, error: PermFail) -> _Copy:
        """The same copy where it will always find a place, and the trouble told."""
        self.trouble.append((copy.action.owner, f"{error}; {_KEPT}"))
        instead = self._copy(copy.key, replace(copy.action, folder=""))
        self.copies[self.copies.index(copy)] = instead
        return instead

    def _step(self, copies: list[_Copy]) -> _Step:
        """One copy for all that want it: the flags of all, and of the rest what was said last."""
        _, action, mailbox, folder, _ = copies[-1]
        flags = frozenset(flag for copy in copies for flag in copy.action.flags)
        said = [copy.action.option("expire") for copy in copies]
        expire = next((e for e in reversed(said) if isinstance(e, float)), None)
        keys, steward = tuple(copy.key for copy in copies), self.job.means.steward
        of_site = next((copy.action for copy in copies if _is_of_site(copy.action)), None)
        if steward is not None and of_site is not None:
            options = () if expire is None else (("expire", expire),)
            asked = replace(of_site, flags=flags, options=options, message=action.message)
            return _Step(keys, action, steward.prepare(self.job, asked))
        chunks = self._stored(action.message or self.job.message)
        sender, received = self.job.envelope.sender, self.job.envelope.received
        return _Step(
            keys, action, prepare(mailbox, folder, chunks, flags, sender, received, expire)
        )

    def _stored(self, message: Message) -> list[bytes | memoryview]:
        """The chunks of a message as it is stored, made once for all copies."""
        if id(message) not in self.chunks:
            job = self.job
            prefix = trace_fields(job.envelope, job.means.hostname, job.ident)
            self.chunks[id(message)] = stored(message, prefix)
        return self.chunks[id(message)]

    def commit(self) -> None:
        """Commit all. What can never work is got around; what may work later is for the next
        try, which finds in the ledger what was done in this one."""
        try:
            while self.steps:
                self._commit(self.steps.pop(0))
        except BaseException as error:
            self.abort()
            ledger.write(self.job, self.done)
            if isinstance(error, TempFail) and self.places:
                done = f"{error}; done before: {', '.join(self.places)}"
                raise TempFail(error.status, done) from error
            raise

    def _commit(self, step: _Step) -> None:
        try:
            step.prepared.commit()
        except MailError as error:
            self._reached(step, error.done)
            if not isinstance(error, PermFail):
                raise
            self._refused(step.action, error)
            self._store()
        else:
            if not step.action.also:  # only what is sent on has a relay
                self.relay = getattr(step.prepared, "relay", self.relay)
            self.use = getattr(step.prepared, "use", None) or self.use
            self.places.append(step.prepared.where)
            self.done.update(step.keys)

    def _reached(self, step: _Step, targets: Sequence[str]) -> None:
        """Some of several targets have the message, and the others have not."""
        self.done.update(_of_target(step.keys[0], target) for target in targets)
        if targets:
            self.places.append(f"{step.action.verb} {', '.join(targets)}")

    def abort(self) -> None:
        """Take back what was not committed."""
        for step in self.steps:
            step.prepared.abort()
        self.steps = []


def _of_target(key: str, target: str) -> str:
    """What was done for one target of an action, in the ledger."""
    return f"{key} to {target}"


def _is_done_here(action: Action) -> bool:
    """There is something to do; for `discard` and `reject` there is not."""
    return action.stores or action.verb in DELIVERERS


def _is_of_site(action: Action) -> bool:
    """A copy in a mailbox that the rules of the site name by its path."""
    return action.owner == "site" and elsewhere(action.folder) is not None


def _hopeless(action: Action) -> str:
    """Why an action of a user can never work; a site will be mended while the mail waits."""
    if action.verb != "pipe" or action.owner == "site":
        return ""
    from .program import find

    return "" if find(action.targets[0]) else f"there is no program {action.targets[0]}"


def _saved(last: Action, places: Iterable[str]) -> Status:
    folders = [
        place.partition(" ")[2] for place in places if place.startswith(("maildir ", "mbox "))
    ]
    return _reply(SAVED, f"Saved to {', '.join(folders)}" if folders else "")


def _reply(status: Status, text: str) -> Status:
    """The status with a text of a rule, on one line of ASCII (RFC 5321 section 4.2)."""
    line = one_line(text).encode("ascii", "replace").decode()[:MAX_REPLY]
    return Status(status.code, status.enhanced, line or status.text)


_STATUS: dict[str, Callable[[Action, list[str]], Status]] = {
    "deliver": _saved,
    "keep": _saved,
    "forward": lambda last, places: Status(250, "2.0.0", "Forwarded"),
    "discard": lambda last, places: Status(250, "2.0.0", "Discarded"),
    "pipe": lambda last, places: Status(250, "2.0.0", "Taken by a program"),
    "quarantine": lambda last, places: Status(250, "2.0.0", "Quarantined"),
    "reject": lambda last, places: _reply(REJECTED, last.text),
}
