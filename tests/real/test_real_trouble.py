"""Restarts and broken rules under real mail: nothing is lost, nothing comes twice."""

from __future__ import annotations

import subprocess
from email import message_from_bytes

import pytest
from children import PATIENCE, until
from letters import note
from mailsystem import MailSystem
from mdaflow_server import User
from need import need

COUNT = 60


def test_stopped_for_a_while(site: MailSystem) -> None:
    """Mail that came while mdaflow was away waits in the queue, and then comes once."""
    user = site.mdaflow.user()
    site.mdaflow.stop()
    for _ in range(3):
        site.postfix.sendmail(note(user.address), "frieda@example.com", user.address)
    until(lambda: len(site.postfix.queue(user.address)) == 3, "three messages in the queue")
    assert user.files() == []
    site.mdaflow.start()
    all_came_once(site, user, 3)


@pytest.mark.parametrize("change", ["restart", "reload"])
def test_changed_in_full_flow(site: MailSystem, change: str) -> None:
    """All mail of many clients comes once, whatever happens to mdaflow meanwhile."""
    user = site.mdaflow.user()
    source = [need("smtp-source"), "-s", "6", "-m", str(COUNT), "-f", "frieda@example.com"]
    address = f"127.0.0.1:{site.postfix.port}"
    with subprocess.Popen([*source, "-t", user.address, address]) as client:
        until(lambda: len(user.files()) >= COUNT // 10, "the first messages")
        if change == "restart":
            site.mdaflow.stop()
            site.mdaflow.start()
        else:
            site.mdaflow.reload()
        assert client.wait(PATIENCE) == 0
    all_came_once(site, user, COUNT)


def all_came_once(site: MailSystem, user: User, count: int) -> None:
    """Exactly so many messages are there, all different, and none is on its way."""
    site.settle()
    mails = site.dovecot.fetch(user.address)
    assert len(mails) == count
    assert len({message_from_bytes(mail.raw)["Message-ID"] for mail in mails}) == count
    assert list((user.maildir / "tmp").iterdir()) == []
    outcomes = set(site.mdaflow.outcomes(user.address))
    assert outcomes <= {"delivered", "deferred"}


def test_broken_rules(site: MailSystem) -> None:
    """With rules that do not compile the last good ones stay in force; log and user are told."""
    user = site.mdaflow.user('deliver to "Good"')
    send(site, user, 1)
    user.write_rules('deliver to "Unfinished')
    send(site, user, 2)
    assert len(user.files(".Good")) == 2
    told(site, user, "its last good version stays in force")


def test_rules_that_never_compiled(site: MailSystem) -> None:
    """Without any good version the mail goes to the inbox; log and user are told."""
    user = site.mdaflow.user("delivr")
    send(site, user, 1)
    assert len(user.files()) == 2
    told(site, user, "mail goes to the inbox")


def told(site: MailSystem, user: User, what: str) -> None:
    """The log, the user's own log and one mail say what is wrong, and where."""
    path = user.home / ".mdaflow" / "rules"
    (said,) = (m for m in site.mdaflow.messages() if f"{path}:1:" in m)
    assert said.endswith(what)
    theirs = said.partition(f"<{user.address}>: ")[2].replace(str(user.home), "~")
    assert theirs in (path.parent / "log").read_text()
    notices = [file for file in user.files() if b"Subject: Your mail rules" in file.read_bytes()]
    assert len(notices) == 1


def send(site: MailSystem, user: User, count: int) -> None:
    """Send one message, and wait until so many are there."""
    site.postfix.swaks(note(user.address), "frieda@example.com", user.address)
    site.mdaflow.wait(user.address, count=count)
