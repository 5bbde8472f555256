"""What rules send, where the next hop speaks LMTP: the same, and each target has its own answer."""

from __future__ import annotations

import re

import pytest
from fake_mta import ANSWERS, DROP, FakeMTA
from here import ANN, RAW, Here
from test_actions import BUSY, CASES, GRANTS, REFUSED

from mdaflow.app.pipeline import Courier
from mdaflow.mail.envelope import Envelope
from mdaflow.mail.message import Message

OK = ANSWERS["dot"]
assert isinstance(OK, bytes)
X, Y = "x@example.com", "y@example.com"
TO_BOTH = f'forward to ["{X}", "{Y}"]'
SENDING = [name for name, case in CASES.items() if case.script or case.sent]


@pytest.mark.parametrize("name", SENDING)
def test_action(name: str, here: Here) -> None:
    """What becomes of mail is the same as by SMTP (P40)."""
    case, here.grant = CASES[name], GRANTS
    many = 2 if "y@example.com" in case.user else 1
    with FakeMTA({"dot": OK * many, **case.script}, lmtp=True) as mta:
        here.hop = mta.hop
        here.set(case.user, case.before, case.after)
        reply = str(here.send())
    said = here.entry["reason"].replace(here.hop, "HOP")
    expected = re.sub(r"\bBOX\b", "maildir", case.reason).replace("smtp ", "lmtp ")
    expected = expected.replace(": message:", f": message for <{X}>:")
    assert said == expected or (expected.endswith(": ") and said.startswith(expected))
    assert reply[:9] == case.reply[:9]
    assert here.folders == case.folders
    assert len(mta.taken) == case.sent


def asked(mta: FakeMTA) -> list[list[bytes]]:
    """Whom each session has asked for."""
    return [[c[9:10] for c in s.commands if c.startswith(b"RCPT")] for s in mta.sessions]


def test_one_of_two_is_put_off(here: Here) -> None:
    """Who has the message does not get it again when it comes back for the other (P10, P40)."""
    with FakeMTA({"dot": [OK + BUSY, OK]}, lmtp=True) as mta:
        here.hop = mta.hop
        here.set(TO_BOTH)
        assert here.send().code == 450
        assert f"done before: forward {X}" in here.entry["reason"]
        assert str(here.send()).startswith("250 2.0.0 ")
        assert here.entry["reason"] == f"lmtp {Y}"
    assert asked(mta) == [[b"x", b"y"], [b"y"]]
    assert here.folders == {}


def test_one_of_two_is_lost(here: Here) -> None:
    """A connection that is lost between two answers puts off the second one alone."""
    with FakeMTA({"dot": OK}, lmtp=True) as mta:
        here.hop = mta.hop
        here.set(f'also deliver to "a" {TO_BOTH}')
        mta.afterwards = DROP
        assert here.send().code == 451
        mta.afterwards = b""
        assert here.send().ok
    assert asked(mta) == [[b"x", b"y"], [b"y"]]
    assert here.folders == {"a": 1}


def test_one_of_two_is_refused(here: Here) -> None:
    """What is refused for one target is kept, and not refused to the sender: the other has it."""
    with FakeMTA({"dot": OK + REFUSED}, lmtp=True) as mta:
        here.hop = mta.hop
        here.set(TO_BOTH)
        assert here.send().ok
    assert here.folders == {"INBOX": 1, "notices": 1}
    assert f"forward {X}, maildir INBOX" in here.entry["reason"]
    assert b"".join(mta.taken[0].data.split()).endswith(RAW.split()[-1] + b".")


def test_both_are_refused(here: Here) -> None:
    """What is refused for all is refused to the sender (P40)."""
    with FakeMTA({"dot": REFUSED * 2}, lmtp=True) as mta:
        here.hop = mta.hop
        here.set(TO_BOTH)
        assert str(here.send()).startswith("550 5.1.1 ")
    assert here.folders == {}


def test_alias(here: Here) -> None:
    """Of an alias each target has a line in the log, and who has the message has it once (P10)."""
    here.set(before=f'alias "sales" to ["{X}", "{Y}"]')
    with FakeMTA({"dot": [OK + BUSY, OK]}, lmtp=True) as mta:
        here.hop = mta.hop
        here.close()
        courier, about = Courier(here.site), Envelope(ANN, "sales@example.org")
        codes = [courier.deliver(Message(RAW), about, lambda: True).code for _ in range(2)]
    assert codes == [450, 250]
    assert asked(mta) == [[b"x", b"y"], [b"y"]]
    said = [(entry["to"], entry["status"]) for entry in here.log if "dsn" in entry]
    assert said == [(X, "forwarded"), (Y, "deferred"), (Y, "forwarded")]
    assert here.entry["reason"] == f"lmtp {Y}"
