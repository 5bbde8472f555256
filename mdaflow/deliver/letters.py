"""Letters of ours on their way: replies and notices, with the null sender (P39).

Nothing waits for one before the commit, and nothing fails with it: what cannot be sent is a word in
the log.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import NamedTuple

from mdaflow.engine.plan import one_line
from mdaflow.errors import MailError
from mdaflow.mail.receipt import Wishes

from . import send
from .job import Job

LIMIT = 10.0
"""Seconds for the envelope, and once more for the data: it is not worth waiting for."""

UNHEARD = Wishes(notify=("NEVER",))
"""Nobody wants to be told what becomes of a letter of ours."""

log = logging.getLogger("mdaflow")


def message_id(job: Job) -> str:
    """A message id for a letter of ours."""
    return f"<{job.ident}.{os.urandom(6).hex()}@{job.means.hostname}>"


class Nothing(NamedTuple):
    """What is not sent, and why."""

    where: str

    def commit(self) -> None:
        """Do nothing."""

    def abort(self) -> None:
        """Do nothing."""


class Letter:
    """A letter of ours, with the null sender and no wish to hear of it (RFC 3834 section 3.3),
    that is sent at commit: nothing waits for it before. When it cannot be sent, `where` and the
    log say so, and nothing else fails (P38)."""

    def __init__(
        self,
        job: Job,
        kind: str,
        target: str,
        write: Callable[[], bytes],
        why_not: Callable[[], str] = lambda: "",
    ) -> None:
        self.where = f"{kind} {one_line(target)}"
        self._job, self._kind, self._target, self._write = job, kind, target, write
        self._why_not = why_not  # asked last, when the next hop has agreed

    def commit(self) -> None:
        """Send it, if that is possible. Never raises."""
        try:
            reason = self._send()
        except Exception as error:  # a bug, too, must not bring back what is stored already
            reason = error.status.text if isinstance(error, MailError) else "it failed"
            told = isinstance(error, MailError | OSError | ValueError)
            words = (self._job.ident, self._kind, self._target, error)
            log.warning("%s: no %s to <%s>: %s", *words, exc_info=not told)
        if reason:
            self.where = f"no {self._kind}: {reason}"

    def abort(self) -> None:
        """Do nothing: nothing was done."""

    def _send(self) -> str:
        written, to = [self._write()], (self._target,)
        transaction = send.prepare(self._job.means, "", to, written, LIMIT, UNHEARD)
        try:
            reason = self._why_not()
        except BaseException:
            transaction.abort()
            raise
        if reason:
            transaction.abort()
        else:
            transaction.commit()
        return reason
