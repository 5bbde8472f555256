"""A recipient that is an alias of the site's rules: one message for many, and one status.

Whoever has a mailbox here gets the message by the whole way, each with rules and a log line of
their own; all others are sent it by the next MTA. The worst status is that of the recipient.
Who has it already does not get it again when the message comes back for the others (P10).

A sender who asked for a receipt gets one for the alias when all have the message; of the targets
he hears only what goes wrong (RFC 3461 section 5.2.7.3). A single target stands for its alias:
what was asked goes on to it (5.2.7.2).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from mdaflow.deliver import forward, ledger
from mdaflow.deliver.execute import Done
from mdaflow.deliver.job import Job
from mdaflow.deliver.mailbox import Mailbox
from mdaflow.engine.plan import Action
from mdaflow.errors import SAVED, TOO_SLOW, Status, TempFail
from mdaflow.mail.envelope import Envelope
from mdaflow.mail.message import Message
from mdaflow.mail.receipt import without_success
from mdaflow.route.users import User, find

from .build import Site
from .failure import failed
from .receipts import confirm, confirm_expanded

_NOWHERE = Mailbox("maildir", "/nonexistent", "Maildir")

Deliver = Callable[[Message, Envelope, User, Callable[[], bool]], Status]
"""Delivers to a user of ours, and writes the log line."""
Tell = Callable[[Message, Envelope, Done], None]
"""Writes the log line of a target that is not ours."""


def deliver_to_all(
    site: Site,
    targets: tuple[str, ...],
    message: Message,
    envelope: Envelope,
    fence: Callable[[], bool],
    deliver: Deliver,
    tell: Tell,
) -> Status:
    """Deliver to everybody that a recipient stands for; the worst status. Never raises."""
    job = Job(message, envelope, _NOWHERE, "-", site.means)
    done = set(ledger.already_done(job))
    several = len(targets) > 1
    passed = replace(envelope, notify=without_success(envelope.notify)) if several else envelope
    worst, late = SAVED, False
    for target in targets:
        if target in done:
            continue
        status = _deliver_to(site, message, passed, target, fence, deliver, tell, late=late)
        late = late or status == TOO_SLOW
        if status.ok:
            done.add(target)
        worst = max(worst, status, key=_badness)
    if not worst.ok:
        ledger.write(job, done)
    if several and worst.ok:
        confirm_expanded(site, message, envelope, envelope.queue_id or "-")
    return worst if not worst.ok else Status(250, "2.0.0", f"Delivered to {len(targets)}")


def _badness(status: Status) -> int:
    """What may still work is worse than what never will: the message has to come again."""
    return 0 if status.ok else 2 if status.temporary else 1


def _deliver_to(
    site: Site,
    message: Message,
    envelope: Envelope,
    target: str,
    fence: Callable[[], bool],
    deliver: Deliver,
    tell: Tell,
    *,
    late: bool,
) -> Status:
    about = replace(envelope, recipient=target, original=envelope.original or envelope.recipient)
    try:
        if late:  # the fence will not open again: no work for nothing
            raise TempFail(TOO_SLOW, "the deadline passed before its turn")
        user = find(site.users, target)
        if user is not None:
            return deliver(message, about, user, fence)
        done = _send(site, message, envelope, target, fence)
    except Exception as error:  # one target is no reason to fail the others (P7)
        done = failed(error, target)
    tell(message, about, done)
    confirm(site, message, envelope, done, envelope.queue_id or "-")
    return done.status


def _send(
    site: Site, message: Message, envelope: Envelope, target: str, fence: Callable[[], bool]
) -> Done:
    job = Job(message, envelope, _NOWHERE, "-", site.means)
    transaction = forward.prepare(job, Action("forward", targets=(target,)))
    if not fence():
        transaction.abort()
        raise TempFail(TOO_SLOW, "the deadline passed before the message was sent")
    transaction.commit()
    return Done(SAVED, "forwarded", (transaction.where,), relay=transaction.relay)
