"""Quota when the system fails: each call of a delivery in turn, and a kill at each."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from boxes import RECEIVED, descriptors, start
from need import need

from mdaflow import deliver
from mdaflow.deliver import maildir
from mdaflow.deliver.mailbox import Mailbox, Quota, parse_mailbox
from mdaflow.deliver.quota import check
from mdaflow.errors import DISK_FULL, INTERNAL, OVER_QUOTA, Status, TempFail

CALLS = (
    "open", "read", "write", "writev", "fstat", "stat", "fsync", "rename", "unlink", "scandir",
    "mkdir", "lseek", "pread",
)  # fmt: skip
LIMIT = 10_000
STATUS = {"EIO": INTERNAL, "ENOSPC": DISK_FULL, "EDQUOT": OVER_QUOTA, "ENOMEM": INTERNAL}


class Faults:
    """Has the n-th system call fail."""

    def __init__(self, patch: pytest.MonkeyPatch, number: int, error: int) -> None:
        self.left = number
        self.error = error
        for name in CALLS:
            patch.setattr(os, name, self._wrapped(getattr(os, name)))
        patch.setattr(maildir, "_rename", self._wrapped(maildir._rename))

    def _wrapped(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def fail(*arguments: Any, **options: Any) -> Any:
            self.left -= 1
            if self.left == 0:
                raise OSError(self.error, os.strerror(self.error))
            return call(*arguments, **options)

        return fail


def steady(home: Path) -> None:
    """Nothing to count."""


def missing(home: Path) -> None:
    """All to be counted."""
    (home / "Maildir/maildirsize").unlink()


def grown(home: Path) -> None:
    """Full, as it seems, so that all is counted."""
    with (home / "Maildir/maildirsize").open("a") as file:
        file.write(f"{LIMIT} 1\n")


STATES = [steady, missing, grown]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with some mail."""
    home = tmp_path_factory.mktemp("model")
    for folder in ("", "", "Junk"):
        put(box_in(home), folder)
    return home


@pytest.fixture
def homes(model: Path, tmp_path: Path) -> Iterator[Path]:
    """Copies of it."""

    def copies() -> Iterator[Path]:
        for n in range(1000):
            yield Path(shutil.copytree(model, tmp_path / f"{n}"))

    return copies()


def box_in(home: Path) -> Mailbox:
    return parse_mailbox("maildir:Maildir", str(home), Quota(LIMIT))


def put(box: Mailbox, folder: str = "") -> None:
    deliver.prepare(box, folder, [b"x" * 100], (), "", RECEIVED).commit()


def outcome(box: Mailbox, folder: str) -> Status | None:
    """The reply when it was put off."""
    try:
        put(box, folder)
    except TempFail as error:
        return error.status
    return None


def stored(home: Path) -> int:
    return len([*home.glob("Maildir/new/*"), *home.glob("Maildir/.Junk/new/*")])


def counted(home: Path) -> tuple[int, int]:
    lines = (home / "Maildir/maildirsize").read_text().splitlines()[1:]
    numbers = [line.split() for line in lines]
    return sum(int(n) for n, _ in numbers), sum(int(n) for _, n in numbers)


@pytest.mark.parametrize("error", STATUS)
@pytest.mark.parametrize("folder", ["", "Junk"])
@pytest.mark.parametrize("state", STATES)
def test_each_call(
    homes: Iterator[Path], state: Callable[[Path], None], folder: str, error: str
) -> None:
    """Whatever call fails, the message is stored or put off, nothing is left, and the next one
    finds the true sum. Trouble with the quota alone puts nothing off."""
    outcomes = []
    for number, home in enumerate(homes, 1):
        state(home)
        box, before, open_files = box_in(home), stored(home), descriptors()
        with pytest.MonkeyPatch.context() as patch:
            faults = Faults(patch, number, getattr(errno, error))
            status = outcome(box, folder)
        assert status in (None, STATUS[error])
        outcomes.append(status is None)
        assert stored(home) == before + outcomes[-1], number
        assert descriptors() == open_files, number
        assert not [*home.rglob("tmp/*")], number
        if state is not grown or outcomes[-1]:
            put(box, folder)
            assert counted(home) == (100 * stored(home), stored(home)), number
        if faults.left > 0:
            break
    assert len(outcomes) > 10
    assert outcomes[-1]
    assert 4 < outcomes.count(False) < len(outcomes) - 4


def test_each_call_of_a_check(homes: Iterator[Path]) -> None:
    """At RCPT nobody is refused for trouble with the quota."""
    for number, home in enumerate(homes, 1):
        missing(home)
        with pytest.MonkeyPatch.context() as patch:
            faults = Faults(patch, number, errno.EIO)
            check(box_in(home))
        if faults.left > 0:
            break
    assert number > 10


KILL = """
import os, shutil, sys
from pathlib import Path
from mdaflow import deliver
from mdaflow.deliver import maildir
from mdaflow.deliver.mailbox import Quota, parse_mailbox

CALLS = sys.argv[3].split()

def deliver_in(home, number):
    left = [number]
    def wrapped(call):
        def kill(*arguments, **options):
            left[0] -= 1
            if left[0] == 0:
                os._exit(9)
            return call(*arguments, **options)
        return kill
    for name in CALLS:
        setattr(os, name, wrapped(getattr(os, name)))
    maildir._rename = wrapped(maildir._rename)
    box = parse_mailbox("maildir:Maildir", str(home), Quota(10_000))
    deliver.prepare(box, "", [b"x" * 100], (), "", 0.0).commit()
    os._exit(0)

for number in range(1, 1000):
    home = Path(shutil.copytree(sys.argv[1], f"{sys.argv[2]}/{number}"))
    if "missing" in sys.argv:
        (home / "Maildir/maildirsize").unlink()
    pid = os.fork()
    if pid == 0:
        deliver_in(home, number)
    if os.waitpid(pid, 0)[1] == 0:
        break
print(number)
"""


@pytest.mark.parametrize("state", ["steady", "missing"])
def test_kill_at_each_call(model: Path, tmp_path: Path, state: str) -> None:
    """A kill leaves no wrong file: the sum is at most one message too high, never too low."""
    child = start(KILL, str(model), str(tmp_path), " ".join(CALLS), state)
    output, _ = child.communicate(timeout=100)
    assert child.returncode == 0
    assert int(output) > 10
    for home in tmp_path.iterdir():
        put(box_in(home))
        assert 0 <= counted(home)[1] - stored(home) <= 1
        missing(home)
        put(box_in(home))
        assert counted(home) == (100 * stored(home), stored(home))


ONE = """
import sys
from mdaflow import deliver
from mdaflow.deliver.mailbox import Quota, parse_mailbox
box = parse_mailbox("maildir:Maildir", sys.argv[1], Quota(10_000))
deliver.prepare(box, "", [b"x" * 100], (), "", 0.0).commit()
"""


def test_cost(model: Path, tmp_path: Path) -> None:
    """A delivery with a quota opens one file more, reads it, looks at it and appends to it once,
    and asks where that was; nothing is synced for it."""
    home = Path(shutil.copytree(model, tmp_path / "home"))
    log = tmp_path / "strace"
    strace = [need("strace"), "-f", "-y", "-qq", "-o", str(log), "-e", "trace=%file,%desc"]
    child = start(ONE, str(home), before=strace)
    child.communicate(timeout=100)
    assert child.returncode == 0
    calls = [
        line.split(None, 1)[1].partition("(")[0]
        for line in log.read_text().splitlines()
        if "maildirsize" in line
    ]
    assert [call for call in calls if call != "close"] == [
        "openat",
        "read",
        "newfstatat" if "newfstatat" in calls else "fstat",
        "write",
        "lseek",
    ]
