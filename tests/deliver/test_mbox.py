"""mbox: both locks, the end of the file, and what may stand in its place."""

from __future__ import annotations

import fcntl
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from boxes import RECEIVED, messages, split_mboxrd, start, store, tree

from mdaflow.deliver import mbox
from mdaflow.deliver.mailbox import Mailbox
from mdaflow.errors import INTERNAL, LOCKED, TempFail

RAW = b"Subject: x\n\nText\n"


@pytest.fixture
def box(tmp_path: Path) -> Mailbox:
    return Mailbox("mbox", str(tmp_path), "mail")


@pytest.fixture
def inbox(box: Mailbox) -> Path:
    """The file of the inbox, with one message in it."""
    store(box, RAW)
    return Path(box.home, "mail/inbox")


def prepare(box: Mailbox, wait: float = 0.0) -> mbox.Delivery:
    return mbox.prepare(box, "", [RAW], (), "", RECEIVED, lock_wait=wait)


def refused(box: Mailbox) -> TempFail:
    """The failure of a delivery that has to fail and must not change the home directory."""
    before = tree(Path(box.home))
    with pytest.raises(TempFail) as caught:
        prepare(box)
    assert tree(Path(box.home)) == before
    return caught.value


@contextmanager
def child(code: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A child that has said `ready`; it is killed at the end."""
    process = start(code, *arguments)
    assert process.stdin
    assert process.stdout
    try:
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


HOLD = """
import fcntl, sys
file = open(sys.argv[1], "r+b")
fcntl.lockf(file, fcntl.LOCK_EX)
print("ready", flush=True)
sys.stdin.read()
"""


def dotlock(file: Path, age: float = 0.0) -> Path:
    """Somebody's dotlock on `file`, so many seconds old."""
    lock = file.with_name(file.name + ".lock")
    lock.write_bytes(b"1:elsewhere")
    os.utime(lock, (time.time() - age,) * 2)
    return lock


def test_file_locked_by_another_program(box: Mailbox, inbox: Path) -> None:
    """While another process has a POSIX lock, nothing is written and no dotlock stays."""
    with child(HOLD, str(inbox)):
        error = refused(box)
        assert error.status == LOCKED
        assert str(error.status).startswith("451 4.2.0")
    store(box, RAW)
    assert messages(box) == [RAW, RAW]


def test_file_with_a_dotlock(box: Mailbox, inbox: Path) -> None:
    """While there is a dotlock, nothing is written, and the file is not locked meanwhile."""
    lock = dotlock(inbox)
    assert refused(box).status == LOCKED
    with inbox.open("r+b") as file:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    lock.unlink()
    store(box, RAW)
    assert messages(box) == [RAW, RAW]


def test_dotlock_may_be_anything(box: Mailbox, inbox: Path) -> None:
    """A link or a directory in the dotlock's place is a lock, and is not followed."""
    lock = inbox.with_name("inbox.lock")
    lock.symlink_to("/nonexistent/file")
    assert refused(box).status == LOCKED
    lock.unlink()
    lock.mkdir()
    os.utime(lock, (0, 0))  # old, but no file that could be removed
    assert refused(box).status == LOCKED


def test_prepared_message_is_locked_both_ways(box: Mailbox) -> None:
    """From prepare to commit a reader finds both locks taken, afterwards none."""
    prepared = prepare(box)
    inbox = Path(box.home, "mail/inbox")
    assert inbox.with_name("inbox.lock").read_text() == f"{os.getpid()}:{os.uname().nodename}"
    with child("print('ready', flush=True)\n" + HOLD, str(inbox)) as reader:
        assert reader.stdout
        assert inbox.with_name("inbox.lock").exists()
        prepared.commit()
        assert reader.stdout.readline() == "ready\n"  # only now it has the lock
    assert sorted(tree(inbox.parent)) == ["inbox"]


def test_second_delivery_of_this_process_waits(box: Mailbox, inbox: Path) -> None:
    """Two deliveries of one process exclude each other, as POSIX locks would not."""
    first = prepare(box)
    assert refused(box).status == LOCKED
    inbox.with_name("inbox.lock").unlink()  # the kernel's lock alone is enough
    assert refused(box).status == LOCKED
    first.commit()
    prepare(box).commit()
    assert messages(box) == [RAW] * 3


TRY = """
import fcntl, sys
with open(sys.argv[1], "r+b") as file:
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        print("locked")
    except BlockingIOError:
        print("busy")
"""


def test_closed_descriptor_does_not_give_the_lock_back(box: Mailbox, inbox: Path) -> None:
    """Whoever opens and closes the file in this process takes no lock away, as of POSIX (T23)."""
    prepared = prepare(box)
    inbox.read_bytes()
    assert start(TRY, str(inbox)).communicate(timeout=60)[0] == "busy\n"
    prepared.commit()
    assert start(TRY, str(inbox)).communicate(timeout=60)[0] == "locked\n"


def test_copy_of_the_descriptor_does_not_hold_the_lock(
    box: Mailbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A child forked meanwhile, with a copy of every descriptor, does not keep the file locked."""
    prepared = prepare(box)
    copy = os.dup(prepared._fd)
    prepared.commit()
    prepare(box).commit()
    os.close(copy)
    assert messages(box) == [RAW, RAW]


def test_waits_for_the_lock(box: Mailbox, inbox: Path) -> None:
    """A lock that is given back in time only delays a delivery."""
    lock = dotlock(inbox)
    timer = threading.Timer(0.2, lock.unlink)
    timer.start()
    prepare(box, 60).commit()
    timer.join()
    assert messages(box) == [RAW, RAW]


def test_stale_dotlock_is_removed(box: Mailbox, inbox: Path) -> None:
    """A dotlock older than 500 s on a file that is not locked otherwise is a leftover."""
    dotlock(inbox, 400)
    assert refused(box).status == LOCKED
    dotlock(inbox, 600)
    prepare(box, 10).commit()
    assert messages(box) == [RAW, RAW]
    assert sorted(tree(inbox.parent)) == ["inbox"]


def test_old_dotlock_of_a_locked_file_stays(box: Mailbox, inbox: Path) -> None:
    """However old a dotlock is, it is left alone while the file itself is locked."""
    lock = dotlock(inbox, 100_000)
    with child(HOLD, str(inbox)):
        assert refused(box).status == LOCKED
        assert lock.exists()


OTHER = """
import fcntl, os, sys, time
name, order = sys.argv[1:]

def dotlock(file):
    while True:
        try:
            return os.close(os.open(name + ".lock", os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            time.sleep(0.003)

steps = [dotlock, lambda file: fcntl.lockf(file, fcntl.LOCK_EX)]
print("ready", flush=True)
for number in range(20):
    with open(name, "r+b") as file:
        for step in steps if order == "dotlock first" else steps[::-1]:
            step(file)
        file.seek(0, 2)
        file.write(b"From a Sat Nov  1 13:25:00 2025\\nA: b\\n\\n")
        file.flush()
        time.sleep(0.001)
        file.write(b"%d\\n\\n" % number)
        file.flush()
        os.unlink(name + ".lock")
    time.sleep(0.002)
"""


@pytest.mark.parametrize("order", ["dotlock first", "fcntl first"])
def test_no_deadlock_with_either_order(box: Mailbox, inbox: Path, order: str) -> None:
    """A program that blocks on its second lock, in whichever order, and we both get along."""
    with child(OTHER, str(inbox), order) as other:
        for _ in range(20):
            prepare(box, 60).commit()
        assert other.wait(60) == 0
    theirs = [b"A: b\n\n%d\n" % number for number in range(20)]
    assert messages(box) == sorted([RAW] * 21 + theirs)


REWRITE = (
    OTHER.split("for number")[0]
    + """
for number in range(20):
    with open(name, "r+b") as file:
        for step in steps if order == "dotlock first" else steps[::-1]:
            step(file)
        raw = file.read()
        file.seek(0)
        file.truncate()
        file.write(raw[:len(raw) // 2])
        file.flush()
        time.sleep(0.002)
        file.write(raw[len(raw) // 2:])
        file.flush()
        os.unlink(name + ".lock")
    time.sleep(0.005)
"""
)


@pytest.mark.parametrize("order", ["dotlock first", "fcntl first"])
def test_everybody_at_once(box: Mailbox, inbox: Path, order: str) -> None:
    """Eight threads deliver 200 messages beside two programs that append and one that writes the
    whole file anew, all with one order of locks: all get along, and no message is lost or torn."""

    def deliver_some(first: int) -> None:
        for number in range(first, first + 25):
            chunks = [b"A: b\n\nours %d\n" % number]
            mbox.prepare(box, "", chunks, (), "", RECEIVED, lock_wait=100).commit()

    with ExitStack() as stack:
        # one order for all of them, or they lock each other out
        codes = (OTHER, OTHER, REWRITE)
        others = [stack.enter_context(child(code, str(inbox), order)) for code in codes]
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(deliver_some, range(0, 200, 25)))
        assert [other.wait(60) for other in others] == [0] * 3
    ours = [b"A: b\n\nours %d\n" % number for number in range(200)]
    theirs = [b"A: b\n\n%d\n" % number for number in range(20)] * 2
    assert messages(box) == sorted([RAW, *ours, *theirs])
    assert sorted(tree(inbox.parent)) == ["inbox"]


def test_file_replaced_while_waiting(box: Mailbox, inbox: Path) -> None:
    """When a reader has written the file anew meanwhile, the message goes into the new one."""
    lock = dotlock(inbox)
    prepared: list[mbox.Delivery] = []
    thread = threading.Thread(target=lambda: prepared.append(prepare(box, 60)))
    thread.start()
    old = inbox.with_name("old")
    inbox.rename(old)
    inbox.write_bytes(b"")
    lock.unlink()
    thread.join()
    prepared[0].commit()
    assert messages(box) == [RAW]
    assert split_mboxrd(old.read_bytes()) == [RAW]


def test_file_replaced_before_the_lock(
    box: Mailbox, inbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that loses its name between open and lock is not written to."""
    lock = mbox._lock
    aside = inbox.with_name("aside")

    def late(fd: int, kind: int) -> bool:
        if kind == fcntl.F_WRLCK and not aside.exists():
            inbox.rename(aside)
        return lock(fd, kind)

    monkeypatch.setattr(mbox, "_lock", late)
    prepare(box, 10).commit()
    assert split_mboxrd(aside.read_bytes()) == [RAW]
    assert messages(box) == [RAW]


@pytest.mark.parametrize(
    ("before", "gap"),
    [
        (b"", b""),
        (b"From a b\nA: b\n\n", b""),
        (b"From a b\nA: b\n\n\n", b""),
        (b"From a b\nA: b\n", b"\n"),
        (b"From a b\nA: b\n\ntor", b"\n\n"),
        (b"From a b\nA: b", b"\n\n"),
        (b"Fro", b"\n\n"),
        (b"\n", b"\n"),
        (b"x", b"\n\n"),
    ],
)
def test_torn_tail_is_closed(box: Mailbox, inbox: Path, before: bytes, gap: bytes) -> None:
    """What a crash left at the end does not swallow the next message; abort restores it."""
    inbox.write_bytes(before)
    prepared = prepare(box)
    raw = inbox.read_bytes()
    assert raw.startswith(before + gap + b"From ")
    assert split_mboxrd(raw[len(before + gap) :]) == [RAW]
    prepared.abort()
    assert inbox.read_bytes() == before


@pytest.mark.parametrize(
    ("before", "kept"),
    [
        (b"From a b\nA: b\n\n" + bytes(4000), b"From a b\nA: b\n\n"),
        (b"From a b\nA: b\n\0\n\nFrom a b\nto\0\0", b"From a b\nA: b\n\0\n\nFrom a b\nto\n\n"),
        (bytes(4096), b""),
        (b"x" + bytes(100_000), b"x" + bytes(100_000) + b"\n\n"),
    ],
    ids=["after a message", "after a piece", "nothing else", "too many"],
)
def test_zeros_at_the_end_are_cut_off(
    box: Mailbox, inbox: Path, before: bytes, kept: bytes
) -> None:
    """What a power cut left at the end is no part of the message before it, nor of the next."""
    inbox.write_bytes(before)
    prepare(box).commit()
    raw = inbox.read_bytes()
    assert raw.startswith(kept + b"From ")
    assert split_mboxrd(raw[len(kept) :]) == [RAW]


CRASH = """
import sys
from mdaflow.deliver import mbox
from mdaflow.deliver.mailbox import Mailbox
mbox.prepare(Mailbox("mbox", sys.argv[1], "mail"), "", [b"A: b\\n\\ntor"], (), "", 0.0)
print("ready", flush=True)
sys.stdin.read()
"""


def test_killed_delivery_needs_no_repair(box: Mailbox, inbox: Path) -> None:
    """After a kill in the middle of a delivery the next one comes through by itself."""
    with child(CRASH, box.home):
        pass
    with inbox.open("r+b") as file:
        file.truncate(inbox.stat().st_size - 3)
    prepare(box, 20).commit()
    assert messages(box) == [b"A: b\n\nto\n", RAW, RAW]


def ended() -> int:
    """The pid of a process that has ended."""
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


HOST = os.uname().nodename
LEFT = {
    "of a dead process": (lambda: f"{ended()}:{HOST}\n", 3, True),
    "of a dead process, just made": (lambda: f"{ended()}:{HOST}", 0, False),
    "of a dead process, clock set back": (lambda: f"{ended()}:{HOST}", -9000, True),
    "of this process, which has no lock": (lambda: f"{os.getpid()}:{HOST}", 0, True),
    "of a process that lives": (lambda: f"{os.getppid()}:{HOST}", 400, False),
    "of a pid that was given again": (lambda: f"{os.getppid()}:{HOST}", 501, True),
    "of another machine": (lambda: f"{ended()}:{HOST}x", 400, False),
    "of procmail": (lambda: "0", 400, False),
    "of liblockfile": (lambda: f"{ended()}\n", 400, False),
    "of postfix": (lambda: "", 400, False),
    "of nobody": (lambda: f"0:{HOST}", 400, False),
    "too long": (lambda: f"{ended()}:{HOST}" + "x" * 400, 400, False),
}


@pytest.mark.parametrize("whose", LEFT)
def test_dotlock_that_is_left(box: Mailbox, inbox: Path, whose: str) -> None:
    """A dotlock of a process that has died goes at once; what nobody can tell by its age."""
    content, age, goes = LEFT[whose]
    lock = dotlock(inbox, age)
    lock.write_text(content())
    os.utime(lock, (time.time() - age,) * 2)
    if goes:
        prepare(box, 10).commit()
        assert sorted(tree(inbox.parent)) == ["inbox"]
    else:
        assert refused(box).status == LOCKED
    with child(HOLD, str(inbox)):
        lock.write_text(content())
        os.utime(lock, (time.time() - 9000,) * 2)
        assert refused(box).status == LOCKED  # and nothing of it while the file itself is locked


def test_file_over_4_gib(box: Mailbox, inbox: Path) -> None:
    """The end of a file of 5 GiB is found, a message is added there and taken back there."""
    size = 5 << 30
    try:
        os.truncate(inbox, size)
    except OSError as error:
        pytest.skip(f"no sparse file here: {error}")
    prepare(box).abort()
    assert inbox.stat().st_size == size
    prepare(box).commit()
    with inbox.open("rb") as file:
        file.seek(size)
        tail = file.read()
    assert tail.startswith(b"\n\nFrom ")  # what was there ends in no line end
    assert split_mboxrd(tail[2:]) == [RAW]


def hard_link(path: Path) -> None:
    path.write_bytes(b"")
    os.link(path, path.with_name("other"))


def device(path: Path) -> None:
    if os.geteuid():
        pytest.skip("making a device needs root")
    os.mknod(path, 0o600 | 0o020000, os.makedev(1, 3))


def executable(path: Path) -> None:
    path.write_bytes(b"")
    path.chmod(0o700)


INSTEAD: dict[str, Callable[[Path], object]] = {
    "symbolic link": lambda path: path.symlink_to("elsewhere"),
    "hard link": hard_link,
    "FIFO": os.mkfifo,
    "directory": Path.mkdir,
    "device": device,
    "executable": executable,
}


@pytest.mark.parametrize("kind", INSTEAD)
def test_only_a_plain_file_is_written(box: Mailbox, inbox: Path, kind: str) -> None:
    """A file that is a link, has two names, is executable or no file at all is left alone."""
    inbox.with_name("elsewhere").write_bytes(b"untouched")
    inbox.unlink()
    INSTEAD[kind](inbox)
    assert refused(box).status == INTERNAL
    assert not inbox.with_name("inbox.lock").exists()


def test_mode_of_the_file_stays(box: Mailbox, inbox: Path) -> None:
    """An existing file keeps its mode and its inode."""
    inbox.chmod(0o660)
    before = inbox.stat()
    store(box, RAW)
    assert (inbox.stat().st_mode, inbox.stat().st_ino) == (before.st_mode, before.st_ino)


def test_aborted_new_file_is_removed(box: Mailbox) -> None:
    """A file made for a message that is not stored goes away; one that was empty before stays."""
    prepare(box).abort()
    inbox = Path(box.home, "mail/inbox")
    assert not inbox.exists()
    inbox.write_bytes(b"")
    prepare(box).abort()
    assert inbox.read_bytes() == b""


def test_directory_that_takes_no_dotlock(box: Mailbox, inbox: Path) -> None:
    """Without room or right for the dotlock there is no delivery, and no new file."""
    name = "x" * 250  # the dotlock's name is as long as names can be
    store(box, RAW, name)
    with ExitStack() as stack:
        if os.geteuid() == 0:
            stack.enter_context(immutable(inbox.parent))
        else:
            inbox.parent.chmod(0o500)
            stack.callback(inbox.parent.chmod, 0o700)
        assert refused(box).status == INTERNAL
    assert messages(box, name) == [RAW]


@contextmanager
def immutable(directory: Path) -> Iterator[None]:
    """A directory in which not even root can make a file."""
    change = ["chattr", "+i", str(directory)]
    if subprocess.run(change, stderr=subprocess.DEVNULL).returncode:
        pytest.skip("this file system has no immutable directories")
    try:
        yield
    finally:
        subprocess.run(["chattr", "-i", str(directory)], check=True)


def test_flags(box: Mailbox) -> None:
    """Flags are stored with the message."""
    store(box, RAW, flags={"\\seen", "\\Flagged"}, sender="")
    raw = Path(box.home, "mail/inbox").read_bytes()
    assert raw == b"From MAILER-DAEMON Sat Nov  1 13:25:00 2025\nStatus: R\nX-Status: F\n%s\n" % RAW
