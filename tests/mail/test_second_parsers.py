"""Every letter of ours, read by parsers that are not ours: Python's email, at its strictest, and
reformime of maildrop, written in C. Whatever the strings are, both find what was put in."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from need import need
from parsers import by_email, by_reformime

from mdaflow.mail import letter, receipt
from mdaflow.mail.envelope import Envelope
from mdaflow.mail.letter import is_address

NASTY = (
    "\r\n\0\x0b\x0c\x1b\x7f\x85\u2028\ud800\ufeff\xa0üß日😀:;,=?<>()[]\"\\@.-_+*%&'!#$ \t=_mdaflow"
)
INJECTED = (
    *("x\r\nBcc: eve@example.com", "x\n\nbody", "\n--=_mdaflow\n", "--=_mdaflow--", ".\r\n.\r\n"),
    *(
        "=?utf-8?q?a=0d=0aBcc:_eve@example.com?=",
        "=?utf-8?b?",
        "?=",
        "From a b",
        ">From",
        "=",
        "=0A",
    ),
    *(
        "Content-Type: text/html\n\n<b>",
        "a" * 2000,
        "ü" * 400,
        "\u200f\u202e",
        "(",
        '"',
        "\\",
        ", a@b",
    ),
)
texts = st.one_of(
    st.text(st.sampled_from(NASTY), max_size=60),
    st.text(max_size=60),
    st.lists(st.sampled_from(INJECTED), max_size=3).map(" ".join),
)
addresses = st.one_of(
    st.sampled_from(
        [
            *("ann@example.com", '"a b"@x.org', '"@"@x.org', '"\\""@x.org', "a@[192.0.2.1]"),
            *("a@[IPv6:::1]", "=?utf-8?q?root?=@x.org", "jürgen@bücher.example", "a=b@x.org"),
            *("a" * 64 + "@" + "b" * 60 + ".org", "!#$%&'*+-/=?^_`{|}~@x.org"),
        ]
    ),
    st.text(st.sampled_from(NASTY + "ab"), max_size=20).map(lambda local: f"{local}@example.org"),
)
ids = st.lists(st.one_of(st.just("<1@x>"), st.just("<a.b+c/d=e@[x]>"), texts), max_size=12)


PARSERS = {"email": by_email, "reformime": by_reformime}
FIELDS = {"from", "to", "subject", "date", "message-id", "mime-version", "content-type"}
FIELDS |= {"auto-submitted"}


@pytest.fixture(params=PARSERS)
def parse(request: pytest.FixtureRequest) -> Any:
    if request.param == "reformime":
        need("reformime")
    return PARSERS[request.param]


def shown(text: str) -> str:
    """A text as a letter has it."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n").rstrip("\n") + "\n"
    without = re.sub(r"[\x00-\x08\x0b-\x1f\x7f]", "", lines)
    return without.encode("utf-8", "replace").decode()


few = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


@given(addresses, texts, addresses, texts, texts, texts, ids)
@few
def test_replies_and_notices(
    parse: Any, sender: str, name: str, to: str, subject: str, text: str, html: str, refs: list[str]
) -> None:
    """A letter has its fields once each, and its texts as they were put in."""
    assume(is_address(sender) and is_address(to))
    found_ids = letter.message_ids(" ".join(refs))
    raw = letter.compose(
        sender=f"{name} <{sender}>",
        recipient=to,
        subject=subject,
        text=text,
        html=html,
        date=1.8e9,
        message_id="<1@mx.example.org>",
        references=found_ids,
        fields={"Auto-Submitted": "auto-replied (mdaflow)"},
    )
    found = parse(raw)
    expected = [("text/plain", shown(text))] + [("text/html", shown(html))] * bool(html)
    assert found.parts == expected
    assert max(map(len, raw.split(b"\n"))) < 998
    assert b"\r" not in raw
    if found.fields:
        threading = {"in-reply-to", "references"} if found_ids else set()
        coding = set() if html else {"content-transfer-encoding"}
        assert set(found.fields) == FIELDS | threading | coding
        assert found.fields["subject"] == letter.one_field(subject)


heads = st.one_of(
    st.binary(max_size=200),
    st.lists(st.sampled_from(INJECTED), max_size=4).map(lambda t: "\n".join(t).encode()),
)
orcpts = st.one_of(st.just(""), st.just("rfc822;ann+40x@y"), texts)


@given(addresses, addresses, texts, texts, heads, st.sampled_from(sorted(receipt.TEXTS)), texts)
@few
def test_receipts(
    parse: Any, to: str, whose: str, envid: str, orcpt: str, head: bytes, action: str, said: str
) -> None:
    """A receipt has its three parts, whatever is in the message and in the envelope."""
    assume(is_address(to))
    raw = receipt.compose(
        Envelope(to, whose, envid=envid, orcpt=orcpt),
        head,
        action,
        hostname="mx.example.org",
        date=1.8e9,
        message_id="<1@mx.example.org>",
        relay=receipt.Relay("192.0.2.1", said, False, (whose,)),
    )
    found = parse(raw)
    # what email reads as a message for each recipient, reformime leaves alone
    kinds = [kind for kind, _ in found.parts]
    status = ["text/plain"] * 2 if found.fields else []
    assert kinds == ["text/plain", *status, *["text/rfc822-headers"] * bool(head)]
    assert receipt.TEXTS[action] in found.parts[0][1]
    assert max(map(len, raw.split(b"\n"))) <= 1000
    if found.fields:
        assert set(found.fields) == FIELDS
