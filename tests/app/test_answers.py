"""Who answers what rules ask: programs, lists in files, folders, memory."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from here import BOB, RAW, Here

from mdaflow.app import answers
from mdaflow.app.answers import Answers
from mdaflow.app.decide import decide, stages_for
from mdaflow.engine.context import Fact
from mdaflow.engine.plan import Unanswerable
from mdaflow.errors import TempFail
from mdaflow.mail.envelope import Envelope
from mdaflow.mail.message import Message
from mdaflow.route.users import User
from mdaflow.store.memory import MemoryStore

MAIL = Message(RAW)
ENVELOPE = Envelope("ann@example.com", BOB)


def fact(name: str, *arguments: str, owner: str = "user", within: float = 0.0) -> Fact:
    return Fact(name, MAIL, ENVELOPE, arguments, owner, within)


def bob(tmp_path: Path) -> User:
    return User(BOB, str(tmp_path), "maildir:Maildir")


# lists in the DNS


class Lists:
    """In the place of Dns, with what lists say."""

    def __init__(self, said: dict[str, bool | None]) -> None:
        self.said = said
        self.messages: list[Message] = []

    def listed(self, zone: str, message: Message, envelope: Envelope, *, owner: str) -> bool | None:
        assert owner == "user"
        self.messages.append(message)
        return self.said[zone]


def test_listed(here: Here) -> None:
    """Rules ask lists by their zone; what nobody can tell is unknown, and so is all without DNS."""
    here.set(
        'rule when listed in "a.example" { deliver to "no" }\n'
        'set header "X: {subject}"\n'
        'rule when listed in "b.example" { deliver to "never" }\n'
        'rule when listed in "c.example" { deliver to "yes" }'
    )
    here.send()
    assert "listed" not in here.site.answers.provided
    lists: Any = Lists({"a.example": False, "b.example": None, "c.example": True})
    here.site.answers.dns = lists
    here.send()
    assert here.folders == {"INBOX": 1, "yes": 1}
    assert "listed" in here.site.answers.provided
    assert len({id(message) for message in lists.messages}) == 1  # P42 is for all of a message


# lists


def write_list(here: Here, text: str, owner: str = "user") -> Path:
    folder = here.home / ".mdaflow" if owner == "user" else here.root / "before"
    path = folder / "blocked.txt"
    path.write_text(text)
    path.chmod(0o600)
    return path


RULE = 'list blocked from "blocked.txt"\nrule when from in blocked { deliver to "blocked" }'


@pytest.mark.parametrize("owner", ["user", "site"])
def test_list_that_changes(owner: str, here: Here) -> None:
    """A changed list is in force with the next message; its rules stay as they are."""
    write_list(here, "@example.com", owner)
    here.set(RULE) if owner == "user" else here.set(before=RULE)
    site = here.site
    for text, folder in (
        ("@example.com # all of them", "blocked"),
        ("other@example.com", "INBOX"),
        ("ANN@EXAMPLE.COM", "blocked"),
        ("", "INBOX"),
    ):
        write_list(here, text, owner)
        before = here.folders.get(folder, 0)
        here.send()
        assert here.folders[folder] == before + 1
    assert here.site is site
    assert "notices" not in here.folders


@pytest.mark.parametrize("owner", ["user", "site"])
@pytest.mark.parametrize("spoil", ["gone", "shared", "fifo", "binary", "folder", "long"])
def test_list_that_is_none(spoil: str, owner: str, here: Here) -> None:
    """Without its list a user's rule leads to the inbox and a notice, one of the site to 451."""
    path = write_list(here, "x@example.com", owner)
    rule = 'list blocked from "blocked.txt"\nrule when not from in blocked { discard }'
    here.set(rule) if owner == "user" else here.set(before=rule)
    assert here.send().text.endswith("Discarded")
    if spoil == "shared":
        path.chmod(0o666)
    elif spoil == "binary":
        path.write_bytes(b"\xff\xfe")
    elif spoil == "long":
        path.write_bytes(b"#" * (17 << 20))
    else:
        path.unlink()
    if spoil == "fifo":
        os.mkfifo(path)
    elif spoil == "folder":
        path.mkdir()
    status = here.send()
    if owner == "site":
        assert status.code == 451
        assert here.folders == {}
        assert f"1.rules:2:15: the list {path}: " in here.entry["reason"]
    else:
        assert status.text.endswith("Saved to INBOX")
        assert here.folders == {"INBOX": 1, "notices": 1}
        assert "rules:2:15: the list ~/.mdaflow/" in (path.parent / "log").read_text()


@pytest.mark.parametrize("owner", ["user", "site"])
def test_list_that_cannot_be_read_now(
    owner: str, here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a disk does not give now is no reason to decide anything."""
    write_list(here, "x@example.com", owner)
    rule = 'list blocked from "blocked.txt"\nrule when not from in blocked { discard }'
    here.set(rule) if owner == "user" else here.set(before=rule)
    here.site  # noqa: B018  # it is open
    here.send()
    write_list(here, "y@example.com", owner)
    real = os.open

    def fail(path: Any, *rest: Any, **more: Any) -> int:
        if str(path).endswith("blocked.txt"):
            raise OSError(5, "Input/output error")
        return real(path, *rest, **more)

    monkeypatch.setattr(os, "open", fail)
    assert here.send().code == 451
    assert here.folders == {}


def test_list_behind_a_link(here: Here) -> None:
    """A folder on the way to a user's list that became a link is not followed."""
    folder = here.home / ".mdaflow/lists"
    folder.mkdir()
    (folder / "l").write_text("ann@example.com")
    here.set('list l from "lists/l" rule when from in l { discard }')
    assert here.send().text.endswith("Discarded")
    folder.rename(here.home / "elsewhere")
    folder.symlink_to(here.home / "elsewhere")
    assert here.send().text.endswith("Saved to INBOX")
    assert here.folders == {"INBOX": 1, "notices": 1}


def test_large_list(here: Here) -> None:
    """A list with many entries is read once."""
    write_list(here, "\n".join(f"user{n}@example.org" for n in range(100_000)) + "\n@example.com")
    here.set(RULE)
    for _ in range(3):
        here.send()
    assert here.folders == {"blocked": 3}
    path = str(here.home / ".mdaflow/blocked.txt")
    lists = here.site.answers.lists
    assert lists.entries(path, str(here.home)) is lists.entries(path, str(here.home))


def test_list_in_a_relative_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who tries a file of the folder he is in has its lists, too."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "l").write_text("x")
    (tmp_path / "l").chmod(0o600)
    assert Answers(MemoryStore())(fact("list", "l")) == ("x",)
    assert Answers(MemoryStore())(fact("list", "l", owner="site")) == ("x",)


# programs


def test_dry_run(here: Here) -> None:
    """Nothing runs in a dry run, and rules see that nobody knows."""
    here.grant = ("command", "filter")
    here.set(
        'if command ["/bin/sh", "-c", "touch ran"] succeeds { discard }\n'
        'if not command ["/nowhere/x"] succeeds { filter through ["/bin/sh", "-c", "touch ran"] }'
    )
    user = User(BOB, str(here.home), "maildir:Maildir")
    plan = decide(here.site, stages_for(here.site, user), MAIL, ENVELOPE, user=user, trace=True)
    assert plan.outcome == "delivered"
    assert any("(not run)" in event.text for event in plan.trace)
    assert not (here.home / "ran").exists()


@pytest.mark.parametrize(
    ("program", "answer"),
    [
        ("exit 0", [True]),
        ("exit 1", [False]),
        ("exit 75", "ended with 75"),
        ("exit 129", "ended with 129"),
        ("echo 'no\x1b[1m' >&2; exit 75", "ended with 75: no [1m"),
        ("kill -9 $$", "killed by signal 9"),
        ("sleep 60", "longer than 0.1 seconds"),
    ],
)
def test_command(program: str, answer: object, tmp_path: Path) -> None:
    """A command says yes or no by its exit code; what is neither may be over later."""
    ask = Answers(MemoryStore()).about(bob(tmp_path), really=True)
    question = fact("command", "/bin/sh", "-c", program, within=0.1 if "sleep" in program else 9)
    if isinstance(answer, list):
        assert ask(question) == answer
    else:
        with pytest.raises(TempFail) as failed:
            ask(question)
        assert str(answer) in str(failed.value)


def test_extension(tmp_path: Path) -> None:
    """A program that rules ask sees user and detail as the site divides them."""
    asked = fact("filter", "/bin/sh", "-c", 'echo "$USER $EXTENSION"')
    asked = asked._replace(envelope=Envelope("", "bob-x@example.org"))
    ask = Answers(MemoryStore(), "-").about(bob(tmp_path), really=True)
    [found] = ask(asked) or ()
    assert found == b"bob x\n"


@pytest.mark.parametrize("name", ["command", "filter"])
def test_no_program(name: str, tmp_path: Path) -> None:
    """A program that is not there cannot be asked."""
    ask = Answers(MemoryStore()).about(bob(tmp_path), really=True)
    with pytest.raises(Unanswerable, match="there is no program /nowhere/x"):
        ask(fact(name, "/nowhere/x"))


def test_filter_that_gives_too_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A filter that never ends its output is ended."""
    monkeypatch.setattr(answers, "MAX_FILTERED", 100_000)
    ask = Answers(MemoryStore()).about(bob(tmp_path), really=True)
    with pytest.raises(TempFail, match="more than 100,000 bytes"):
        ask(fact("filter", "/bin/cat", "/dev/zero"))


def test_longest_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No rule can let a program run for ever."""
    from mdaflow.deliver import program

    limits: list[float] = []
    real = program.run_program

    def note(*arguments: Any, **more: Any) -> Any:
        limits.append(more["seconds"])
        return real(*arguments, **more)

    monkeypatch.setattr(program, "run_program", note)
    ask = Answers(MemoryStore()).about(bob(tmp_path), really=True)
    for within in (0.0, 5.0, 1e9):
        ask(fact("command", "/bin/true", within=within))
    assert limits == [30.0, 5.0, 600.0]


# what else


@pytest.mark.parametrize("name", ["spam.score", "virus.found", "listed", "spam.bayes", "x"])
def test_unknown(name: str) -> None:
    """What nobody answers is unknown."""
    assert name not in Answers(MemoryStore()).provided
    assert Answers(MemoryStore())(fact(name)) is None


def test_without_a_mailbox() -> None:
    """Without a user nobody knows whether there is a folder."""
    assert Answers(MemoryStore())(fact("folder", "x")) is None


class Down(MemoryStore):
    """A store that is away."""

    def get(self, key: str) -> str | None:
        raise OSError("down")


@pytest.mark.parametrize("name", ["duplicate", "remembered"])
def test_store_away(name: str) -> None:
    """Without the store what was before is unknown."""
    assert Answers(Down())(fact(name, "x")) is None
    assert Answers(MemoryStore())(fact(name, "x")) == [False]
