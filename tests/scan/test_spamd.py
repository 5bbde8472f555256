"""SpamAssassin's daemon, played by a script."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted import DEAF, DROP, HANG, Endless, Scripted, nobody

from mdaflow import Envelope, Hit, Message, Unscanned
from mdaflow.scan.spamd import Spamd

LETTER = Message(b"Subject: Hello\n\nHow are you?\n")
ENVELOPE = Envelope("ann@example.com", "bob@example.org")
SPAM = b"SPAMD/1.1 0 EX_OK\r\nContent-length: 13\r\nSpam: True ; 7.1 / 10.0\r\n\r\nTEST_A,TEST_B"
CLEAN = b"SPAMD/1.1 0 EX_OK\r\nContent-length: 0\r\nSpam: False ; -1.5 / 5.0\r\n\r\n"
LONG, SHORT = 60.0, 0.2


@pytest.fixture
def spamd() -> Iterator[Scripted]:
    """A spamd that calls everything spam."""
    with Scripted(SPAM) as server:
        yield server


def test_spam(spamd: Scripted) -> None:
    """The score is measured by what spamd requires, and what it says are findings."""
    report = Spamd([spamd.address], scale=4, weight=0.5).scan(LETTER, ENVELOPE, LONG)
    assert report.hits == (Hit("SPAMD", 1.42, "7.1 of 10.0: TEST_A, TEST_B"),)
    assert report.findings == {
        "spamd.score": ("7.1",),
        "spamd.required": ("10.0",),
        "spamd.tests": ("TEST_A", "TEST_B"),
    }
    assert not report.viruses
    assert not report.unscanned


def test_clean(spamd: Scripted) -> None:
    """A score may be below zero, and no test met."""
    spamd.answer = CLEAN
    report = Spamd([spamd.address]).scan(LETTER, ENVELOPE, LONG)
    assert report.hits == (Hit("SPAMD", -1.5, "-1.5 of 5.0: "),)
    assert report.findings["spamd.tests"] == ()


def test_request(spamd: Scripted) -> None:
    """spamd is sent the message as it is, below its sender, and told of no user."""
    Spamd([spamd.address]).scan(LETTER, ENVELOPE, LONG)
    assert spamd.requests == [
        b"SYMBOLS SPAMC/1.5\r\nContent-length: 60\r\n\r\n"
        b"Return-Path: <ann@example.com>\nSubject: Hello\n\nHow are you?\n"
    ]


@pytest.mark.parametrize(
    ("user", "recipient", "line"),
    [
        ("filter", "bob@example.org", b"\r\nUser: filter\r\n"),
        ("recipient", "bob@example.org", b"\r\nUser: bob@example.org\r\n"),
        ("recipient", '"b o"@example.org', b'\r\nUser: "b o"@example.org\r\n'),
        ("recipient", "böb@example.org", "\r\nUser: böb@example.org\r\n".encode()),
        ("recipient", "bob\r\nUser: root", b""),
        ("recipient", "\udc80@example.org", b""),
        ("recipient", "", b""),
    ],
)
def test_user(spamd: Scripted, user: str, recipient: str, line: bytes) -> None:
    """Whose preferences count is one for all, or the recipient; nothing else gets into a field."""
    scanner = Spamd([spamd.address], user=user)
    scanner.scan(LETTER, Envelope("", recipient), LONG)
    [request] = spamd.requests
    head = request.partition(b"\r\n\r\n")[0] + b"\r\n"
    assert line in head
    assert head.count(b"User") == bool(line)
    assert scanner.per_recipient == (user == "recipient")


@pytest.mark.parametrize(
    ("sender", "raw", "sent"),
    [
        ("", b"A: b\n\nc\n", b"Return-Path: <>\nA: b\n\nc\n"),
        ("a@b", b"no header\n", b"Return-Path: <a@b>\n\nno header\n"),
        ("a@b", b"\nbody\n", b"Return-Path: <a@b>\n\nbody\n"),
        ("a@b", b"", b"Return-Path: <a@b>\n"),
        ("a>\nSubject: x", b"A: b\n\nc\n", b"A: b\n\nc\n"),
        ("\ud800", b"A: b\n\nc\n", b"A: b\n\nc\n"),
    ],
)
def test_sender(spamd: Scripted, sender: str, raw: bytes, sent: bytes) -> None:
    """A sender that is none is not told, and no message grows a header that it has not."""
    Spamd([spamd.address]).scan(Message(raw), Envelope(sender), LONG)
    assert spamd.requests[0].partition(b"\r\n\r\n")[2] == sent


def test_bad_user() -> None:
    """A user that would be a second field is refused."""
    with pytest.raises(ValueError, match="no user"):
        Spamd(["localhost:783"], user="a\r\nContent-length: 0")


def test_ways(tmp_path: Path) -> None:
    """spamd is reached by IPv4, IPv6 and a unix socket."""
    for where in ({}, {"host": "::1"}, {"path": str(tmp_path / "s")}):
        with Scripted(SPAM, **where) as server:
            assert Spamd([server.address]).scan(LETTER, ENVELOPE, LONG).hits


def test_large(spamd: Scripted) -> None:
    """A message that is too large is not sent, and not called clean."""
    scanner = Spamd([spamd.address], max_size=60)
    assert scanner.scan(LETTER, ENVELOPE, LONG).hits
    with pytest.raises(Unscanned, match="larger than 60 bytes"):
        scanner.scan(Message(LETTER.raw + b"."), ENVELOPE, LONG)
    assert len(spamd.requests) == 1


def test_out_of_time(spamd: Scripted) -> None:
    """A message that SpamAssassin gave up on has its score, and is not called scanned."""
    spamd.answer = SPAM.replace(b"13", b"19").replace(b"TEST_A,TEST_B", b"TIME_LIMIT_EXCEEDED")
    report = Spamd([spamd.address]).scan(LETTER, ENVELOPE, LONG)
    assert report.hits
    assert report.unscanned == "spamd ran out of time"


@pytest.mark.parametrize(
    "answer",
    [
        DROP,
        b"",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"SPAMD/1.0 76 Bad header line: (EOF during headers)\r\n",
        b"SPAMD/1.1 0 EX_OK\r\n",
        SPAM + b",TEST_C",
        SPAM + SPAM,
        SPAM.replace(b"True", b"Maybe"),
        SPAM.replace(b"7.1", b"NaN"),
        SPAM.replace(b"7.1", b"1e999"),
        SPAM.replace(b"7.1", b"9" * 400),
        SPAM.replace(b"7.1", "७.१".encode()),
        SPAM.replace(b"10.0", b"0.0"),
        SPAM.replace(b"10.0", b"-5.0"),
        SPAM.replace(b"TEST_A", b"TEST\0A"),
        SPAM.replace(b"TEST_A", b"TEST A"),
        SPAM.replace(b"TEST_A", b"T\xc3\x89ST"),
        SPAM.replace(b"13", b"-1"),
        SPAM.replace(b"13", b"99999999999999999999"),
        *(SPAM[:length] for length in range(40, len(SPAM))),
    ],
)
def test_nonsense(spamd: Scripted, answer: bytes) -> None:
    """An answer that is not exactly one says nothing about the message."""
    spamd.answer = answer
    with pytest.raises(Unscanned) as caught:
        Spamd([spamd.address]).scan(LETTER, ENVELOPE, LONG)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "answer",
    [
        HANG,
        DEAF,
        Endless(b"", SPAM[:1], 0.01),
        Endless(SPAM, b"", 0.01),
        Endless(SPAM, b"x"),
        Endless(b"", b"SPAMD/1.1 0 EX_OK\r\n" * 1000),
    ],
)
def test_slow(spamd: Scripted, answer: bytes | Endless) -> None:
    """No server can hold a message for longer than there is time, nor fill our memory."""
    spamd.answer = answer
    large = Message(b"A: b\n\n" + b"x" * (8 << 20))  # more than a socket takes in
    with pytest.raises(Unscanned, match=r"timed out|too long|reset|pipe"):
        Spamd([spamd.address], max_size=9 << 20).scan(large, ENVELOPE, SHORT)


def test_no_time(spamd: Scripted) -> None:
    """Without any time nobody is asked."""
    with pytest.raises(Unscanned, match="timed out"):
        Spamd([spamd.address]).scan(LETTER, ENVELOPE, 0)


@pytest.mark.parametrize("answer", [DROP, HANG, b"what?"])
def test_second_server(spamd: Scripted, answer: bytes) -> None:
    """When one server fails, the next one says what there is."""
    with Scripted(answer) as broken:
        scanner = Spamd([nobody(), broken.address, spamd.address])
        assert scanner.scan(LETTER, ENVELOPE, 3.0).hits
        assert len(broken.requests) == (answer != DROP)
        assert scanner.scan(LETTER, ENVELOPE, LONG).hits
        assert len(broken.requests) == (answer != DROP), "it was not asked first again"


@given(st.data())
def test_any_answer(data: st.DataObject) -> None:
    """Whatever a server says is a report with a finite score, or Unscanned."""
    at = data.draw(st.integers(0, len(SPAM)))
    to = data.draw(st.integers(at, len(SPAM)))
    answer = SPAM[:at] + data.draw(st.binary(max_size=20)) + SPAM[to:]
    with Scripted(answer) as server:
        scores = []
        with suppress(Unscanned):
            scores = [
                hit.score for hit in Spamd([server.address]).scan(LETTER, ENVELOPE, LONG).hits
            ]
        assert all(abs(score) <= 5e8 for score in scores)
