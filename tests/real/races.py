"""What a user can do while mail is delivered: put a link in the place of a file, and back, all the
time. `SWAPS` are the places; nothing may be written or read where the link leads.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from accounts import MAIL, Account, System
from children import until
from letters import note
from mdaflow_server import Lmtp

EXCHANGE = """
import ctypes, sys, time
renameat2 = ctypes.CDLL(None).renameat2
here, there = (path.encode() for path in sys.argv[1:])
print("go", flush=True)
while renameat2(-100, here, -100, there, 2) == 0:
    pass
"""
SPOOLS = (0o2775, MAIL), (0o1777, 0)
"""Mode and group of a spool: for the group mail, and for everybody."""
RULED = 'deliver to "stolen"\n'


class Swap(NamedTuple):
    """A place: the path that is swapped, where the link leads, and what tells of an escape."""

    path: Callable[[System, Account], Path]
    lure: Callable[[Path], Path]
    escaped: Callable[[Account, Path], object]
    in_spool: bool = False


def _file(root: Path) -> Path:
    """A file of root's, which everybody may write to: no mode keeps a mistake from showing."""
    path = root / "file of root"
    path.write_text("root's\n")
    path.chmod(0o666)
    return path


def _folder(root: Path) -> Path:
    """A Maildir of root's, which everybody may write to."""
    path = root / "folder of root"
    for name in ("", "new", "cur", "tmp"):
        (path / name).mkdir()
        (path / name).chmod(0o777)
    return path


def _rules(root: Path) -> Path:
    """Rules that a user could not read otherwise, but for their mode."""
    path = root / "rules of root"
    path.write_text(RULED)
    path.chmod(0o644)
    return path


def _inbox(server: System, account: Account) -> Path:
    path = server.spool / account.name
    path.touch(mode=0o600)
    account.give(path)
    return path


def _maildir(server: System, account: Account) -> Path:
    path = account.home / "Maildir"
    made = [path, *(path / name for name in ("new", "cur", "tmp"))]
    for folder in made:
        folder.mkdir(mode=0o700)
    account.give(*made)
    return path


SWAPS = {
    "inbox in the spool": Swap(
        _inbox, _file, lambda account, lure: lure.read_text() != "root's\n", in_spool=True
    ),
    "Maildir": Swap(
        _maildir, _folder, lambda account, lure: [p for p in lure.rglob("*") if p.is_file()]
    ),
    "rules": Swap(
        lambda server, account: account.write_rules("keep\n"),
        _rules,
        lambda account, lure: (account.home / "Maildir/.stolen").exists(),
    ),
}


class Raced(NamedTuple):
    """What came of it."""

    taken: int
    put_off: int
    lost: int
    escaped: bool


def race(server: System, swap: Swap, tries: int) -> Raced:
    """Deliver so many messages to an account, while it swaps."""
    bob = server.account()
    lure = swap.lure(server.root)
    path = swap.path(server, bob)
    link = path.with_name(f"{path.name}~")
    link.symlink_to(lure)
    bob.give(link)
    taken = 0
    with swapping(path, link), Lmtp(server.socket) as client:
        for _ in range(tries):
            reply = client.deliver(bob.address, note(bob.address))
            assert reply[:4] in ("250 ", "451 "), reply
            taken += reply.startswith("250 ")
    real = link if path.is_symlink() else path
    found = {_inbox: _of_mbox, _maildir: _of_maildir}.get(swap.path, _of_home)(real)
    escaped = bool(swap.escaped(bob, lure))
    link.unlink() if link.is_symlink() else path.unlink()
    return Raced(taken, tries - taken, max(0, taken - found), escaped)


def _of_mbox(path: Path) -> int:
    return path.read_bytes().count(b"\nSubject: hello\n")


def _of_maildir(path: Path) -> int:
    return len(list((path / "new").iterdir()))


def _of_home(path: Path) -> int:
    texts = (file.read_bytes() for file in (path.parents[1] / "Maildir/new").iterdir())
    return sum(b"\nSubject: hello\n" in text for text in texts)


@contextmanager
def swapping(here: Path, there: Path) -> Iterator[None]:
    """Two files in each other's place, all the time."""
    command = [sys.executable, "-I", "-c", EXCHANGE, here, there]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        try:
            assert child.stdout.readline() == b"go\n"
            yield
            assert child.poll() is None
        finally:
            child.kill()


def settle(server: System) -> None:
    """Wait until no process of a user is left."""
    until(lambda: not server.identities(), "the end of all that is idle")


def owners(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """All that is in a folder, with its owner and mode."""
    for path in folder.rglob("*"):
        yield path, path.lstat()
