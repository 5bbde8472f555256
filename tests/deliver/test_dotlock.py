"""Lock files: whose they are, and that a leftover is removed and no other lock."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mdaflow.deliver import dotlock
from mdaflow.deliver.dotlock import drop_dotlock, drop_leftover, take_dotlock


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path, os.O_RDONLY)
    yield fd
    os.close(fd)


def test_taken_and_given_back(folder: int, tmp_path: Path) -> None:
    """A lock is there once, says whose it is, and goes with its own inode only."""
    inode = take_dotlock(folder, "x.lock")
    assert (tmp_path / "x.lock").read_text() == f"{os.getpid()}:{os.uname().nodename}"
    with pytest.raises(FileExistsError):
        take_dotlock(folder, "x.lock")
    drop_dotlock(folder, "x.lock", inode + 1)
    assert (tmp_path / "x.lock").exists()
    drop_dotlock(folder, "x.lock", inode)
    drop_dotlock(folder, "x.lock", inode)
    assert os.listdir(folder) == []


def test_full_disk(folder: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock that cannot say whose it is is none."""

    def write(fd: int, raw: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", write)
    with pytest.raises(OSError, match="No space"):
        take_dotlock(folder, "x.lock")
    assert os.listdir(folder) == []


@pytest.mark.parametrize(
    ("age", "ours", "goes"), [(10, False, False), (10, True, True), (60, False, True)]
)
def test_leftover(folder: int, tmp_path: Path, age: int, ours: bool, goes: bool) -> None:
    """An old lock is a leftover whoever lives; a young one of this process if that has none."""
    take_dotlock(folder, "x.lock")
    os.utime(tmp_path / "x.lock", (time.time() - age,) * 2)
    drop_leftover(folder, "x.lock", 50.0, ours=ours)
    assert (tmp_path / "x.lock").exists() == (not goes)


def test_another_was_faster(folder: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock that takes the leftover's place while we look stays, whatever inode it has got."""
    lock = tmp_path / "x.lock"
    lock.write_text("")
    os.utime(lock, (0, 0))
    looked = dotlock._owner

    def look(directory: int, name: str) -> int:
        monkeypatch.setattr(dotlock, "_owner", looked)
        lock.write_text("1:elsewhere")  # the inode of a file that was removed is soon another's
        return 0

    monkeypatch.setattr(dotlock, "_owner", look)
    drop_leftover(folder, "x.lock", 50.0)
    assert lock.read_text() == "1:elsewhere"


def test_nothing_there(folder: int) -> None:
    """Where there is no lock there is no leftover."""
    drop_leftover(folder, "x.lock", 50.0)
    assert os.listdir(folder) == []
