"""What rules send: through a real Postfix, and back into the mailboxes behind it."""

from __future__ import annotations

from collections.abc import Iterator
from email import message_from_bytes, policy
from email.message import EmailMessage

import pytest
from letters import note
from mailsystem import MailSystem
from mdaflow_server import MAILDIRS, MBOXES, User


@pytest.fixture(autouse=True)
def _next_hop(site: MailSystem) -> Iterator[None]:
    """What mdaflow sends goes to the Postfix that its mail comes from."""
    config = site.mdaflow.config
    before = config.read_text()
    config.write_text(f"{before}next_hop: 127.0.0.1:{site.postfix.port}\n")
    site.mdaflow.reload()
    yield
    config.write_text(before)
    site.mdaflow.reload()


def inbox(site: MailSystem, user: User) -> list[EmailMessage]:
    """The messages of a user, once nothing is on its way any more."""
    site.settle()
    found = [
        message_from_bytes(mail.raw, policy=policy.default)
        for mail in site.dovecot.fetch(user.address)
    ]
    return sorted(found, key=lambda message: str(message["Subject"]))


@pytest.mark.parametrize("domain", [MAILDIRS, MBOXES])
def test_forward_and_reply(site: MailSystem, domain: str) -> None:
    """A forward reaches the other user, a reply the sender, whose own reply answers nothing."""
    sender = site.mdaflow.user('reply "I am away, too"', domain=domain)
    friend = site.mdaflow.user('reply "And so am I"', domain=domain)
    user = site.mdaflow.user(
        f'also forward to "{friend.address}" reply "Back on the 5th." subject "Away: {{subject}}"',
        domain=domain,
    )
    for count in (1, 2):
        site.postfix.swaks(note(user.address), sender.address, user.address)
        site.mdaflow.wait(user.address, count=count)
    site.mdaflow.wait(friend.address, count=2)

    assert [mail["Subject"] for mail in inbox(site, user)] == ["hello", "hello"]
    forwarded, _ = inbox(site, friend)
    assert forwarded["Return-Path"] == f"<{sender.address}>"
    assert forwarded["X-mdaflow-Loop"] is None
    # Postfix, mdaflow for the user, Postfix, mdaflow for the friend
    received = forwarded.get_all("Received", [])
    assert ["(mdaflow)" in field for field in received] == [True, False, True, False]
    [reply] = inbox(site, sender)
    assert reply["Subject"] == "Away: hello"
    assert reply["Return-Path"] == "<>"
    assert reply["Auto-Submitted"] == "auto-replied (mdaflow)"
    assert reply["In-Reply-To"]
    assert reply.get_content().strip() == "Back on the 5th."
    reasons = [entry["reason"] for entry in site.mdaflow.entries(user.address)]
    assert [reason.rpartition(", ")[2] for reason in reasons] == [
        f"reply {sender.address}",
        "no reply: had one",
    ]
    [answered] = site.mdaflow.entries(sender.address)
    assert answered["reason"].endswith("no reply: null sender")


def test_two_that_forward_to_each_other(site: MailSystem) -> None:
    """A loop of two users ends where it began: each has the mail once, and one bounce tells."""
    sender, user, other = (site.mdaflow.user() for _ in range(3))
    user.write_rules(f'also forward to "{other.address}"')
    other.write_rules(f'also forward to "{user.address}"')
    site.postfix.swaks(note(user.address), sender.address, user.address)
    report = site.bounce(sender)
    assert "554 5.4.6" in report
    assert "Mail loop detected" in report
    assert len(inbox(site, user)) == len(inbox(site, other)) == len(inbox(site, sender)) == 1
    assert site.mdaflow.outcomes(user.address) == ["delivered", "rejected"]


def test_forward_to_oneself(site: MailSystem) -> None:
    """A user who forwards to his own address has the mail once, and its sender is told."""
    sender, user = site.mdaflow.user(), site.mdaflow.user()
    user.write_rules(f'also forward to "{user.address}"')
    site.postfix.swaks(note(user.address), sender.address, user.address)
    assert "5.4.6" in site.bounce(sender)
    assert len(inbox(site, user)) == 1


def test_forward_to_nobody(site: MailSystem) -> None:
    """What Postfix refuses comes back to the sender as its refusal, or is kept with a notice."""
    sender = site.mdaflow.user()
    user = site.mdaflow.user('forward to "unlisted@example.org"')
    site.postfix.swaks(note(user.address), sender.address, user.address)
    assert "550 5.1.1" in site.bounce(sender)
    assert user.files() == []
    user.write_rules('also deliver to "Copy" forward to "unlisted@example.org"')
    site.postfix.swaks(note(user.address), sender.address, user.address)
    site.mdaflow.wait(user.address)
    subjects = [mail["Subject"] for mail in inbox(site, user)]
    assert subjects == ["Your mail rules need attention", "hello"]
    assert len(user.files(".Copy")) == 1
    assert "Recipient address rejected" in (user.home / ".mdaflow/log").read_text()
