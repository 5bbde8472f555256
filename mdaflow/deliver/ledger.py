"""What of a plan was already done, when the rest of it failed and the message comes again (P10).

An entry is written only when a plan failed half way, and asked for only when a plan does more
than one thing: so it costs nothing where nothing can be done twice.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Collection

from .job import Job

KEEP = 86_400.0
"""Seconds for which a message that comes again is known."""

log = logging.getLogger("mdaflow")


def already_done(job: Job) -> frozenset[str]:
    """What an earlier try has carried out, by the names that it gave it."""
    memory = job.means.memory
    if memory is None:
        return frozenset()
    try:
        kept = memory.get(_key(job))
        return frozenset(json.loads(kept)) if kept is not None else frozenset()
    except (OSError, ValueError, TypeError) as error:  # a store may hold anything (P43)
        log.warning("what was done already is not known: %s", error)
        return frozenset()


def write(job: Job, done: Collection[str]) -> None:
    """Remember what was done; failing that, the next try does it again."""
    memory = job.means.memory
    if memory is None or not done:
        return
    try:
        memory.put(_key(job), json.dumps(sorted(done)), KEEP)
    except OSError as error:
        log.warning("what was done may be done again: %s", error)


def _key(job: Job) -> str:
    """The message as it came, its sender and its final recipient."""
    from hashlib import sha256

    digest = sha256(job.message.raw)
    digest.update(f"\0{job.envelope.sender}\0{job.envelope.recipient}".encode("utf-8", "replace"))
    return f"done {digest.hexdigest()}"
