"""The process of an account is killed at every system call that changes something, and so is the
writer of its inbox in /var/mail."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mailboxes
import pytest
from accounts import MAIL, Account, System, system
from children import Child
from deliveries import NAMES, Call, calls
from letters import numbered
from mdaflow_server import Lmtp
from need import need

MOST = 6
"""So often a message may be there that was sent twice: a process that dies before the fence is
replaced two times, and each of them may have died behind its rename."""

NOTICE = b"Auto-Submitted: auto-generated (mail rules)"


@contextmanager
def traced(server: System, inject: str = "") -> Iterator[Path]:
    """The broker and all that it makes under strace; the file is whole at the end."""
    output = server.root / "trace"
    names = ",".join(f"?{name}" for name in NAMES)
    command = [need("strace"), "-f", "-y", "-o", str(output), "-e", f"trace={names}"]
    command += [*(["-e", f"inject={inject}"] if inject else []), "-p", str(server.broker)]
    said = server.root / "strace"
    said.unlink(missing_ok=True)
    strace = Child(command, said)
    try:
        strace.wait_for(lambda: "attached" in said.read_text(), "strace is attached")
        yield output
    finally:
        strace.stop()


def recorded(server: System, client: Lmtp) -> list[Call]:
    """What the processes of an account call to deliver a message, by name and number in each."""
    with traced(server) as output:
        account = server.account()
        assert client.deliver(account.address, message(account)).startswith("250 ")
    lines = output.read_text().splitlines()
    pids = {line.split()[0] for line in lines} - {str(server.broker)}
    found = [
        call
        for pid in sorted(pids)
        for call in calls("\n".join(line for line in lines if line.split()[0] == pid))
        if call.changes
    ]
    return list({(call.name, call.number): call for call in found}.values())


def message(account: Account) -> bytes:
    return numbered(1, 4711, account.address, 300, 300)


def copies(server: System, account: Account) -> list[bytes]:
    """The messages in the inbox, each whole or not, from their first field on. That rules were not
    run is told by a mail, which is no such message."""
    spool, maildir = server.spool / account.name, account.home / "Maildir"
    found = mailboxes.mbox(spool) if spool.exists() else mailboxes.maildir(maildir)
    sent = [mail.raw for mail in found if NOTICE not in mail.raw]
    return [raw[max(0, raw.find(b"X-Number: ")) :] for raw in sent]


@pytest.mark.parametrize(
    ("mailbox", "torn"), [("maildir:Maildir", 0), ("mbox:mail:INBOX={spool}/%u", 1)]
)
def test_killed_at_every_call(mailbox: str, torn: int) -> None:
    """What was acknowledged is there, whole; what was not comes again, and no lock is left."""
    need("strace")
    with system(mailbox, (0o2775, MAIL)) as server:
        server.start()
        with Lmtp(server.socket) as client:
            points = recorded(server, client)
            spared = [call for call in points if not _killed_at(server, client, call, torn)]
        assert len(points) > 10
        assert spared == []


def _killed_at(server: System, client: Lmtp, call: Call, torn: int) -> bool:
    """Was a process killed there? An mbox may have a `torn` piece of a message."""
    account = server.account()
    raw = message(account)
    with traced(server, f"{call.name}:signal=KILL:when={call.number}") as output:
        reply = client.deliver(account.address, raw)
        end = time.monotonic() + 2.0  # strace may hear of the end later than the worker
        while "killed by SIGKILL" not in output.read_text() and time.monotonic() < end:
            time.sleep(0.01)
    assert reply[:3] in ("250", "451"), (call, reply)
    if not reply.startswith("250 "):
        again = client.deliver(account.address, raw)
        assert again.startswith("250 "), (call, again)
    sent = raw.replace(b"\r\n", b"\n")
    there = copies(server, account)
    assert 1 <= there.count(sent) <= MOST, (call, reply, there)
    assert len(there) - there.count(sent) <= torn, (call, there)
    assert not [*server.spool.glob("*.lock"), *account.home.rglob("*.lock")], call
    return "killed by SIGKILL" in output.read_text()
