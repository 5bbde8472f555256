"""A server for accounts that has no more rights than the systemd unit gives it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from accounts import MAIL, Account, System, system
from children import until
from letters import note
from mdaflow_server import Lmtp
from need import need

DROP_IN = Path(__file__).parents[2] / "contrib/systemd/mdaflow.service.d/accounts.conf"
RULES = 'rule "A" when subject is "hello" { also deliver to "a" keep }\n'


def capabilities() -> list[str]:
    """Those of the unit."""
    lines = DROP_IN.read_text().splitlines()
    [found] = [line for line in lines if line.startswith("CapabilityBoundingSet=")]
    return found.partition("=")[2].lower().replace("cap_", "").split()


@pytest.fixture(scope="module", params=["", "--no-new-privs"])
def server(request: pytest.FixtureRequest) -> Iterator[System]:
    """A server with these, also where nobody can gain more by running a program."""
    few = "".join(f",+{name}" for name in capabilities())
    more = [request.param] if request.param else []
    spool = "mbox:mail:INBOX={spool}/%u"
    with system(spool, spool=(0o2775, MAIL), deadline=1) as found:
        found.log.chmod(0o666)  # root may not write to what is nobody's
        command = need("setpriv"), f"--bounding-set=-all{few}", "--inh-caps=-all", *more
        found.program = (*command, *found.program)
        found.start()
        yield found


def deliver(server: System, account: Account) -> str:
    with Lmtp(server.socket) as client:
        return client.deliver(account.address, note(account.address))


def test_delivery(server: System) -> None:
    """It makes processes of accounts, writes to the spool, and has its workers replaced."""
    bob = server.account(rules=RULES)
    for _ in range(2):
        assert deliver(server, bob).startswith("250 2.0.0 ")
        server.reload()
    for file in (server.spool / bob.name, bob.home / "mail/a"):
        assert file.read_bytes().count(b"\nSubject: hello") == 2
        assert file.stat().st_uid == bob.uid


def test_end_of_one_that_hangs(server: System) -> None:
    """It ends the process of an account that hangs."""
    bob = server.account()
    raw = note(bob.address)
    with Lmtp(server.socket) as client:  # of one worker, which keeps the process
        assert client.deliver(bob.address, raw).startswith("250 2.0.0 ")
        pid = server.identity(bob)
        os.kill(pid, signal.SIGSTOP)
        assert client.deliver(bob.address, raw).startswith("451 ")
    until(lambda: not Path(f"/proc/{pid}").exists(), "the end of who hangs")
