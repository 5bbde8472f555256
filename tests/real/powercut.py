"""Power cuts: an ext4 in a file, and copies of that file while mail is stored in it.

What was not synced is not in the file: the file system is mounted with `commit=300`, so that it
writes nothing of itself for minutes. For a copy the server is stopped between two system calls,
and nothing may be written meanwhile, so a copy is what a disk has at one instant. It is checked by
e2fsck, mounted, which replays the journal, and compared with what was acknowledged before.

Needs root and loop devices. Known limit: a disk that reorders or tears its writes is not shown.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from typing import NamedTuple

import storm
from mdaflow_server import MAILDIRS, MBOXES, Mdaflow, User, new_root
from need import need

SIZE = 512 << 20
"""Bytes of the disk; only what is used takes room."""
SHORTEST, LONGEST = 0.02, 0.3
"""Seconds between two power cuts."""
SESSIONS = 6
UNSYNCED = (sys.executable, Path(__file__).with_name("unsynced.py"))

_WRITES, _IN_FLIGHT = 4, 8  # fields of Documentation/block/stat.rst


class Cuts(NamedTuple):
    """What power cuts did."""

    cuts: int
    acknowledged: int
    """Messages that were said to be stored, at all cuts together."""
    lost: int
    broken: int
    torn: int
    """Pieces at the end of an mbox, which nobody was told of."""


class NoLoopDevice(Exception):
    """This machine has none for us."""


class Disk:
    """An ext4 in a file of a folder, mounted."""

    def __init__(self, folder: Path) -> None:
        self._file, self._copy = folder / "disk", folder / "copy"
        self.path, self._again = folder / "mounted", folder / "again"
        for path in (self.path, self._again):
            path.mkdir()
        with self._file.open("wb") as file:
            file.truncate(SIZE)
        _run("mkfs.ext4", "-q", "-E", "lazy_itable_init=0", self._file)
        _mount(self._file, self.path)
        device = _run("losetup", "-j", self._file, "-n", "-O", "NAME").strip()
        self._statistics = Path("/sys/block", Path(device).name, "stat")

    def close(self) -> None:
        """Take it away."""
        _run("umount", self.path)

    @contextmanager
    def cut(self) -> Iterator[Path]:
        """What would be there if the power failed now: the copy, mounted at this path."""
        self._snapshot()
        _mount(self._copy, self._again)
        try:
            yield self._again
        finally:
            _run("umount", self._again)
        _run("e2fsck", "-fn", self._copy)

    def _snapshot(self) -> None:
        for _ in range(100):
            before = self._writes()
            if before >= 0:
                _run("cp", "--sparse=always", self._file, self._copy)
                if before == self._writes():
                    return
        raise AssertionError("the disk is written to all the time")

    def _writes(self) -> int:
        """How often it was written to; -1 while it is."""
        fields = self._statistics.read_text().split()
        return -1 if int(fields[_IN_FLIGHT]) else int(fields[_WRITES])


def power_cuts(cuts: int, seed: int, *, synced: bool = True) -> Cuts:
    """Cut the power so often while mail comes to Maildirs and mbox files on a new disk.

    Not `synced`: of a server that syncs nothing. Raises NoLoopDevice.
    """
    dice = random.Random(seed)
    root = new_root()
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, root)
        disk = Disk(root)
        stack.callback(disk.close)
        mdaflow = Mdaflow(disk.path / "site", root / "lmtp", storm.WORKERS)
        mdaflow.program = mdaflow.program if synced else UNSYNCED
        mails = storm.new_mails(mdaflow, seed, (MAILDIRS, MBOXES, MAILDIRS))
        _run("sync", "-f", disk.path)  # the users' folders and their rules
        stack.callback(mdaflow.stop)
        mdaflow.start()
        taken: list[int] = []
        clients = storm.Clients(
            mails,
            storm.by_lmtp(mdaflow.socket),
            lambda word, number: taken.append(number) if word == "taken" else None,
        )
        found = []
        with clients.sending(count(), SESSIONS):
            for _ in range(cuts):
                time.sleep(dice.uniform(SHORTEST, LONGEST))
                found.append(_cut(disk, mdaflow, mails, taken))
        mdaflow.check_log()
        return Cuts(*map(sum, zip(*found, strict=True)))


def _cut(disk: Disk, mdaflow: Mdaflow, mails: storm.Mails, taken: list[int]) -> Cuts:
    """What one power cut leaves."""
    with ExitStack() as stack:
        with mdaflow.halted():
            acknowledged = Counter(taken)
            there = stack.enter_context(disk.cut())
        moved = mails.moved(disk.path, there)
        for user in moved.users:
            _without_zeros(user)
        found = storm.look(moved)
    lost = found.lost(acknowledged)
    return Cuts(1, len(acknowledged), len(lost), len(found.broken), len(found.torn))


def _without_zeros(user: User) -> None:
    """Take away what ext4 may leave at the end of an mbox: the next delivery does so, too."""
    for path in user.home.glob("mail/*"):
        content = path.read_bytes()
        os.truncate(path, len(content.rstrip(b"\0")))


def _mount(file: Path, path: Path) -> None:
    try:
        _run("mount", "-t", "ext4", "-o", "loop,commit=300", file, path)
    except subprocess.CalledProcessError as error:
        raise NoLoopDevice(f"{error.stdout}".strip()) from error


def _run(program: str, *arguments: str | Path) -> str:
    """What a program says. Raises CalledProcessError with that."""
    command = [need(program), *map(str, arguments)]
    return subprocess.run(
        command, check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ).stdout
