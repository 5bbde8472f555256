"""Quota: `maildirsize` is read, written and made anew as by Courier and Dovecot."""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from boxes import RECEIVED, descriptors, start, tree

from mdaflow import deliver
from mdaflow.deliver import quota as quota_module
from mdaflow.deliver.census import Total
from mdaflow.deliver.expire import expire
from mdaflow.deliver.mailbox import Mailbox, Quota, locate, parse_mailbox
from mdaflow.deliver.quota import LONGEST, STALE, Use, check
from mdaflow.errors import MAILBOX_FULL, OVER_QUOTA, MailError, PermFail, TempFail

KILO = 1024


@pytest.fixture
def home(tmp_path: Path) -> Path:
    path = tmp_path / "home"
    path.mkdir()
    return path


@pytest.fixture
def box(home: Path) -> Mailbox:
    """A Maildir for 10 KiB and 20 messages."""
    return with_quota(home, Quota(10 * KILO, 20))


def with_quota(home: Path, quota: Quota) -> Mailbox:
    return parse_mailbox("maildir:Maildir", str(home), quota)


def put(box: Mailbox, size: int = 100, folder: str = "") -> Use | None:
    """Deliver a message of so many bytes; what it did to the quota."""
    before = descriptors()
    prepared = deliver.prepare(box, folder, [b"x" * size], (), "", RECEIVED)
    prepared.commit()
    assert descriptors() == before
    use = getattr(prepared, "use", None)
    assert use is None or isinstance(use, Use)
    return use


def file(box: Mailbox) -> Path:
    return Path(box.home, "Maildir", "maildirsize")


def lines(box: Mailbox) -> list[str]:
    raw = file(box).read_text()
    assert raw.endswith("\n")
    return raw.splitlines()


def said(box: Mailbox) -> Total:
    """The sum of the file."""
    numbers = [tuple(map(int, line.split())) for line in lines(box)[1:]]
    return Total(sum(n for n, _ in numbers), sum(n for _, n in numbers))


def truth(box: Mailbox) -> Total:
    """What is there."""
    sizes = [
        path.stat().st_size
        for part in ("new", "cur")
        for path in Path(box.home, "Maildir").rglob(f"{part}/*")
    ]
    return Total(sum(sizes), len(sizes))


def age(box: Mailbox, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(file(box), (then, then))


def test_file_is_made(box: Mailbox) -> None:
    """The first delivery makes the file: the limits, what was there, what was added."""
    put(box, 100)
    assert lines(box) == ["10240S,20C", "0 0", "100 1"]
    assert tree(Path(box.home))["Maildir/maildirsize"][0] == "-rw-------"


@pytest.mark.parametrize(
    ("quota", "head"),
    [(Quota(), "0S"), (Quota(5000), "5000S"), (Quota(0, 7), "7C"), (Quota(5000, 7), "5000S,7C")],
)
def test_limits(home: Path, quota: Quota, head: str) -> None:
    """A limit that is none is left out of the first line."""
    put(with_quota(home, quota))
    assert lines(with_quota(home, quota))[0] == head


def test_lines_are_appended(box: Mailbox) -> None:
    """Each delivery adds a line, to any folder and with any flags."""
    put(box, 100)
    put(box, 200, "Junk")
    deliver.prepare(box, "a/b", [b"x" * 300], ("\\Seen",), "", RECEIVED).commit()
    assert lines(box) == ["10240S,20C", "0 0", "100 1", "200 1", "300 1"]
    assert said(box) == truth(box) == (600, 3)


def test_folder_first(box: Mailbox) -> None:
    """The account is that of the whole Maildir, even where only a folder was ever delivered to."""
    put(box, 100, "Junk")
    put(box, 100, "Junk")
    assert lines(box) == ["10240S,20C", "0 0", "100 1", "100 1"]


def test_without_a_quota(home: Path) -> None:
    """Without a quota there is no file, and one that is there is left alone."""
    box = parse_mailbox("maildir:Maildir", str(home))
    assert put(box) is None
    assert not file(box).exists()
    file(box).write_text("1S\n0 0\n")
    put(box)
    assert file(box).read_text() == "1S\n0 0\n"


def test_abort_counts_nothing(box: Mailbox) -> None:
    """A message that is not committed is not counted."""
    put(box)
    before = tree(Path(box.home))
    deliver.prepare(box, "", [b"x"], (), "", RECEIVED).abort()
    assert tree(Path(box.home)) == before


def test_elsewhere(box: Mailbox, tmp_path: Path) -> None:
    """A mailbox named by its path has no quota."""
    found = deliver.mailbox.elsewhere(f"maildir:{tmp_path}/all")
    assert found is not None
    put(found[0], 20 * KILO)
    assert not (tmp_path / "all/maildirsize").exists()


def test_no_quota_for_mbox(home: Path) -> None:
    """An mbox can have none, and says so."""
    with pytest.raises(ValueError, match="only a Maildir"):
        parse_mailbox("mbox:mail", str(home), Quota(1))


# no room


@pytest.mark.parametrize(
    ("over", "error"), [(OVER_QUOTA, TempFail), (MAILBOX_FULL, PermFail)], ids=["defer", "reject"]
)
def test_no_room(home: Path, over: object, error: type[MailError]) -> None:
    """Who would pass the limit gets the reply of the policy, and nothing is left or counted."""
    box = with_quota(home, Quota(1000, 0, over))  # type: ignore[arg-type]
    put(box, 600)
    put(box, 400)  # to the last byte
    before = tree(home)
    for size in (1, 5000):
        with pytest.raises(error, match=r"over quota: 1,000 of 1,000 bytes$") as caught:
            put(box, size)
        assert caught.value.status is over
    after = tree(home)
    assert said(box) == truth(box) == (1000, 2)
    assert before.pop("Maildir/maildirsize") != after.pop("Maildir/maildirsize")  # counted anew
    assert before == after


def test_too_many(home: Path) -> None:
    """Messages are limited as well."""
    box = with_quota(home, Quota(0, 2))
    put(box, 10_000)
    put(box, 10_000)
    with pytest.raises(TempFail, match="2 of 2 messages"):
        put(box, 0)
    assert truth(box).messages == 2


def test_only_counted(home: Path) -> None:
    """Where nothing is refused, mail is counted all the same."""
    box = with_quota(home, Quota(1000, 0, None))
    put(box, 600)
    put(box, 600)
    assert said(box) == (1200, 2)


def test_check(home: Path, box: Mailbox) -> None:
    """A mailbox is full when there is no room for a byte; one that is not there is not."""
    check(box)
    assert not list(home.iterdir())
    put(box, 10 * KILO - 1)
    before = descriptors()
    check(box)
    put(box, 1)
    with pytest.raises(TempFail) as caught:
        check(box)
    assert caught.value.status is OVER_QUOTA
    assert descriptors() == before
    check(parse_mailbox("mbox:mail", str(home)))


def test_over_quota_is_counted_anew(box: Mailbox) -> None:
    """What was appended is not believed when there is no room: somebody may have deleted mail."""
    put(box, 9 * KILO)
    [message] = file(box).parent.glob("new/*")
    message.unlink()
    put(box, 9 * KILO)
    assert lines(box) == ["10240S,20C", "0 0", f"{9 * KILO} 1"]


@pytest.mark.parametrize(
    ("seconds", "believed"), [(STALE / 2, True), (STALE + 5, False), (-STALE - 5, False)]
)
def test_over_quota_for_a_while(box: Mailbox, seconds: float, believed: bool) -> None:
    """A count is believed for 15 minutes, by whatever clock, even if mail was deleted."""
    put(box, 9 * KILO)
    with pytest.raises(TempFail):
        put(box, 9 * KILO)
    assert lines(box) == ["10240S,20C", f"{9 * KILO} 1"]
    [message] = file(box).parent.glob("new/*")
    message.unlink()
    age(box, seconds)
    if believed:
        with pytest.raises(TempFail):
            put(box, 9 * KILO)
    else:
        put(box, 9 * KILO)
    assert said(box) == (9 * KILO, 1)


# counted anew

BROKEN = {
    "empty": "",
    "no count": "10240S,20C\n",
    "no newline": "10240S,20C\n0 0\n100 1",
    "other size": "10241S,20C\n0 0\n",
    "other count": "10240S\n0 0\n",
    "no limit": "0S\n0 0\n",
    "junk": "10240S,20C\n0 0\njunk\n",
    "three numbers": "10240S,20C\n0 0 0\n0\n",
    "huge": f"10240S,20C\n{'9' * 5000} 1\n",
    "negative": "10240S,20C\n0 0\n-1 0\n",
    "no number": "10240S,20C\n0 0\n 1\n",
    "half a number": "10240S,20C\n0 0\n- 1\n",
    "nul": "10240S,20C\n0 0\n\0\0\0",
    "long": "10240S,20C\n" + "0 0\n" * 1300,
    "other digits": "10240S,20C\n\u0661 1\n",
}


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN.keys())
def test_made_anew(box: Mailbox, text: str) -> None:
    """A file that is broken, too long or of other limits is replaced by a count."""
    put(box, 100)
    file(box).write_text(text)
    put(box, 200, "Junk")
    put(box, 300)
    assert lines(box) == ["10240S,20C", "100 1", "200 1", "300 1"]


@pytest.mark.parametrize("head", ["10240S,20C", "20C,10240S"])
def test_order_of_limits(box: Mailbox, head: str) -> None:
    """The limits may come in any order."""
    put(box, 100)
    file(box).write_text(f"{head}\n100 1\n-50 -0\n")
    put(box, 100)
    assert lines(box) == [head, "100 1", "-50 -0", "100 1"]


@pytest.mark.parametrize(("length", "read"), [(LONGEST - 1, True), (LONGEST, False)])
def test_length(box: Mailbox, length: int, read: bool) -> None:
    """One byte below 5,120 is read, 5,120 bytes are not."""
    put(box, 100)
    head, rest = "10240S,20C\n", " 1\n" + "0 0\n" * 1000
    file(box).write_text(f"{head}{'100'.zfill(length - len(head + rest))}{rest}")
    assert file(box).stat().st_size == length
    put(box, 100)
    assert (len(lines(box)) > 1000) is read
    assert said(box) == (200, 2)


def test_what_counts(home: Path, box: Mailbox) -> None:
    """Trash and deleted mail count, by the size in the name or that of the file; the rest not."""
    maildir = home / "Maildir"
    put(box, 1)
    put(box, 1, "Trash")
    file(box).unlink()
    for name, size in {
        "cur/a,S=1000:2,ST": 1,
        "cur/b,S=10,W=20:2,": 1,
        "cur/c,S=x:2,S": 7,
        "new/d,S=5x": 7,
        "new/e": 7,
        "new/.hidden,S=9999": 1,
        ".Trash/cur/f,S=100:2,T": 1,
        "tmp/g,S=9999": 1,
        "h,S=9999": 1,
        "notafolder/new/i,S=9999": 1,
    }.items():
        (maildir / name).parent.mkdir(parents=True, exist_ok=True)
        (maildir / name).write_bytes(b"x" * size)
    (maildir / "cur/directory").mkdir()
    (maildir / "cur/link").symlink_to("b,S=10,W=20:2,")
    (maildir / ".file").write_text("x")
    (maildir / ".linked").symlink_to(".Trash")
    put(box, 1)
    assert lines(box)[1:] == [f"{1 + 1 + 1000 + 10 + 7 + 7 + 7 + 100} 8", "1 1"]


ODD: list[Callable[[Path], object]] = [
    os.mkfifo,
    lambda path: path.symlink_to("/etc/passwd"),
    lambda path: path.symlink_to("nowhere"),
    lambda path: path.symlink_to(path.name),
]


@pytest.mark.parametrize("make", ODD)
def test_odd_file(box: Mailbox, make: Callable[[Path], object]) -> None:
    """What is no plain file is replaced, and nobody waits for it."""
    put(box, 100)
    file(box).unlink()
    make(file(box))
    put(box, 100)
    assert file(box).is_file()
    assert not file(box).is_symlink()
    assert said(box) == (200, 2)


def test_hard_link(box: Mailbox, home: Path) -> None:
    """A file with a second name, as in a backup, is not written to; the next one counts."""
    put(box, 100)
    os.link(file(box), home / "backup")
    kept = (home / "backup").read_text()
    put(box, 100)
    assert (home / "backup").read_text() == kept
    put(box, 100)
    assert said(box) == truth(box)


def test_directory_in_its_place(box: Mailbox, caplog: pytest.LogCaptureFixture) -> None:
    """What cannot be replaced: mail is counted each time, refused as it should, and logged."""
    put(box, 100)
    file(box).unlink()
    (file(box) / "x").mkdir(parents=True)
    put(box, 9 * KILO)
    assert "maildirsize is not written" in caplog.text
    with pytest.raises(TempFail):
        put(box, 9 * KILO)
    assert not list(file(box).parent.glob("tmp/*"))


# races


def pending(box: Mailbox, size: int = 100) -> deliver.mailbox.Prepared:
    return deliver.prepare(box, "", [b"x" * size], (), "", RECEIVED)


def test_replaced_meanwhile(box: Mailbox) -> None:
    """A line goes to the file that has the name by then: the count has not met the message."""
    put(box, 100)
    waiting = pending(box, 200)
    file(box).write_text("")
    put(box, 300)
    waiting.commit()
    assert lines(box) == ["10240S,20C", "100 1", "300 1", "200 1"]


def test_removed_meanwhile(box: Mailbox) -> None:
    """A file that is gone by then is not made: the next delivery counts."""
    put(box, 100)
    waiting = pending(box, 200)
    file(box).unlink()
    waiting.commit()
    assert not file(box).exists()
    put(box, 300)
    assert lines(box) == ["10240S,20C", "300 2", "300 1"]


@pytest.mark.parametrize("often", [1, 2, 99])
def test_mail_comes_while_counting(
    box: Mailbox, often: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What comes or goes while others count is counted, or the file goes: no wrong sum stays."""
    put(box, 100)
    put(box, 100, "Junk")
    file(box).unlink()
    replace = quota_module.Account._replace
    left = [often]

    def disturbed(account: quota_module.Account, held: Total) -> None:
        left[0] -= 1
        if left[0] >= 0:  # a program that knows nothing of quotas
            (file(box).parent / f"cur/{left[0]},S=10:2,").write_bytes(b"x" * 10)
        replace(account, held)

    monkeypatch.setattr(quota_module.Account, "_replace", disturbed)
    put(box, 100)
    monkeypatch.undo()
    if file(box).exists():
        assert often < 3
        assert said(box) == truth(box)
    else:
        assert often == 99
    put(box, 100)
    assert said(box) == truth(box)


DELIVER = """
import sys
from mdaflow import deliver
from mdaflow.deliver.mailbox import Quota, parse_mailbox
box = parse_mailbox("maildir:Maildir", sys.argv[1], Quota(100_000_000, 100_000))
sys.stdin.readline()
for n in range(150):
    folder = ("", "Junk")[n % 2]
    prepared = deliver.prepare(box, folder, [b"x" * (n * 7)], (), "", 0.0)
    prepared.abort() if n % 10 == 9 else prepared.commit()
"""


def test_four_processes(home: Path) -> None:
    """Four processes at once lose no message; after a count the sums are true."""
    box = with_quota(home, Quota(100_000_000, 100_000))
    children = [start(DELIVER, str(home)) for _ in range(4)]
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
    for child in children:
        child.communicate(timeout=100)
        assert child.returncode == 0
    there = truth(box)
    assert there.messages == 4 * 135
    if file(box).exists():
        assert abs(said(box).messages - there.messages) <= 4
        file(box).unlink()
    put(box, 0)
    assert said(box) == truth(box) == there.plus(0, 1)
    assert not list(home.rglob("tmp/*"))


# what changes


def test_use(box: Mailbox) -> None:
    """A delivery tells what it has made of the quota; the fuller limit counts."""
    put(box, 5 * KILO)
    use = put(box, 4 * KILO + 512)
    assert use == Use(Total(5 * KILO, 1), Total(9 * KILO + 512, 2), Quota(10 * KILO, 20))
    assert [p for p in (40, 50, 51, 90, 95, 96, 100) if use.crossed(p)] == [51, 90, 95]
    assert use.now.of(use.quota) == "9,728 of 10,240 bytes, 2 of 20 messages"
    for _ in range(15):
        put(box, 0)
    use = put(box, 0)
    assert use is not None
    assert not use.crossed(90)  # by its bytes it was there already
    assert put(with_quota(Path(box.home), Quota(0, 19)), 0) == Use(
        Total(9 * KILO + 512, 18), Total(9 * KILO + 512, 19), Quota(0, 19)
    )


def test_expire_gives_back(box: Mailbox) -> None:
    """What expires is taken off the account."""
    put(box, 100)
    for folder in ("", "", "Junk"):
        deliver.prepare(box, folder, [b"x" * 50], (), "", RECEIVED, 10.0).commit()
    list(expire(box, RECEIVED + 20, dry_run=True))
    assert len(lines(box)) == 6
    list(expire(box, RECEIVED + 20))
    assert sorted(lines(box)[6:]) == ["-100 -2", "-50 -1"]
    assert said(box) == truth(box) == (100, 1)
    file(box).unlink()
    deliver.prepare(
        parse_mailbox("maildir:Maildir", box.home), "", [b"x"], (), "", RECEIVED, 1.0
    ).commit()
    list(expire(box, RECEIVED + 20))
    assert not file(box).exists()


def test_failed_commit_is_taken_back(box: Mailbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """A message that cannot be made visible, or whose directory cannot be synced, is given back."""
    put(box, 100)
    for name in ("renames", "syncs"):
        waiting = pending(box, 200)
        with monkeypatch.context() as patch:
            if name == "renames":
                patch.setattr(deliver.maildir, "_rename", fail)
            else:
                patch.setattr(os, "fsync", fail)
            with pytest.raises(TempFail):
                waiting.commit()
    assert lines(box)[2:] == ["100 1", "200 1", "-200 -1", "200 1", "-200 -1"]
    assert said(box) == truth(box)


def fail(*_: object) -> None:
    raise OSError(5, "Input/output error")


# what the system refuses


def test_cannot_be_counted(
    box: Mailbox, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where nothing can be read or counted, mail is stored as without a quota, and that is
    logged, as Dovecot does."""
    put(box, 9 * KILO)
    file(box).unlink()
    monkeypatch.setattr(quota_module, "count", fail)
    with caplog.at_level(logging.WARNING, "mdaflow"):
        assert put(box, 9 * KILO) is None
    assert "quota: Input/output error; no room is refused" in caplog.text
    check(box)
    monkeypatch.undo()
    with pytest.raises(TempFail):
        put(box, 1)


def test_short_write(box: Mailbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line that has only half a place is none: the file goes, and the next one counts."""
    put(box, 100)
    waiting = pending(box, 200)
    write = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda fd, raw: write(fd, raw[:2]))
        waiting.commit()
    assert not file(box).exists()
    put(box, 100)
    assert said(box) == truth(box) == (400, 3)


def test_full_disk(small_disk: Path) -> None:
    """On a full disk mail is put off; what is there is not harmed, and no line is lost."""
    home = small_disk / "home"
    home.mkdir()
    box = with_quota(home, Quota(10_000_000))

    def fill() -> None:
        for _ in range(100):
            put(box, 3000)

    with pytest.raises(TempFail) as caught:
        fill()
    assert caught.value.status.code == 452
    assert truth(box).messages > 5
    (next(file(box).parent.glob("new/*"))).unlink()
    file(box).unlink()
    put(box, 1000)
    assert said(box) == truth(box)


def test_missing_tmp_is_no_room_problem(box: Mailbox) -> None:
    """A Maildir that is not whole is not full."""
    put(box, 10 * KILO)
    shutil.rmtree(Path(box.home, *locate(box, ""), "tmp"))
    check(box)


def test_use_of_deliveries_at_once(box: Mailbox) -> None:
    """What was added since a message was admitted was there before it, for the threshold."""
    put(box, 100)
    waiting = [pending(box, 3 * KILO) for _ in range(3)]
    for delivery in waiting:
        delivery.commit()
    uses = [delivery.use for delivery in waiting]  # type: ignore[attr-defined]
    assert [use.now.messages for use in uses] == [2, 3, 4]
    assert [use.crossed(80) for use in uses] == [False, False, True]
