"""Header fields: where they are in the raw bytes, and what they say decoded.

Fields are found by their lines (RFC 5322 section 2.2), encoded words by RFC 2047, raw 8-bit
text as UTF-8 (RFC 6532) or else Latin-1. Nothing here raises, whatever the bytes. A line that
is no field is passed over; a message that starts with none has no header. Fields over 16 KiB
are unfolded but not decoded.

A header block has at most 1 MiB: what does not fit, from the first field on that is not whole, is
body for us, whatever it looks like. So a header costs little, and is copied as a matter of course.
Of the fields of a message 10,000 are seen, those behind them are passed over.
"""

from __future__ import annotations

import binascii
import re
from codecs import getincrementaldecoder
from collections.abc import Iterator
from encodings import normalize_encoding
from encodings.aliases import aliases
from functools import lru_cache

from .raw import Raw

MAX_BLOCK = 1 << 20
MAX_FIELDS = 10_000
MAX_FIELD = 16 << 10

# Possessive: a field of a million folded lines takes no more memory than its bytes.
_FIELD = re.compile(rb"^([!-9;-~]++)[ \t]*+:([^\n]*+(?:\n[ \t][^\n]*+)*+)\n?", re.MULTILINE)
_WHOLE = re.compile(rb".*\n(?=[^ \t])", re.DOTALL)  # up to where the last field begins
_FOLD = re.compile(rb"\n[ \t]+")
_MBOX_FROM = re.compile(rb">?From [^\n]*\n")
_WORD = re.compile(r"=\?([^?\s]{1,60})\?([bBqQ])\?([^?]*)\?=")
# The charsets that Python knows, without codecs of bytes and those that give no text or half
# characters. Only these are looked up: Python keeps each name that it was ever asked for.
_CODECS = {
    *aliases.values(),
    *("cp1006", "cp720", "cp737", "cp856", "cp874", "koi8_t", "koi8_u", "utf_8_sig"),
} - {
    *("base64_codec", "bz2_codec", "hex_codec", "mbcs", "quopri_codec", "rot_13", "uu_codec"),
    *("utf_7", "zlib_codec"),
}


def block_end(raw: Raw, start: int = 0, end: int | None = None) -> int:
    """Where a header block that begins at `start` ends: after the last field's newline.

    Nothing behind its first MiB is looked at but for one byte: does the last field go on there?
    """
    end = len(raw) if end is None else end
    most = min(end, start + MAX_BLOCK)
    mbox = _MBOX_FROM.match(raw, start, most)
    first = mbox.end() if mbox else start
    if not _FIELD.match(raw, first, most):
        return start
    seen = min(end, most + 1)
    blank = raw.find(b"\n\n", first, seen)
    if blank >= 0:
        return blank + 1
    if most == end:
        return end
    whole = _WHOLE.match(raw, first, seen)
    return whole.end() if whole else start


def fields(raw: Raw, start: int, end: int) -> Iterator[tuple[bytes, int, int, int]]:
    """The fields between two offsets: (name in lower case, start, start of the body, end)."""
    for m in _FIELD.finditer(raw, start, end):
        yield m[1].lower(), m.start(), m.start(2), m.end()


def unfold(value: bytes) -> bytes:
    """A field body on one line, without the white space around it (RFC 5322 section 2.2.3)."""
    return value.replace(b"\n", b"").strip(b" \t\r")


def undecoded(value: bytes) -> str:
    """A field body as text with its encoded words as they are; every byte can be had back."""
    return unfold(value).decode("utf-8", "surrogateescape")


def decoded(value: bytes) -> str:
    """A field body as a person reads it: a fold is one space, whatever it was made of."""
    line = _FOLD.sub(b" ", value).strip(b" \t\r\n")
    if len(value) > MAX_FIELD:
        return line.decode("utf-8", "replace")
    return decode_words(text_of(line))


def text_of(raw: bytes, charset: str = "utf-8", *, cut: bool = False) -> str:
    """Bytes as text in `charset`, else UTF-8, else Latin-1. Never fails.

    `cut`: they are the beginning of more, and may end inside a character, which is left out.
    """
    for name in (charset, "utf-8"):
        codec = _codec(name)
        if codec is None:
            continue
        try:
            return getincrementaldecoder(codec)().decode(raw) if cut else raw.decode(codec)
        except (UnicodeError, ValueError, LookupError):
            continue
    return raw.decode("latin-1")


def is_charset(name: str) -> bool:
    """Whether text in a charset of this name can be decoded."""
    return _codec(name) is not None


@lru_cache(256)
def _codec(charset: str) -> str | None:
    name = normalize_encoding(charset[:40]).lower()
    name = aliases.get(name, name)
    return name if name in _CODECS else None


def decode_words(text: str) -> str:
    """Text with its encoded words decoded (RFC 2047); what cannot be decoded stays as it is.

    White space between two encoded words is dropped. Neighbours of one charset are joined
    before they are decoded, because many senders split characters between words.
    """
    if "=?" not in text:
        return text
    out: list[str] = []
    pending, charset = b"", ""
    at = 0
    for word in _WORD.finditer(text):
        content = _word_bytes(word[2], word[3])
        name = word[1].partition("*")[0].lower()  # RFC 2231 section 5: a language may follow
        if content is None or _codec(name) is None:
            continue
        gap = text[at : word.start()]
        if at > 0 and not gap.strip(" \t\r\n"):
            gap = ""
        if gap or name != charset:
            out += [text_of(pending, charset), gap]
            pending = b""
        pending, charset = pending + content, name
        at = word.end()
    return "".join([*out, text_of(pending, charset), text[at:]])


def _word_bytes(encoding: str, content: str) -> bytes | None:
    raw = content.encode("utf-8", "surrogateescape")
    if encoding in "qQ":
        return binascii.a2b_qp(raw, header=True)
    try:
        return binascii.a2b_base64(raw + b"==")
    except binascii.Error:
        return None
