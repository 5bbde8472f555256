"""The proof that a message was here before, and the count of hops."""

from __future__ import annotations

import pytest

from mdaflow.mail.loop import came_back, loop_fields, proof
from mdaflow.mail.message import Message

KEY = b"secret of the site"
BOB, ANN = "bob@example.org", "ann@example.org"


def mail(*fields: str) -> Message:
    return Message("".join(f"{field}\n" for field in (*fields, "Subject: x")).encode() + b"\nhi\n")


def test_proof() -> None:
    """The proof depends on key and recipient, and is the same every time."""
    assert proof(KEY, BOB) == proof(KEY, BOB)
    assert len({proof(KEY, BOB), proof(KEY, ANN), proof(b"other", BOB)}) == 3
    assert len(proof(KEY, BOB)) == 32


def test_spellings() -> None:
    """The domain may change its case on the way; the local part may not (P49)."""
    message = mail(f"X-mdaflow-Loop: {proof(KEY, BOB)}")
    assert came_back(message, "bob@EXAMPLE.org", KEY)
    assert not came_back(message, "Bob@example.org", KEY)


def test_mail_that_came_back() -> None:
    """Our own proof for this recipient is found, among others, and folded."""
    assert came_back(mail(f"x-mdaflow-loop:\n {proof(KEY, BOB)}"), BOB, KEY)
    others = [f"X-mdaflow-Loop: {value}" for value in ("0" * 32, proof(KEY, ANN), proof(KEY, BOB))]
    assert came_back(mail(*others), BOB, KEY)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "0" * 32,
        BOB,
        proof(b"guessed", BOB),
        proof(b"", BOB),
        proof(KEY, ANN),
        proof(KEY, BOB)[:31],
        proof(KEY, BOB) + "0",
        proof(KEY, BOB).upper(),
        f"{proof(KEY, BOB)} {proof(KEY, BOB)}",
        "ü" * 32,
    ],
)
def test_forged_proof(value: str) -> None:
    """A value that we did not write for this recipient is without effect."""
    assert not came_back(mail(f"X-mdaflow-Loop: {value}"), BOB, KEY)


def test_proof_in_the_text() -> None:
    """Only a header field counts."""
    message = Message(f"Subject: x\n\nX-mdaflow-Loop: {proof(KEY, BOB)}\n".encode())
    assert not came_back(message, BOB, KEY)


@pytest.mark.parametrize("key", [KEY, b""])
@pytest.mark.parametrize(("count", "expected"), [(0, False), (50, False), (51, True)])
def test_hops(key: bytes, count: int, expected: bool) -> None:
    """More than 50 Received fields are a loop, also without a key."""
    assert came_back(mail(*["Received: by x"] * count), BOB, key) is expected


def test_no_key() -> None:
    """Without a key nothing is proved and nothing believed."""
    assert not came_back(mail(f"X-mdaflow-Loop: {proof(b'', BOB)}"), BOB, b"")
    assert loop_fields(mail(), BOB, b"") == b""


def test_loop_of_two() -> None:
    """A message that goes from Bob to Ann and back has Bob's proof still."""
    first = Message(loop_fields(mail(), BOB, KEY) + b"Subject: x\n\n")
    second = Message(loop_fields(first, ANN, KEY) + b"Subject: x\n\n")
    assert came_back(second, BOB, KEY)
    assert came_back(second, ANN, KEY)
    assert second.raw.startswith(f"X-mdaflow-Loop: {proof(KEY, ANN)}\n".encode())


def test_kept_proofs() -> None:
    """Of what others wrote, only what looks like a proof is kept, once, and not too much of it."""
    junk = [f"X-mdaflow-Loop: {value}" for value in ("x", "a b", f"{1:032x}\r", f"{1:032x}")]
    many = [f"X-mdaflow-Loop: {n:032x}" for n in range(1, 500)]
    lines = loop_fields(mail(*junk, *many), BOB, KEY).decode().splitlines()
    assert lines[0] == f"X-mdaflow-Loop: {proof(KEY, BOB)}"
    assert lines[1] == f"X-mdaflow-Loop: {1:032x}"
    assert len(set(lines)) == len(lines) <= 51
