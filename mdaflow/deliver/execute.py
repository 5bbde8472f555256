"""Carrying out a Plan: prepare every action, then commit them, and say what became of it.

A failure before the commits leaves nothing behind and is a 4xx (P4, P11). The fence is asked
once, between the two (P8): behind it the message is delivered, before it nothing was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

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

from . import prepare
from .mailbox import Mailbox, Prepared, locate

Place = tuple[str, ...]
MAX_REPLY = 200
"""Characters of a rule's text in a reply."""


@dataclass(frozen=True, slots=True)
class Done:
    """What became of a message: the reply, the outcome in the words of the log, and where."""

    status: Status
    outcome: str
    places: tuple[str, ...] = ()
    """`maildir lists/dev` for each copy."""
    trouble: str = ""
    """What went wrong on the way and was got around."""


def execute(
    plan: Plan,
    message: Message,
    envelope: Envelope,
    mailbox: Mailbox,
    *,
    hostname: str = "localhost",
    ident: str = "-",
    fence: Callable[[], bool] = lambda: True,
) -> Done:
    """Do what a plan says, for one recipient.

    `ident` is the id of this delivery in the trace fields. When `fence` says no, nothing is
    delivered. Raises TempFail when nothing was done and the message should come again.
    """
    last = plan.deciding
    if last.verb == "defer":
        return Done(_reply(DEFERRED, last.text), "deferred")
    ready, trouble = _prepare_all(plan, message, envelope, mailbox, hostname, ident)
    if not fence():
        _abort(ready)
        raise TempFail(TOO_SLOW, "the deadline passed before the commit")
    _commit_all(ready)
    places = tuple(p.where for p in ready)
    return Done(_STATUS[last.verb](last, ready), OUTCOMES[last.verb], places, trouble)


def _prepare_all(
    plan: Plan, message: Message, envelope: Envelope, mailbox: Mailbox, hostname: str, ident: str
) -> tuple[list[Prepared], str]:
    chunks = stored(message, trace_fields(envelope, hostname, ident))
    copies, trouble = _copies(plan, mailbox)
    ready: dict[Place, Prepared] = {}
    try:
        for place in sorted(copies):  # in one order, so that no two deliveries lock each other out
            folder, flags = copies[place]
            args = (mailbox, folder, chunks, flags, envelope.sender, envelope.received)
            ready[place] = prepare(*args)
    except BaseException:
        _abort(ready.values())
        raise
    return [ready[place] for place in copies], trouble


def _copies(plan: Plan, mailbox: Mailbox) -> tuple[dict[Place, tuple[str, frozenset[str]]], str]:
    """The folders to store in with their flags, by their paths, and what went wrong.

    Each place is there once, whatever names it has: a second copy would wait for the lock of
    the first.
    """
    copies: dict[Place, tuple[str, frozenset[str]]] = {}
    trouble = ""
    for action in plan.actions:
        if not action.stores:
            continue
        folder = action.folder
        try:
            place = locate(mailbox, folder)
        except PermFail as error:
            # It can never be a folder. What a rule says literally was checked when it was
            # compiled, so this name came out of the mail: waiting would not mend it.
            trouble = f"{error}; kept in the inbox"
            folder, place = "", locate(mailbox, "")
        _, flags = copies.pop(place, ("", frozenset()))
        copies[place] = folder, flags | action.flags
    return copies, trouble


def _commit_all(ready: list[Prepared]) -> None:
    for at, copy in enumerate(ready):
        try:
            copy.commit()
        except BaseException:
            _abort(ready[at + 1 :])
            raise


def _abort(ready: Iterable[Prepared]) -> None:
    for copy in ready:
        copy.abort()


def _saved(last: Action, ready: list[Prepared]) -> Status:
    places = [copy.where.partition(" ")[2] for copy in ready]
    return _reply(SAVED, f"Saved to {', '.join(places)}")


def _reply(status: Status, text: str) -> Status:
    """The status with a text of a rule, on one line of ASCII (RFC 5321 section 4.2)."""
    line = one_line(text).encode("ascii", "replace").decode()[:MAX_REPLY]
    return Status(status.code, status.enhanced, line or status.text)


_STATUS: dict[str, Callable[[Action, list[Prepared]], Status]] = {
    "deliver": _saved,
    "keep": _saved,
    "discard": lambda last, ready: Status(250, "2.0.0", "Discarded"),
    "reject": lambda last, ready: _reply(REJECTED, last.text),
}
