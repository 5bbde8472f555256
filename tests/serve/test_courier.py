"""The crew of a worker: checks, deliveries, deadlines, and what its client may not know."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable

import pytest
from lmtpd import FakeCourier, until

from mdaflow.errors import RECIPIENT_OK, TOO_SLOW, UNKNOWN_USER, Status
from mdaflow.mail.envelope import Envelope
from mdaflow.mail.message import Message
from mdaflow.serve import courier
from mdaflow.serve.courier import CHECKERS, Crew


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


def test_check_does_not_wait_for_deliveries() -> None:
    """While all threads deliver, recipients are checked."""
    fake = FakeCourier()

    async def act(made: Crew) -> None:
        delivery = asyncio.create_task(made.deliver(Message(b"x"), to("slow", "bob")))
        while not fake.hanging:
            await asyncio.sleep(0.005)
        assert await made.check("bob@x") == RECIPIENT_OK
        assert fake.recipients() == []
        fake.go.set()
        assert all(status.ok for status in await delivery)

    crew(fake, act, threads=1)


def test_all_checks_hang() -> None:
    """When no check ends, each is a 451 in time, and no more threads hang than there are."""
    fake = FakeCourier()

    async def act(made: Crew) -> None:
        threads = set(threading.enumerate())
        checks = [made.check(f"noanswer@{number}.example") for number in range(3 * CHECKERS)]
        assert {status.code for status in await asyncio.gather(*checks)} == {451}
        assert len(fake.checked) == CHECKERS
        assert set(threading.enumerate()) <= threads

    crew(fake, act, deadline=0.2)
    assert len(fake.checked) == CHECKERS  # who waited too long was not asked for afterwards


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
    assert fake.recipients() == fake.unknown == []


def test_hung_commit(caplog: pytest.LogCaptureFixture) -> None:
    """Who hangs behind its fence gets 451 at the deadline; that it was saved is noted (P10)."""
    fake = FakeCourier()

    async def act(made: Crew) -> None:
        assert await made.deliver(Message(b"x"), to("hung")) == [TOO_SLOW]

    crew(fake, act, deadline=0.1)
    assert fake.recipients() == ["hung@example.org"]
    assert "<hung@example.org>: saved, but the client does not know" in caplog.messages
    assert fake.unknown == ["hung@example.org"]


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
    assert fake.unknown == ["slow@example.org"]  # was done when nobody waited


class Forgetful(FakeCourier):
    """Cannot note anything; the first time it waits to be told to go."""

    def unconfirmed(self, message: Message, envelope: Envelope) -> None:
        super().unconfirmed(message, envelope)
        self.go.wait(10)
        raise OSError("no store")


def test_unconfirmed() -> None:
    """What the client may not know is noted for each recipient."""
    fake = FakeCourier()

    async def act(made: Crew) -> None:
        made.unconfirmed(Message(b"x"), to("ann", "bob"))
        assert made.busy

    crew(fake, act)
    assert fake.unknown == ["ann@example.org", "bob@example.org"]


def test_unconfirmed_fails(caplog: pytest.LogCaptureFixture) -> None:
    """What cannot be noted is logged, and stops nothing."""
    fake = Forgetful()
    fake.go.set()

    async def act(made: Crew) -> None:
        made.unconfirmed(Message(b"x"), to("ann", "bob"))
        assert (await made.deliver(Message(b"x"), to("carl")))[0].ok

    crew(fake, act)
    assert fake.unknown == ["ann@example.org", "bob@example.org"]
    assert caplog.text.count("OSError: no store\n") == 2


def test_unconfirmed_is_bounded(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """While nothing can be noted, few messages are kept for it."""
    monkeypatch.setattr(courier, "MAX_NOTES", 2)
    fake = Forgetful()

    async def act(made: Crew) -> None:
        made.unconfirmed(Message(b"x"), to("ann", "bob", "carl"))

    crew(fake, act)
    assert fake.unknown == ["ann@example.org", "bob@example.org"]
    assert "<carl@example.org>: too much to note, may come twice" in caplog.messages


def test_loop_is_gone() -> None:
    """A thread whose loop has ended finishes its work and ends."""
    crews: list[Crew] = []
    before = set(threading.enumerate())
    fake = FakeCourier()

    async def main() -> None:
        made = Crew(fake, 1, 20.0)
        crews.append(made)
        task = asyncio.create_task(made.deliver(Message(b"x"), to("slow")))
        while not fake.hanging:
            await asyncio.sleep(0.005)
        task.cancel()

    asyncio.run(main())
    made = set(threading.enumerate()) - before
    fake.go.set()
    until(lambda: len(made & set(threading.enumerate())) == len(made) - 1)
    assert fake.recipients() == ["slow@example.org"]
    crews[0].close()  # for the others
    for thread in made:
        thread.join(10)
        assert not thread.is_alive()
