"""The processes that deliver as accounts: what they are, and what becomes of mail when they are
killed, stopped, or told to do what ends them (P09, P10, K04, E11)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from accounts import CAPABILITIES, MAIL, SHARED, Account, System, children, status, system
from children import Child, until
from letters import note
from mdaflow_server import NOBODY, Lmtp
from need import need

from mdaflow.app.identities import WARM

SPOOL = "mbox:mail:INBOX={spool}/%u"
DIE = """\
if subject is "die" {
    if command ["/bin/sh", "-c", "kill -9 $PPID"] succeeds { discard }
}
"""


@pytest.fixture(scope="module")
def server() -> Iterator[System]:
    """A server whose accounts have an inbox in the spool of the system, and little time."""
    with system(SPOOL, (0o2775, MAIL), workers=1, deadline=3) as found:
        found.site_file("die", DIE)
        found.start()
        yield found


def deliver(server: System, account: Account, subject: str = "hello") -> str:
    """The reply to a message."""
    with Lmtp(server.socket) as client:
        return client.deliver(account.address, note(account.address, subject=subject))


def count(server: System, account: Account) -> int:
    """The messages in an inbox of the spool."""
    inbox = server.spool / account.name
    return inbox.read_bytes().count(b"\nSubject: ") if inbox.exists() else 0


# --- what they are -----------------------------------------------------------------------------


def test_identities(server: System) -> None:
    """A process that is a user has its ids and groups and nothing of root; the writer of the
    spool has the group mail alone; workers are the user of the server; only the broker is root.
    """
    bob = server.account()
    assert deliver(server, bob).startswith("250 ")
    nothing = {name: [0] for name in CAPABILITIES}
    identity = server.identity(bob)
    writer = server.writer(bob)
    own = [bob.uid] * 4
    groups = [bob.uid, SHARED]
    assert status(identity) == {"Uid": own, "Gid": own, "Groups": groups, **nothing}
    assert status(writer) == {"Uid": own, "Gid": [MAIL] * 4, "Groups": [], **nothing}
    for worker in server.workers():
        found = status(worker)
        assert found.items() >= nothing.items()
        assert (found["Uid"], found["Gid"]) == ([NOBODY.pw_uid] * 4, [NOBODY.pw_gid] * 4)
        assert set(found["Groups"]) <= {NOBODY.pw_gid}
        assert children(worker) == []
    assert status(server.broker)["Uid"] == [0] * 4
    assert len(os.listdir(f"/proc/{server.broker}/task")) == 1


def test_descriptors(server: System) -> None:
    """What is open in each of them: conversations, and nothing of the site."""
    bob = server.account()
    assert deliver(server, bob).startswith("250 ")
    identity = server.identity(bob)
    writer = server.writer(bob)
    assert kinds(server, identity) == ["/dev/null"] * 3 + ["socket"] * 2
    assert kinds(server, writer) == ["/dev/null"] * 3 + ["socket"]
    watching = len(server.identities())
    broker = kinds(server, server.broker)
    expected = ["/dev/null"] * 2 + ["anon_inode:[eventpoll]"] + ["anon_inode:[pidfd]"] * watching
    expected += [str(server.log), str(server.root / "mdaflow.out"), "socket"]
    assert sorted(broker) == sorted(expected)
    asked = [link for link in links(server.broker) if link.startswith("socket:")]
    for pid in (identity, writer, *server.workers()):
        assert set(links(pid)).isdisjoint(asked)


def kinds(server: System, pid: int) -> list[str]:
    """Where the descriptors of a process lead, but for those of nss_wrapper."""
    wrapped = str(server.passwd), str(server.group)
    ours = [link for link in links(pid) if link not in wrapped]
    return sorted("socket" if link.startswith("socket:") else link for link in ours)


def links(pid: int) -> list[str]:
    """Where the descriptors of a process lead."""
    return [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]


LOOK = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
for pid in map(int, sys.argv[1:]):
    if libc.ptrace(16, pid, 0, 0) == 0:
        print("attached to", pid)
    for name in ("mem", "fd", "environ", "maps", "cwd", "exe"):
        try:
            path = f"/proc/{pid}/{name}"
            print("read", path, (os.listdir if name == "fd" else open)(path))
        except PermissionError:
            pass
"""


def test_nobody_looks_into_them(server: System) -> None:
    """Other processes of the user cannot trace them, nor read their memory or descriptors."""
    bob = server.account()
    assert deliver(server, bob).startswith("250 ")
    identity = server.identity(bob)
    pids = [identity, server.writer(bob), *server.workers(), server.broker]
    done = subprocess.run(
        [sys.executable, "-I", "-c", LOOK, *map(str, pids)],
        capture_output=True, text=True, user=bob.uid, group=bob.uid, extra_groups=[], cwd="/",
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    for pid in server.workers():
        with pytest.raises(PermissionError):
            as_user(bob, lambda pid=pid: os.kill(pid, 0))  # type: ignore[misc]


def as_user(account: Account, act: object) -> None:
    """Do something with the rights of an account."""
    os.seteuid(account.uid)
    try:
        act()  # type: ignore[operator]
    finally:
        os.seteuid(0)


# --- what their user does to them --------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("which", ["identity", "writer"])
def test_killed_by_its_user(server: System, which: str, number: int) -> None:
    """Who kills his idle processes has his mail by fresh ones."""
    bob = server.account()
    for expected in (1, 2):
        assert deliver(server, bob).startswith("250 ")
        assert count(server, bob) == expected
        identity = server.identity(bob)
        writer = server.writer(bob)
        victim = identity if which == "identity" else writer
        os.kill(victim, number)
        until(lambda: ended(victim), "its end")  # noqa: B023


def ended(pid: int) -> bool:
    """It has; perhaps its parent was not told yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] == "Z"
    except OSError:
        return True


@pytest.mark.parametrize("which", ["identity", "writer"])
def test_stopped_by_its_user(server: System, which: str) -> None:
    """Who stops his processes has no mail for now, and others have theirs; then it goes on."""
    bob, ann = server.account(), server.account()
    assert deliver(server, bob).startswith("250 ")
    identity = server.identity(bob)
    writer = server.writer(bob)
    os.kill(identity if which == "identity" else writer, signal.SIGSTOP)
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(deliver, server, bob)
        assert deliver(server, ann).startswith("250 ")
        assert waiting.result().startswith("451 4.3.0 ")
    until(lambda: not Path(f"/proc/{identity}").exists(), "the end of who hangs")
    until(lambda: not Path(f"/proc/{writer}").exists(), "the end of its writer")
    assert deliver(server, bob).startswith("250 ")
    assert count(server, bob) == 2


def test_rules_that_kill(server: System) -> None:
    """A message that kills the process by rules of the site is put off, and no other is: whose
    processes are a user's to kill must not get around the site by that."""
    bob = server.account()
    assert deliver(server, bob, "die").startswith("451 4.3.0 ")
    assert deliver(server, bob).startswith("250 ")
    assert count(server, bob) == 1


def test_rules_of_a_user_that_kill() -> None:
    """One that kills it by the user's rules is delivered by those of the site alone."""
    with system() as server:
        server.site_file("all", 'also deliver to "seen"\n')
        server.start()
        bob = server.account(rules=DIE)
        assert deliver(server, bob, "die").startswith("250 ")
        assert len(bob.files()) == len(bob.files(".seen")) == 1
        assert any("the user's rules rest" in message for message in server.messages())


# --- when root cannot be given up --------------------------------------------------------------


@contextmanager
def traced(server: System, *options: str) -> Iterator[Path]:
    """The broker and its children under strace; the file with what they call."""
    output = server.root / f"{time.monotonic_ns()}.trace"
    command = (need("strace"), "-f", "-y", "-o", output, *options, "-p", str(server.broker))
    strace = Child(command, output.with_suffix(".out"))
    try:
        strace.wait_for(lambda: "attached" in strace.said.read_text(), "strace is attached")
        yield output
    finally:
        strace.stop()


FAILURES = ["error=EPERM", "error=EAGAIN", "retval=0"]
"""Refused, no room for one more process, and nothing done although it seems so."""


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("call", ["setresuid", "setresgid", "setgroups"])
def test_root_that_stays(server: System, call: str, failure: str) -> None:
    """When a step of giving up root fails, nothing of the user is read or run, and the mail is put
    off."""
    canary = server.root / "canary"
    bob = server.account(rules=f'pipe to ["/usr/bin/touch", "{canary}"]\n')
    options = ("-e", f"trace={call},execve,openat", "-e", f"inject={call}:{failure}")
    with traced(server, *options) as output:
        reply = deliver(server, bob)
        assert reply.startswith("451 4.3.0 "), reply
    trace = output.read_text()
    assert "(INJECTED)" in trace
    assert "execve(" not in trace
    assert str(bob.home) not in trace
    assert not canary.exists()
    assert count(server, bob) == 0


# --- kills from outside ------------------------------------------------------------------------


def test_killed_at_random() -> None:
    """With broker, workers and identities killed in turn under load, all mail that was taken is
    there, and at the end no process is."""
    with system(deadline=20) as server:
        accounts = [server.account() for _ in range(8)]
        server.start()
        with Load(server, accounts) as load:
            for turn in range(9):
                load.go_on(10)
                with suppress(ProcessLookupError, IndexError, ValueError):
                    os.kill(victim(server, turn), signal.SIGKILL)
        load.check()
        assert load.taken


def victim(server: System, turn: int) -> int:
    """A process to kill: each kind in turn."""
    kinds = (server.brokers, server.workers, server.identities)
    return kinds[turn % 3]()[-1]


def test_killed_at_once() -> None:
    """When master, workers and broker are killed at once, the processes of users end, too."""
    with system("mbox:mail:INBOX={spool}/%u", (0o2775, MAIL)) as server:
        server.start()
        bob = server.account()
        assert deliver(server, bob).startswith("250 ")
        identity = server.identity(bob)
        left = [identity, server.writer(bob), server.broker, *server.workers()]
        server.kill()
        until(lambda: all(map(ended, left)), "the end of what was left")


def test_reload_under_load() -> None:
    """With reloads under load all mail is taken and there, and the old brokers are gone."""
    with system() as server:
        accounts = [server.account() for _ in range(8)]
        server.start()
        old = []
        with Load(server, accounts) as load:
            for _ in range(3):
                load.go_on(20)
                old += [server.broker, *server.identities()]
                server.reload()
        load.check()
        assert load.put_off == 0
        gone = set(old)
        until(lambda: not [pid for pid in gone if Path(f"/proc/{pid}").exists()], "their end")
        assert len(server.brokers()) == 1


class Load:
    """Clients that send to accounts, each message until it is taken."""

    def __init__(self, server: System, accounts: list[Account], clients: int = 4) -> None:
        self._server, self._accounts = server, accounts
        self._pool = ThreadPoolExecutor(clients)
        self._clients = clients
        self._stopped = False
        self.taken: list[tuple[Account, str]] = []
        self.put_off = 0

    def __enter__(self) -> Load:
        self._jobs = [self._pool.submit(self._send, n) for n in range(self._clients)]
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped = True
        self._pool.shutdown()
        for job in self._jobs:
            job.result()

    def go_on(self, more: int) -> None:
        """Until so many more were taken."""
        want = len(self.taken) + more
        until(lambda: len(self.taken) >= want or any(job.done() for job in self._jobs), "mail")

    def _send(self, client: int) -> None:
        number = 0
        while not self._stopped:
            account = self._accounts[(client + number) % len(self._accounts)]
            name = f"{client}.{number}"
            until(lambda: self._taken(account, name), "a message that is taken")  # noqa: B023
            self.taken.append((account, name))
            number += 1

    def _taken(self, account: Account, name: str) -> bool:
        with suppress(OSError, AssertionError), Lmtp(self._server.socket) as client:
            if client.deliver(account.address, note(account.address, subject=name)).startswith("2"):
                return True
        self.put_off += 1
        return False

    def check(self) -> None:
        """All that was taken is there, in the Maildir of whose it is, and owned by that account."""
        for account in self._accounts:
            files = account.files()
            assert {path.stat().st_uid for path in files} <= {account.uid}
            found = {subject(path) for path in files}
            assert {name for whose, name in self.taken if whose == account} <= found


def subject(path: Path) -> str:
    """Of the message in a file."""
    lines = path.read_text().splitlines()
    return next(line for line in lines if line.startswith("Subject: ")).partition(": ")[2]


# --- many accounts -----------------------------------------------------------------------------

MANY = 30
A_FEW = 4
"""One that delivers, and some that are about to end."""


def test_many_accounts() -> None:
    """For many accounts in turn there are never more processes than is allowed; none is a zombie,
    and workers and broker have as many descriptors afterwards as before."""
    with system(workers=1) as server:
        accounts = [server.account() for _ in range(MANY)]
        server.start()
        most = 0
        before = None
        for _ in range(2):
            with Lmtp(server.socket) as client:
                for account in accounts:
                    reply = client.deliver(account.address, note(account.address))
                    assert reply.startswith("250 "), reply
                    found = server.identities()
                    most = max(most, len(found))
            until(lambda: not server.identities(), "the end of all that is idle")
            used = descriptors(server)
            before = before or used
        assert used == before
        assert WARM <= most <= WARM + A_FEW
        assert all(len(account.files()) == 2 for account in accounts)


def descriptors(server: System) -> list[int]:
    """How many the workers and the broker have."""
    pids = [*server.workers(), server.broker]
    return [len(os.listdir(f"/proc/{pid}/fd")) for pid in pids]
