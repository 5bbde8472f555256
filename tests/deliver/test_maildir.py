"""Maildir: names, flags, and what happens when a name is taken."""

from __future__ import annotations

import errno
import mailbox
import os
import re
import time
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from boxes import store, tree

from mdaflow.deliver import maildir
from mdaflow.deliver.keywords import FLAGS
from mdaflow.deliver.mailbox import Mailbox
from mdaflow.errors import INTERNAL, TempFail

RAW = b"Subject: x\n\nText\n"
NAME = re.compile(r"\d{10,}\.M\d{1,6}P\d+Q\d+R[0-9a-f]{8}\.[^,:/]+,S=(\d+)(:2,[DFRST]+)?")


@pytest.fixture
def box(tmp_path: Path) -> Mailbox:
    return Mailbox("maildir", str(tmp_path), "Maildir")


def files(box: Mailbox, folder: str = "Maildir") -> list[Path]:
    return sorted(file for file in (Path(box.home) / folder).rglob("*") if file.is_file())


def test_new_message(box: Mailbox) -> None:
    """A message is in new/ under a unique name with its size; tmp/ is empty."""
    store(box, RAW)
    [file] = files(box)
    assert file.parent.name == "new"
    name = NAME.fullmatch(file.name)
    assert name
    assert name.groups() == (str(len(RAW)), None)


@pytest.mark.parametrize(
    ("flags", "info"),
    [({"\\Seen"}, ":2,S"), ({"\\flagged", "\\SEEN"}, ":2,FS"), (set(FLAGS), ":2,DFRST")],
)
def test_flags(box: Mailbox, flags: set[str], info: str) -> None:
    """A message with flags is in cur/, its letters in the order of ASCII."""
    store(box, RAW, flags=flags)
    [file] = files(box)
    assert file.parent.name == "cur"
    name = NAME.fullmatch(file.name)
    assert name
    assert name[2] == info


def test_folder_says_that_it_is_one(box: Mailbox) -> None:
    """A Maildir++ folder has an empty file `maildirfolder`; the inbox has none."""
    store(box, RAW, "lists/dev")
    names = sorted(tree(Path(box.home)))
    assert "Maildir/.lists.dev/maildirfolder" in names
    assert "Maildir/maildirfolder" not in names
    assert "Maildir/.lists.dev/tmp" in names


def test_half_made_maildir_is_completed(box: Mailbox) -> None:
    """A Maildir whose making was interrupted is completed by the next delivery."""
    for half in ([], ["cur"], ["cur", "new"], ["tmp"], ["tmp", "cur"]):
        folder = f"half{len(half)}{''.join(half)}"
        for name in half:
            (Path(box.home) / "Maildir" / f".{folder}" / name).mkdir(parents=True)
        store(box, RAW, folder)
        store(box, RAW, folder, {"\\Seen"})
        assert [file.read_bytes() for file in files(box, f"Maildir/.{folder}") if "=" in file.name]


def test_python_reads_it(box: Mailbox) -> None:
    """The Maildir of Python's library finds the same messages, flags and folders."""
    store(box, RAW)
    store(box, RAW, flags={"\\Seen", "\\Flagged"})
    store(box, RAW, "lists/dev")
    read = mailbox.Maildir(Path(box.home, "Maildir"), create=False)
    assert sorted(message.get_flags() for message in read) == ["", "FS"]
    assert {message.as_bytes() for message in read} == {RAW}
    assert read.list_folders() == ["lists.dev"]
    assert len(read.get_folder("lists.dev")) == 1


def named(monkeypatch: pytest.MonkeyPatch, name: str) -> str:
    """What a message's name has of a host called `name`."""
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(nodename=name))
    host: str = maildir._host.__wrapped__()
    monkeypatch.setattr(maildir, "_host", lambda: host)
    return host


@pytest.mark.parametrize("name", ["a/b:c" + "x" * 255, ",S=1:2,T", "\n\0 \udcff", "../../x", ""])
def test_host_name_is_made_safe(box: Mailbox, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """What means something in a name is written as the Maildir page says, and the host is short."""
    assert re.fullmatch(r"[A-Za-z0-9._\\-]{0,64}", named(monkeypatch, name))
    store(box, RAW)
    [file] = files(box)
    assert file.name.endswith(",S=17")
    assert file.name.count(",") == 1
    if "/" in name and ":" in name:
        assert ".a\\057b\\072cxx" in file.name


def test_two_hosts_that_are_alike(box: Mailbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Containers with one pid, host name and clock, as clones have, still have their own names."""
    named(monkeypatch, "localhost")
    monkeypatch.setattr(os, "getpid", lambda: 1)
    monkeypatch.setattr(time, "time_ns", lambda: 1_762_003_500_000_000_000)
    for _ in range(100):
        monkeypatch.setattr(maildir, "_counter", count(1))
        store(box, RAW)
    assert len({file.name.partition(",")[0] for file in files(box)}) == 100


@pytest.fixture(params=["renameat2", "link"])
def rename(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways not to overwrite: the system call, and a file system that does not know it."""
    if request.param == "link":
        monkeypatch.setattr(maildir, "_renameat2", lambda: lambda *_: errno.EINVAL)
    return str(request.param)


def names(monkeypatch: pytest.MonkeyPatch, *given: str) -> None:
    """The unique names that the next deliveries take."""
    following = iter(given)
    monkeypatch.setattr(maildir, "_unique", lambda: next(following))


@pytest.mark.usefixtures("rename")
def test_taken_name_is_not_overwritten(box: Mailbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the final name is taken, another is found."""
    names(monkeypatch, "a", "a", "a", "b")
    store(box, RAW)
    (Path(box.home) / "Maildir/new/a,S=17").write_bytes(b"the first message")
    store(box, RAW)
    assert {file.name: file.read_bytes() for file in files(box)} == {
        "a,S=17": b"the first message",
        "b,S=17": RAW,
    }


@pytest.mark.usefixtures("rename")
def test_no_free_name(box: Mailbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """When every name is taken, also by a dangling link, the message is deferred."""
    names(monkeypatch, *"aaaaaaa")
    store(box, RAW)
    [file] = files(box)
    file.unlink()
    file.symlink_to("/nonexistent")
    with pytest.raises(TempFail) as caught:
        store(box, RAW)
    assert caught.value.status == INTERNAL
    assert file.is_symlink()
    assert files(box) == []


def test_link_whose_reply_was_lost(box: Mailbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """A link that NFS has made, and says was there, is made: the message is stored once."""
    real = os.link

    def link(*arguments: Any, **more: Any) -> None:
        real(*arguments, **more)
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))

    monkeypatch.setattr(maildir, "_renameat2", lambda: lambda *_: errno.EINVAL)
    monkeypatch.setattr(os, "link", link)
    store(box, RAW)
    [file] = files(box)
    assert file.read_bytes() == RAW
    assert file.stat().st_nlink == 1


def test_old_library(box: Mailbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """A C library without renameat2 is no obstacle."""
    import ctypes

    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: object())
    monkeypatch.setattr(maildir, "_renameat2", maildir._renameat2.__wrapped__)
    store(box, RAW)
    [file] = files(box)
    assert file.read_bytes() == RAW


def test_close_that_fails(box: Mailbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of which the disk complains only when it is closed is discarded (P5)."""
    store(box, RAW)
    before = tree(Path(box.home))
    real = os.close

    def close(fd: int) -> None:
        path = os.readlink(f"/proc/self/fd/{fd}")
        real(fd)
        if "/tmp/" in path.removeprefix(box.home):
            raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "close", close)
    with pytest.raises(TempFail) as caught:
        store(box, RAW)
    assert caught.value.status == INTERNAL
    assert tree(Path(box.home)) == before


def test_fifo_in_place_of_a_directory(box: Mailbox) -> None:
    """What is no directory stops the delivery, and does not hang it."""
    store(box, RAW)
    new = Path(box.home) / "Maildir/new"
    for file in files(box):
        file.unlink()
    new.rmdir()
    os.mkfifo(new)
    with pytest.raises(TempFail) as caught:
        store(box, RAW)
    assert caught.value.status == INTERNAL
    assert files(box) == []
