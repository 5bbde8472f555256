"""Leftovers in tmp/: what is old goes, everything else stays."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from boxes import messages, store, tree

from mdaflow.deliver import leftovers
from mdaflow.deliver.mailbox import Mailbox

RAW = b"Subject: x\n\nText\n"
HOUR = 3600.0


class Clock:
    """Both clocks, which go on as they are told; files have the real time."""

    def __init__(self) -> None:
        self.now = time.time()
        self.up = 1e6

    def go(self, seconds: float) -> None:
        self.now += seconds
        self.up += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "time", lambda: clock.now)
    monkeypatch.setattr(leftovers, "_clock", lambda: clock.up)
    monkeypatch.setattr(leftovers, "_jumps", leftovers._Jumps())
    monkeypatch.setattr(leftovers, "_looked", {})
    return clock


@pytest.fixture
def box(tmp_path: Path, clock: Clock) -> Mailbox:
    """A Maildir with a message everywhere, which was looked at."""
    box = Mailbox("maildir", str(tmp_path), "Mail")
    store(box, RAW)
    store(box, RAW, flags={"\\Seen"})
    for part in ("tmp", "new", "cur"):
        (tmp_path / "Mail" / part / "1.left").write_bytes(b"half a mess")
    return box


def left(box: Mailbox) -> set[str]:
    store(box, RAW)
    return set(os.listdir(Path(box.home, "Mail/tmp")))


def test_old_files_go(box: Mailbox, clock: Clock) -> None:
    """What is older than 36 h goes from tmp/, and from nowhere else."""
    clock.go(35 * HOUR)
    assert left(box) == {"1.left"}
    clock.go(2 * HOUR)
    assert left(box) == set()
    assert len(messages(box)) == 6


def test_folders_have_their_own(box: Mailbox, clock: Clock) -> None:
    """Each folder is looked at for itself."""
    store(box, RAW, "a")
    file = Path(box.home, "Mail/.a/tmp/1.left")
    file.write_bytes(b"")
    clock.go(37 * HOUR)
    assert left(box) == set()
    assert file.exists()
    store(box, RAW, "a")
    assert not file.exists()


def test_only_files_go(box: Mailbox, clock: Clock) -> None:
    """Directories, links, FIFOs and hidden files stay, and what links lead to."""
    tmp = Path(box.home, "Mail/tmp")
    (tmp / "directory").mkdir()
    (tmp / "directory/file").write_bytes(b"")
    (tmp / "link").symlink_to("../new/1.left")
    os.mkfifo(tmp / "fifo")
    (tmp / ".nfs01").write_bytes(b"")
    os.link(tmp / "1.left", tmp.parent / "new/2.linked")
    clock.go(37 * HOUR)
    before = tree(tmp.parent / "new")
    assert left(box) == {"directory", "link", "fifo", ".nfs01"}
    assert before.items() <= tree(tmp.parent / "new").items()


def test_old_message_that_is_being_written(box: Mailbox, clock: Clock) -> None:
    """A new file with the time of an old message is new."""
    os.utime(Path(box.home, "Mail/tmp/1.left"), (0, 0))
    clock.go(2 * HOUR)
    assert left(box) == {"1.left"}


def test_file_of_the_future(box: Mailbox, clock: Clock) -> None:
    """A file that is younger than now is not old."""
    os.utime(Path(box.home, "Mail/tmp/1.left"), (2**33, 2**33))
    clock.go(37 * HOUR)
    assert left(box) == {"1.left"}


@pytest.mark.parametrize("jump", [365 * 24 * HOUR, -365 * 24 * HOUR])
def test_clock_that_jumps(box: Mailbox, clock: Clock, jump: float) -> None:
    """When the clock was set, nothing goes for an hour, whatever it says."""
    clock.go(2 * HOUR)
    clock.now += jump
    assert left(box) == {"1.left"}
    clock.go(0.9 * HOUR)
    assert left(box) == {"1.left"}
    clock.go(0.2 * HOUR)
    assert left(box) == (set() if jump > 0 else {"1.left"})


def test_now_and_then(box: Mailbox, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Maildir is looked at once an hour, not for every message."""
    looks = []
    monkeypatch.setattr(leftovers, "_remove_old", lambda tmp, before: looks.append(before))
    for _ in range(30):
        clock.go(HOUR / 10 + 1)
        store(box, RAW)
    assert len(looks) == 3


def test_many_maildirs(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many there are, little is remembered."""
    monkeypatch.setattr(leftovers, "_MOST", 5)
    for number in range(12):
        store(Mailbox("maildir", str(tmp_path), f"{number}"), RAW)
        assert len(leftovers._looked) <= 5


def test_trouble_is_no_matter(box: Mailbox, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be looked at or removed stops no message."""
    for name in ("scandir", "fstat"):
        clock.go(37 * HOUR)
        with monkeypatch.context() as patch:
            patch.setattr(leftovers.os, name, lambda *_: os.close(-1))
            assert left(box) == {"1.left"}
