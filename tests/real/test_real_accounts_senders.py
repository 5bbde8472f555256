"""Known senders of accounts: whose mail it is reads it, and keeps what is known of it."""

from __future__ import annotations

import os

from accounts import system
from letters import note
from mdaflow_server import Lmtp

RULES = 'rule when known_sender { deliver to "friends" }\n'


def test_known_sender_of_an_account() -> None:
    """Who was written to is known with the next message, and all files stay the account's."""
    with system(workers=1) as server:
        server.start()
        ann, bob = server.account(rules=RULES), server.account(rules=RULES)
        for account, to in ((ann, "frieda@example.com"), (bob, "nobody@example.com")):
            account.write("Maildir/.Sent/cur/1700000000.M1P1.h:2,S", f"To: {to}\n\nhello\n")
        os.mkfifo(bob.home / "Maildir/.Sent/cur/fifo")
        with Lmtp(server.socket) as client:
            for account in (ann, bob):
                reply = client.deliver(account.address, note(account.address))
                assert reply.startswith("250 "), reply
        assert len(ann.files(".friends")) == len(bob.files()) == 1
        for account in (ann, bob):
            about = (account.home / ".mdaflow/known-senders").stat()
            assert (about.st_uid, about.st_gid, about.st_mode & 0o777) == (
                account.uid,
                account.uid,
                0o600,
            )
