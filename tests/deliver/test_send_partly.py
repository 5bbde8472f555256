"""Targets of one transaction that fare differently, by SMTP and by LMTP."""

from __future__ import annotations

from pathlib import Path

import pytest
from boxes import descriptors
from fake_mta import DRIP, DROP, EXTENSIONS, HANG, FakeMTA, closed_hop

from mdaflow.deliver import breaker, send
from mdaflow.deliver.job import Means
from mdaflow.errors import MailError, PermFail, TempFail
from mdaflow.mail.receipt import Relay

MAIL = [b"Subject: x\n\n", b"hello\n"]
ANN, BOB, CARL = "ann@x.org", "bob@x.org", "carl@x.org"
ALL = (ANN, BOB, CARL)
OK, LATER, NEVER = b"250 2.1.5 Ok\r\n", b"450 4.2.1 Busy\r\n", b"550 5.1.1 Unknown\r\n"
TOO_MANY = b"452 4.5.3 Too many\r\n"
PIPELINING = (*EXTENSIONS, "PIPELINING")
PATIENT, IMPATIENT = 20.0, 0.3


def transaction(
    mta: FakeMTA, *targets: str, partly: bool = True, limit: float = PATIENT
) -> send.Transaction:
    means = Means("mx.example.org", mta.hop)
    return send.prepare(means, "eve@x.org", targets or ALL, MAIL, limit, partly=partly)


def said(refused: dict[str, MailError]) -> dict[str, str]:
    return {target: str(error.status)[:9] for target, error in refused.items()}


@pytest.mark.parametrize("extensions", [EXTENSIONS, PIPELINING])
@pytest.mark.parametrize("lmtp", [False, True])
def test_some_are_refused(extensions: tuple[str, ...], lmtp: bool) -> None:
    """Who is refused at RCPT fails nobody else, and is named with the reason."""
    script = {"rcpt": [LATER, OK, NEVER]}
    with FakeMTA(script, extensions=extensions, lmtp=lmtp) as mta:
        ready = transaction(mta)
        assert ready.targets == (BOB,)
        ready.commit()
    assert said(ready.refused) == {ANN: "450 4.2.1", CARL: "550 5.1.1"}
    assert [type(error) for error in ready.refused.values()] == [TempFail, PermFail]
    assert ready.where == f"{'lmtp' if lmtp else 'smtp'} {BOB}"
    assert ready.relay == Relay("127.0.0.1", "250 2.0.0 Ok: queued as FAKE1", False, (BOB,))
    assert len(mta.taken) == 1


@pytest.mark.parametrize(
    ("answers", "failure"),
    [([NEVER, LATER, NEVER], TempFail), ([NEVER] * 3, PermFail), ([TOO_MANY] * 3, TempFail)],
)
def test_all_are_refused(answers: list[bytes], failure: type[MailError]) -> None:
    """When nobody is left the worst counts: what may still work later."""
    with FakeMTA({"rcpt": answers}) as mta, pytest.raises(failure):
        transaction(mta)
    assert not mta.taken


@pytest.mark.parametrize("too_many", [TOO_MANY, b"552 5.5.3 Too many\r\n"])
def test_too_many_recipients(too_many: bytes) -> None:
    """Those behind the limit of a hop are for later (RFC 5321 section 4.5.3.1.10)."""
    with FakeMTA({"rcpt": [OK, too_many, too_many]}, extensions=PIPELINING) as mta:
        ready = transaction(mta)
        ready.commit()
    assert ready.targets == (ANN,)
    assert all(isinstance(error, TempFail) for error in ready.refused.values())


def test_all_or_none() -> None:
    """Unless that is asked for, one who is refused is one who fails all, also with PIPELINING."""
    with FakeMTA({"rcpt": [OK, NEVER, OK]}, extensions=PIPELINING) as mta:
        with pytest.raises(PermFail) as failure:
            transaction(mta, partly=False)
        assert failure.value.done == ()
    assert not mta.taken


def test_bad_addresses() -> None:
    """What is no address, and what the hop cannot take, is refused for itself."""
    with FakeMTA(extensions=()) as mta:
        ready = transaction(mta, "a@b\r\nDATA", BOB, "jürgen@x.org", BOB)
        ready.commit()
    assert {e.status.enhanced for e in ready.refused.values()} == {"5.1.3", "5.6.7"}
    assert ready.targets == (BOB,)
    assert [c for c in mta.sessions[0].commands if c.startswith(b"RCPT")] == [
        b"RCPT TO:<bob@x.org>"
    ]
    with FakeMTA() as mta, pytest.raises(PermFail):
        transaction(mta, "<", ">")
    assert mta.sessions == []


def test_list_of_thousands() -> None:
    """A hop with PIPELINING is asked for many at once, and neither side waits for the other."""
    many = [f"user{n}@{'x' * 60}.example" for n in range(5000)]
    answers = [b"250 2.1.5 " + b"y" * 400 + b"\r\n"] * 4999 + [NEVER]
    with FakeMTA({"rcpt": answers}, extensions=PIPELINING) as mta:
        ready = transaction(mta, *many)
        ready.commit()
    assert ready.targets == tuple(many[:-1])
    assert len(ready.where) < 3000
    assert len(mta.sessions[0].commands) == len(many) + 4


@pytest.mark.parametrize("answer", [DROP, b"hello\r\n", b"421 4.3.2 Bye\r\n", HANG])
def test_lost_between_targets(answer: bytes) -> None:
    """Once the dialogue has broken off, before the data, nobody gets anything."""
    script = {"rcpt": [OK, answer, DROP]}
    with FakeMTA(script) as mta, pytest.raises(TempFail):
        transaction(mta, limit=IMPATIENT)
    assert not mta.taken


@pytest.mark.parametrize("dot", [LATER, NEVER, DROP])
def test_refused_behind_the_data(dot: bytes) -> None:
    """What is refused at last is refused for all who were left, each of them named."""
    with FakeMTA({"rcpt": [OK, NEVER, OK], "dot": dot}) as mta:
        ready = transaction(mta)
        with pytest.raises(MailError) as failure:
            ready.commit()
    assert set(ready.refused) == set(ALL)
    assert ready.refused[ANN] is ready.refused[CARL]
    assert failure.value.status == ready.refused[ANN].status
    assert ready.targets == ()


def by_lmtp(dot: bytes, *, partly: bool = True) -> tuple[str, send.Transaction]:
    """How a transaction by LMTP ends."""
    with FakeMTA({"dot": dot}, lmtp=True) as mta:
        ready = transaction(mta, partly=partly)
        try:
            ready.commit()
        except MailError as error:
            end, done = error.status.enhanced, error.done
        else:
            end, done = "sent", ready.targets
    assert done == ready.targets
    return end, ready


def test_lmtp() -> None:
    """LHLO begins, and each target has its own reply behind the dot (RFC 2033 section 4.2)."""
    end, ready = by_lmtp(OK * 3)
    assert end == "sent"
    assert ready.targets == ALL
    with FakeMTA({"dot": OK}, lmtp=True) as mta:
        transaction(mta, BOB).commit()
    assert mta.sessions[0].commands[0] == b"LHLO mx.example.org"
    assert mta.sessions[0].commands[-1] == b"QUIT"


def test_each_target_has_its_reply() -> None:
    """The replies belong to the accepted targets, in their order."""
    with FakeMTA({"rcpt": [OK, NEVER, OK], "dot": LATER + OK}, lmtp=True) as mta:
        ready = transaction(mta)
        ready.commit()
    assert said(ready.refused) == {BOB: "550 5.1.1", ANN: "450 4.2.1"}
    assert ready.targets == ready.relay.targets == (CARL,)


@pytest.mark.parametrize(
    ("dot", "end", "taken"),
    [
        (OK + LATER + NEVER, "4.2.1", (ANN,)),
        (OK + NEVER + OK, "5.1.1", (ANN, CARL)),
        (NEVER + LATER + NEVER, "4.2.1", ()),
    ],
)
def test_lmtp_all_or_none(dot: bytes, end: str, taken: tuple[str, ...]) -> None:
    """Behind the dot it cannot be none any more: who has the message is told with the failure."""
    found, ready = by_lmtp(dot, partly=False)
    assert (found, ready.targets) == (end, taken)


BROKEN = [
    DROP,
    HANG,
    b"hello\r\n",
    b"25",
    b"250-2.0.0 on\r\n",
    b"x" * 10_000_000,
    b"250-x\r\n" * 10_000,
]


@pytest.mark.parametrize("end", BROKEN)
@pytest.mark.parametrize("told", [0, 1, 2])
def test_lost_between_replies(told: int, end: bytes) -> None:
    """Who was answered has the message, the others may try again: nobody is lost or doubled."""
    before = descriptors()
    script: dict[str, bytes | list[bytes]] = {"dot": OK * told}
    with FakeMTA(script, lmtp=True) as mta:
        mta.afterwards = end
        ready = transaction(mta)
        ready._limit = 1.0
        try:
            ready.commit()
            assert told
        except TempFail:
            assert not told
    assert ready.targets == ALL[:told]
    assert set(said(ready.refused).values()) == {"451 4.4.1"}
    assert descriptors() == before


def test_too_many_replies() -> None:
    """Replies that nobody waits for are not looked at."""
    end, ready = by_lmtp(OK * 3 + NEVER * 1000)
    assert (end, ready.refused) == ("sent", {})


@pytest.mark.parametrize("lmtp", [False, True])
@pytest.mark.parametrize("stage", ["mail", "rcpt", "data"])
def test_replies_out_of_turn(stage: str, lmtp: bool) -> None:
    """A reply too many is never taken for the one behind the final dot."""
    answer = {"mail": OK * 3, "rcpt": OK * 3, "data": b"354 Go on\r\n" + OK * 3}[stage]
    with FakeMTA({stage: answer}, lmtp=lmtp) as mta, pytest.raises(TempFail):
        transaction(mta, BOB).commit()
    assert not mta.taken


@pytest.mark.parametrize("stage", ["greeting", "ehlo", "mail", "rcpt", "data"])
@pytest.mark.parametrize("answer", [DROP, DRIP, b"what\r\n", b"2" * 20000 + b"\r\n"])
def test_nonsense_by_lmtp(stage: str, answer: bytes) -> None:
    """Whatever an LMTP server says before the data, it may be over later; nothing leaks."""
    before = descriptors()
    with FakeMTA({stage: answer}, lmtp=True) as mta, pytest.raises(TempFail):
        transaction(mta).commit()
    assert descriptors() == before


def test_unix_socket(tmp_path: Path) -> None:
    """An LMTP server may be behind a unix socket; then it is on this machine."""
    with FakeMTA({"dot": OK}, path=f"{tmp_path}/lmtp") as mta:
        ready = transaction(mta, BOB)
        ready.commit()
    assert ready.relay.host == "mx.example.org"
    assert len(mta.taken) == 1


@pytest.mark.parametrize("path", ["none", "file", "x" * 200])
def test_no_unix_socket(path: str, tmp_path: Path) -> None:
    """A socket that is not there, or is none, may be mended."""
    (tmp_path / "file").touch()
    before = descriptors()
    hop = f"lmtp:unix:{tmp_path}/{path}"
    with pytest.raises(TempFail) as failure:
        send.prepare(Means("mx.example.org", hop), "", [BOB], MAIL)
    breaker.answered(hop)
    assert str(tmp_path) not in str(failure.value.status)
    assert descriptors() == before


def test_another_hop() -> None:
    """A transaction may go to another hop than that of what rules send."""
    with FakeMTA() as mta:
        means = Means("mx.example.org", closed_hop())
        send.prepare(means, "", [BOB], MAIL, hop=mta.hop).commit()
    assert len(mta.taken) == 1


def test_hop_that_hangs_between_replies() -> None:
    """A hop that falls silent between two replies is left alone for a while."""
    with FakeMTA({"dot": OK}, lmtp=True) as mta:
        mta.afterwards = HANG
        ready = transaction(mta)
        ready._limit = IMPATIENT
        ready.commit()
        assert not breaker.may_ask(mta.hop)
        breaker.answered(mta.hop)
