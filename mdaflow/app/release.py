"""Letting a message out of the quarantine, or learning from it.

It is delivered as if it had just come, by all rules but those that would put it there again: the
envelope says that it is released (see engine/state.py). Only when it has arrived is it deleted
from the quarantine; a crash between makes a second copy when it is released again. Of two who
release it at once one does.
"""

from __future__ import annotations

import logging
import time
from dataclasses import replace

from mdaflow.deliver.held import Entry, Held, taken
from mdaflow.deliver.job import Job
from mdaflow.errors import MailError, MdaflowError, PermFail, Status
from mdaflow.mail.envelope import Envelope
from mdaflow.route.users import User

from .build import Site
from .caller import NOT_YOURS
from .decide import find_user
from .pipeline import deliver_message

log = logging.getLogger("mdaflow")


class NotDeleted(MdaflowError):
    """It was delivered, and is still in the quarantine."""


class NoRecipient(MdaflowError):
    """Nobody knows for whom it is."""


def release(site: Site, each: Held, to: str = "") -> Status:
    """Deliver a message to its recipient, or to another one, and delete it; unless the status is
    ok, it stays.

    Raises NotHeld, NoRecipient; PermFail for a recipient that nobody is; TempFail; and NotDeleted.
    """
    with taken(site.config.quarantine, each) as ours:
        entry = ours.entry()
        envelope = _envelope(entry, to)
        user = find_user(site, envelope.recipient)
        check_reach(site, user)
        status = deliver_message(site, entry.message, envelope, user=user)
        if status.ok:
            try:
                ours.remove(entry.name)
            except MailError as error:
                why = f"{entry.name}: delivered, but it is still in the quarantine: {error}"
                raise NotDeleted(why) from error
            log.info("%s: released from the quarantine for <%s>", entry.name, envelope.recipient)
        return status


def check_reach(site: Site, user: User) -> None:
    """Raise PermFail for an account of this machine that we cannot become."""
    if user.account is not None and site.identities is None:
        raise PermFail(NOT_YOURS, f"{user.address} is an account of its own: call as root")


def _envelope(entry: Entry, to: str) -> Envelope:
    if entry.note is None and not to:
        raise NoRecipient(f"{entry.name}: {entry.trouble}, so say for whom it is: --to ADDRESS")
    was = entry.note.envelope if entry.note is not None else Envelope()
    envelope = replace(was, protocol="local", received=time.time(), released=True)
    if not to:
        return envelope
    return replace(envelope, recipient=to, original=was.original or was.recipient)


def learn(site: Site, each: Held, kind: str) -> None:
    """Learn for the site that a message is `spam` or `ham`; it stays in the quarantine.

    Raises NotHeld, NoRecipient, MailError, OSError.
    """
    learner = site.means.learners[kind]
    with taken(site.config.quarantine, each) as ours:
        entry = ours.entry()
        envelope = _envelope(entry, "")
        user = find_user(site, envelope.recipient)
        job = Job(
            entry.message,
            envelope,
            site.mailbox(user),
            entry.name,
            site.means,
            user.own,
            user.address,
        )
        learner(job, entry.message, "site")
