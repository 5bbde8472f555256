"""Threads that carry jobs, and the jobs that wait for one.

Each user has a queue, and the users take turns: however much waits for one of them, another
waits for one delivery, not for all. A job is given to a thread when its user has a slot free
(slots.py), so nobody fills the threads with work that cannot go on (P32).

- A job belongs to no connection: a client that goes away stops nothing (P9).
- Every job ends in a Status. What its work raises is logged and becomes a 4xx (P4).
- Each has a `Fence`: the work asks it before it commits, and must not commit behind a closed
  one (P8). Who waits until its fence is closed is never begun.

The threads are plain daemon threads on one queue. An executor costs half as much again for
each job, starts threads late (when the system may refuse), and waits for hung ones at exit.
"""

from __future__ import annotations

import asyncio
import logging
import random
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from queue import SimpleQueue

from ..app.log import bracketed
from ..errors import INTERNAL, TOO_SLOW, MailError, Status
from .slots import Slots

log = logging.getLogger("mdaflow")

TICK = 0.02
"""Seconds, on average, until a user is tried again who had no slot free: other workers do not
tell."""
ASIDE = 8
"""Each so many jobs of a user who has more waiting, a slot is left to other workers for a tick.
They ask once in a tick only, and would get none for as long as one worker has something to do."""


class Fence:
    """Nobody commits too late, and who did in time is waited for. `until` is on the monotonic
    clock.

    It looks at the clock itself: when a whole process was stopped for a while, its threads
    may run again before the event loop closes anything.
    """

    __slots__ = ("_lock", "_passed", "_until")

    def __init__(self, until: float) -> None:
        self._lock = threading.Lock()
        self._until = until
        self._passed = False

    def __call__(self) -> bool:
        """Pass, unless it is too late; to be asked before each commit."""
        with self._lock:
            in_time = time.monotonic() < self._until
            self._passed = self._passed or in_time
            return in_time

    def close(self) -> bool:
        """Nobody passes any more. False: somebody did."""
        with self._lock:
            self._until = 0.0
            return not self._passed

    @property
    def closed(self) -> bool:
        """It is too late to begin."""
        return not self._passed and time.monotonic() >= self._until


class Job:
    """One piece of work for a user, and the status that the event loop waits for."""

    __slots__ = ("begun", "fence", "late", "recipient", "result", "user", "work")

    def __init__(
        self,
        user: str,
        recipient: str,
        work: Callable[[Fence], Status],
        until: float,
        late: Callable[[], None] | None = None,
    ) -> None:
        self.user = user
        self.recipient = recipient
        self.work = work
        self.fence = Fence(until)
        self.begun = False
        self.result: asyncio.Future[Status] = asyncio.get_running_loop().create_future()
        self.late = late
        """Called when it is done in the end, though something else was said, or nobody waits."""

    def run(self) -> Status:
        """Do it, in a thread. Never raises."""
        if self.fence.closed:
            return self.waited_in_vain()
        self.begun = True
        try:
            return self.work(self.fence)
        except MailError as error:
            log.warning("%s: %s", bracketed(self.recipient), error)
            return error.status
        except BaseException:
            log.exception("%s: internal error", bracketed(self.recipient))
            return INTERNAL

    def waited_in_vain(self) -> Status:
        """What becomes of it when it was never begun."""
        log.warning("%s: waited too long for its turn, try again later", bracketed(self.recipient))
        return TOO_SLOW

    def settle(self, status: Status) -> None:
        """The first status counts."""
        if not self.result.done():
            self.result.set_result(status)
        elif status.ok and self.late is not None and not self.fence.closed:
            self.late()

    def give_up(self) -> None:
        """Too slow, unless it is past its fence."""
        if self.fence.close():
            if self.begun and not self.result.done():
                log.warning("%s: not done in time, try again later", bracketed(self.recipient))
            self.settle(TOO_SLOW)


class Lane:
    """Some threads with their jobs. All its methods belong to the loop it was made in."""

    def __init__(self, threads: int, slots: Slots | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        self._slots = slots or Slots()
        self._threads = self._idle = threads
        self._queue: SimpleQueue[Job | None] = SimpleQueue()
        """What threads shall do; what waits for its turn is not here."""
        self._jobs: set[Job] = set()
        self._waiting: OrderedDict[str, deque[Job]] = OrderedDict()
        """By user: whose turn is next is first."""
        self._resting: set[str] = set()
        """Users who have no slot free; they are passed over until the next tick."""
        self._timer: asyncio.TimerHandle | None = None
        self._turns = 0
        for _ in range(threads):
            threading.Thread(target=self._labour, daemon=True).start()

    def __len__(self) -> int:
        """Jobs that have not ended, even if nobody waits for them any more."""
        return len(self._jobs)

    def put(self, job: Job) -> None:
        """Have a job done."""
        self._jobs.add(job)
        if self._idle and not self._waiting and self._may_run(job.user):
            self._start(job)
        else:
            self._waiting.setdefault(job.user, deque()).append(job)
            self._give_out()

    def drop_late(self, users: Iterable[str]) -> None:
        """End the jobs of users that wait behind a closed fence: those in front of each queue."""
        for user in users:
            jobs = self._waiting.get(user, ())
            while jobs and jobs[0].fence.closed:
                job = self._next(user)
                self._end(job, job.waited_in_vain())

    def abandon(self) -> None:
        """Give up whatever is not past its fence."""
        for job in self._jobs:
            job.give_up()
        self.drop_late(tuple(self._waiting))

    def close(self) -> None:
        """Send the threads home, each when its work is done. What waits is given up."""
        for job in (job for jobs in self._waiting.values() for job in jobs):
            job.give_up()
        self.drop_late(tuple(self._waiting))
        if self._timer is not None:
            self._timer.cancel()
        for _ in range(self._threads):
            self._queue.put(None)

    # --- turns -----------------------------------------------------------------------------

    def _give_out(self) -> None:
        """Begin what may begin. Users are passed over only while others work for them, so this
        looks at few, however many wait."""
        while self._idle:
            user = next(filter(self._may_run, self._waiting), None)
            if user is None:
                return
            self._start(self._next(user))

    def _may_run(self, user: str) -> bool:
        """Take a slot for a user, if one is free."""
        if user in self._resting:
            return False
        if self._slots.take(user):
            return True
        self._rest(user)
        return False

    def _next(self, user: str) -> Job:
        """The first job of a user, who is last in turn from now on."""
        jobs = self._waiting[user]
        job = jobs.popleft()
        if jobs:
            self._waiting.move_to_end(user)
        else:
            del self._waiting[user]
        return job

    def _start(self, job: Job) -> None:
        self._idle -= 1
        self._queue.put(job)

    def _rest(self, user: str) -> None:
        self._resting.add(user)
        if self._timer is None:
            soon = random.uniform(0.5, 1.5) * TICK  # workers must not march in step
            self._timer = self._loop.call_later(soon, self._tick)

    def _tick(self) -> None:
        self._timer = None
        self._resting.clear()
        self._give_out()

    # --- threads ---------------------------------------------------------------------------

    def _labour(self) -> None:
        while self._one_job():
            pass

    def _one_job(self) -> bool:
        # A function of its own, so that an idle thread keeps no message alive.
        job = self._queue.get()
        if job is None:
            return False
        try:
            status = job.run()
        except BaseException:  # even the log may fail; the thread and its client must not
            status = INTERNAL
        try:
            self._loop.call_soon_threadsafe(self._finish, job, status)
        except RuntimeError:  # the loop was closed: nobody is left to be told
            return False
        return True

    def _finish(self, job: Job, status: Status) -> None:
        self._idle += 1
        self._slots.give(job.user)
        self._end(job, status)
        if self._waiting:
            self._wake(job.user)
            self._give_out()

    def _wake(self, user: str) -> None:
        """A user has a slot free again. Sometimes it is left to other workers."""
        self._resting.discard(user)
        if self._slots.shared and user in self._waiting:
            self._turns = (self._turns + 1) % ASIDE
            if not self._turns:
                self._rest(user)

    def _end(self, job: Job, status: Status) -> None:
        self._jobs.discard(job)
        job.settle(status)
