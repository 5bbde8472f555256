"""Users with a quota: refused at RCPT and after DATA, and warned before that."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import pytest
from fake_mta import FakeMTA
from here import BOB, HEADER, Here, close

from mdaflow.app import load, notices, pipeline
from mdaflow.app.build import open_site
from mdaflow.app.config import Config, Folders
from mdaflow.app.notices import Notices
from mdaflow.deliver import quota
from mdaflow.errors import ConfigError
from mdaflow.mail.envelope import Envelope
from mdaflow.mail.message import Message
from mdaflow.store import clock
from mdaflow.store.memory import MemoryStore


def letter(size: int) -> bytes:
    return f"{HEADER}\n".encode() + b"x" * size + b"\n"


def limit(here: Here, size: int = 10_000, over: Literal["defer", "reject"] = "defer") -> Here:
    here.quota, here.over_quota = size, over
    here.close()
    return here


def held(here: Here) -> tuple[int, int]:
    """What the mailbox holds, by its files and by its account, which agree."""
    found = [p for part in ("new", "cur") for p in here.home.rglob(f"{part}/*")]
    there = sum(p.stat().st_size for p in found), len(found)
    lines = (here.home / "Maildir/maildirsize").read_text().splitlines()[1:]
    numbers = [line.split() for line in lines]
    assert (sum(int(n) for n, _ in numbers), sum(int(n) for _, n in numbers)) == there
    return there


POLICIES: dict[Literal["defer", "reject"], tuple[str, str]] = {
    "defer": ("452 4.2.2 Over quota, try again later", "deferred"),
    "reject": ("552 5.2.2 Mailbox is full", "rejected"),
}


@pytest.mark.parametrize("over", POLICIES)
def test_policy(here: Here, over: Literal["defer", "reject"]) -> None:
    """Mail without room gets the reply of the policy; with room for less it passes RCPT."""
    limit(here, over=over)
    reply, outcome = POLICIES[over]
    courier = pipeline.Courier(here.site)
    assert courier.check(BOB).ok
    assert here.send(letter(8000)).ok
    assert courier.check(BOB).ok
    for size in (2000, 20_000):
        assert str(here.send(letter(size))) == reply
        assert here.entry["status"] == outcome
        assert "over quota: 8," in here.entry["reason"]
    assert here.folders == {"INBOX": 1}
    here.quota_warning = 0
    limit(here, held(here)[0], over)
    assert str(pipeline.Courier(here.site).check(BOB)) == reply
    how = "put off" if reply.startswith("4") else "refused"
    assert any(f"<{BOB}>: {how} at RCPT: over quota" in said for said in here.said)


def test_messages(here: Here) -> None:
    """The number of messages may be limited, also alone."""
    here.quota_messages = 2
    here.close()
    assert [here.send().code for _ in range(3)] == [250, 250, 452]
    assert pipeline.Courier(here.site).check(BOB).code == 452


def test_plan_without_a_copy(here: Here) -> None:
    """What is not stored in the mailbox needs no room there, and does not count."""
    limit(here, 100)
    here.grant = ("files",)
    path = here.root / "all"
    for before in ("discard", f'deliver to "maildir:{path}"'):
        here.set(before=before)
        assert here.send().ok
    assert len(list(path.glob("new/*"))) == 1
    assert not list(here.root.rglob("maildirsize"))
    here.set()
    assert here.send().code == 452


@pytest.mark.parametrize("over", POLICIES)
def test_all_or_nothing(here: Here, over: Literal["defer", "reject"]) -> None:
    """Where one copy has no room, nothing else of the plan is done."""
    with FakeMTA() as mta:
        here.hop = mta.hop
        limit(here, 100, over)
        here.set('also forward to "eve@example.com" also deliver to "A" keep')
        assert str(here.send()) == POLICIES[over][0]
        assert mta.sessions
        assert not any(session.taken for session in mta.sessions)
    assert here.folders == {}
    assert not here.leftovers()


def test_two_copies(here: Here) -> None:
    """Each copy counts."""
    limit(here)
    here.set('also deliver to "A" deliver to "B"')
    assert here.send().ok
    assert held(here)[1] == 2


# the warning


def warnings(here: Here) -> list[bytes]:
    return [raw for raw in here.mails() if b"(quota)" in raw]


def test_warning(here: Here) -> None:
    """Who passes the threshold gets one mail, which names the numbers and counts itself."""
    limit(here)
    assert here.send(letter(8000)).ok
    assert warnings(here) == []
    assert here.send(letter(500)).ok
    [mail] = warnings(here)
    assert b"\nSubject: Your mailbox is nearly full\n" in mail
    assert f"\nTo: {BOB}\n".encode() in mail
    assert b"Return-Path: <>\n" in mail
    assert b"reached 90 % of its quota" in mail
    assert b" of 10,000 bytes\n" in mail
    assert any("90 % of the quota are reached: 9," in said for said in here.said)
    assert here.send(letter(1)).ok
    assert len(warnings(here)) == 1
    assert held(here)[1] == 4


def test_warning_has_room(here: Here) -> None:
    """A mailbox that the message itself has filled still takes the warning, and other notices."""
    limit(here, 1 << 20)
    assert here.send().ok
    size = held(here)[0]
    shutil.rmtree(here.home / "Maildir")
    limit(here, size)
    assert here.send().ok
    assert len(warnings(here)) == 1
    notice = Notices(here.site, here.site.users[0].find(BOB))  # type: ignore[arg-type]
    notice.tell("x")
    assert here.folders == {"INBOX": 2, "notices": 1}
    assert held(here)[0] > here.quota


def test_warned_once_a_day(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who empties the mailbox and fills it again is warned once a day, by all processes."""
    limit(here)
    sites = here.site, here.open()

    def fill() -> None:
        for path in here.home.rglob("new/*"):
            if b"(quota)" not in path.read_bytes():
                path.unlink()
        (here.home / "Maildir/maildirsize").unlink(missing_ok=True)
        envelope = Envelope("ann@example.com", BOB, received=1.8e9)
        for site in sites:
            pipeline.deliver_message(site, Message(letter(4300)), envelope)

    for _ in range(3):
        fill()
    assert len(warnings(here)) == 1
    later = clock.uptime() + notices.DAY + 1
    monkeypatch.setattr(clock, "uptime", lambda: later)
    fill()
    assert len(warnings(here)) == 2
    close(sites[1])


@pytest.mark.parametrize(("percent", "count"), [(0, 0), (50, 1), (100, 0)])
def test_threshold(here: Here, percent: int, count: int) -> None:
    """The threshold is a setting; 0 is none."""
    here.quota_warning = percent
    limit(here)
    here.send(letter(6000))
    assert len(warnings(here)) == count


def test_warning_that_fails(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    """A warning that cannot be given takes nothing from the message."""

    def fail(*_: Any, **__: Any) -> Any:
        raise OSError("down")

    limit(here)
    monkeypatch.setattr(here.site.answers.store, "add", fail)
    assert here.send(letter(9500)).ok
    assert any("could not be told" in said for said in here.said)


def test_many_at_once(here: Here) -> None:
    """Deliveries at the same moment count each message, and warn once."""
    here.quota_messages = 40
    limit(here, 1_000_000)
    assert here.send().ok
    with ThreadPoolExecutor(8) as pool:
        codes = [status.code for status in pool.map(lambda _: here.send(), range(38))]
    assert codes == [250] * 38
    assert len(warnings(here)) == 1
    (here.home / "Maildir/maildirsize").unlink(missing_ok=True)
    quota.check(here.site.mailbox(here.site.users[0].find(BOB), refuse=False))  # type: ignore[arg-type]
    assert held(here)[1] == 40


# the configuration


def test_settings(tmp_path: Path) -> None:
    """Sizes have units; nothing is no quota; each source has its own."""
    text = """
users:
  - {folders: a, quota: 1.5G, quota_messages: 1000}
  - {folders: b, quota: ""}
  - {folders: c, mailbox: "mbox:mail", quota: "", quota_messages: 0}
over_quota: reject
"""
    config = load.loads(text, str(tmp_path / "c.yaml"))
    limits = [(source.quota, source.quota_messages) for source in config.users]
    assert limits == [(3 << 29, 1000), (0, 0), (0, 0)]
    (tmp_path / "a/example.org/bob").mkdir(parents=True)
    site = open_site(config, MemoryStore())
    bob = site.users[0].find(BOB)
    assert bob is not None
    assert (bob.quota, bob.quota_messages) == (3 << 29, 1000)
    assert bob in site.users[0].all()
    mailbox = site.mailbox(bob)
    assert mailbox.quota is not None
    assert mailbox.quota.over is not None
    assert mailbox.quota.over.code == 552


def test_mbox_with_a_quota(tmp_path: Path) -> None:
    """A configuration that a program makes cannot ask for one either."""
    users = (Folders(str(tmp_path), "mbox:mail", 1000),)
    with pytest.raises(ConfigError, match="mbox files, which have no quota"):
        open_site(Config(users=users), MemoryStore())
