"""Mail for accounts of this machine from a real Postfix: by LMTP, and by commands that its
local(8) runs as the account. Both see the same accounts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from shlex import join

import pytest
from accounts import Account, System, system
from children import until
from letters import note
from postfix import Postfix

RULES = 'rule "A" when envelope.original contains "+x" { deliver to "a" }\n'
IMPORTED = "MAIL_CONFIG MAIL_LOGTAG LANG=C"


def command(mdaflow: System) -> str:
    """`mdaflow deliver`, as it stands in main.cf."""
    program = join(map(str, (*mdaflow.program, "deliver", "--config", mdaflow.config)))
    return f'{program} -f "$SENDER" -a "$ORIGINAL_RECIPIENT"'


@contextmanager
def postfix(mdaflow: System, **ways: str) -> Iterator[Postfix]:
    """A Postfix that knows the accounts, and hands their mail over in a way."""
    root = mdaflow.root / "postfix"
    root.mkdir()
    found = Postfix(
        root,
        "mailbox_transport",
        mydestination="example.org",
        local_recipient_maps="proxy:unix:passwd.byname $alias_maps",
        import_environment=" ".join((IMPORTED, *mdaflow.environment)),
        **{"mailbox_transport": ""} | ways,
    )
    try:
        found.start()
        yield found
    finally:
        found.stop()


def send(server: Postfix, address: str) -> None:
    """Send a message by SMTP."""
    said = server.swaks(note(address), "a@example.com", address)
    assert "queued as" in said, said
    until(lambda: not server.queue(), "an empty queue", server.log.read_text)


def owned(account: Account, folder: str) -> int:
    """How many messages of the account's are in a folder."""
    files = account.files(folder)
    assert {(file.stat().st_uid, file.stat().st_gid) for file in files} <= {(account.uid,) * 2}
    return len(files)


@pytest.mark.parametrize("way", ["mailbox_transport", "mailbox_command", ".forward"])
def test_mail(way: str) -> None:
    """It is sorted by the rules of the account, which see the address before aliases and detail,
    and is the account's; unknown names Postfix refuses itself."""
    with ExitStack() as stack:
        mdaflow = stack.enter_context(system())
        mdaflow.log.chmod(0o666)
        ways = {
            "mailbox_transport": {"mailbox_transport": f"lmtp:unix:{mdaflow.socket}"},
            "mailbox_command": {"mailbox_command": command(mdaflow)},
        }
        bob = mdaflow.account("bob", rules=RULES)
        if way == "mailbox_transport":
            mdaflow.start()
        if way == ".forward":
            said = f"#!/bin/sh\nexec {command(mdaflow)}\n"
            bob.write(way, f"|{bob.write('deliver', said, mode=0o700)}\n")
        server = stack.enter_context(postfix(mdaflow, **ways.get(way, {})))
        for address in (bob.address, "bob+x@example.org"):
            send(server, address)
        assert (owned(bob, ""), owned(bob, ".a")) == (1, 1)
        refused = server.swaks(note("eve@example.org"), "a@example.com", "eve@example.org")
        assert "\n<** 550 5.1.1 " in refused
