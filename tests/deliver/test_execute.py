"""A Plan made real: all of its copies, or none."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from boxes import descriptors, messages, tree

from mdaflow import deliver
from mdaflow.deliver import execute, mbox
from mdaflow.deliver.mailbox import Mailbox, Prepared
from mdaflow.engine.plan import Action, Plan
from mdaflow.errors import TempFail
from mdaflow.mail.envelope import Envelope
from mdaflow.mail.message import Message

MAIL = Message(b"Subject: x\n\nhello\n")
FORMATS = ["maildir", "mbox"]


@pytest.fixture(params=FORMATS)
def mailbox(request: pytest.FixtureRequest, tmp_path: Path) -> Mailbox:
    (tmp_path / "home").mkdir()
    return Mailbox(request.param, str(tmp_path / "home"), "Mail", "Mail/inbox")


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """A delivery that waits for its own lock fails at once."""
    monkeypatch.setitem(deliver.FORMATS, "mbox", partial(mbox.prepare, lock_wait=0.0))


def carry_out(mailbox: Mailbox, *actions: Action, fence: bool = True) -> execute.Done:
    envelope = Envelope("ann@example.com", "bob@example.org")
    return execute.execute(Plan(actions), MAIL, envelope, mailbox, fence=lambda: fence)


def also(folder: str, *flags: str, owner: str = "user") -> Action:
    return Action("deliver", folder, flags=frozenset(flags), also=True, owner=owner)


def counts(mailbox: Mailbox, *folders: str) -> list[int]:
    return [len(messages(mailbox, folder)) for folder in folders]


def test_copies(mailbox: Mailbox) -> None:
    """Each copy is stored, and the reply says where."""
    done = carry_out(mailbox, also("b"), also("a/c"), Action("keep"))
    assert (done.status.code, done.outcome, done.trouble) == (250, "delivered", "")
    assert sorted(done.places) == [f"{mailbox.format} {name}" for name in ("INBOX", "a/c", "b")]
    assert counts(mailbox, "", "b", "a/c") == [1, 1, 1]
    assert done.status.text == "Saved to b, a/c, INBOX"


@pytest.mark.parametrize("names", [("INBOX", ""), ("inbox", "Inbox"), ("x", "x")])
def test_one_place_by_two_names(mailbox: Mailbox, names: tuple[str, str]) -> None:
    """Two names of one place are one copy with the flags of both, and never wait for themselves."""
    done = carry_out(mailbox, also(names[0], "\\Seen"), Action("deliver", names[1]))
    assert len(done.places) == 1
    assert counts(mailbox, names[0]) == [1]


def test_one_maildir_by_two_names(tmp_path: Path) -> None:
    """A dot cannot be in the name of a Maildir++ folder: `a.b` and `a-b` are one place."""
    mailbox = Mailbox("maildir", str(tmp_path), "Mail")
    done = carry_out(mailbox, also("a.b", "\\Seen"), also("a-b", "\\Flagged"), Action("discard"))
    assert done.places == ("maildir a-b",)
    (stored,) = tmp_path.glob("Mail/.a-b/cur/*")
    assert stored.name.endswith(":2,FS")


def test_inbox_that_is_a_folder(tmp_path: Path) -> None:
    """An mbox that is both the inbox and a folder is one place."""
    mailbox = Mailbox("mbox", str(tmp_path), "Mail", "Mail/all")
    done = carry_out(mailbox, also("all"), Action("keep"))
    assert (done.places, counts(mailbox, "")) == (("mbox INBOX",), [1])


def test_locks_are_taken_in_one_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the order of the rules, two deliveries never wait for each other's lock."""
    taken: list[str] = []

    def prepare(mailbox: Mailbox, folder: str, *rest: Any) -> Prepared:
        taken.append(folder)
        return mbox.prepare(mailbox, folder, *rest)

    monkeypatch.setitem(deliver.FORMATS, "mbox", prepare)
    mailbox = Mailbox("mbox", str(tmp_path), "Mail", "Mail/inbox")
    carry_out(mailbox, also("b"), also("a"), Action("keep"))
    carry_out(mailbox, also(""), also("a"), Action("deliver", "b"))
    assert taken == ["a", "b", "", "a", "b", ""]


def test_failure_leaves_nothing(mailbox: Mailbox) -> None:
    """When the second copy cannot be stored the first is taken back: the mail can wait (P11)."""
    carry_out(mailbox, Action("deliver", "a"))
    os.symlink("/", Path(mailbox.home, "Mail", ".z" if mailbox.format == "maildir" else "z"))
    before, opened = tree(Path(mailbox.home)), descriptors()
    with pytest.raises(TempFail):
        carry_out(mailbox, also("a"), Action("deliver", "z"))
    assert (tree(Path(mailbox.home)), descriptors()) == (before, opened)


def test_closed_fence(mailbox: Mailbox) -> None:
    """Behind a closed fence nothing is stored, and nothing is left."""
    carry_out(mailbox, also("a"), Action("keep"))
    before, opened = tree(Path(mailbox.home)), descriptors()
    with pytest.raises(TempFail, match="deadline"):
        carry_out(mailbox, also("a"), Action("keep"), fence=False)
    assert (tree(Path(mailbox.home)), descriptors()) == (before, opened)


def test_failed_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When a commit fails, those behind it are taken back, and the mail comes again."""
    mailbox = Mailbox("maildir", str(tmp_path), "Mail")
    real = os.fsync
    calls: list[int] = []
    carry_out(mailbox, also("a"), also("b"), Action("deliver", "c"))
    before = tree(tmp_path)

    def fsync(fd: int) -> None:
        calls.append(fd)
        if len(calls) == 5:  # three messages, the folder of the first, the folder of the second
            raise OSError(5, "Input/output error")
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(TempFail):
        carry_out(mailbox, also("a"), also("b"), Action("deliver", "c"))
    monkeypatch.undo()
    assert counts(mailbox, "a", "b", "c") == [2, 1, 1]
    assert not [name for name in tree(tmp_path) if "/tmp/" in name and name not in before]


def test_bad_folder_of_a_user(mailbox: Mailbox) -> None:
    """A user's folder that can never be is the inbox, once, and that is said."""
    done = carry_out(mailbox, also("../x", "\\Seen"), also("a//b"), Action("keep"))
    assert (done.status.code, done.places) == (250, (f"{mailbox.format} INBOX",))
    assert "kept in the inbox" in done.trouble
    assert counts(mailbox, "") == [1]


def occupied(mailbox: Mailbox) -> None:
    """A mailbox in which something else has the names `x` and `lists`."""
    root = Path(mailbox.home, "Mail")
    (root / "x").mkdir(parents=True)  # mbox: where a file should be
    (root / "lists").write_bytes(b"")
    for name in (".x", ".lists.a"):  # Maildir++
        (root / name).write_bytes(b"")


@pytest.mark.parametrize("folder", ["x", "lists/a"])
def test_name_of_a_folder_is_taken(mailbox: Mailbox, folder: str) -> None:
    """Where a file is in the way of a directory, or the reverse, the message is in the inbox."""
    occupied(mailbox)
    before, opened = tree(Path(mailbox.home)), descriptors()
    done = carry_out(mailbox, Action("deliver", folder, flags=frozenset(["\\Seen"])))
    assert (done.status.code, done.places) == (250, (f"{mailbox.format} INBOX",))
    assert f"no folder '{folder}': " in done.trouble
    assert done.trouble.endswith("kept in the inbox")
    assert (counts(mailbox, ""), descriptors()) == ([1], opened)
    assert before.items() <= tree(Path(mailbox.home)).items()


def test_taken_names_among_others(mailbox: Mailbox) -> None:
    """Whatever was prepared before, each copy is stored once, and two for the inbox are one."""
    occupied(mailbox)
    opened = descriptors()
    folders = ("a", "x", "", "lists/a", "z")
    done = carry_out(mailbox, *(also(folder, "\\Seen") for folder in folders), Action("keep"))
    assert sorted(done.places) == [f"{mailbox.format} {name}" for name in ("INBOX", "a", "z")]
    assert done.trouble.count("kept in the inbox") == 2
    assert (counts(mailbox, "", "a", "z"), descriptors()) == ([1, 1, 1], opened)


def test_inbox_that_is_none(tmp_path: Path) -> None:
    """For an inbox that is no mailbox there is no other place: the mail waits."""
    for mailbox in (Mailbox("maildir", str(tmp_path), "a"), Mailbox("mbox", str(tmp_path), "a/b")):
        (tmp_path / "a").write_bytes(b"")
        for folder in ("", "x"):
            with pytest.raises(TempFail):
                carry_out(mailbox, Action("deliver", folder))
    assert list(tree(tmp_path)) == ["a"]


def test_bad_folder_of_the_site(mailbox: Mailbox) -> None:
    """A folder that can never be is the inbox for a rule of the site, too: no wait would help."""
    done = carry_out(mailbox, Action("deliver", "x" * 300, owner="site"))
    assert done.status.ok
    assert [place.partition(" ")[2] for place in done.places] == ["INBOX"]
    assert "kept in the inbox" in done.trouble


@pytest.mark.parametrize(
    ("action", "code", "text", "outcome"),
    [
        (Action("discard"), 250, "Discarded", "discarded"),
        (Action("reject"), 550, "Rejected by rule", "rejected"),
        (Action("reject", text="no\r\n250 ok \x1b[1m ü " + "x" * 300), 550, None, "rejected"),
        (Action("defer", text="Come\nagain"), 451, "Come again", "deferred"),
    ],
)
def test_replies(
    mailbox: Mailbox, action: Action, code: int, text: str | None, outcome: str
) -> None:
    """What is not stored has its reply: the rule's words, short, on one line of ASCII."""
    done = carry_out(mailbox, action)
    assert (done.status.code, done.outcome, done.places) == (code, outcome, ())
    assert done.status.text == (text or f"no 250 ok [1m ? {'x' * 300}"[:200])
    assert tree(Path(mailbox.home)) == {}


def test_copy_before_a_refusal(mailbox: Mailbox) -> None:
    """A copy that was planned before a refusal is stored; before a deferral it is not."""
    assert carry_out(mailbox, also("a", owner="site"), Action("reject")).status.code == 550
    assert counts(mailbox, "a") == [1]
    before = tree(Path(mailbox.home))
    assert carry_out(mailbox, also("a"), Action("defer")).status.code == 451
    assert tree(Path(mailbox.home)) == before
