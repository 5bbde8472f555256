"""System calls in order, and system calls that fail: seen and injected by strace."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import pytest
from boxes import start, store, tree
from need import need

from mdaflow.deliver.mailbox import Mailbox

RAW = b"Subject: x\n\nText\n"
CALLS = "trace=writev,fsync,renameat2,linkat,unlinkat,fcntl,mkdirat,ftruncate"
BOXES = {"maildir": "Maildir", "mbox": "mail"}

DELIVER = """
import sys
from mdaflow import deliver
from mdaflow.deliver.mailbox import Mailbox
from mdaflow.errors import MailError
box = Mailbox(sys.argv[1], sys.argv[2], sys.argv[3])
try:
    deliver.prepare(box, "", [b"Subject: x\\n\\nText\\n"], (), "", 0.0).commit()
    print("250")
except MailError as error:
    print(error.status)
"""


def traced(home: Path, kind: str, *options: str) -> tuple[str, list[str]]:
    """One delivery under strace: its reply, and its system calls with the files' names."""
    log = home.with_name("strace")
    strace = [need("strace"), "-f", "-y", "-qq", "-o", str(log), "-e", CALLS, *options]
    child = start(DELIVER, kind, str(home), BOXES[kind], before=strace)
    output, _ = child.communicate(timeout=100)
    calls = [line for line in log.read_text().splitlines() if f"{home}" in line]
    return output.strip(), [line.split(None, 1)[1].replace(f"{home}", "~") for line in calls]


def in_order(calls: list[str], *patterns: str) -> None:
    """Each pattern is found in one call, and these calls follow each other."""
    found = [
        [number for number, call in enumerate(calls) if re.search(pattern, call)]
        for pattern in patterns
    ]
    assert all(len(numbers) == 1 for numbers in found), (found, calls)
    assert all(one < other for [one], [other] in pairwise(found)), (found, calls)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    path = tmp_path / "home"
    path.mkdir()
    return path


def test_maildir_order(home: Path) -> None:
    """Maildir: the message is written, synced, renamed; then the directory is synced."""
    store(Mailbox("maildir", str(home), "Maildir"), RAW)
    reply, calls = traced(home, "maildir")
    assert reply == "250"
    in_order(
        calls,
        r"^writev\(\d+<~/Maildir/tmp/[^>]+>.* = 17$",
        r"^fsync\(\d+<~/Maildir/tmp/[^>]+>\) += 0$",
        r"^renameat2\(\d+<~/Maildir/tmp>, .*<~/Maildir/new>, .*RENAME_NOREPLACE\) += 0$",
        r"^fsync\(\d+<~/Maildir/new>\) += 0$",
    )


def test_maildir_made_order(home: Path) -> None:
    """Maildir: every directory that was made is synced, and what it stands in, before the end."""
    _, calls = traced(home, "maildir")
    for path in ("~/Maildir", "~/Maildir/cur", "~/Maildir/new", "~/Maildir/tmp"):
        parent, name = path.rsplit("/", 1)
        made = ["mkdirat" in call and f'<{parent}>, "{name}"' in call for call in calls]
        after = "\n".join(calls[made.index(True) :])
        for synced in (path, parent):
            assert re.search(rf"^fsync\(\d+<{synced}>\) += 0$", after, re.MULTILINE)


def test_mbox_order(home: Path) -> None:
    """mbox: lock, write, sync, sync the directory of a new file; only then the locks go."""
    (home / "mail").mkdir()
    reply, calls = traced(home, "mbox")
    assert reply == "250"
    in_order(
        calls,
        r"^fcntl\(\d+<~/mail/inbox>, F_OFD_SETLK, {l_type=F_WRLCK,.* = 0$",
        r"^writev\(\d+<~/mail/inbox>.* = \d+$",
        r"^fsync\(\d+<~/mail/inbox>\) += 0$",
        r"^fsync\(\d+<~/mail>\) += 0$",
        r"^unlinkat\(\d+<~/mail>, \"inbox.lock\", 0\) += 0$",
        r"^fcntl\(\d+<~/mail/inbox>, F_OFD_SETLK, {l_type=F_UNLCK,.* = 0$",
    )


REPLY = {
    "ENOSPC": "452 4.3.1 Insufficient storage, try again later",
    "EDQUOT": "452 4.2.2 Over quota, try again later",
    "EIO": "451 4.3.0 Internal error, try again later",
}
STEPS = [
    ("maildir", "writev", 1),
    ("maildir", "fsync", 1),
    ("maildir", "renameat2", 1),
    ("maildir", "fsync", 2),
    ("mbox", "writev", 1),
    ("mbox", "fsync", 1),
    ("mbox", "fcntl", 1),
]


@pytest.mark.parametrize("error", REPLY)
@pytest.mark.parametrize(("kind", "call", "when"), STEPS)
def test_failed_call_leaves_nothing(
    home: Path, kind: str, call: str, when: int, error: str
) -> None:
    """A write, sync, rename or lock that fails: the message is deferred, and leaves no trace."""
    box = Mailbox(kind, str(home), BOXES[kind])
    store(box, RAW)
    before = tree(home)
    path = [] if call != "fcntl" else ["-P", str(home / "mail/inbox")]
    reply, calls = traced(home, kind, *path, "-e", f"inject={call}:error={error}:when={when}")
    assert any("(INJECTED)" in line for line in calls)
    assert reply == REPLY[error]
    assert tree(home) == before


@pytest.mark.parametrize("when", [1, 2])
def test_new_mbox_goes_with_a_failed_message(home: Path, when: int) -> None:
    """A new file whose content or directory cannot be synced is removed again."""
    (home / "mail").mkdir()
    reply, _ = traced(home, "mbox", "-e", f"inject=fsync:error=EIO:when={when}")
    assert reply == REPLY["EIO"]
    assert sorted(tree(home)) == ["mail"]


@pytest.mark.parametrize("error", ["EINVAL", "ENOSYS"])
def test_file_system_without_renameat2(home: Path, error: str) -> None:
    """Where renameat2 is unknown, as on NFS, a link and an unlink do the same."""
    store(Mailbox("maildir", str(home), "Maildir"), RAW)
    reply, calls = traced(home, "maildir", "-e", f"inject=renameat2:error={error}")
    assert reply == "250"
    in_order(
        calls,
        r"^fsync\(\d+<~/Maildir/tmp/[^>]+>\) += 0$",
        r"^linkat\(\d+<~/Maildir/tmp>, .*<~/Maildir/new>, .*, 0\) += 0$",
        r"^unlinkat\(\d+<~/Maildir/tmp>, ",
        r"^fsync\(\d+<~/Maildir/new>\) += 0$",
    )
    assert len([name for name in tree(home) if "S=17" in name]) == 2


def test_interrupted_calls_go_on(home: Path) -> None:
    """A signal in the middle of a write or sync is no failure."""
    for kind, path in BOXES.items():
        store(Mailbox(kind, str(home), path), RAW)
        reply, _ = traced(home, kind, "-e", "inject=writev,fsync:error=EINTR:when=1")
        assert reply == "250"
