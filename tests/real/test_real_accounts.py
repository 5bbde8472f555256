"""Mail for accounts of this machine."""

from __future__ import annotations

import stat
from collections.abc import Iterator

import pytest
from accounts import System, system
from letters import note
from mdaflow_server import Lmtp


@pytest.fixture(scope="module")
def server() -> Iterator[System]:
    """A server whose accounts have Maildirs."""
    with system() as found:
        found.start()
        yield found


def test_maildir(server: System) -> None:
    """Mail of an account is written as that account, by its rules, and the log says by which."""
    bob = server.account(rules='rule "A" when subject is "hello" { deliver to "a/b" }\n')
    with Lmtp(server.socket) as client:
        reply = client.deliver(bob.address, note(bob.address))
    assert reply.startswith("250 2.0.0 "), reply
    [file] = bob.files(".a.b")
    about = file.stat()
    assert (about.st_uid, about.st_gid) == (bob.uid, bob.uid)
    assert stat.S_IMODE(about.st_mode) == 0o600
    entry = server.wait(bob.address)
    assert (entry["rule"], entry["where"]) == ("A", "rules:1")
