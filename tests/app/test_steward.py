"""What a process that delivers as a user may say to a worker, and what becomes of one that says
something else: it is ended, the mail put off, all that it had prepared taken back."""

from __future__ import annotations

import fcntl
import json
import math
import os
import select
import socket
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_mta import FakeMTA
from here import ANN, BOB, RAW, Here

from mdaflow.app.carry import Carried
from mdaflow.app.frames import MAX_FILES, MAX_VALUE, Frames, result, sealed_file
from mdaflow.app.identities import Identities
from mdaflow.app.scanning import Post, Scanning
from mdaflow.errors import NO_ANSWER, TOO_SLOW, TempFail
from mdaflow.lang.limits import DEFAULTS
from mdaflow.mail.envelope import Envelope
from mdaflow.mail.message import Message
from mdaflow.route.users import Account, User
from mdaflow.scan import Hit, Report, Unscanned

Talk = Callable[[Frames], None]
DONE = ["done", [250, "2.0.0", "Saved"], "delivered", ["maildir INBOX"], "", "", "", None]


class Broker:
    """Makes threads that talk in the place of processes that are users."""

    def __init__(self, talk: Talk) -> None:
        self.requests, self._ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.made: list[str] = []
        """What the worker calls them."""
        self.killed: list[str] = []
        self._talk = talk
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            words, files, _, _ = socket.recv_fds(self._ours, 4096, 1)
            if not words:
                return
            match json.loads(words):
                case ["fork", str(name), str(), int()]:
                    self.made.append(name)
                    with socket.socket(fileno=files[0]) as sock:
                        self._live(Frames(sock))
                case ["kill", str(name)]:
                    self.killed.append(name)

    def _live(self, frames: Frames) -> None:
        try:
            frames.send(["ok", True])
            for file in frames.receive(10).files:
                os.close(file)
            self._talk(frames)
            while True:  # until it is ended
                for file in frames.receive(10).files:
                    os.close(file)
        except OSError:
            pass

    def close(self) -> None:
        """End it."""
        self.requests.close()
        self._thread.join()
        self._ours.close()


class DeafBroker(Broker):
    """Its processes are ready, and take nothing."""

    def _live(self, frames: Frames) -> None:
        frames.send(["ok", True])
        self._wait(frames)

    def _wait(self, frames: Frames) -> None:
        with suppress(OSError):  # until the worker gives it up
            while select.select([frames.socket], [], [], 10)[0]:
                if not frames.socket.recv(1, socket.MSG_PEEK) or self._killed():
                    return

    def _killed(self) -> bool:
        time.sleep(0.05)
        try:
            return bool(self._ours.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
        except BlockingIOError:
            return False


class DumbBroker(DeafBroker):
    """Its processes are never ready."""

    def _live(self, frames: Frames) -> None:
        self._wait(frames)


class Worker:
    """A worker, as far as it delivers to an account."""

    def __init__(self, here: Here) -> None:
        self.here = here
        self.site = here.site
        self.user = User(BOB, str(here.home), "maildir:Maildir", account=Account("bob", 1, 1, "/"))
        self.broker: Broker | None = None
        self.broker_class = Broker

    def deliver(
        self,
        talk: Talk,
        *,
        fence: Callable[[], bool] = lambda: True,
        raw: bytes = RAW,
        patience: float = math.inf,
    ) -> Carried:
        """Deliver to a process that talks like this. Raises MailError."""
        self.broker = self.broker_class(talk)
        identities = Identities(self.broker.requests)
        try:
            return identities.carry_out(
                self.site, Message(raw), Envelope(ANN, BOB), self.user, "1", fence, patience
            )
        finally:
            for process in identities._warm.values():
                process.frames.close()
            self.broker.close()

    def refuses(self, talk: Talk) -> None:
        """It ends whoever talks like this, as often as one comes, and nothing of it stays."""
        before = descriptors()
        with pytest.raises(TempFail):
            self.deliver(talk)
        assert self.broker is not None
        assert len(self.broker.made) in (1, 3)
        assert self.broker.killed == self.broker.made
        assert descriptors() <= before  # what older tests have left may go meanwhile
        assert not [path for path in self.quarantine.rglob("*") if path.is_file()]

    @property
    def quarantine(self) -> Path:
        return self.here.root / "quarantine"


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture
def worker(here: Here) -> Worker:
    """A worker with a store, open already, and rules of the site."""
    here.set(before='if subject is "x" { also forward to "a@b.example" }\n')
    here.site.answers.store.get("x")
    return Worker(here)


def says(*words: Any) -> Talk:
    """Say one thing."""
    return lambda frames: frames.send(list(words))


def sends(raw: bytes) -> Talk:
    """Send bytes that are no frame, and wait."""
    return lambda frames: frames.socket.sendall(raw)


def leaves(raw: bytes) -> Talk:
    """Send bytes, and be gone."""

    def talk(frames: Frames) -> None:
        frames.socket.sendall(raw)
        frames.close()

    return talk


def head(value: int, raw: int) -> bytes:
    return struct.pack("II", value, raw)


def frame(text: bytes) -> bytes:
    return head(len(text), 0) + text


def action(**changes: Any) -> list[Any]:
    """The words of an action that a user may ask for."""
    words: dict[str, Any] = {
        "verb": "quarantine", "folder": "", "text": "why", "flags": [], "also": True,
        "owner": "user", "rule": "", "span": [], "targets": [], "options": [],
        "handle": "",
    }  # fmt: skip
    return list((words | changes).values())


def prepare(frames: Frames, how: str = "same", files: list[int] | None = None, **c: Any) -> Any:
    """What becomes of an action that is to be prepared."""
    frames.send(["prepare", "1", [], action(**c), how], files=files or [])
    return frames.receive(10).value


WORDS: dict[str, Talk] = {
    "a number": lambda frames: frames.send(5),
    "nothing": lambda frames: frames.send(None),
    "an object": lambda frames: frames.send({"fence": 1}),
    "no word": says(),
    "a number for a word": says(5),
    "a list for a word": says(["fence"]),
    "an object for a word": says({}),
    "an unknown word": says("exec", "/bin/sh"),
    "one of Python's": says("__class__"),
    "too many words": says("fence", 1),
    "too few words": says("get"),
    "no text": says("get", 5),
    "no level": says("log", True, "x"),
    "no number of a step": says("commit", "1"),
    "a truth for a number": says("commit", True),
    "a step that is not there": says("commit", 1),
    "a time without end": lambda frames: sends(frame(b'["put","done x","y",1e999]'))(frames),
    "no time": lambda frames: sends(frame(b'["put","done x","y",NaN]'))(frames),
    "a fact of programs": says("fact", "command", ["/bin/sh"], "site", 1.0),
    "a fact of files": says("fact", "list", ["/etc/shadow"], "site", 1.0),
    "a fact of nothing": says("fact", "finding", [], "user", 0),
    "a fact of two": says("fact", "listed", ["a.example", "b.example"], "user", 0),
    "a fact of too much": says("fact", "virus.found", ["clamd"], "user", 0),
    "a time for ever": says("put", "done x", "y", 10**400),
    "a key of others": says("get", "of ann@example.org rules x"),
    "a key of a fact": says("put", f"seen {BOB} x", "", None),
    "what was remembered": says("add", "remember user x", "", None),
    "half of an action": says("prepare", "1", [], action()[:5], "same"),
    "an action of numbers": says("prepare", "1", [], action(targets=[1]), "same"),
    "options without values": says("prepare", "1", [], action(options=[["for"]]), "same"),
    "the end without words": says("done"),
    "the end without a status": says("done", [], *DONE[2:]),
    "a reply that is none": says("done", [354, "2.0.0", "x"], *DONE[2:]),
    "a reply below all": says("done", [-250, "2.0.0", "x"], *DONE[2:]),
    "a reply with two minds": says("done", [250, "5.0.0", "x"], *DONE[2:]),
    "two replies in one": says("done", [250, "2.0.0\r\n550 5.1.1", "x"], *DONE[2:]),
    "places that are none": says("done", DONE[1], "delivered", [1], "", "", "", None),
    "a relay that is none": says(*DONE[:-1], ["x"]),
    "a relay of objects": says(*DONE[:-1], {}),
    "no JSON": sends(frame(b"[")),
    "nested": sends(frame(b"[" * 100_000)),
    "no text at all": sends(frame(b'["\xff"]')),
    "a number without end": sends(frame(b"[" + b"9" * 100_000 + b"]")),
    "too long": sends(head(MAX_VALUE + 1, 0)),
    "too long behind it": sends(head(2, 1 << 31)),
    "the longest": sends(head(0xFFFFFFFF, 0xFFFFFFFF)),
    "half a head": leaves(b"\1\0"),
    "half a frame": leaves(head(100, 0) + b"["),
    "gone": leaves(b""),
}


@pytest.mark.parametrize("name", WORDS)
def test_no_words_of_ours(worker: Worker, name: str) -> None:
    """Whatever is none of our words ends the process that says it."""
    worker.refuses(WORDS[name])


def test_words_of_ours(worker: Worker) -> None:
    """What belongs to the words of a delivery is answered."""
    answers: list[Any] = []

    def talk(frames: Frames) -> None:
        for words in (
            ["get", "rules x"], ["put", "rules x", "y", None], ["get", "rules x"],
            ["add", "notice x", "", 9.5], ["add", "notice x", "", 9],
            ["fact", "duplicate", [], "user", 1], ["seen"], ["fact", "duplicate", [], "user", 1],
            ["fence"], ["log", 20, "said\nso"], ["abort", 5],
        ):  # fmt: skip
            frames.send(words)
            answers.append(frames.receive(10).value)
        frames.send(DONE)

    carried = worker.deliver(talk)
    assert carried.done.status.code == 250
    assert answers == [
        ["ok", value]
        for value in (None, None, "y", True, False, [False], None, [True], True, None, None)
    ]
    assert "bob: said\nso" in worker.here.said
    assert worker.site.answers.store.get(f"of {BOB} rules x") == "y"


def test_files(worker: Worker) -> None:
    """Files that nobody asked for are closed, whatever they come with."""
    with open(os.devnull) as null:
        files = [null.fileno()] * MAX_FILES

        def talk(frames: Frames) -> None:
            frames.send(["fence"], files=files)
            frames.receive(10)
            frames.send(DONE, files=files)

        def more(frames: Frames) -> None:
            rights = struct.pack("5i", *[null.fileno()] * 5)
            message = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)]
            frames.socket.sendmsg([frame(b'["fence"]')], message)
            frames.receive(10)
            frames.send(5)

        before = descriptors()
        worker.deliver(talk)
        assert descriptors() <= before  # what older tests have left may go meanwhile
        worker.refuses(more)


# --- actions -----------------------------------------------------------------------------------

NOT_DUE: dict[str, dict[str, Any]] = {
    "a program of a user": {"verb": "pipe", "targets": ["/bin/sh"]},
    "a program of the site": {"verb": "pipe", "owner": "site", "targets": ["/bin/sh"]},
    "a copy": {"verb": "deliver", "folder": "mbox:/etc/passwd"},
    "a copy that the site does not make": {
        "verb": "deliver", "owner": "site", "folder": "mbox:/etc/passwd",
    },
    "what the site does not do": {"verb": "quarantine", "owner": "site"},
    "what users may not do": {"verb": "learn", "text": "spam"},
    "what there is not": {"verb": "exec"},
    "of nobody": {"verb": "exec", "owner": "root"},
}  # fmt: skip


@pytest.mark.parametrize("name", NOT_DUE)
def test_actions_that_are_not_due(worker: Worker, name: str) -> None:
    """An action that neither rules of the site nor those of users may do is refused for now."""
    answers: list[Any] = []

    def talk(frames: Frames) -> None:
        answers.append(prepare(frames, **NOT_DUE[name]))
        frames.send(DONE)

    worker.deliver(talk)
    [[kind, code, *_]] = answers
    assert (kind, code) == ("mail", 451)


def test_action_of_the_site(worker: Worker) -> None:
    """An action that the site's rules have is carried out, once the fence is passed."""
    with FakeMTA() as mta:
        config = replace(worker.site.config, next_hop=mta.hop)
        worker.site = replace(worker.site, config=config)

        def talk(frames: Frames) -> None:
            _, (number, _) = prepare(
                frames, verb="forward", owner="site", targets=["a@b.example"], also=False
            )
            frames.send(["fence"])
            frames.receive(10)
            frames.send(["commit", number])
            [place, relay] = frames.receive(10).value[1]
            frames.send(["done", [250, "2.0.0", place], "forwarded", [place], "", "", "", relay])

        carried = worker.deliver(talk)
    assert len(mta.taken) == 1
    assert carried.done.relay is not None
    assert carried.done.relay.targets == ("a@b.example",)


def test_some_targets_have_it(worker: Worker) -> None:
    """Who of several has the message is told with the failure: it goes to the others only."""
    answers: list[Any] = []
    with FakeMTA({"dot": b"250 2.0.0 Ok\r\n450 4.2.1 Busy\r\n"}, lmtp=True) as mta:
        config = replace(worker.site.config, next_hop=mta.hop)
        worker.site = replace(worker.site, config=config)

        def talk(frames: Frames) -> None:
            targets = ["a@b.example", "c@d.example"]
            what = {"verb": "forward", "owner": "site", "targets": targets, "also": False}
            _, (number, _) = prepare(frames, **what)
            frames.send(["fence"])
            frames.receive(10)
            frames.send(["commit", number])
            answers.append(frames.receive(10).value)
            frames.send(DONE)

        worker.deliver(talk)
    [answer] = answers
    with pytest.raises(TempFail) as failure:
        result(answer)
    assert failure.value.done == ("a@b.example",)


def test_commit_without_fence(worker: Worker) -> None:
    """Nothing is carried out for who has not asked whether it is too late, or was told so."""

    def talk(frames: Frames) -> None:
        assert prepare(frames)[0] == "ok"
        frames.send(["commit", 1])

    def asked(frames: Frames) -> None:
        assert prepare(frames)[0] == "ok"
        frames.send(["fence"])
        assert frames.receive(10).value == ["ok", False]
        frames.send(["commit", 1])

    worker.refuses(talk)
    with pytest.raises(TempFail):
        worker.deliver(asked, fence=lambda: False)
    assert not [path for path in worker.quarantine.rglob("*") if path.is_file()]


@pytest.mark.parametrize("last", ["gone", "a number", "a key of others"])
def test_all_is_taken_back(worker: Worker, last: str) -> None:
    """What was prepared is taken back when the process ends, also behind the fence."""

    def talk(frames: Frames) -> None:
        for _ in range(3):
            assert prepare(frames)[0] == "ok"
        assert [path for path in worker.quarantine.rglob("*") if path.is_file()]
        if last != "gone":
            frames.send(["fence"])
            frames.receive(10)
        WORDS[last](frames)

    worker.refuses(talk)


def test_committed_and_done(worker: Worker) -> None:
    """What was carried out stays; what was not is taken back at the end."""

    def talk(frames: Frames) -> None:
        for _ in range(2):
            prepare(frames)
        frames.send(["fence"])
        frames.receive(10)
        frames.send(["commit", 2])
        assert frames.receive(10).value == ["ok", ["quarantine: why", None]]
        frames.send(["commit", 2])

    with pytest.raises(TempFail):
        worker.deliver(talk)
    assert worker.broker is not None
    assert len(worker.broker.made) == 1  # behind the fence nothing is begun again
    assert len([path for path in worker.quarantine.rglob("new/*") if path.is_file()]) == 1
    assert len([path for path in worker.quarantine.rglob("*.json") if path.is_file()]) == 1


def test_too_many_actions(worker: Worker) -> None:
    """Only so many actions may wait."""
    count = 0

    def talk(frames: Frames) -> None:
        nonlocal count
        while True:
            prepare(frames, verb="remember", text="x")
            count += 1

    worker.refuses(talk)
    assert count == 3 * DEFAULTS.actions


# --- messages that rules have changed ------------------------------------------------------------


def unsealed() -> int:
    file = os.memfd_create("x", os.MFD_ALLOW_SEALING)
    os.write(file, RAW)
    return file


def sparse() -> int:
    file = os.memfd_create("x", os.MFD_ALLOW_SEALING)
    os.ftruncate(file, 1 << 40)
    fcntl.fcntl(file, fcntl.F_ADD_SEALS, 0xF & ~fcntl.F_SEAL_SEAL)
    return file


@pytest.mark.parametrize("make", [unsealed, sparse], ids=["may change", "1 TB"])
def test_file_that_is_not_taken(worker: Worker, make: Callable[[], int]) -> None:
    """A message in a file that may change, or has no end, is none."""
    file = make()
    try:
        worker.refuses(lambda frames: prepare(frames, "whole", [file]))
    finally:
        os.close(file)


def test_file_that_is_no_memory(worker: Worker, tmp_path: Path) -> None:
    """A file on a disk, which somebody else may have open, is none either."""
    (tmp_path / "file").write_bytes(RAW)
    answers: list[Any] = []

    def talk(frames: Frames) -> None:
        with (tmp_path / "file").open() as file:
            answers.append(prepare(frames, "whole", [file.fileno()])[0])
        frames.send(DONE)

    worker.deliver(talk)
    assert answers == ["os"]


def test_changed_message(worker: Worker) -> None:
    """A message in a sealed file is what is carried out."""
    file = sealed_file([b"Subject: new\n\n", b"text\n"])

    def talk(frames: Frames) -> None:
        prepare(frames, "whole", [file])
        frames.send(["fence"])
        frames.receive(10)
        frames.send(["commit", 1])
        frames.receive(10)
        frames.send(DONE)

    try:
        worker.deliver(talk)
    finally:
        os.close(file)
    [path] = worker.quarantine.rglob("new/*")
    assert path.read_bytes().endswith(b"\nSubject: new\n\ntext\n")


# --- time ----------------------------------------------------------------------------------------


def test_silence(worker: Worker) -> None:
    """Who says nothing until the deadline is ended, and the mail put off."""
    lmtp = replace(worker.site.config.lmtp, deadline=0.2)
    worker.site = replace(worker.site, config=replace(worker.site.config, lmtp=lmtp))
    with pytest.raises(TempFail, match="hangs") as raised:
        worker.deliver(lambda frames: None)
    assert raised.value.status == TOO_SLOW
    assert worker.broker is not None
    assert worker.broker.killed == worker.broker.made[:1]


def goes_on(frames: Frames) -> None:
    """Ask for something again and again."""
    while True:
        frames.send(["get", "rules x"])
        frames.receive(10)
        time.sleep(0.01)


@pytest.mark.parametrize("talk", [lambda frames: None, goes_on], ids=["silent", "busy"])
def test_patience(worker: Worker, talk: Talk) -> None:
    """Where others wait, who is not done in time is ended sooner, and the mailbox is to blame."""
    with pytest.raises(TempFail, match="hangs") as raised:
        worker.deliver(talk, patience=0.2)
    assert raised.value.status == NO_ANSWER
    assert worker.broker is not None
    assert worker.broker.killed == worker.broker.made[:1]


def test_patience_with_a_message_not_taken(worker: Worker) -> None:
    """Who does not even take the message is given up as soon."""

    def never(frames: Frames) -> None:
        raise AssertionError

    worker.broker_class = DeafBroker
    with pytest.raises(TempFail, match="hangs") as raised:
        worker.deliver(never, raw=RAW + b"x" * (3 << 20), patience=0.2)
    assert raised.value.status == NO_ANSWER


def test_patience_before_it_is_ready(worker: Worker) -> None:
    """Who is never ready is given up as soon."""
    worker.broker_class = DumbBroker
    with pytest.raises(TempFail, match="no process for bob") as raised:
        worker.deliver(lambda frames: None, patience=0.2)
    assert raised.value.status == NO_ANSWER


def test_patience_while_we_work(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time that the site takes to answer is not the process's."""
    monkeypatch.setattr(worker.site.answers.store, "get", lambda key: time.sleep(0.5))

    def talk(frames: Frames) -> None:
        frames.send(["get", "rules x"])
        frames.receive(10)
        frames.send(DONE)

    assert worker.deliver(talk, patience=0.4).done.status.ok


def test_patience_behind_the_fence(worker: Worker) -> None:
    """Who has passed the fence has the time of programs."""

    def talk(frames: Frames) -> None:
        frames.send(["fence"])
        frames.receive(10)
        time.sleep(0.5)
        frames.send(DONE)

    assert worker.deliver(talk, patience=0.4).done.status.ok


def test_talk_without_end(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who goes on for ever is ended."""
    monkeypatch.setattr("mdaflow.app.steward.MOST", 100)

    def talk(frames: Frames) -> None:
        while True:
            frames.send(["log", 10, "x"])
            frames.receive(10)

    worker.refuses(talk)


def test_bug_of_ours(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where we fail ourselves the process is ended, too: it would say more."""

    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(worker.site.answers.store, "get", fail)
    with pytest.raises(ZeroDivisionError):
        worker.deliver(says("get", "rules x"))
    assert worker.broker is not None
    assert worker.broker.killed == worker.broker.made[:1]


class Fake:
    """A scanner that has found something, or cannot say."""

    name = "fake"

    def __init__(self) -> None:
        self.asked = 0

    def scan(self, message: Message, envelope: Envelope, seconds: float) -> Report:
        self.asked += 1
        if b"slow" in message.raw:
            raise Unscanned("timed out")
        return Report(("X",), (Hit("A", 6.5, "a"),), {"fake.x": ("y",)})


@pytest.mark.parametrize("slow", [False, True])
def test_scanners(worker: Worker, slow: bool) -> None:
    """What the site's scanners say is asked of the worker, and once for all facts; what they
    cannot say puts the mail off."""
    fake, both = Fake(), frozenset(("virus", "spam"))
    worker.site.answers.scanning = Scanning(lambda: [Post(fake, both, 5.0, "defer")])
    names = ("virus.found", "virus.name", "virus.status", "virus.unscanned", "spam.hits")
    answers: list[Any] = []

    def talk(frames: Frames) -> None:
        for name, arguments in [*((name, []) for name in names), ("finding", ["fake.x"])]:
            frames.send(["fact", name, arguments, "user", 1])
            answers.append(frames.receive(10).value)
        frames.send(DONE)

    worker.deliver(talk, raw=b"slow" if slow else RAW)
    if slow:
        assert {tuple(answer[:2]) for answer in answers} == {("mail", 451)}
    else:
        hits = [[["A", 6.5, "a"]], []]
        found = ([True], ["X"], ["Infected (X)"], [False], hits, ["y"])
        assert answers == [["ok", value] for value in found]
