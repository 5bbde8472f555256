"""Mail that is sent on."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from email import message_from_bytes
from email.policy import default

import pytest
from fake_mta import FakeMTA

from mdaflow.deliver import forward
from mdaflow.deliver.job import Job, Means
from mdaflow.deliver.mailbox import Mailbox
from mdaflow.engine.plan import Action
from mdaflow.errors import PermFail, TempFail
from mdaflow.mail.envelope import Envelope
from mdaflow.mail.loop import came_back, proof
from mdaflow.mail.message import Message

KEY = b"secret"
BOB, CARL = "bob@example.org", "carl@x.org"
ENVELOPE = Envelope("ann@example.com", BOB, "sales@example.org", received=1762003500.0)
MAIL = b"Received: by a\nSubject: caf\xe9\n\n.hello\n..\n\xff\n"


def job(mta: FakeMTA, raw: bytes = MAIL, envelope: Envelope = ENVELOPE, key: bytes = KEY) -> Job:
    means = Means("mx.example.org", mta.hop, key=key)
    return Job(Message(raw), envelope, Mailbox("maildir", "/nowhere", "Mail"), "id1", means)


def to(*targets: str) -> Action:
    return Action("forward", targets=targets)


def sent(mta: FakeMTA) -> bytes:
    """The one message that arrived, with LF line ends."""
    (session,) = mta.taken
    text = session.data.replace(b"\r\n", b"\n")
    return text.removesuffix(b".\n").replace(b"\n..", b"\n.")


def test_bytes() -> None:
    """A proof and a Received field come on top; every other byte is as it came."""
    with FakeMTA() as mta:
        forward.prepare(job(mta), to("carl@x.org")).commit()
    assert (
        sent(mta)
        == (
            f"X-mdaflow-Loop: {proof(KEY, BOB, Message(MAIL))}\n"
            "Received: by mx.example.org (mdaflow) with LMTP id id1\n"
            "\tfor <bob@example.org>; Sat, 1 Nov 2025 13:25:00 +0000\n"
        ).encode()
        + MAIL
    )


@pytest.mark.parametrize("sender", ["ann@example.com", ""])
def test_envelope(sender: str) -> None:
    """The sender stays, also the null sender; equal targets are one."""
    with FakeMTA() as mta:
        envelope = replace(ENVELOPE, sender=sender)
        ready = forward.prepare(job(mta, envelope=envelope), to("c@x.org", "d@x.org", "c@x.org"))
        ready.commit()
    _, mail, *targets = mta.sessions[0].commands[:-2]
    assert mail.startswith(f"MAIL FROM:<{sender}>".encode())
    assert targets == [b"RCPT TO:<c@x.org>", b"RCPT TO:<d@x.org>"]
    assert ready.where == "smtp c@x.org, d@x.org"


ASKED = replace(ENVELOPE, ret="FULL", envid="E1", notify=("SUCCESS", "DELAY"), orcpt="rfc822;s@x")


@pytest.mark.parametrize(
    ("action", "notify"),
    [
        (to("c@x.org", "c@x.org"), b"SUCCESS,DELAY"),
        (to("c@x.org", "d@x.org"), b"DELAY"),
        (replace(to("c@x.org"), also=True), b"DELAY"),
    ],
)
def test_what_the_sender_asked(action: Action, notify: bytes) -> None:
    """What was asked goes on to a single target; of copies only trouble is told (RFC 3461)."""
    with FakeMTA(extensions=("DSN",)) as mta:
        forward.prepare(job(mta, envelope=ASKED), action).commit()
    _, mail, rcpt, *_ = mta.sessions[0].commands
    assert mail == b"MAIL FROM:<ann@example.com> RET=FULL ENVID=E1"
    assert rcpt == b"RCPT TO:<c@x.org> NOTIFY=" + notify + b" ORCPT=rfc822;s@x"


class Rewriter:
    """As Senders: what it is asked is written in the address."""

    def forward(self, sender: str) -> str:
        return f"SRS0=a=b={sender.replace('@', '=')}@srs.example.org" if sender else ""

    def reverse(self, address: str) -> str | None:
        return "ann@example.com" if address.startswith("SRS0=") else None


@pytest.mark.parametrize(
    ("sender", "expected"),
    [("", b""), ("ann@example.com", b"SRS0=a=b=ann=example.com@srs.example.org")],
)
def test_rewritten_sender(sender: str, expected: bytes) -> None:
    """A site may rewrite the sender of the envelope, and nothing else."""
    with FakeMTA() as mta:
        plain = job(mta, envelope=replace(ENVELOPE, sender=sender))
        forward.prepare(
            replace(plain, means=replace(plain.means, srs=Rewriter())), to(CARL)
        ).commit()
    assert mta.sessions[0].commands[1].startswith(b"MAIL FROM:<" + expected + b">")
    assert b"Resent-" not in sent(mta)
    assert sent(mta).endswith(MAIL)


def resent(recipient: str, *targets: str, partly: bool = False, srs: bool = False) -> bytes:
    """What a site that tells who has sent the message on makes of it."""
    with FakeMTA() as mta:
        plain = job(mta, envelope=replace(ENVELOPE, recipient=recipient))
        means = replace(plain.means, resent=True, srs=Rewriter() if srs else None)
        forward.prepare(replace(plain, means=means), to(*targets), partly=partly).commit()
    return sent(mta)


def test_resent() -> None:
    """Resent fields on top say who has sent the message on, to whom and when (RFC 5322 3.6.6)."""
    text = resent(BOB, CARL, "jürgen@bücher.example")
    found = message_from_bytes(text, policy=default)
    names = ["Resent-From", "Resent-To", "Resent-Date", "Resent-Message-ID", "X-mdaflow-Loop"]
    assert found.keys()[:5] == names
    assert found["Resent-From"] == BOB
    assert Message(text).fields[b"resent-to"] == [f" {CARL},\n\tjürgen@bücher.example\n".encode()]
    assert abs(time.time() - found["Resent-Date"].datetime.timestamp()) < 3600
    assert re.fullmatch(r"<id1\.[0-9a-f]+@mx\.example\.org>", found["Resent-Message-ID"])
    assert text.endswith(MAIL)


def test_resent_to_many() -> None:
    """The members of a list do not learn of each other."""
    text = resent(BOB, CARL, "dan@x.org", partly=True)
    assert b"Resent-To: undisclosed-recipients:;\n" in text
    assert CARL.encode() not in text


def test_resent_to_a_rewritten_sender() -> None:
    """What comes back to a rewritten sender was sent on by nobody."""
    back = "SRS0=a=b=ann=example.com@srs.example.org"
    assert b"Resent-" not in resent(back, CARL, srs=True)
    assert b"Resent-" in resent(BOB, CARL, srs=True)


def test_resent_by_the_postmaster() -> None:
    """The one recipient without a domain has ours, and what is no address begins no field."""
    assert resent("postmaster", CARL).startswith(b"Resent-From: postmaster@mx.example.org\n")
    assert b"Resent-" not in resent("b\nBcc: x@x.org", CARL)


def test_spellings_are_not_merged() -> None:
    """Two spellings are two targets: only their MTA knows better (P49)."""
    with FakeMTA() as mta:
        forward.prepare(job(mta), to("c@x.org", "C@x.org")).commit()
    assert len([c for c in mta.sessions[0].commands if c.startswith(b"RCPT")]) == 2


def test_loop_is_seen() -> None:
    """What comes back is recognised, also when it went by another recipient of ours."""
    with FakeMTA() as first:
        forward.prepare(job(first), to("carl@example.org")).commit()
    carl = replace(ENVELOPE, recipient="carl@example.org")
    with FakeMTA() as second:
        forward.prepare(job(second, sent(first), carl), to(BOB)).commit()
    back = Message(sent(second))
    assert came_back(back, BOB, KEY)
    assert came_back(back, "carl@example.org", KEY)
    assert not came_back(Message(MAIL), BOB, KEY)


def test_fields_of_ours_are_not_believed() -> None:
    """Forged fields of our namespace and an old Return-Path do not go on."""
    raw = b"X-mdaflow-Loop: forged\nReturn-Path: <x@y>\nX-mdaflow-Notice: yes\n" + MAIL
    with FakeMTA() as mta:
        forward.prepare(job(mta, raw, key=b""), to("carl@x.org")).commit()
    assert sent(mta).startswith(b"Received: by mx.example.org")
    assert sent(mta).endswith(MAIL)
    assert b"mdaflow-" not in sent(mta)
    assert b"Return-Path" not in sent(mta)


def test_edited_message() -> None:
    """What rules have made of the message is sent, and the proofs it came with are kept."""
    edited = Message(b"Subject: edited\n\nhello\n")
    theirs = f"X-mdaflow-Loop: {proof(KEY, 'carl@example.org', Message(MAIL))}\n".encode()
    with FakeMTA() as mta:
        action = replace(to("carl@x.org"), message=edited)
        forward.prepare(job(mta, theirs + MAIL), action).commit()
    assert sent(mta).endswith(b"+0000\n" + edited.raw)
    assert theirs in sent(mta)


def test_hostile_envelope() -> None:
    """What came from outside begins no line of its own (P15)."""
    envelope = replace(ENVELOPE, peer="x\nReceived: y\nBcc: z", recipient="b\n\nReceived:@x.org")
    with FakeMTA() as mta:
        forward.prepare(job(mta, envelope=envelope), to("carl@x.org")).commit()
    names = [name.lower() for name in Message(sent(mta)).fields]
    assert names == [b"x-mdaflow-loop", b"received", b"subject"]
    assert len(Message(sent(mta)).fields[b"received"]) == 2


def test_no_header() -> None:
    """A message without a header gets one, and keeps its text."""
    with FakeMTA() as mta:
        forward.prepare(job(mta, b"just text\n"), to("carl@x.org")).commit()
    assert sent(mta).endswith(b"+0000\n\njust text\n")


@pytest.mark.parametrize("targets", [(), ("",), ("bob",), ("a@b\r\nDATA",), ("c@x.org", "<x>")])
def test_no_address(targets: tuple[str, ...]) -> None:
    """A forward to nobody, or to what is no address, can never work."""
    with FakeMTA() as mta, pytest.raises(PermFail) as failure:
        forward.prepare(job(mta), to(*targets))
    assert failure.value.status.enhanced == "5.1.3"
    assert mta.sessions == []


@pytest.mark.parametrize(
    ("script", "failure"),
    [
        ({"rcpt": b"450 4.2.0 Busy\r\n"}, TempFail),
        ({"dot": b"451 4.3.0 Full\r\n"}, TempFail),
        ({"rcpt": b"550 5.1.1 Unknown\r\n"}, PermFail),
        ({"dot": b"554 5.7.1 Spam\r\n"}, PermFail),
    ],
)
def test_refusal(script: dict[str, bytes], failure: type[Exception]) -> None:
    """What the next hop says is the result (P40)."""
    with FakeMTA(script) as mta, pytest.raises(failure):
        forward.prepare(job(mta), to("carl@x.org")).commit()
