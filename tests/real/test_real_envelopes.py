"""The envelope on its way from Postfix to mdaflow: recipients, queue id, client."""

from __future__ import annotations

import re

from letters import note
from mailsystem import MailSystem


def queue_id(transcript: str) -> str:
    """Postfix's reply to DATA names it."""
    match = re.search(r"250 2\.0\.0 Ok: queued as (\w+)", transcript)
    assert match is not None, transcript
    return match[1]


def test_detail(site: MailSystem) -> None:
    """Mail for user+detail finds the user; rules and trace have the detail."""
    rule = 'rule when envelope.to.detail is "shop" { deliver to "{envelope.to.detail}" }'
    user = site.mdaflow.user(rule)
    name, _, domain = user.address.partition("@")
    detailed = f"{name}+shop@{domain}"
    site.postfix.swaks(note(detailed), "frieda@example.com", detailed)
    site.mdaflow.wait(detailed)
    [mail] = site.dovecot.fetch(user.address, "shop")
    assert f"\r\nDelivered-To: {detailed}\r\n".encode() in mail.raw


def test_one_recipient_refuses(site: MailSystem) -> None:
    """Of two recipients of one mail one refuses: the other has it, and one bounce comes back."""
    sender, taker = site.mdaflow.user(), site.mdaflow.user()
    refuser = site.mdaflow.user('reject "Not for me"')
    both = (refuser.address, taker.address)
    said = site.postfix.swaks(note("both"), sender.address, *both)
    report = site.bounce(sender)
    site.mdaflow.wait(taker.address)
    assert report.count("Final-Recipient:") == 1
    assert f"Final-Recipient: rfc822; {refuser.address}" in report
    assert f"550 5.7.1 <{refuser.address}> Not for me" in report
    assert (refuser.files(), len(taker.files())) == ([], 1)
    entries = site.mdaflow.entries(*both)
    assert sorted(entry["status"] for entry in entries) == ["delivered", "rejected"]
    assert {entry["queue_id"] for entry in entries} == {queue_id(said)}


def test_queue_id(site: MailSystem) -> None:
    """Our log has Postfix's queue id, Postfix's log has our reply."""
    user = site.mdaflow.user()
    said = site.postfix.swaks(note(user.address), "frieda@example.com", user.address)
    entry = site.mdaflow.wait(user.address)
    assert entry["queue_id"] == queue_id(said)
    assert entry["from"] == "frieda@example.com"
    assert entry["message-id"].endswith("@letters.example.com>")
    [line] = site.postfix.logged(f"{entry['queue_id']}: to=<{user.address}>", "relay=")
    assert "dsn=2.0.0, status=sent (250 2.0.0 <" in line
    assert "Saved to INBOX)" in line


def test_client(site: MailSystem) -> None:
    """Rules and trace know the client that Postfix had the mail from, by XFORWARD."""
    user = site.mdaflow.user()
    names = {"addr": "192.0.2.7", "name": "mail.friend.example"}
    told = [word for name, value in names.items() for word in (f"--xclient-{name}", value)]
    more = (*told, "--helo", "friend.example")
    site.postfix.swaks(note(user.address), "frieda@example.com", user.address, more=more)
    assert site.mdaflow.wait(user.address)["rule"] == "Friends"
    [mail] = site.dovecot.fetch(user.address, "Friends")
    trace = b"Received: from friend.example (mail.friend.example [192.0.2.7]) by store.example "
    assert mail.raw.count(trace) == 1


def test_two_addresses_of_a_user(site: MailSystem) -> None:
    """Mail for two addresses of the same user comes twice; for the same address, once."""
    user = site.mdaflow.user()
    name, _, domain = user.address.partition("@")
    addresses = (user.address, f"{name}+a@{domain}", user.address)
    site.postfix.swaks(note("all"), "frieda@example.com", *addresses)
    for address in addresses:
        site.mdaflow.wait(address)
    assert len(site.dovecot.fetch(user.address)) == 2
