"""What is to be scanned of a message: the contents of all its readings, decoded (P46, P48).

The same bytes come once. A text in a charset in which ASCII is written differently (UTF-7, UTF-16,
EBCDIC) comes as it is, and once more in UTF-8. Capped; nothing here raises.
"""

from __future__ import annotations

from codecs import getincrementaldecoder
from collections.abc import Iterable, Iterator
from hashlib import sha256
from typing import TYPE_CHECKING, NamedTuple

from . import header
from .mime import MAX_PARTS, Part
from .readings import MESSAGES, Readings
from .transfer import DECODERS

if TYPE_CHECKING:
    from .message import Message

MAX_CONTENTS = 64 << 20
"""Bytes of all contents together, decoded."""


class Content(NamedTuple):
    """Something to be scanned."""

    part: Part
    charset: str = ""
    """Not empty: it is a text in no superset of ASCII, and given in UTF-8."""

    def pieces(self) -> Iterable[bytes]:
        """The decoded content, each piece of a few MiB at most."""
        return _recode(self.part.pieces(), self.charset) if self.charset else self.part.pieces()


class Contents(NamedTuple):
    """All contents of a message, the same bytes once."""

    found: tuple[Content, ...]
    limit: str = ""
    """Why these are not all; empty when they are."""


def contents(message: Message) -> Iterator[Content]:
    """What is to be scanned: all contents of all readings, decoded, the same bytes once.

    At most 64 MiB and 10,000 of them; `message.contents.limit` says when there is more. The raw
    message is not among them.
    """
    return iter(message.contents.found)


def is_plain(readings: Readings) -> bool:
    """Do all readers find the same contents, in charsets that hide nothing, and scanners, too?"""
    if readings.doubts or readings.more or readings.limit or readings.divided - _TAKEN_APART:
        return False
    return not any(_odd_charset(part) or _is_encoded_message(part) for part in readings.parts)


_TAKEN_APART = frozenset(
    f"multipart/{kind}" for kind in ("mixed", "alternative", "related", "report", "digest")
)
"""Where scanners that divide messages look at each part. ClamAV 1.4 takes all but one for text in
`signed` and `parallel`."""


def _is_encoded_message(part: Part) -> bool:
    """As RFC 2046 forbids it, so that scanners look at what is encoded only."""
    return part.type.startswith("message/") and part.encoding in DECODERS


def gather(readings: Readings) -> Contents:
    """The contents of all readings."""
    found: list[Content] = []
    seen: set[bytes] = set()
    left, limit = MAX_CONTENTS, readings.limit
    for content in _each(readings):
        if left < 0 or len(found) >= MAX_PARTS:
            return Contents(tuple(found), limit or "too many contents")
        hashed = sha256()
        for piece in content.pieces():
            hashed.update(piece)
            left -= len(piece)
        if hashed.digest() not in seen:
            seen.add(hashed.digest())
            found.append(content)
    return Contents(tuple(found), limit)


def _each(readings: Readings) -> Iterator[Content]:
    for part in (*readings.parts, *readings.more):
        if part.type in MESSAGES and part.encoding not in DECODERS:
            continue  # what is in it comes by itself
        yield Content(part)
        if charset := _odd_charset(part):
            yield Content(part, charset)


def _odd_charset(part: Part) -> str:
    """The charset of a text in which ASCII is written differently; mostly empty."""
    if not part.type.startswith("text/"):
        return ""
    start = part.content(64)
    for mark, charset in _MARKS:
        if start.startswith(mark):
            return charset
    if start.count(0) >= len(start) // 3 > 0:
        return "utf-16-le" if start[1:2] == b"\0" else "utf-16-be"
    return _recoded(part.charset) if part.charset else ""


def _recode(pieces: Iterable[bytes], charset: str) -> Iterator[bytes]:
    decoder = getincrementaldecoder(charset)("ignore")
    for piece in pieces:
        yield decoder.decode(piece).encode("utf-8", "ignore")


_MARKS = (
    (b"\xff\xfe\0\0", "utf-32"), (b"\0\0\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"),
)  # fmt: skip
_ASCII = bytes(range(32, 127))


def _recoded(charset: str) -> str:
    name = charset.strip().lower().replace("_", "-")
    if name.replace("-", "").removeprefix("unicode11").startswith("utf7"):
        return "utf-7"
    if not header.is_charset(name):
        return ""
    return name if _ASCII.decode(name, "ignore").encode("utf-8", "ignore") != _ASCII else ""
