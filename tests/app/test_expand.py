"""A recipient that is an alias of the site's rules: one message for many."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from fake_mta import FakeMTA

from mdaflow.app.build import open_site
from mdaflow.app.config import Config, Folders, Rules
from mdaflow.app.pipeline import Courier
from mdaflow.mail.envelope import Envelope
from mdaflow.mail.message import Message
from mdaflow.store.memory import MemoryStore

RULES = 'alias "sales" to ["ann", "bob", "carl@elsewhere.example"]  alias "all" to ["ann", "bob"]'
Make = Callable[[str], Courier]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Makes the courier of a site with two users, for a next hop."""
    for user in ("ann", "bob"):
        (tmp_path / "mail/example.org" / user).mkdir(parents=True)
    (tmp_path / "before").mkdir()
    (tmp_path / "before/1.rules").write_text(RULES)

    def courier(hop: str = "127.0.0.1:1") -> Courier:
        rules = Rules(before=f"{tmp_path}/before", after=f"{tmp_path}/after")
        users = (Folders(f"{tmp_path}/mail"),)
        config = Config("mx", users=users, rules=rules, next_hop=hop, state=f"{tmp_path}/state")
        return Courier(open_site(config, MemoryStore()))

    return courier


def deliver(courier: Courier, recipient: str, *, fence: bool = True) -> str:
    mail = Message(b"Message-ID: <1@x>\nSubject: x\n\nhello\n")
    about = Envelope("eve@example.net", recipient)
    return str(courier.deliver(mail, about, lambda: fence)).partition(" ")[0]


def stored(tmp_path: Path, user: str) -> list[str]:
    folder = tmp_path / f"mail/example.org/{user}/Maildir/new"
    return [path.read_text() for path in folder.glob("*")]


def test_recipient(make: Make) -> None:
    """An alias is a recipient, though there is no such user; who is neither is none."""
    courier = make("127.0.0.1:1")
    found = [courier.check(f"{name}@example.org").code for name in ("sales", "ann", "nobody")]
    assert found == [250, 250, 550]


def test_all_get_it(make: Make, tmp_path: Path) -> None:
    """Users get it by their own way, who has no mailbox here by SMTP."""
    with FakeMTA() as mta:
        assert deliver(make(mta.hop), "sales@example.org") == "250"
    for user in ("ann", "bob"):
        (text,) = stored(tmp_path, user)
        assert f"Delivered-To: {user}@example.org\nX-Original-To: sales@example.org\n" in text
    (session,) = mta.sessions
    assert b"RCPT TO:<carl@elsewhere.example>" in b"\n".join(session.commands)
    assert session.taken


def test_what_was_done_is_not_done_again(make: Make, tmp_path: Path) -> None:
    """A target that cannot be reached puts the message off; the others get it once (P10)."""
    with FakeMTA({"rcpt": [b"451 4.7.1 later\r\n", b"250 2.1.5 Ok\r\n"]}) as mta:
        courier = make(mta.hop)
        assert deliver(courier, "sales@example.org") == "451"
        assert [len(stored(tmp_path, user)) for user in ("ann", "bob")] == [1, 1]
        assert deliver(courier, "sales@example.org") == "250"
    assert [len(stored(tmp_path, user)) for user in ("ann", "bob")] == [1, 1]
    assert [session.taken for session in mta.sessions] == [False, True]


def test_too_late(make: Make, tmp_path: Path) -> None:
    """Behind a closed fence nobody gets anything (P8)."""
    with FakeMTA() as mta:
        assert deliver(make(mta.hop), "sales@example.org", fence=False) == "451"
    assert stored(tmp_path, "ann") == stored(tmp_path, "bob") == []
    assert not any(session.taken for session in mta.sessions)


def test_deadline_between_targets(make: Make, tmp_path: Path) -> None:
    """Who is late gets nothing and puts the message off; who was in time does not get it again."""
    asked: list[bool] = []

    def fence() -> bool:
        asked.append(not asked)
        return asked[-1]

    with FakeMTA() as mta:
        courier = make(mta.hop)
        mail = Message(b"Message-ID: <1@x>\nSubject: x\n\nhello\n")
        about = Envelope("eve@example.net", "sales@example.org")
        assert courier.deliver(mail, about, fence).code == 451
        assert asked == [True, False]  # no work for who comes behind
        assert [len(stored(tmp_path, user)) for user in ("ann", "bob")] == [1, 0]
        assert not any(session.taken for session in mta.sessions)
        assert deliver(courier, "sales@example.org") == "250"
        assert [len(stored(tmp_path, user)) for user in ("ann", "bob")] == [1, 1]
        assert [session.taken for session in mta.sessions] == [True]


def test_comes_again(make: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A message whose peer did not know that all have it goes to none of them again (P10)."""
    caplog.set_level("INFO", "mdaflow")
    (tmp_path / "state").mkdir()
    with FakeMTA() as mta:
        courier = make(mta.hop)
        assert deliver(courier, "sales@example.org") == "250"
        mail = Message(b"Message-ID: <1@x>\nSubject: x\n\nhello\n")
        courier.unconfirmed(mail, Envelope("eve@example.net", "sales@example.org"))
        caplog.clear()
        assert deliver(courier, "sales@example.org") == "250"
        assert len(mta.sessions) == 1
    assert [len(stored(tmp_path, user)) for user in ("ann", "bob")] == [1, 1]
    found = [r.__dict__["fields"] for r in caplog.records if "fields" in r.__dict__]
    assert [(f["to"], f["reason"]) for f in found] == [
        ("sales@example.org", "was delivered before")
    ]


def test_nothing_is_noted_when_all_have_it(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """When nothing failed, nothing is written to the store."""
    courier = make("127.0.0.1:1")
    monkeypatch.setattr(courier._site.answers.store, "put", None)
    assert deliver(courier, "all@example.org") == "250"


def test_one_log_line_for_each(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    """Each target has its line in the log (P50)."""
    caplog.set_level("INFO", "mdaflow")
    with FakeMTA() as mta:
        deliver(make(mta.hop), "sales@example.org")
    found = [r.__dict__["fields"] for r in caplog.records if "fields" in r.__dict__]
    assert [(f["to"].partition("@")[0], f["status"]) for f in found] == [
        ("ann", "delivered"),
        ("bob", "delivered"),
        ("carl", "forwarded"),
    ]
