"""The bytes of a message in memory or in a file: whoever reads them sees no difference."""

from __future__ import annotations

import binascii
import hashlib
import mmap
import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Any
from unittest import mock

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from mapped import mapped

from mdaflow.mail import edit, header, mime, raw, transfer
from mdaflow.mail.envelope import Envelope
from mdaflow.mail.message import Message
from mdaflow.mail.mime import Part
from mdaflow.mail.nature import encrypted, signed
from mdaflow.mail.raw import digest, finds, let_go, pieces, slices
from mdaflow.mail.trace import stored

WORDS = [
    *(
        b"\n",
        b"\n\n",
        b" ",
        b"\t",
        b"\r\n",
        b"\0",
        b"\xff",
        b"\xc3\xbc",
        b"=",
        b"==",
        b"=\n",
        b"--",
    ),
    *(b"From a@b\n", b">From x\n", b"Subject: x\n", b"To: a@b, c <d@e>\n", b"X-mdaflow-a: 1\n 2\n"),
    *(b"Subject: =?utf-8?q?=C3=BC?=\n", b"Return-Path: <a@b>\n", b": x\n", b"A:", b"hello you\n"),
    *(b"Content-Type: multipart/mixed; boundary=b\n\n", b"Content-Type: message/rfc822\n\n"),
    *(b"Content-Type: multipart/x; boundary=bb\n\n", b"Content-Type: text/html\n\n<b>x</b>&auml;"),
    *(b"Content-Type: application/x; name=a.pdf\n", b"Content-Disposition: attachment\n"),
    *(b"Content-Transfer-Encoding: base64\n\nQUJD\nREVGR0hJSg==\n", b"QUJDREVG", b"QQ="),
    *(b"Content-Transfer-Encoding: quoted-printable\n\na=C3=BC=\nb =\n", b"Content-Type: text/x\n"),
    *(b"\n--b\n", b"\n--b--\n", b"\n--bb \t\n", b"\n--bb-- \n", b"--b", b"\n--b\n\n", b"\n--b x\n"),
]
mails = st.one_of(st.binary(), st.lists(st.sampled_from(WORDS), max_size=30).map(b"".join))


def of_part(part: Part) -> list[Any]:
    """All that a part says."""
    said = [getattr(part, name) for name in Part.__slots__ if name != "raw"]
    contents = [part.content(), part.content(0), part.content(5), b"".join(part.pieces())]
    return [*said, *contents, part.text, part.attached]


def views(message: Message) -> Iterator[Any]:
    """All that a message says."""
    yield message.size, message.lines, message.header_end, message.head, message.fields
    yield message.header("Subject"), message.header("subject", raw=True), message.addresses("To")
    yield [of_part(part) for part in message.parts]
    yield [of_part(part) for part in message.attachments]
    yield message.body, message.raw_body, repr(message)
    yield [bytes(chunk) for chunk in message.under(b"B: 1\n")]
    yield [bytes(chunk) for chunk in stored(message, b"Return-Path: <>\n")]
    yield digest(stored(message, b"")), digest([message.raw])
    yield encrypted(message, Envelope()), signed(message, Envelope())


def edited(message: Message) -> Iterator[Message]:
    """The message, and what edits make of it."""
    yield message
    yield message.edited(b"")
    yield message.edited(b"B: 2\n").edited(b"C: 3\n D: 4")
    yield edit.add(message, "Subject", "ü")
    yield edit.remove(message, "subject")


@given(mails, st.sampled_from([1, 3, 8, 50, raw.PIECE]), st.sampled_from([40, header.MAX_BLOCK]))
@example(b"", 1, 40)
@example(b"Content-Type: multipart/x; boundary=b\n\n--b\n\nx\n--b--", 8, 40)
def test_views_are_the_same(data: bytes, size: int, block: int) -> None:
    """Every view of a message is the same, in memory or in a file, in pieces of any size, and
    however big a header may be."""
    there = mapped(data)
    assert isinstance(there, mmap.mmap) == bool(data)
    with (
        mock.patch.object(raw, "PIECE", size),
        mock.patch.object(header, "MAX_BLOCK", block),
        mock.patch.object(edit, "_edited", lambda message, head: message.edited(head)),
    ):
        for one, other in zip(edited(Message(data)), edited(Message(there)), strict=True):
            assert list(views(one)) == list(views(other))
            assert isinstance(other.head, bytes)


@given(mails)
def test_size_of_pieces_does_not_matter(data: bytes) -> None:
    """The structure is found whatever is looked at together."""
    whole = [of_part(part)[:7] for part in mime.parts(data)]
    with mock.patch.object(raw, "PIECE", 5):
        assert [of_part(part)[:7] for part in mime.parts(data)] == whole


@given(st.binary(), st.lists(st.integers(0, 50), max_size=4), st.integers(1, 60))
def test_pieces(data: bytes, cuts: list[int], size: int) -> None:
    """Pieces and slices are the same bytes, none longer than it shall be."""
    there = mapped(data)
    ends = [0, *sorted(cuts), len(data)]
    chunks = [memoryview(there)[a:b] for a, b in pairwise(ends)]
    with mock.patch.object(raw, "PIECE", size):
        found = list(pieces([*chunks, there, data]))
        assert b"".join(found) == data * 3
        assert all(len(piece) <= size for piece in found)
        assert b"".join(slices(there, 0, len(data))) == data
        assert digest(chunks) == hashlib.sha256(data).hexdigest()


@given(st.text("\n-b", max_size=60), st.integers(1, 9))
def test_finds(text: str, size: int) -> None:
    """Every place of a delimiter is found, also where two pieces meet."""
    data = f"b{text}".encode()
    with mock.patch.object(raw, "PIECE", size):
        found = list(finds(mapped(data), b"\n--b", 0, len(data)))
    assert found == [match.start() for match in re.finditer(b"\n--b", data)]


@pytest.mark.parametrize("data", [b"", b"x", memoryview(b"x"), None])
def test_nothing_to_let_go(data: object) -> None:
    """What is no mapping stays as it is."""
    let_go(data)


def test_locked_memory() -> None:
    """A process that locks its memory keeps the pages, and reads on."""
    there = mock.Mock()
    there.madvise.side_effect = OSError
    let_go(there)
    there.madvise.assert_called_once()


BASE64 = st.lists(
    st.sampled_from([*(b"%c" % c for c in b"ABz+/9"), b"=", b"==", b"\n", b"-", b"\xff", b"QUJD"]),
    max_size=40,
).map(b"".join)
LINES = st.lists(
    st.sampled_from([b"=C3=BC", b"=\n", b"=\r\n", b" \n", b"==", b"=A", b"x", b"\n", b"\xff"])
).map(b"".join)


def cut(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)] or [b""]


@given(BASE64, st.integers(1, 20))
def test_base64_in_pieces(data: bytes, size: int) -> None:
    """Wherever base64 is cut, wherever pads are, the content is the same."""
    assert b"".join(transfer.base64(cut(data, size))) == b"".join(transfer.base64([data]))


@given(LINES, st.integers(3, 20))
def test_quoted_printable_in_pieces(data: bytes, size: int) -> None:
    """Lines that are shorter than a piece give the same content wherever they are cut."""
    data = b"\n".join(line[:3] for line in data.split(b"\n"))
    whole = binascii.a2b_qp(data)
    assert b"".join(transfer.quoted_printable(cut(data, max(4, size)))) == whole


@given(st.lists(st.sampled_from([b"=41", b"x"]), max_size=60).map(b"".join), st.integers(3, 9))
def test_quoted_printable_without_lines(data: bytes, size: int) -> None:
    """An escape is not divided where there is no line end in sight."""
    assert b"".join(transfer.quoted_printable(cut(data, size))) == binascii.a2b_qp(data)


@pytest.mark.parametrize("encoding", ["8bit", "quoted-printable", "base64"])
@pytest.mark.parametrize("charset", ["utf-8", "utf-16", "shift_jis", "iso-8859-5", ""])
@pytest.mark.parametrize("more", range(4))
def test_text_that_is_cut(encoding: str, charset: str, more: int) -> None:
    """Of a text that is too long the beginning is read, in its charset and without half a
    character."""
    text = "x" * more + "ж" * 100
    data = text.encode(charset or "utf-8")
    if encoding == "base64":
        data = binascii.b2a_base64(data)
    if encoding == "quoted-printable":
        data = b"".join(b"=%02X" % c for c in data)
    with mock.patch.object(mime, "MAX_TEXT", 60):
        part = Part(data, 0, len(data), "text/plain", charset, encoding, "", "")
        assert text.startswith(part.text)
        assert len(part.text) >= 8
