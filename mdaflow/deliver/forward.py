"""Send a message on to other addresses, by way of the next MTA.

The envelope sender stays as it is unless the site rewrites it (SRS, see mail/srs.py); the null
sender always stays (P39). On top come the proof that the message was here (see mail/loop.py), our
Received field, and where the site wants them the Resent fields of whoever sends it on (RFC 5322
section 3.6.6); every other byte stays, apart from what `send` must not send. The next hop's 250 is
ours (P40): a forward is refused or deferred as it is.

Who asked to be told (RFC 3461) is told by the next MTA, where the message goes on to one
address and nowhere else; if there are several we say that it was delivered, and the next MTA
reports only what goes wrong (section 5.2.7).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mdaflow.engine.plan import Action
from mdaflow.mail.address import without_detail
from mdaflow.mail.letter import is_address
from mdaflow.mail.loop import loop_fields
from mdaflow.mail.receipt import Wishes, without_success
from mdaflow.mail.trace import date, stored, trace_fields

from .job import Job

if TYPE_CHECKING:
    from .send import Transaction


def prepare(job: Job, action: Action, *, partly: bool = False) -> Transaction:
    """The message on its way to `action.targets`, each of them once; all of them or none, or
    `partly` each for itself.

    Raises TempFail; PermFail for an address that is none, for no address at all, and for what
    the next hop refuses. Its commit may raise both, too.
    """
    from . import send  # only for what is sent

    means, envelope, leaving = job.means, job.envelope, action.message or job.message
    whose = without_detail(envelope.recipient, means.delimiters)  # a loop could count in it
    targets = tuple(dict.fromkeys(action.targets))
    sender = envelope.sender if means.srs is None else means.srs.forward(envelope.sender)
    resent = _resent(job, () if partly else targets) if means.resent and not _back(job) else b""
    loops = loop_fields(job.message, whose, means.key, leaving)
    chunks = stored(leaving, resent + loops + _received(job))
    several = action.also or len(targets) > 1
    notify = without_success(envelope.notify) if several else envelope.notify
    wishes = Wishes(envelope.ret, envelope.envid, notify, envelope.orcpt)
    return send.prepare(means, sender, targets, chunks, wishes=wishes, partly=partly)


def _back(job: Job) -> bool:
    """It is on the way back to a rewritten sender, and nobody sends it on."""
    srs = job.means.srs
    return srs is not None and srs.reverse(job.envelope.recipient) is not None


def _resent(job: Job, targets: Sequence[str]) -> bytes:
    """The fields of whoever sends a message on; many do not learn of each other."""
    from .letters import message_id

    whose = job.envelope.recipient
    whose = whose if "@" in whose else f"{whose}@{job.means.hostname}"  # postmaster
    if not all(map(is_address, (whose, *targets))):
        return b""
    to = ",\n\t".join(targets) or "undisclosed-recipients:;"
    lines = (
        f"Resent-From: {whose}",
        f"Resent-To: {to}",
        f"Resent-Date: {date(time.time())}",
        f"Resent-Message-ID: {message_id(job)}\n",
    )
    return "\n".join(lines).encode()


def _received(job: Job) -> bytes:
    """Our Received field alone: the others are for mail that has arrived."""
    fields = trace_fields(job.envelope, job.means.hostname, job.ident)
    return fields[fields.index(b"\nReceived:") + 1 :]
