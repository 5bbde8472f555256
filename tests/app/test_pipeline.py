"""The whole way of a message below the server: routed, judged, stored, logged."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from mdaflow.app import carry, pipeline
from mdaflow.app.build import Site, open_site
from mdaflow.app.config import Config, Folders, Log, Rules
from mdaflow.app.log import set_up
from mdaflow.errors import ConfigError, Status
from mdaflow.mail.envelope import Envelope
from mdaflow.mail.message import Message
from mdaflow.route.users import Account, User
from mdaflow.store.memory import MemoryStore

MAIL = Message(b"Subject: hello\nMessage-ID: <1@x>\n\nbody\n")
MakeSite = Callable[..., Site]


@pytest.fixture
def site(tmp_path: Path) -> MakeSite:
    """Makes a site for bob@example.org, with rules by stage, and its log in a file."""
    (tmp_path / "mail/example.org/bob").mkdir(parents=True)

    def make(before: str = "", user: str = "", after: str = "", form: str = "text") -> Site:
        for stage, text in (("before", before), ("after", after)):
            (tmp_path / stage).mkdir(exist_ok=True)
            (tmp_path / stage / "1.rules").write_text(text)
        write_rules(tmp_path, user)
        log = Log(to=str(tmp_path / "log"), format=form)  # type: ignore[arg-type]
        set_up(log)
        rules = Rules(before=f"{tmp_path}/before", after=f"{tmp_path}/after")
        users = (Folders(f"{tmp_path}/mail"),)
        config = Config(hostname="mx.example.org", users=users, rules=rules, log=log)
        return open_site(config, MemoryStore())

    return make


@pytest.fixture(autouse=True)
def _quiet_afterwards() -> object:
    yield
    log = logging.getLogger("mdaflow")
    for handler in log.handlers:
        handler.close()
    log.handlers[:] = []
    log.propagate = True


def write_rules(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "mail/example.org/bob/.mdaflow/rules"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(0o600)
    return path


def send(site: Site, to: str = "bob@example.org", **more: object) -> Status:
    envelope = Envelope("ann@example.com", to, **more)  # type: ignore[arg-type]
    return pipeline.deliver_message(site, MAIL, envelope)


def stored(tmp_path: Path) -> list[str]:
    home = tmp_path / "mail/example.org/bob"
    found = [p for sub in ("new", "cur") for p in home.rglob(f"{sub}/*")]
    return sorted(str(p.parent.relative_to(home)) for p in found)


def log_lines(tmp_path: Path) -> list[str]:
    return (tmp_path / "log").read_text().splitlines()


def test_three_stages(site: MakeSite, tmp_path: Path) -> None:
    """What the site's before and the user leave open, the site's after decides."""
    here = site(
        'also deliver to "Archive"', "rule when size > 1M { discard }", 'deliver to "After"'
    )
    assert send(here).text.endswith("Saved to Archive, After")
    assert stored(tmp_path) == ["Maildir/.After/new", "Maildir/.Archive/new"]


def test_separator_of_folders(site: MakeSite, tmp_path: Path) -> None:
    """Where a dot divides levels, what the mail says makes none, and a slash is in no name."""
    rules = 'also deliver to "lists.{subject}" also deliver to "a/b" if folder "lists.x" exists {}'
    here = site(user=rules)
    users = replace(here.users[0], mailbox="maildir:Maildir:SEPARATOR=.")
    here.router.tables = here.router.tables._replace(users=(users,))
    message = Message(b"Subject: x.y\n\n")
    status = pipeline.deliver_message(here, message, Envelope("ann@example.com", "bob@example.org"))
    assert status.text.endswith("Saved to lists.x-y, INBOX")
    notice = ["Maildir/new"]
    assert stored(tmp_path) == ["Maildir/.lists.x-y/new", "Maildir/new", *notice]
    assert "bad folder name 'a/b'" in log_lines(tmp_path)[-1]


def test_final_action_of_before_ends_all(site: MakeSite, tmp_path: Path) -> None:
    """What the site decides first, the user's rules never see."""
    assert send(site('reject "not here"', 'deliver to "Mine"')) == Status(550, "5.7.1", "not here")
    assert stored(tmp_path) == []


def test_line_of_the_log(site: MakeSite, tmp_path: Path) -> None:
    """One line a recipient says what became of it, and by which rule."""
    here = site(user='rule "Greetings" when subject is "hello" {\n  deliver to "Hi"\n}')
    send(here, queue_id="4XyZ", received=0.0)
    [line] = log_lines(tmp_path)
    assert ": 4XyZ: to=<bob@example.org>, from=<ann@example.com>, message-id=<1@x>, " in line
    assert 'rule="Greetings" (rules:2), ' in line
    assert line.endswith("dsn=2.0.0, status=delivered (maildir Hi)")


def test_log_as_json(site: MakeSite, tmp_path: Path) -> None:
    """The same fields as JSON, with control characters escaped."""
    send(site('reject "no\\nway"', form="json"), "bob@example.org", queue_id="\x1b[2J")
    [line] = log_lines(tmp_path)
    entry = json.loads(line)
    assert (entry["status"], entry["dsn"], entry["reason"]) == ("rejected", "5.7.1", "no way")
    assert entry["queue_id"] == "\x1b[2J"
    assert "\x1b" not in line


def test_no_control_characters_in_the_log(site: MakeSite, tmp_path: Path) -> None:
    """Nothing from outside can begin a line of the log or move its reader's cursor (P50)."""
    here = site()
    envelope = Envelope("a\r\nb@x\x1b[1m\u2028", "bob@example.org", queue_id="q\n")
    assert pipeline.deliver_message(here, MAIL, envelope).ok
    [line] = log_lines(tmp_path)
    assert line.isprintable()
    assert "from=<a\\r\\nb@x\\x1b[1m\\u2028>" in line


def test_no_lines_of_users_in_the_log(site: MakeSite, tmp_path: Path) -> None:
    """What a user wrote into his rules cannot look like a line of the log."""
    forged = "2026-11-21 10:00:00,000 mdaflow/lmtp[1]: Q: to=<x>"
    here = site(user=f'flag "a\\n{forged}\\u{{1b}}[2J"')
    assert send(here).ok
    lines = log_lines(tmp_path)
    assert "unknown flag" in lines[0]
    assert all(line.isprintable() for line in lines)
    assert not [line for line in lines if line.startswith(forged)]


def test_unknown_user(site: MakeSite, tmp_path: Path) -> None:
    """Nobody of that name is a permanent refusal, and makes no folder."""
    here = site()
    assert str(pipeline.Courier(here).check("eve@example.org")).startswith("550 5.1.1 ")
    assert send(here, "eve@example.org").code == 451  # was accepted, so may come back
    assert sorted(os.listdir(tmp_path / "mail/example.org")) == ["bob"]


def test_mail_root_away(site: MakeSite, tmp_path: Path) -> None:
    """When the folder of all users is not there, nobody is unknown: the mail can wait."""
    here = site()
    (tmp_path / "mail").rename(tmp_path / "elsewhere")
    assert send(here).code == 451
    assert not (tmp_path / "mail").exists()


def test_empty_mail_root(site: MakeSite, tmp_path: Path) -> None:
    """An empty folder may be the mount point of a disk that is away: nobody is unknown."""
    here = site()
    (tmp_path / "mail").rename(tmp_path / "elsewhere")
    (tmp_path / "mail").mkdir()
    assert pipeline.Courier(here).check("bob@example.org").code == 451


def test_log_that_cannot_be_written(
    site: MakeSite, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A log that was rotated away into nowhere delays no mail; its lines go to standard error."""
    here = site()
    send(here)
    (tmp_path / "log").rename(tmp_path / "log.1")
    (tmp_path / "log").mkdir()  # cannot be opened for writing, not even by root
    assert send(here).ok
    assert send(here).ok
    assert capsys.readouterr().err.count("status=delivered (maildir INBOX)") == 2
    assert len(stored(tmp_path)) == 3


def test_forged_fields_of_the_log(site: MakeSite, tmp_path: Path) -> None:
    """What a sender wrote cannot look like fields of ours."""
    mail = Message(b"Message-ID: <a>, size=1, dsn=5.7.1, status=rejected (x)\n\n")
    pipeline.deliver_message(site(), mail, Envelope("a> b=<c@x", "bob@example.org"))
    [line] = log_lines(tmp_path)
    assert line.count(" size=") == line.count(" dsn=") == line.count(" status=") == 1
    assert "from=<a\\x3e\\x20b=\\x3cc@x>, " in line


def test_bug_is_temporary(site: MakeSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception that nobody thought of is 451, tells the peer nothing, and is logged."""

    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr(carry, "decide", broken)
    assert send(site()) == Status(451, "4.3.0", "Internal error, try again later")
    assert "ZeroDivisionError: secret" in (tmp_path / "log").read_text()
    assert log_lines(tmp_path)[-1].endswith(
        "status=deferred (Internal error, try again later: internal error)"
    )


def test_too_late(site: MakeSite, tmp_path: Path) -> None:
    """Behind a closed fence nothing is stored, and nothing is left."""
    here = site(user='also deliver to "A" deliver to "B"')
    status = pipeline.deliver_message(here, MAIL, Envelope("", "bob@example.org"), lambda: False)
    assert status.code == 451
    home = tmp_path / "mail/example.org/bob"
    files = {p.name for p in home.rglob("*") if p.is_file()}
    assert files == {"rules", "maildirfolder"}


def test_defer(site: MakeSite, tmp_path: Path) -> None:
    """A message that a rule defers is not stored, not even by the copies before it."""
    status = send(site('also deliver to "A" defer "come back"'))
    assert status == Status(451, "4.7.1", "come back")
    assert stored(tmp_path) == []


def test_discard(site: MakeSite, tmp_path: Path) -> None:
    """A discarded message is accepted, and gone but for its copies."""
    assert send(site(user='also deliver to "A" discard')).text.endswith("Discarded")
    assert stored(tmp_path) == ["Maildir/.A/new"]


def test_error_in_the_rules_of_a_user(site: MakeSite, tmp_path: Path) -> None:
    """What a user's rules planned before an error is dropped; the mail is in the inbox."""
    here = site('flag "\\\\Seen"', 'also deliver to "A" reject "x"')
    config = here.config
    granted = replace(config.rules, grant=("reject",))
    here = open_site(replace(config, rules=granted), MemoryStore())
    assert send(here).text.endswith("Saved to INBOX")
    # with the flag that the site set before, and a notice
    assert stored(tmp_path) == ["Maildir/cur", "Maildir/new"]
    assert (
        "a reject after an action of the same rules; kept in the inbox"
        in (tmp_path / "log").read_text()
    )


def test_error_in_the_rules_of_the_site(site: MakeSite, tmp_path: Path) -> None:
    """A rule of the site that fails holds the mail: it opens no gate."""
    assert send(site('also deliver to "A" reject "x"')).code == 451
    assert stored(tmp_path) == []


def test_user_may_not_reject(site: MakeSite, tmp_path: Path) -> None:
    """What users were not granted makes their file one that does not compile."""
    assert send(site(user='reject "no"')).text.endswith("Saved to INBOX")
    assert "'reject' is not allowed in these rules" in (tmp_path / "log").read_text()


def test_broken_rules_of_the_site(site: MakeSite) -> None:
    """A site's file that does not compile stops the start, and names the place."""
    with pytest.raises(ConfigError, match=r"1\.rules:1:9: unexpected 'nowhere'"):
        site("deliver nowhere")


def test_trace_header(site: MakeSite, tmp_path: Path) -> None:
    """Before the bytes of the message stand our fields, and nothing else changed."""
    send(site(), original="root@example.org", peer="mx")
    [path] = (tmp_path / "mail/example.org/bob/Maildir/new").iterdir()
    ours, _, rest = path.read_bytes().partition(b"Subject:")
    assert b"Subject:" + rest == MAIL.raw
    assert [line.split(b":")[0] for line in ours.splitlines() if line[:1] != b"\t"] == [
        b"Return-Path",
        b"Delivered-To",
        b"X-Original-To",
        b"Received",
    ]


def test_check_of_the_courier(site: MakeSite) -> None:
    """At RCPT: known, known with detail and in capitals, unknown, no name at all."""
    courier = pipeline.Courier(site())
    answers = {
        address: courier.check(address).enhanced
        for address in ("bob@example.org", "BOB+x@EXAMPLE.ORG", "eve@example.org", '"../x"@e', "@")
    }
    assert list(answers.values()) == ["2.1.5", "2.1.5", "5.1.1", "5.1.1", "5.1.1"]


class Again:
    """A message that was delivered, and may come again."""

    def __init__(self, site: Site, tmp_path: Path) -> None:
        (tmp_path / "state").mkdir()
        self.site = replace(site, config=replace(site.config, state=str(tmp_path / "state")))
        self.courier = pipeline.Courier(self.site)

    def deliver(self, raw: bytes = MAIL.raw, **other: str) -> Status:
        envelope = replace(Envelope("ann@example.com", "bob@example.org"), **other)  # type: ignore[arg-type]
        return self.courier.deliver(Message(raw), envelope, lambda: True)

    def unconfirmed(self) -> None:
        self.courier.unconfirmed(MAIL, Envelope("ann@example.com", "bob@example.org"))


def test_comes_again(site: MakeSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A message whose peer did not know that it was delivered is not delivered again (P10)."""
    again = Again(site(), tmp_path)
    assert again.deliver().ok
    again.unconfirmed()
    monkeypatch.setattr(carry, "decide", None)  # no rules run
    assert again.deliver() == Status(250, "2.0.0", "was delivered before")
    assert stored(tmp_path) == ["Maildir/new"]
    line = log_lines(tmp_path)[-1]
    assert "to=<bob@example.org>, from=<ann@example.com>, message-id=<1@x>, " in line
    assert line.endswith("dsn=2.0.0, status=delivered (was delivered before)")


def test_others_come(site: MakeSite, tmp_path: Path) -> None:
    """Another message, sender or recipient than the one that is known is delivered."""
    again = Again(site(), tmp_path)
    again.deliver()
    again.unconfirmed()
    for other in ({"sender": ""}, {"recipient": "bob+x@example.org"}):
        assert "Saved to" in again.deliver(**other).text
    assert "Saved to" in again.deliver(MAIL.raw + b"x").text
    assert len(stored(tmp_path)) == 4


def test_nobody_asks_the_store(
    site: MakeSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As long as nothing failed, nobody asks whether a message was here before."""
    again = Again(site(), tmp_path)

    asked: list[str] = []
    monkeypatch.setattr(again.site.answers.store, "get", asked.append)  # it has nothing
    assert again.deliver().ok
    assert not [key for key in asked if key.startswith("done ")]


def test_whose_turn(site: MakeSite) -> None:
    """However somebody is written to, it is the same user."""
    courier = pipeline.Courier(site())
    names = ("bob@example.org", "Bob+lists@Example.ORG", "BOB+@example.org", "bob@example.net")
    assert [courier.whose(name) for name in names] == ["bob@example.org"] * 3 + ["bob@example.net"]


@pytest.mark.parametrize(("away", "expected"), [(0, 250), (1, 451)])
def test_account(site: MakeSite, tmp_path: Path, away: int, expected: int) -> None:
    """Mail of an account of the machine is delivered by that account; by another process its
    rules are not even read (P22)."""
    here = site(user='deliver to "ruled"\n')
    home = tmp_path / "mail/example.org/bob"
    account = Account("bob", os.geteuid() + away, os.getegid(), str(home))
    bob = User("bob@example.org", str(home), "maildir:Maildir", account=account)
    envelope = Envelope("ann@example.com", "bob@example.org")
    assert pipeline.deliver_message(here, MAIL, envelope, user=bob).code == expected
    assert (home / "Maildir").exists() == (expected == 250)


@pytest.mark.parametrize(
    ("detail", "folder"),
    [
        ("Board", "Maildir/.Board/new"),
        ("BOARD", "Maildir/new"),
        ("NEWS", "Maildir/.news/new"),
        ("none", "Maildir/new"),
        ("..", "Maildir/new"),
    ],
)
def test_detail_folders(site: MakeSite, tmp_path: Path, detail: str, folder: str) -> None:
    """Where the site wants it, a detail chooses among the folders that a user has."""
    for name in ("Board", "news"):
        (tmp_path / f"mail/example.org/bob/Maildir/.{name}/cur").mkdir(parents=True)
    here = site(user='rule when subject is "other" { deliver to "Other" }')
    assert not here.config.detail_folders
    here = open_site(replace(here.config, detail_folders=True), MemoryStore())
    assert send(here, f"bob+{detail}@example.org").code == 250
    assert stored(tmp_path) == [folder]
