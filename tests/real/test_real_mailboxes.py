"""Mail through Postfix and mdaflow, as Dovecot shows it to its reader."""

from __future__ import annotations

from email import message_from_bytes, policy

import pytest
from letters import PDF, letter, note
from mailsystem import MailSystem
from mdaflow_server import MAILDIRS, MBOXES

RULES = r"""
rule "Bills" when subject starts with "rechnung für" and attachment.extension is "pdf" {
    also keep
    deliver to "Rechnungen/Übung" with flag "\\Seen"
}
"""
SEPARATOR = {MAILDIRS: ".", MBOXES: "/"}
FOLDER = {domain: f"Rechnungen{between}&ANw-bung" for domain, between in SEPARATOR.items()}
"""Where IMAP has the folder of the rule (RFC 3501 section 5.1.3)."""


@pytest.mark.parametrize("domain", [MAILDIRS, MBOXES])
@pytest.mark.parametrize("way", ["sendmail", "swaks"])
def test_read_back(site: MailSystem, way: str, domain: str) -> None:
    """A letter is sorted by the rules of site and user, and read as it was sent."""
    user = site.mdaflow.user(RULES, domain=domain).address
    sent = letter(user, "X-Priority: 1", subject="=?utf-8?q?Rechnung_f=C3=BCr?= Mai")
    if way == "swaks":
        site.postfix.swaks(sent, "frieda@example.com", user)
    else:
        site.postfix.sendmail(sent.replace(b"\r\n", b"\n"), "frieda@example.com", user)
    site.mdaflow.wait(user)

    assert FOLDER[domain] in site.dovecot.folders(user)
    [mail] = site.dovecot.fetch(user, FOLDER[domain])
    [kept] = site.dovecot.fetch(user)
    assert mail.flags == {"\\Seen", "\\Flagged"}
    assert kept.flags == {"\\Flagged"}
    assert mail.raw == kept.raw
    assert site.dovecot.pop3(user) == [mail.raw]
    assert mail.raw.endswith(b"\r\n" + sent)
    assert mail.size == len(mail.raw)

    message = message_from_bytes(mail.raw, policy=policy.default)
    assert message.get_all("Return-Path") == ["<frieda@example.com>"]
    assert message.get_all("Delivered-To") == [user]
    received = message.get_all("Received", [])
    assert ["(mdaflow) with LMTP" in field for field in received] == [True, False]
    assert message["Subject"] == "Rechnung für Mai"
    [attachment] = message.iter_attachments()
    assert attachment.get_filename() == "rechnung für mai.pdf"
    assert attachment.get_content() == PDF


def test_size_in_the_name(site: MailSystem) -> None:
    """The size in a Maildir's file name is that of the file: IMAP's less the CRs."""
    user = site.mdaflow.user()
    site.postfix.swaks(letter(user.address), "frieda@example.com", user.address)
    site.mdaflow.wait(user.address)
    [mail] = site.dovecot.fetch(user.address)
    [file] = user.files()
    assert file.read_bytes() == mail.raw.replace(b"\r\n", b"\n")
    assert file.name.endswith(f",S={file.stat().st_size}")


@pytest.mark.parametrize("domain", [MAILDIRS, MBOXES])
def test_site_comes_first(site: MailSystem, domain: str) -> None:
    """What a rule of the site has finished, those of the user do not see."""
    user = site.mdaflow.user('deliver to "Mine"', domain=domain).address
    for fields in (("X-Spam-Flag: YES",), ()):
        site.postfix.swaks(note(user, *fields), "frieda@example.com", user)
    site.mdaflow.wait(user, count=2)
    assert [mail.flags for mail in site.dovecot.fetch(user, "Junk")] == [{"\\Seen"}]
    assert [mail.flags for mail in site.dovecot.fetch(user, "Mine")] == [set()]
    assert site.dovecot.fetch(user) == []
