"""What Maildir and mbox promise alike: whole messages, in the right place, or no trace at all."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from boxes import RECEIVED, descriptors, messages, start, store, tree

from mdaflow import deliver
from mdaflow.deliver.mailbox import Chunk, Mailbox, elsewhere, parse_mailbox
from mdaflow.errors import DISK_FULL, INTERNAL, MailError, PermFail, Status, TempFail

RAW = b"Return-Path: <bob@example.org>\nSubject: x\n\nText\n"


@pytest.fixture(params=["maildir:Maildir", "mbox:mail"])
def box(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Mailbox]:
    """A mailbox in an empty home directory; afterwards no file is open that was not before."""
    home = tmp_path / "home"
    home.mkdir()
    store(parse_mailbox(request.param, str(tmp_path)), RAW)  # imports and caches
    before = descriptors()
    yield parse_mailbox(request.param, str(home))
    assert descriptors() == before


def refused(box: Mailbox, folder: str = "", raw: bytes = RAW) -> TempFail:
    """The failure of a delivery that has to fail."""
    with pytest.raises(TempFail) as caught:
        store(box, raw, folder)
    return caught.value


@pytest.mark.parametrize("folder", ["", "Board", "lists/dev", "台北"])
def test_message_is_stored(box: Mailbox, folder: str) -> None:
    """A message is in the folder it was sent to, and the delivery says where."""
    assert store(box, RAW, folder) == f"{box.format} {folder or 'INBOX'}"
    assert messages(box, folder) == [RAW]


@pytest.mark.parametrize(
    "body",
    [
        b"\0" * 1000 + b"\n",
        b"a\rb\r\r\n\r\n",
        bytes(range(256)) * 10 + b"\n",
        b"x" * (1 << 20) + b"\n",
        b"From a\n>From b\n",
        b"\n\n\n",
        b"",
    ],
    ids=["nul", "cr", "8bit", "long line", "from", "empty lines", "empty"],
)
def test_bytes_are_kept(box: Mailbox, body: bytes) -> None:
    """Every byte of a message comes back: NUL, CR, 8-bit, and lines of any length."""
    store(box, RAW + body)
    assert messages(box) == [RAW + body]


def test_chunks_are_one_message(box: Mailbox) -> None:
    """A message is the sum of its chunks, bytes or views of a buffer."""
    chunks: list[Chunk] = [
        b"A: b\n",
        memoryview(RAW),
        b"",
        *(b"%d\n" % number for number in range(300)),
    ]
    deliver.prepare(box, "", chunks, (), "", RECEIVED).commit()
    assert messages(box) == [b"".join(chunks)]


def test_modes(box: Mailbox) -> None:
    """Directories are 0700 and files 0600, whatever the umask allows; existing modes stay."""
    umask = os.umask(0)
    try:
        Path(box.home, box.path).mkdir(mode=0o755)
        store(box, RAW, "lists/dev", {"\\Seen"})
        store(box, RAW)
    finally:
        os.umask(umask)
    modes = {name: mode for name, (mode, _) in tree(Path(box.home)).items()}
    assert modes.pop(box.path) == "drwxr-xr-x"
    assert set(modes.values()) == {"drwx------", "-rw-------"}


def test_missing_home_is_not_made(box: Mailbox) -> None:
    """A home directory that is missing may be a disk not mounted: try again later."""
    Path(box.home).rmdir()
    assert refused(box).status == INTERNAL
    assert not Path(box.home).exists()


def test_home_may_be_a_link(box: Mailbox, tmp_path: Path) -> None:
    """The home directory itself is the administrator's, also when it is a symbolic link."""
    (tmp_path / "link").symlink_to(box.home)
    store(Mailbox(box.format, str(tmp_path / "link"), box.path), RAW)
    assert messages(box) == [RAW]


@pytest.mark.parametrize("folder", ["", "lists/dev"])
def test_no_link_is_followed(box: Mailbox, folder: str, tmp_path: Path) -> None:
    """A symbolic link anywhere below the home directory stops the delivery."""
    store(box, RAW, folder)
    home = Path(box.home)
    for name in [name for name, (mode, _) in tree(home).items() if mode[0] == "d"]:
        if name.endswith("cur"):
            continue  # only entered for a message with flags
        place = home / name
        place.rename(tmp_path / "aside")
        place.symlink_to(tmp_path / "aside")
        before = tree(tmp_path / "aside")
        error = refused(box, folder)
        assert error.status == INTERNAL
        assert "symbolic link" in str(error)
        assert tree(tmp_path / "aside") == before
        place.unlink()
        (tmp_path / "aside").rename(place)


@pytest.mark.parametrize("folder", ["../x", "a\0b", ".ssh/authorized_keys"])
def test_bad_folder_touches_nothing(box: Mailbox, folder: str) -> None:
    """A folder name that cannot be one is refused for good."""
    with pytest.raises(PermFail):
        store(box, RAW, folder)
    assert tree(Path(box.home)) == {}


def test_unknown_flag_touches_nothing(box: Mailbox) -> None:
    """An unknown flag is an error of the program, found before anything is written."""
    with pytest.raises(ValueError, match="unknown flag"):
        store(box, RAW, flags={"\\Seen", "\\Junk"})
    assert tree(Path(box.home)) == {}


@pytest.fixture
def outside(box: Mailbox, tmp_path: Path) -> tuple[Path, Mailbox]:
    """A path outside of every home, and the mailbox that it is."""
    found = elsewhere(f"{box.format}:{tmp_path}/journal")
    assert found
    return tmp_path / "journal", found[0]


def test_elsewhere(outside: tuple[Path, Mailbox]) -> None:
    """What is stored at an absolute path is there; the parent is not made, what is missing is."""
    path, box = outside
    assert store(box, RAW, flags={"\\Seen"}) == f"{box.format} journal"
    assert messages(box)[0].endswith(RAW)
    assert path.stat().st_mode & 0o777 == (0o600 if box.format == "mbox" else 0o700)
    missing = elsewhere(f"{box.format}:{path.parent}/missing/journal")
    assert missing
    assert refused(missing[0]).status == INTERNAL
    assert not (path.parent / "missing").exists()


def test_elsewhere_is_no_link(outside: tuple[Path, Mailbox], tmp_path: Path) -> None:
    """The parents may be links, the file or the Maildir itself may not."""
    path, box = outside
    target = tmp_path / "target"
    target.mkdir()
    (tmp_path / "way").symlink_to(target)
    found = elsewhere(f"{box.format}:{tmp_path}/way/journal")
    assert found
    store(found[0], RAW)
    assert messages(found[0]) == [RAW]
    path.symlink_to(target / "journal")
    before = tree(target)
    assert refused(box).status == INTERNAL
    assert tree(target) == before


def test_abort_leaves_nothing(box: Mailbox) -> None:
    """An aborted delivery leaves every file as it was; abort may be repeated."""
    store(box, RAW)
    before = tree(Path(box.home))
    prepared = deliver.prepare(box, "", [RAW], (), "", RECEIVED)
    assert tree(Path(box.home)) != before
    prepared.abort()
    prepared.abort()
    assert tree(Path(box.home)) == before


def test_abort_after_commit_does_nothing(box: Mailbox) -> None:
    """What was committed stays."""
    prepared = deliver.prepare(box, "", [RAW], (), "", RECEIVED)
    prepared.commit()
    before = tree(Path(box.home))
    prepared.abort()
    assert tree(Path(box.home)) == before
    assert messages(box) == [RAW]


def test_commit_after_abort_fails(box: Mailbox) -> None:
    """An aborted message is never reported as stored."""
    prepared = deliver.prepare(box, "", [RAW], (), "", RECEIVED)
    prepared.abort()
    with pytest.raises(TempFail):
        prepared.commit()
    assert not any(content for _, content in tree(Path(box.home)).values())


def test_interrupted_prepare_leaves_nothing(box: Mailbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever ends a delivery in the middle, also no OSError, it is taken back."""
    store(box, RAW)
    before = tree(Path(box.home))

    def stop(fd: int) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", stop)
        with pytest.raises(KeyboardInterrupt):
            store(box, RAW)
    assert tree(Path(box.home)) == before


def test_two_copies_at_once(box: Mailbox) -> None:
    """Two folders are prepared together and committed one after the other."""
    both = [deliver.prepare(box, folder, [RAW], (), "", RECEIVED) for folder in ("", "Board")]
    for prepared in both:
        prepared.commit()
    assert messages(box) == messages(box, "Board") == [RAW]


def test_failed_directory_sync_is_not_forgotten(
    box: Mailbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A directory whose entry could not be synced is not taken for a safe one next time."""

    def fail(fd: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        assert refused(box).status == INTERNAL
    assert tree(Path(box.home)) == {}
    store(box, RAW)


DELIVERIES = """
import sys
from boxes import store
from mdaflow.deliver.mailbox import parse_mailbox
box = parse_mailbox(sys.argv[1], sys.argv[2])
for number in range(25):
    store(box, b"A: b\\n\\n%s %d\\n" % (sys.argv[3].encode(), number) + b"x" * 9000 + b"\\n")
"""


def test_concurrent_deliveries(box: Mailbox) -> None:
    """Four processes deliver 25 messages each into one folder: all are there, none is torn."""
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n{DELIVERIES}"
    names = ["one", "two", "three", "four"]
    children = [start(code, f"{box.format}:{box.path}", box.home, name) for name in names]
    for child in children:
        child.communicate(timeout=100)
    assert [child.returncode for child in children] == [0] * 4
    expected = [b"A: b\n\n%s %d\n" % (name.encode(), n) for name in names for n in range(25)]
    assert messages(box) == sorted(head + b"x" * 9000 + b"\n" for head in expected)
    files = [name for name, (mode, _) in tree(Path(box.home)).items() if mode[0] == "-"]
    assert len(files) == (1 if box.format == "mbox" else 100)


def test_no_descriptor_grows(box: Mailbox) -> None:
    """Fifty deliveries, good, aborted and failed, leave as many files open as before."""
    before = descriptors()
    for _ in range(50):
        store(box, RAW)
        deliver.prepare(box, "Board", [RAW], (), "", RECEIVED).abort()
    (Path(box.home) / box.path).rename(Path(box.home) / "aside")
    (Path(box.home) / box.path).write_bytes(b"")
    for _ in range(50):
        refused(box)
    assert descriptors() == before


def test_clock_that_jumps(box: Mailbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that stands still, or goes back, makes no name twice and loses no message."""
    now = time.time_ns()
    monkeypatch.setattr(time, "time_ns", lambda: now)
    monkeypatch.setattr(time, "time", lambda: now / 1e9 - 4e7)
    for number in range(100):
        store(box, b"A: %d\n\n" % number)
    assert len(set(messages(box))) == 100


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_full_disk(box: Mailbox, small_disk: Path) -> None:
    """A disk that fills up in the middle of a message: try again later, and no trace of it."""
    box = Mailbox(box.format, str(small_disk), box.path)
    store(box, RAW)
    before = tree(small_disk)
    error = refused(box, raw=RAW + b"x" * 200_000)
    assert error.status == DISK_FULL
    assert str(error.status) == "452 4.3.1 Insufficient storage, try again later"
    assert tree(small_disk) == before
    store(box, RAW)
    assert messages(box) == [RAW, RAW]


def outcome(box: Mailbox, raw: bytes) -> Status | None:
    """The status of a delivery that fails, None for one that does not."""
    try:
        store(box, raw)
    except MailError as error:
        return error.status
    return None


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_nearly_full_disk(box: Mailbox, small_disk: Path) -> None:
    """However little room is left, a first message is stored whole or leaves no file behind."""
    box = Mailbox(box.format, str(small_disk), box.path)
    raw = RAW + b"x" * 12_000 + b"\n"
    outcomes = set()
    for pages in range(17):
        (small_disk / "filler").write_bytes(b"x" * 4096 * pages)
        status = outcome(box, raw)
        (small_disk / "filler").unlink()
        files = [name for name, (mode, _) in tree(small_disk).items() if mode[0] == "-"]
        assert (messages(box) if status is None else files) == ([raw] if status is None else [])
        outcomes.add(status)
        for path in sorted(small_disk.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
    assert outcomes == {None, DISK_FULL}
