"""Send a message on to other addresses, by way of the next MTA.

The envelope sender stays as it is, also the null sender (P39). On top come the proof that the
message was here (see mail/loop.py) and our Received field; every other byte stays, apart from
what `send` must not send. The next hop's 250 is ours (P40): a forward is refused or deferred
as it is.

Who asked to be told (RFC 3461) is told by the next MTA, where the message goes on to one
address and nowhere else; if there are several we say that it was delivered, and the next MTA
reports only what goes wrong (section 5.2.7).

Known limit: the sender is not rewritten (SRS), so a target that checks SPF may refuse.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mdaflow.engine.plan import Action
from mdaflow.mail.address import without_detail
from mdaflow.mail.loop import loop_fields
from mdaflow.mail.receipt import Wishes, without_success
from mdaflow.mail.trace import stored, trace_fields

from .job import Job

if TYPE_CHECKING:
    from .send import Transaction


def prepare(job: Job, action: Action) -> Transaction:
    """The message on its way to `action.targets`, each of them once.

    Raises TempFail; PermFail for an address that is none, for no address at all, and for what
    the next hop refuses. Its commit may raise both, too.
    """
    from . import send  # smtplib and socket: 30 ms, and only for what is sent

    means, envelope = job.means, job.envelope
    whose = without_detail(envelope.recipient, means.delimiters)  # a loop could count in it
    loops = loop_fields(job.message, whose, means.key)
    chunks = stored(action.message or job.message, loops + _received(job))
    targets = tuple(dict.fromkeys(action.targets))
    several = action.also or len(targets) > 1
    notify = without_success(envelope.notify) if several else envelope.notify
    wishes = Wishes(envelope.ret, envelope.envid, notify, envelope.orcpt)
    return send.prepare(means, envelope.sender, targets, chunks, wishes=wishes)


def _received(job: Job) -> bytes:
    """Our Received field alone: the others are for mail that has arrived."""
    fields = trace_fields(job.envelope, job.means.hostname, job.ident)
    return fields[fields.index(b"\nReceived:") + 1 :]
