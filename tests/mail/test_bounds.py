"""Hostile messages cost no more than their size."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from unittest import mock

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mdaflow.mail import header
from mdaflow.mail.header import MAX_BLOCK, MAX_FIELDS
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


@pytest.mark.parametrize("more", [0, 1])
def test_fields_at_the_end_of_what_is_a_header(more: int) -> None:
    """Fields of ours are removed from the first MiB, and whole; behind it they are text."""
    size = MAX_BLOCK - len(b"A: b\nx-mdaflow-a: \n") + more
    long = b"x-mdaflow-a: " + b"x" * size + b"\n"
    rest = b"X-mdaflow-Loop: 1\nC: d\n\nbody"
    message = Message(b"A: b\n" + long + rest)
    assert b"".join(stored(message, b"")) == b"A: b\n" + long * more + rest
    assert list(message.fields) == [b"a", b"x-mdaflow-a"][: 2 - more]
    assert message.raw_body == long * more + rest


def test_field_that_is_too_long() -> None:
    """A message that begins with a field of more than a MiB is one without a header."""
    raw = b"Subject: " + b"x" * MAX_BLOCK + b"\n\nbody"
    message = Message(raw)
    assert message.fields == {}
    assert message.raw_body == raw
    assert b"".join(stored(message, b"A: b\n")) == b"A: b\n\n" + raw


def test_very_many_fields() -> None:
    """Of very many fields the first are seen; all of ours are removed."""
    raw = b"Received: x\n" + b"a:b\n" * MAX_FIELDS + b"C: d\nX-mdaflow-a: b\n\nbody"
    message = Message(raw)
    assert {name: len(values) for name, values in message.fields.items()} == {
        b"received": 1,
        b"a": MAX_FIELDS - 1,
    }
    assert not message.header_seen
    assert b"".join(stored(message, b"")) == raw.replace(b"X-mdaflow-a: b\n", b"")


LINES = [b"a:b\n", b"\n", b" c\n", b"Return-Path: x\n", b"d\n", b"From e\n", b"X-mdaflow-a:\n"]


@given(st.lists(st.one_of(st.sampled_from(LINES), st.binary(max_size=9))).map(b"".join))
@example(b"a: " + b"b" * 60)
@example(b"a:" + b"b" * 37 + b"\n\nc")
@example(b"a:" + b"b" * 38 + b"\n\nc")
def test_end_of_a_big_header(raw: bytes) -> None:
    """However big a header is, no byte is lost, no field is divided, and none behind it is seen."""
    message = Message(raw)
    usual = raw[: message.header_end]
    with mock.patch.object(header, "MAX_BLOCK", 40):
        cut = Message(raw)
        head = cut.head
        assert b"".join(cut.under(head)) == raw
        assert len(head) <= 40
        if len(usual) <= 40:
            assert head == usual
        elif head:
            assert usual.startswith(head)
            assert head.endswith(b"\n")
            assert raw[len(head) : len(head) + 1] not in (b" ", b"\t", b"\n")
            assert not cut.header_seen
        body = raw[len(head) :]
        assert b"".join(stored(cut, b"")).endswith(body)
        assert Message(head).fields == cut.fields
