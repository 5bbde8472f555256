"""What stands encoded in a text: files in uuencode, yEnc and BinHex, and lines of base64.

Some programs show such a file as an attachment, or open it. Each function takes a range of raw
bytes and gives offsets into it, in linear time. Nothing here raises.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from . import header
from .raw import Raw, finds, slices, windows
from .transfer import UU_BEGIN, YENC_BEGIN

MIN_RUN = 24
"""Letters of base64 in a line that make one look further."""
MAX_FILE = 16 << 20
"""Bytes of an encoded file."""

_LETTERS = re.compile(rb"\n([A-Za-z0-9+/]+={0,2})[ \t\r]*(?=\n|\Z)")
_BINHEX = b"(This file must be converted with BinHex"
_BINHEX_LINE = re.compile(re.escape(_BINHEX))
# What it begins with behind a line end, the whole line, what ends it, its name.
_FILES = (
    (b"\nbegin", UU_BEGIN, b"\nend", "uuencode"),
    (b"\n=ybegin ", YENC_BEGIN, b"\n=yend", "yenc"),
    (b"\n" + _BINHEX, _BINHEX_LINE, b":\n\n", "binhex"),
)
SIGNS = (b"begin ", b"=ybegin ", _BINHEX)
"""One of them is in every text with a file in it."""


class File(NamedTuple):
    """A file in a text."""

    start: int
    end: int
    encoding: str
    name: str


def files(raw: Raw, start: int, end: int) -> Iterator[File]:
    """The files in a text; what is before `start` is no line end."""
    for sign, begin, last, encoding in _FILES:
        for at in finds(raw, sign, start, end):
            if match := begin.match(raw, at + 1, end):
                stop = next(finds(raw, last, match.end() - 1, min(end, at + MAX_FILE)), end)
                name = header.text_of(match[1]).strip() if begin.groups else ""
                yield File(at + 1, stop, encoding, name)


def runs(raw: Raw, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Where lines of nothing but letters of base64 follow each other, the first of some length."""
    begin = stop = -1
    for at, piece in windows(raw, start, end):
        for line in _LETTERS.finditer(piece):
            if at + line.start() == stop:
                stop = at + line.end()
            elif line.end(1) - line.start(1) >= MIN_RUN:
                if begin >= 0:
                    yield begin, stop
                begin, stop = at + line.start() + 1, at + line.end()
    if begin >= 0:
        yield begin, stop


def fields_about_content(raw: Raw) -> Iterator[int]:
    """Where lines begin that may be fields about a content: of the newline before."""
    start = 0
    for piece in slices(raw, 0, len(raw), 10):
        text = piece.lower()
        at = text.find(b"\ncontent-")
        while at >= 0:
            if text[at + 9 : at + 10] in (b"t", b"d"):
                yield start + at
            at = text.find(b"\ncontent-", at + 9)
        start += 1 << 20
