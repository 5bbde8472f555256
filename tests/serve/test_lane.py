"""Fences, turns of users, and the threads of a lane."""

from __future__ import annotations

import asyncio
import math
import threading
import time
import weakref
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import pytest
from lmtpd import until

from mdaflow.errors import INTERNAL, LOCKED, SAVED, TOO_SLOW, Status, TempFail
from mdaflow.serve import lane, slots
from mdaflow.serve.lane import Fence, Job, Lane
from mdaflow.serve.slots import PER_USER, Slots

LATER = 1000.0


def test_fence_that_somebody_passed() -> None:
    """Who passed has passed: the fence cannot be closed before him, but it is behind him."""
    fence = Fence(time.monotonic() + LATER)
    assert not fence.closed
    assert fence()
    assert fence()
    assert not fence.close()
    assert not fence()
    assert not fence.closed


def test_fence_closed() -> None:
    """Nobody passes a closed fence."""
    fence = Fence(time.monotonic() + LATER)
    assert fence.close()
    assert fence.closed
    assert not fence()


def test_fence_looks_at_the_clock() -> None:
    """A fence is closed when its time has come, even if nobody closed it."""
    fence = Fence(time.monotonic())
    assert fence.closed
    assert not fence()


def test_fence_between_threads() -> None:
    """Of many threads that pass and close, either all passed or the fence is closed."""
    for _ in range(50):
        fence = Fence(time.monotonic() + LATER)
        start = threading.Barrier(4)
        passed: list[bool] = []
        shut: list[bool] = []

        def run(
            act: Callable[[], bool], into: list[bool], start: threading.Barrier = start
        ) -> None:
            start.wait(10)
            into.append(act())

        threads = [threading.Thread(target=run, args=(fence, passed)) for _ in range(2)]
        threads += [threading.Thread(target=run, args=(fence.close, shut)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        assert shut == [not any(passed)] * 2
        assert fence() == any(passed)


class Work:
    """Jobs that hang until they are let go; `begun` and `done` are their names in order."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.done: list[str] = []
        self.gates: dict[str, threading.Event] = {}
        self.open = threading.Event()

    def job(self, name: str, late: Callable[[], None] | None = None) -> Job:
        """A job called `name`, of the user that its first letter is."""
        self.gates[name] = threading.Event()

        def work(fence: Fence) -> Status:
            self.begun.append(name)
            while not self.gates[name].wait(0.002) and not self.open.is_set():
                pass
            if not fence():
                return TOO_SLOW
            self.done.append(name)
            return SAVED

        return Job(name[0], name, work, time.monotonic() + LATER, late)

    def let(self, *names: str) -> None:
        for name in names:
            self.gates[name].set()

    async def has_begun(self, *names: str) -> None:
        """Wait for exactly these."""
        end = time.monotonic() + 10
        while sorted(self.begun) != sorted(names):
            assert time.monotonic() < end, self.begun
            await asyncio.sleep(0.002)


def in_lane(
    act: Callable[[Lane, Work], Awaitable[None]], threads: int = 2, shared: Slots | None = None
) -> Work:
    """Run `act` with a lane in a loop; no thread is left."""
    before = set(threading.enumerate())
    work = Work()

    async def main() -> None:
        made = Lane(threads, shared)
        try:
            await act(made, work)
        finally:
            work.open.set()
            while made:
                await asyncio.sleep(0.002)
            made.close()

    asyncio.run(main())
    until(lambda: set(threading.enumerate()) <= before)
    return work


async def settled(*jobs: Job) -> list[Status]:
    return [await asyncio.wait_for(job.result, 10) for job in jobs]


def test_users_take_turns() -> None:
    """However much waits for one user, another waits for one delivery only."""

    async def act(made: Lane, work: Work) -> None:
        names = [*(f"a{number}" for number in range(300)), "b0", "b1", "c0", "c1"]
        for name in names:
            made.put(work.job(name))
        await work.has_begun("a0")

    work = in_lane(act, threads=1)
    assert work.begun[:8] == ["a0", "a1", "b0", "c0", "a2", "b1", "c1", "a3"]
    assert len(work.done) == 304


def test_jobs_of_one_user_stay_in_order() -> None:
    """Who came first is first, among the jobs of one user."""

    async def act(made: Lane, work: Work) -> None:
        for number in range(20):
            made.put(work.job(f"a{number}"))

    assert in_lane(act, threads=1).begun == [f"a{number}" for number in range(20)]


def test_cap_of_a_user() -> None:
    """A user never has a third thread, though many are idle; others have them."""

    async def act(made: Lane, work: Work) -> None:
        for name in ("a0", "a1", "a2", "a3"):
            made.put(work.job(name))
        await work.has_begun("a0", "a1")
        made.put(work.job("b0"))
        await work.has_begun("a0", "a1", "b0")
        await asyncio.sleep(2 * lane.TICK)
        assert len(work.begun) == 3
        work.let("a1")
        await work.has_begun("a0", "a1", "b0", "a2")

    assert len(in_lane(act, threads=8).done) == 5


def test_late_job_is_dropped_while_its_user_hangs() -> None:
    """Who waits for its turn too long gets 451, is never begun, and its message is let go."""

    async def act(made: Lane, work: Work) -> None:
        hung = [work.job("a0"), work.job("a1")]
        waiting = [work.job("a2"), work.job("b0"), work.job("a3")]
        for job in (*hung, *waiting):
            made.put(job)
        assert len(made) == 5
        for job in (waiting[0], waiting[2]):
            job.give_up()
        made.drop_late({"a"})
        assert await settled(waiting[0], waiting[2]) == [TOO_SLOW, TOO_SLOW]
        assert len(made) == 3
        gone = weakref.ref(waiting[2].result)
        del waiting[2], job
        await asyncio.sleep(0)
        assert gone() is None

    work = in_lane(act)
    assert sorted(work.done) == ["a0", "a1", "b0"]
    assert len(work.begun) == 3


def test_abandoned(caplog: pytest.LogCaptureFixture) -> None:
    """Whatever runs or waits gets 451 at once, and is not done later; of each the log tells."""

    async def act(made: Lane, work: Work) -> None:
        jobs = [work.job(name) for name in ("a0", "a1", "a2", "b0", "b1")]
        for job in jobs:
            made.put(job)
        await work.has_begun("a0", "a1")
        made.abandon()
        assert await settled(*jobs) == [TOO_SLOW] * 5
        assert len(made) == 2

    work = in_lane(act)
    assert (len(work.begun), work.done) == (2, [])
    said = [record.getMessage() for record in caplog.records]
    assert sum("not done in time" in line for line in said) == 2
    assert sum("waited too long for its turn" in line for line in said) == 3


def test_closed() -> None:
    """At the end what waits gets 451, what runs is finished, and the threads go home."""

    async def act(made: Lane, work: Work) -> None:
        jobs = [work.job(name) for name in ("a0", "a1", "a2", "b0")]
        for job in jobs:
            made.put(job)
        await work.has_begun("a0", "a1")
        made.close()
        work.let("a0", "a1")
        assert await settled(*jobs) == [SAVED, SAVED, TOO_SLOW, TOO_SLOW]

    assert sorted(in_lane(act).done) == ["a0", "a1"]


def test_every_job_ends_in_a_status() -> None:
    """Whatever a job raises, it has a status, and its slot and its thread are free again."""

    def fail(error: BaseException) -> Callable[[Fence], Status]:
        def work(fence: Fence) -> Status:
            raise error

        return work

    async def act(made: Lane, work: Work) -> None:
        errors = [TempFail(LOCKED), ZeroDivisionError(), SystemExit(1), MemoryError()] * 3
        jobs = [Job("a", "a", fail(error), math.inf) for error in errors]
        for job in jobs:
            made.put(job)
        assert await settled(*jobs) == [LOCKED, INTERNAL, INTERNAL, INTERNAL] * 3
        good = work.job("a0")
        work.let("a0")
        made.put(good)
        assert await settled(good) == [SAVED]

    in_lane(act)


def test_late_success_is_told() -> None:
    """A job that is done after another status was given says so; one in time does not."""
    told: list[str] = []

    async def act(made: Lane, work: Work) -> None:
        late = work.job("a0", lambda: told.append("a0"))
        good = work.job("b0", lambda: told.append("b0"))
        failed = work.job("c0", lambda: told.append("c0"))
        for job in (late, good, failed):
            made.put(job)
        await work.has_begun("a0", "b0", "c0")
        careless = Job("d", "d", lambda fence: SAVED, math.inf, lambda: told.append("d"))
        careless.give_up()  # it asks no fence, so it has committed nothing
        careless.settle(SAVED)
        assert late.fence()
        late.settle(TOO_SLOW)
        failed.give_up()
        work.let("a0", "b0", "c0")
        assert await settled(late, good, failed) == [TOO_SLOW, SAVED, TOO_SLOW]

    in_lane(act, threads=3)
    assert told == ["a0"]


@contextmanager
def two_slots() -> Iterator[tuple[Slots, Slots]]:
    """What two workers have."""
    import os

    file = slots.open_file()
    mine, theirs = Slots(file), Slots(file)
    try:
        yield mine, theirs
    finally:
        for each in (mine, theirs):
            each.close()
        os.close(file)


def test_slots_of_another_worker() -> None:
    """While another worker has the slots of a user, it waits, and is not forgotten."""
    with two_slots() as (mine, theirs):

        async def act(made: Lane, work: Work) -> None:
            assert theirs.take("a")
            assert theirs.take("a")
            for name in ("a0", "b0"):
                made.put(work.job(name))
            await work.has_begun("b0")
            await asyncio.sleep(2 * lane.TICK)
            assert work.begun == ["b0"]
            theirs.give("a")
            await work.has_begun("b0", "a0")

        in_lane(act, shared=mine)


def test_slots_are_given_back() -> None:
    """When all is done, another worker may take all."""
    with two_slots() as (mine, theirs):

        async def act(made: Lane, work: Work) -> None:
            work.open.set()
            for number in range(10):
                made.put(work.job(f"a{number}"))

        assert len(in_lane(act, shared=mine).done) == 10
        assert [theirs.take("a") for _ in range(PER_USER)] == [True] * PER_USER


def test_slot_is_left_to_another_worker() -> None:
    """A worker with no end of work for a user lets another one have a slot now and then."""
    with two_slots() as (mine, theirs):

        async def act(made: Lane, work: Work) -> None:
            for number in range(4):
                made.put(work.job(f"a-first{number}"))
            other = Lane(2, theirs)
            other.put(work.job("a-other"))
            work.open.set()
            number = 0
            while "a-other" not in work.done:
                for _ in range(4 - len(made)):
                    number += 1
                    made.put(work.job(f"a{number}"))
                assert number < 20_000, "it never had its turn"
                await asyncio.sleep(0)
            other.close()

        in_lane(act, shared=mine)


def test_job_that_waits_for_the_clock(caplog: pytest.LogCaptureFixture) -> None:
    """A job whose time was over before its thread came is not begun."""

    async def act(made: Lane, work: Work) -> None:
        job = Job("a", "a@x", lambda fence: SAVED, time.monotonic())
        made.put(job)
        assert await settled(job) == [TOO_SLOW]

    in_lane(act)
    assert caplog.messages == ["<a@x>: waited too long for its turn, try again later"]
