"""Send a message on to other addresses, by way of the next MTA.

The envelope sender stays as it is, also the null sender (P39). On top come the proof that the
message was here (see mail/loop.py) and our Received field; every other byte stays, apart from
what `send` must not send. The next hop's 250 is ours (P40): a forward is refused or deferred
as it is.

Known limit: the sender is not rewritten (SRS), so a target that checks SPF may refuse.
"""

from __future__ import annotations

from mdaflow.engine.plan import Action
from mdaflow.mail.address import without_detail
from mdaflow.mail.loop import loop_fields
from mdaflow.mail.trace import stored, trace_fields

from .job import Job
from .mailbox import Prepared


def prepare(job: Job, action: Action) -> Prepared:
    """The message on its way to `action.targets`, each of them once.

    Raises TempFail; PermFail for an address that is none, for no address at all, and for what
    the next hop refuses. Its commit may raise both, too.
    """
    from . import send  # smtplib and socket: 30 ms, and only for what is sent

    means, envelope = job.means, job.envelope
    whose = without_detail(envelope.recipient, means.delimiters)  # a loop could count in it
    loops = loop_fields(job.message, whose, means.key)
    chunks = stored(action.message or job.message, loops + _received(job))
    return send.prepare(means, envelope.sender, tuple(dict.fromkeys(action.targets)), chunks)


def _received(job: Job) -> bytes:
    """Our Received field alone: the others are for mail that has arrived."""
    fields = trace_fields(job.envelope, job.means.hostname, job.ident)
    return fields[fields.index(b"\nReceived:") + 1 :]
