"""The file name of a part, in all the ways in which readers of mail read it (P47).

Readers differ in which field they believe (Content-Disposition, Content-Type, in want of both
Content-Location and Content-Description), in how they undo RFC 2231, RFC 2047 and percents, and in
what they leave out before they make a file of it: folders, NUL, dots and spaces at the end,
characters that nobody sees. All readings count, so a rule about names sees the worst of them.
Nothing here raises. Known limit: a name as HTML entities is not decoded, for no reader does it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from urllib.parse import unquote_to_bytes

from . import header
from .declared import Declared, declared, parameters
from .mime import Part

MAX_NAMES = 32
MAX_NAME = 1_000

REVERSING = re.compile("[\u202a-\u202e\u2066-\u2069]")
"""Characters that change the direction in which a name is shown: `exe.gpj` reads `jpg.exe`."""
# What is not shown, or shown as if it were nothing.
_UNSEEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f\u180e\u200b-\u200f\u2028-\u202e"
    "\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\ufff0-\uffff\ud800-\udfff]"
)
_DOTS = str.maketrans(dict.fromkeys("\u2024\u3002\uff0e\uff61\ufe52\u0701\u0702\ua4f8", "."))
_LEFT_OUT = " .\t\u00a0\u3000"
_PERCENT = re.compile(r"%[0-9A-Fa-f]{2}")
_FOLDER = re.compile(r"[/\\]")
_STREAM = re.compile("[:;]")
_LETTERS = re.compile(r"\w+")
_CHARSET = re.compile(rb"\*\d{0,4}\*?\s*=\s*\"?([\w.:+-]*)'[^']*'", re.ASCII)
_WORD = re.compile(r"=\?([^?\s]*)\?([^?\s]*)\?")
# Field, parameter: those of the first line that say something are the name.
_SOURCES = (
    (("content-disposition", "filename"), ("content-type", "name"), ("content-type", "filename"),
     ("content-disposition", "name")),
    (("content-location", ""), ("content-description", "")),
)  # fmt: skip


def names(part: Part) -> tuple[str, ...]:
    """The readings of the file name, that of most readers first; at most 32, or none."""
    read = [r for source in _readings(part, _header(part)) for r in _cleaned(source)]
    return tuple(dict.fromkeys(r for r in read if r.strip()))[:MAX_NAMES]


def extensions(readings: Iterable[str]) -> tuple[str, ...]:
    """What stands behind the last dot of each reading."""
    found: list[str] = []
    for name in readings:
        _, dot, extension = name.rstrip(_LEFT_OUT).rpartition(".")
        letters = _LETTERS.match(extension)
        found += [extension, letters[0] if letters else ""] if dot else []
    return tuple(dict.fromkeys(filter(None, found)))


def undecodable(part: Part) -> bool:
    """Whether a name is there that cannot be decoded as it says, or that no file can have."""
    fields = _header(part)
    values = [v for field, name in _SOURCES[0] for v in fields.get(field, ()) if name]
    charsets = [c[1].decode() for v in values for c in _CHARSET.finditer(v)]
    return any(map(_unknown, charsets)) or any(_broken(r) for r in _readings(part, fields))


def _broken(reading: str) -> bool:
    text = header.decode_words(reading)
    if any(c in text for c in "\0\ufffd") or _WORD.search(text):
        return True
    extension = text.rpartition(".")[2]
    return text != _shown(text) and "\udc80" <= max(extension, default="") <= "\udcff"


def _unknown(charset: str) -> bool:
    return bool(charset) and not header.is_charset(charset)


def _header(part: Part) -> Declared:
    return declared(part.raw, part.head, part.start) if part.head >= 0 else {}


def _readings(part: Part, fields: Declared) -> list[str]:
    """What the fields say, in all ways, before anything is cleaned."""
    found = [part.name] if part.name else []
    for sources in _SOURCES:
        for field, name in () if found and sources is not _SOURCES[0] else sources:
            for value in fields.get(field, ()):
                found += parameters(value, name) if name else _described(value)
    return list(dict.fromkeys(reading[-MAX_NAME:] for reading in found))


def _described(value: bytes) -> list[str]:
    """A field that is a name only where it looks like that of a file."""
    text = header.decoded(value)
    return [text] if _FILE.fullmatch(text.strip(' <>"')) else []


_FILE = re.compile(r"[^\n]{1,200}\.\w{2,5}[\s.]*")


def _cleaned(reading: str) -> Iterator[str]:
    """A reading as it came, and as readers make file names of it."""
    text = header.decode_words(_shown(reading))
    yield text
    for spelling in (text, text.partition("\0")[0], _percents(text)):
        clean = _plain(spelling)
        yield clean
        yield _plain(REVERSING.sub("", clean))
        yield _FOLDER.split(clean.rstrip("/\\"))[-1]
        yield _STREAM.split(clean)[0]


def _shown(reading: str) -> str:
    """Bytes that are no UTF-8 are Latin-1."""
    return (
        header.text_of(reading.encode("utf-8", "surrogateescape"))
        if _has_bytes(reading)
        else reading
    )


def _has_bytes(text: str) -> bool:
    return any("\udc80" <= c <= "\udcff" for c in text)


def _percents(text: str) -> str:
    if not _PERCENT.search(text):
        return text
    return header.text_of(unquote_to_bytes(text.encode("utf-8", "replace")))


def _plain(text: str) -> str:
    """Without what nobody sees, and in the letters that look the same (UAX 15, NFKC)."""
    if text.isascii() and text.isprintable():
        return text.strip(" '\"").rstrip(_LEFT_OUT)
    seen = _UNSEEN.sub("", unicodedata.normalize("NFKC", text.translate(_DOTS)))
    return seen.strip(" '\"").rstrip(_LEFT_OUT)
