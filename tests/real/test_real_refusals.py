"""Mail that mdaflow refuses or puts off, and what Postfix makes of that."""

from __future__ import annotations

from letters import note
from mailsystem import MailSystem
from mdaflow_server import User
from postfix import NOT_IN_TABLE


def test_rejected_by_a_rule(site: MailSystem) -> None:
    """A mail that a rule of the site rejects comes back to its sender with the rule's text."""
    sender, user = site.mdaflow.user(), site.mdaflow.user()
    site.postfix.sendmail(note(user.address, subject="Buy now!"), sender.address, user.address)
    report = site.bounce(sender)
    assert f"550 5.7.1 <{user.address}> We buy nothing, thank you" in report
    assert "Status: 5.7.1" in report
    [entry] = site.mdaflow.entries(user.address)
    assert (entry["status"], entry["rule"], entry["dsn"]) == ("rejected", "Offers", "5.7.1")
    assert user.files() == []


def test_user_unknown_to_mdaflow(site: MailSystem) -> None:
    """A mail for a user who has no folder comes back to its sender as 5.1.1."""
    sender = site.mdaflow.user()
    site.postfix.sendmail(note("stranger@example.org"), sender.address, "stranger@example.org")
    report = site.bounce(sender)
    assert "550 5.1.1 No such user here" in report
    assert "Status: 5.1.1" in report


def test_user_unknown_to_postfix(site: MailSystem) -> None:
    """Postfix refuses at RCPT whom its own table of recipients does not list."""
    said = site.postfix.swaks(note(NOT_IN_TABLE), "frieda@example.com", NOT_IN_TABLE)
    assert f"550 5.1.1 <{NOT_IN_TABLE}>: Recipient address rejected" in said
    assert site.mdaflow.entries(NOT_IN_TABLE) == []


def test_deferred_by_the_site(site: MailSystem) -> None:
    """What a rule of the site defers stays queued, and comes once when the rule is gone."""
    user = site.mdaflow.user()
    condition = f'when envelope.to is "{user.address}"'
    site.mdaflow.site_rules("50-defer", f'rule "Later" {condition} {{ defer "Come again" }}\n')
    site.postfix.swaks(note(user.address), "frieda@example.com", user.address)
    [line, *_] = site.postfix.logged(f"to=<{user.address}>", "status=deferred")
    assert f"451 4.7.1 <{user.address}> Come again" in line
    assert len(site.postfix.queue(user.address)) == 1

    site.mdaflow.site_rules("50-defer", None)
    arrives_once(site, user)


def test_deferred_by_a_user(site: MailSystem) -> None:
    """What a user's own rule defers comes once when the user has edited the rule."""
    user = site.mdaflow.user('defer "I am asleep"\n')
    site.postfix.swaks(note(user.address), "frieda@example.com", user.address)
    site.mdaflow.wait(user.address, "deferred")
    user.write_rules('deliver to "Awake"\n')
    arrives_once(site, user)
    assert len(user.files(".Awake")) == 1


def arrives_once(site: MailSystem, user: User) -> None:
    """The message leaves the queue, and is in the Maildir once."""
    site.settle()
    outcomes = site.mdaflow.outcomes(user.address)
    assert outcomes == ["deferred"] * (len(outcomes) - 1) + ["delivered"]
    stored = [file for file in user.maildir.rglob("*,S=*") if file.is_file()]
    assert len(stored) == 1
    assert site.dovecot.fetch(user.address, "Awake" if user.files(".Awake") else "INBOX")
