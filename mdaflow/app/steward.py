"""What a worker does for the process that delivers as a user: all that takes the site's rights.

`attend` follows one delivery: it answers what the rules ask of the site's store, carries out what
only the site can (forward, reply, quarantine, mailboxes that the site's rules name by a path), says
whether it is not too late, and writes the log lines. The other side (identity.py) is code of ours,
but it reads files of a user. So it gets no more than its recipient is due: its keys in the store
are its own, an action of the site has to stand in the site's rules, each value is checked.
"""

from __future__ import annotations

import logging
import math
import os
import re
import time
from collections.abc import Callable
from importlib import import_module
from typing import Any

from mdaflow.deliver import prepare
from mdaflow.deliver.execute import DELIVERERS, MAX_REPLY, STEWARDED, Done
from mdaflow.deliver.job import Job
from mdaflow.deliver.mailbox import Mailbox, Prepared, elsewhere
from mdaflow.engine.context import Fact
from mdaflow.engine.plan import OUTCOMES, STORING, Action, one_line
from mdaflow.errors import INTERNAL, Status, TempFail
from mdaflow.lang.source import Span
from mdaflow.mail.envelope import Envelope
from mdaflow.mail.message import Message
from mdaflow.mail.receipt import Relay
from mdaflow.mail.trace import stored, trace_fields
from mdaflow.route.users import User

from .answers import FAR
from .build import Site
from .carry import Carried
from .frames import Frame, Frames, Nonsense, answer_of, fits, received_raw

log = logging.getLogger("mdaflow")

KEYS = ("rules ", "notice ", "quota ", "done ")
"""How keys begin that a delivery keeps for itself."""
PAST = 660.0
"""Seconds to wait behind the fence: programs may run for 600."""
MOST = 1000
"""Things that may be said in one delivery."""
MOST_LINES = 200
"""Lines for the log in one."""
MOST_KEPT = 16
"""Values that one may have kept."""
MOST_WHOLE = 4
"""Messages that filters have made and one may hand over."""
ROOM = 64 << 20
"""Bytes of a message that rules have changed: what a filter may make, and header fields."""

MAX_LINE = 8192
"""Characters of a line for the log."""

_NAMED = frozenset({"finding", "listed", "remembered"})
"""The facts that have an argument."""
_NOWHERE = Mailbox("maildir", "/nonexistent", "Maildir")
_SPAN = (str, int, int, int, int)
_ACTION = (str, str, str, [str], bool, str, str, list, [str], [(str, str | float | int)], str)
"""Of an Action: verb, folder, text, flags, also, owner, rule, span or nothing, targets, options,
handle."""


class Steward:
    """The worker's side of one delivery."""

    def __init__(
        self,
        site: Site,
        frames: Frames,
        message: Message,
        envelope: Envelope,
        user: User,
        fence: Callable[[], bool],
        until: float = math.inf,
    ) -> None:
        """`until` it has to be at the fence, on the monotonic clock; what we do for it does not
        count."""
        self._site = site
        self._frames = frames
        self._message = message
        self._envelope = envelope
        self._user = user
        self._fence = fence
        self._steps: dict[int, Prepared] = {}
        self._number = 0
        self._until = time.monotonic() + site.config.lmtp.deadline
        self._patient = until
        self.passed = False
        """The fence was passed: it may be delivered."""
        self._kept = self._whole = self._sent_on = 0

    def attend(self) -> Carried:
        """Serve until the delivery is done. Raises OSError when the other side is gone, says
        nothing for too long, or what it must not."""
        try:
            for _ in range(MOST):
                frame = hear(self._frames, self._user, min(self._until, self._patient))
                try:
                    match frame.value:
                        case ["done", *words]:
                            return _carried(words)
                        case [str(name), *arguments] if name in _ACTS:
                            self._answer(frame, name, arguments)
                        case _:
                            raise Nonsense("no words of ours")
                finally:
                    for file in frame.files:
                        os.close(file)
            raise Nonsense("it goes on for ever")
        finally:
            for step in self._steps.values():
                step.abort()

    def _answer(self, frame: Frame, name: str, arguments: list[Any]) -> None:
        form, act = _ACTS[name]
        if not fits(arguments, form):
            raise Nonsense("no words of ours")
        began = time.monotonic()
        answer = answer_of(lambda: act(self, frame, *arguments))
        self._patient += time.monotonic() - began
        self._frames.send(answer)

    # --- what is asked ---------------------------------------------------------------------

    def _pass(self, frame: Frame) -> bool:
        passed = self._fence()
        self.passed = self.passed or passed
        if passed:
            self._until = self._patient = time.monotonic() + PAST
        return passed

    def _fact(
        self, frame: Frame, name: str, arguments: list[str], owner: str, within: float
    ) -> list[object] | None:
        if name not in FAR or len(arguments) != (name in _NAMED):
            raise Nonsense(f"asks for {name[:MAX_REPLY]}")
        ask = self._site.answers.about(self._user, really=True, message=self._message)
        about = Fact(name, self._message, self._envelope, tuple(arguments), owner, within)
        found = ask(about)
        return None if found is None else list(found)

    def _seen(self, frame: Frame) -> None:
        self._site.answers.remember_seen(self._message, self._user)

    def _get(self, frame: Frame, key: str) -> str | None:
        return self._site.answers.store.get(self._own(key))

    def _put(self, frame: Frame, key: str, value: str, seconds: float | None) -> None:
        self._count_kept()
        self._site.answers.store.put(self._own(key), value, seconds)

    def _add(self, frame: Frame, key: str, value: str, seconds: float | None) -> bool:
        self._count_kept()
        return self._site.answers.store.add(self._own(key), value, seconds)

    def _count_kept(self) -> None:
        self._kept += 1
        if self._kept > MOST_KEPT:
            raise Nonsense("keeps too much")

    def _own(self, key: str) -> str:
        if not key.startswith(KEYS):
            raise Nonsense("a key of others")
        return f"of {self._user.address} {key}"

    # --- what is to be done ----------------------------------------------------------------

    def _prepare(
        self, frame: Frame, ident: str, own: list[str], what: list[Any], how: str
    ) -> list[object]:
        verb, folder, text, flags, also, owner, rule, place, targets, options, handle = what
        if not self._may(verb, folder, owner):
            why = "have they changed since the last reload?" if owner == "site" else ""
            raise TempFail(INTERNAL, f"the rules of the {owner} do not {verb} here; {why}")
        limits = self._site.config.rules.limits
        self._sent_on += (len(targets) or 1) if verb in ("forward", "notify", "reply") else 0
        self._whole += how == "whole"
        if (
            len(self._steps) >= limits.actions
            or self._sent_on > 2 * limits.forwards  # of the user and of the site
            or self._whole > MOST_WHOLE
        ):
            raise Nonsense("too much at once")
        said = tuple((name, value) for name, value in options)
        flagged, to = frozenset(flags), tuple(targets)
        message = self._edited(frame, how)
        span = Span(*place) if fits(place, _SPAN) else None
        action = Action(
            verb, folder, text, flagged, also, owner, rule, span, to, said, handle, message
        )
        means, whose = self._site.means, self._user.address
        job = Job(self._message, self._envelope, _NOWHERE, ident, means, tuple(own), whose)
        step = _store(job, action) if verb in STORING else _hand_on(job, action)
        self._number += 1
        self._steps[self._number] = step
        return [self._number, step.where]

    def _may(self, verb: str, folder: str, owner: str) -> bool:
        """Rules of the site do this somewhere, or those of users may do it."""
        if owner == "site":
            return (verb, folder if verb in STORING else "") in self._site.says
        return verb in STEWARDED - {"learn"} and verb in self._site.rules.powers

    def _edited(self, frame: Frame, how: str) -> Message | None:
        """The message as rules have changed it; None if they have not."""
        if how == "head":
            return self._message.edited(frame.raw)
        most = max(ROOM, 2 * self._message.size)
        return Message(received_raw(frame, sealed=True, most=most)) if how == "whole" else None

    def _commit(self, frame: Frame, number: int) -> list[object]:
        if not self.passed or number not in self._steps:
            raise Nonsense("commits without having asked")
        step = self._steps.pop(number)
        step.commit()
        return [step.where, getattr(step, "relay", None)]

    def _abort(self, frame: Frame, number: int) -> None:
        step = self._steps.pop(number, None)
        if step is not None:
            step.abort()


def hear(frames: Frames, user: User, until: float) -> Frame:
    """What is said next besides lines for the log, which are written; until a time on the monotonic
    clock. Raises OSError."""
    whose = user.account.name if user.account is not None else user.address
    for _ in range(MOST_LINES):
        left = until - time.monotonic()
        if left <= 0:
            raise TimeoutError("it says nothing of use")
        frame = frames.receive(left)
        match frame.value:
            case ["log", int(level), str(text)] if not frame.files:
                level = min(max(level, logging.DEBUG), logging.ERROR)
                log.log(level, "%s: %s", whose, text[:MAX_LINE])  # so that it is no line of ours
                frames.send(["ok", None])
            case _:
                return frame
    raise Nonsense("it goes on for ever")


def _store(job: Job, action: Action) -> Prepared:
    """A copy in a mailbox that rules of the site name by its path."""
    found = elsewhere(action.folder)
    if found is None:
        raise Nonsense("no mailbox of the site")
    trace = trace_fields(job.envelope, job.means.hostname, job.ident)
    chunks = stored(action.message or job.message, trace)
    expire = action.option("expire")
    e = job.envelope
    seconds = expire if isinstance(expire, float) else None
    return prepare(*found, chunks, action.flags, e.sender, e.received, seconds)


def _hand_on(job: Job, action: Action) -> Prepared:
    module = import_module(f"mdaflow.deliver.{DELIVERERS[action.verb]}")
    prepared: Prepared = module.prepare(job, action)
    return prepared


_NUMBER = float | int | None
_ACTS: dict[str, tuple[tuple[Any, ...], Callable[..., object]]] = {
    "fence": ((), Steward._pass),
    "fact": ((str, [str], str, float | int), Steward._fact),
    "seen": ((), Steward._seen),
    "get": ((str,), Steward._get),
    "put": ((str, str, _NUMBER), Steward._put),
    "add": ((str, str, _NUMBER), Steward._add),
    "prepare": ((str, [str], _ACTION, str), Steward._prepare),
    "commit": ((int,), Steward._commit),
    "abort": ((int,), Steward._abort),
}
"""What may be said -> the form of its arguments, and who carries it out."""


_ENHANCED = re.compile(r"[245]\.[0-9]{1,3}\.[0-9]{1,3}")
_CODES = {2: range(250, 251), 4: range(450, 460), 5: range(550, 560)}
_DONE = ((int, str, str), str, [str], str, str, str, None.__class__ | list)


def _carried(words: list[Any]) -> Carried:
    """What became of the message, in the words of `identity.told`."""
    if not fits(words, _DONE):
        raise Nonsense("no words of ours")
    (code, enhanced, text), outcome, places, trouble, rule, where, relay = words
    kind = {"rejected": 5, "deferred": 4}.get(outcome, 2)
    right = _ENHANCED.fullmatch(enhanced) and int(enhanced[0]) == kind
    if not right or code not in _CODES[kind] or outcome not in OUTCOMES.values():
        raise Nonsense("no words of ours")
    status = Status(code, enhanced, one_line(text)[:MAX_REPLY])
    done = Done(status, outcome, tuple(places), trouble, relay=_relay(relay))
    return Carried(done, rule, where)


def _relay(words: list[Any] | None) -> Relay | None:
    if words is None:
        return None
    if not fits(words, (str, str, bool, [str])):
        raise Nonsense("no words of ours")
    host, answer, dsn, targets = words
    return Relay(host, answer, dsn, tuple(targets))
