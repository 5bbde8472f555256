"""What is in the quarantine: found, called by its name, taken out by one at a time."""

from __future__ import annotations

import json
import os
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from boxes import descriptors
from test_quarantine import ACTION, ENVELOPE, files, job, root  # noqa: F401 - a fixture

from mdaflow.deliver import held, quarantine, retention
from mdaflow.deliver.held import Entry, Held, NotHeld
from mdaflow.errors import TempFail

BOB = "bob@example.org"
DAY = 86_400.0


def put(root: Path, recipient: str = BOB) -> None:  # noqa: F811
    """Quarantine a message."""
    quarantine.prepare(job(root, replace(ENVELOPE, recipient=recipient)), ACTION).commit()


def entries(root: Path) -> list[Entry]:  # noqa: F811
    return [held.look(str(root), each) for each in held.held(str(root))]


def only(root: Path) -> Held:  # noqa: F811
    [each] = held.held(str(root))
    return each


def test_entry(root: Path) -> None:  # noqa: F811
    """A message is shown as it came, with its envelope and why it is here."""
    put(root)
    [entry] = entries(root)
    assert entry.note is not None
    assert entry.note.envelope == replace(ENVELOPE)
    assert entry.note[1:] == ("virus", "Viruses", "/x/rules:3:5")
    assert (entry.since, entry.trouble) == (ENVELOPE.received, "")
    assert bytes(entry.message.raw).startswith(b"Delivered-To: bob@example.org\nX-Original-To: ")
    assert bytes(entry.message.raw).endswith(b"\nSubject: x\n\nbody \xff\n")
    [note] = files(root, "*/envelopes/*")
    assert entry.name == note.stem


def test_order(root: Path) -> None:  # noqa: F811
    """Those that came last are first, whosever they are; a folder may be looked at alone."""
    for recipient in (BOB, "ann@example.org", BOB):
        put(root, recipient)
    for n, message in enumerate(files(root, "*/new/*")):
        os.utime(message, (n, n))
    found = held.held(str(root))
    assert [each.put for each in found] == [2.0, 1.0, 0.0]
    assert [each.folder for each in held.held(str(root), "ann@example.org")] == ["ann@example.org"]
    assert held.held(str(root), "eve@example.org") == []


def test_no_quarantine(tmp_path: Path) -> None:
    """A quarantine that is not there is no empty one: its disk may not be mounted."""
    with pytest.raises(TempFail):
        held.held(str(tmp_path / "missing"))


def test_forged_name(root: Path) -> None:  # noqa: F811
    """Only the first line names the envelope: a field of the sender's is nothing to us."""
    put(root)
    [message], [note] = files(root, "*/new/*"), files(root, "*/envelopes/*")
    field = f"X-mdaflow-Quarantine: {note.stem}\n".encode()
    forged = message.with_name("1.forged")
    forged.write_bytes(b"Subject: y\n" + field + b"\nbody\n")
    found = {entry.name: entry for entry in entries(root)}
    assert set(found) == {note.stem, "1.forged"}
    assert found["1.forged"].note is None
    assert found["1.forged"].trouble == "it has no envelope"


BROKEN: dict[str, Callable[[Path], object]] = {
    "is broken": lambda note: note.write_text("{"),
    "is broken ": lambda note: note.write_text("[" * 60_000),
    "is broken  ": lambda note: note.write_text("[1]"),
    "is broken   ": lambda note: note.write_text(json.dumps({"recipient": 5})),
    "is broken    ": lambda note: note.write_text('{"recipient": "a@b", "received": 1e999}'),
    "is broken     ": lambda note: note.write_text('{"recipient": "a@b\\n", "received": 1}'),
    "is broken      ": lambda note: note.write_text(" " * (held.MAX_NOTE + 1)),
    "cannot be read": lambda note: note.unlink(),
    "cannot be read ": lambda note: (note.unlink(), os.mkfifo(note)),
    "cannot be read  ": lambda note: (note.unlink(), note.symlink_to("/etc/passwd")),
    "cannot be read   ": lambda note: (note.unlink(), note.mkdir()),
}


@pytest.mark.parametrize("trouble", BROKEN)
def test_broken_envelope(root: Path, trouble: str) -> None:  # noqa: F811
    """A message whose envelope is of no use is there all the same, and it is said why."""
    put(root)
    [note] = files(root, "*/envelopes/*")
    BROKEN[trouble](note)
    before = descriptors()
    [entry] = entries(root)
    assert entry.note is None
    assert entry.name == note.stem
    assert entry.trouble.startswith(f"the envelope {trouble.strip()}")
    assert entry.since == entry.held.put
    assert descriptors() == before


def test_what_is_no_message(root: Path) -> None:  # noqa: F811
    """Links, folders, pipes and hidden files are not seen, wherever they are."""
    put(root)
    [message] = files(root, "*/new/*")
    new, other = message.parent, root / "eve@example.org"
    os.mkfifo(new / "1.fifo")
    (new / "1.link").symlink_to(message)
    (new / "1.folder").mkdir()
    (new / ".hidden").write_bytes(message.read_bytes())
    other.mkdir()
    (other / "new").symlink_to(new)
    os.mkfifo(other / "cur")
    (root / "link").symlink_to(new.parent)
    (root / "file").touch()
    assert [each.file for each in held.held(str(root))] == [message.name]


def test_names(root: Path) -> None:  # noqa: F811
    """A message is called by its name or the beginning of it, if no other begins so."""
    for _ in range(20):
        put(root)
    names = [*held.named(str(root), held.held(str(root)))]
    name, each = names[7]
    assert held.chosen(names, name) == held.chosen(names, name[:12]) == each
    with pytest.raises(NotHeld, match="too short: say 4 characters"):
        held.chosen(names, name[:3])
    for said in ("", "zzzz", f"{name}0"):
        with pytest.raises(NotHeld, match="is called so"):
            held.chosen(names, said)


def test_several_names() -> None:
    """What is the beginning of several names is none, and these are told; a whole name counts."""
    names = [(name, Held(name, "new", name, 0.0, 0.0, 0)) for name in ("abcde", "abcdef", "x")]
    with pytest.raises(NotHeld, match="2 names: abcde, abcdef"):
        held.chosen(names, "abcd")
    assert held.chosen(names, "abcde").folder == "abcde"


def test_taken_by_one(root: Path) -> None:  # noqa: F811
    """What somebody has taken nobody else can take; then it may be gone."""
    put(root)
    each = only(root)
    with held.taken(str(root), each) as ours:
        with pytest.raises(TempFail, match="somebody else"), held.taken(str(root), each):
            pass
        ours.remove(ours.entry().name)
    with pytest.raises(NotHeld, match="not there any more"), held.taken(str(root), each):
        pass
    assert files(root, "*/new/*") == files(root, "*/envelopes/*") == []


def test_what_the_taker_raises(root: Path) -> None:  # noqa: F811
    """What goes wrong with a message that is taken is no reason to think that it is gone."""
    put(root)
    before = descriptors()
    with pytest.raises(FileNotFoundError), held.taken(str(root), only(root)):
        raise FileNotFoundError
    assert descriptors() == before


def test_many(root: Path) -> None:  # noqa: F811
    """Ten thousand messages are listed in little memory."""
    put(root)
    [message] = files(root, "*/new/*")
    for n in range(10_000):
        os.link(message, message.with_name(f"{n}.x"))
    tracemalloc.start()
    count = sum(1 for each in held.held(str(root)) if held.look(str(root), each).note)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 10_001
    assert most < 12 << 20


# --- retention ---------------------------------------------------------------------------------


def expire(root: Path, days: float, *, dry_run: bool = False) -> tuple[int, int, int]:  # noqa: F811
    """What has become of all after some days."""
    [counts] = retention.expire(str(root), time.time() + days * DAY, 30 * DAY, dry_run=dry_run)
    return counts[1:]


def test_expire(root: Path) -> None:  # noqa: F811
    """A message goes with its envelope when its time is over, and not before."""
    put(root)
    assert expire(root, 29) == (0, 1, 0)
    assert expire(root, 31, dry_run=True) == (1, 0, 0)
    assert len(files(root, "*/new/*")) == len(files(root, "*/envelopes/*")) == 1
    assert expire(root, 31) == (1, 0, 0)
    assert files(root, "**/*") == []


@pytest.mark.parametrize("ahead", [False, True])
def test_times(root: Path, ahead: bool) -> None:  # noqa: F811
    """Where two times differ, since a clock was wrong, the later counts."""
    received = time.time() + 400 * DAY if ahead else 0.0
    quarantine.prepare(job(root, replace(ENVELOPE, received=received)), ACTION).commit()
    [message] = files(root, "*/new/*")
    os.utime(message, (0, 0))
    assert expire(root, 29) == (0, 1, 0)


def test_without_envelope(root: Path) -> None:  # noqa: F811
    """A message without an envelope stays as long as any other."""
    put(root)
    files(root, "*/envelopes/*")[0].unlink()
    assert expire(root, 29) == (0, 1, 0)
    assert expire(root, 31) == (1, 0, 0)


def test_leftovers(root: Path) -> None:  # noqa: F811
    """An envelope without a message goes after 36 hours; nothing else does."""
    put(root)
    [note] = files(root, "*/envelopes/*")
    alone = note.with_name(f"{'0' * 24}.json")
    for path in (alone, note.with_name("mine.json"), note.with_name("0.txt"), root / "x"):
        path.write_bytes(note.read_bytes())
    note.with_name(f"{'1' * 24}.json").symlink_to("/etc/passwd")
    before = {*root.rglob("*")}
    assert expire(root, 1) == (0, 1, 0)
    assert expire(root, 2, dry_run=True) == (0, 1, 1)
    assert expire(root, 2) == (0, 1, 1)
    assert before - {*root.rglob("*")} == {alone}


def test_leftovers_when_in_doubt(root: Path) -> None:  # noqa: F811
    """Where a message cannot be read, no envelope goes: it may be that one's."""
    put(root)
    [message] = files(root, "*/new/*")
    with message.open("ab") as file:
        file.truncate(held.MAX_MESSAGE + 1)
    assert expire(root, 2) == (0, 0, 0)
    assert len(files(root, "*/envelopes/*")) == 1


def test_expire_what_is_released(root: Path) -> None:  # noqa: F811
    """What somebody has taken is not deleted under their hands."""
    put(root)
    with held.taken(str(root), only(root)):
        assert expire(root, 31) == (0, 1, 0)
    assert expire(root, 31) == (1, 0, 0)
