"""Hand a message to a program, on its standard input, as it would be stored.

The program runs at commit and not before: nothing takes it back. It says what became of the
message by its exit code (sysexits.h). Its complaints go to our log, never to the peer.

`locked "name"` waits until no other program with that name runs on this machine. A name in
the rules of a user is that user's own (P32). The lock files stay, one for each name.
"""

from __future__ import annotations

import fcntl
import os
import time

from mdaflow.engine.plan import Action
from mdaflow.errors import (
    INTERNAL,
    LOCKED,
    REJECTED,
    UNKNOWN_USER,
    MailError,
    PermFail,
    Status,
    TempFail,
)
from mdaflow.mail.trace import stored, trace_fields

from .job import Job
from .mailbox import Prepared, temporary_failures
from .mboxrd import separator
from .program import Ended, clean_environment, find, run_program
from .quarantine import component

SECONDS = 60.0
"""The time limit of a program for which the rules say none."""
MAX_SECONDS = 600.0
"""The longest time limit: by then every MTA has given up on us."""
LOCK_WAIT = 30.0
"""Seconds to wait for another program with the same name."""
PROGRAM_FAILED = Status(451, "4.3.0", "Program failed, try again later")

# What only a site's program may say for good (P4): EX_NOUSER and EX_NOPERM.
_REFUSALS = {67: UNKNOWN_USER, 77: REJECTED}
_LOCK_FILE = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
_POLL = 0.05  # seconds


def prepare(job: Job, action: Action, *, lock_wait: float = LOCK_WAIT) -> Prepared:
    """A program that waits to be run. Raises TempFail when it cannot be."""
    if not find(action.targets[0]):
        raise TempFail(INTERNAL, f"there is no program {action.targets[0]}")
    lock = str(dict(action.options).get("locked", ""))
    if lock and not job.means.state:
        raise TempFail(INTERNAL, "there is no folder for locks: set `state:`")
    return _Pipe(job, action, lock, lock_wait)


class _Pipe:
    """A program that gets a message."""

    def __init__(self, job: Job, action: Action, lock: str, lock_wait: float) -> None:
        self.where = f"pipe {os.path.basename(action.targets[0])}"
        self._job = job
        self._action = action
        self._lock = lock
        self._lock_wait = lock_wait

    def commit(self) -> None:
        """Run it. Raises TempFail, or PermFail for what a site's program refuses."""
        fd = self._acquire() if self._lock else None
        try:
            ended = self._run()
        finally:
            if fd is not None:
                os.close(fd)
        if ended.code:
            raise self._failure(ended)

    def abort(self) -> None:
        """There is nothing to take back."""

    def _run(self) -> Ended:
        job, action = self._job, self._action
        trace = trace_fields(job.envelope, job.means.hostname, job.ident)
        if action.option("from_line"):
            trace = separator(job.envelope.sender, job.envelope.received) + trace
        return run_program(
            action.targets,
            stored(action.message or job.message, trace),
            seconds=min(float(dict(action.options).get("within", SECONDS)), MAX_SECONDS),
            environment=clean_environment(
                job.envelope, job.mailbox.home, job.means.delimiters, job.user
            ),
            directory=job.mailbox.home,
        )

    def _acquire(self) -> int:
        """A descriptor that holds the lock. Raises TempFail, with LOCKED when others have it."""
        folder = os.path.join(self._job.means.state, "locks")
        # the home, not the address: that has as many details as a sender likes
        whose = "" if self._action.owner == "site" else f"{self._job.mailbox.home} "
        with temporary_failures():
            os.makedirs(folder, 0o700, exist_ok=True)
            path = os.path.join(folder, component(whose + self._lock))
            fd = os.open(path, _LOCK_FILE, 0o600)
            try:
                self._wait(fd)
            except BaseException:
                os.close(fd)
                raise
        return fd

    def _wait(self, fd: int) -> None:
        until = time.monotonic() + self._lock_wait
        while not _taken(fd):
            if time.monotonic() >= until:
                cause = f'{self.where}: "{self._lock}" stayed locked for {self._lock_wait:g} s'
                raise TempFail(LOCKED, cause)
            time.sleep(_POLL)

    def _failure(self, ended: Ended) -> MailError:
        reason = ended.reason or f"exit code {ended.code}"
        cause = f"{self.where}: {reason}{ended.complaint and f': {ended.complaint}'}"
        refusal = None if ended.reason else _REFUSALS.get(ended.code)
        if refusal and self._action.owner == "site":
            return PermFail(refusal, cause)
        return TempFail(PROGRAM_FAILED, cause)


def _taken(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
