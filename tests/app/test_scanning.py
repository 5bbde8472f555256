"""Scanners are asked once for a message, and never believed when they fail."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mdaflow.app.inflight import TWO, InFlight, Strikes
from mdaflow.app.scanning import FAILED, KEPT, STOPPED, Post, Scanning
from mdaflow.deliver import underway
from mdaflow.mail.envelope import Client, Envelope
from mdaflow.mail.message import Message
from mdaflow.scan import Hit, Report, Unscanned
from mdaflow.store import Store
from mdaflow.store.memory import MemoryStore
from mdaflow.store.sqlite import SqliteStore

MAIL = Message(b"Subject: x\n\nbody\n")
BOB = Envelope("ann@example.com", "bob@example.org")
FOUND = Report(("X",), (Hit("A", 1.5, "a"),), {"fake": ("b",)})


class Fake:
    """A scanner that counts in a file how often it was asked, and says what it is told to."""

    name = "fake"

    def __init__(self, root: Path, says: Report | Exception = FOUND, slow: float = 0.0) -> None:
        self.says = says
        self.slow = slow
        self._asked = root / "asked"

    def scan(self, message: Message, envelope: Envelope, seconds: float) -> Report:
        with self._asked.open("ab") as file:
            file.write(b".")
        time.sleep(self.slow)
        if isinstance(self.says, Exception):
            raise self.says
        return self.says

    @property
    def asked(self) -> int:
        """How often somebody asked."""
        return self._asked.stat().st_size if self._asked.exists() else 0


@dataclass
class At:
    """Scanning in a folder, with one scanner."""

    root: Path
    store: Store

    def scanning(self, fake: Fake, **about: Any) -> Scanning:
        """As a process has it."""
        seconds = about.pop("seconds", 30.0)
        bare = about.pop("bare", None)
        often = about.pop("per_recipient", False)
        post = Post(fake, frozenset(("virus",)), seconds, "defer", bare, often)
        return Scanning(lambda: [post], self.store, os.fspath(self.root), **about)


@pytest.fixture
def at(tmp_path: Path) -> Iterator[At]:
    """A folder with a store."""
    store = SqliteStore(os.fspath(tmp_path / "state.sqlite"))
    yield At(tmp_path, store)
    store.close()


def report(scanning: Scanning, envelope: Envelope = BOB, message: Message = MAIL) -> Report:
    """What the one scanner says."""
    [(post, found)] = scanning.reports("virus", message, envelope)
    assert post.name == "fake"
    return found


def test_once(at: At) -> None:
    """However many recipients, and processes one after the other, a message is scanned once."""
    fake = Fake(at.root)
    for number in range(3):
        envelope = Envelope(BOB.sender, f"u{number}@example.org")
        assert report(at.scanning(fake), envelope) == FOUND
    assert fake.asked == 1


@pytest.mark.parametrize(
    "envelope",
    [
        Envelope("eve@example.com", BOB.recipient),
        Envelope(BOB.sender, BOB.recipient, client=Client("192.0.2.1")),
        Envelope(BOB.sender, BOB.recipient, client=Client("", "x")),
        Envelope(BOB.sender, BOB.recipient, client=Client("", "", "x")),
    ],
)
def test_what_else_counts(at: At, envelope: Envelope) -> None:
    """From another sender, or another client, it is another message to a scanner."""
    fake = Fake(at.root)
    report(at.scanning(fake))
    report(at.scanning(fake), envelope)
    report(at.scanning(fake), BOB, Message(MAIL.raw + b"\n"))
    assert fake.asked == 3


def test_per_recipient(at: At) -> None:
    """A scanner that knows recipients is asked for each."""
    fake = Fake(at.root)
    for whose in ("a@x", "b@x", "a@x"):
        report(at.scanning(fake, per_recipient=True), Envelope(BOB.sender, whose))
    assert fake.asked == 2


def test_threads_at_once(at: At) -> None:
    """Of threads that ask at once, one asks the scanner and the others wait for what it says."""
    fake, found = Fake(at.root, slow=0.2), []
    scanning = at.scanning(fake)
    threads = [threading.Thread(target=lambda: found.append(report(scanning))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [FOUND] * 8
    assert fake.asked == 1


def _child(at: At, fake: Fake) -> int:
    """Ask in another process; its exit status is 0 if it gets the report."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            store = SqliteStore(os.fspath(at.root / "state.sqlite"))
            status = report(At(at.root, store).scanning(fake)) != FOUND
        finally:
            os._exit(status)
    return pid


def test_processes_at_once(at: At) -> None:
    """So it is with processes."""
    fake = Fake(at.root, slow=0.3)
    children = [_child(at, fake) for _ in range(4)]
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0] * 4
    assert fake.asked == 1


def test_killed(at: At) -> None:
    """When the one that is at it is killed, the next one asks."""
    fake = Fake(at.root, slow=60.0)
    pid = _child(at, fake)
    while not fake.asked:
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    fake.slow = 0.0
    assert report(at.scanning(fake)) == FOUND
    os.waitpid(pid, 0)
    assert fake.asked == 2


def test_forked(at: At) -> None:
    """A process that a scanner has forked keeps nobody waiting."""
    with underway.alone(os.fspath(at.root), "x"):
        pid = os.fork()
        if pid == 0:
            time.sleep(60)
            os._exit(0)
    with underway.alone(os.fspath(at.root), "x") as alone:
        assert alone
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def test_wait_ends(at: At, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for another process longer than for the scanner, and then it is not scanned."""
    monkeypatch.setattr("mdaflow.app.scanning._key", lambda *_: "scan fake x")
    fake = Fake(at.root)
    with underway.alone(os.fspath(at.root), "scan fake x") as alone:
        assert alone
        assert report(at.scanning(fake, seconds=0.05)).unscanned == "another process is at it"
    assert fake.asked == 0


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (Unscanned("larger than\r\n5 bytes"), "larger than 5 bytes"),
        (ValueError(""), "ValueError"),
        (OSError(5, "I/O error"), "[Errno 5] I/O error"),
        (MemoryError(), "MemoryError"),
    ],
)
def test_failure(at: At, error: Exception, why: str, caplog: pytest.LogCaptureFixture) -> None:
    """A scanner that fails has not scanned, and the log says so."""
    assert report(at.scanning(Fake(at.root, error))) == Report(unscanned=why)
    assert why in caplog.text


class Times(MemoryStore):
    """A store that tells for how long it was to keep something."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float | None] = []

    def put(self, key: str, value: str, seconds: float | None = None) -> None:
        self.seconds.append(seconds)
        super().put(key, value, seconds)


def test_how_long(at: At) -> None:
    """A failure counts for as long as others wait, a report a little longer."""
    at.store = store = Times()
    report(at.scanning(Fake(at.root, Unscanned("x"))))
    report(at.scanning(Fake(at.root)), Envelope("x@y"))
    report(at.scanning(Fake(at.root, Report(("X",), unscanned="part 2"))), Envelope("x@z"))
    assert store.seconds == [FAILED, KEPT, FAILED]


class Broken(MemoryStore):
    """A store that holds anything, or is away."""

    def get(self, key: str) -> str | None:
        return "[1]"

    def put(self, key: str, value: str, seconds: float | None = None) -> None:
        raise OSError("full")


def test_store_is_broken(at: At) -> None:
    """Without a store that can be believed each one asks."""
    fake, at.store = Fake(at.root), Broken()
    assert [report(at.scanning(fake)) for _ in range(2)] == [FOUND] * 2
    assert fake.asked == 2


def test_store_is_full(at: At) -> None:
    """A process that can keep nothing asks once all the same: nobody waits for the next scan."""
    fake, at.store = Fake(at.root, slow=0.2), Broken()
    scanning, found = at.scanning(fake), []
    threads = [threading.Thread(target=lambda: found.append(report(scanning))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [FOUND] * 8
    assert fake.asked == 1


def test_state_is_gone(at: At, tmp_path: Path) -> None:
    """While the folder of state is gone, threads of a process still wait for each other."""
    fake, at.store = Fake(at.root, slow=0.2), Broken()
    post, found = Post(fake, frozenset(("virus",)), 30.0, "defer"), []
    scanning = Scanning(lambda: [post], at.store, os.fspath(tmp_path / "gone"))
    threads = [threading.Thread(target=lambda: found.append(report(scanning))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [FOUND] * 8
    assert fake.asked == 1


def test_recent_reports_end(at: At, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is in memory counts for as long, and there is little of it."""
    monkeypatch.setattr("mdaflow.app.scanning.KEPT", 0.0)
    monkeypatch.setattr("mdaflow.app.scanning.MOST", 2)
    fake, at.store = Fake(at.root), Broken()
    scanning = at.scanning(fake)
    for _ in range(2):
        assert report(scanning) == FOUND
    assert fake.asked == 2
    monkeypatch.setattr("mdaflow.app.scanning.KEPT", 60.0)
    for sender in ("a", "b", "c", "a", "c"):
        assert report(scanning, Envelope(sender)) == FOUND
    assert fake.asked == 6


def test_without_state(tmp_path: Path) -> None:
    """Without a store and a folder it is scanned each time, and nothing is written."""
    fake = Fake(tmp_path)
    post = Post(fake, frozenset(("virus",)), 30.0, "defer")
    assert [report(Scanning(lambda: [post])) for _ in range(2)] == [FOUND] * 2
    assert [path.name for path in tmp_path.iterdir()] == ["asked"]


def test_poison(at: At) -> None:
    """What has stopped two workers in a scanner is spared it; others still look."""
    strikes = Strikes()
    fake = Fake(at.root)
    for _ in range(TWO):
        table = InFlight(1, Strikes())  # nobody comes back to take a strike away
        with table.noted(MAIL, BOB), table.noted(MAIL, BOB, 1):
            marks = table.marks
            assert len(marks) == 1  # it is at the scanner, not at the rules
        strikes.add(marks)
    table = InFlight(1, strikes)
    assert report(at.scanning(fake, inflight=table)) == Report(unscanned=STOPPED)
    assert report(at.scanning(fake, inflight=table), BOB, Message(b"x")) == FOUND
    other = Fake(at.root, Report())
    assert report(at.scanning(fake, inflight=table, bare=other), Envelope()) == FOUND
    with table.noted(MAIL, BOB) as spare:
        assert not spare


def test_spared(at: At) -> None:
    """Of a message that has stopped workers nothing is taken apart."""
    fake, bare = Fake(at.root), Fake(at.root, Report(("BARE",)))
    for scanner, found in ((bare, Report(("BARE",))), (None, Report(unscanned=STOPPED))):
        scanning = at.scanning(fake, bare=scanner)
        envelope = Envelope(str(scanner))
        [(_, said)] = scanning.reports("virus", MAIL, envelope, spared=True)
        assert said == found
