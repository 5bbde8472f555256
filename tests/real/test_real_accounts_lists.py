"""Lists with an account in them whose processes are stopped, and lists that all go to one."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

from accounts import Account, System, need_accounts, status, system
from children import until
from fake_mta import FakeMTA
from letters import note
from mdaflow_server import Lmtp

from mdaflow.app.identities import AT_ONCE

LISTS = 8


@contextmanager
def lists(hop: str, deadline: float) -> Iterator[System]:
    """A server with lists of alice, bob and an address elsewhere."""
    more = f"next_hop: {hop}\naliases: [{{root}}/etc/aliases]\n"
    with system(workers=1, deadline=deadline) as server:
        text = server.config.read_text()
        server.config.write_text(text + more.format(root=server.root))
        members = "alice, bob, out@elsewhere.example"
        names = ("team", *(f"list{number}" for number in range(LISTS)))
        (server.root / "etc/aliases").write_text("".join(f"{n}: {members}\n" for n in names))
        yield server


@contextmanager
def stopped(server: System, account: Account) -> Iterator[None]:
    """All processes that are the account are stopped as soon as they are."""
    end = threading.Event()

    def stop() -> None:
        while not end.wait(0.002):
            signal_all(server, account, signal.SIGSTOP)

    thread = threading.Thread(target=stop)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()


def signal_all(server: System, account: Account, number: int) -> None:
    for pid in server.identities():
        if account.uid in status(pid).get("Uid", ()):
            with suppress(OSError):
                os.kill(pid, number)


def send(server: System, name: str, raw: bytes = b"") -> str:
    with Lmtp(server.socket) as client:
        return client.deliver(f"{name}@example.org", raw or note(name))


def test_stopped_by_a_member() -> None:
    """The others on the list have the mail at once; when the member's processes run again, he has
    it, too, and nobody has it twice."""
    need_accounts()
    with FakeMTA() as mta, lists(mta.hop, deadline=20) as server:
        server.start()
        alice, bob = server.account("alice"), server.account("bob")
        mail = note("team")
        with stopped(server, alice):
            for _ in range(2):
                reply = send(server, "team", mail)
                assert reply.startswith("451 4.2.0 "), reply
                assert (len(alice.files()), len(bob.files())) == (0, 1)
                assert [session.taken for session in mta.sessions] == [True]
        assert send(server, "team", mail).startswith("250 ")
        assert (len(alice.files()), len(bob.files())) == (1, 1)
        assert [session.taken for session in mta.sessions] == [True]


def test_stopped_in_many_lists() -> None:
    """Mail by many lists to who hangs has few threads, and the other members have theirs."""
    need_accounts()
    with FakeMTA() as mta, lists(mta.hop, deadline=120) as server, ThreadPoolExecutor(16) as pool:
        server.start()
        alice, bob, carl = (server.account(name) for name in ("alice", "bob", "carl"))
        with stopped(server, alice):
            sent = [pool.submit(send, server, f"list{number % LISTS}") for number in range(16)]
            until(lambda: sum(one.done() for one in sent) >= 16 - AT_ONCE, "those without a turn")
            assert send(server, "carl").startswith("250 ")
            assert [one.result()[:9] for one in sent if one.done()] == ["451 4.2.0"] * 12
            assert (len(alice.files()), len(bob.files()), len(carl.files())) == (0, 12, 1)
        signal_all(server, alice, signal.SIGCONT)
        assert sum(one.result().startswith("250 ") for one in sent) == AT_ONCE
        assert (len(alice.files()), len(bob.files())) == (AT_ONCE, 16)


def test_burst_by_many_lists() -> None:
    """A hundred mails at once for one account by lists: none is put off, none is lost."""
    need_accounts()
    with FakeMTA() as mta, lists(mta.hop, deadline=40) as server:
        server.start()
        alice, _ = server.account("alice"), server.account("bob")
        with ThreadPoolExecutor(20) as pool:
            sent = [pool.submit(send, server, f"list{number % LISTS}") for number in range(100)]
            assert {future.result()[:3] for future in sent} == {"250"}
        assert len(alice.files()) == 100
