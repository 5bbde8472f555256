"""Inboxes in the spool of the system, for the group mail or for everybody (P04, P05)."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import races
from accounts import MAIL, Account, System, system
from letters import note
from mdaflow_server import Lmtp

SPOOLS = {"2775": (0o2775, MAIL), "1777": (0o1777, 0)}
OTHER = 20_950
"""The uid of somebody else."""
SECRET = "root's\n"


@pytest.fixture(scope="module", params=SPOOLS)
def server(request: pytest.FixtureRequest) -> Iterator[System]:
    """A server with a spool of either kind."""
    with system("mbox:mail:INBOX={spool}/%u", SPOOLS[request.param]) as found:
        found.start()
        yield found


def deliver(server: System, account: Account) -> str:
    """The reply to a message."""
    with Lmtp(server.socket) as client:
        return client.deliver(account.address, note(account.address))


def test_inbox(server: System) -> None:
    """An inbox is made for its account alone, and what is there is appended to; folders are below
    the home."""
    bob = server.account(rules='also deliver to "lists/dev"\n')
    inbox = server.spool / bob.name
    for count in (1, 2):
        assert deliver(server, bob).startswith("250 ")
        about = inbox.stat()
        assert (about.st_uid, stat.S_IMODE(about.st_mode)) == (bob.uid, 0o600)
        assert inbox.read_bytes().count(b"\nSubject: hello\n") == count
        assert (bob.home / "mail/lists/dev").read_bytes().count(b"\nSubject: hello\n") == count
    assert inbox.stat().st_gid == (MAIL if server.spool.stat().st_mode & stat.S_ISGID else bob.uid)
    assert not list(server.spool.glob("*.lock"))
    inbox.chmod(0o660)
    assert deliver(server, bob).startswith("250 ")
    assert stat.S_IMODE(inbox.stat().st_mode) == 0o660


Trap = Callable[[Account, Path, Path], None]


def link_to_root(account: Account, path: Path, target: Path) -> None:
    path.symlink_to(target)
    account.give(path)


def link_to_nothing(account: Account, path: Path, target: Path) -> None:
    path.symlink_to(target.with_name("new"))
    account.give(path)


def hard_link(account: Account, path: Path, target: Path) -> None:
    path.hardlink_to(target)


def fifo(account: Account, path: Path, target: Path) -> None:
    os.mkfifo(path, 0o600)
    account.give(path)


def folder(account: Account, path: Path, target: Path) -> None:
    path.mkdir()
    account.give(path)


def device(account: Account, path: Path, target: Path) -> None:
    os.mknod(path, 0o020600, os.makedev(1, 3))
    account.give(path)


def of_another(account: Account, path: Path, target: Path) -> None:
    path.write_text("")
    path.chmod(0o666)
    os.chown(path, OTHER, OTHER)


TRAPS: list[Trap] = [
    link_to_root, link_to_nothing, hard_link, fifo, folder, device, of_another,
]  # fmt: skip


@pytest.mark.parametrize("trap", TRAPS, ids=[trap.__name__ for trap in TRAPS])
def test_traps(server: System, trap: Trap) -> None:
    """What somebody has put in the place of an inbox is not written to and stays as it is; mail
    waits, and comes when it is away."""
    _fall_into(server, server.account(), trap, "", "451 4.3.0 ")


def test_traps_for_locks(server: System) -> None:
    """So it is with what is in the place of its lock, after thirty seconds."""
    accounts = [server.account() for _ in TRAPS]
    with ThreadPoolExecutor(len(TRAPS)) as pool:
        done = [
            pool.submit(_fall_into, server, account, trap, ".lock", "451 4.2.0 ")
            for account, trap in zip(accounts, TRAPS, strict=True)
        ]
    assert [one.result() for one in done] == [None] * len(TRAPS)


def _fall_into(server: System, bob: Account, trap: Trap, suffix: str, told: str) -> None:
    target = server.root / f"target of {bob.name}"
    target.write_text(SECRET)
    target.chmod(0o666)
    path = server.spool / f"{bob.name}{suffix}"
    trap(bob, path, target)
    before = path.lstat()
    reply = deliver(server, bob)
    assert reply.startswith(told), reply
    after = path.lstat()
    for about in ("st_ino", "st_uid", "st_mode", "st_size"):
        assert getattr(after, about) == getattr(before, about)
    assert target.read_text() == SECRET
    assert not target.with_name("new").exists()
    assert not list(server.spool.glob(f"{bob.name}.lock.lock"))
    path.rmdir() if trap is folder else path.unlink()
    assert deliver(server, bob).startswith("250 ")
    assert (server.spool / bob.name).read_bytes().count(b"\nSubject: hello\n") == 1


def test_race(server: System) -> None:
    """With a link to a file of root's in the place of the inbox and back all the time, nothing
    gets out, and none of what was taken is lost."""
    [swap] = [swap for swap in races.SWAPS.values() if swap.in_spool]
    found = races.race(server, swap, 300)
    assert not found.escaped
    assert found.lost == 0
    assert found.taken
    assert found.put_off


@pytest.mark.parametrize("mode", [0o755, 0o775])
def test_spool_for_nobody(mode: int) -> None:
    """Where the account may make no inbox, or only with root's group, mail is put off."""
    with system("mbox:mail:INBOX={spool}/%u", (0o2775, MAIL)) as server:
        server.start()
        os.chown(server.spool, 0, 0)
        server.spool.chmod(mode)
        bob = server.account()
        assert deliver(server, bob).startswith("451 4.3.0 ")
        assert not list(server.spool.iterdir())
        server.spool.rmdir()
        assert deliver(server, bob).startswith("451 4.3.0 ")
