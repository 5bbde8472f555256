"""What users allow and block themselves, and what the site allows: no spam to any rule."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from here import ANN, BOB, RAW, Here

from mdaflow.app.answers import NO_SPAM, Answers
from mdaflow.app.config import Config
from mdaflow.app.decide import decide, stages_for
from mdaflow.app.personal_lists import MAX_FILE, personal_stage
from mdaflow.engine.context import Fact
from mdaflow.engine.plan import Plan
from mdaflow.errors import ConfigError, TempFail
from mdaflow.lang.subjects import SUBJECTS
from mdaflow.mail.envelope import Envelope
from mdaflow.mail.message import Message
from mdaflow.route.users import Account, User
from mdaflow.store.memory import MemoryStore

FRED = b"From: fred@friends.example.net\n\nbody\n"


def bob(here: Here) -> User:
    return User(BOB, str(here.home), "maildir:Maildir")


def write(here: Here, name: str, text: str) -> Path:
    path = here.home / ".mdaflow" / name
    new = path.with_name(f"{name}~")
    new.write_text(text)
    new.chmod(0o600)
    new.replace(path)
    return path


def planned(here: Here, raw: bytes = RAW, sender: str = ANN, **more: Any) -> Plan:
    programs = stages_for(here.site, bob(here))
    return decide(here.site, programs, Message(raw), Envelope(sender, BOB), user=bob(here), **more)


def folder(here: Here, raw: bytes = RAW, sender: str = ANN) -> str:
    [action] = planned(here, raw, sender).actions
    return action.folder or "INBOX"


# blocked


@pytest.mark.parametrize(
    ("entry", "blocked"),
    [
        ("ann@example.com", True), ("ANN@Example.COM", True), ("@example.com", True),
        (".com", True), (".example.com", True), ("ann@", True), ("# ann@", False),
        ("@com", False), ("bob@example.com", False), ("a@", False), ("", False),
    ],
)  # fmt: skip
@pytest.mark.parametrize("where", ["envelope", "From"])
def test_blocked(entry: str, blocked: bool, where: str, here: Here) -> None:
    """Mail of a blocked sender, by envelope or From, is in Junk before any rule of the user."""
    write(here, "block", f"other@example.net\n{entry}\n")
    here.set('deliver to "mine"')
    raw, sender = (FRED, ANN) if where == "envelope" else (RAW, "fred@friends.example.net")
    assert folder(here, raw, sender) == ("Junk" if blocked else "mine")


def test_bounce(here: Here) -> None:
    """The null sender is in no list; the author of a bounce may be."""
    write(here, "block", "mailer-daemon@")
    assert folder(here, b"From: mailer-daemon@x\n\n", "") == "Junk"
    assert folder(here, sender="") == "INBOX"


def test_after_the_site(here: Here) -> None:
    """What the site has decided stays so, blocked or allowed."""
    write(here, "block", ANN)
    write(here, "allow", "@example.net")
    here.set(before='if subject is "hello" { reject "no" }')
    assert planned(here).outcome == "rejected"
    assert planned(here, RAW, "x@example.net").outcome == "rejected"


def test_blocked_and_allowed(here: Here) -> None:
    """Who is in both lists is allowed, by whatever entries; the user's rules run."""
    write(here, "block", "@example.com")
    write(here, "allow", ANN)
    here.set('deliver to "mine"')
    assert folder(here) == "mine"
    assert folder(here, FRED, "eve@example.com") == "Junk"


def test_delivered(here: Here) -> None:
    """A blocked message is stored in Junk, and the log names the list."""
    write(here, "block", ANN)
    assert here.send().code == 250
    assert here.folders == {"Junk": 1}
    assert (here.entry["rule"], here.entry["where"]) == ("block", "block:1")


def test_trace(here: Here) -> None:
    """A dry run shows what the lists said, and where they are."""
    path = write(here, "block", ANN)
    write(here, "allow", "@example.net")
    events = [(e.span.file, e.text, e.values, e.result) for e in planned(here, trace=True).trace]
    said = [(os.path.basename(file), text, result) for file, text, _, result in events]
    assert ("allow", "from in allow", False) in said
    assert ("block", "envelope.from in block", True) in said
    assert (str(path), 'deliver to "Junk"', None, None) in events


# allowed

SPAM = 'if spam { deliver to "spam" }\nif spam.score > 1 or spam.symbols contains "X" { discard }'


@pytest.mark.parametrize("stage", ["before", "user", "after"])
@pytest.mark.parametrize("who", ["site", "user", "nobody"])
def test_allowed(stage: str, who: str, here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    """What site or user allow is no spam to any rule, whatever a scanner would say."""
    scanned = {"spam": [True], "spam.score": [9.0], "spam.symbols": ["X"]}
    providers = {name: lambda answers, fact, about: scanned[fact.name] for name in scanned}
    monkeypatch.setattr("mdaflow.app.answers._PROVIDERS", providers)
    here.set(**{stage: SPAM})
    if who == "user":
        write(here, "allow", ".EXAMPLE.com")
    envelope, user = Envelope(ANN.upper(), BOB, allowed=who == "site"), bob(here)
    programs = stages_for(here.site, user)
    [action] = decide(here.site, programs, Message(RAW.upper()), envelope, user=user).actions
    assert action.folder == ("spam" if who == "nobody" else "")


def test_facts_of_spam() -> None:
    """All that rules can ask about spam has an answer for what is allowed; all else has not."""
    assert set(NO_SPAM) == {name for name in SUBJECTS if name.split(".")[0] == "spam"}
    answers = Answers(MemoryStore())
    for name in SUBJECTS:
        fact = Fact(name, Message(RAW), Envelope(ANN, BOB, allowed=True), ("x",))
        if SUBJECTS[name].asked and name != "duplicate":
            wanted = {"known_sender": [True], "ambiguous": [False], **NO_SPAM}.get(name)
            assert answers(fact) == wanted


def test_allowed_as_it_came(here: Here) -> None:
    """Who is allowed is said by the message as it came, not by what rules made of it."""
    write(here, "allow", "x@example.net")
    fact = Fact("spam.status", Message(b"From: x@example.net\n\n"), Envelope(ANN, BOB))
    allowed = NO_SPAM["spam.status"]
    ask = here.site.answers.about(bob(here), really=False, message=Message(RAW))
    assert ask(fact) != allowed
    assert here.site.answers.about(bob(here), really=False)(fact) == allowed


# files


def test_changed(here: Here) -> None:
    """A changed, new or removed list is in force with the next message."""
    assert folder(here) == "INBOX"
    write(here, "block", ANN)
    assert folder(here) == "Junk"
    allow = write(here, "allow", "@example.com")
    assert folder(here) == "INBOX"
    allow.unlink()
    assert folder(here) == "Junk"
    (here.home / ".mdaflow/block").unlink()
    assert folder(here) == "INBOX"
    write(here, "block", "@example.com")
    assert folder(here) == "Junk"


def test_kept(here: Here) -> None:
    """Lists are read once for each version."""
    write(here, "block", ANN)
    user = bob(here)
    assert personal_stage(here.site, user) is personal_stage(here.site, user)


def test_no_lists(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has no lists costs two looks at the disk."""
    looks: list[str] = []
    real = os.lstat

    def look(path: Any, **more: Any) -> os.stat_result:
        looks.append(os.path.basename(path))
        return real(path, **more)

    site = here.site
    monkeypatch.setattr(os, "lstat", look)
    assert personal_stage(site, bob(here)) is None
    assert looks == ["allow", "block"]
    write(here, "allow", "# nobody yet")
    assert personal_stage(here.site, bob(here)) is None


@pytest.mark.parametrize("spoil", ["shared", "binary", "long", "link", "linked", "fifo", "folder"])
def test_broken(spoil: str, here: Here) -> None:
    """A list that must not count is told once, and passed over; the other one counts."""
    write(here, "allow", "fred@")
    path = write(here, "block", ANN)
    if spoil == "shared":
        path.chmod(0o666)
    elif spoil == "binary":
        path.write_bytes(b"\xff\xfe")
    elif spoil == "long":
        path.write_bytes(b"#" * (MAX_FILE + 1))
    elif spoil == "linked":
        os.link(path, here.home / "other")
    else:
        path.unlink()
    if spoil == "link":
        (here.home / "list").write_text(ANN)
        path.symlink_to(here.home / "list")
    elif spoil == "fifo":
        os.mkfifo(path)
    elif spoil == "folder":
        path.mkdir()
    told: list[str] = []
    for _ in range(2):
        stages_for(here.site, bob(here), told.append)
    [line] = told
    assert line.startswith(f"{path}: ")
    assert line.endswith(", so it is ignored")
    assert folder(here) == "INBOX"
    assert here.site.answers.personal.allows(bob(here), Message(FRED), Envelope(ANN, BOB))


def test_no_address(here: Here) -> None:
    """An entry that can match nothing is told, and the others count."""
    path = write(here, "block", f"example.org\n@\nann\n{ANN}\n.")
    told: list[str] = []
    stages_for(here.site, bob(here), told.append)
    assert told == [
        f"{path}: 'example.org' is no address (and 3 more): a domain is written @example.org"
    ]
    assert folder(here) == "Junk"


def test_unreadable_now(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a disk does not give now is no reason to decide anything."""
    write(here, "allow", ANN)
    real = os.open

    def fail(path: Any, *rest: Any, **more: Any) -> int:
        if str(path).endswith("allow"):
            raise OSError(5, "Input/output error")
        return real(path, *rest, **more)

    here.site  # noqa: B018  # it is open
    monkeypatch.setattr(os, "open", fail)
    with pytest.raises(TempFail):
        personal_stage(here.site, bob(here))


def test_home_of_somebody_else(here: Here) -> None:
    """In a home that belongs to somebody else there is no list of the user."""
    write(here, "block", ANN)
    if os.geteuid() == 0:
        os.chown(here.home, 4242, -1)
    other = os.stat(here.home).st_uid + 1
    account = Account("bob", other, other, str(here.home))
    assert personal_stage(here.site, bob(here)) is not None
    assert personal_stage(here.site, replace(bob(here), account=account)) is None


def test_large_lists(here: Here) -> None:
    """A list as large as it may be is looked up as a small one."""
    lines = "".join(f"u{n:05}@e.example\n" for n in range(MAX_FILE // 18))
    write(here, "block", lines)
    assert folder(here, RAW, "u00007@e.example") == "Junk"
    assert folder(here, RAW, "u@e.example") == "INBOX"


# the site's own table


def test_access_of_the_site(tmp_path: Path) -> None:
    """The site knows its table; what is wrong in it is told before anything is served."""
    from mdaflow.app.build import open_site
    from mdaflow.mail.envelope import NOBODY

    table = tmp_path / "tables/access"
    table.parent.mkdir(mode=0o755)
    table.write_text("To:bob-x@ REJECT\nFrom:org PERHAPS\n")
    table.chmod(0o644)
    config = Config(state=str(tmp_path / "state"), access=(str(table),), recipient_delimiter="-")
    with pytest.raises(ConfigError, match=f"{table}:2: 'PERHAPS' is none of"):
        open_site(config)
    table.write_text("To:bob@ REJECT\n")
    access = open_site(config, MemoryStore()).directory.access
    assert access is not None
    found = access.judge(NOBODY, "", "bob-y@example.org")
    assert found is not None
    assert found.where == f"{table}:1"
    assert open_site(Config(), MemoryStore()).directory.access is None
