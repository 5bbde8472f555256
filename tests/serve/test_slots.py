"""The cap of deliveries at once for a user, over real processes."""

from __future__ import annotations

import asyncio
import os
import pwd
import signal
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from mdaflow.errors import RECIPIENT_OK, SAVED, Status
from mdaflow.mail.envelope import Envelope
from mdaflow.mail.message import Message
from mdaflow.serve import slots
from mdaflow.serve.courier import Crew
from mdaflow.serve.slots import PER_USER, Slots


@pytest.fixture
def file() -> Iterator[int]:
    """A file for all workers; nothing else stays open."""
    before = os.listdir("/proc/self/fd")
    made = slots.open_file()
    yield made
    os.close(made)
    assert os.listdir("/proc/self/fd") == before


@pytest.fixture
def fork() -> Iterator[Callable[[Callable[[], int]], int]]:
    """Run a function in a process of its own; its result is the exit code."""
    children: list[int] = []

    def run(work: Callable[[], int]) -> int:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that there are threads: they are not met here
            pid = os.fork()
        if pid == 0:
            code = 99
            try:
                code = work()
            finally:
                os._exit(code)
        children.append(pid)
        return pid

    yield run
    for pid in children:
        with suppress(ProcessLookupError, ChildProcessError):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


Fork = Callable[[Callable[[], int]], int]


def code(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def taken(mine: Slots, user: str = "bob@x") -> int:
    """How many of three slots were free."""
    return sum(mine.take(user) for _ in range(PER_USER + 1))


def test_alone() -> None:
    """A worker that is alone counts for itself."""
    mine = Slots()
    assert not mine.shared
    assert taken(mine) == PER_USER
    assert taken(mine, "ann@x") == PER_USER
    mine.give("bob@x")
    assert taken(mine) == 1


def test_two_workers(file: int) -> None:
    """What one worker has taken, another one cannot take, until it is given back."""
    one, two = Slots(file), Slots(file)
    assert one.shared
    assert one.take("bob@x")
    assert taken(two) == 1
    assert not one.take("bob@x")
    assert taken(two, "ann@x") == PER_USER
    two.give("bob@x")
    assert one.take("bob@x")
    assert not two.take("bob@x")
    one.close()
    assert taken(two) == PER_USER
    two.close()


def test_three_processes(file: int, fork: Fork) -> None:
    """Of three processes that take what they can, together they get as much as there is."""
    gate, opened = os.pipe()

    def work() -> int:
        os.close(opened)
        os.read(gate, 1)
        mine = Slots(file)
        got = sum(taken(mine, f"u{number}@x") for number in range(20))
        os.write(report[1], bytes((got,)))
        signal.pause()
        return 0

    report = os.pipe()
    for _ in range(3):
        fork(work)
    os.close(opened)  # now they begin
    got = sum(os.read(report[0], 1)[0] for _ in range(3))
    assert got == 20 * PER_USER
    for fd in (gate, *report):
        os.close(fd)


def test_death_frees(file: int, fork: Fork) -> None:
    """When a worker is killed, its slots are free."""
    reading, writing = os.pipe()

    def work() -> int:
        mine = Slots(file)
        os.write(writing, bytes((taken(mine),)))
        signal.pause()
        return 0

    pid = fork(work)
    assert os.read(reading, 1)[0] == PER_USER
    mine = Slots(file)
    assert taken(mine) == 0
    os.kill(pid, signal.SIGKILL)
    assert code(pid) == -signal.SIGKILL
    assert taken(mine) == PER_USER
    mine.close()
    os.close(reading)
    os.close(writing)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_without_rights(file: int, fork: Fork) -> None:
    """A worker that has dropped its rights can open what its master made."""
    mine = Slots(file)
    assert mine.take("bob@x")

    def work() -> int:
        os.setgroups([])
        os.setgid(pwd.getpwnam("nobody").pw_gid)
        os.setuid(pwd.getpwnam("nobody").pw_uid)
        return taken(Slots(file))

    assert code(fork(work)) == 1
    mine.close()


def test_no_locks(caplog: pytest.LogCaptureFixture) -> None:
    """Where the kernel cannot lock, each worker counts for itself, and mail goes on."""
    null = os.open(os.devnull, os.O_RDONLY)  # no lock for writing on this
    mine = Slots(null)
    os.close(mine._fd)
    mine._fd = null
    assert taken(mine) == PER_USER
    mine.give("bob@x")
    assert taken(mine) == 1
    assert "slots of users: Bad file descriptor" in caplog.messages
    mine.close()


class Diary:
    """A courier that writes down when a delivery begins and ends."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def check(self, recipient: str, *_: object) -> Status:
        return RECIPIENT_OK

    def whose(self, recipient: str) -> str:
        return recipient.partition("+")[0]

    def unconfirmed(self, message: Message, envelope: Envelope) -> None:
        """Nothing."""

    def deliver(self, message: Message, envelope: Envelope, fence: Callable[[], bool]) -> Status:
        os.write(self._fd, b"+")
        time.sleep(0.002)
        os.write(self._fd, b"-")
        return SAVED


def test_cap_over_workers(file: int, fork: Fork, tmp_path: Path) -> None:
    """However many workers and threads there are, a user has two deliveries at once."""
    path = tmp_path / "diary"

    async def main() -> int:
        crew = Crew(Diary(path), 4, 60.0, Slots(file))
        about = [Envelope(recipient=f"bob+{number}@x") for number in range(20)]
        statuses = await crew.deliver(Message(b"x"), about)
        crew.close()
        return sum(status == SAVED for status in statuses)

    workers = [fork(lambda: asyncio.run(main())) for _ in range(2)]
    assert [code(pid) for pid in workers] == [20, 20]
    running = [0]
    for mark in path.read_text():
        running.append(running[-1] + (1 if mark == "+" else -1))
    assert len(running) == 81
    assert max(running) == PER_USER
