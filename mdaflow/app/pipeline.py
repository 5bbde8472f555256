"""The way of a message: route it, run the rules, carry out the plan, log what became of it.

    bytes -> Message -> route -> run(program, message, envelope, ask) -> Plan -> execute -> Status

The server, the commands and the tests all come this way. Nothing is caught below: here an
exception becomes a status, once per recipient, and is never permanent (P4).
"""

from __future__ import annotations

import itertools
import logging
import os
import re
import time
from collections.abc import Callable

from mdaflow.deliver import ledger, quota
from mdaflow.deliver.execute import Done, execute
from mdaflow.engine.plan import Action, Plan
from mdaflow.engine.run import Stage
from mdaflow.errors import (
    INTERNAL,
    LOOP,
    RECIPIENT_OK,
    MailError,
    PermFail,
    Status,
    TempFail,
)
from mdaflow.mail.address import without_detail
from mdaflow.mail.envelope import Envelope
from mdaflow.mail.loop import came_back
from mdaflow.mail.message import Message
from mdaflow.route.users import User

from .build import Site
from .decide import SPARED, decide, find_user, stages_for
from .expand import deliver_to_all
from .failure import failed
from .log import about, bracketed, delivery
from .notices import Notices
from .receipts import confirm

log = logging.getLogger("mdaflow")
_count = itertools.count()

_BEFORE = Done(Status(250, "2.0.0", "was delivered before"), "delivered")
"""What becomes of a message that came again because its peer did not know it."""


def deliver_message(
    site: Site,
    message: Message,
    envelope: Envelope,
    fence: Callable[[], bool] = lambda: True,
    user: User | None = None,
    programs: list[Stage] | None = None,
) -> Status:
    """Deliver to one recipient and write the log line. Never raises.

    `user` says whose mailbox it is when that is known already, `programs` which rules run
    instead of those that are installed.
    """
    if _delivered_before(site, message, envelope):
        return _BEFORE.status
    ident = _ident()
    decided: Plan | None = None
    notice: Notices | None = None
    try:
        user = user or _accepted(site, envelope.recipient)
        if came_back(message, _whose(site, envelope), site.key):
            raise PermFail(LOOP)
        notice = Notices(site, user)
        with site.noted(message, envelope) as spare:
            if spare:
                decided = SPARED
            else:
                programs = stages_for(site, user, notice.tell) if programs is None else programs
                decided = decide(site, programs, message, envelope, user=user, really=True)
        done = execute(
            decided,
            message,
            envelope,
            site.mailbox(user),
            means=site.means,
            ident=ident,
            user=user.address,
            fence=fence,
        )
    except Exception as error:  # nothing may bounce mail, nor stop the other recipients (P4, P7)
        done = failed(error, envelope.recipient)
    _log(message, envelope, decided, done)
    confirm(site, message, envelope, done, envelope.queue_id or ident)
    if decided is not None and notice is not None and user is not None and done.status.ok:
        _afterwards(site, message, user, decided, done, notice)
    status = done.status
    return Status(status.code, status.enhanced, f"{ident} {status.text}") if status.ok else status


def _delivered_before(site: Site, message: Message, envelope: Envelope) -> bool:
    """It is here already; then its line of the log is written."""
    found = ledger.all_done(site.means, message, envelope)
    if found:
        _log(message, envelope, None, _BEFORE)
    return found


def _afterwards(
    site: Site, message: Message, user: User, decided: Plan, done: Done, notice: Notices
) -> None:
    """What a delivered message leaves behind; nothing of it makes the message come again."""
    if decided.asked_duplicate:
        try:
            site.answers.remember_seen(message, user)
        except Exception as error:
            log.warning("<%s>: a duplicate may not be known: %s", user.address, error)
    for error_text in decided.errors:
        notice.tell(f"{error_text}; kept in the inbox")
    if done.told:
        notice.tell(done.told)
    if done.use is not None:
        notice.warn_of_quota(done.use)


def _whose(site: Site, envelope: Envelope) -> str:
    return without_detail(envelope.recipient, site.config.recipient_delimiter)


def _accepted(site: Site, address: str) -> User:
    """The user of a recipient that was accepted: who is gone since may come back (P4)."""
    try:
        return find_user(site, address)
    except PermFail as error:
        raise TempFail(INTERNAL, f"{error} any more") from error


def _ident() -> str:
    """A short id of one delivery, unlikely to be met again within a log file."""
    number = (time.time_ns() // 1000 & 0xFFFFFFFF) << 16 ^ os.getpid() << 8 ^ next(_count)
    return f"{number & 0xFFFFFFFFFFF:011x}"


def _log(message: Message, envelope: Envelope, decided: Plan | None, done: Done) -> None:
    action = decided.deciding if decided is not None else Action("keep")
    message_id = message.header("Message-ID", raw=True)[:1]
    reason = ", ".join(done.places) or done.status.text
    if done.trouble not in ("", done.status.text):
        reason = f"{reason}: {done.trouble}"
    delivery(
        envelope.queue_id or _queue_id(message),
        about(envelope)
        | {
            "message-id": message_id[0][:200] if message_id else "",
            "size": message.size,
            "rule": action.rule,
            "where": action.span.short if action.span else "",
            "delay": round(max(0.0, time.time() - envelope.received), 3),
            "dsn": done.status.enhanced,
            "status": done.outcome,
            "reason": reason,
        },
    )


_ID = re.compile(rb"\sid ([0-9A-Za-z]{5,40})\b")


def _queue_id(message: Message) -> str:
    """The queue id in the field that our MTA wrote last: it tells none of mail that began here."""
    written = message.fields.get(b"received", [b""])[0]
    found = _ID.search(written[:1000])
    return found[1].decode() if found else ""


class Courier:
    """The pipeline as the server sees it."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def check(self, recipient: str) -> Status:
        """May this recipient have mail? Never raises."""
        try:
            if self._site.aliases.expand(recipient) == (recipient,):
                quota.check(self._site.mailbox(find_user(self._site, recipient)))
        except MailError as error:
            level = logging.WARNING if error.status.temporary else logging.INFO
            log.log(level, "%s: refused at RCPT: %s", bracketed(recipient), error)
            return error.status
        return RECIPIENT_OK

    def deliver(self, message: Message, envelope: Envelope, fence: Callable[[], bool]) -> Status:
        """Deliver to one recipient, or to all that it is an alias for. Never raises."""
        site = self._site
        try:
            targets = site.aliases.expand(envelope.recipient)
        except TempFail as error:
            log.warning("%s: %s", bracketed(envelope.recipient), error)
            return error.status
        if targets == (envelope.recipient,):
            return deliver_message(site, message, envelope, fence)
        if _delivered_before(site, message, envelope):
            return _BEFORE.status
        return deliver_to_all(site, targets, message, envelope, fence, self._deliver_to, _tell)

    def whose(self, recipient: str) -> str:
        """Whose turn it is: an address without its detail, or an alias with all its targets."""
        whose = self._site.aliases.only(recipient)
        return without_detail(whose.lower(), self._site.config.recipient_delimiter)

    def unconfirmed(self, message: Message, envelope: Envelope) -> None:
        """This was delivered, but its peer may not know: it may come again."""
        ledger.write_all_done(self._site.means, message, envelope)

    def _deliver_to(
        self, message: Message, envelope: Envelope, user: User, fence: Callable[[], bool]
    ) -> Status:
        return deliver_message(self._site, message, envelope, fence, user)


def _tell(message: Message, envelope: Envelope, done: Done) -> None:
    _log(message, envelope, None, done)
