"""What rules of accounts have done by the server, as it takes the rights of the site: mail that is
sent on, replies, the quarantine, the store; and what only the account may write."""

from __future__ import annotations

import json
import os
import signal
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from accounts import Account, System, system
from fake_mta import FakeMTA
from letters import note
from mdaflow_server import NOBODY, Lmtp

SITE = """\
if subject is "by path" {{ also deliver to "mbox:{root}/archive/all" }}
if subject is "seen by the site" and remembered "everybody" {{ also deliver to "again" }}
if subject is "seen by the site" {{ remember "everybody" for 1 hour }}
"""
TIGHT = 20_000
"""Bytes of a quota."""


@pytest.fixture(scope="module")
def mta() -> Iterator[FakeMTA]:
    """Where mail is sent on to."""
    with FakeMTA() as found:
        yield found


@pytest.fixture(scope="module")
def server(mta: FakeMTA) -> Iterator[System]:
    """A server with a next hop, a quarantine and an archive of its own."""
    with system(more=f"next_hop: {mta.hop}\nquarantine: QUARANTINE\n") as found:
        text = found.config.read_text()
        found.config.write_text(text.replace("QUARANTINE", f"{found.root}/quarantine"))
        for name in ("quarantine", "archive"):
            folder = found.root / name
            folder.mkdir(mode=0o700)
            os.chown(folder, NOBODY.pw_uid, NOBODY.pw_gid)
        found.site_file("site", SITE.format(root=found.root))
        found.start()
        yield found


def deliver(
    server: System, recipient: str, subject: str = "hello", raw: bytes = b"", to: str = ""
) -> str:
    """The reply to a message."""
    with Lmtp(server.socket) as client:
        return client.deliver(recipient, raw or note(to or recipient, subject=subject))


def sent(mta: FakeMTA, account: Account) -> list[bytes]:
    """What has come to an address with the account's name, and from it."""
    name = account.name.encode()
    return [one.data for one in mta.taken if any(name in command for command in one.commands)]


def quarantined(server: System, name: str) -> list[Path]:
    """The messages in the quarantine of an address, all the server's own."""
    found = sorted((server.root / "quarantine" / name / "new").iterdir())
    assert {path.stat().st_uid for path in found} <= {NOBODY.pw_uid}
    return found


def test_forward(server: System, mta: FakeMTA) -> None:
    """A forward has the proof that the message was here, and is acknowledged as one."""
    bob = server.account()
    bob.write_rules(f'forward to "{bob.name}@next.example"\n')
    reply = deliver(server, bob.address)
    assert reply.startswith("250 2.0.0 "), reply
    [data] = sent(mta, bob)
    assert b"X-mdaflow-Loop: " in data
    assert not (bob.home / "Maildir").exists()
    entry = server.wait(bob.address, "forwarded")
    assert f"smtp {bob.name}@next.example" in entry["reason"]
    assert deliver(server, bob.address, raw=data[:-3]).startswith("554 5.4.6 ")


@pytest.mark.parametrize(
    ("answer", "also", "expected"),
    [
        ("450 4.2.1 Busy", False, "450 4.2.1 "),
        ("550 5.1.1 Nobody", False, "550 5.1.1 "),
        ("450 4.2.1 Busy", True, "450 4.2.1 "),
        ("550 5.1.1 Nobody", True, "250 2.0.0 "),
    ],
)
def test_refused_forward(answer: str, also: bool, expected: str) -> None:
    """What the next hop refuses is refused if it is all there is to do; else mail is kept."""
    script = {"rcpt": f"{answer}\r\n".encode()}
    with FakeMTA(script) as mta, system(more=f"next_hop: {mta.hop}\n") as server:
        server.start()
        more = 'deliver to "copy"\n' if also else ""
        bob = server.account(rules=f'also forward to "x@next.example"\n{more}' if also
                             else 'forward to "x@next.example"\n')  # fmt: skip
        reply = deliver(server, bob.address)
        assert reply.startswith(expected), reply
        assert len(bob.files(".copy")) == int(also and expected.startswith("250"))
        assert mta.taken == []


def test_reply_once(server: System, mta: FakeMTA) -> None:
    """A sender has one reply, however the address of the account is written."""
    bob = server.account()
    bob.write_rules(f'reply "{bob.name} is away" subject "Away: {{subject}}"\n')
    for recipient in (bob.address, f"{bob.name.upper()}+x@example.org", bob.address):
        assert deliver(server, recipient, to=bob.address).startswith("250 ")
    replies = [one.data for one in mta.taken if f"{bob.name} is away".encode() in one.data]
    assert len(replies) == 1
    assert b"Subject: Away: hello\r\n" in replies[0]
    assert len(bob.files()) == 3


def test_quarantine(server: System) -> None:
    """The quarantine is the server's: a folder for each account, and the reason with its rule."""
    bob = server.account(rules='rule "Odd" when true { quarantine "why not" }\n')
    for recipient in (bob.address, f"{bob.name.upper()}+x@EXAMPLE.org"):
        assert deliver(server, recipient).startswith("250 2.0.0 ")
    assert len(quarantined(server, bob.address)) == 2
    notes = (server.root / "quarantine" / bob.address / "envelopes").iterdir()
    for text in map(Path.read_text, notes):
        about = json.loads(text)
        assert (about["why"], about["rule"]) == ("why not", "Odd")
        assert about["where"] == f"{bob.home}/.mdaflow/rules:1:24"
    assert not (bob.home / "Maildir").exists()


def test_remembered(server: System) -> None:
    """What rules of an account remember is known to them, whatever letters the address had, and
    to nobody else's."""
    rules = 'if remembered "Key" { deliver to "known" }\nremember "key" for 1 hour\n'
    bob, ann = server.account(rules=rules), server.account(rules=rules)
    recipients = (f"{bob.name.capitalize()}+x@Example.ORG", bob.address, ann.address)
    for recipient in recipients:
        assert deliver(server, recipient).startswith("250 ")
    assert (len(bob.files()), len(bob.files(".known"))) == (1, 1)
    assert (len(ann.files()), len(ann.files(".known"))) == (1, 0)


def test_remembered_by_the_site(server: System) -> None:
    """What rules of the site remember is known of all accounts."""
    bob, ann = server.account(), server.account()
    for account in (bob, ann):
        assert deliver(server, account.address, "seen by the site").startswith("250 ")
    assert (len(bob.files(".again")), len(ann.files(".again"))) == (0, 1)


def test_duplicate(server: System) -> None:
    """A message that comes again is known, for its account alone."""
    rules = 'if duplicate { deliver to "again" }\n'
    bob, ann = server.account(rules=rules), server.account(rules=rules)
    raw = note(bob.address)
    for account in (bob, bob, ann):
        assert deliver(server, account.address, raw=raw).startswith("250 ")
    assert (len(bob.files()), len(bob.files(".again"))) == (1, 1)
    assert (len(ann.files()), len(ann.files(".again"))) == (1, 0)


def test_mailbox_of_the_site(server: System) -> None:
    """A mailbox that the site's rules name by its path is the server's, and the copy of the
    account its own."""
    bob = server.account()
    for count in (1, 2):
        assert deliver(server, bob.address, "by path").startswith("250 ")
        archive = server.root / "archive" / "all"
        assert archive.stat().st_uid == NOBODY.pw_uid
        assert archive.read_bytes().count(b"\nSubject: by path\n") == count
    assert {path.stat().st_uid for path in bob.files()} == {bob.uid}


def test_path_in_the_rules_of_a_user(server: System) -> None:
    """The rules of an account name no mailbox by its path."""
    bob = server.account(rules=f'deliver to "mbox:{server.root}/archive/bob"\n')
    assert deliver(server, bob.address).startswith("250 ")
    assert not (server.root / "archive" / "bob").exists()


CHANGED = """\
set header "Subject: changed"
also quarantine "edited"
also forward to "{name}@next.example"
filter through ["/usr/bin/sed", "s/How are/Where are/"]
also quarantine "filtered"
also forward to "{name}-filtered@next.example"
"""


def test_changed(server: System, mta: FakeMTA) -> None:
    """What rules have changed before an action is changed in what is sent on and quarantined."""
    bob = server.account()
    bob.write_rules(CHANGED.format(name=bob.name))
    assert deliver(server, bob.address).startswith("250 ")
    edited, filtered = sorted(sent(mta, bob), key=lambda data: b"Where are" in data)
    assert b"\r\nSubject: changed\r\n" in edited
    assert b"\r\nHow are you?\r\n" in edited
    assert b"\r\nSubject: changed\r\n" in filtered
    assert b"\r\nWhere are you?\r\n" in filtered
    texts = [path.read_bytes() for path in quarantined(server, bob.address)]
    assert sorted(b"Where are you?" in text for text in texts) == [False, True]
    assert all(b"\nSubject: changed\n" in text for text in texts)
    [file] = bob.files()
    assert b"\nWhere are you?\n" in file.read_bytes()


LARGE = """\
also deliver to "copy"
also forward to "{name}@next.example"
also quarantine "large"
if subject is "filtered" {{ filter through ["/bin/cat"] }}
"""


@pytest.mark.parametrize(("subject", "size"), [("hello", 30 << 20), ("filtered", 8 << 20)])
def test_large(server: System, mta: FakeMTA, subject: str, size: int) -> None:
    """A large message is stored, sent on and quarantined with all its bytes."""
    bob = server.account()
    bob.write_rules(LARGE.format(name=bob.name))
    body = b"".join(b"%070d\r\n" % number for number in range(size // 72))
    raw = note(bob.address, subject=subject) + body
    assert deliver(server, bob.address, raw=raw).startswith("250 ")
    stored = body.replace(b"\r\n", b"\n")
    files = [*bob.files(), *bob.files(".copy"), *quarantined(server, bob.address)]
    assert len(files) == 3
    assert all(file.read_bytes().endswith(stored) for file in files)
    [data] = sent(mta, bob)
    assert data.endswith(body + b".\r\n")


BROKEN = "this is no rule\n"


def test_broken_rules(server: System) -> None:
    """With rules that do not compile the last good version stays in force, and the account is
    told: by a mail and a line in a file of its own."""
    bob = server.account(rules='deliver to "good"\n')
    assert deliver(server, bob.address).startswith("250 ")
    bob.write_rules(BROKEN)
    for _ in range(2):
        assert deliver(server, bob.address).startswith("250 ")
    assert len(bob.files(".good")) == 3
    [notice] = bob.files()
    assert b"last good version" in notice.read_bytes()
    told = bob.home / ".mdaflow/log"
    for path in (notice, told):
        about = path.stat()
        assert (about.st_uid, stat.S_IMODE(about.st_mode)) == (bob.uid, 0o600)
    assert "rules:1" in told.read_text()
    ann = server.account(rules=BROKEN)
    assert deliver(server, ann.address).startswith("250 ")
    assert len(ann.files()) == 2


def test_log_that_leads_away(server: System) -> None:
    """What the account is told goes to no file that a link in its place leads to."""
    bob = server.account(rules=BROKEN)
    target = server.root / "another file"
    target.write_text("")
    target.chmod(0o666)
    (bob.home / ".mdaflow/log").symlink_to(target)
    assert deliver(server, bob.address).startswith("250 ")
    assert target.read_text() == ""


def test_quota() -> None:
    """Who reaches the quota is warned once, by a mail of his own; who is over it is told so at
    RCPT."""
    with system(quota=str(TIGHT), workers=1) as server:
        server.start()
        bob = server.account()
        body = b"x" * 70 + b"\r\n"
        assert deliver(server, bob.address, raw=note(bob.address) + body * 100).startswith("250 ")
        assert len(bob.files()) == 1
        assert deliver(server, bob.address, raw=note(bob.address) + body * 150).startswith("250 ")
        found = bob.files()
        assert len(found) == 3
        assert {path.stat().st_uid for path in found} == {bob.uid}
        assert (bob.home / "Maildir/maildirsize").stat().st_uid == bob.uid
        reply = deliver(server, bob.address, raw=note(bob.address) + body * 200)
        assert reply.startswith("452 4.2.2 "), reply
        os.kill(server.identity(bob), signal.SIGSTOP)
        with Lmtp(server.socket) as client:  # who does not say what room there is, has some
            client.say("MAIL FROM:<a@example.com>")
            assert client.say(f"RCPT TO:<{bob.name}+z@example.org>").startswith("250 ")
        with (bob.home / "Maildir/maildirsize").open("a") as file:
            file.write(f"{TIGHT} 1\n")
        (bob.home / "Maildir/new/1.x,S=20000").write_text("x" * TIGHT)
        with Lmtp(server.socket) as client:
            client.say("MAIL FROM:<a@example.com>")
            reply = client.say(f"RCPT TO:<{bob.name}+y@example.org>")
        assert reply.startswith("452 4.2.2 "), reply
