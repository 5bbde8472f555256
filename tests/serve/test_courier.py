"""Fences and the crew of threads."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable

import pytest
from lmtpd import FakeCourier

from mdaflow.errors import RECIPIENT_OK, TOO_SLOW, UNKNOWN_USER, Status
from mdaflow.mail.envelope import Envelope
from mdaflow.mail.message import Message
from mdaflow.serve import courier
from mdaflow.serve.courier import Crew, Fence

LATER = 1000.0


def test_fence_passes_once_for_all() -> None:
    """Who passed has passed: the fence can no longer be closed."""
    fence = Fence(time.monotonic() + LATER)
    assert not fence.closed
    assert fence()
    assert not fence.close()
    assert fence()
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


def crew(fake: FakeCourier, act: Callable[[Crew], Awaitable[None]], **options: float) -> None:
    """Run `act` with a crew in a loop."""

    async def main() -> None:
        made = Crew(fake, int(options.get("threads", 2)), options.get("deadline", 20.0))
        try:
            await act(made)
        finally:
            fake.go.set()
            while made.busy:
                await asyncio.sleep(0.005)
            made.close()

    asyncio.run(main())


def to(*recipients: str) -> list[Envelope]:
    return [Envelope(recipient=f"{recipient}@example.org") for recipient in recipients]


def test_check_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """A good recipient is asked for once in a while, a bad one each time."""
    fake = FakeCourier()

    async def act(made: Crew) -> None:
        for _ in range(3):
            assert await check(made, "bob@x") == RECIPIENT_OK
            assert await check(made, "unknown@x") == UNKNOWN_USER
        assert fake.checked == ["bob@x", "unknown@x", "unknown@x", "unknown@x"]
        monkeypatch.setattr(courier, "CHECK_FOR", -1.0)
        for _ in range(2):
            assert await check(made, "carl@x") == RECIPIENT_OK
        assert fake.checked[4:] == ["carl@x", "carl@x"]

    async def check(made: Crew, recipient: str) -> Status:
        return made.known(recipient) or await made.check(recipient)

    crew(fake, act)


def test_check_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many recipients are asked for, few are remembered."""
    monkeypatch.setattr(courier, "MAX_CHECKED", 3)

    async def act(made: Crew) -> None:
        names = [f"{number}@x" for number in range(10)]
        for name in names:
            await made.check(name)
        assert 0 < sum(made.known(name) is not None for name in names) <= 3

    crew(FakeCourier(), act)


def test_check_hangs() -> None:
    """A check that does not end in time is a 451."""

    async def act(made: Crew) -> None:
        assert (await made.check("noanswer@x")).code == 451

    crew(FakeCourier(), act, deadline=0.1)


def test_late_commit_is_refused() -> None:
    """Who hangs before its fence gets 451 and is not delivered later; the others are."""
    fake = FakeCourier()

    async def act(made: Crew) -> None:
        statuses = await made.deliver(Message(b"x"), to("slow", "bob"))
        assert [status.code for status in statuses] == [451, 250]

    crew(fake, act, deadline=0.2)
    assert fake.recipients() == ["bob@example.org"]


def test_queued_too_long() -> None:
    """Who waits for a thread until it is too late is not given to the courier at all."""
    fake = FakeCourier()

    async def act(made: Crew) -> None:
        statuses = await made.deliver(Message(b"x"), to("slow", "bob"))
        assert statuses == [TOO_SLOW, TOO_SLOW]

    crew(fake, act, deadline=0.1, threads=1)
    assert fake.recipients() == []


def test_hung_commit(caplog: pytest.LogCaptureFixture) -> None:
    """Who hangs behind its fence gets 451 at the deadline, and the log tells of the duplicate."""
    fake = FakeCourier()

    async def act(made: Crew) -> None:
        assert await made.deliver(Message(b"x"), to("hung")) == [TOO_SLOW]

    crew(fake, act, deadline=0.1)
    assert fake.recipients() == ["hung@example.org"]
    assert "<hung@example.org>: saved after the deadline, may come twice" in caplog.messages


def test_commit_in_the_grace() -> None:
    """Who passed its fence in time is waited for, though the fence is closed for others."""
    fake = FakeCourier()

    async def act(made: Crew) -> None:
        delivery = asyncio.create_task(made.deliver(Message(b"x"), to("hung")))
        while not fake.hanging:
            await asyncio.sleep(0.005)
        made.abandon()
        fake.go.set()
        [status] = await delivery
        assert status.ok

    crew(fake, act)


def test_abandon() -> None:
    """What is abandoned gets 451 at once."""
    fake = FakeCourier()

    async def act(made: Crew) -> None:
        delivery = asyncio.create_task(made.deliver(Message(b"x"), to("slow")))
        while not fake.hanging:
            await asyncio.sleep(0.005)
        made.abandon()
        assert await delivery == [TOO_SLOW]

    crew(fake, act)
    assert fake.recipients() == []


def test_nobody_waits() -> None:
    """A delivery whose client went away is finished all the same."""
    fake = FakeCourier()

    async def act(made: Crew) -> None:
        delivery = asyncio.create_task(made.deliver(Message(b"x"), to("slow", "bob")))
        while not fake.hanging:
            await asyncio.sleep(0.005)
        delivery.cancel()
        with pytest.raises(asyncio.CancelledError):
            await delivery
        assert made.busy

    crew(fake, act)
    assert sorted(fake.recipients()) == ["bob@example.org", "slow@example.org"]


def test_loop_is_gone() -> None:
    """A thread whose loop has ended finishes its work and ends."""
    before = set(threading.enumerate())
    fake = FakeCourier()

    async def main() -> None:
        made = Crew(fake, 1, 20.0)
        task = asyncio.create_task(made.deliver(Message(b"x"), to("slow")))
        while not fake.hanging:
            await asyncio.sleep(0.005)
        task.cancel()

    asyncio.run(main())
    [thread] = set(threading.enumerate()) - before
    fake.go.set()
    thread.join(10)
    assert not thread.is_alive()
    assert fake.recipients() == ["slow@example.org"]
