"""Notices about mail: short, automatic, and never about each other."""

from __future__ import annotations

from dataclasses import replace

import pytest
from fake_mta import FakeMTA, closed_hop

from mdaflow.deliver import notify
from mdaflow.deliver.job import Job, Means, Memory
from mdaflow.deliver.mailbox import Mailbox
from mdaflow.engine.plan import Action
from mdaflow.mail.envelope import Envelope
from mdaflow.mail.message import Message
from mdaflow.store.memory import MemoryStore

BOB = "bob@example.org"
ACTION = Action("notify", text="Invoice of Ärzte AG\nsee folder", targets=("phone@x.org",))


def job(mta: FakeMTA | str, header: bytes = b"Subject: x\n", memory: Memory | None = None) -> Job:
    hop = mta if isinstance(mta, str) else mta.hop
    means = Means("mx.example.org", hop, memory=memory or MemoryStore())
    envelope = Envelope("ann@example.com", BOB)
    mailbox = Mailbox("maildir", "/nowhere", "Mail")
    return Job(Message(header + b"\nhi\n"), envelope, mailbox, "id1", means)


def sent(mta: FakeMTA) -> bytes:
    (session,) = mta.taken
    return session.data.removesuffix(b".\r\n").replace(b"\r\n", b"\n")


def test_notice() -> None:
    """A notice has the words of the rule, the null sender, and says that it is automatic."""
    with FakeMTA() as mta:
        ready = notify.prepare(job(mta), ACTION)
        assert mta.sessions == []
        ready.commit()
    assert ready.where == "notice phone@x.org"
    _, mail, rcpt, *_ = mta.sessions[0].commands
    assert mail.startswith(b"MAIL FROM:<> ")
    assert rcpt == b"RCPT TO:<phone@x.org>"
    letter = Message(sent(mta))
    assert letter.header("From") == [BOB]
    assert letter.header("Subject") == ["Invoice of Ärzte AG see folder"]
    assert letter.header("Auto-Submitted") == ["auto-generated (mdaflow)"]
    assert letter.body == "Invoice of Ärzte AG\nsee folder\n"


def test_no_loop() -> None:
    """Nobody is told about a notice, also when its mark of automatic mail is lost."""
    with FakeMTA() as mta:
        notify.prepare(job(mta), ACTION).commit()
        first = sent(mta)
        lost = first.replace(b"Auto-Submitted", b"X-Auto-Submitted")
        for raw in (first, lost):
            ready = notify.prepare(job(mta, raw), ACTION)
            ready.commit()
            assert ready.where == "no notice: automatic mail"
    assert len(mta.sessions) == 1


@pytest.mark.parametrize(
    "field", [b"auto-submitted:\n AUTO-generated", b"Auto-Submitted: (x) auto-generated; y"]
)
def test_automatic_mail(field: bytes) -> None:
    """Nobody is told about automatic mail."""
    ready = notify.prepare(job("127.0.0.1:1", field + b"\n"), ACTION)
    assert ready.where == "no notice: automatic mail"


@pytest.mark.parametrize(
    "field", [b"Auto-Submitted: no", b"X-mdaflow-Loop: x", b"Precedence: bulk"]
)
def test_other_mail(field: bytes) -> None:
    """One may be told about lists and about mail that was forwarded."""
    ready = notify.prepare(job("127.0.0.1:1", field + b"\n"), ACTION)
    assert ready.where == "notice phone@x.org"


def test_no_address() -> None:
    """A notice to nobody is not sent."""
    ready = notify.prepare(job("127.0.0.1:1"), replace(ACTION, targets=()))
    ready.commit()
    ready.abort()
    assert ready.where == "no notice: no address"


@pytest.mark.parametrize("target", ["", "bob", "a@b\r\nDATA", "a@b, c@d"])
def test_bad_address(target: str, caplog: pytest.LogCaptureFixture) -> None:
    """A notice to what is no address is a line in the log."""
    with FakeMTA() as mta:
        ready = notify.prepare(job(mta), replace(ACTION, targets=(target,)))
        assert ready.where.isprintable()
        ready.commit()
    assert ready.where == "no notice: it failed"
    assert mta.sessions == []
    assert len(caplog.records) == 1


def test_next_hop_is_down(caplog: pytest.LogCaptureFixture) -> None:
    """A notice that cannot be sent fails no delivery."""
    ready = notify.prepare(job(closed_hop()), ACTION)
    ready.commit()
    assert ready.where == "no notice: Next hop does not answer, try again later"
    assert "id1: no notice to <phone@x.org>: 127.0.0.1:" in caplog.text


def test_long_text() -> None:
    """The subject of a notice is short, whatever its text."""
    with FakeMTA() as mta:
        notify.prepare(job(mta), replace(ACTION, text="x" * 5000 + "\r\nBcc: a@b\r\n")).commit()
    letter = Message(sent(mta))
    assert letter.header("Subject") == ["x" * 78]
    assert b"bcc" not in letter.fields


class Away(MemoryStore):
    """A memory that nobody can reach."""

    def get(self, key: str) -> str | None:
        raise OSError("down")


def test_flood(monkeypatch: pytest.MonkeyPatch) -> None:
    """An address gets so many notices in an hour, whatever its case; another has its own."""
    monkeypatch.setattr(notify, "MOST", 3)
    memory = MemoryStore()
    with FakeMTA() as mta:
        told = []
        for target in (*("phone@x.org", "Phone@X.org") * 2, "other@x.org"):
            ready = notify.prepare(job(mta, memory=memory), replace(ACTION, targets=(target,)))
            ready.commit()
            told.append(ready.where)
    expected = [*["notice phone@x.org", "notice Phone@X.org"] * 2, "notice other@x.org"]
    assert told == [*expected[:3], "no notice: 3 within the hour", expected[4]]
    assert len(mta.taken) == 4


def test_flood_of_the_site(monkeypatch: pytest.MonkeyPatch) -> None:
    """What rules of the site send is counted over all recipients, and users cannot use it up."""
    monkeypatch.setattr(notify, "MOST", 1)
    memory = MemoryStore()
    told = []
    with FakeMTA() as mta:
        for owner, whose in [("site", "a@b"), ("site", "c@d"), ("user", "a@b"), ("user", "c@d")]:
            one = replace(job(mta, memory=memory), user=whose)
            ready = notify.prepare(one, replace(ACTION, owner=owner))
            ready.commit()
            told.append(ready.where)
    sent, not_sent = "notice phone@x.org", "no notice: 1 within the hour"
    assert told == [sent, not_sent, sent, sent]


def test_next_hour(monkeypatch: pytest.MonkeyPatch) -> None:
    """An hour after a notice its place is free again."""
    monkeypatch.setattr(notify, "MOST", 1)
    monkeypatch.setattr(notify, "PERIOD", 0.0)
    memory = MemoryStore()
    with FakeMTA() as mta:
        for _ in range(2):
            notify.prepare(job(mta, memory=memory), ACTION).commit()
    assert len(mta.taken) == 2


def test_no_memory() -> None:
    """Without a memory, or with one that is away, nobody is told."""
    with FakeMTA() as mta:
        away, without = job(mta, memory=Away()), job(mta)
        without = replace(without, means=replace(without.means, memory=None))
        for one in (away, without):
            ready = notify.prepare(one, ACTION)
            ready.commit()
            assert ready.where == "no notice: no memory"
    assert mta.taken == []
