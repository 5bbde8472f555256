"""Where messages wait while they arrive."""

from __future__ import annotations

import errno
import mmap
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdaflow.errors import DISK_FULL, INTERNAL, TOO_BIG, ConfigError, Status, TempFail
from mdaflow.serve import spool
from mdaflow.serve.spool import THRESHOLD, Arrival, Spool

BIG = 1 << 30


def arrive(place: Spool, *chunks: bytes) -> Arrival:
    arrival = Arrival(place)
    rest = None
    for chunk in (*chunks, b"\r\n.\r\nrest"):
        rest = arrival.feed(chunk)
    assert rest == b"rest"
    return arrival


def refusal(arrival: Arrival) -> Status | None:
    return None if arrival.refusal is None else arrival.refusal.status


@pytest.mark.parametrize("size", [0, 1, THRESHOLD - 1, THRESHOLD, 3 * THRESHOLD])
def test_small_and_large(tmp_path: Path, size: int) -> None:
    """A message over the threshold is in a file without a name, a smaller one in memory."""
    arrival = arrive(Spool(str(tmp_path), BIG, 0), b"x" * (size // 2), b"y" * (size - size // 2))
    raw = arrival.raw()
    arrival.close()
    assert isinstance(raw, mmap.mmap) == (size + 1 > THRESHOLD)
    assert raw[:] == b"x" * (size // 2) + b"y" * (size - size // 2) + b"\n"
    assert list(tmp_path.iterdir()) == []


def test_no_descriptor_is_left(tmp_path: Path) -> None:
    """When a message is forgotten, its file is closed."""
    place = Spool(str(tmp_path), BIG, 0)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        arrival = arrive(place, b"x" * 2 * THRESHOLD)
        raw = arrival.raw()
        arrival.close()
        assert len(raw) == 2 * THRESHOLD + 1
        del raw, arrival
    assert len(os.listdir("/proc/self/fd")) == before


@given(st.binary(max_size=60), st.integers(0, 40))
def test_limit(content: bytes, limit: int) -> None:
    """A message is too big when its size, with CRLF and without stuffing, is over the limit."""
    sent = b"a" + content.replace(b".", b"") + b"\r\n"
    arrival = Arrival(Spool("/nonexistent", limit, 0))
    for byte in sent + b".\r\n":
        arrival.feed(bytes([byte]))
    assert refusal(arrival) == (TOO_BIG if len(sent) > limit else None)
    assert arrival.size == len(sent)


@pytest.mark.parametrize(
    ("code", "status"),
    [(errno.ENOSPC, DISK_FULL), (errno.EIO, INTERNAL), (errno.EMFILE, INTERNAL)],
)
@pytest.mark.parametrize("call", ["_unnamed", "_write"])
def test_trouble(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int, status: Status
) -> None:
    """What the disk refuses is a status, once, and the end of the message is found all the same."""

    def fail(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(spool, call, fail)
    arrival = arrive(Spool(str(tmp_path), BIG, 0), b"x" * 2 * THRESHOLD, b"y" * 2 * THRESHOLD)
    assert refusal(arrival) == status


def test_no_folder() -> None:
    """Without its folder large messages are put off, and small ones come."""
    place = Spool("/nonexistent", BIG, 0)
    assert refusal(arrive(place, b"x" * 2 * THRESHOLD)) == INTERNAL
    assert arrive(place, b"x").raw() == b"x\n"


def test_room(tmp_path: Path) -> None:
    """There is room when the reserve stays free."""
    found = os.statvfs(tmp_path)
    free = found.f_bavail * found.f_frsize
    Spool(str(tmp_path), BIG, free // 2).need_room(free // 4)
    for folder, size, status in ((str(tmp_path), free, DISK_FULL), ("/nonexistent", 1, INTERNAL)):
        with pytest.raises(TempFail) as told:
            Spool(folder, BIG, free // 2).need_room(size)
        assert told.value.status == status


def test_check(tmp_path: Path) -> None:
    """A folder that is missing is made; one that can never be used is an error of the
    configuration."""
    Spool(str(tmp_path / "a" / "b"), BIG, 0).check()
    assert (tmp_path / "a" / "b").is_dir()
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ConfigError, match=rf"lmtp.spool \(or state\): {folder}: "):
            Spool(str(folder), BIG, 0).check()


def test_check_of_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A disk that is full at the start is no reason not to start."""

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(spool, "_unnamed", full)
    Spool(str(tmp_path), BIG, 0).check()
    assert "No space left on device" in caplog.text


def test_without_unnamed_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the file system knows no unnamed files, the name goes away at once."""
    real = os.open

    def refuse(path: str, flags: int, *rest: int) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, "not here")
        return real(path, flags, *rest)

    monkeypatch.setattr(spool.os, "open", refuse)
    assert arrive(Spool(str(tmp_path), BIG, 0), b"x" * 2 * THRESHOLD).raw()[:1] == b"x"
    assert list(tmp_path.iterdir()) == []
