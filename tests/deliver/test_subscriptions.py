"""Subscriptions: a new folder is in Dovecot's list, once, and no list stops a message."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from boxes import descriptors, messages, store, tree

from mdaflow import deliver
from mdaflow.deliver import subscriptions
from mdaflow.deliver.mailbox import Mailbox, parse_mailbox

RAW = b"Subject: x\n\nText\n"
HEAD = b"V\t2\n\n"
SPECS = ["maildir:mail", "maildir:mail:LAYOUT=fs", "maildir:mail:UTF-8", "mbox:mail"]


@pytest.fixture(params=SPECS)
def box(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Mailbox]:
    opened = descriptors()
    yield parse_mailbox(f"{request.param}:SUBSCRIBE", str(tmp_path))
    assert descriptors() == opened


@pytest.fixture
def file(box: Mailbox) -> Path:
    return Path(box.home, "mail", ".subscriptions" if box.format == "mbox" else "subscriptions")


def test_new_folders(box: Mailbox, file: Path) -> None:
    """Every new folder is a line, spelt as on the disk, and the inbox is none."""
    for folder in ("", "lists/ü", "R&D", "lists/ü", "R&D"):
        store(box, RAW, folder)
    lines = "lists\tü\nR&D\n" if box.utf8 else "lists\t&APw-\nR&-D\n"
    assert file.read_bytes() == HEAD + lines.encode()
    assert file.stat().st_mode & 0o777 == 0o600
    assert not file.with_name(f"{file.name}.lock").exists()


def test_only_new_folders(box: Mailbox, file: Path) -> None:
    """Who unsubscribes from a folder is not subscribed to it again."""
    store(box, RAW, "a")
    file.write_bytes(HEAD)
    store(box, RAW, "a")
    assert file.read_bytes() == HEAD


def test_not_asked_for(box: Mailbox, file: Path) -> None:
    """Without the option there is no list."""
    store(parse_mailbox(f"{box.format}:mail", box.home), RAW, "a")
    assert not file.exists()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"", HEAD + b"a\tb\n"),
        (HEAD + b"x", HEAD + b"x\na\tb\n"),
        (HEAD + b"a\tb\nx\n", HEAD + b"a\tb\nx\n"),
        (b"x\n", b"x\na%sb\n"),
        (b"a%sb\n", b"a%sb\n"),
    ],
)
def test_list_that_is_there(box: Mailbox, file: Path, old: bytes, new: bytes) -> None:
    """A list keeps its form, its lines and its mode, and no folder is in it twice."""
    between = b"." if (box.format, box.layout) == ("maildir", "") else b"/"
    file.parent.mkdir()
    file.write_bytes(old.replace(b"%s", between))
    file.chmod(0o640)
    store(box, RAW, "a/b")
    assert file.read_bytes() == new.replace(b"%s", between)
    assert file.stat().st_mode & 0o777 == 0o640


def test_aborted_message(tmp_path: Path) -> None:
    """An mbox that goes again with its message was never in the list."""
    box = parse_mailbox("mbox:mail:SUBSCRIBE", str(tmp_path))
    deliver.prepare(box, "a", [RAW], (), "", 0.0).abort()
    assert list(tree(tmp_path)) == ["mail"]


def test_many_at_once(box: Mailbox, file: Path) -> None:
    """Of folders that are made at the same time none is lost."""
    names = [f"f{number}" for number in range(12)]
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda name: store(box, RAW, name), names))
    assert sorted(file.read_text().splitlines()[2:]) == sorted(names)


@pytest.mark.parametrize("way", ["lock", "link", "directory", "too long", "no disk"])
def test_list_that_cannot_be_had(
    box: Mailbox,
    file: Path,
    way: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Whatever is wrong with the list, the message is stored, and the log says so."""
    monkeypatch.setattr(subscriptions.subscribe, "__defaults__", (0.0,))
    store(box, RAW)
    lock = file.with_name(f"{file.name}.lock")
    if way == "lock":
        lock.write_bytes(b"")
    elif way == "link":
        file.symlink_to("/etc/passwd")
    elif way == "directory":
        file.mkdir()
    elif way == "too long":
        file.write_bytes(b"x" * (2 << 20))
    else:
        monkeypatch.setattr(os, "fchmod", lambda *_: os.write(-1, b""))
    before = tree(Path(box.home))
    store(box, RAW, "a")
    assert messages(box, "a") == [RAW]
    assert "a is not subscribed: " in caplog.text
    assert before.items() <= tree(Path(box.home)).items()
    assert lock.exists() == (way == "lock")


def test_lock_that_is_left(box: Mailbox, file: Path) -> None:
    """A lock that is older than 30 s is a leftover."""
    file.parent.mkdir()
    lock = file.with_name(f"{file.name}.lock")
    lock.write_bytes(b"half")
    os.utime(lock, (time.time() - 31,) * 2)
    store(box, RAW, "a")
    assert file.read_bytes() == HEAD + b"a\n"
