"""Flags and keywords: what is one, and how a Maildir keeps it beside Dovecot."""

from __future__ import annotations

import os
import string
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from boxes import RECEIVED, start, store, tree

from mdaflow import deliver
from mdaflow.deliver import keywords, leftovers
from mdaflow.deliver.keywords import FLAGS, letters, registered, valid_keyword
from mdaflow.deliver.mailbox import Mailbox

RAW = b"Subject: x\n\nText\n"
TABLE = "dovecot-keywords"
LOCK = "dovecot-uidlist.lock"


@pytest.fixture
def box(tmp_path: Path) -> Mailbox:
    return Mailbox("maildir", str(tmp_path), "Maildir")


@pytest.fixture
def maildir(box: Mailbox) -> Path:
    """The Maildir, with one message in it."""
    store(box, RAW)
    return Path(box.home, "Maildir")


@pytest.fixture
def opened(maildir: Path) -> Iterator[int]:
    """A descriptor of the Maildir."""
    fd = os.open(maildir, os.O_RDONLY)
    yield fd
    os.close(fd)


def infos(maildir: Path) -> list[str]:
    """The flags of all messages in cur/."""
    return sorted(file.name.partition(":2,")[2] for file in maildir.glob("cur/*"))


# what is a flag


def test_characters_of_a_keyword() -> None:
    """A keyword is an atom of IMAP of 1 to 60 characters: these and no others."""
    printable = set(string.ascii_letters + string.digits + string.punctuation)
    allowed = {chr(code) for code in range(0x300) if valid_keyword(chr(code))}
    assert allowed == printable - set('(){ %*"\\]')
    assert valid_keyword("x" * 60)
    assert not valid_keyword("x" * 61)
    assert not valid_keyword("")
    assert not valid_keyword("a\n")


def test_flags_are_divided() -> None:
    """System flags, in any case, are sorted letters; keywords are there once, whatever case."""
    flags = {"\\SEEN", "\\seen", "\\Flagged", "\\draft", "$Junk", "Invoice", "invoice"}
    assert letters(flags) == "DFS"
    assert keywords.keywords(flags) == ("$Junk", "invoice")
    assert letters(FLAGS) == "DFRST"
    assert letters(()) == ""
    assert keywords.keywords(FLAGS) == ()


@pytest.mark.parametrize("flag", ["\\Junk", "\\", "", "two words", "ü", "x" * 61, "a\nb", "\\*"])
def test_neither_flag_nor_keyword(flag: str) -> None:
    """What is neither is an error of the program."""
    with pytest.raises(ValueError, match="unknown flag"):
        letters(["\\Seen", flag])


# in a Maildir


def test_new_keyword(box: Mailbox, maildir: Path) -> None:
    """A new name gets the next number, and the message its letter, after the system flags."""
    store(box, RAW, flags={"invoice", "\\Seen"})
    store(box, RAW, flags={"$Forwarded", "zebra"})
    assert (maildir / TABLE).read_text() == "0 invoice\n1 $Forwarded\n2 zebra\n"
    assert infos(maildir) == ["Sa", "bc"]
    assert sorted(path.name for path in maildir.iterdir()) == ["cur", TABLE, "new", "tmp"]


def test_each_folder_has_its_own(box: Mailbox, maildir: Path) -> None:
    """The numbers of a folder are its own, also when the message makes the folder."""
    store(box, RAW, flags={"invoice"})
    store(box, RAW, "Board/x", flags={"other"})
    assert (maildir / ".Board.x" / TABLE).read_text() == "0 other\n"


def test_known_keyword_writes_nothing(box: Mailbox, maildir: Path) -> None:
    """A name that is there, in any case, keeps its number, and the file is not touched."""
    (maildir / TABLE).write_text("0 theirs\n7 INVOICE\nwhat is this\n99 no\n")
    (maildir / LOCK).write_text("")  # nobody asks for it
    before = tree(maildir)
    store(box, RAW, flags={"Invoice"})
    assert infos(maildir) == ["h"]
    after = tree(maildir)
    assert {name: after[name] for name in before} == before


def test_no_number_changes(box: Mailbox, maildir: Path) -> None:
    """A new name comes after all others: a gap may be the name of messages that are there."""
    (maildir / TABLE).write_bytes(b"3 three\n0 \xfcber\n")
    store(box, RAW, flags={"four"})
    assert (maildir / TABLE).read_bytes() == b"0 \xfcber\n3 three\n4 four\n"


def test_too_many(box: Mailbox, maildir: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Where 26 names are taken, the message is stored without the keyword, and the log says it."""
    (maildir / TABLE).write_text("".join(f"{n} word{n}\n" for n in range(25)))
    store(box, RAW, flags={"a", "b", "word0", "\\Seen"})
    assert infos(maildir) == ["Saz"]
    assert (maildir / TABLE).read_text().endswith("24 word24\n25 a\n")
    [record] = caplog.records
    assert record.levelname == "WARNING"
    assert record.getMessage() == (
        f"{box.home}: maildir INBOX: stored without the keywords b: the folder has 26 others"
    )


def test_time_of_the_file_grows(box: Mailbox, maildir: Path) -> None:
    """The file's time grows by whole seconds, for so Dovecot sees that it changed."""
    far = int(time.time()) + 1000
    (maildir / TABLE).write_text("0 a\n")
    os.utime(maildir / TABLE, (far, far))
    store(box, RAW, flags={"b"})
    assert (maildir / TABLE).stat().st_mtime >= far + 1


def test_abort_leaves_only_the_name(box: Mailbox, maildir: Path) -> None:
    """An aborted message is gone; the name stays, as it says nothing of a message."""
    before = tree(Path(box.home))
    deliver.prepare(box, "", [RAW], {"invoice"}, "", RECEIVED).abort()
    after = tree(Path(box.home))
    assert after.pop(f"Maildir/{TABLE}")[1] == b"0 invoice\n"
    assert after == before


@pytest.mark.parametrize("what", ["directory", "link", "long"])
def test_file_that_cannot_be_used(
    box: Mailbox, maildir: Path, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever stands in the file's place, the message is stored, and nothing is followed."""
    table = maildir / TABLE
    other = Path(box.home, "other")
    other.write_text("0 invoice\n")
    match what:
        case "directory":
            table.mkdir()
        case "link":
            table.symlink_to(other)
        case "long":
            table.write_text("0 invoice\n" * 10_000)
    before = tree(Path(box.home))
    store(box, RAW, flags={"invoice", "\\Flagged"})
    assert infos(maildir) == ["F"]
    assert "stored without the keywords invoice" in caplog.text
    after = tree(Path(box.home))
    assert {name: after[name] for name in before} == before


def test_full_disk(maildir: Path, opened: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the file cannot be written whole, the old one stays, and no lock."""
    (maildir / TABLE).write_text("0 a\n")
    before = tree(maildir)
    monkeypatch.setattr(os, "fsync", _fail)
    assert registered(opened, ["a", "b"], "here") == "a"
    assert tree(maildir) == before


def _fail(fd: int) -> None:
    raise OSError(28, "No space left on device")


def test_rest_of_a_crash(maildir: Path, opened: int) -> None:
    """A half-written file of somebody who died is replaced."""
    (maildir / f"{TABLE}.lock").write_text("0 a\n1 b\n2")
    assert registered(opened, ["c"], "here") == "a"
    assert (maildir / TABLE).read_text() == "0 c\n"
    assert not (maildir / f"{TABLE}.lock").exists()


# the lock


def hold(maildir: Path, owner: str, age: float) -> Path:
    """Somebody's lock, so many seconds old."""
    lock = maildir / LOCK
    lock.write_text(owner)
    os.utime(lock, (time.time() - age,) * 2)
    return lock


@pytest.fixture
def dead() -> int:
    """The id of a process that has ended."""
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid


HERE = os.uname().nodename
HELD = {
    "somewhere": ("1:elsewhere", 100.0),
    "alive": (f"{os.getpid()}:{HERE}", 100.0),
    "nobody said": ("", 100.0),
    "nonsense": ("x" * 100_000, 100.0),
    "just now": (f"1:{HERE}", 0.0),
}


@pytest.mark.parametrize("held", HELD)
def test_lock_is_respected(
    maildir: Path, opened: int, held: str, caplog: pytest.LogCaptureFixture
) -> None:
    """While somebody may have the lock nothing is written: the keyword is left out."""
    lock = hold(maildir, *HELD[held])
    before = tree(maildir)
    assert registered(opened, ["invoice"], "here", wait=0.0) == ""
    assert tree(maildir) == before
    assert lock.exists()
    assert "without the keywords invoice: dovecot-uidlist.lock stayed" in caplog.text


def test_lock_of_a_dead_process(maildir: Path, opened: int, dead: int) -> None:
    """The lock of a process of this machine that has ended is removed, and given back."""
    hold(maildir, f"{dead}:{HERE}\n", 3.0)
    assert registered(opened, ["invoice"], "here") == "a"
    assert not (maildir / LOCK).exists()


def test_lock_of_a_dead_process_is_first_left_alone(maildir: Path, opened: int, dead: int) -> None:
    """A fresh lock is nobody's to take: its owner may be one we cannot see."""
    hold(maildir, f"{dead}:{HERE}", 0.0)
    assert registered(opened, ["invoice"], "here", wait=0.0) == ""


@pytest.mark.parametrize("owner", ["1:elsewhere", "", f"1:{HERE}"])
def test_old_lock(maildir: Path, opened: int, owner: str) -> None:
    """A lock is removed after two minutes, also if its pid was given to another since."""
    hold(maildir, owner, 130.0)
    assert registered(opened, ["invoice"], "here") == "a"
    assert not (maildir / LOCK).exists()


KILLED = """
import os, sys
from mdaflow import deliver
from mdaflow.deliver.mailbox import Mailbox
at, home = sys.argv[1:]
real = getattr(os, at)
def kill(*arguments, **more):
    if "dovecot-keywords.lock" in arguments:
        os.kill(os.getpid(), 9)
    return real(*arguments, **more)
setattr(os, at, kill)
deliver.prepare(Mailbox("maildir", home, "Maildir"), "", [b"A: b\\n\\n"], ("invoice",), "", 0.0)
"""


@pytest.mark.parametrize("at", ["open", "rename"])
def test_killed_while_a_keyword_is_added(
    at: str, box: Mailbox, maildir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a kill leaves goes with the next message for the folder, whatever flags that has."""
    child = start(KILLED, at, box.home)
    child.communicate(timeout=60)
    assert child.returncode == -9
    assert (maildir / LOCK).exists()
    assert (maildir / "dovecot-keywords.lock").exists() == (at == "rename")
    for path in maildir.glob("*.lock"):
        os.utime(path, (time.time() - 130,) * 2)
    monkeypatch.setattr(leftovers, "_looked", {})
    store(box, RAW)
    assert list(maildir.glob("*.lock")) == []
    store(box, RAW, flags=["invoice"])
    assert (maildir / TABLE).read_text() == "0 invoice\n"


def test_lock_may_be_anything(maildir: Path, opened: int) -> None:
    """A link or a directory in the lock's place is a lock, and is not followed."""
    (maildir / LOCK).symlink_to("/nonexistent/file")
    assert registered(opened, ["invoice"], "here", wait=0.0) == ""
    (maildir / LOCK).unlink()
    (maildir / LOCK).mkdir()
    assert registered(opened, ["invoice"], "here", wait=0.0) == ""
    assert (maildir / LOCK).is_dir()


def test_lock_names_its_owner(maildir: Path, opened: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the file is written the lock is there, and says whose it is as Dovecot's do."""
    seen = []
    write = keywords._write

    def look(*arguments: object) -> None:
        seen.append((maildir / LOCK).read_text())
        write(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(keywords, "_write", look)
    registered(opened, ["invoice"], "here")
    assert seen == [f"{os.getpid()}:{HERE}"]


def test_threads(maildir: Path, opened: int) -> None:
    """Many at once: every name has one number, and every message the letter of its name."""
    words = [f"word{n}" for n in range(24)]
    got: dict[str, str] = {}

    def work(mine: list[str]) -> None:
        for word in mine:
            got[word] = registered(opened, [word], "here", wait=60.0)

    threads = [threading.Thread(target=work, args=(words[n::4] + words[:6],)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = (line.split() for line in (maildir / TABLE).read_text().splitlines())
    assert got == {name: chr(ord("a") + int(number)) for number, name in lines}
    assert sorted(got) == sorted(words)


PROCESS = """
import os, sys
from mdaflow.deliver.keywords import registered
fd = os.open(sys.argv[1], os.O_RDONLY)
for word in sys.argv[2:]:
    registered(fd, [word], "here", wait=60.0)
"""


def test_processes(maildir: Path) -> None:
    """The same with processes."""
    words = [f"word{n}" for n in range(12)]
    children = [start(PROCESS, str(maildir), *words[n::3], "word0") for n in range(3)]
    for child in children:
        child.communicate()
        assert child.returncode == 0
    lines = [line.split() for line in (maildir / TABLE).read_text().splitlines()]
    assert [int(number) for number, _ in lines] == list(range(12))
    assert sorted(name for _, name in lines) == sorted(words)


# in an mbox


@pytest.fixture
def mbox(tmp_path: Path) -> Mailbox:
    return Mailbox("mbox", str(tmp_path), "mail")


DOVECOT = (
    b"From a Sat Nov  1 13:25:00 2025\nX-IMAPbase: 1762003500 0000000001 old\n"
    b"X-UID: 1%s\nSubject: first\n\nText\n\n"
)


def test_new_mbox(mbox: Mailbox) -> None:
    """The first message of a new file lists its keywords, with a new UIDVALIDITY."""
    store(mbox, RAW, flags={"invoice", "$Forwarded", "\\Seen"})
    store(mbox, RAW, flags={"invoice"})
    first, second = Path(mbox.home, "mail/inbox").read_bytes().split(b"\n\nText\n\n")[:2]
    assert first.split(b"\n")[1:] == [
        b"X-IMAPbase: 1762003500 0000000000 $Forwarded invoice",
        b"Status: R",
        b"X-Keywords: $Forwarded invoice",
        b"Subject: x",
    ]
    assert second.split(b"\n")[1:] == [b"X-Keywords: invoice", b"Subject: x"]


def test_empty_mbox(mbox: Mailbox) -> None:
    """A file that was there may have a UIDVALIDITY that readers know: it gets no other."""
    Path(mbox.home, "mail").mkdir()
    Path(mbox.home, "mail/inbox").touch()
    store(mbox, RAW, flags={"invoice"})
    raw = Path(mbox.home, "mail/inbox").read_bytes()
    assert b"X-IMAPbase" not in raw
    assert b"\nX-Keywords: invoice\n" in raw


def test_list_of_dovecot(mbox: Mailbox, caplog: pytest.LogCaptureFixture) -> None:
    """A new keyword is listed in the spaces that Dovecot left; nothing else moves."""
    Path(mbox.home, "mail").mkdir()
    inbox = Path(mbox.home, "mail/inbox")
    inbox.write_bytes(DOVECOT % (b" " * 10))
    store(mbox, RAW, flags={"invoice"})
    raw = inbox.read_bytes()
    assert raw.startswith((DOVECOT % b"  ").replace(b" old\n", b" old invoice\n"))
    assert b"\nX-Keywords: invoice\nSubject: x\n\nText\n\n" in raw
    assert caplog.records == []


def test_no_room_in_the_list(mbox: Mailbox, caplog: pytest.LogCaptureFixture) -> None:
    """Without room a keyword is left out, and the log says so; the others are stored."""
    Path(mbox.home, "mail").mkdir()
    inbox = Path(mbox.home, "mail/inbox")
    inbox.write_bytes(DOVECOT % b"")
    store(mbox, RAW, flags={"invoice", "OLD"})
    assert inbox.read_bytes().startswith(DOVECOT % b"")
    assert b"\nX-Keywords: OLD\n" in inbox.read_bytes()
    assert f"{mbox.home}: mbox INBOX: stored without the keywords invoice" in caplog.text


def test_aborted_mbox_is_as_long_as_before(mbox: Mailbox) -> None:
    """What was listed stays listed, but the message is cut off, and can come again."""
    Path(mbox.home, "mail").mkdir()
    inbox = Path(mbox.home, "mail/inbox")
    inbox.write_bytes(DOVECOT % (b" " * 20))
    deliver.prepare(mbox, "", [RAW], {"invoice"}, "", RECEIVED).abort()
    assert len(inbox.read_bytes()) == len(DOVECOT % (b" " * 20))
    store(mbox, RAW, flags={"invoice"})
    assert inbox.read_bytes().count(b"invoice") == 2
