"""What was already done with a message that comes again (P10).

There are two reasons to note that. A plan failed half way: then an entry names what was done,
and is asked for when a plan does more than one thing. Or all was done, but the peer may not know
it: the entry says so, and the message is not delivered again. Any message might be such a one,
so a file in the folder of state has the time of the last such entry, and while it is old nobody
asks the store. So nothing of this costs anything where nothing has failed.

A message may also come again while it is still on its way: a peer that was killed knows nothing of
its first try, and a list of thousands takes longer than the peer to begin anew. So who delivers to
many is alone at the message (underway.py).

What the store does not know is done again: two copies are better than none.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Collection
from contextlib import AbstractContextManager

from mdaflow.mail.envelope import Envelope
from mdaflow.mail.message import Message
from mdaflow.mail.raw import digest

from . import underway
from .job import Job, Means

KEEP = 86_400.0
"""Seconds for which a message that comes again is known."""
SLOW = "slow "
"""Before the name of what was not done because it took too long: it shall be tried last."""

_ALL = "all of it"  # neither an action, which has its number first, nor an address
_LAST = "unconfirmed"  # the file: nothing is in it, its time is what it says
_OPEN = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK

log = logging.getLogger("mdaflow")


def already_done(job: Job) -> frozenset[str]:
    """What an earlier try has carried out, by the names that it gave it."""
    return _get(job.means, job.message, job.envelope)


def write(job: Job, done: Collection[str]) -> None:
    """Remember what was done; failing that, the next try does it again."""
    if done:
        _put(job.means, job.message, job.envelope, done)


def all_done(means: Means, message: Message, envelope: Envelope) -> bool:
    """Was all done that there is to do? Never raises."""
    try:
        last = os.stat(f"{means.state}/{_LAST}").st_mtime
    except OSError:
        return False
    # also a time to come: the clock may have been set
    return time.time() - last < KEEP and _ALL in _get(means, message, envelope)


def write_all_done(means: Means, message: Message, envelope: Envelope) -> None:
    """Remember that all was done, for when the message comes again. Never raises."""
    if all_done(means, message, envelope):
        return  # it came again: a day counts from the first time
    _put(means, message, envelope, (_ALL,))
    try:
        file = os.open(f"{means.state}/{_LAST}", _OPEN, 0o600)
        try:
            os.utime(file)
        finally:
            os.close(file)
    except OSError as error:
        log.warning("%s/%s: %s", means.state, _LAST, error.strerror)


def alone(means: Means, message: Message, envelope: Envelope) -> AbstractContextManager[bool]:
    """Open while a message is delivered; False when another thread or process is at it."""
    return underway.alone(means.state, _key(message, envelope))


def _get(means: Means, message: Message, envelope: Envelope) -> frozenset[str]:
    if means.memory is None:
        return frozenset()
    try:
        kept = means.memory.get(_key(message, envelope))
        return frozenset(json.loads(kept)) if kept is not None else frozenset()
    except (OSError, ValueError, TypeError) as error:  # a store may hold anything (P43)
        log.warning("what was done already is not known: %s", error)
        return frozenset()


def _put(means: Means, message: Message, envelope: Envelope, done: Collection[str]) -> None:
    if means.memory is None:
        return
    try:
        means.memory.put(_key(message, envelope), json.dumps(sorted(done)), KEEP)
    except OSError as error:
        log.warning("what was done may be done again: %s", error)


def _key(message: Message, envelope: Envelope) -> str:
    """The message as it came, its sender and its final recipient; and its queue id and client,
    where the MTA tells them: a retry has the same, the same words sent anew have not."""
    e = envelope
    about = f"{message.digest}\0{e.sender}\0{e.recipient}\0{e.queue_id}\0{e.client.ip}"
    return f"done {digest((about.encode('utf-8', 'replace'),))}"
