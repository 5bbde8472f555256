"""Actions that change small state only, and never fail a delivery: remember, log, learn.

What goes wrong is a warning in the log and nothing else.

What the rules of a user remember is known to that user's rules only, whatever detail the address
had; what the rules of the site remember is known to the site's rules for every recipient. A key,
like all text of the rules, is compared without regard to case.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from mdaflow.engine.plan import Action, one_line

from .job import Job, Memory
from .mailbox import Prepared

MAX_TEXT = 1000
"""Characters of a text of the rules in our log."""

_log = logging.getLogger("mdaflow")


def prepare(job: Job, action: Action) -> Prepared:
    """An action of `ACTIONS` that waits to be done. Never raises, nor does what it returns."""
    return _Soft(job, action)


class _Soft:
    """One action on small state."""

    def __init__(self, job: Job, action: Action) -> None:
        self.where = _where(job, action)
        self._job = job
        self._action = action

    def commit(self) -> None:
        """Do it, if it can be done."""
        try:
            ACTIONS[self._action.verb](self._job, self._action)
        except Exception as error:  # of a store or a classifier: no reason to keep mail waiting
            to = one_line(self._job.envelope.recipient)
            _log.warning("<%s>: %s failed: %s", to, self._action.verb, one_line(str(error)))

    def abort(self) -> None:
        """There is nothing to take back."""


def _where(job: Job, action: Action) -> str:
    if action.verb == "learn":
        known = action.text in job.means.learners
        return f"learned {action.text}" if known else "learned nothing: no classifier is configured"
    return action.verb


def _remember(job: Job, action: Action) -> None:
    if job.means.memory is None:
        raise LookupError("there is no store")
    seconds = dict(action.options).get("for")
    key = _key(action.owner, job.whose, action.text)
    job.means.memory.put(key, "1", None if seconds is None else float(seconds))


def _say(job: Job, action: Action) -> None:
    where = f"{action.span.short}: " if action.span else ""
    text = one_line(action.text)[:MAX_TEXT]
    _log.info("<%s>: %s%s", one_line(job.envelope.recipient), where, text)


def _learn(job: Job, action: Action) -> None:
    learner = job.means.learners.get(action.text)
    if learner:
        learner(job, action.message or job.message, action.owner)


ACTIONS: dict[str, Callable[[Job, Action], None]] = {
    "remember": _remember,
    "log": _say,
    "learn": _learn,
}
"""The actions of this file by their verb."""


def remembered(memory: Memory | None, owner: str, whose: str, key: str) -> bool | None:
    """Whether a key is remembered for the rules of `owner`, on the mail of the user whose address
    is given; None when nobody can say."""
    if memory is None:
        return None
    try:
        return memory.get(_key(owner, whose, key)) is not None
    except OSError as error:
        _log.warning("<%s>: remembered failed: %s", one_line(whose), one_line(str(error)))
        return None


def _key(owner: str, user: str, key: str) -> str:
    """The key in the store: a hash, since what rules say has any length and any characters."""
    from hashlib import sha256  # a millisecond that `mdaflow test` has no use for

    whose = "" if owner == "site" else user
    said = f"{len(whose)} {whose} {key.casefold()}".encode("utf-8", "surrogatepass")
    return f"remember {'site' if owner == 'site' else 'user'} {sha256(said).hexdigest()}"
