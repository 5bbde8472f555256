"""A next hop that hangs holds one thread, not all of them."""

from __future__ import annotations

import socket
import threading
from types import SimpleNamespace

import pytest
from fake_mta import DROP, HANG, FakeMTA, closed_hop

from mdaflow.deliver import breaker, dialogue, send
from mdaflow.deliver.job import Means
from mdaflow.errors import MailError, TempFail

LIMIT = 0.2
PATIENT = 20.0
AGO = "did not answer a moment ago"


class Clock:
    """The time, as the breaker sees it."""

    now = 1000.0

    def after(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(breaker, "time", SimpleNamespace(monotonic=lambda: clock.now))
    monkeypatch.setattr(breaker, "_until", {})
    return clock


def prepare(hop: str, limit: float = PATIENT) -> send.Transaction:
    means = Means("mx.example.org", hop)
    return send.prepare(means, "ann@example.com", ("bob@x.org",), [b"S: x\n\n"], limit)


def outcome(hop: str, limit: float = PATIENT) -> str:
    """How a transaction ends."""
    try:
        prepare(hop, limit).commit()
    except MailError as error:
        return AGO if AGO in str(error) else error.status.enhanced
    return "sent"


@pytest.mark.parametrize("stage", ["greeting", "ehlo", "mail", "rcpt", "data", "dot"])
def test_hop_that_hangs(stage: str, clock: Clock) -> None:
    """After a step without an answer nobody waits for ten seconds, then one tries."""
    with FakeMTA({stage: [HANG, HANG]}) as mta:
        assert outcome(mta.hop, LIMIT) == "4.4.1"
        assert [outcome(mta.hop) for _ in range(3)] == [AGO] * 3
        clock.after(breaker.PAUSE - 0.01)
        assert outcome(mta.hop) == AGO
        clock.after(0.01)
        assert [outcome(mta.hop, LIMIT) for _ in range(2)] == ["4.4.1", AGO]
        clock.after(breaker.PAUSE)
    assert len(mta.sessions) == 2


def test_hop_that_is_back(clock: Clock) -> None:
    """While one tries the others go on failing; when it was sent, all may send."""
    with FakeMTA({"greeting": [HANG, *[b"220 fake\r\n"] * 9]}) as mta:
        assert outcome(mta.hop, LIMIT) == "4.4.1"
        clock.after(breaker.PAUSE)
        one = prepare(mta.hop)
        assert [outcome(mta.hop) for _ in range(2)] == [AGO] * 2
        one.commit()
        assert [outcome(mta.hop) for _ in range(2)] == ["sent"] * 2


@pytest.mark.parametrize("rcpt", [b"450 4.2.1 Busy\r\n", b"550 5.1.1 No\r\n", DROP, b"what\r\n"])
def test_any_answer(rcpt: bytes, clock: Clock) -> None:
    """A refusal, a lost connection and nonsense cost no time: such a hop is asked again."""
    with FakeMTA({"greeting": [HANG, *[b"220 fake\r\n"] * 9], "rcpt": rcpt}) as mta:
        assert outcome(mta.hop, LIMIT) == "4.4.1"
        clock.after(breaker.PAUSE)
        for _ in range(3):
            assert outcome(mta.hop) != AGO
    assert len(mta.sessions) == 4


def test_abort(clock: Clock) -> None:
    """Who tries and has nothing to send any more keeps nobody from it."""
    with FakeMTA({"greeting": [HANG, *[b"220 fake\r\n"] * 9]}) as mta:
        assert outcome(mta.hop, LIMIT) == "4.4.1"
        clock.after(breaker.PAUSE)
        prepare(mta.hop).abort()
        assert outcome(mta.hop) == "sent"


def test_bug(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug in the one who tries closes nothing."""
    with FakeMTA({"greeting": [HANG, *[b"220 fake\r\n"] * 9]}) as mta:
        assert outcome(mta.hop, LIMIT) == "4.4.1"
        clock.after(breaker.PAUSE)
        with monkeypatch.context() as patch:
            patch.setattr(dialogue, "_dial", lambda *_: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                prepare(mta.hop)
        assert outcome(mta.hop) == "sent"


def test_one_who_never_comes_back(clock: Clock) -> None:
    """Who tries, and does not say how it went, is waited for so long and no longer."""
    breaker.silent("hop")
    clock.after(breaker.PAUSE)
    assert [breaker.may_ask("hop") for _ in range(2)] == [True, False]
    clock.after(breaker.TRIAL)
    assert [breaker.may_ask("hop") for _ in range(2)] == [True, False]


def test_no_connection() -> None:
    """A hop that refuses connections is left alone, too; others are not."""
    hop = closed_hop()
    assert [outcome(hop) for _ in range(2)] == ["4.4.1", AGO]
    with FakeMTA() as mta:
        assert outcome(mta.hop) == "sent"


def test_our_own_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not the hop's fault is not held against it."""

    def no_files(*_: object) -> None:
        raise OSError(24, "Too many open files")

    with FakeMTA() as mta:
        with monkeypatch.context() as patch:
            patch.setattr(socket, "create_connection", no_files)
            with pytest.raises(TempFail):
                prepare(mta.hop)
        assert outcome(mta.hop) == "sent"


def test_one_of_many_tries(clock: Clock) -> None:
    """However many ask at once, one of them may."""
    breaker.silent("hop")
    clock.after(breaker.PAUSE)
    ready = threading.Barrier(8)
    found: list[bool] = []

    def ask() -> None:
        ready.wait(30)
        found.append(breaker.may_ask("hop"))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [False] * 7 + [True]
