"""The quarantine: a message and its envelope, together or not at all."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from boxes import descriptors, tree
from hypothesis import given
from hypothesis import strategies as st

from mdaflow.deliver import maildir, quarantine
from mdaflow.deliver.job import Job, Means
from mdaflow.deliver.mailbox import Mailbox
from mdaflow.deliver.quarantine import component
from mdaflow.engine.plan import Action
from mdaflow.errors import DISK_FULL, INTERNAL, TempFail
from mdaflow.lang.source import Span
from mdaflow.mail.envelope import Client, Envelope
from mdaflow.mail.message import Message
from mdaflow.mail.trace import stored

RAW = b"X-mdaflow-Quarantine: forged\nSubject: x\n\nbody \xff\n"
ENVELOPE = Envelope(
    "ann@example.com", "bob@example.org", "sales@example.org",
    Client("192.0.2.1", "mx.example.com", "helo"), "3Xk9", received=1762003500.5,
)  # fmt: skip
ACTION = Action("quarantine", text="virus", rule="Viruses", span=Span("/x/rules", 3, 5, 3, 15))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "quarantine"
    path.mkdir()
    return path


def job(root: Path | str, envelope: Envelope = ENVELOPE) -> Job:
    means = Means("mx.example.org", quarantine=str(root))
    return Job(Message(RAW), envelope, Mailbox("mbox", "/nonexistent", "mail"), "id1", means)


@pytest.mark.parametrize(
    ("recipient", "user", "name"),
    [
        ("bob+x@example.org", "", "bob@example.org"),
        ("bob+x@example.org", "bob@example.org", "bob@example.org"),
        ("bob+x@example.org", "bob+x@example.org", "bob+x@example.org"),
        ("BOB@example.org", "bob@example.org", "bob@example.org"),
    ],
)
def test_one_folder_for_a_user(root: Path, recipient: str, user: str, name: str) -> None:
    """Details make no folders; who is a user with one has a folder of their own."""
    task = replace(job(root, replace(ENVELOPE, recipient=recipient)), user=user)
    quarantine.prepare(task, ACTION).commit()
    [note] = files(root, f"{name}/envelopes/*")
    assert json.loads(note.read_text())["recipient"] == recipient


def files(root: Path, pattern: str) -> list[Path]:
    return sorted(path for path in root.glob(pattern) if path.is_file())


def everything(root: Path) -> list[Path]:
    return files(root, "**/*")


def test_message_and_envelope(root: Path) -> None:
    """The message is in the recipient's Maildir, and its first line names its envelope."""
    prepared = quarantine.prepare(job(root), ACTION)
    prepared.commit()
    assert prepared.where == "quarantine: virus"
    [message] = files(root, "bob@example.org/new/*")
    [note] = files(root, "bob@example.org/envelopes/*")
    first, _, rest = message.read_bytes().partition(b"\n")
    assert first.decode() == f"X-mdaflow-Quarantine: {note.stem}"
    assert rest.startswith(b"Return-Path: <ann@example.com>\nDelivered-To: bob@example.org\n")
    assert rest.endswith(b"\nSubject: x\n\nbody \xff\n")
    assert b"forged" not in rest
    assert json.loads(note.read_text()) == {
        "sender": "ann@example.com",
        "recipient": "bob@example.org",
        "original": "sales@example.org",
        "client": {"ip": "192.0.2.1", "name": "mx.example.com", "helo": "helo"},
        "received": 1762003500.5,
        "queue_id": "3Xk9",
        "why": "virus",
        "rule": "Viruses",
        "where": "/x/rules:3:5",
    }


def test_release_takes_the_field_out(root: Path) -> None:
    """A message that is delivered again has no trace of the quarantine."""
    quarantine.prepare(job(root), ACTION).commit()
    [message] = files(root, "*/new/*")
    again = b"".join(stored(Message(message.read_bytes()), b""))
    assert again.startswith(b"Delivered-To: bob@example.org\n")
    assert again.endswith(b"Subject: x\n\nbody \xff\n")


def test_message_as_changed(root: Path) -> None:
    """A message that rules have changed is kept as it was when this was planned."""
    quarantine.prepare(job(root), Action("quarantine", message=Message(b"A: b\n\nnew\n"))).commit()
    [message] = files(root, "*/new/*")
    assert message.read_bytes().endswith(b"\nA: b\n\nnew\n")


def test_modes(root: Path) -> None:
    """Nobody else can read what is in quarantine."""
    quarantine.prepare(job(root), ACTION).commit()
    modes = {mode for mode, _ in tree(root).values()}
    assert modes == {"drwx------", "-rw-------"}


def test_envelope_comes_first(root: Path) -> None:
    """Before the commit the envelope is whole and the message not yet to be seen."""
    prepared = quarantine.prepare(job(root), ACTION)
    [note] = files(root, "*/envelopes/*")
    assert json.loads(note.read_text())["why"] == "virus"
    assert files(root, "*/new/*") == []
    prepared.abort()
    assert everything(root) == []


def test_synced_before_visible(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Envelope and directory are on the disk before the message is renamed into view."""
    calls: list[str] = []
    fsync, rename = os.fsync, maildir._rename

    def synced(fd: int) -> None:
        calls.append(os.readlink(f"/proc/self/fd/{fd}"))
        fsync(fd)

    def renamed(*arguments: Any) -> None:
        calls.append("rename")
        rename(*arguments)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(maildir, "_rename", renamed)
    quarantine.prepare(job(root), ACTION).commit()
    [note] = files(root, "*/envelopes/*")
    before = calls[: calls.index("rename")]
    assert before.index(str(note)) < before.index(str(note.parent), before.index(str(note)))


def test_message_that_cannot_be_written(root: Path) -> None:
    """When the message cannot be prepared, no envelope stays."""
    (root / "bob@example.org").mkdir()
    (root / "bob@example.org" / "tmp").write_text("in the way")
    before = descriptors()
    with pytest.raises(TempFail):
        quarantine.prepare(job(root), ACTION)
    assert files(root, "*/envelopes/*") == []
    assert descriptors() == before


def test_commit_that_fails(root: Path) -> None:
    """When the message cannot be made visible, neither it nor its envelope stays."""
    before = descriptors()
    prepared = quarantine.prepare(job(root), ACTION)
    (root / "bob@example.org" / "new").rmdir()
    with pytest.raises(TempFail):
        prepared.commit()
    assert everything(root) == []
    assert descriptors() == before


def test_full_disk(small_disk: Path) -> None:
    """A full disk is a temporary failure that leaves nothing behind."""
    quarantine.prepare(job(small_disk), ACTION).abort()
    with suppress(OSError), (small_disk / "ballast").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    with pytest.raises(TempFail) as caught:
        quarantine.prepare(job(small_disk), ACTION)
    assert caught.value.status == DISK_FULL
    assert [path.name for path in everything(small_disk)] == ["ballast"]


def test_no_quarantine(root: Path) -> None:
    """Without a configured folder the mail waits, and the log says what to do."""
    with pytest.raises(TempFail, match="`quarantine:`") as caught:
        quarantine.prepare(job(""), ACTION)
    assert caught.value.status == INTERNAL


def test_quarantine_that_is_missing(root: Path) -> None:
    """The folder itself is not made: its disk may not be mounted."""
    with pytest.raises(TempFail):
        quarantine.prepare(job(root / "missing"), ACTION)
    assert not (root / "missing").exists()


@pytest.mark.parametrize("link", ["bob@example.org", "bob@example.org/envelopes"])
def test_links_are_not_followed(root: Path, tmp_path: Path, link: str) -> None:
    """A link in the place of a folder leads nowhere (P28)."""
    (tmp_path / "elsewhere").mkdir()
    (root / link).parent.mkdir(exist_ok=True)
    (root / link).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(TempFail):
        quarantine.prepare(job(root), ACTION)
    assert list((tmp_path / "elsewhere").iterdir()) == []


ODD = [
    "../../etc",
    ".",
    "..",
    "",
    "~root@x",
    "/x@y",
    '"a b"@x',
    "a\udc80\ud800@x",
    "ä@x",
    "x" * 500,
]


@pytest.mark.parametrize("recipient", ODD)
def test_odd_recipients(root: Path, recipient: str) -> None:
    """Mail for any recipient has one folder in the quarantine."""
    quarantine.prepare(job(root, Envelope("", recipient)), Action("quarantine")).commit()
    [folder] = root.iterdir()
    assert folder.name == component(recipient)
    [note] = files(folder, "envelopes/*")
    assert json.loads(note.read_text())["recipient"] == recipient
    assert len(files(folder, "new/*")) == 1


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("bob+x@example.org", "bob+x@example.org"),
        ("Bob@example.org", "Bob@example.org"),
        (".bob@x", "%2Ebob@x"),
        ("..", "%2E."),
        ("a/b%", "a%2Fb%25"),
        ("", "%"),
    ],
)
def test_names(text: str, name: str) -> None:
    """Plain addresses are their own names; other bytes are written as %XX."""
    assert component(text) == name


TEXTS = st.one_of(
    st.text(st.characters(), max_size=300),
    st.text("a%2Ff./@-", max_size=12),
    st.text("x", min_size=190, max_size=210),
)


@given(st.lists(TEXTS, max_size=20, unique=True))
def test_names_are_safe_and_differ(texts: list[str]) -> None:
    """Any text is one visible component that fits, and no two texts have the same (P49)."""
    names = [component(text) for text in texts]
    assert len(set(names)) == len(texts)
    for text, name in zip(texts, names, strict=True):
        assert 0 < len(name) <= 200
        assert not name.startswith(".")
        assert not set(name) & set("/\0~")
        assert name.isascii()
        assert component(name) != name or name == text  # a name is no name of another text
