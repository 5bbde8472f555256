"""Hostile messages cost no more than their size."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import pytest

from mdaflow.mail.message import Message
from mdaflow.mail.trace import stored

MILLION = 1_000_000


def header_of(message: Message) -> None:
    assert message.header("Subject") is not None
    assert stored(message, b"Received: x\n")


def parts_of(message: Message) -> None:
    assert message.parts
    assert message.body is not None


@pytest.mark.parametrize(
    ("raw", "look"),
    [
        (b"A: x" + b"\n " * MILLION + b"\n\nbody", header_of),
        (b"x-mdaflow-a: x" + b"\n " * MILLION + b"\n\nbody", header_of),
        (b"x-mdaflow-a:\nb:\n" * (MILLION // 8) + b"\nbody", header_of),
        (b"A: b\n" * (MILLION // 2) + b"\nbody", header_of),
        (b"Content-Type: text/html\n\n" + b"<a ='" * (MILLION // 4), parts_of),
        (b"Content-Type: text/html\n\n" + b"<b>" * MILLION, parts_of),
        (b"Content-Transfer-Encoding: base64\n\n" + b"A\n" * MILLION, parts_of),
        (b"Content-Transfer-Encoding: quoted-printable\n\n" + b"=\n" * MILLION, parts_of),
    ],
    ids=["folded", "ours folded", "ours many", "many", "attributes", "tags", "base64", "qp"],
)
def test_memory(raw: bytes, look: Callable[[Message], None]) -> None:
    """Looking at a message takes a small multiple of its size."""
    message = Message(raw)
    tracemalloc.start()
    try:
        look(message)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 64 << 20


def test_semicolons() -> None:
    """A field of nothing but semicolons hides no more than itself."""
    raw = b'Content-Type: text/plain; name="a.txt"; x="' + b";" * 4000 + b'"\n\nbody'
    [part] = Message(raw).parts
    assert (part.type, part.name) == ("text/plain", "a.txt")


def test_removed_fields_beyond_what_is_examined() -> None:
    """Fields of ours are removed as far as a header is examined, and whole."""
    long = b"x-mdaflow-a: " + b"x" * (2 << 20) + b"\n"
    raw = b"A: b\n" + long + b"C: d\n\nbody"
    assert b"".join(stored(Message(raw), b"")) == b"A: b\nC: d\n\nbody"
