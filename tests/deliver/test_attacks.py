"""Somebody who may change the tree swaps folders for links while we deliver: nothing leaves it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from boxes import descriptors, start, tree

from mdaflow.deliver import maildir, mbox
from mdaflow.deliver.mailbox import Mailbox, Prepared, parse_mailbox
from mdaflow.errors import MailError

DELIVERIES = 2000

SWAP = """
import ctypes, itertools, os, sys
call = ctypes.CDLL(None, use_errno=True).renameat2
pairs = [tuple(map(os.fsencode, pair.split("|"))) for pair in sys.argv[1:]]
for number in itertools.count():
    for one, other in pairs:
        if call(-100, one, -100, other, 2):  # RENAME_EXCHANGE
            sys.exit(os.strerror(ctypes.get_errno()))
    if number == 0:
        print("ready", flush=True)
"""


@contextmanager
def swapped(*pairs: tuple[Path, Path]) -> Iterator[None]:
    """Meanwhile the two paths of each pair change places, as fast as can be."""
    child = start(SWAP, *(f"{one}|{other}" for one, other in pairs))
    assert child.stdin
    assert child.stdout
    try:
        assert child.stdout.readline() == "ready\n"
        yield
        assert child.poll() is None
    finally:
        child.kill()
        child.wait()
        child.stdin.close()
        child.stdout.close()


@pytest.fixture(autouse=True)
def _no_syncing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda fd: None)


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """What belongs to somebody else: a Maildir, folders, and an mbox."""
    folder = tmp_path / "outside"
    for name in ("cur", "new", "tmp", "lists"):
        (folder / name).mkdir(parents=True)
    for name in ("dev", "lists/dev", "inbox"):
        (folder / name).write_bytes(b"From a Sat Nov  1 13:25:00 2025\nA: b\n\ntheirs\n\n")
    return folder


def prepare(box: Mailbox, folder: str) -> Prepared:
    chunks = [b"Subject: ours\n\nText\n"]
    if box.format == "maildir":
        return maildir.prepare(box, folder, chunks, ())
    return mbox.prepare(box, folder, chunks, (), "a@b", 0.0, lock_wait=0.0)


def delivered(box: Mailbox, folder: str) -> int:
    """How many of many deliveries were acknowledged."""
    good = 0
    for _ in range(DELIVERIES):
        try:
            prepare(box, folder).commit()
        except MailError:
            continue
        good += 1
    return good


def stored(home: Path) -> int:
    """How many messages there are below a directory, whatever they are called by now."""
    found = 0
    for folder, _, names in os.walk(home):
        for path in (Path(folder, name) for name in names):
            if not path.is_symlink() and path.parent.name != "tmp":
                found += len(re.findall(rb"^Subject: ours$", path.read_bytes(), re.MULTILINE))
    return found


ATTACKS = {
    "folder": ("maildir:Mail", "Board", ("Mail/.Board", "")),
    "part of a folder": ("maildir:Mail", "Board", ("Mail/.Board/new", "new")),
    "folder above": ("maildir:Mail:LAYOUT=fs", "lists/dev", ("Mail/lists", "cur")),
    "folder of mbox files": ("mbox:mail", "lists/dev", ("mail/lists", "lists")),
    "mbox file": ("mbox:mail", "lists/dev", ("mail/lists/dev", "dev")),
    "mailbox": ("mbox:mail", "", ("mail", "")),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_folder_and_link_change_places(tmp_path: Path, outside: Path, attack: str) -> None:
    """Nothing is written through a link, and what was acknowledged is in the real folder."""
    spec, folder, (place, target) = ATTACKS[attack]
    home = tmp_path / "home"
    home.mkdir()
    box = parse_mailbox(spec, str(home))
    prepare(box, folder).commit()
    (home / "link").symlink_to(outside / target)
    before, opened = tree(outside), descriptors()
    with swapped((home / place, home / "link")):
        good = delivered(box, folder)
    assert tree(outside) == before
    assert stored(home) == good + 1
    assert descriptors() == opened


def test_file_and_hard_link_change_places(tmp_path: Path, outside: Path) -> None:
    """An mbox that is a second name of somebody else's file is never written."""
    box = parse_mailbox("mbox:home", str(tmp_path))
    prepare(box, "dev").commit()
    os.link(outside / "dev", tmp_path / "home/link")
    before = tree(outside)
    with swapped((tmp_path / "home/dev", tmp_path / "home/link")):
        good = delivered(box, "dev")
    assert tree(outside) == before
    assert stored(tmp_path / "home") == good + 1
