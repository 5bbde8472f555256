"""A message as it is stored."""

from __future__ import annotations

import pytest

from mdaflow.mail.message import Message
from mdaflow.mail.trace import stored

PREFIX = b"Return-Path: <>\n"

# raw | new header block | as it is stored below PREFIX
EDITED = {
    "usual": (b"A: 1\n\nx", b"B: 2\n", b"B: 2\n\nx"),
    "ours": (b"A: 1\n\nx", b"B: 2\nX-mdaflow-a: 1\n 2\nreturn-path: x\nC: 3\n", b"B: 2\nC: 3\n\nx"),
    "no header any more": (b"A: 1\n\nx", b"", b"\nx"),
    "no header before": (b"x\n\ny", b"B: 2\n", b"B: 2\n\nx\n\ny"),
    "no header at all": (b"x\n\ny", b"", b"\nx\n\ny"),
    "empty header": (b"\nx", b"B: 2\n", b"B: 2\n\nx"),
    "no body": (b"A: 1", b"B: 2\nA: 1", b"B: 2\nA: 1"),
    "nothing": (b"", b"B: 2\n", b"B: 2\n"),
}


@pytest.mark.parametrize(("raw", "head", "below"), EDITED.values(), ids=EDITED)
def test_edited(raw: bytes, head: bytes, below: bytes) -> None:
    """An edited message is stored with its header and the body as it came."""
    chunks = stored(Message(raw).edited(head), PREFIX)
    assert b"".join(chunks) == PREFIX + below
    assert all(chunks)


def test_unedited() -> None:
    """A message that nobody edited is stored as it came, and its body is not copied."""
    raw = b"A: 1\n\n" + b"x" * 1000
    prefix, head, body = stored(Message(raw), PREFIX)
    assert (prefix, head) == (PREFIX, b"A: 1\n")
    assert isinstance(body, memoryview)
    assert body.obj is raw


def test_nothing_above() -> None:
    """Without fields above it a message without a header stays as it is."""
    assert b"".join(stored(Message(b"hello\n"), b"")) == b"hello\n"
