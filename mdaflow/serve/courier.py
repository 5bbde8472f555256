"""What the server knows of the rest: a `Courier`, and the threads that carry its work.

`Crew` runs checks and deliveries in threads and hands their statuses back to the event loop.

- A job belongs to no connection: a client that goes away stops nothing (P9).
- Every job ends in a Status. What a courier raises is logged and becomes a 4xx (P4).
- A recipient that is not finished in time gets 451, and its `Fence` is closed: the courier
  asks the fence before it commits, and must not commit behind a closed one (P8). Past the
  fence the result is waited for, until the deadline itself.

The threads are plain daemon threads on one queue. An executor costs half as much again for
each job, starts threads late (when the system may refuse), and waits for hung ones at exit.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Protocol

from ..errors import INTERNAL, TOO_SLOW, MailError, Status
from ..mail.envelope import Envelope
from ..mail.message import Message

log = logging.getLogger("mdaflow")

CHECK_FOR = 5.0
"""Seconds for which a recipient that was good is taken for good again."""
MAX_CHECKED = 1000
GRACE = 10.0
"""The last part of a deadline, in seconds: commits may end in it, but none begins."""


class Courier(Protocol):
    """Takes messages to recipients. Both calls block, and come from many threads at once."""

    def check(self, recipient: str) -> Status:
        """May this recipient have mail? 250 2.1.5, 550 5.1.1, 451 and so on."""

    def deliver(self, message: Message, envelope: Envelope, fence: Callable[[], bool]) -> Status:
        """Deliver to one recipient. False from `fence`, asked before the commit: too late."""


class Fence:
    """One commit or none: who comes first, passes or closes. `until` is on the monotonic clock.

    It looks at the clock itself: when a whole process was stopped for a while, its threads
    may run again before the event loop closes anything.
    """

    __slots__ = ("_lock", "_passed", "_until")

    def __init__(self, until: float) -> None:
        self._lock = threading.Lock()
        self._until = until
        self._passed = False

    def __call__(self) -> bool:
        """Pass, unless it is too late."""
        with self._lock:
            self._passed = self._passed or time.monotonic() < self._until
            return self._passed

    def close(self) -> bool:
        """Nobody passes any more. False: somebody did."""
        with self._lock:
            self._until = 0.0
            return not self._passed

    @property
    def closed(self) -> bool:
        """It is too late to begin."""
        return not self._passed and time.monotonic() >= self._until


class _Job:
    """One piece of work, and the status that the event loop waits for."""

    __slots__ = ("fence", "recipient", "result", "work")

    def __init__(
        self,
        recipient: str,
        work: Callable[[Fence], Status],
        fence: Fence,
        result: asyncio.Future[Status],
    ) -> None:
        self.recipient = recipient
        self.work = work
        self.fence = fence
        self.result = result

    def run(self) -> Status:
        """Do it, in a thread. Never raises."""
        if self.fence.closed:
            log.warning("<%s>: waited too long for a thread, try again later", self.recipient)
            return TOO_SLOW
        try:
            return self.work(self.fence)
        except MailError as error:
            log.warning("<%s>: %s", self.recipient, error)
            return error.status
        except BaseException:
            log.exception("<%s>: internal error", self.recipient)
            return INTERNAL

    def settle(self, status: Status) -> None:
        """The first status counts."""
        if not self.result.done():
            self.result.set_result(status)
        elif status.ok and not self.fence.closed and not self.result.cancelled():
            log.warning("<%s>: saved after the deadline, may come twice", self.recipient)

    def give_up(self) -> None:
        """Too slow, unless it is past its fence."""
        if self.fence.close():
            self.settle(TOO_SLOW)


class Crew:
    """The threads of a worker. All its methods belong to the event loop it was made in."""

    def __init__(self, courier: Courier, threads: int, deadline: float) -> None:
        self._courier = courier
        self._deadline = deadline
        self._grace = min(GRACE, deadline / 10)
        self._loop = asyncio.get_running_loop()
        self._queue: SimpleQueue[_Job | None] = SimpleQueue()
        self._jobs: set[_Job] = set()
        self._good: dict[str, tuple[float, Status]] = {}
        self._threads = threads
        for _ in range(threads):
            threading.Thread(target=self._labour, daemon=True).start()

    @property
    def busy(self) -> bool:
        """Some job has not ended, even if nobody waits for it any more."""
        return bool(self._jobs)

    def known(self, recipient: str) -> Status | None:
        """What `check` said a moment ago, if that was good."""
        until, status = self._good.get(recipient, (0.0, None))
        return status if time.monotonic() < until else None

    async def check(self, recipient: str) -> Status:
        """The courier's word on a recipient; a good one is remembered for a few seconds."""
        courier = self._courier
        [status] = await self._run([(recipient, lambda fence: courier.check(recipient))])
        if status.ok:
            if len(self._good) >= MAX_CHECKED:
                self._good.clear()
            self._good[recipient] = time.monotonic() + CHECK_FOR, status
        return status

    async def deliver(self, message: Message, envelopes: Sequence[Envelope]) -> list[Status]:
        """Deliver to all at once: a status for each, in order, within the deadline."""

        def one(envelope: Envelope) -> Callable[[Fence], Status]:
            return lambda fence: self._courier.deliver(message, envelope, fence)

        return await self._run([(e.recipient, one(e)) for e in envelopes])

    def abandon(self) -> None:
        """Give up whatever is not past its fence."""
        for job in self._jobs:
            job.give_up()

    def close(self) -> None:
        """Send the threads home, each when its work is done."""
        for _ in range(self._threads):
            self._queue.put(None)

    async def _run(self, works: list[tuple[str, Callable[[Fence], Status]]]) -> list[Status]:
        until = time.monotonic() + self._deadline - self._grace
        jobs = [
            _Job(recipient, work, Fence(until), self._loop.create_future())
            for recipient, work in works
        ]
        self._jobs.update(jobs)
        for job in jobs:
            self._queue.put(job)
        timer = self._loop.call_later(self._deadline - self._grace, self._too_late, jobs)
        try:
            return [await job.result for job in jobs]
        finally:
            timer.cancel()

    def _too_late(self, jobs: list[_Job]) -> None:
        for job in jobs:
            job.give_up()
            self._loop.call_later(self._grace, job.settle, TOO_SLOW)

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

    def _finish(self, job: _Job, status: Status) -> None:
        self._jobs.discard(job)
        job.settle(status)
