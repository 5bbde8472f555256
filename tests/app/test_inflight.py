"""Messages that stop workers: noted, struck, and delivered without rules."""

from __future__ import annotations

import contextlib
import mmap
import os
import signal
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace

import pytest
from here import ANN, BOB, RAW, Here

from mdaflow.app import carry, inflight, pipeline
from mdaflow.app.build import Site
from mdaflow.app.decide import decide
from mdaflow.app.inflight import DEPTH, InFlight, Strikes, described, known_by
from mdaflow.engine.plan import Plan
from mdaflow.errors import Status
from mdaflow.mail.envelope import Envelope
from mdaflow.mail.message import Message

ENVELOPE = Envelope(ANN, BOB)
MAIL = Message(RAW)


def killed(work: Callable[[], None], seconds: float) -> None:
    """Do this again and again in a process of its own, and kill that."""
    child = os.fork()
    if child == 0:
        try:
            while True:
                work()
        finally:
            os._exit(1)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def mark(message: Message, envelope: Envelope = ENVELOPE) -> bytes:
    return inflight.mark(known_by(message, envelope))


def marks(*names: bytes) -> list[bytes]:
    return [inflight.mark(name) for name in names]


def strike(strikes: Strikes, *marks: bytes) -> None:
    """A death for each of these."""
    for one in marks:
        strikes.add({one: hash(BOB)})


def run(strikes: Strikes, envelope: Envelope = ENVELOPE) -> bool:
    """A run of rules that ends, in a worker; was it spared?"""
    child = os.fork()
    if child == 0:
        try:
            with InFlight(1, strikes).noted(MAIL, envelope) as spare:
                pass
            os._exit(spare)
        finally:
            os._exit(9)
    return {0: False, 1: True}[os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])]


def test_mark() -> None:
    """A message is known again by its sender, its size, its first 64 KiB and its last 4 KiB."""
    big = bytearray(200_000)
    about = {"sender": ENVELOPE, "recipient": replace(ENVELOPE, recipient="eve@x")}
    [one] = {mark(Message(bytes(big)), envelope) for envelope in about.values()}
    assert one != mark(Message(bytes(big)), replace(ENVELOPE, sender="eve@x"))
    assert one != mark(Message(bytes(big) + b"\0"), ENVELOPE)
    for at, same in ((0, False), (65_535, False), (65_536, True), (196_000, False), (-1, False)):
        other = big.copy()
        other[at] = 1
        assert (one == mark(Message(bytes(other)), ENVELOPE)) is same, at


def test_described() -> None:
    """The log names the scanner that a message was at, as the configuration counts them."""
    noted = ((b"a", 0), (b"b", 0), (b"a", 1), (b"a", 2))
    marks = [inflight.mark(name, what) for name, what in noted]
    assert described(marks) == (
        "the rules of 2 messages, the tests of spam of 1 messages, scanners[0] with 1 messages"
    )


def test_mark_of_a_file() -> None:
    """Whether a message is in memory or in a spool file makes no difference."""
    raw = bytes(range(256)) * 400
    with tempfile.TemporaryFile() as file:
        file.write(raw)
        file.flush()
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as spooled:
            known = mark(Message(spooled), ENVELOPE)  # type: ignore[arg-type,unused-ignore]
    assert known == mark(Message(raw), ENVELOPE)


def test_killed_at_any_time() -> None:
    """Whenever a process dies, what it was at is told whole or not at all."""
    mails = [Message(b"a" * 3000), Message(b"b" * 60_000)]
    possible: list[set[bytes]] = [set(), *({mark(mail)} for mail in mails)]
    seen: list[set[bytes]] = []
    while len(seen) < 40 or not all(one in seen for one in possible):
        table = InFlight(2, Strikes())

        def work(table: InFlight = table) -> None:
            for mail in mails:
                with table.noted(mail, ENVELOPE):
                    pass

        killed(work, 0.002 + len(seen) % 40 / 20_000)
        seen.append(set(table.marks))
        assert set(table.marks) in possible


def test_beats() -> None:
    """The beats of a worker are seen by its master."""
    table = InFlight(1, Strikes())
    killed(table.beat, 0.1)
    assert table.beats > 0
    assert not table.marks


def test_notes_are_taken_away() -> None:
    """Who is done, or has failed, is at nothing; its row is free again."""
    table = InFlight(2, Strikes())
    for _ in range(5):
        with contextlib.suppress(ZeroDivisionError), table.noted(MAIL, ENVELOPE):
            assert set(table.marks) == {mark(MAIL)}
            raise ZeroDivisionError
        assert not table.marks


def test_more_threads_than_rows() -> None:
    """Who finds no row goes without a note, and disturbs nobody's."""
    table = InFlight(1, Strikes())
    with contextlib.ExitStack() as stack:
        kept = [Message(b"%d" % number) for number in range(DEPTH)]
        for message in kept:
            stack.enter_context(table.noted(message, ENVELOPE))
        with table.noted(Message(b"x"), ENVELOPE) as spare:
            assert not spare
            assert set(table.marks) == set(map(mark, kept))
        assert set(table.marks) == set(map(mark, kept))


def test_one_thing_at_a_time() -> None:
    """Whom a scanner holds up is not at the rules that have asked, until it has ended."""
    table = InFlight(1, Strikes())
    with table.noted(MAIL, ENVELOPE):
        with table.noted(MAIL, ENVELOPE, 3):
            assert set(table.marks) == {inflight.mark(known_by(MAIL, ENVELOPE), 3)}
        assert set(table.marks) == {mark(MAIL)}
    assert not table.marks


def test_two_strikes() -> None:
    """With two strikes a message is out, whoever looks: here a process that was there before."""
    strikes = Strikes()
    [poison, other] = marks(b"poison", b"other")
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(writing)
            os.read(reading, 1)
            os._exit(strikes.out(b"poison") and not strikes.out(b"other"))
        finally:
            os._exit(9)
    strike(strikes, poison, other)
    assert not strikes.out(b"poison")
    strike(strikes, poison)
    os.close(reading)
    os.close(writing)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1


def test_strikes_are_taken_back() -> None:
    """A run that ends between two strikes takes the first one back; after two there is no run."""
    strikes = Strikes()
    for _ in range(3):
        strike(strikes, mark(MAIL))
        assert not run(strikes)
    strike(strikes, mark(MAIL), mark(MAIL))
    assert run(strikes)
    assert run(strikes)


def test_an_error_is_an_end() -> None:
    """Also a run that fails takes back, and one that found no row."""
    strikes = Strikes()
    for threads in (1, 0):
        strike(strikes, mark(MAIL))
        table = InFlight(threads, strikes)
        with contextlib.suppress(ZeroDivisionError), table.noted(MAIL, ENVELOPE):
            raise ZeroDivisionError
    strike(strikes, mark(MAIL))
    assert not strikes.out(known_by(MAIL, ENVELOPE))


def test_only_who_was_struck_takes_back() -> None:
    """What one recipient's rules die of is not taken back by another's, nor by any of several."""
    eve = replace(ENVELOPE, recipient="eve@x")
    for struck, ended in (([ENVELOPE], [eve]), ([ENVELOPE, eve], [ENVELOPE, eve])):
        strikes = Strikes()
        table = InFlight(2, Strikes())
        with contextlib.ExitStack() as stack:
            for envelope in struck:
                stack.enter_context(table.noted(MAIL, envelope))
            strikes.add(table.marks)
            for envelope in ended:
                assert not run(strikes, envelope)
            strikes.add(table.marks)
        assert all(run(strikes, envelope) for envelope in (ENVELOPE, eve))


def test_half_written_strikes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whenever others look and take back, one strike at a time is never two."""
    monkeypatch.setattr(inflight, "MAX_STRUCK", 2)  # so that rows change hands
    mails = [Message(b"%d" % number) for number in range(3)]
    strikes = Strikes()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(writing)
        os.set_blocking(reading, False)
        try:
            while True:
                if any(strikes.out(known_by(mail, ENVELOPE)) for mail in mails):
                    os._exit(1)
                with contextlib.suppress(BlockingIOError):
                    os._exit(len(os.read(reading, 1)))
        finally:
            os._exit(9)
    os.close(reading)
    for _ in range(3000):
        for mail in mails:
            strikes.add({mark(mail): 1})
            strikes.take_back(known_by(mail, ENVELOPE), inflight.RULES, 1)
    os.close(writing)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_strikes_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of too many messages the oldest are forgotten, of those with one strike and with two."""
    monkeypatch.setattr(inflight, "MAX_STRUCK", 4)
    strikes = Strikes()
    names = [b"a", b"b", b"c", b"d", b"e", b"f", b"g"]
    first, *others = marks(b"first", *names)
    strike(strikes, first, *others[:4])  # forgets the first
    strike(strikes, first)
    assert not strikes.out(b"first")
    for _ in range(2):
        for other in others:
            strike(strikes, other, other)
    assert [strikes.out(name) for name in names] == [False] * 3 + [True] * 4
    strike(strikes, *others[-1:] * 3)
    assert strikes.out(names[-4])  # it took no further row


def test_strikes_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a day a strike counts no more, and who was out is in again."""
    strikes = Strikes()
    [poison, other] = marks(b"poison", b"other")
    strike(strikes, poison, poison, other)
    assert strikes.out(b"poison")
    now = time.monotonic() + inflight.DAY + 1
    monkeypatch.setattr(time, "monotonic", lambda: now)
    assert not strikes.out(b"poison")
    strike(strikes, poison, other)
    assert not strikes.out(b"poison")
    assert not strikes.out(b"other")
    strike(strikes, poison)
    assert strikes.out(b"poison")


def send(site: Site) -> Status:
    return pipeline.deliver_message(site, MAIL, Envelope(ANN, BOB, received=1.8e9))


def test_poison_goes_to_the_inbox(both: Here) -> None:
    """No rule of site or user runs on a message with two strikes; its recipient is told."""
    both.set('deliver to "A"', before='also deliver to "B"', after="discard")
    strikes = Strikes()
    site = replace(both.site, inflight=InFlight(1, strikes))
    strike(strikes, mark(MAIL))
    assert send(site).ok
    assert both.folders == {"A": 1, "B": 1}
    strike(strikes, mark(MAIL), mark(MAIL))
    assert send(site).text.endswith("Saved to INBOX")
    assert both.folders == {"A": 1, "B": 1, "INBOX": 1, "notices": 1}
    told = "this message has stopped mdaflow twice, so no rule was run on it; kept in the inbox"
    assert f"<{BOB}>: {told}" in both.said
    assert told in (both.home / ".mdaflow/log").read_text()
    assert both.entry["status"] == "delivered"
    assert "rule" not in both.entry or not both.entry["rule"]
    assert b"\n".join(both.mails()).count(RAW.partition(b"\n\n")[2]) == 1


def test_noted_while_rules_run(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    """A message is noted while its rules run, and no longer, also when they fail."""
    table = InFlight(1, Strikes())
    site = replace(here.site, inflight=table)
    seen = []

    def look(*arguments: object, **more: object) -> Plan:
        seen.append(set(table.marks))
        if len(seen) == 2:
            raise ZeroDivisionError
        return decide(*arguments, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(carry, "decide", look)
    assert [send(site).code for _ in range(3)] == [250, 451, 250]
    assert seen == [{mark(MAIL)}] * 3
    assert not table.marks
