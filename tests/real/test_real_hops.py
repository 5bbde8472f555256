"""Real next hops: Postfix by SMTP, Dovecot and mdaflow by LMTP, and senders that are rewritten."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from children import free_port
from dovecot import Dovecot
from letters import letter, note
from mailsystem import MailSystem
from mdaflow_server import MAILDIRS, Mdaflow, give_away, new_root
from need import need
from postfix import NOT_IN_TABLE, REWRITTEN

from mdaflow.deliver import send
from mdaflow.deliver.job import Means
from mdaflow.errors import PermFail, TempFail

LMTP = """\
protocols = imap pop3 lmtp
protocol lmtp {{
  postmaster_address = postmaster@example.org
}}
service lmtp {{
  inet_listener lmtp {{
    address = 127.0.0.1
    port = {port}
  }}
}}
"""
SENDER = "eve@outside.example"


def transaction(hop: str, raw: bytes, *targets: str, partly: bool = True) -> send.Transaction:
    chunks = [raw.replace(b"\r\n", b"\n")]
    return send.prepare(Means("mx.example.org", hop), SENDER, targets, chunks, partly=partly)


@pytest.fixture(scope="module")
def dovecot() -> Iterator[tuple[Dovecot, list[str]]]:
    """A Dovecot that takes mail by LMTP, and its hops."""
    if os.geteuid() != 0:
        pytest.skip("needs root: Dovecot does")
    for program in ("dovecot", "lmtp"):
        need(program)
    root, port = new_root(), free_port()
    (root / MAILDIRS / MAILDIRS).mkdir(parents=True)
    server = Dovecot(root, LMTP.format(port=port))
    try:
        server.start()
        yield server, [f"lmtp://127.0.0.1:{port}", f"lmtp:unix:{root}/dovecot/lmtp"]
    finally:
        server.stop()
        shutil.rmtree(root)


def user(server: Dovecot, name: str) -> str:
    """The address of a new user."""
    home = server.root / MAILDIRS / MAILDIRS / name
    home.mkdir()
    give_away(home)
    return f"{name}@{MAILDIRS}"


@pytest.mark.parametrize("number", [0, 1])
def test_dovecot(dovecot: tuple[Dovecot, list[str]], number: int) -> None:
    """Each recipient has a result of his own behind the dot, and who has the mail has it once."""
    server, hops = dovecot
    ann, bob, carl = (user(server, f"{name}{number}") for name in ("ann", "bob", "carl"))
    broken = server.root / MAILDIRS / MAILDIRS / f"bob{number}"
    broken.rmdir()
    broken.touch()  # a mailbox that cannot be opened
    raw = letter(ann)
    ready = transaction(hops[number], raw, ann, bob, carl)
    ready.commit()
    assert ready.targets == (ann, carl)
    assert isinstance(ready.refused[bob], TempFail)
    for whose in (ann, carl):
        [mail] = server.fetch(whose)
        assert mail.raw.endswith(raw.partition(b"\r\n\r\n")[2])


def test_dovecot_all_or_none(dovecot: tuple[Dovecot, list[str]]) -> None:
    """When one cannot have the mail behind the dot, it is told who has it."""
    server, [hop, _] = dovecot
    ann = user(server, "ann")
    (server.root / MAILDIRS / MAILDIRS / "broken").touch()
    with pytest.raises(TempFail) as failure:
        transaction(hop, note(ann), ann, f"broken@{MAILDIRS}", partly=False).commit()
    assert failure.value.done == (ann,)
    assert len(server.fetch(ann)) == 1


def test_mdaflow(mdaflow: Mdaflow) -> None:
    """One mdaflow hands on to another: who is refused at RCPT fails nobody else."""
    ann, bob = mdaflow.user(), mdaflow.user('reject "Not me"')
    hop, nobody = f"lmtp:unix:{mdaflow.socket}", f"nobody@{MAILDIRS}"
    ready = transaction(hop, note(ann.address), ann.address, bob.address, nobody)
    ready.commit()
    assert ready.targets == (ann.address,)
    assert {target: error.status.enhanced for target, error in ready.refused.items()} == {
        bob.address: "5.7.1",
        nobody: "5.1.1",
    }
    assert len(ann.files()) == 1
    assert bob.files() == []


def test_postfix(site: MailSystem) -> None:
    """Postfix refuses one at RCPT, and takes the mail for the others."""
    ann, bob = site.mdaflow.user(), site.mdaflow.user()
    hop = f"127.0.0.1:{site.postfix.port}"
    ready = transaction(hop, note(ann.address), ann.address, NOT_IN_TABLE, bob.address)
    ready.commit()
    assert ready.targets == (ann.address, bob.address)
    [error] = ready.refused.values()
    assert (type(error), error.status.enhanced) == (PermFail, "5.1.1")
    for whose in (ann, bob):
        site.mdaflow.wait(whose.address)
        assert len(whose.files()) == 1


def test_more_than_postfix_takes(site: MailSystem) -> None:
    """Those behind the limit of Postfix (1,000) may try again, and only those."""
    many = [f"user{n}@{MAILDIRS}" for n in range(1005)]
    ready = transaction(f"127.0.0.1:{site.postfix.port}", note(many[0]), *many)
    ready.abort()
    assert ready.targets == tuple(many[:1000])
    assert {str(error.status)[:9] for error in ready.refused.values()} == {"452 4.5.3"}


@pytest.fixture
def rewriting(site: MailSystem, tmp_path: Path) -> Iterator[MailSystem]:
    """A mail system that rewrites the senders of what it forwards."""
    keys, config = site.mdaflow.root / "etc/keys", site.mdaflow.config
    keys.write_text("a secret of these tests\n")
    give_away(keys)
    keys.chmod(0o600)
    before = config.read_text()
    config.write_text(
        f"{before}next_hop: 127.0.0.1:{site.postfix.port}\n"
        f"forward: {{resent: true, srs: {{domain: {REWRITTEN}, secrets: {keys}}}}}\n"
    )
    site.mdaflow.reload()
    yield site
    config.write_text(before)
    site.mdaflow.reload()


def test_srs(rewriting: MailSystem) -> None:
    """A forward has a sender of ours, and a bounce to it goes back to the sender."""
    site = rewriting
    friend = site.mdaflow.user()
    bob = site.mdaflow.user(f'forward to "{friend.address}"')
    site.postfix.swaks(note(bob.address), SENDER, bob.address)
    site.mdaflow.wait(friend.address)
    head = friend.files()[0].read_text()
    sender = head.partition("Return-Path: <")[2].partition(">")[0]
    assert sender.startswith("SRS0=")
    assert sender.endswith(f"=outside.example=eve@{REWRITTEN}")
    assert f"\nResent-From: {bob.address}\nResent-To: {friend.address}\nResent-Date: " in head
    site.postfix.swaks(note(sender), "<>", sender)
    assert site.postfix.logged("reject: RCPT", f"from=<> to=<{SENDER}>", "no mail leaves")
    forged = site.postfix.swaks(note(sender), "<>", sender.replace("=eve@", "=mallory@"))
    assert "250 2.0.0" in forged  # by Postfix, which asks us later
    assert site.postfix.logged("=mallory@", "status=bounced", "550 5.")
    site.settle()


def test_loop_with_rewritten_senders(rewriting: MailSystem) -> None:
    """A loop of two who forward to each other is found on the first return."""
    site = rewriting
    bob, carl = site.mdaflow.user(), site.mdaflow.user()
    bob.write_rules(f'also forward to "{carl.address}"')
    carl.write_rules(f'also forward to "{bob.address}"')
    site.postfix.swaks(note(bob.address), "mallory@outside.example", bob.address)
    site.mdaflow.wait(bob.address, "rejected")
    site.settle()
    assert site.mdaflow.outcomes(bob.address) == ["delivered", "rejected"]
    assert len(bob.files()) == len(carl.files()) == 1
    assert site.postfix.logged("reject: RCPT", "from=<> to=<mallory@outside.example>")
