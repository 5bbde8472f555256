"""The way of a message: route it, run the rules, carry out the plan, log what became of it.

    bytes -> Message -> route -> run(program, message, envelope, ask) -> Plan -> execute -> Status

The server, the commands and the tests all come this way. Nothing is caught below: here an
exception becomes a status, once per recipient, and is never permanent (P4).
"""

from __future__ import annotations

import itertools
import logging
import math
import os
import re
import time
from collections.abc import Callable
from dataclasses import replace

from mdaflow.deliver import ledger, quota
from mdaflow.deliver.execute import Done
from mdaflow.engine.run import Stage
from mdaflow.errors import (
    INTERNAL,
    LOOP,
    RECIPIENT_OK,
    UNDERWAY,
    MailError,
    PermFail,
    Status,
    TempFail,
)
from mdaflow.mail.address import without_detail
from mdaflow.mail.envelope import NOBODY, Client, Envelope
from mdaflow.mail.loop import came_back
from mdaflow.mail.message import Message
from mdaflow.route.destination import ONLY_BOUNCES, TOO_MANY, Destination
from mdaflow.route.users import User

from .build import Site, accounts_of
from .carry import Carried, carry_out
from .decide import find_user
from .expand import Expansion
from .failure import failed
from .log import about, bracketed, delivery
from .receipts import confirm
from .routing import Routed, route, whose_turn

log = logging.getLogger("mdaflow")
_count = itertools.count()

_ROUTE = "route"
"""What decided where no rule did: a table that `mdaflow route` shows."""
PATIENCE = 3600.0
"""Seconds for which mail waits behind aliases that are a loop, or too many; then it is refused."""
MAX_TURNS = 10_000
"""Recipients of whom it is known by which line of a table they stand for others."""

_BEFORE = Done(Status(250, "2.0.0", "was delivered before"), "delivered")
"""What becomes of a message that came again because its peer did not know it."""


def deliver_message(
    site: Site,
    message: Message,
    envelope: Envelope,
    fence: Callable[[], bool] = lambda: True,
    user: User | None = None,
    programs: list[Stage] | None = None,
    patience: float = math.inf,
) -> Status:
    """Deliver to one recipient and write the log line. Never raises.

    `user` says whose mailbox it is when that is known already, `programs` which rules run
    instead of those that are installed, `patience` for how many seconds others can wait for the
    process of an account.
    """
    if _delivered_before(site, message, envelope):
        return _BEFORE.status
    ident = _ident()
    try:
        user = user or _accepted(site, envelope.recipient)
        if not envelope.released and came_back(message, _whose(site, envelope), site.key):
            raise PermFail(LOOP)
        if user.account is not None and site.identities is not None:
            carried = site.identities.carry_out(
                site, message, envelope, user, ident, fence, patience
            )
        else:
            carried = carry_out(site, message, envelope, user, ident, fence, programs)
    except Exception as error:  # nothing may bounce mail, nor stop the other recipients (P4, P7)
        carried = Carried(failed(error, envelope.recipient))
    _log(message, envelope, carried)
    confirm(site, message, envelope, carried.done, envelope.queue_id or ident)
    status = carried.done.status
    return Status(status.code, status.enhanced, f"{ident} {status.text}") if status.ok else status


def _delivered_before(site: Site, message: Message, envelope: Envelope) -> bool:
    """It is here already; then its line of the log is written."""
    found = ledger.all_done(site.means, message, envelope)
    if found:
        _log(message, envelope, Carried(_BEFORE))
    return found


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


def _log(message: Message, envelope: Envelope, carried: Carried) -> None:
    done = carried.done
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
            "rule": carried.rule,
            "where": carried.where,
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
        self._accounts = accounts_of(site)
        self._turns: dict[str, str] = {}
        self._circles: dict[str, float] = {}
        """Recipients that lead nowhere, and since when, by the monotonic clock."""

    def check(self, recipient: str, sender: str = "", client: Client = NOBODY) -> Status:
        """May this recipient have mail from there? Never raises."""
        routed = route(self._site, recipient, sender, client, quick=True)
        self._take_turns(recipient, routed.destinations[0].where)
        status, why = RECIPIENT_OK, ""
        if routed.refusal is not None:
            status, why = self._refused(recipient, routed.refusal)
        else:
            self._circles.pop(recipient.lower(), None)
        if routed.user is not None and status.ok:
            try:
                self._check_room(routed.user)
            except MailError as error:
                status, why = error.status, str(error)
        if not status.ok:
            level = logging.WARNING if status.temporary else logging.INFO
            said = "put off" if status.temporary else "refused"
            log.log(level, "%s: %s at RCPT: %s", bracketed(recipient), said, why)
        return status

    def _take_turns(self, recipient: str, where: str) -> None:
        """Remember what a recipient stands for: there may be any number of names for one line of
        a table, and all share its turns."""
        if where:
            if len(self._turns) >= MAX_TURNS:
                self._turns.clear()
            self._turns[recipient] = where

    def _refused(self, recipient: str, refusal: Destination) -> tuple[Status, str]:
        """The reply to a recipient that nobody is, and why. A circle that stays is a loop (P35):
        first the site has time to mend it."""
        status = refusal.status or INTERNAL
        if status == TOO_MANY:
            now = time.monotonic()
            if len(self._circles) >= MAX_TURNS:
                self._circles.clear()
            waited = now - self._circles.setdefault(recipient.lower(), now)
            if waited > PATIENCE:
                return LOOP, f"{refusal.why}, for {waited / 3600:.0f} hours"
        where = refusal.where.rpartition("/")[2]
        return status, f"{refusal.why} ({where})" if where else refusal.why

    def _check_room(self, user: User) -> None:
        """Raise when a quota leaves no room. Raises TempFail, PermFail."""
        if user.account is None or self._site.identities is None:
            quota.check(self._site.mailbox(user))
        elif user.quota or user.quota_messages:
            self._site.identities.check_room(self._site, user)

    def deliver(self, message: Message, envelope: Envelope, fence: Callable[[], bool]) -> Status:
        """Deliver to one recipient, or to all that it stands for. Never raises."""
        site = self._site
        routed = route(site, envelope.recipient, envelope.sender, envelope.client)
        if routed.allowed:
            envelope = replace(envelope, allowed=True)
        if routed.user is not None:
            return deliver_message(site, message, envelope, fence, routed.user)
        with ledger.alone(site.means, message, envelope) as alone:
            if not alone:
                return self._refuse(message, envelope, TempFail(UNDERWAY))
            return self._expand(message, envelope, fence, routed)

    def _expand(
        self, message: Message, envelope: Envelope, fence: Callable[[], bool], routed: Routed
    ) -> Status:
        site = self._site
        if _delivered_before(site, message, envelope):
            return _BEFORE.status
        if came_back(message, _whose(site, envelope), site.key):
            return self._refuse(message, envelope, PermFail(LOOP))
        if routed.refusal is not None:  # it was accepted: who is gone since may come back (P4)
            status, why = routed.refusal.status or INTERNAL, routed.refusal.why
            if status == ONLY_BOUNCES:
                return self._refuse(message, envelope, PermFail(status, why))
            return self._refuse(message, envelope, TempFail(_for_now(status), f"{why} any more"))
        way = Expansion(site, message, envelope, _ident(), fence, self._deliver_to, _tell)
        return way.carry_out(routed.destinations)

    def _refuse(self, message: Message, envelope: Envelope, error: MailError) -> Status:
        done = failed(error, envelope.recipient)
        _tell(message, envelope, done)
        return done.status

    def whose(self, recipient: str) -> str:
        """Whose turn it is: an address without its detail, or an alias with all its targets."""
        whose = self._turns.get(recipient) or whose_turn(self._site.router, recipient)
        local, at, domain = whose.rpartition("@")
        if at and any(source.knows(domain) for source in self._accounts):
            return local  # an account is the same in all of their domains
        return whose

    def unconfirmed(self, message: Message, envelope: Envelope) -> None:
        """This was delivered, but its peer may not know: it may come again."""
        ledger.write_all_done(self._site.means, message, envelope)

    def _deliver_to(
        self,
        message: Message,
        envelope: Envelope,
        user: User,
        fence: Callable[[], bool],
        patience: float,
    ) -> Status:
        return deliver_message(self._site, message, envelope, fence, user, patience=patience)


def _for_now(status: Status) -> Status:
    return status if status.temporary else INTERNAL


def _tell(message: Message, envelope: Envelope, done: Done, where: str = "") -> None:
    _log(message, envelope, Carried(done, _ROUTE if where else "", where.rpartition("/")[2]))
