"""What was done of a plan is not done again when the message comes again for the rest (P10).

Each test delivers to a real mailbox, with a real store and next hop. A second action fails
first, and is possible later.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from boxes import descriptors, messages, tree
from fake_mta import ANSWERS, DROP, FakeMTA

from mdaflow import deliver
from mdaflow.deliver import ledger, mbox
from mdaflow.deliver.execute import Done, execute
from mdaflow.deliver.job import Job, Means
from mdaflow.deliver.mailbox import Chunks, Mailbox, Prepared
from mdaflow.engine.plan import Action, Plan
from mdaflow.errors import INTERNAL, PermFail, TempFail
from mdaflow.mail import message as message_module
from mdaflow.mail import raw
from mdaflow.mail.envelope import Client, Envelope
from mdaflow.mail.message import Message
from mdaflow.store.memory import MemoryStore
from mdaflow.store.sqlite import SqliteStore

ANN, BOB = "ann@example.com", "bob@example.org"
MAIL = Message(b"Subject: x\n\nhello\n")
BUSY = b"450 4.2.1 Busy\r\n"
KEEP = Action("keep")
A = Action("deliver", "a", also=True)


@dataclass
class Place:
    """A mailbox, and what mail is delivered with."""

    root: Path
    mailbox: Mailbox
    store: SqliteStore
    hop: str = "127.0.0.1:1"
    trouble: dict[str, str] = field(default_factory=dict)
    """Folders that fail, and whether at `prepare` or `commit`."""

    @property
    def means(self) -> Means:
        return Means(
            "mx.example.org",
            self.hop,
            str(self.root / "quarantine"),
            str(self.root / "state"),
            b"key",
            self.store,
        )

    def deliver(
        self, *actions: Action, fence: Callable[[], bool] = lambda: True, mail: Message = MAIL
    ) -> Done:
        envelope = Envelope(ANN, BOB)
        return execute(Plan(actions), mail, envelope, self.mailbox, means=self.means, fence=fence)

    def counts(self) -> dict[str, int]:
        """The messages in the folders, and in the quarantine."""
        found = {}
        for name, folder in (("inbox", ""), ("a", "a"), ("b", "b")):
            with contextlib.suppress(FileNotFoundError):
                found[name] = len(messages(self.mailbox, folder))
        found["quarantine"] = len(list(self.root.glob("quarantine/*/new/*")))
        return {name: count for name, count in found.items() if count}


@dataclass
class Trouble:
    """A copy that cannot be made visible."""

    prepared: Prepared

    @property
    def where(self) -> str:
        return self.prepared.where

    def commit(self) -> None:
        self.prepared.abort()
        raise TempFail(INTERNAL, "it broke")

    def abort(self) -> None:
        self.prepared.abort()


@pytest.fixture(params=["maildir", "mbox"])
def place(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Place]:
    for name in ("home", "quarantine"):
        (tmp_path / name).mkdir()
    mailbox = Mailbox(request.param, str(tmp_path / "home"), "Mail", "Mail/inbox")
    store = SqliteStore(str(tmp_path / "state/state.sqlite"))
    place = Place(tmp_path, mailbox, store)
    real = deliver.FORMATS[request.param]
    if request.param == "mbox":
        real = partial(mbox.prepare, lock_wait=0.0)  # nobody waits for a lock of his own

    def prepare(mailbox: Mailbox, folder: str, chunks: Chunks, *rest: Any) -> Prepared:
        when = place.trouble.get(folder)
        if when == "prepare":
            raise TempFail(INTERNAL, "it broke")
        prepared = real(mailbox, folder, chunks, *rest)
        return Trouble(prepared) if when == "commit" else prepared

    monkeypatch.setitem(deliver.FORMATS, request.param, prepare)
    yield place
    store.close()


@dataclass
class Second:
    """A second action: how it fails, when, how it is mended, and what it leaves in the end."""

    action: Callable[[Place], Action]
    commits: bool
    """It fails when the first action is done already."""
    spoil: Callable[[Place], None] = lambda place: None
    mend: Callable[[Place], None] = lambda place: None
    script: tuple[str, bytes] = ("rcpt", b"")
    leaves: tuple[str, ...] = ()
    sent: int = 0
    """Messages that the next hop has read to the end."""
    runs: int = 0
    between: Callable[[Place], None] = lambda place: None
    """Happens between preparing and committing."""


def forward(place: Place) -> Action:
    return Action("forward", targets=("x@example.com",))


def pipe(place: Place) -> Action:
    script = 'test -e "$0/ok" || exit 75; echo >> "$0/ran"'
    return Action("pipe", targets=("/bin/sh", "-c", script, str(place.root)), owner="site")


def missing(place: Place) -> Action:
    return Action("pipe", targets=(str(place.root / "program"),), owner="site")


def install(place: Place) -> None:
    program = place.root / "program"
    program.write_text(f"#!/bin/sh\necho >> {place.root}/ran\n")
    program.chmod(0o755)


def in_trouble(when: str) -> Callable[[Place], None]:
    return lambda place: place.trouble.update(b=when)


SECOND = {
    "copy": Second(
        lambda place: Action("deliver", "b"),
        False,
        in_trouble("prepare"),
        lambda place: place.trouble.clear(),
        leaves=("b",),
    ),
    "copy at the end": Second(
        lambda place: Action("deliver", "b"),
        True,
        in_trouble("commit"),
        lambda place: place.trouble.clear(),
        leaves=("b",),
    ),
    "forward": Second(forward, False, script=("rcpt", BUSY), sent=1),
    "forward at the end": Second(forward, True, script=("dot", BUSY), sent=3),
    "forward that is cut off": Second(forward, True, script=("dot", DROP), sent=3),
    "pipe": Second(pipe, True, mend=lambda place: (place.root / "ok").touch(), runs=1),
    "missing program": Second(missing, False, mend=install, runs=1),
    "quarantine": Second(
        lambda place: Action("quarantine"),
        False,
        lambda place: (place.root / "quarantine").rmdir(),
        lambda place: (place.root / "quarantine").mkdir(),
        leaves=("quarantine",),
    ),
    "quarantine at the end": Second(
        lambda place: Action("quarantine"),
        True,
        between=lambda place: shutil.rmtree(place.root / "quarantine" / BOB / "new"),
        leaves=("quarantine",),
    ),
}


@pytest.mark.parametrize("first", ["a", "inbox"])
@pytest.mark.parametrize("name", SECOND)
def test_second_action_fails(name: str, first: str, place: Place) -> None:
    """When a second action fails, the first is not lost and not done twice (P10, P11)."""
    second = SECOND[name]
    actions = (A if first == "a" else replace(KEEP, also=True), second.action(place))
    stage, answer = second.script
    good = ANSWERS[stage]
    assert isinstance(good, bytes)

    def fence() -> bool:
        second.between(place)
        return True

    opened = descriptors()
    with FakeMTA({stage: [answer, answer, good]}) as mta:
        place.hop = mta.hop
        second.spoil(place)
        done = {first: 1} if second.commits else {}
        for _ in range(2):
            with pytest.raises(TempFail) as failed:
                place.deliver(*actions, fence=fence)
            assert failed.value.status.temporary
            assert place.counts() == done
        second.mend(place)
        assert place.deliver(*actions).status.ok
    assert place.counts() == {first: 1, **dict.fromkeys(second.leaves, 1)}
    assert len(mta.taken) == second.sent
    ran = place.root / "ran"
    assert (ran.read_text() if ran.exists() else "") == "\n" * second.runs
    place.store.close()
    assert descriptors() == opened
    left = [path for path in tree(place.root) if "/tmp/" in path or path.endswith(".lock")]
    assert left == []


def test_closed_fence(place: Place) -> None:
    """Behind a closed fence nothing was done, and nothing is remembered as done."""
    with pytest.raises(TempFail, match="deadline"):
        place.deliver(A, KEEP, fence=lambda: False)
    assert place.counts() == {}
    place.deliver(A, KEEP)
    assert place.counts() == {"a": 1, "inbox": 1}


def test_cause_names_what_was_done(place: Place) -> None:
    """Whoever reads the log learns what was done before the failure."""
    place.trouble["b"] = "commit"
    with pytest.raises(TempFail) as failed:
        place.deliver(A, Action("deliver", "b"))
    assert str(failed.value) == f"it broke; done before: {place.mailbox.format} a"


def test_another_process(place: Place) -> None:
    """What one process has done, another one knows, over restarts."""
    place.trouble["b"] = "commit"
    with pytest.raises(TempFail):
        place.deliver(A, Action("deliver", "b"))
    place.store.close()
    place.store = SqliteStore(str(place.root / "state/state.sqlite"))
    place.trouble.clear()
    assert place.deliver(A, Action("deliver", "b")).places == (f"{place.mailbox.format} b",)
    assert place.counts() == {"a": 1, "b": 1}


def test_other_messages(place: Place) -> None:
    """Another message, sender or recipient is another delivery."""
    jobs = [
        Job(mail, Envelope(sender, recipient), place.mailbox, "-", place.means)
        for mail, sender, recipient in (
            (MAIL, ANN, BOB),
            (Message(MAIL.raw + b"x"), ANN, BOB),
            (MAIL, "", BOB),
            (MAIL, ANN, "bob+x@example.org"),
            (Message(MAIL.raw + ANN.encode()), "", BOB),
        )
    ]
    ledger.write(jobs[0], {"x"})
    assert [ledger.already_done(job) for job in jobs] == [{"x"}, *[set()] * 4]


def test_two_alike(place: Place) -> None:
    """Of two actions in the same words each is done, and each once."""
    edited = MAIL.edited(b"X-A: 1\n" + MAIL.head)
    again = replace(A, message=edited)
    place.trouble["b"] = "commit"
    both = 2 if place.mailbox.format == "maildir" else 1
    with pytest.raises(TempFail):
        place.deliver(A, Action("deliver", "b"), again)
    done = place.counts().get("a", 0)  # the copies before the one that failed
    place.trouble.clear()
    place.deliver(A, Action("deliver", "b"), again)
    assert done <= both
    assert place.counts() == {"a": both, "b": 1}


def test_changed_rules(place: Place) -> None:
    """When the rules have changed in between, a copy too many is better than one too few."""
    place.trouble["b"] = "commit"
    with pytest.raises(TempFail):
        place.deliver(A, Action("deliver", "b"))
    place.trouble.clear()
    place.deliver(replace(A, flags=frozenset(["\\Seen"])), KEEP)
    assert place.counts() == {"a": 2, "inbox": 1}


def test_all_was_done(place: Place) -> None:
    """When all that is left of the rules was done before, the message is taken."""
    place.trouble["b"] = "commit"
    rest = replace(A, folder="inbox", also=False)
    with pytest.raises(TempFail):
        place.deliver(A, rest, Action("deliver", "b"))
    done = place.deliver(A, rest)
    assert (done.status.code, done.status.text, done.places) == (250, "Saved", ())
    assert place.counts() == {"a": 1, "inbox": 1}


@pytest.mark.parametrize("stage", ["rcpt", "dot"])
@pytest.mark.parametrize("keeps", [False, True])
def test_kept_instead_once(stage: str, keeps: bool, place: Place) -> None:
    """The copy in the inbox for what was refused is made once, and not beside another one."""
    acts = [forward(place), pipe(place)]
    acts = [replace(KEEP, also=True), *acts] if keeps else acts
    for _ in range(2):
        with FakeMTA({stage: b"550 5.1.1 Nobody\r\n"}) as mta:
            place.hop = mta.hop
            with pytest.raises(TempFail, match="exit code 75"):
                place.deliver(*acts)
        assert place.counts() == {"inbox": 1}
    (place.root / "ok").touch()
    with FakeMTA({stage: b"550 5.1.1 Nobody\r\n"}) as mta:
        place.hop = mta.hop
        done = place.deliver(*acts)
    assert (done.status.code, done.outcome) == (250, "delivered")
    assert done.trouble.endswith("550 5.1.1 Nobody; kept in the inbox")
    assert place.counts() == {"inbox": 1}
    assert (place.root / "ran").read_text() == "\n"


def test_no_room_for_the_copy_instead(place: Place) -> None:
    """When what was refused cannot be kept in the inbox either, the mail can wait."""
    with FakeMTA({"dot": b"550 5.1.1 Nobody\r\n"}) as mta:
        place.hop = mta.hop
        place.trouble[""] = "prepare"
        with pytest.raises(TempFail, match="it broke"):
            place.deliver(A, forward(place))
        assert place.counts() == {"a": 1}
        place.trouble.clear()
        place.deliver(A, forward(place))
    assert place.counts() == {"a": 1, "inbox": 1}


def test_refused_and_nothing_else(place: Place) -> None:
    """A refusal is passed on when nothing but small things are left to do (P40)."""
    soft = Action("remember", text="x", options=(("for", 60.0),))
    with FakeMTA({"dot": b"550 5.1.1 Nobody\r\n"}) as mta:
        place.hop = mta.hop
        with pytest.raises(PermFail):
            place.deliver(soft, forward(place))
    assert place.counts() == {}


def test_all_done(place: Place) -> None:
    """What was done without its peer's knowing is known again: this one, and no other (P10)."""
    about, other = Envelope(ANN, BOB), Envelope(ANN, "carl@example.org")
    assert not ledger.all_done(place.means, MAIL, about)
    ledger.write_all_done(place.means, MAIL, about)
    again = Message(bytes(MAIL.raw))
    assert ledger.all_done(place.means, again, about)
    assert not ledger.all_done(place.means, again, other)
    assert not ledger.all_done(place.means, again, Envelope("", BOB))
    assert not ledger.all_done(place.means, Message(MAIL.raw + b"x"), about)


def test_all_done_of_a_retry(place: Place) -> None:
    """The same words under another queue id, or of another client, are another message."""
    first = Envelope(ANN, BOB, queue_id="4XyZ", client=Client("192.0.2.7"))
    ledger.write_all_done(place.means, MAIL, first)
    assert ledger.all_done(place.means, MAIL, replace(first, received=1.0, peer="other"))
    assert not ledger.all_done(place.means, MAIL, replace(first, queue_id="5XyZ"))
    assert not ledger.all_done(place.means, MAIL, replace(first, client=Client("192.0.2.8")))


def test_all_done_is_not_renewed(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes again and again is known for a day from the first time, and then stored again."""
    about, real, kept = Envelope(ANN, BOB), place.store.put, []

    def put(*entry: Any) -> None:
        kept.append(entry)
        real(*entry)

    monkeypatch.setattr(place.store, "put", put)
    for _ in range(3):
        ledger.write_all_done(place.means, MAIL, about)
    assert len(kept) == 1


def test_half_done_is_not_all_done(place: Place) -> None:
    """An entry about a part says nothing of the rest."""
    ledger.write_all_done(place.means, MAIL, Envelope(ANN, "carl@example.org"))
    job = Job(MAIL, Envelope(ANN, BOB), place.mailbox, "-", place.means)
    ledger.write(job, {"x"})
    assert not ledger.all_done(place.means, MAIL, job.envelope)


def test_all_done_of_a_mapping(place: Place, tmp_path: Path) -> None:
    """A message in a file is known again, and its file can be closed."""
    path = tmp_path / "spool"
    path.write_bytes(b"Subject: x\n\n" + b"x" * (3 << 20))
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        ledger.write_all_done(place.means, Message(mapped), Envelope(ANN, BOB))
    assert ledger.all_done(place.means, Message(path.read_bytes()), Envelope(ANN, BOB))


def test_all_done_costs_nothing(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody asks the store while no such entry was written for a day."""
    about, store = Envelope(ANN, BOB), place.store
    monkeypatch.setattr(store, "get", None)
    assert not ledger.all_done(place.means, MAIL, about)
    ledger.write_all_done(place.means, MAIL, about)
    marker = place.root / "state/unconfirmed"
    written = marker.stat().st_mtime
    os.utime(marker, (0, written - ledger.KEEP - 60))
    assert not ledger.all_done(place.means, MAIL, about)
    monkeypatch.undo()
    for moment in (written - ledger.KEEP + 3600, written + 1e8):  # the clock may have been set
        os.utime(marker, (0, moment))
        assert ledger.all_done(place.means, MAIL, about)


def test_all_done_is_hashed_once(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A message for many is read once."""
    read: list[int] = []
    real = raw.digest

    def digest(chunks: list[bytes]) -> str:
        read.append(sum(map(len, chunks)))
        return real(chunks)

    monkeypatch.setattr(message_module, "digest", digest)
    message = Message(b"x" * 5000)
    for number in range(5):
        ledger.write_all_done(place.means, message, Envelope(ANN, f"u{number}@x"))
    assert [size for size in read if size >= 5000] == [5000]


@pytest.mark.parametrize("holds", [None, "{", "[[1]]", "null"])
def test_all_done_without_store(
    holds: str | None, place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    """When the store fails, or nothing can be noted, the message is delivered again (P43)."""
    about = Envelope(ANN, BOB)
    nowhere = replace(place.means, memory=Broken(holds), state=str(place.root / "nowhere"))
    for means in (replace(place.means, memory=Broken(holds)), replace(place.means, memory=None)):
        ledger.write_all_done(means, MAIL, about)
        assert not ledger.all_done(means, MAIL, about)
    ledger.write_all_done(nowhere, MAIL, about)
    assert not ledger.all_done(nowhere, MAIL, about)
    assert "nowhere/unconfirmed: No such file or directory" in caplog.text
    assert "may be done again" in caplog.text


class Broken(MemoryStore):
    """A store that fails, or holds what nobody wrote."""

    def __init__(self, holds: str | None) -> None:
        super().__init__()
        self.holds = holds

    def get(self, key: str) -> str | None:
        if self.holds is None:
            raise OSError("down")
        return self.holds

    def put(self, key: str, value: str, seconds: float | None = None) -> None:
        raise OSError("down")


@pytest.mark.parametrize("holds", [None, "", "{", "5", "[[1]]", '[["a"]]', '"text"', "null"])
def test_store_that_fails(
    holds: str | None, place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    """Without the store what was done is done again: never too little (P10, P43)."""
    means = replace(place.means, memory=Broken(holds))
    place.trouble["b"] = "commit"
    actions = (A, Action("deliver", "b"))
    with pytest.raises(TempFail):
        execute(Plan(actions), MAIL, Envelope(ANN, BOB), place.mailbox, means=means)
    place.trouble.clear()
    done = execute(Plan(actions), MAIL, Envelope(ANN, BOB), place.mailbox, means=means)
    assert done.status.ok
    assert place.counts() == {"a": 2, "b": 1}
    assert "may be done again" in caplog.text


def test_no_store(place: Place) -> None:
    """Without any store it is the same."""
    means = replace(place.means, memory=None)
    execute(Plan((A, KEEP)), MAIL, Envelope(ANN, BOB), place.mailbox, means=means)
    assert place.counts() == {"a": 1, "inbox": 1}


def test_costs_nothing_for_one_action(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plan that does one thing asks no store."""
    monkeypatch.setattr(ledger, "already_done", None)
    place.deliver(KEEP)
    assert place.counts() == {"inbox": 1}


def test_one_at_a_time(place: Place) -> None:
    """Of a message that is on its way, no second copy sets out; other recipients' do."""
    one, other = Envelope(ANN, BOB), Envelope(ANN, "carl@example.org")
    before = descriptors()
    (place.root / "state").mkdir(exist_ok=True)
    for _ in range(2):
        with ledger.alone(place.means, MAIL, one) as first:
            with (
                ledger.alone(place.means, MAIL, one) as second,
                ledger.alone(place.means, MAIL, other) as third,
            ):
                assert (first, second, third) == (True, False, True)
            with ledger.alone(place.means, MAIL, one) as again:
                assert not again
    assert descriptors() == before


def test_one_at_a_time_without_a_file(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    """Where there can be no lock, mail is delivered."""
    with ledger.alone(replace(place.means, state="/nowhere"), MAIL, Envelope(ANN, BOB)) as alone:
        assert alone
    assert "/nowhere/underway: No such file or directory" in caplog.text
