"""Comparison with known spam: indexes that follow folders."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from spams import mail, maildir, put, text

from mdaflow.mail.message import Message
from mdaflow.scan import index as indexes
from mdaflow.scan.index import Index
from mdaflow.scan.known import HITS, known_spam, spam_index
from mdaflow.scan.letters import Folder

SPAM = mail(text(1, 400))
LIKE = mail(text(1, 400) + " unsubscribe forever")
HAM = mail(text(2, 400))


@pytest.fixture(autouse=True)
def _settled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexes, "FRESH", 0.0)


def open_index(tmp_path: Path, *folders: str, most: int = 1000) -> Index:
    where = [Folder(str(tmp_path), tuple(name.split("/"))) for name in folders or ("Junk",)]
    return spam_index(f"{tmp_path}/state/known", where, most=most, pause=0.0)


def refreshed(index: Index) -> Index:
    """All is read."""
    for _ in range(1000):
        if index.refresh(10.0):
            return index
    raise AssertionError("it never ends")


def found(index: Index, raw: bytes = SPAM) -> str:
    return known_spam(Message(raw), index)


# what is known


def test_copies_and_similar_texts(tmp_path: Path) -> None:
    """A copy of spam is known, and what is nearly one; other mail is not."""
    maildir(tmp_path / "Junk", SPAM)
    index = refreshed(open_index(tmp_path))
    assert [found(index, raw) for raw in (SPAM, LIKE, HAM, b"")] == ["exact", "alike", "", ""]
    assert [HITS[how].name for how in ("exact", "alike")] == [
        "KNOWN_SPAM_EXACT",
        "KNOWN_SPAM_ALIKE",
    ]


def test_several_indexes(tmp_path: Path) -> None:
    """What one of several indexes knows is known."""
    maildir(tmp_path / "Junk", SPAM)
    empty = spam_index(f"{tmp_path}/state/none", [])
    assert known_spam(Message(SPAM), empty, refreshed(open_index(tmp_path))) == "exact"
    assert known_spam(Message(SPAM), empty) == ""
    assert known_spam(Message(SPAM)) == ""


@pytest.mark.parametrize("kind", ["maildir", "mbox", "files"])
def test_kinds_of_folders(kind: str, tmp_path: Path) -> None:
    """A folder is a Maildir, an mbox, or has a message a file."""
    if kind == "maildir":
        maildir(tmp_path / "Junk", HAM, SPAM)
    elif kind == "mbox":
        date = b"From x Thu Jan  1 00:00:00 2026\n"
        (tmp_path / "Junk").write_bytes(date + HAM + b"\n" + date + SPAM)
    else:
        (tmp_path / "Junk").mkdir()
        (tmp_path / "Junk/1.eml").write_bytes(HAM.replace(b"\n", b"\r\n"))
        (tmp_path / "Junk/2.eml").write_bytes(SPAM)
    index = refreshed(open_index(tmp_path))
    assert [found(index, raw) for raw in (SPAM, HAM, mail(text(3)))] == ["exact", "exact", ""]


# following a folder


def test_new_and_gone(tmp_path: Path) -> None:
    """What comes into a folder is known, what leaves it no more, and a new flag changes nothing."""
    junk = maildir(tmp_path / "Junk", HAM)
    index = refreshed(open_index(tmp_path))
    spam = put(junk, SPAM)
    assert found(refreshed(index)) == "exact"
    seen = spam.rename(junk / "cur" / f"{spam.name}:2,S")
    assert found(refreshed(index)) == "exact"
    seen.unlink()
    assert found(refreshed(index)) == ""
    assert found(index, HAM) == "exact"


def test_two_copies(tmp_path: Path) -> None:
    """Spam is known as long as one copy of it is there."""
    junk = maildir(tmp_path / "Junk", SPAM, SPAM)
    index = refreshed(open_index(tmp_path))
    for expected in ("exact", ""):
        next((junk / "new").iterdir()).unlink()
        assert found(refreshed(index)) == expected


def test_each_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No file is read twice, not by another process either, and an old folder is not listed."""
    junk = maildir(tmp_path / "Junk", SPAM)
    refreshed(open_index(tmp_path)).close()
    index, opened = open_index(tmp_path), list[str]()
    real_open, real_list = os.open, os.scandir

    def noted_open(path: str, *rest: Any, **more: Any) -> int:
        opened.append(path)
        return real_open(path, *rest, **more)

    def noted_list(path: int) -> Any:
        opened.append("list")
        return real_list(path)

    monkeypatch.setattr(os, "open", noted_open)
    monkeypatch.setattr(os, "scandir", noted_list)
    refreshed(index)
    assert "list" not in opened
    new = put(junk, HAM)
    refreshed(index)
    new.rename(junk / "cur" / f"{new.name}:2,S")
    refreshed(index)
    assert [name for name in opened if "P1.host" in name] == [new.name]


def test_mbox_that_grows(tmp_path: Path) -> None:
    """Of an mbox only what is new is read; when it was written anew, all of it."""
    box, date = tmp_path / "Junk", b"From x Thu Jan  1 00:00:00 2026\n"
    box.write_bytes(date + HAM + b"\n")
    index = refreshed(open_index(tmp_path))
    with box.open("ab") as file:
        file.write(date + SPAM + b"\n")
    assert found(refreshed(index)) == found(index, HAM) == "exact"
    box.write_bytes(date + SPAM + b"\n")
    assert (found(refreshed(index)), found(index, HAM)) == ("exact", "")


def test_text_that_looks_like_a_message(tmp_path: Path) -> None:
    """In an mbox a message begins behind an empty line only."""
    body = f"{text(1, 60)}\nFrom {text(2, 60)}"
    date = b"From x Thu Jan  1 00:00:00 2026\n"
    (tmp_path / "Junk").write_bytes(date + mail(body) + b"\n" + date + HAM)
    assert found(refreshed(open_index(tmp_path)), mail(body)) == "exact"


def test_file_that_another_process_has_made_anew(tmp_path: Path) -> None:
    """What is open is not used any longer when there is another file."""
    junk = maildir(tmp_path / "Junk", HAM)
    index = refreshed(open_index(tmp_path))
    (tmp_path / "state/known").unlink()
    put(junk, SPAM)
    refreshed(open_index(tmp_path)).close()
    assert found(index) == "exact"


def test_missing_folder(tmp_path: Path) -> None:
    """A folder that is away, as its disk may be, is no empty one."""
    index = refreshed(open_index(tmp_path))
    assert found(index) == ""
    maildir(tmp_path / "Junk", SPAM)
    refreshed(index)
    (tmp_path / "Junk").rename(tmp_path / "away")
    assert found(refreshed(index)) == "exact"


def test_at_most(tmp_path: Path) -> None:
    """The oldest messages go when there are too many."""
    junk = maildir(tmp_path / "Junk")
    for number in range(10):
        path = put(junk, mail(text(100 + number)))
        os.utime(path, (10_000 - number, 10_000 - number))
    index = refreshed(open_index(tmp_path, most=4))
    known = [found(index, mail(text(100 + number))) for number in range(10)]
    assert known == ["exact"] * 4 + [""] * 6


def test_a_little_at_a_time(tmp_path: Path) -> None:
    """Who has no time reads one file, and the next goes on there."""
    maildir(tmp_path / "Junk", *(mail(text(number)) for number in range(50)))
    index = open_index(tmp_path)
    calls = 1
    while not index.refresh(0.0):
        calls += 1
        assert calls < 1000
    assert calls > 50
    assert found(index, mail(text(49))) == "exact"


def test_processes_that_soon_end(tmp_path: Path) -> None:
    """Where one process has ended the next one goes on, though the folder changes all the time."""
    junk = maildir(tmp_path / "Junk", *(mail(text(number)) for number in range(50)))
    for number in range(200):
        index = open_index(tmp_path)
        index.refresh(0.0)
        index.close()
        if number % 5 == 0:
            put(junk, mail(text(1000 + number)))
    for _ in range(2):
        refreshed(open_index(tmp_path)).close()
    assert found(index, mail(text(1195))) == "exact"
    assert [n for n in range(50) if not found(index, mail(text(n)))] == []


def test_new_where_one_has_been(tmp_path: Path) -> None:
    """What comes into a folder while it is gone through is found in the next round."""
    junk = maildir(tmp_path / "Junk", *(mail(text(number)) for number in range(40)))
    for _ in range(30):
        index = open_index(tmp_path)
        index.refresh(0.0)
        index.close()
    for number in range(40, 80):
        put(junk, mail(text(number)))
    for _ in range(2):
        refreshed(open_index(tmp_path)).close()
    assert [n for n in range(80) if not found(index, mail(text(n)))] == []


@pytest.mark.parametrize("kind", ["maildir", "mbox"])
def test_what_is_read_is_noted(kind: str, tmp_path: Path) -> None:
    """A folder that has not changed is not gone through again, by no process."""
    box, date = tmp_path / "Junk", b"From x Thu Jan  1 00:00:00 2026\n"
    if kind == "maildir":
        maildir(box)
    for number in range(3):
        if kind == "maildir":
            put(box, mail(text(number)))
        else:
            with box.open("ab") as file:
                file.write(date + mail(text(number)) + b"\n")
        refreshed(open_index(tmp_path)).close()
        with closing(sqlite3.connect(tmp_path / "state/known")) as db:
            assert db.execute("SELECT count(*) FROM places WHERE version != ''").fetchone() == (1,)


def test_pause(tmp_path: Path) -> None:
    """A folder that changes all the time is looked at now and then."""
    junk = maildir(tmp_path / "Junk", SPAM)
    index = spam_index(f"{tmp_path}/state/known", [Folder(str(junk))], pause=3600.0)
    refreshed(index)
    put(junk, HAM)
    assert (found(refreshed(index)), found(index, HAM)) == ("exact", "")


def test_same_tick_of_the_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that has just changed may change once more at the same time, and is looked at
    again."""
    junk = maildir(tmp_path / "Junk", HAM)
    monkeypatch.setattr(indexes, "FRESH", 60.0)
    index = refreshed(open_index(tmp_path))
    before = (junk / "new").stat()
    put(junk, SPAM)
    os.utime(junk / "new", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert found(refreshed(index)) == "exact"


def test_nothing_to_follow(tmp_path: Path) -> None:
    """Where there are no folders no file is made."""
    assert open_index(tmp_path).refresh()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("year", [-1, 1])
def test_clock_that_jumps(year: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that is a year off changes nothing."""
    junk = maildir(tmp_path / "Junk", HAM)
    index, now = refreshed(open_index(tmp_path)), time.time
    monkeypatch.setattr(time, "time", lambda: now() + year * 31_536_000)
    put(junk, SPAM)
    assert found(refreshed(index)) == found(index, HAM) == "exact"


# hostile folders


def test_what_is_no_message(tmp_path: Path) -> None:
    """Neither links nor FIFOs are opened, and what is binary or huge does no harm."""
    junk = maildir(tmp_path / "Junk", SPAM)
    (tmp_path / "secret").write_bytes(HAM)
    (junk / "new/link").symlink_to(tmp_path / "secret")
    (junk / "new/away").symlink_to("/dev/zero")
    os.mkfifo(junk / "new/fifo")
    (junk / "new/folder").mkdir()
    (junk / "new/binary").write_bytes(bytes(range(256)) * 4000)
    Path(os.fsdecode(os.fsencode(junk) + b"/new/\xff")).write_bytes(b"\xff")
    with (junk / "new/huge").open("wb") as file:
        file.truncate(1 << 40)
    index = refreshed(open_index(tmp_path))
    assert (found(index), found(index, HAM)) == ("exact", "")


@pytest.mark.parametrize("what", ["link", "fifo", "cur"])
def test_folder_that_is_none(what: str, tmp_path: Path) -> None:
    """No link leads out of the home, and a FIFO in the place of a folder is none."""
    elsewhere = maildir(tmp_path / "elsewhere", SPAM)
    home = tmp_path / "home"
    (home / "Junk").mkdir(parents=True)
    if what == "cur":
        (home / "Junk/new").symlink_to(elsewhere / "new")
    else:
        (home / "Junk").rmdir()
        (home / "Junk").symlink_to(elsewhere) if what == "link" else os.mkfifo(home / "Junk")
    index = spam_index(f"{tmp_path}/state/known", [Folder(str(home), ("Junk",))], pause=0.0)
    assert found(refreshed(index)) == ""


# the file


@pytest.mark.parametrize("what", ["garbage", "torn", "empty", "other", "gone"])
def test_file_that_is_spoilt(what: str, tmp_path: Path) -> None:
    """A file that is broken, or of another kind, is made anew."""
    maildir(tmp_path / "Junk", SPAM)
    refreshed(open_index(tmp_path)).close()
    file = tmp_path / "state/known"
    if what == "garbage":
        file.write_bytes(os.urandom(20_000))
    elif what == "torn":
        file.write_bytes(file.read_bytes()[:5000])
    elif what == "empty":
        file.write_bytes(b"")
    else:
        file.unlink()
        if what == "other":
            with closing(sqlite3.connect(file)) as db:
                db.executescript("CREATE VIEW prints AS SELECT 1 AS look")
    index = open_index(tmp_path)
    index.refresh(10.0)
    assert found(refreshed(index)) == "exact"
    assert file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "spoil",
    [
        "UPDATE letters SET prints = x'00'",
        "UPDATE letters SET prints = NULL",
        "UPDATE letters SET prints = zeroblob(9000000)",
        "UPDATE prints SET value = 'x' WHERE value <> 0",
        "UPDATE places SET at = 'x', begun = 'x', version = ''",
    ],
)
def test_other_values(spoil: str, tmp_path: Path) -> None:
    """Whatever stands in a file in the place of our values, nobody stumbles over it."""
    maildir(tmp_path / "Junk", SPAM, HAM)
    refreshed(open_index(tmp_path)).close()
    with closing(sqlite3.connect(tmp_path / "state/known")) as db:
        db.executescript(spoil)
    (tmp_path / "Junk/cur").mkdir(exist_ok=True)
    for file in (tmp_path / "Junk").glob("*/*"):
        file.unlink()
    index = open_index(tmp_path)
    for _ in range(3):
        index.refresh(10.0)
        assert found(index, LIKE) in {"", "alike"}


def test_message_that_breaks_us(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is passed over, and the others count."""
    maildir(tmp_path / "Junk", SPAM, HAM)

    def take(raw: bytes) -> list[tuple[int, int]]:
        if raw == HAM:
            raise RecursionError("too deep")
        return [(1, 0)]

    folders = [Folder(str(tmp_path), ("Junk",))]
    for _ in range(3):
        index = Index(f"{tmp_path}/state/known", folders, take, most=10, head=1 << 20, pause=0.0)
        assert index.refresh(10.0)
        assert index.has([(1, 0)])
        index.close()
    assert caplog.text.count("too deep\n") == 1


@pytest.mark.parametrize("what", ["link", "fifo", "hard"])
def test_file_of_others(what: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What is no file of ours is neither written nor believed, which is said once."""
    maildir(tmp_path / "Junk", SPAM)
    (tmp_path / "state").mkdir()
    file, other = tmp_path / "state/known", tmp_path / "other"
    other.write_bytes(b"")
    if what == "fifo":
        os.mkfifo(file)
    else:
        file.symlink_to(other) if what == "link" else file.hardlink_to(other)
    index = open_index(tmp_path)
    assert not any(index.refresh(10.0) for _ in range(3))
    with pytest.raises(OSError, match="not a file of its owner"):
        found(index)
    assert other.read_bytes() == b""
    assert caplog.text.count("not a file of its owner") == 1


def test_read_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is somebody else may look, and never writes: not even root for a user."""
    maildir(tmp_path / "Junk", SPAM)
    refreshed(open_index(tmp_path)).close()
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    put(tmp_path / "Junk", HAM)
    index = open_index(tmp_path)
    assert not index.refresh(10.0)
    assert (found(index), found(index, HAM)) == ("exact", "")


PROCESS = """
import sys
from mdaflow.scan import index
from mdaflow.scan.known import spam_index
from mdaflow.scan.letters import Folder
index.FRESH = 0.0
i = spam_index(sys.argv[1] + "/state/known", [Folder(sys.argv[1], ("Junk",))], pause=0.0)
print("go", flush=True)
while not i.refresh(0.001):
    pass
"""


def test_two_processes(tmp_path: Path) -> None:
    """Two processes that read the same folder count every message once."""
    junk = maildir(tmp_path / "Junk", *(mail(text(number)) for number in range(200)))
    both = [
        subprocess.Popen([sys.executable, "-c", PROCESS, str(tmp_path)], stdout=subprocess.DEVNULL)
        for _ in range(2)
    ]
    assert [process.wait(60) for process in both] == [0, 0]
    index = refreshed(open_index(tmp_path))
    assert found(index, mail(text(150))) == "exact"
    for path in (junk / "new").iterdir():
        path.unlink()
    assert found(refreshed(index), mail(text(150))) == ""
    with closing(sqlite3.connect(tmp_path / "state/known")) as db:
        assert db.execute("SELECT count(*) FROM prints").fetchone() == (0,)


def test_killed(tmp_path: Path) -> None:
    """Who is killed while he reads a folder leaves a file with which others go on."""
    junk = maildir(tmp_path / "Junk", *(mail(text(number)) for number in range(300)))
    for _ in range(5):
        process = subprocess.Popen(
            [sys.executable, "-c", PROCESS, str(tmp_path)], stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    index = refreshed(open_index(tmp_path))
    assert all(found(index, mail(text(number))) == "exact" for number in range(300))
    for path in (junk / "new").iterdir():
        path.unlink()
    assert found(refreshed(index), mail(text(7))) == ""
