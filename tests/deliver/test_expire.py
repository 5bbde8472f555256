"""Expiry: a record before the message, and nothing deleted but what is recorded."""

from __future__ import annotations

import math
import os
import re
import shutil
from collections.abc import Callable, Collection
from contextlib import nullcontext
from pathlib import Path

import pytest
from boxes import RECEIVED, descriptors, messages, store, tree

from mdaflow import deliver
from mdaflow.deliver import expire as expire_module
from mdaflow.deliver import mailbox, maildir
from mdaflow.deliver.expire import YOUNG, Counts, expire
from mdaflow.deliver.mailbox import Mailbox, parse_mailbox
from mdaflow.errors import INTERNAL, TempFail

RAW = b"Subject: x\n\nText\n"
DAY = 86400.0
OVER = RECEIVED + 31 * DAY


@pytest.fixture
def box(tmp_path: Path) -> Mailbox:
    return Mailbox("maildir", str(tmp_path), "Maildir")


def put(
    box: Mailbox,
    folder: str = "",
    flags: Collection[str] = (),
    days: float | None = 30,
    raw: bytes = RAW,
) -> Path:
    """Store one message that expires; its file."""
    before = files(box, folder)
    seconds = None if days is None else days * DAY
    deliver.prepare(box, folder, [raw], flags, "", RECEIVED, seconds).commit()
    [file] = files(box, folder) - before
    return file


def place(box: Mailbox, folder: str = "") -> Path:
    return Path(box.home, "Maildir", f".{folder.replace('/', '.')}" if folder else "")


def files(box: Mailbox, folder: str = "") -> set[Path]:
    return {file for part in ("new", "cur") for file in place(box, folder).glob(f"{part}/*")}


def records(box: Mailbox, folder: str = "") -> set[str]:
    return {file.name for file in place(box, folder).glob("mdaflow-expire/*")}


def age(box: Mailbox, folder: str = "") -> None:
    """Make all records as old as their message."""
    for file in place(box, folder).glob("mdaflow-expire/*"):
        os.utime(file, (RECEIVED, RECEIVED))


def run(box: Mailbox, now: float = OVER, *, dry_run: bool = False) -> set[Counts]:
    """One run; its counts."""
    before = descriptors()
    counts = list(expire(box, now, dry_run=dry_run))
    assert descriptors() == before
    assert len(set(counts)) == len(counts)
    return set(counts)


@pytest.mark.parametrize("options", ["", ":UTF-8", ":SEPARATOR=.", ":SEPARATOR=^"])
def test_names_of_folders(tmp_path: Path, options: str) -> None:
    """Folders are found and called by their names however the disk spells them."""
    box = parse_mailbox(f"maildir:Maildir{options}", str(tmp_path))
    names = ["", "a", *(box.separator.join(name) for name in ("ab", "ü台", "xyz"))]
    for name in names:
        deliver.prepare(box, name, [RAW], (), "", RECEIVED, DAY).commit()
        deliver.prepare(box, name, [RAW], (), "", RECEIVED).commit()
    counts = {(found.folder, found.expired) for found in run(box)}
    assert counts == {(name or "INBOX", 1) for name in names}
    assert all(messages(box, name) == [RAW] for name in names)


# the record


def test_record(box: Mailbox) -> None:
    """A message with `expire` has an empty record: when, and what of its name never changes."""
    file = put(box, "Junk", {"\\Seen"}, days=1.5)
    [record] = records(box, "Junk")
    assert record == f"1762133100-{file.name.partition(',')[0]}"
    modes = {name: mode for name, (mode, _) in tree(Path(box.home)).items()}
    assert modes["Maildir/.Junk/mdaflow-expire"] == "drwx------"
    assert modes[f"Maildir/.Junk/mdaflow-expire/{record}"] == "-rw-------"


@pytest.mark.parametrize(("days", "deadline"), [(math.inf, "9999999999"), (1e300, "9999999999")])
def test_far_deadline(box: Mailbox, days: float, deadline: str) -> None:
    """No deadline is too far to be written."""
    put(box, days=days)
    assert [record.partition("-")[0] for record in records(box)] == [deadline]
    assert run(box) == {Counts("INBOX", 0, 0, 1, 0)}


def test_record_is_there_first(box: Mailbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the message becomes visible, its record is on the disk."""
    calls = []
    fsync, rename = os.fsync, maildir._rename

    def synced(fd: int) -> None:
        calls.append(Path(f"/proc/self/fd/{fd}").readlink().name)
        fsync(fd)

    def renamed(source: int, name: str, target: int, final: str) -> None:
        [record] = records(box)
        assert final.startswith(record.partition("-")[2] + ",")
        calls.append("rename")
        rename(source, name, target, final)

    put(box)  # makes the directories
    shutil.rmtree(place(box) / "mdaflow-expire")
    (place(box) / "mdaflow-expire").mkdir()
    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(maildir, "_rename", renamed)
    put(box)
    assert calls[1:] == ["mdaflow-expire", "rename", "new"]
    assert len(calls) == 4


@pytest.mark.parametrize("flags", [(), ("\\Seen",), ("invoice",)])
def test_two_syncs_without(
    box: Mailbox, flags: Collection[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without `expire`, and without a new keyword, there are two syncs and no record."""
    put(box, flags=flags, days=None)
    calls: list[int] = []
    monkeypatch.setattr(os, "fsync", calls.append)
    put(box, flags=flags, days=None)
    assert len(calls) == 2
    assert sorted(path.name for path in place(box).iterdir() if path.is_dir()) == [
        "cur",
        "new",
        "tmp",
    ]


def test_aborted_message_has_no_record(box: Mailbox) -> None:
    """An aborted message leaves no record behind."""
    put(box)
    before = tree(Path(box.home))
    deliver.prepare(box, "", [RAW], (), "", RECEIVED, DAY).abort()
    assert tree(Path(box.home)) == before


@pytest.mark.parametrize("when", [1, 2])
def test_failed_commit_has_no_record(
    box: Mailbox, when: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the record or the directory cannot be synced, neither message nor record stays."""
    put(box)
    before = tree(Path(box.home))
    prepared = deliver.prepare(box, "", [RAW], (), "", RECEIVED, DAY)
    left = [when]

    def fail(fd: int) -> None:
        left[0] -= 1
        if not left[0]:
            raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(TempFail):
        prepared.commit()
    assert tree(Path(box.home)) == before


def test_record_has_the_name_that_was_free(box: Mailbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the first name is taken, the record is of the second; the other message has none."""
    names = iter(["a", "b", "c"])
    monkeypatch.setattr(maildir, "_unique", lambda: next(names))
    put(box, days=None)
    (place(box) / "new" / f"b,S={len(RAW)}").write_bytes(b"somebody's")
    put(box)
    assert records(box) == {"1764595500-c"}
    assert run(box) == {Counts("INBOX", 1, 0, 0, 0)}
    assert messages(box) == sorted([RAW, b"somebody's"])


@pytest.mark.parametrize(("spec", "kind"), [("mbox:mail", "mbox"), ("maildir:m:LAYOUT=fs",) * 2])
def test_no_expiry(tmp_path: Path, spec: str, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    """Where nothing can be recorded, a message is stored for good; one line in the log says so."""
    mailbox.warn_of_no_expiry.cache_clear()
    box = parse_mailbox(spec, str(tmp_path))
    for _ in range(3):
        deliver.prepare(box, "", [RAW], (), "", RECEIVED, DAY).commit()
    assert messages(box) == [RAW] * 3
    assert [record.getMessage() for record in caplog.records] == [
        f"{kind.rpartition(':')[2]}: a message with `expire` is kept for good"
    ]
    assert run(box) == set()
    assert messages(box) == [RAW] * 3


# what is deleted


def test_time_over(box: Mailbox) -> None:
    """A recorded message goes when its time is over, in new/ and cur/, and its record with it."""
    put(box), put(box, flags={"\\Seen"}), put(box, "lists/dev")
    kept = {put(box, days=None), put(box, flags={"\\Seen"}, days=None), put(box, days=40)}
    assert run(box) == {Counts("INBOX", 2, 0, 1, 0), Counts("lists/dev", 1, 0, 0, 0)}
    assert files(box) == kept
    assert files(box, "lists/dev") == set()
    assert len(records(box)) == 1
    assert run(box) == {Counts("INBOX", 0, 0, 1, 0)}


@pytest.mark.parametrize(("seconds", "gone"), [(-1, 0), (0, 1), (1, 1)])
def test_deadline(box: Mailbox, seconds: int, gone: int) -> None:
    """It is over at the very second, and not before."""
    put(box)
    assert run(box, RECEIVED + 30 * DAY + seconds) == {Counts("INBOX", gone, 0, 1 - gone, 0)}
    assert len(files(box)) == 1 - gone


def test_read_message(box: Mailbox) -> None:
    """A message that its reader has moved to cur/ and given flags is found by its name."""
    file = put(box)
    file.rename(place(box) / "cur" / f"{file.name},W=20:2,RSab")
    assert run(box) == {Counts("INBOX", 1, 0, 0, 0)}
    assert files(box) == set()


@pytest.mark.parametrize("info", [":2,F", ":2,DFS", ":2,FSa", ":2,aSF"])
def test_flagged_message(box: Mailbox, info: str) -> None:
    """A flagged message stays while it is; a keyword `f` is no flag."""
    file = put(box)
    flagged = place(box) / "cur" / f"{file.name}{info}"
    file.rename(flagged)
    assert run(box) == {Counts("INBOX", 0, 1, 0, 0)}
    assert files(box) == {flagged}
    flagged.rename(place(box) / "cur" / f"{file.name}:2,Sf")
    assert run(box) == {Counts("INBOX", 1, 0, 0, 0)}


def test_moved_message(box: Mailbox) -> None:
    """A message that was moved to another folder stays."""
    file = put(box, "Junk")
    put(box, days=None)
    moved = place(box) / "cur" / file.name
    file.rename(moved)
    age(box, "Junk")
    assert run(box) == {Counts("Junk", 0, 0, 0, 1)}
    assert moved.exists()
    assert records(box, "Junk") == set()


def test_dry_run(box: Mailbox) -> None:
    """A dry run counts the same and changes nothing."""
    put(box), put(box, "Junk"), put(box, "Junk", days=40)
    put(box, "Junk").unlink()
    age(box, "Junk")
    before = tree(Path(box.home))
    expected = {Counts("INBOX", 1, 0, 0, 0), Counts("Junk", 1, 0, 1, 1)}
    assert run(box, dry_run=True) == expected
    assert tree(Path(box.home)) == before
    assert run(box) == expected


def test_young_record_waits_for_its_message(box: Mailbox) -> None:
    """The record of a message that is not there is removed when no delivery can be on its way."""
    put(box).unlink()
    [record] = place(box).glob("mdaflow-expire/*")
    made = record.stat().st_mtime
    assert run(box, made + YOUNG - 1) == set()
    assert record.exists()
    assert run(box, made + YOUNG + 1) == {Counts("INBOX", 0, 0, 0, 1)}
    assert not record.exists()


def test_change_while_looking(box: Mailbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """A record stays when something changed meanwhile: its message may have been overlooked."""
    put(box).unlink()
    put(box, days=None)
    age(box)
    scandir = os.scandir

    def changing(path: int) -> object:
        (place(box) / "cur" / f"changed{path}").touch()
        return scandir(path)

    with monkeypatch.context() as patched:
        patched.setattr(os, "scandir", changing)
        assert run(box) == set()
    assert len(records(box)) == 1
    assert run(box) == {Counts("INBOX", 0, 0, 0, 1)}


def test_message_that_is_renamed_meanwhile(box: Mailbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """A message that gets a flag while it is about to be deleted stays, with its record."""
    file = put(box, flags={"\\Seen"})
    settle = expire_module._settle

    def flag(*arguments: object) -> str:
        file.rename(file.with_name(file.name.replace(":2,S", ":2,FS")))
        return settle(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(expire_module, "_settle", flag)
    assert run(box) == {Counts("INBOX", 0, 0, 1, 0)}
    assert len(files(box)) == len(records(box)) == 1


@pytest.mark.parametrize("batch", [1, 2, 3, 7])
def test_bounded_batches(box: Mailbox, batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """However few records are held at once, all are looked at once."""
    for number in range(7):
        put(box, days=30 if number % 2 else 40)
    monkeypatch.setattr(expire_module, "_BATCH", batch)
    assert run(box) == {Counts("INBOX", 3, 0, 4, 0)}
    assert len(files(box)) == len(records(box)) == 4


FOREIGN = [
    "x", "1764595500", "1764595500-", "-x", "176459550-x", "1764595500-x,y", "1764595500-x:2,",
    "17645955000-x", " 1764595500-x", "1764595500-..", "1764595500-tmp",
]  # fmt: skip


def test_foreign_records(box: Mailbox) -> None:
    """What is no record of ours names no message, and stays."""
    put(box, days=None)
    for name in ("x", "x,y", "..x", "x:2,"):
        (place(box) / "cur" / name).touch()
    (place(box) / "mdaflow-expire").mkdir()
    for name in FOREIGN:
        (place(box) / "mdaflow-expire" / name).touch()
    before = tree(Path(box.home))
    assert run(box) == set()
    assert tree(Path(box.home)) == before


@pytest.mark.parametrize("part", ["mdaflow-expire", "new", "cur"])
def test_link_instead_of_a_directory(box: Mailbox, part: str, tmp_path: Path) -> None:
    """A link in a directory's place is not followed: the run fails, and deletes nothing."""
    put(box), put(box, flags={"\\Seen"})
    (place(box) / part).rename(tmp_path / "aside")
    (place(box) / part).symlink_to(tmp_path / "aside")
    before = tree(tmp_path)
    with pytest.raises(TempFail) as caught:
        run(box)
    assert caught.value.status == INTERNAL
    assert tree(tmp_path) == before


def test_links_are_no_messages_and_no_folders(box: Mailbox, tmp_path: Path) -> None:
    """A link in a message's or a folder's place is neither followed nor deleted."""
    file = put(box, flags={"\\Seen"})
    (tmp_path / "outside").write_bytes(RAW)
    file.unlink()
    file.symlink_to(tmp_path / "outside")
    put(box, "Junk")
    place(box, "Junk").rename(tmp_path / "aside")
    place(box, "Junk").symlink_to(tmp_path / "aside")
    before = tree(tmp_path)
    assert run(box) == set()
    assert tree(tmp_path) == before


@pytest.mark.parametrize("missing", ["home", "Maildir", "new", "records"])
def test_nothing_there(tmp_path: Path, missing: str) -> None:
    """Where nothing was delivered, or a part is gone, there is nothing to do."""
    box = Mailbox("maildir", str(tmp_path / "home"), "Maildir")
    if missing != "home":
        (tmp_path / "home").mkdir()
    if missing in ("new", "records"):
        put(box)
        shutil.rmtree(place(box) / {"records": "mdaflow-expire"}.get(missing, missing))
    assert run(box) == set()


def test_folder_is_called_as_its_user_does(box: Mailbox) -> None:
    """The name of a folder is decoded."""
    deliver.prepare(box, "Entwürfe/台北", [RAW], (), "", RECEIVED, DAY).commit()
    assert run(box) == {Counts("Entwürfe/台北", 1, 0, 0, 0)}


class Killed(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("at", range(8))
def test_killed_at_any_point(box: Mailbox, at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever a run ends, the next one does the rest, and nothing else is ever deleted."""
    kept = {put(box, days=None), put(box, days=40), put(box, flags={"\\Flagged"})}
    for _ in range(3):
        put(box)
    put(box).unlink()
    age(box)
    monkeypatch.setattr(os, "unlink", _dying(at, os.unlink))
    with pytest.raises(Killed) if at < 7 else nullcontext():
        list(expire(box, OVER))
    monkeypatch.undo()
    assert kept <= files(box)
    run(box)
    assert files(box) == kept
    assert len(records(box)) == 2


def _dying(at: int, unlink: Callable[..., None]) -> Callable[..., None]:
    """unlink that works so many times."""
    left = [at]

    def work(path: str, dir_fd: int) -> None:
        if not left[0]:
            raise Killed
        left[0] -= 1
        unlink(path, dir_fd=dir_fd)

    return work


def test_two_runs_at_once(box: Mailbox) -> None:
    """What another run was faster with is no error, and is counted by one of them."""
    for folder in ("a", "b", "c"):
        put(box, folder)
        put(box, folder)
    ours = expire(box, OVER)
    counts = [next(ours), *expire(box, OVER), *ours]
    assert sum(count.expired for count in counts) == 6
    assert not any(files(box, folder) | records(box, folder) for folder in "abc")


def test_other_run_in_between(box: Mailbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that finds everything done by another ends well."""
    put(box)
    find = expire_module._find

    def late(*arguments: object) -> object:
        found = find(*arguments)  # type: ignore[arg-type]
        monkeypatch.undo()
        assert run(box) == {Counts("INBOX", 1, 0, 0, 0)}
        return found

    monkeypatch.setattr(expire_module, "_find", late)
    list(expire(box, OVER))
    assert files(box) == set()
    assert records(box) == set()


def test_unlinkable_is_reported(box: Mailbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the system refuses is reported, and the record stays."""
    put(box)

    def refuse(path: str, dir_fd: int) -> None:
        raise PermissionError(13, "Permission denied", path)

    with monkeypatch.context() as patched:
        patched.setattr(os, "unlink", refuse)
        with pytest.raises(TempFail, match="Permission denied"):
            list(expire(box, OVER))
    assert len(records(box)) == 1
    assert run(box) == {Counts("INBOX", 1, 0, 0, 0)}


def test_names_match_what_is_delivered(box: Mailbox) -> None:
    """The unique part of every delivered name is what its record has, whatever the flags."""
    for flags in ((), ("\\Seen",), ("a", "\\Draft")):
        file = put(box, flags=flags)
        unique = re.split("[,:]", file.name)[0]
        assert any(record.endswith(f"-{unique}") for record in records(box))
    store(box, RAW)
    assert len(records(box)) == 3
