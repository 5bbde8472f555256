"""A recipient that is an alias of the site's rules: one message for many."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from fake_mta import FakeMTA

from mdaflow.app import pipeline
from mdaflow.app.build import open_site
from mdaflow.app.config import Config, Folders, Rules
from mdaflow.app.pipeline import Courier
from mdaflow.errors import DEFERRED, NO_ANSWER, Status
from mdaflow.mail.envelope import Envelope
from mdaflow.mail.message import Message
from mdaflow.route import tables
from mdaflow.route.users import User
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
        assert [len(stored(tmp_path, user)) for user in ("ann", "bob")] == [0, 0]
        assert [session.taken for session in mta.sessions] == [True]
        assert deliver(courier, "sales@example.org") == "250"
        assert [len(stored(tmp_path, user)) for user in ("ann", "bob")] == [1, 1]
        assert [session.taken for session in mta.sessions] == [True]


def test_slow_user(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of several has a share of the time; who does not answer in it puts the message off, and
    those behind have it."""
    with FakeMTA() as mta:
        courier = make(mta.hop)
        patience = slow(courier, monkeypatch, "ann")
        assert deliver(courier, "sales@example.org") == "451"
        assert [len(stored(tmp_path, user)) for user in ("ann", "bob")] == [0, 1]
        assert deliver(courier, "sales@example.org") == "451"
        assert [name for name, _ in patience] == ["ann", "bob", "ann"]
        assert [round(120 / seconds) for _, seconds in patience] == [3, 2, 2]
        monkeypatch.undo()
        assert deliver(courier, "sales@example.org") == "250"
        assert deliver(courier, "ann@example.org") == "250"
        assert [session.taken for session in mta.sessions] == [True]
    assert [len(stored(tmp_path, user)) for user in ("ann", "bob")] == [2, 1]


def test_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Addresses, programs, files and refusals come before users, and who was slow comes last."""
    aliases = f'all: ann, bob, a@x.example, nobody, "|/bin/cat >{tmp_path}/out", {tmp_path}/box'
    with FakeMTA() as mta:
        courier = site_with(tmp_path, f"{aliases}\nowner-all: ann\n", mta.hop)
        (tmp_path / "state").mkdir(exist_ok=True)
        order: list[str] = []

        def done() -> list[bool]:
            files = (tmp_path / "out", tmp_path / "box")
            return [bool(mta.sessions and mta.sessions[0].taken), *(f.exists() for f in files)]

        before: list[list[bool]] = []

        def deliver_to(_: Message, about: Envelope, user: User, *more: object) -> Status:
            order.append(user.address.partition("@")[0])
            before.append(done())
            return NO_ANSWER if len(order) in (1, 3, 4) else DEFERRED

        monkeypatch.setattr(courier, "_deliver_to", deliver_to)
        for _ in range(3):
            assert deliver(courier, "all@example.org") == "451"
    assert order[:4] == ["ann", "bob", "bob", "ann"]
    assert sorted(order[4:]) == ["ann", "bob"]  # both were slow
    assert before[0] == [True, True, True]
    assert (tmp_path / "box").read_text().count("\nSubject: ") == 1


def test_alone_there_is_all_the_time(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits behind the only one."""
    courier = make()
    (Path(courier._site.config.rules.before) / "2.rules").write_text('alias "one" to "ann"')
    courier = Courier(open_site(courier._site.config, MemoryStore()))
    patience = slow(courier, monkeypatch)
    assert deliver(courier, "one@example.org") == "250"
    assert patience == [("ann", math.inf)]


def test_slow_users_until_the_deadline(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """When slow users have used up the time, it is no use to go on."""
    courier = make()
    began = time.monotonic()
    patience = slow(courier, monkeypatch, "ann", "bob")
    monkeypatch.setattr(time, "monotonic", lambda: began + 130 * bool(patience))
    assert deliver(courier, "all@example.org", fence=False) == "451"
    assert len(patience) == 1


def slow(courier: Courier, monkeypatch: pytest.MonkeyPatch, *names: str) -> list[tuple[str, float]]:
    """Have users not answer; who is asked, with what patience."""
    asked: list[tuple[str, float]] = []
    really = courier._deliver_to

    def deliver_to(
        message: Message, about: Envelope, user: User, fence: Callable[[], bool], patience: float
    ) -> Status:
        name = user.address.partition("@")[0]
        asked.append((name, patience))
        return NO_ANSWER if name in names else really(message, about, user, fence, patience)

    monkeypatch.setattr(courier, "_deliver_to", deliver_to)
    return asked


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
        ("carl", "forwarded"),
        ("ann", "delivered"),
        ("bob", "delivered"),
    ]


def site_with(
    tmp_path: Path, aliases: str, hop: str = "127.0.0.1:1", *, kept: bool = False
) -> Courier:
    """The courier of a site with two users and a file of aliases."""
    for user in ("ann", "bob"):
        (tmp_path / "mail/example.org" / user).mkdir(parents=True, exist_ok=True)
    tmp_path.chmod(0o755)
    (tmp_path / "aliases").write_text(aliases)
    (tmp_path / "aliases").chmod(0o644)
    config = Config(
        "mx",
        users=(Folders(f"{tmp_path}/mail"),),
        rules=Rules(before=f"{tmp_path}/before", after=f"{tmp_path}/after"),
        aliases=(f"aliases:{tmp_path}/aliases",),
        next_hop=hop,
        state=f"{tmp_path}/state",
    )
    return Courier(open_site(config, None if kept else MemoryStore()))


def test_program_file_and_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What is no user and no address is done as a rule of the site does it, a log line for each."""
    caplog.set_level("INFO", "mdaflow")
    out, program = tmp_path / "out", tmp_path / "program"
    program.write_text(f'#!/bin/sh\n(echo "$RECIPIENT $SENDER $HOME"; cat) > {out}\n')
    program.chmod(0o755)
    courier = site_with(
        tmp_path, f'all: "|{program} x", {tmp_path}/box, {tmp_path}/folder/, :blackhole:, ann\n'
    )
    assert deliver(courier, "all@example.org") == "250"
    first, second, *mail = out.read_text().splitlines()
    assert first == "all@example.org eve@example.net /"
    assert second.startswith("From eve@example.net ")
    assert "Subject: x" in mail
    assert (tmp_path / "box").read_text().startswith("From eve@example.net ")
    [copy] = (tmp_path / "folder/new").iterdir()
    assert "Delivered-To: all@example.org\n" in copy.read_text()
    assert len(stored(tmp_path, "ann")) == 1
    found = [r.__dict__["fields"] for r in caplog.records if "fields" in r.__dict__]
    assert sorted((f["to"].partition("@")[0], f["status"], f["where"]) for f in found) == [
        *(("all", s, "aliases:1") for s in ("delivered", "delivered", "discarded", "piped")),
        ("ann", "delivered", ""),
    ]


def test_program_that_fails(tmp_path: Path) -> None:
    """A program may put the message off; who has it does not get it again."""
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\ncat >/dev/null\nrm {tmp_path}/busy 2>/dev/null && exit 75\n:\n")
    program.chmod(0o755)
    (tmp_path / "busy").touch()
    courier = site_with(tmp_path, f'all: ann, "|{program}"\n')
    assert deliver(courier, "all@example.org") == "451"
    assert deliver(courier, "all@example.org") == "250"
    assert len(stored(tmp_path, "ann")) == 1


def test_refused_by_an_alias(tmp_path: Path) -> None:
    """What an alias says no to is refused at RCPT, in its words."""
    courier = site_with(tmp_path, "gone: :fail: 5.2.1 Gone fishing\nlater: :defer: moving\n")
    assert str(courier.check("gone@example.org")) == "550 5.2.1 Gone fishing"
    assert str(courier.check("later@example.org")) == "451 4.3.0 moving"


def test_table_changes_between_rcpt_and_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who was accepted is not refused for good because a table has changed (P4)."""
    monkeypatch.setattr(tables, "LOOK", 0.0)
    courier = site_with(tmp_path, "sales: ann\n")
    assert courier.check("sales@example.org").ok
    (tmp_path / "aliases").write_text("info: ann\n")
    assert deliver(courier, "sales@example.org") == "451"


def test_each_of_many_has_a_status(tmp_path: Path) -> None:
    """Who is refused fails nobody else, and the sender hears of it."""
    refusal = b"550 5.1.1 No such user\r\n"
    with FakeMTA({"rcpt": [b"250 Ok\r\n", refusal, b"250 Ok\r\n"]}) as mta:
        courier = site_with(tmp_path, "all: a@x.example, b@x.example, c@x.example\n", mta.hop)
        mail, about = Message(b"Subject: x\n\nhello\n"), Envelope("e@x.org", "all@example.org")
        status = courier.deliver(mail, about, lambda: True)
        assert str(status) == "550 5.1.1 Not everybody has got it: Refused by the next hop"
        [session] = mta.sessions
        assert session.taken


def test_owner_is_told(tmp_path: Path) -> None:
    """A list with an owner has him as its sender; of what is refused he is told, not the sender."""
    refusal = b"550 5.1.1 No such user\r\n"
    aliases = "all: a@x.example, b@x.example, nobody\nowner-all: ann\n"
    with FakeMTA({"rcpt": [refusal, b"250 Ok\r\n", b"250 Ok\r\n"]}) as mta:
        courier = site_with(tmp_path, aliases, mta.hop)
        assert deliver(courier, "all@example.org") == "250"
        message, report = mta.sessions
    assert b"MAIL FROM:<owner-all@example.org>" in b"\n".join(message.commands)
    assert b"MAIL FROM:<>" in b"\n".join(report.commands)
    assert b"RCPT TO:<owner-all@example.org>" in b"\n".join(report.commands)
    assert b"a@x.example: 550 5.1.1" in report.data
    assert b"nobody@example.org: 550 5.1.1" in report.data
    assert b"b@x.example" not in report.data


def test_bounce_to_a_list(tmp_path: Path) -> None:
    """The null sender stays null, no owner is told of a report, and it is not lost in silence."""
    aliases = "all: a@x.example, nobody\nowner-all: ann\n"
    with FakeMTA() as mta:
        courier = site_with(tmp_path, aliases, mta.hop)
        mail = Message(b"Subject: x\n\nhello\n")
        status = courier.deliver(mail, Envelope("", "all@example.org"), lambda: True)
        assert str(status).startswith("550 5.1.1 Not everybody")
        [session] = mta.sessions
    assert b"MAIL FROM:<>" in b"\n".join(session.commands)


def test_back_to_a_list(tmp_path: Path) -> None:
    """A message that a list has sent, and that comes back to it, is in a loop (P37)."""
    with FakeMTA() as mta:
        courier = site_with(tmp_path, "all: a@x.example\n", mta.hop, kept=True)
        assert deliver(courier, "all@example.org") == "250"
        [session] = mta.sessions
        back = Message.from_wire(session.data.removesuffix(b".\r\n"))
        about = Envelope("eve@example.net", "all@example.org")
        assert str(courier.deliver(back, about, lambda: True)).startswith("554 5.4.6 ")
        assert len(mta.sessions) == 1


def test_circle_that_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A loop of aliases puts mail off at first; when nobody mends it, it is refused (P35)."""
    courier = site_with(tmp_path, "a: b\nb: a\n")
    assert courier.check("a@example.org").code == 451
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 2 * pipeline.PATIENCE)
    assert str(courier.check("a@example.org")).startswith("554 5.4.6 ")
    assert courier.check("b@example.org").code == 451


def test_comes_again_too_soon(make: Make, tmp_path: Path) -> None:
    """A message that comes again while it is on its way waits for the end of that (P10)."""
    (tmp_path / "state").mkdir()
    told: list[str] = []

    def fence() -> bool:
        if not told:
            told.append(deliver(courier, "all@example.org"))
        return True

    courier = make("127.0.0.1:1")
    mail = Message(b"Message-ID: <1@x>\nSubject: x\n\nhello\n")
    assert courier.deliver(mail, Envelope("eve@example.net", "all@example.org"), fence).ok
    assert told == ["451"]
    assert [len(stored(tmp_path, user)) for user in ("ann", "bob")] == [1, 1]


def test_own_rules_of_who_is_an_alias(tmp_path: Path) -> None:
    """What the rules of a user did is not done again because an alias of the name has more."""
    courier = site_with(tmp_path, "bob: bob, carl@x.example\n", "127.0.0.1:1")
    rules = tmp_path / "mail/example.org/bob/.mdaflow/rules"
    rules.parent.mkdir()
    rules.write_text('also deliver to "A" forward to "b@x.example"')
    rules.chmod(0o600)
    for _ in range(3):
        with FakeMTA({"dot": b"451 4.3.0 later\r\n"}) as mta:
            courier._site = replace(
                courier._site, config=replace(courier._site.config, next_hop=mta.hop)
            )
            assert deliver(courier, "bob@example.org") == "451"
    home = tmp_path / "mail/example.org/bob/Maildir"
    assert len([*home.glob(".A/new/*")]) == 1
    assert not [*home.glob("new/*")]


@pytest.mark.parametrize("kind", ["catch-all", "expression", "list"])
def test_turns(tmp_path: Path, kind: str) -> None:
    """However many recipients a sender thinks of, they share the turns of what they stand for."""
    tables = {
        "catch-all": ("virtual", "@example.org ann"),
        "expression": ("regexp", "/^x/ ann, bob"),
        "list": ("aliases", "x: ann, bob"),
    }
    form, text = tables[kind]
    (tmp_path / "table").write_text(text)
    courier = site_with(tmp_path, "sales: ann\n")
    config = replace(courier._site.config, aliases=(f"{form}:{tmp_path}/table",))
    courier = Courier(open_site(config, MemoryStore()))
    for name in ("x+1", "x+2", "x"):
        assert courier.check(f"{name}@example.org").ok
    turns = {courier.whose(f"{name}@example.org") for name in ("x+1", "x+2", "x")}
    assert len(turns) == 1
    assert courier.whose("bob@example.org") == "bob@example.org"
