"""Who asked to be told that mail was delivered is told, once, and nobody else."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from email import message_from_bytes

import pytest
from fake_mta import DROP, FakeMTA
from here import ANN, BOB, RAW, Here

import mdaflow.deliver
from mdaflow.app import pipeline, receipts
from mdaflow.errors import Status
from mdaflow.mail.envelope import Envelope
from mdaflow.mail.message import Message

ASKED = Envelope(
    ANN, BOB, received=1.8e9, notify=("SUCCESS",), envid="E1", orcpt="rfc822;s@example.org"
)
DSN = ("8BITMIME", "DSN")


@pytest.fixture(autouse=True)
def _grant(here: Here) -> Iterator[None]:
    here.grant = ("reject", "defer", "pipe")
    yield
    receipts.finish(10)


def deliver(here: Here, envelope: Envelope = ASKED, raw: bytes = RAW) -> Status:
    """Deliver a message, and wait for what is sent about it."""
    status = pipeline.Courier(here.site).deliver(Message(raw), envelope, lambda: True)
    receipts.finish(10)
    return status


def told(mta: FakeMTA) -> list[tuple[bytes, dict[str, str]]]:
    """Every report that was sent: to whom, and what it says of the recipient."""
    found = []
    for session in mta.taken:
        raw = session.data.removesuffix(b".\r\n").replace(b"\r\n", b"\n")
        mail = message_from_bytes(raw)
        if mail.get_content_type() != "multipart/report":
            continue
        assert session.commands[1].startswith(b"MAIL FROM:<>")
        groups = [group for group in mail.walk() if "Action" in group]
        assert len(groups) == 1
        found.append((session.commands[2], dict(groups[0].items())))
    return found


def actions(mta: FakeMTA) -> list[str]:
    return [about["Action"] for _, about in told(mta)]


def test_receipt(here: Here) -> None:
    """The sender is told by way of the next hop, behind the delivery."""
    with FakeMTA() as mta:
        here.hop = mta.hop
        assert deliver(here).ok
    [(rcpt, about)] = told(mta)
    assert rcpt == f"RCPT TO:<{ANN}>".encode()
    assert about == {
        "Original-Recipient": "rfc822; s@example.org",
        "Final-Recipient": f"rfc822; {BOB}",
        "Action": "delivered",
        "Status": "2.0.0",
    }
    assert b"Original-Envelope-Id: E1\r\n" in mta.taken[0].data
    assert b"Subject: hello\r\n" in mta.taken[0].data
    assert b"\r\nbody\r\n" not in mta.taken[0].data
    assert here.folders == {"INBOX": 1}
    [line] = [line for line in here.said if "receipt" in line]
    assert line.endswith(f"receipt to <{ANN}>: delivered (250 2.0.0 Ok: queued as FAKE1)")


@pytest.mark.parametrize("rules", ["discard", 'quarantine "odd"', 'pipe to ["/bin/cat"]'])
def test_rules_are_not_betrayed(here: Here, rules: str) -> None:
    """Whatever a rule has done with a message, it was delivered."""
    here.set(before=rules)
    with FakeMTA() as mta:
        here.hop = mta.hop
        assert deliver(here).ok
    assert actions(mta) == ["delivered"]
    for word in (b"iscard", b"uarantine", b"odd", b"pipe", b"cat", b"rule"):
        assert word not in mta.taken[-1].data.split(b"rfc822-headers")[0]


REPORT = b"Content-Type: multipart/report; report-type=delivery-status; boundary=x\n\n"


@pytest.mark.parametrize(
    ("envelope", "raw"),
    [
        (replace(ASKED, notify=()), RAW),
        (replace(ASKED, notify=("NEVER",)), RAW),
        (replace(ASKED, notify=("FAILURE", "DELAY")), RAW),
        (replace(ASKED, sender=""), RAW),
        (ASKED, REPORT),
        (ASKED, b"From: MAILER-DAEMON@example.com\n\n"),
    ],
)
def test_nobody_is_told(here: Here, envelope: Envelope, raw: bytes) -> None:
    """Who did not ask hears nothing, nor does the null sender, and no report is reported."""
    with FakeMTA() as mta:
        here.hop = mta.hop
        assert deliver(here, envelope, raw).ok
    assert mta.sessions == []


@pytest.mark.parametrize("rules", ['reject "no"', 'defer "later"'])
def test_failures_are_not_ours(here: Here, rules: str) -> None:
    """Of what was not delivered our MTA tells, which still has it."""
    here.set(before=rules)
    with FakeMTA() as mta:
        here.hop = mta.hop
        asked = replace(ASKED, notify=("SUCCESS", "FAILURE", "DELAY"))
        assert not deliver(here, asked).ok
    assert mta.sessions == []


def test_forwarded_to_a_hop_with_dsn(here: Here) -> None:
    """A next hop that knows DSN tells the sender itself (RFC 3461 section 5.2.1)."""
    here.set('forward to "carl@x.org"')
    with FakeMTA(extensions=DSN) as mta:
        here.hop = mta.hop
        assert deliver(here).ok
    [session] = mta.sessions
    assert b"RCPT TO:<carl@x.org> NOTIFY=SUCCESS ORCPT=rfc822;s@example.org" in session.commands


def test_forwarded_to_a_hop_without(here: Here) -> None:
    """Else we tell that it was relayed, and what the next hop said (section 5.2.2)."""
    here.set('forward to "carl@x.org"')
    with FakeMTA() as mta:
        here.hop = mta.hop
        assert deliver(here).ok
    [(_, about)] = told(mta)
    assert about["Action"] == "relayed"
    assert about["Final-Recipient"] == f"rfc822; {BOB}"
    assert about["Remote-MTA"] == "dns; [127.0.0.1]"
    assert about["Diagnostic-Code"] == "smtp; 250 2.0.0 Ok: queued as FAKE1"


@pytest.mark.parametrize(
    ("rules", "extensions", "action"),
    [
        ('forward to ["c@x.org", "d@x.org"]', DSN, "expanded"),
        ('forward to ["c@x.org", "d@x.org"]', (), "relayed"),
        ('also forward to "c@x.org" keep', DSN, "delivered"),
        ('also forward to "c@x.org" keep', (), "delivered"),
        ('also forward to "c@x.org" forward to "d@x.org"', (), "relayed"),
    ],
)
def test_copies(here: Here, rules: str, extensions: tuple[str, ...], action: str) -> None:
    """Of a message that goes several ways there is one receipt (section 5.2.7.3)."""
    here.set(rules)
    with FakeMTA(extensions=extensions) as mta:
        here.hop = mta.hop
        assert deliver(here).ok
    assert actions(mta) == [action]
    sent = [command for session in mta.taken for command in session.commands]
    assert not any(b"SUCCESS" in command for command in sent)


@pytest.mark.parametrize("recipient", [BOB, "all@example.org"])
def test_once(here: Here, recipient: str) -> None:
    """A message that comes again because its peer did not know brings no second receipt."""
    here.set(before='alias "all" to ["bob", "bob+x"]')
    asked = replace(ASKED, recipient=recipient)
    with FakeMTA() as mta:
        here.hop = mta.hop
        assert deliver(here, asked).ok
        pipeline.Courier(here.site).unconfirmed(Message(RAW), asked)
        assert deliver(here, asked).ok
    assert len(told(mta)) == 1


@pytest.mark.parametrize("extensions", [DSN, ()])
def test_alias_of_several(here: Here, extensions: tuple[str, ...]) -> None:
    """Of an alias one receipt comes, when all have the message; its targets are not told."""
    (here.root / "mail/example.org/eve").mkdir()
    here.set(before='alias "all" to ["bob", "eve", "carl@x.org"]')
    asked = replace(ASKED, recipient="all@example.org", notify=("SUCCESS", "FAILURE"))
    with FakeMTA(
        {"dot": [b"451 4.3.0 Later\r\n"] + [b"250 Ok\r\n"] * 3}, extensions=extensions
    ) as mta:
        here.hop = mta.hop
        assert deliver(here, asked).temporary
        assert told(mta) == []
        assert deliver(here, asked).ok
    [(_, about)] = told(mta)
    assert (about["Action"], about["Final-Recipient"]) == ("expanded", "rfc822; all@example.org")
    assert b"carl" not in mta.taken[-1].data
    notify = b" NOTIFY=FAILURE ORCPT=rfc822;s@example.org" if extensions else b""
    assert mta.sessions[0].commands[2] == b"RCPT TO:<carl@x.org>" + notify


@pytest.mark.parametrize(
    ("target", "extensions", "expected"),
    [
        ("bob", DSN, [("delivered", f"rfc822; {BOB}")]),
        ("carl@x.org", DSN, []),
        ("carl@x.org", (), [("relayed", "rfc822; one@example.org")]),
    ],
)
def test_alias_of_one(
    here: Here, target: str, extensions: tuple[str, ...], expected: list[tuple[str, str]]
) -> None:
    """A single target stands for its alias: what was asked goes on to it (section 5.2.7.2)."""
    here.set(before=f'alias "one" to ["{target}"]')
    with FakeMTA(extensions=extensions) as mta:
        here.hop = mta.hop
        assert deliver(here, replace(ASKED, recipient="one@example.org")).ok
    assert [(about["Action"], about["Final-Recipient"]) for _, about in told(mta)] == expected


@pytest.mark.parametrize("script", [{"rcpt": b"550 5.1.1 No\r\n"}, {"dot": DROP}, {"ehlo": DROP}])
def test_what_cannot_be_sent(here: Here, script: dict[str, bytes]) -> None:
    """A receipt that is refused is a warning; the message is delivered all the same."""
    with FakeMTA(script) as mta:
        here.hop = mta.hop
        assert deliver(here).ok
    assert here.folders == {"INBOX": 1}
    assert len([line for line in here.said if f"no receipt to <{ANN}>" in line]) == 1


@pytest.fixture
def held() -> Iterator[Callable[[], None]]:
    """Holds the thread that sends receipts, until it is called."""
    go, reached = threading.Event(), threading.Event()

    def hold() -> None:
        reached.set()
        go.wait(30)

    assert receipts._outbox.put(hold)
    assert reached.wait(30)
    yield go.set
    go.set()


def test_nobody_waits(
    here: Here, held: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No delivery waits for a receipt; too many receipts are not sent."""
    monkeypatch.setattr(receipts, "MAX_WAITING", 2)
    with FakeMTA() as mta:
        here.hop = mta.hop
        courier = pipeline.Courier(here.site)
        for _ in range(5):
            assert courier.deliver(Message(RAW), ASKED, lambda: True).ok
        assert here.folders == {"INBOX": 5}
        held()
        receipts.finish(30)
    assert actions(mta) == ["delivered"] * 2
    assert len([line for line in here.said if "too many receipts" in line]) == 3


def test_import_that_fails(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a receipt needs may fail to load once: that is a warning, and the next one is sent."""
    with FakeMTA() as mta:
        here.hop = mta.hop
        with monkeypatch.context() as patch:
            patch.delattr(mdaflow.deliver, "send", raising=False)
            patch.setitem(sys.modules, "mdaflow.deliver.send", None)
            assert deliver(here).ok
        assert deliver(here).ok
    assert actions(mta) == ["delivered"]
    assert len([line for line in here.said if f"no receipt to <{ANN}>" in line]) == 1


def test_thread_that_ends(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that ends for any reason leaves no trace: the next receipt has a new one."""
    monkeypatch.setattr(threading, "excepthook", lambda _: None)

    def leave() -> None:
        raise SystemExit

    assert receipts._outbox.put(leave)
    receipts.finish(10)
    with FakeMTA() as mta:
        here.hop = mta.hop
        assert deliver(here).ok
    assert actions(mta) == ["delivered"]


def test_end_of_the_process(here: Here, held: Callable[[], None]) -> None:
    """What is not sent in time is told to the log."""
    assert receipts._outbox.put(lambda: None)
    receipts.finish(0.01)
    held()
    receipts.finish(30)
    assert [line for line in here.said if "receipts" in line] == ["1 receipts were not sent"]


def test_bug(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug of ours fails no delivery, and shows in the log."""

    def broken(*_: object) -> str:
        raise KeyError("oops")

    monkeypatch.setattr(receipts, "_action", broken)
    assert deliver(here).ok
    assert any("no receipt to" in line and "oops" in line for line in here.said)
