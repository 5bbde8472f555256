"""One mail transaction with a next hop that may do anything."""

from __future__ import annotations

import re
import socket
import threading
from typing import Any

import pytest
from boxes import descriptors
from fake_mta import DRIP, DROP, HANG, Answer, FakeMTA, closed_hop
from hypothesis import given
from hypothesis import strategies as st

from mdaflow.deliver import send
from mdaflow.deliver.dialogue import Hop, parse_hop
from mdaflow.deliver.job import Means
from mdaflow.errors import PermFail, TempFail
from mdaflow.mail.raw import PIECE
from mdaflow.mail.receipt import Relay, Wishes
from mdaflow.serve.data import DataReader

MAIL = [b"Subject: x\n\n", b"hello\n"]
IMPATIENT = 0.2
PATIENT = 20.0


def means(mta: FakeMTA | str) -> Means:
    return Means("mx.example.org", mta if isinstance(mta, str) else mta.hop)


def transaction(mta: FakeMTA, *targets: str, limit: float = PATIENT) -> send.Transaction:
    return send.prepare(means(mta), "ann@example.com", targets or ("bob@x.org",), MAIL, limit)


def test_message_is_sent() -> None:
    """The envelope goes at prepare, the data at commit, and the peer's words are kept."""
    with FakeMTA() as mta:
        ready = transaction(mta, "bob@x.org", "carl@x.org")
        assert not mta.taken
        ready.commit()
    (session,) = mta.sessions
    assert session.commands == [
        b"EHLO mx.example.org",
        b"MAIL FROM:<ann@example.com> SIZE=18 BODY=8BITMIME",
        b"RCPT TO:<bob@x.org>",
        b"RCPT TO:<carl@x.org>",
        b"DATA",
        b"QUIT",
    ]
    assert session.data == b"Subject: x\r\n\r\nhello\r\n.\r\n"
    assert ready.where == "smtp bob@x.org, carl@x.org"
    assert ready.answer == "250 2.0.0 Ok: queued as FAKE1"


def test_abort() -> None:
    """What is aborted is not sent; the peer hears goodbye, and a second abort does nothing."""
    with FakeMTA() as mta:
        ready = transaction(mta)
        ready.abort()
        ready.abort()
    (session,) = mta.sessions
    assert session.commands[-2:] == [b"RCPT TO:<bob@x.org>", b"QUIT"]
    assert not session.taken


def test_no_extensions() -> None:
    """A parameter is sent only to a peer that knows it."""
    with FakeMTA(extensions=()) as mta:
        send.prepare(means(mta), "", ["bob@x.org"], MAIL).commit()
    assert mta.sessions[0].commands[1] == b"MAIL FROM:<>"
    assert mta.taken


WISHES = Wishes("HDRS", "QQ+1", ("SUCCESS", "FAILURE"), "rfc822;b+2Bx@x.org")


def test_wishes_are_passed_on() -> None:
    """A next hop that knows DSN is told what the sender wants to know, with every RCPT."""
    with FakeMTA(extensions=("DSN",)) as mta:
        ready = send.prepare(means(mta), "a@x.org", ["b@x.org", "c@x.org"], MAIL, wishes=WISHES)
        ready.commit()
    assert mta.sessions[0].commands[1:4] == [
        b"MAIL FROM:<a@x.org> RET=HDRS ENVID=QQ+2B1",
        b"RCPT TO:<b@x.org> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;b+2Bx@x.org",
        b"RCPT TO:<c@x.org> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;b+2Bx@x.org",
    ]
    assert ready.relay == Relay(
        "127.0.0.1", "250 2.0.0 Ok: queued as FAKE1", True, ("b@x.org", "c@x.org")
    )


def test_no_wishes() -> None:
    """Nothing is asked that the sender did not ask (RFC 3461 section 5.2.1)."""
    with FakeMTA(extensions=("DSN",)) as mta:
        transaction(mta).commit()
    assert mta.sessions[0].commands[1:3] == [
        b"MAIL FROM:<ann@example.com>",
        b"RCPT TO:<bob@x.org>",
    ]


@pytest.mark.parametrize(
    ("notify", "sender"), [((), b"a@x.org"), (("SUCCESS",), b"a@x.org"), (("NEVER",), b"")]
)
def test_hop_without_dsn(notify: tuple[str, ...], sender: bytes) -> None:
    """Without DSN no parameter is sent; who wants to hear nothing is no sender (5.2.2)."""
    with FakeMTA(extensions=()) as mta:
        wishes = WISHES._replace(notify=notify)
        ready = send.prepare(means(mta), "a@x.org", ["b@x.org"], MAIL, wishes=wishes)
        ready.commit()
    assert mta.sessions[0].commands[1:3] == [
        b"MAIL FROM:<" + sender + b">",
        b"RCPT TO:<b@x.org>",
    ]
    assert not ready.relay.dsn


def test_never_with_dsn() -> None:
    """A next hop that knows DSN keeps the sender, and hears that he wants nothing."""
    with FakeMTA(extensions=("DSN",)) as mta:
        wishes = Wishes(notify=("NEVER",))
        send.prepare(means(mta), "a@x.org", ["b@x.org"], MAIL, wishes=wishes).commit()
    assert mta.sessions[0].commands[1:3] == [
        b"MAIL FROM:<a@x.org>",
        b"RCPT TO:<b@x.org> NOTIFY=NEVER",
    ]


def test_hostile_wishes() -> None:
    """What an envelope holds can neither end a line nor begin a parameter."""
    wishes = Wishes(envid="a\r\nRSET x=y", orcpt="rfc822;a\r\nDATA NOTIFY=NEVER")
    with FakeMTA(extensions=("DSN",)) as mta:
        send.prepare(means(mta), "a@x.org", ["b@x.org"], MAIL, wishes=wishes).commit()
    _, mail, rcpt, *rest = mta.sessions[0].commands
    assert mail == b"MAIL FROM:<a@x.org> ENVID=a+0D+0ARSET+20x+3Dy"
    assert rcpt == rb"RCPT TO:<b@x.org> ORCPT=rfc822;a\x{0D}\x{0A}DATA\x{20}NOTIFY=NEVER"
    assert rest == [b"DATA", b"QUIT"]


def test_addresses_beyond_ascii() -> None:
    """SMTPUTF8 is asked for when an address needs it."""
    with FakeMTA() as mta:
        transaction(mta, "jürgen@bücher.example").commit()
    _, mail, rcpt, *_ = mta.sessions[0].commands
    assert mail.endswith(b" SMTPUTF8")
    assert rcpt == "RCPT TO:<jürgen@bücher.example>".encode()


def test_addresses_beyond_ascii_are_not_taken() -> None:
    """A peer without SMTPUTF8 can never take an address that is not ASCII."""
    with FakeMTA(extensions=("8BITMIME",)) as mta, pytest.raises(PermFail) as failure:
        transaction(mta, "jürgen@x.org")
    assert failure.value.status.enhanced == "5.6.7"
    assert not [c for s in mta.sessions for c in s.commands if c.startswith(b"MAIL")]


QUOTED = ['"a b"@x.org', '"<a@b>"@x.org', "=?utf-8?q?root?=@x.org", "a@[127.0.0.1]"]


@pytest.mark.parametrize("address", QUOTED)
def test_address_is_literal(address: str) -> None:
    """An address goes over the wire as it is, whatever a header parser would make of it."""
    with FakeMTA() as mta:
        send.prepare(means(mta), address, [address], MAIL).commit()
    _, mail, rcpt, *_ = mta.sessions[0].commands
    assert mail.startswith(f"MAIL FROM:<{address}> ".encode())
    assert rcpt == f"RCPT TO:<{address}>".encode()


@pytest.mark.parametrize(
    "address",
    [
        "a@b\r\nRCPT TO:<c@d>",
        "a@b\nDATA",
        "a@b\0",
        "a@b\r",
        "a@b> SIZE=1",
        "<a@b>",
        "(a)b@x.org",
        "a b@c",
        "bob",
        "\ud800@x.org",
        "ü\u2028@x.org",
        "a" * 400 + "@x.org",
    ],
)
def test_bad_address(address: str) -> None:
    """What is no strict path never reaches the wire, as a sender or as a target."""
    with FakeMTA() as mta:
        with pytest.raises(PermFail) as failure:
            send.prepare(means(mta), address, ["bob@x.org"], MAIL)
        assert failure.value.status.enhanced == "5.1.7"
        with pytest.raises(PermFail) as failure:
            send.prepare(means(mta), "", ["bob@x.org", address], MAIL)
        assert failure.value.status.enhanced == "5.1.3"
    assert mta.sessions == []


@pytest.mark.parametrize("targets", [[], [""]])
def test_no_target(targets: list[str]) -> None:
    """A message to nobody is refused: it would be lost."""
    with pytest.raises(PermFail):
        send.prepare(means(closed_hop()), "", targets, MAIL)


BEFORE_DATA = ["greeting", "ehlo", "mail", "rcpt"]
STAGES = [*BEFORE_DATA, "data", "dot"]
NONSENSE = [
    b"\r\n",
    b"hello there\r\n",
    b"\0\xff\xfe\r\n",
    b"999 what\r\n",
    b"199 wait\r\n",
    b"25\r\n",
    b"-25 x\r\n",
    b"250-more\r\nand\r\n",
    b"2" * 20000 + b"\r\n",
    b"250-" + b"x" * 9000 + b"\r\n250 ok\r\n",
    b"250-x\r\n" * 20000 + b"250 ok\r\n",
]


def attempt(mta: FakeMTA, limit: float = PATIENT) -> None:
    transaction(mta, limit=limit).commit()


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("answer", [DROP, DRIP, *NONSENSE])
def test_nonsense(stage: str, answer: bytes) -> None:
    """Nonsense, a lost connection and a reply without end may be over later; nothing leaks."""
    before = descriptors()
    with FakeMTA({stage: answer}) as mta, pytest.raises(TempFail) as failure:
        attempt(mta)
    assert failure.value.status.code == 451
    assert descriptors() == before


@pytest.mark.parametrize("stage", STAGES)
def test_silence(stage: str) -> None:
    """Nobody waits longer than the limit for a peer that says nothing."""
    with FakeMTA({stage: HANG}) as mta, pytest.raises(TempFail) as failure:
        attempt(mta, IMPATIENT)
    assert failure.value.status.enhanced == "4.4.1"


def test_peer_that_does_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits longer than the limit for a peer that takes no data."""
    done = threading.Event()

    def read_nothing(self: FakeMTA, conn: socket.socket, *_: object) -> bytes:
        done.wait()
        return b""

    monkeypatch.setattr(FakeMTA, "_read_data", read_nothing)
    with FakeMTA() as mta:
        ready = send.prepare(means(mta), "", ["bob@x.org"], [b"x" * (32 << 20)], 1.0)
        try:
            with pytest.raises(TempFail):
                ready.commit()
        finally:
            done.set()


@pytest.mark.parametrize("hop", ["closed", "nonsense", "127.0.0.1:0", "127.0.0.1:99999", "::1"])
def test_no_next_hop(hop: str) -> None:
    """A next hop that is not there, or whose name is none, may be mended."""
    hop = closed_hop() if hop == "closed" else hop
    before = descriptors()
    with pytest.raises(TempFail) as failure:
        send.prepare(means(hop), "", ["bob@x.org"], MAIL)
    assert str(failure.value).startswith(hop)
    assert hop not in str(failure.value.status)
    assert descriptors() == before


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b"450 4.2.1 Mailbox busy\r\n", "450 4.2.1"),
        (b"452 4.3.1 Full\r\n", "452 4.3.1"),
        (b"421 4.3.2 Bye\r\n", "451 4.3.2"),
        (b"451 no enhanced code\r\n", "451 4.3.0"),
        (b"451 5.1.1 lies\r\n", "451 4.3.0"),
        (b"454-4.7.0 one\r\n454 4.7.0 two\r\n", "454 4.7.0"),
    ],
)
def test_temporary_refusal(stage: str, answer: bytes, expected: str) -> None:
    """A 4xx at any stage may be over later, and never ends our own session."""
    with FakeMTA({stage: answer}) as mta, pytest.raises(TempFail) as failure:
        attempt(mta)
    assert str(failure.value.status).startswith(expected)


@pytest.mark.parametrize("stage", ["mail", "rcpt", "data", "dot"])
@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b"550 5.1.1 <bob@x.org> unknown at /etc/secret\r\n", "550 5.1.1"),
        (b"552 5.3.4 Too big\r\n", "552 5.3.4"),
        (b"571 5.7.1 no\r\n", "554 5.7.1"),
        (b"550 no enhanced code\r\n", "550 5.0.0"),
        (b"550 4.2.0 lies\r\n", "550 5.0.0"),
    ],
)
def test_permanent_refusal(stage: str, answer: bytes, expected: str) -> None:
    """A 5xx about the message is for good; the peer's words are for the log only."""
    with FakeMTA({stage: answer}) as mta, pytest.raises(PermFail) as failure:
        attempt(mta)
    assert str(failure.value.status) == f"{expected} Refused by the next hop"
    assert answer.decode().split(" ", 1)[1].strip() in str(failure.value)


@pytest.mark.parametrize(
    "script",
    [
        {"greeting": b"554 5.3.2 No service\r\n"},
        {"ehlo": b"550 5.7.1 Not you\r\n"},
        {"mail": b"530 5.7.0 Must issue STARTTLS\r\n"},
        {"rcpt": b"503 5.5.1 Bad sequence\r\n"},
        {"data": b"500 5.5.2 Unknown command\r\n"},
    ],
)
def test_refusal_of_us(script: dict[str, Answer]) -> None:
    """A 5xx about the connection bounces no mail: the site can mend it."""
    with FakeMTA(script) as mta, pytest.raises(TempFail) as failure:
        attempt(mta)
    assert failure.value.status.code == 451


def test_all_targets_or_none() -> None:
    """When one target is refused, nothing is sent to the others."""
    answers = [b"250 2.1.5 Ok\r\n", b"550 5.1.1 Unknown\r\n"]
    with FakeMTA({"rcpt": answers}) as mta, pytest.raises(PermFail):
        transaction(mta, "bob@x.org", "nobody@x.org")
    assert not mta.taken


@pytest.mark.parametrize("answer", [DROP, HANG, DRIP, b"junk\r\n", b"500 5.0.0 no\r\n"])
def test_goodbye(answer: bytes) -> None:
    """A message that was taken is taken, whatever becomes of QUIT."""
    with FakeMTA({"quit": answer}) as mta:
        ready = transaction(mta)
        ready.commit()
    assert ready.answer.startswith("250 ")
    assert mta.taken


def test_failure_inside_the_data() -> None:
    """When the message cannot be read to its end, the peer never sees an end."""
    with FakeMTA() as mta:
        chunks: list[Any] = [b"one\n"]
        ready = send.prepare(means(mta), "", ["bob@x.org"], chunks)
        chunks.append(None)
        with pytest.raises(TypeError):
            ready.commit()
    (session,) = mta.sessions
    assert not session.taken
    assert b"QUIT" not in session.data


def test_ipv6() -> None:
    """The next hop may be an IPv6 address."""
    try:
        mta = FakeMTA(host="::1")
    except OSError:
        pytest.skip("no IPv6 here")
    with mta:
        attempt(mta)
    assert mta.taken


def test_cause_is_printable() -> None:
    """What the peer says is short and on one line in our log."""
    answer = b"550 5.1.1 \x1b[31m" + b"y" * 4000 + b"\xff\r\n"
    with FakeMTA({"rcpt": answer}) as mta, pytest.raises(PermFail) as failure:
        attempt(mta)
    assert str(failure.value).isprintable()
    assert len(str(failure.value)) < 500


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:25", Hop("smtp", "127.0.0.1", 25)),
        ("[::1]:10026", Hop("smtp", "::1", 10026)),
        ("mx-1.example.org:587", Hop("smtp", "mx-1.example.org", 587)),
        ("smtp://mx-1.example.org:587", Hop("smtp", "mx-1.example.org", 587)),
        ("lmtp://127.0.0.1:24", Hop("lmtp", "127.0.0.1", 24)),
        ("lmtp://[::1]:24", Hop("lmtp", "::1", 24)),
        ("lmtp:unix:/run/dovecot/lmtp", Hop("lmtp", path="/run/dovecot/lmtp")),
    ],
)
def test_parse_hop(text: str, expected: Hop) -> None:
    """A next hop is a host and a port, or a unix socket, with its protocol before it."""
    assert parse_hop(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        *("", ":25", "a", "a:", "a:0", "a:65536", "::1:25", "a b:25", "[x]:1", "a:25\n"),
        *("lmtp://a", "lmtp:a:24", "lmtps://a:24", "unix:/a", "smtp:unix:/a", "lmtp:unix:a"),
        *("lmtp:unix:/a\0", "lmtp://unix:/a"),
    ],
)
def test_parse_bad_hop(text: str) -> None:
    """What is no next hop is refused."""
    with pytest.raises(ValueError, match="host:port"):
        parse_hop(text)


def received(sent: bytes) -> bytes:
    """What a strict reader makes of the data, with nothing behind its end."""
    blocks: list[bytes] = []
    assert DataReader(blocks.append).feed(sent) == b""
    return b"".join(blocks)


HOSTILE = st.lists(st.sampled_from([b"\r", b"\n", b".", b"\0", b"a", b"\r\n", b"\r\n.\r\n"]))


@given(HOSTILE, st.integers(1, 5))
def test_no_early_end(parts: list[bytes], piece: int) -> None:
    """No text ends the data early, neither for a strict reader nor for the most tolerant."""
    raw = b"".join(parts)
    chunks = [raw[at : at + piece] for at in range(0, len(raw), piece)]
    sent = b"".join(send.wire(chunks))
    text = raw.replace(b"\r", b" ").replace(b"\0", b" ")
    assert received(sent) == (text if text.endswith(b"\n") or not text else text + b"\n")
    ends = re.finditer(rb"(?:\A|[\r\n])\0*\.\0*[\r\n]", sent)
    assert [end.end() for end in ends] == [len(sent) - 1]
    assert not re.search(rb"\r(?!\n)|(?<!\r)\n", sent)


def test_pieces_of_a_big_message() -> None:
    """Dots and line ends at the seams of pieces are as anywhere else."""
    raw = (b"x" * (PIECE - 1) + b"\n") + b"." * PIECE + b"\n.\n"
    assert received(b"".join(send.wire([raw]))) == raw


@pytest.mark.parametrize("raw", [b"", b".", b".\n", b"a\n.", b"a\r.\r\nb", b"a\n\0.\n", b"\x80\n"])
def test_hostile_body(raw: bytes) -> None:
    """A hostile body arrives as one message, and what follows is our QUIT."""
    with FakeMTA() as mta:
        send.prepare(means(mta), "", ["bob@x.org"], [b"S: x\n\n", raw]).commit()
    (session,) = mta.sessions
    assert session.commands[-2:] == [b"DATA", b"QUIT"]
