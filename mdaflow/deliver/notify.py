"""Tell somebody about a message: a short mail with the words of a rule.

The notice has the null sender (P39) and says that it is automatic (RFC 3834 section 5); about
such mail nobody is told, so that two notices never answer each other. It is sent at commit, and
fails no delivery.

Known limit: there is one notice for each message; how many there are in an hour is not counted.
"""

from __future__ import annotations

import re
import time

from mdaflow.engine.plan import Action, one_line
from mdaflow.mail import letter

from .job import Job
from .mailbox import Prepared

FIELD = "X-mdaflow-Notice"
MAX_SUBJECT = 78

_GENERATED = re.compile(r"\s*(?:\([^()]*\)\s*)*auto-generated\b", re.IGNORECASE)


def prepare(job: Job, action: Action) -> Prepared:
    """A notice to the first of `action.targets` that is sent at commit, or nothing, and `where`
    says why. Never raises."""
    from .send import Letter, Nothing  # smtplib and socket: 30 ms, and only for what is sent

    if not action.targets:
        return Nothing("no notice: no address")
    if _automatic(job):
        return Nothing("no notice: automatic mail")
    return Letter(job, "notice", action.targets[0], lambda: _write(job, action))


def _automatic(job: Job) -> bool:
    said = job.message.header("Auto-Submitted")
    return FIELD.lower().encode() in job.message.fields or any(map(_GENERATED.match, said))


def _write(job: Job, action: Action) -> bytes:
    from .send import message_id

    return letter.compose(
        sender=job.envelope.recipient,
        recipient=action.targets[0],
        subject=one_line(action.text)[:MAX_SUBJECT],
        text=action.text,
        date=time.time(),
        message_id=message_id(job),
        fields={"Auto-Submitted": "auto-generated (mdaflow)", FIELD: "yes"},
    )
