"""What master, broker and processes of users call: who touches a home, and in which order mail is
written, synced and acknowledged (P1, P17, P22)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from accounts import MAIL, Account, System, system
from children import Child
from letters import note
from mdaflow_server import Lmtp
from need import need
from traces import Call, calls

RULES = """\
also deliver to "lists/dev"
also pipe to ["/bin/sh", "-c", "cat > piped"]
"""
_SET = re.compile(r"setresuid\((\d+), (\d+), (\d+) *\) += 0$")
_CLONE = re.compile(r"(?:clone3?|v?fork)\(.*= (\d+)$")


@contextmanager
def traced(server: System) -> Iterator[Path]:
    """The file with what all processes of the server call that has to do with files."""
    output = server.root / "trace"
    calls = "%file,%process,setresuid,fsync,fdatasync,write,writev,sendto,sendmsg,mkdirat,chdir"
    pids = [word for pid in server.processes() for word in ("-p", str(pid))]
    options = ("-f", "-y", "-s", "80", "-e", f"trace={calls}", "-o", output)
    strace = Child((need("strace"), *options, *pids, "-p", str(server.broker)), server.root / "out")
    try:
        strace.wait_for(
            lambda: strace.said.read_text().count("attached") > len(server.processes()), "strace"
        )
        yield output
    finally:
        strace.stop()


def users(found: list[Call]) -> dict[int, tuple[int, int]]:
    """The processes that have given up root: with which call, and as whom."""
    whose = {}
    for call in found:
        if call.name == "setresuid" and (match := _SET.fullmatch(f"setresuid({call.text}")):
            assert len(set(match.groups())) == 1
            assert call.pid not in whose
            whose[call.pid] = call.start, int(match[1])
    return whose


@pytest.fixture(scope="module", params=["maildir:Maildir", "mbox:mail:INBOX={spool}/%u"])
def delivered(request: pytest.FixtureRequest) -> Iterator[tuple[System, Account, list[Call]]]:
    """Two deliveries to an account with rules and a program, and all that was called."""
    with system(request.param, (0o2775, MAIL), workers=1) as server:
        server.start()
        bob = server.account(rules=RULES)
        with traced(server) as output, Lmtp(server.socket) as client:
            for _ in range(2):
                reply = client.deliver(bob.address, note(bob.address))
                assert reply.startswith("250 "), reply
        yield server, bob, calls(output.read_text())


def test_nothing_of_a_user_as_root(delivered: tuple[System, Account, list[Call]]) -> None:
    """No process that is root, nor a worker, opens, looks at, changes or runs anything in a home;
    only processes that have become the user for good do, and the program that they run."""
    server, bob, found = delivered
    whose = users(found)
    parents = {
        int(match[1]): call.pid
        for call in found
        if (match := _CLONE.search(f"{call.name}({call.text}"))
    }
    mine = str(bob.home)
    touched = [
        call
        for call in found
        if mine in call.text and call.name not in ("sendto", "sendmsg", "write")
    ]
    assert len(touched) > 10
    assert any(call.name == "execve" for call in found)
    for call in touched:
        pid = call.pid
        while pid not in whose:  # a program, or what it has started
            assert pid in parents, call
            pid = parents[pid]
        since, uid = whose[pid]
        assert uid == bob.uid
        assert call.start > since, call
    assert {server.broker, *server.processes()}.isdisjoint(call.pid for call in touched)


def test_order(delivered: tuple[System, Account, list[Call]]) -> None:
    """Written, synced, made visible, its folder synced; only then is the client told."""
    server, bob, found = delivered
    replies = [call for call in found if call.name == "sendto" and '"250 2.0.0 <' in call.text]
    assert len(replies) == 2
    for number, reply in enumerate(replies):
        before = replies[number - 1].end if number else 0
        now = [call for call in found if before < call.start and call.end < reply.start]
        if (bob.home / "Maildir").exists():
            check_maildir(now)
        else:
            check_mbox(now, server.spool / bob.name, new=not number)


def check_maildir(found: list[Call]) -> None:
    """Both copies: file synced < renamed < folder synced."""
    renames = [call for call in found if call.name == "renameat2" and "/tmp>" in call.text]
    assert len(renames) == 2
    for rename in renames:
        match = re.match(r'\d+<(.+?)>, "(.+?)", \d+<(.+?)>', rename.text)
        assert match is not None
        written = last(found, ("write", "writev"), f"<{match[1]}/{match[2]}>")
        synced = last(found, ("fsync", "fdatasync"), f"<{match[1]}/{match[2]}>")
        published = last(found, ("fsync",), f"<{match[3]}>")
        assert written.end < synced.start
        assert synced.end < rename.start
        assert rename.end < published.start


def check_mbox(found: list[Call], inbox: Path, *, new: bool) -> None:
    """Appended < synced, and the folder of a new file synced."""
    written = last(found, ("write", "writev"), f"<{inbox}>")
    synced = last(found, ("fsync", "fdatasync"), f"<{inbox}>")
    assert written.end < synced.start
    if new:
        assert synced.end < last(found, ("fsync",), f"<{inbox.parent}>").start


def last(found: list[Call], names: tuple[str, ...], about: str) -> Call:
    """The last call of these names on a file."""
    return [call for call in found if call.name in names and about in call.text.split(", ")[0]][-1]
