"""What the tables of a site make of a recipient."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from fake_mta import FakeMTA

from mdaflow.app.build import Site, open_site
from mdaflow.app.config import Config, Folders, Rules
from mdaflow.app.pipeline import Courier
from mdaflow.app.routing import route
from mdaflow.mail.envelope import Client, Envelope
from mdaflow.mail.message import Message
from mdaflow.store.memory import MemoryStore

Make = Callable[..., Site]

ACCESS = """
Connect:192.0.2.7              REJECT
Connect:192.0.2.9              RELAY
From:spammer@example.net       ERROR:5.7.1:550 Not from you
From:quiet@example.net         DISCARD
From:friend@example.net        OK
To:closed@example.org          ERROR:4.2.1:451 Closed for now
To:partner.example             RELAY
To:example.org                 RELAY
"""


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Makes a site with a user, an access table and a file of aliases."""
    tmp_path.chmod(0o755)
    (tmp_path / "mail/example.org/bob").mkdir(parents=True)
    (tmp_path / "before").mkdir()
    (tmp_path / "before/1.rules").write_text('rule when spam { deliver to "Junk" }')
    for name, text in (("access", ACCESS), ("aliases", "sales: bob\n")):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o644)

    def site(hop: str = "127.0.0.1:1") -> Site:
        config = Config(
            "mx",
            users=(Folders(f"{tmp_path}/mail"),),
            rules=Rules(before=f"{tmp_path}/before", after=f"{tmp_path}/after"),
            access=(f"{tmp_path}/access",),
            aliases=(f"aliases:{tmp_path}/aliases",),
            next_hop=hop,
            state=f"{tmp_path}/state",
        )
        return open_site(config, MemoryStore())

    return site


@pytest.mark.parametrize(
    ("recipient", "sender", "ip", "said"),
    [
        ("bob@example.org", "x@example.net", "", "250 2.1.5"),
        ("bob@example.org", "x@example.net", "192.0.2.7", "550 5.7.1"),
        ("bob@example.org", "spammer@example.net", "", "550 5.7.1 Not from you"),
        ("bob@example.org", "quiet@example.net", "", "250 2.1.5"),
        ("closed@example.org", "x@example.net", "", "451 4.2.1 Closed for now"),
        ("closed@example.org", "friend@example.net", "", "451 4.2.1 Closed for now"),
        ("nobody@example.org", "friend@example.net", "", "550 5.1.1"),
        ("whoever@partner.example", "x@example.net", "", "250 2.1.5"),
        ("whoever@elsewhere.example", "x@example.net", "192.0.2.9", "550 5.1.1"),
    ],
)
def test_at_rcpt(make: Make, recipient: str, sender: str, ip: str, said: str) -> None:
    """The access table decides before aliases and users; what it does not stop they judge."""
    assert str(Courier(make()).check(recipient, sender, Client(ip))).startswith(said)


def deliver(site: Site, recipient: str, sender: str) -> str:
    mail = Message(b"From: x@example.net\nSubject: x\n\nhello\n")
    return str(Courier(site).deliver(mail, Envelope(sender, recipient), lambda: True))


def test_discard(make: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What is discarded is accepted, nobody gets it, and the log says so."""
    caplog.set_level("INFO", "mdaflow")
    assert deliver(make(), "sales@example.org", "quiet@example.net").startswith("250 ")
    assert not (tmp_path / "mail/example.org/bob/Maildir").exists()
    [fields] = [r.__dict__["fields"] for r in caplog.records if "fields" in r.__dict__]
    assert (fields["to"], fields["status"]) == ("sales@example.org", "discarded")


def test_relay(make: Make) -> None:
    """A recipient of another domain goes on as it came, and gets the next hop's answer."""
    with FakeMTA() as mta:
        site = make(mta.hop)
        assert deliver(site, "whoever@partner.example", "x@example.net").startswith("250 ")
        [session] = mta.sessions
    assert b"MAIL FROM:<x@example.net> " in b"\n".join(session.commands)
    assert b"RCPT TO:<whoever@partner.example>" in b"\n".join(session.commands)
    with FakeMTA({"rcpt": b"550 5.1.1 No such user\r\n"}) as mta:
        site = make(mta.hop)
        assert deliver(site, "nobody@partner.example", "x@example.net").startswith("550 5.1.1")


def test_ok_is_no_spam(make: Make) -> None:
    """What the table says OK to is known to the rules as no spam; a stranger's mail is not."""
    site = make()
    assert route(site, "bob@example.org", "friend@example.net").allowed
    assert not route(site, "bob@example.org", "x@example.net", Client("192.0.2.1")).allowed


def test_steps(make: Make) -> None:
    """All that was asked of the access table can be seen, with its places."""
    from mdaflow.route.destination import Step

    steps: list[Step] = []
    route(make(), "bob@example.org", "spammer@example.net", steps=steps)
    access, end = steps
    assert access.answer == "REJECT"
    assert access.where.endswith("/access:4")
    assert [s.answer for s in access.below][-1].startswith("ERROR") or access.below
    assert end.asked.startswith("=> 550 5.7.1 Not from you")
