"""The proof that a message was here before, and the count of hops."""

from __future__ import annotations

import re
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdaflow.mail.loop import came_back, loop_fields, proof
from mdaflow.mail.message import Message

KEY = b"secret of the site"
BOB, ANN = "bob@example.org", "ann@example.org"
ID, DATE, FROM = (
    "Message-ID: <1@x>",
    "Date: Sat, 1 Nov 2025 13:25:00 +0000",
    "From: Eve <eve@x.org>",
)
WHOLE = (ID, DATE, FROM)


def mail(*fields: str, text: str = "hi\n") -> Message:
    return Message("".join(f"{field}\n" for field in (*fields, "Subject: x", "", text)).encode())


def left(message: Message, recipient: str = BOB, key: bytes = KEY) -> Message:
    """A message as it leaves a recipient."""
    return Message(loop_fields(message, recipient, key) + message.raw)


def with_proof(value: str, message: Message) -> Message:
    return Message(f"X-mdaflow-Loop: {value}\n".encode() + message.raw)


def changed(message: Message, old: str, new: str) -> Message:
    """What a hop has made of it."""
    assert old.encode() in message.raw
    return Message(message.raw.replace(old.encode(), new.encode(), 1))


def test_proof() -> None:
    """The proof depends on key, recipient and message, and is the same every time."""
    found = proof(KEY, BOB, mail(*WHOLE))
    assert found == proof(KEY, BOB, mail(*WHOLE))
    others = [
        proof(KEY, ANN, mail(*WHOLE)),
        proof(b"other", BOB, mail(*WHOLE)),
        proof(KEY, BOB, mail("Message-ID: <2@x>", DATE, FROM)),
        proof(KEY, BOB, mail(ID, DATE)),
    ]
    assert len({found, *others}) == 5
    assert re.fullmatch("[0-9a-f]{32}", found)


def test_spellings() -> None:
    """The domain may change its case on the way; the local part may not (P49)."""
    message = left(mail(*WHOLE))
    assert came_back(message, "bob@EXAMPLE.org", KEY)
    assert not came_back(message, "Bob@example.org", KEY)


def test_mail_that_came_back() -> None:
    """Our own proof for this recipient is found, among others, and folded."""
    message = mail(*WHOLE)
    mine = proof(KEY, BOB, message)
    assert came_back(mail(f"x-mdaflow-loop:\n {mine}", *WHOLE), BOB, KEY)
    others = [f"X-mdaflow-Loop: {value}" for value in ("0" * 32, proof(KEY, ANN, message), mine)]
    assert came_back(mail(*others, *WHOLE), BOB, KEY)


LEAVE_IT = [
    ("Subject: x", "Subject: [list] x"),
    ("hi\n", "hi \n\n"),
    ("hi\n", "hi\n-- \nA footer\n"),
    ("Eve <", '"E. Ve" <'),
    ("eve@x.org", "eve@X.ORG"),
    ("13:25:00 +0000", "15:25:00 +0200 (CEST)"),
    ("Sat, 1 Nov 2025", "01 Nov 2025"),
    ("Message-ID: <1@x>", "Message-Id:\n\t<1@x> "),
    (DATE, f"Received: by y\nReturn-Path: <SRS0=a=b=x.org=eve@y>\n{DATE}"),
]


@pytest.mark.parametrize(("old", "new"), LEAVE_IT)
def test_what_hops_change(old: str, new: str) -> None:
    """What hops do on the way hides no loop from its first return on."""
    assert came_back(changed(left(mail(*WHOLE)), old, new), BOB, KEY)


ANOTHER = [
    ("<1@x>", "<2@x>"),
    ("eve@x.org", "mallory@x.org"),
    ("13:25:00", "13:25:01"),
    (f"{ID}\n", ""),
    (f"{DATE}\n", ""),
    (f"{FROM}\n", ""),
]


@pytest.mark.parametrize(("old", "new"), ANOTHER)
def test_copied_proof(old: str, new: str) -> None:
    """A proof that somebody has copied into another mail refuses nothing."""
    seen = left(mail(*WHOLE))
    assert came_back(seen, BOB, KEY)
    assert not came_back(changed(seen, old, new), BOB, KEY)


FEW: Iterable[tuple[str, ...]] = [(), (ID,), (DATE,), (FROM,), (ID, DATE), (ID, FROM), (DATE, FROM)]


@pytest.mark.parametrize("fields", [*FEW, ("Message-ID:", "Date: ", "From: eve")])
def test_missing_fields(fields: tuple[str, ...]) -> None:
    """What a hop adds hides no loop, and a proof of little holds for the same text only."""
    gone = left(mail(*fields, text="one two\n"))
    added = "".join(f"{field}\n" for field in WHOLE if field not in fields).encode()
    back = Message(b"Received: by y\n" + gone.raw.replace(b"Subject:", added + b"Subject:"))
    assert came_back(back, BOB, KEY)
    assert came_back(changed(back, "one two\n", "one\n two\n\n"), BOB, KEY)
    assert not came_back(changed(back, "one two\n", "one three\n"), BOB, KEY)


def test_no_header() -> None:
    """A text without any header comes back with one, and is known."""
    gone = Message(loop_fields(Message(b"just text\n"), BOB, KEY) + b"\njust text\n")
    assert came_back(gone, BOB, KEY)


def test_edited_message() -> None:
    """What rules have changed counts as they sent it on."""
    message = mail(*WHOLE)
    edited = message.edited(message.head.replace(b"eve@x.org", b"list@example.org"))
    back = Message(loop_fields(message, BOB, KEY, edited) + edited.head + b"\nhi\n")
    assert came_back(back, BOB, KEY)


def former(key: bytes, recipient: str) -> str:
    """A proof as it was before it spoke of the message."""
    import hmac

    return hmac.digest(key, f"loop\0{recipient}".encode(), "sha256").hex()[:32]


@pytest.mark.parametrize(
    "value",
    [
        "",
        "0" * 32,
        BOB,
        former(KEY, BOB),
        proof(b"guessed", BOB, mail(*WHOLE)),
        proof(b"", BOB, mail(*WHOLE)),
        proof(KEY, ANN, mail(*WHOLE)),
        proof(KEY, BOB, mail(*WHOLE))[:31],
        proof(KEY, BOB, mail(*WHOLE)) + "0",
        proof(KEY, BOB, mail(*WHOLE), 0b1111)[:1] + proof(KEY, BOB, mail(*WHOLE))[1:],
        proof(KEY, BOB, mail(*WHOLE)).upper(),
        f"{proof(KEY, BOB, mail(*WHOLE))} {proof(KEY, BOB, mail(*WHOLE))}",
        "ü" * 32,
    ],
)
def test_forged_proof(value: str) -> None:
    """A value that we did not write for this recipient and message is without effect."""
    assert not came_back(with_proof(value, mail(*WHOLE)), BOB, KEY)


@given(st.binary(max_size=200), st.lists(st.text("0123456789abcdef", min_size=32, max_size=32)))
def test_any_message(raw: bytes, values: list[str]) -> None:
    """Whatever a message is, it comes back once it was here, and not before."""
    forged = "".join(f"X-mdaflow-Loop: {value}\n" for value in values).encode()
    message = Message(forged + raw)
    assert not came_back(message, BOB, KEY)
    gone = Message(
        b"".join(bytes(c) for c in message.under(loop_fields(message, BOB, KEY), message.head))
    )
    assert came_back(gone, BOB, KEY)


def test_proof_in_the_text() -> None:
    """Only a header field counts."""
    value = proof(KEY, BOB, Message(b"Subject: x\n\n"))
    message = Message(f"Subject: x\n\nX-mdaflow-Loop: {value}\n".encode())
    assert not came_back(message, BOB, KEY)


@pytest.mark.parametrize("key", [KEY, b""])
@pytest.mark.parametrize(("count", "expected"), [(0, False), (50, False), (51, True)])
def test_hops(key: bytes, count: int, expected: bool) -> None:
    """More than 50 Received fields are a loop, also without a key."""
    assert came_back(mail(*["Received: by x"] * count), BOB, key) is expected


def test_no_key() -> None:
    """Without a key nothing is proved and nothing believed."""
    assert not came_back(with_proof(proof(b"", BOB, mail()), mail()), BOB, b"")
    assert loop_fields(mail(), BOB, b"") == b""


@pytest.mark.parametrize("key", [KEY, b"secret of another site"])
def test_loop_of_two(key: bytes) -> None:
    """A message that goes from Bob to Ann, also at another site, and back has Bob's proof still."""
    back = left(left(mail(*WHOLE)), ANN, key)
    assert came_back(back, BOB, KEY)
    assert came_back(back, ANN, key)
    assert back.fields[b"x-mdaflow-loop"][0].strip().decode() == proof(key, ANN, mail(*WHOLE))


def test_kept_proofs() -> None:
    """Of what others wrote, only what looks like a proof is kept, once, and not too much of it."""
    junk = [f"X-mdaflow-Loop: {value}" for value in ("x", "a b", f"{1:032x}\r", f"{1:032x}")]
    many = [f"X-mdaflow-Loop: {n:032x}" for n in range(1, 500)]
    message = mail(*junk, *many)
    lines = loop_fields(message, BOB, KEY).decode().splitlines()
    assert lines[0] == f"X-mdaflow-Loop: {proof(KEY, BOB, message)}"
    assert lines[1] == f"X-mdaflow-Loop: {1:032x}"
    assert len(set(lines)) == len(lines) <= 51
