"""Tell somebody about a message: a short mail with the words of a rule.

The notice has the null sender (P39) and says that it is automatic (RFC 3834 section 5); about
such mail nobody is told, so that two notices never answer each other. It is sent at commit, and
fails no delivery.

A flood of mail is no flood of notices: within `PERIOD` an address gets at most `MOST` from the
rules of one user, and at most `MOST` from those of the site. Each takes a place in the memory; who
finds none, and who has no memory, sends nothing.
"""

from __future__ import annotations

import re
import time

from mdaflow.engine.plan import Action, one_line
from mdaflow.mail import letter

from .job import Job, Memory
from .mailbox import Prepared

FIELD = "X-mdaflow-Notice"
MAX_SUBJECT = 78
MOST = 10
"""Notices to one address within the period."""
PERIOD = 3600.0
"""Seconds for which a place is taken."""

_GENERATED = re.compile(r"\s*(?:\([^()]*\)\s*)*auto-generated\b", re.IGNORECASE)


def prepare(job: Job, action: Action) -> Prepared:
    """A notice to the first of `action.targets` that is sent at commit, or nothing, and `where`
    says why. Never raises."""
    from .letters import Letter, Nothing  # only for what is sent

    if not action.targets:
        return Nothing("no notice: no address")
    if _automatic(job):
        return Nothing("no notice: automatic mail")
    target, memory = action.targets[0], job.means.memory
    whose = "" if action.owner == "site" else job.whose.lower()
    key = f"notify {whose} {target.lower()}"
    return Letter(job, "notice", target, lambda: _write(job, action), lambda: _against(memory, key))


def _against(memory: Memory | None, key: str) -> str:
    """Take a place; why there is none, or nothing."""
    if memory is None:
        return "no memory"
    places = (f"{key} {number}" for number in range(MOST))
    try:  # to look costs less than to write
        taken = any(memory.get(k) is None and memory.add(k, "", PERIOD) for k in places)
    except OSError:
        return "no memory"
    return "" if taken else f"{MOST} within the hour"


def _automatic(job: Job) -> bool:
    said = job.message.header("Auto-Submitted")
    return FIELD.lower().encode() in job.message.fields or any(map(_GENERATED.match, said))


def _write(job: Job, action: Action) -> bytes:
    from .letters import message_id

    return letter.compose(
        sender=job.envelope.recipient,
        recipient=action.targets[0],
        subject=one_line(action.text)[:MAX_SUBJECT],
        text=action.text,
        date=time.time(),
        message_id=message_id(job),
        fields={"Auto-Submitted": "auto-generated (mdaflow)", FIELD: "yes"},
    )
