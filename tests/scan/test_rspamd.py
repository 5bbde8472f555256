"""rspamd, played by a script."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted import DEAF, DROP, HANG, Endless, Scripted, nobody

from mdaflow import Client, Envelope, Hit, Message, Report, Unscanned
from mdaflow.scan.rspamd import Rspamd

LETTER = Message(b"Subject: Hello\n\nHow are you?\n")
ENVELOPE = Envelope(
    "ann@example.com",
    "bob@example.org",
    client=Client("192.0.2.7", "mx.example.com", "helo.example.com"),
    queue_id="4XyZ",
    peer="localhost",
)
LONG, SHORT = 60.0, 0.2

SPAM = {
    "is_skipped": False,
    "score": 7.5,
    "required_score": 15.0,
    "action": "greylist",
    "symbols": {
        "SMALL": {"name": "SMALL", "score": 0.5},
        "NICE": {"name": "NICE", "score": -1.0},
        "BIG": {"name": "BIG", "score": 8.0, "options": ["x"]},
    },
    "messages": {},
    "message-id": "x@example.com",
}


def answer(reply: object, status: str = "200 OK", head: str = "") -> bytes:
    """A reply of HTTP with JSON in it."""
    body = reply if isinstance(reply, bytes) else json.dumps(reply).encode()
    return f"HTTP/1.1 {status}\r\n{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


GOOD = answer(SPAM)


@pytest.fixture
def rspamd() -> Iterator[Scripted]:
    """An rspamd that thinks little of every message."""
    with Scripted(GOOD) as server:
        yield server


def head(request: bytes) -> dict[str, str]:
    """The header of a request."""
    lines = request.partition(b"\r\n\r\n")[0].decode().split("\r\n")[1:]
    return dict(line.split(": ", 1) for line in lines)


def scanned(server: Scripted, **options: Any) -> Report:
    """What is found in the letter."""
    return Rspamd([server.address], **options).scan(LETTER, ENVELOPE, LONG)


def test_report(rspamd: Scripted) -> None:
    """The score is measured by what rspamd requires, and what it says are findings."""
    report = scanned(rspamd, scale=4.0, weight=1.5)
    why = "7.50 of 15.00 (greylist): BIG, NICE, SMALL"
    assert report.hits == (Hit("RSPAMD", 3.0, why),)
    assert report.findings == {
        "rspamd.score": ("7.50",),
        "rspamd.action": ("greylist",),
        "rspamd.symbols": ("BIG", "NICE", "SMALL"),
    }
    assert not report.viruses
    assert not report.unscanned


@pytest.mark.parametrize(
    ("score", "action", "ours"),
    [
        (-3.0, "no action", -1.0),
        (0, "no action", 0.0),
        (7.5, "soft reject", 2.5),
        (7.5, "add header", 5.0),
        (7.5, "rewrite subject", 5.0),
        (0.0, "reject", 5.0),
        (30.0, "reject", 10.0),
        (7.5, "of our own", 2.5),
    ],
)
def test_action(rspamd: Scripted, score: float, action: str, ours: float) -> None:
    """What rspamd calls spam has what the site calls spam; an action is else a finding."""
    rspamd.answer = answer(SPAM | {"score": score, "action": action})
    report = scanned(rspamd)
    assert [hit.score for hit in report.hits] == [ours]
    assert report.findings["rspamd.action"] == (action,)


def test_request(rspamd: Scripted) -> None:
    """rspamd is sent the message as it is, and the envelope as far as it is known."""
    scanned(rspamd, password="secret word")
    [request] = rspamd.requests
    assert request.startswith(b"POST /checkv2 HTTP/1.1\r\n")
    assert request.endswith(b"\r\n\r\n" + LETTER.raw)
    assert head(request) == {
        "Host": rspamd.address,
        "Password": "secret word",
        "From": "<ann@example.com>",
        "Rcpt": "<bob@example.org>",
        "IP": "192.0.2.7",
        "Helo": "helo.example.com",
        "Hostname": "mx.example.com",
        "Queue-Id": "4XyZ",
        "Connection": "close",
        "Content-Length": str(LETTER.size),
    }


def test_recipient(rspamd: Scripted) -> None:
    """The recipient whose statistics count is named only when a scan is for that one alone."""
    scanner = Rspamd([rspamd.address], per_recipient=True)
    assert scanner.per_recipient
    scanner.scan(LETTER, ENVELOPE, LONG)
    assert head(rspamd.requests[0])["Deliver-To"] == "bob@example.org"


def test_unknown_envelope(rspamd: Scripted) -> None:
    """What is not known is not told; a null sender is."""
    Rspamd([rspamd.address]).scan(LETTER, Envelope(), LONG)
    told = head(rspamd.requests[0])
    assert told.keys() == {"Host", "From", "Connection", "Content-Length"}
    assert told["From"] == "<>"


def test_hostile_envelope(rspamd: Scripted) -> None:
    """No value of an envelope becomes a field of its own, or is mended into another value."""
    bad = "x\r\nPassword: guess"
    client = Client("192.0.2.7\r\n\r\n", "\udcff", "x" * 1001)
    Rspamd([rspamd.address]).scan(LETTER, Envelope(bad, "bö b@example.org", client=client), LONG)
    told = head(rspamd.requests[0])
    assert told.keys() == {"Host", "Rcpt", "Connection", "Content-Length"}
    assert told["Rcpt"] == "<bö b@example.org>"


def test_bad_password() -> None:
    """A password that would be a second field is refused, and not shown."""
    with pytest.raises(ValueError, match="password") as caught:
        Rspamd(["localhost:11333"], password="secret\r\n")
    assert "secret" not in str(caught.value)


def test_ways(tmp_path: Path) -> None:
    """rspamd is reached by IPv4, IPv6, a unix socket, and as a URL."""
    for where in ({}, {"host": "::1"}, {"path": str(tmp_path / "s")}):
        with Scripted(GOOD, **where) as server:
            assert scanned(server).hits
            if "path" not in where:
                assert head(server.requests[0])["Host"] == server.address
                url = f"http://{server.address}"
                assert Rspamd([url]).scan(LETTER, ENVELOPE, LONG).hits


def test_large(rspamd: Scripted) -> None:
    """A message that is too large is not sent, and not called clean."""
    assert scanned(rspamd, max_size=LETTER.size).hits
    scanner = Rspamd([rspamd.address], controllers=[rspamd.address], max_size=LETTER.size - 1)
    with pytest.raises(Unscanned, match="larger than 28 bytes"):
        scanner.scan(LETTER, ENVELOPE, LONG)
    with pytest.raises(Unscanned, match="larger than 28 bytes"):
        scanner.learn(LETTER, "spam", LONG)
    assert len(rspamd.requests) == 1


def test_out_of_time(rspamd: Scripted) -> None:
    """A message that rspamd gave up on has its score, and is not called scanned."""
    late = {"action": "soft reject", "messages": {"smtp_message": "timeout processing message"}}
    rspamd.answer = answer(SPAM | late)
    report = scanned(rspamd)
    assert report.hits
    assert report.unscanned == "rspamd ran out of time"


BODY = json.dumps(SPAM).encode()


@pytest.mark.parametrize(
    "reply",
    [
        b"HTTP/1.1 200 OK\r\n\r\n" + BODY,
        b"HTTP/1.0 200 OK\r\nContent-Length: -5\r\n\r\n" + BODY,
        b"HTTP/1.1 100 Continue\r\n\r\n" * 3 + GOOD,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        + b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in (BODY[:9], BODY[9:]))
        + b"0\r\nTrailer: x\r\n\r\n",
    ],
)
def test_other_replies(rspamd: Scripted, reply: bytes) -> None:
    """A whole answer counts, however HTTP wraps it."""
    rspamd.answer = reply
    assert scanned(rspamd).findings["rspamd.score"] == ("7.50",)


def without(key: str) -> dict[str, object]:
    """A reply in which a key is missing."""
    return {name: value for name, value in SPAM.items() if name != key}


@pytest.mark.parametrize(
    "reply",
    [
        DROP,
        b"",
        b"\x1b[2J\0\r\n\r\n",
        b"SPAMD/1.1 0 EX_OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 99999999 OK\r\n\r\n",
        *(
            answer(SPAM, status)
            for status in ("204 No", "302 Found", "401 No", "403 No", "500 Oh", "503 Busy")
        ),
        answer(SPAM, "301 Moved", "Location: http://127.0.0.1:1/\r\n"),
        answer(SPAM, head="X: y\r\n" * 101),
        answer(SPAM, head=f"X: {'y' * 70000}\r\n"),
        answer(SPAM, head="Content-Length: 10\r\n"),
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999\r\n\r\n" + BODY[:-1],
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n" + BODY[:-1],
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\n" + BODY,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + BODY,
        answer(b"not JSON"),
        answer(b"[" * 100_000),
        answer(b'{"a":' * 100_000),
        answer(b"\xff\xfe{}"),
        *(answer(value) for value in ([], "text", 7, None, {}, [SPAM])),
        *(answer(without(key)) for key in ("score", "required_score", "action", "symbols")),
        *(
            answer(SPAM | {key: value})
            for key in ("score", "required_score")
            for value in ("7.5", None, True, [], {}, float("nan"), float("inf"), 10**400, 1e7)
        ),
        answer(BODY.replace(b"7.5", b"1e999")),
        answer(BODY.replace(b"7.5", b"9" * 5000)),
        *(answer(SPAM | {"required_score": value}) for value in (0, -5, 5e-324)),
        *(answer(SPAM | {"action": value}) for value in (None, 7, "", "a\r\nb", "a" * 51, [])),
        *(
            answer(SPAM | {"symbols": value})
            for value in (None, [], "x", {"X": None}, {"X": {}}, {"X": {"score": "1"}})
        ),
        *(
            answer(SPAM | {"symbols": {name: {"score": 1}}})
            for name in ("", "A B", "A\nB", "Ä", "A" * 101, "\ud800")
        ),
    ],
)
def test_nonsense(rspamd: Scripted, reply: bytes) -> None:
    """An answer that is not exactly one says nothing about the message."""
    rspamd.answer = reply
    with pytest.raises(Unscanned) as caught:
        scanned(rspamd)
    assert str(caught.value).isprintable()


def test_cut_short(rspamd: Scripted) -> None:
    """No beginning of an answer is an answer."""
    for length in range(len(GOOD) - len(BODY) - 4, len(GOOD), 7):
        rspamd.answer = GOOD[:length]
        with pytest.raises(Unscanned):
            scanned(rspamd)


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "reply",
    [
        HANG,
        DEAF,
        Endless(b"", GOOD[:1], 0.01),
        Endless(b"HTTP/1.1 200 OK\r\n\r\n", b" ", 0.01),
        Endless(b"HTTP/1.1 200 OK\r\n\r\n", b" " * 65536),
        Endless(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n"),
        Endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        Endless(CHUNKED, b"1\r\n \r\n", 0.01),
        Endless(CHUNKED + b"-1\r\n", b" " * 65536),
        Endless(CHUNKED + b"0\r\n", b"X: y\r\n"),
        Endless(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n", b" " * 65536),
    ],
)
def test_slow(rspamd: Scripted, reply: bytes | Endless) -> None:
    """No server can hold a message for longer than there is time, nor fill our memory."""
    rspamd.answer = reply
    large = Message(b"A: b\n\n" + b"x" * (8 << 20))  # more than a socket takes in
    with pytest.raises(Unscanned):
        Rspamd([rspamd.address]).scan(large, ENVELOPE, SHORT)


@pytest.mark.parametrize("reply", [DROP, HANG, b"what?", answer({}, "500 Oh")])
def test_second_server(rspamd: Scripted, reply: bytes) -> None:
    """When one server fails, the next one says what there is."""
    with Scripted(reply) as broken:
        scanner = Rspamd([nobody(), broken.address, rspamd.address])
        assert scanner.scan(LETTER, ENVELOPE, 3.0).hits
    assert len(rspamd.requests) == 1


@pytest.mark.parametrize(("kind", "path"), [("spam", b"/learnspam"), ("ham", b"/learnham")])
@pytest.mark.parametrize("status", ["200 OK", "208 Already reported"])
def test_learn(rspamd: Scripted, kind: Any, path: bytes, status: str) -> None:
    """The controller learns a message, with its password; to know it already is fine."""
    rspamd.answer = answer({"success": True}, status)
    scanner = Rspamd([nobody()], controllers=[rspamd.address], password="secret")
    scanner.learn(LETTER, kind, LONG)
    [request] = rspamd.requests
    assert request.startswith(b"POST " + path + b" HTTP/1.1\r\n")
    assert request.endswith(b"\r\n\r\n" + LETTER.raw)
    assert head(request)["Password"] == "secret"


@pytest.mark.parametrize(
    "reply", [DROP, HANG, b"what?", answer({"error": "no"}, "403 No"), answer({}, "500 Oh")]
)
def test_not_learned(rspamd: Scripted, reply: bytes) -> None:
    """That a message was not learned is said."""
    rspamd.answer = reply
    with pytest.raises(Unscanned):
        Rspamd([nobody()], controllers=[rspamd.address]).learn(LETTER, "spam", SHORT)


def test_no_controller(rspamd: Scripted) -> None:
    """Without a controller nothing is learned, which is said."""
    with pytest.raises(Unscanned, match="no controller"):
        Rspamd([rspamd.address]).learn(LETTER, "spam", LONG)


@given(st.data())
def test_any_answer(data: st.DataObject) -> None:
    """Whatever a server says is a report with a finite score, or Unscanned."""
    at = data.draw(st.integers(0, len(GOOD)))
    to = data.draw(st.integers(at, len(GOOD)))
    with Scripted(GOOD[:at] + data.draw(st.binary(max_size=20)) + GOOD[to:]) as server:
        hits: tuple[Hit, ...] = ()
        with suppress(Unscanned):
            hits = scanned(server).hits
        assert all(abs(hit.score) <= 5e8 for hit in hits)
