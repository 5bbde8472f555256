"""The reader of DATA."""

from __future__ import annotations

import re
import tracemalloc
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdaflow.serve.data import DataReader


class Reader(DataReader):
    """A reader that keeps what it is given."""

    def __init__(self) -> None:
        self.blocks: list[bytes] = []
        super().__init__(self.blocks.append)

    def message(self) -> bytes:
        return b"".join(self.blocks)


def naive(sent: bytes) -> tuple[bytes, bytes] | None:
    """Content and rest, line by line as RFC 5321 tells it; None: no end."""
    content = b""
    while (end := sent.find(b"\r\n")) >= 0:
        line, sent = sent[:end], sent[end + 2 :]
        if line == b".":
            return content, sent
        content += line.removeprefix(b".") + b"\n"
    return None


def read(chunks: list[bytes]) -> tuple[Reader, bytes | None]:
    """The reader, and what it and its chunks left over."""
    reader = Reader()
    for number, chunk in enumerate(chunks):
        rest = reader.feed(chunk)
        if rest is not None:
            return reader, rest + b"".join(chunks[number + 1 :])
    return reader, None


pieces = st.sampled_from([b"\r\n", b".", b"\r", b"\n", b"\0", b"a", b"\r\n.", b"\r\n.\r", b"\xff"])
streams = st.lists(pieces, max_size=30).map(b"".join)


@given(streams, st.lists(st.integers(0, 60), max_size=6))
def test_like_the_naive_reader(sent: bytes, cuts: list[int]) -> None:
    """Content, size and rest are those of a line by line reader, wherever the chunks are cut."""
    sent += b"\r\n.\r\nNOOP\r\n"
    wanted = naive(sent)
    assert wanted is not None
    places = [0, *sorted(min(cut, len(sent)) for cut in cuts), len(sent)]
    chunks = [sent[a:b] for a, b in pairwise(places)]
    for way in ([sent], chunks, [bytes([byte]) for byte in sent]):
        reader, rest = read(way)
        assert (reader.message(), rest) == wanted
        assert reader.size >= len(wanted[0])


@given(streams)
def test_no_end(sent: bytes) -> None:
    """Without CRLF.CRLF there is no end."""
    assert (read([sent])[1] is None) == (naive(sent) is None)


@pytest.mark.parametrize(
    "almost",
    [
        b"\n.\n",
        b"\n.\r",
        b"\r.\n",
        b"\r.\r",
        b"\n.\r\n",
        b"\r.\r\n",
        b"\r\n.\r\r\n",
        b"\r\r\n.\r\r\n",
        b"\r\n\0.\r\n",
        b"\r\n.\n",
        b"\r\n.\r",
    ],
)
def test_smuggling(almost: bytes) -> None:
    """What other servers take for an end is content, wherever it is cut into segments."""
    sent = b"one" + almost + b"MAIL FROM:<>\r\n"
    unstuffed = re.sub(rb"(?<=\r\n)\.", b"", sent)
    for cut in range(len(sent)):
        reader, rest = read([sent[:cut], sent[cut:], b".\r\n"])
        assert rest == b""
        assert reader.message() == unstuffed.replace(b"\r\n", b"\n")


def test_empty() -> None:
    """A dot as the first line is a message of no bytes."""
    reader, rest = read([b".\r\nQUIT\r\n"])
    assert (reader.message(), reader.size, rest) == (b"", 0, b"QUIT\r\n")


def test_dots() -> None:
    """A line loses one dot behind CRLF, and none behind a bare LF or CR."""
    reader, _ = read([b"..a\r\n.b\r\n\n.c\r.d\r\n...\r\n.\r\n"])
    assert reader.message() == b".a\nb\n\n.c\r.d\n..\n"


def test_memory() -> None:
    """Empty lines cost no more memory than a few chunks, whatever their number."""
    chunk = b"\r\n" * (64 << 10)
    reader = DataReader(lambda block: None)
    tracemalloc.start()
    try:
        for _ in range(32):
            reader.feed(chunk)
        reader.feed(b".\r\n")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert reader.size == 32 * len(chunk)
    assert peak < 5 * len(chunk)
