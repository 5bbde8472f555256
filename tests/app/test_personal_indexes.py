"""What is known from a user's own mail, as rules see it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from here import BOB, RAW, Here

from mdaflow.app import personal_indexes
from mdaflow.app.answers import Answers
from mdaflow.app.personal_indexes import PersonalIndexes
from mdaflow.engine.context import Fact
from mdaflow.mail.envelope import Envelope
from mdaflow.mail.message import Message
from mdaflow.route.users import Account, User
from mdaflow.scan.known import known_spam
from mdaflow.store.memory import MemoryStore

RULE = 'rule when known_sender { deliver to "friends" }'
SENT = b"To: ann@example.com\n\nhello\n"
FACT = Fact("known_sender", Message(RAW), Envelope("ann@example.com", BOB))


def write(here: Here, folder: str, raw: bytes = SENT) -> None:
    """A message in a folder, as an IMAP server would put it there."""
    if here.format == "mbox":
        (here.home / "mail").mkdir(exist_ok=True)
        with (here.home / "mail" / folder).open("ab") as file:
            file.write(b"From x Thu Jan  1 00:00:00 2026\n" + raw + b"\n")
        return
    for part in ("cur", "new", "tmp"):
        (here.home / f"Maildir/.{folder}" / part).mkdir(parents=True, exist_ok=True)
    (here.home / f"Maildir/.{folder}/cur/1700000000.M1P1.h:2,S").write_bytes(raw)


def user(here: Here, account: Account | None = None) -> User:
    spec = "maildir:Maildir" if here.format == "maildir" else "mbox:mail"
    return User(BOB, str(here.home), spec, account=account)


@pytest.mark.parametrize("folder", ["Sent", "Sent Items", "Sent Messages"])
def test_known_sender(folder: str, both: Here) -> None:
    """Who was written to is known to rules with the next message."""
    both.set(RULE)
    both.send()
    assert both.folders == {"INBOX": 1}
    write(both, folder)
    both.close()
    both.send()
    assert both.folders == {"INBOX": 1, "friends": 1, folder: 1}
    assert (both.home / ".mdaflow/known-senders").stat().st_mode & 0o777 == 0o600


def test_own_address(here: Here) -> None:
    """Who writes to himself is no known sender: that is what spam claims."""
    write(here, "Sent", f"To: {BOB}\n\n".encode())
    here.set(RULE)
    here.send(RAW.replace(b"ann@example.com", BOB.encode()))
    assert here.folders == {"INBOX": 1, "Sent": 1}


def test_trusted_results(here: Here) -> None:
    """A sender that fails DMARC at a trusted MTA is not known."""
    write(here, "Sent")
    failed = Message(b"Authentication-Results: mx; dmarc=fail\n" + RAW)
    for trusted, expected in ((), True), (("mx",), False):
        answers = Answers(MemoryStore(), trusted=trusted)
        ask = answers.about(user(here), really=True)
        assert ask(FACT._replace(message=failed)) == [expected]


def test_dry_run(here: Here) -> None:
    """A dry run writes nothing, and says what deliveries have found so far."""
    write(here, "Sent")
    answers = Answers(MemoryStore())
    assert answers.about(user(here), really=False)(FACT) == [False]
    assert not (here.home / ".mdaflow/known-senders").exists()
    assert answers.about(user(here), really=True)(FACT) == [True]
    assert answers.about(user(here), really=False)(FACT) == [True]


def test_foreign_home(here: Here) -> None:
    """A home that belongs to somebody else tells nothing."""
    write(here, "Sent")
    stranger = Account("bob", os.getuid() + 4242, 1, str(here.home))
    if os.getuid() == 0:
        os.chown(here.home, 77, 77)
    ask = Answers(MemoryStore()).about(user(here, stranger), really=True)
    assert ask(FACT) == [False]


def test_unknown(here: Here) -> None:
    """What cannot be read makes it unknown, not false."""
    write(here, "Sent")
    os.mkfifo(here.home / ".mdaflow/known-senders")
    assert Answers(MemoryStore()).about(user(here), really=True)(FACT) is None


def test_spam_of_a_user(both: Here) -> None:
    """What lies in Junk is the user's known spam."""
    text = " ".join(f"word{'abcdefghij'[n]}" for n in range(10)) * 3
    write(both, "Junk", f"Subject: x\n\n{text}\n".encode())
    index = PersonalIndexes(".mdaflow/rules").spam(user(both), really=True)
    assert index is not None
    assert known_spam(Message(f"Subject: y\n\n{text}\n".encode()), index) == "exact"


def test_many_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only so many indexes are open, and each user has one."""
    monkeypatch.setattr(personal_indexes, "MAX_OPEN", 2)
    indexes = PersonalIndexes(".mdaflow/rules")
    users = [User(f"u{n}@d", f"{tmp_path}/u{n}", "maildir:Maildir") for n in range(5)]
    for each in users:
        (Path(each.home) / "Maildir/.Sent/cur").mkdir(parents=True)
    before = len(os.listdir("/proc/self/fd"))
    for each in users * 2:
        assert indexes.senders(each, really=True) is not None
    assert indexes.senders(each, really=False) is indexes.senders(each, really=True)
    assert len(os.listdir("/proc/self/fd")) <= before + 2
