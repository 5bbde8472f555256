"""What the server knows of the rest: a `Courier`, and the crew that carries its work.

`Crew` runs checks and deliveries in threads (lane.py) and hands their statuses back to the event
loop. A recipient that is not finished in time gets 451, and its fence is closed (P8). Past the
fence the result is waited for, until the deadline itself. When it is good after that, the
courier is told that the message may come again (P10).

Checks have threads of their own: RCPT never waits for a delivery.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from ..app.log import bracketed
from ..errors import SAVED, TOO_SLOW, Status
from ..mail.envelope import NOBODY, Client, Envelope
from ..mail.message import Message
from .lane import Fence, Job, Lane
from .slots import Slots

log = logging.getLogger("mdaflow")

CHECK_FOR = 5.0
"""Seconds for which a recipient that was good is taken for good again."""
MAX_CHECKED = 1000
CHECKERS = 4
"""Threads for checks."""
MAX_NOTES = 1000
"""Unconfirmed deliveries that wait to be noted, each with its message."""
GRACE = 10.0
"""The last part of a deadline, in seconds: commits may end in it, but none begins."""

_Asked = tuple[str, str, Client]
"""What a check depends on: recipient, sender and client."""


class Courier(Protocol):
    """Takes messages to recipients. All but `whose` block, and come from many threads at once."""

    def check(self, recipient: str, sender: str = "", client: Client = NOBODY) -> Status:
        """May this recipient have mail from there? 250 2.1.5, 550 5.1.1, 451 and so on."""

    def deliver(self, message: Message, envelope: Envelope, fence: Callable[[], bool]) -> Status:
        """Deliver to one recipient. False from `fence`, asked before each commit: too late."""

    def whose(self, recipient: str) -> str:
        """The user that a recipient probably is: who shares the cap and the turns with whom."""

    def unconfirmed(self, message: Message, envelope: Envelope) -> None:
        """This was delivered, but the peer may not know, and send it again."""


class Crew:
    """The threads of a worker. All its methods belong to the event loop it was made in."""

    def __init__(
        self, courier: Courier, threads: int, deadline: float, slots: Slots | None = None
    ) -> None:
        self._courier = courier
        self._deadline = deadline
        self._grace = min(GRACE, deadline / 10)
        self._loop = asyncio.get_running_loop()
        self._deliveries = Lane(threads, slots)
        self._checks = Lane(CHECKERS)
        self._notes = Lane(1)
        self._good: dict[_Asked, tuple[float, Status]] = {}

    @property
    def busy(self) -> bool:
        """Some job has not ended, even if nobody waits for it any more."""
        return bool(self._deliveries or self._checks or self._notes)

    def known(self, recipient: str, sender: str = "", client: Client = NOBODY) -> Status | None:
        """What `check` said a moment ago, if that was good."""
        until, status = self._good.get((recipient, sender, client), (0.0, None))
        return status if time.monotonic() < until else None

    async def check(self, recipient: str, sender: str = "", client: Client = NOBODY) -> Status:
        """The courier's word on a recipient; a good one is remembered for a few seconds."""
        courier, asked = self._courier, (recipient, sender, client)
        whose = courier.whose(recipient)  # whose checks hang shall not have all threads
        job = Job(whose, recipient, lambda fence: courier.check(*asked), self._until())
        [status] = await self._run(self._checks, [job])
        if status.ok:
            if len(self._good) >= MAX_CHECKED:
                self._good.clear()
            self._good[asked] = time.monotonic() + CHECK_FOR, status
        return status

    async def deliver(self, message: Message, envelopes: Sequence[Envelope]) -> list[Status]:
        """Deliver to all at once: a status for each, in order, within the deadline."""
        courier, until = self._courier, self._until()

        def one(envelope: Envelope) -> Job:
            return Job(
                courier.whose(envelope.recipient),
                envelope.recipient,
                lambda fence: courier.deliver(message, envelope, fence),
                until,
                late=lambda: self._saved_late(message, envelope),
            )

        return await self._run(self._deliveries, [one(envelope) for envelope in envelopes])

    def unconfirmed(self, message: Message, envelopes: Sequence[Envelope]) -> None:
        """Have it noted that this was delivered, for when it comes again. Nothing is said back."""
        for envelope in envelopes:
            if len(self._notes) >= MAX_NOTES:
                log.warning("%s: too much to note, may come twice", bracketed(envelope.recipient))
                continue
            self._notes.put(self._note(message, envelope))

    def _note(self, message: Message, envelope: Envelope) -> Job:
        def work(fence: Fence) -> Status:
            self._courier.unconfirmed(message, envelope)
            return SAVED

        return Job(envelope.recipient, envelope.recipient, work, math.inf)

    def abandon(self) -> None:
        """Give up whatever is not past its fence."""
        self._deliveries.abandon()
        self._checks.abandon()

    def close(self) -> None:
        """Send the threads home, each when its work is done. What waits is given up."""
        for lane in (self._deliveries, self._checks, self._notes):
            lane.close()

    def _until(self) -> float:
        """When fences close, on the monotonic clock."""
        return time.monotonic() + self._deadline - self._grace

    async def _run(self, lane: Lane, jobs: list[Job]) -> list[Status]:
        for job in jobs:
            lane.put(job)
        wait = self._deadline - self._grace
        timer = self._loop.call_later(wait, self._too_late, lane, jobs)
        # when nobody waits any more, the timer stays
        statuses = [await job.result for job in jobs]
        timer.cancel()
        return statuses

    def _too_late(self, lane: Lane, jobs: list[Job]) -> None:
        for job in jobs:
            job.give_up()
            if not job.result.done():
                self._loop.call_later(self._grace, job.settle, TOO_SLOW)
        lane.drop_late({job.user for job in jobs})

    def _saved_late(self, message: Message, envelope: Envelope) -> None:
        log.warning("%s: saved, but the client does not know", bracketed(envelope.recipient))
        self.unconfirmed(message, [envelope])
