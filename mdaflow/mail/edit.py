"""Edits of the header: fields added, set and removed in the raw bytes (RFC 5322, RFC 2047).

Every byte that an edit does not name stays as it was, and the body is not copied (P14). What is
written can hold no line end and no control character (P15); lines are folded at 78 octets, and
what is not ASCII becomes encoded words of UTF-8. Runs of spaces in a value become one, and a
value is cut where its field would have more than 16 KiB, so that what was written is read back.
Where only something in ASCII is put before what a field says already, that stays as it was
written, byte by byte: `set header "Subject: [SPAM] {subject}"`.

Known limit: where the first field is removed from above a line that is no field, the message
begins with that line, and has no header for a reader who does not get it below fields of ours.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Callable, Iterator
from itertools import groupby, islice

from . import header
from .header import MAX_FIELD, MAX_FIELDS
from .message import Message

MAX_HEAD = 256 << 10
"""Bytes of an edited header."""

NAME = re.compile(r"[!-9;-~]{1,76}")
"""A field name, for `fullmatch` (RFC 5322 section 3.6.8)."""

_PROTECTED = frozenset(
    (
        "received",  # counts the hops of a loop, and RFC 5293 section 6 forbids it
        "auto-submitted",  # ends loops of automatic replies; RFC 5293 section 6 too
        *("return-path", "delivered-to", "x-original-to"),  # ours to say, from the envelope
        "mime-version",  # would change how the bytes of the body are read
    )
)
_PROTECTED_PREFIXES = (
    "x-mdaflow-",  # our own namespace: proves where a message has been (P15, P37)
    "content-",  # as MIME-Version
)

_LINE = 78
_LONGEST = 900
"""Octets of a word that is not divided, so that a line with any name has less than 998."""
_WORD_BYTES = 33
"""Bytes of one encoded word: with most names it fits into the 76 columns of RFC 2047."""

# All that could end a line for somebody, and what is no text.
_UNSAFE = re.compile(r"[\x00- \x7f-\x9f\u2028\u2029\ud800-\udfff]+")
_NEVER = re.compile(rb"[\x00\r]|\n(?![ \t]|\Z)")
_MBOX_FROM = re.compile(rb">?From [^\n]*\n")
# Lines of nothing but spaces, and what is folded behind them, go with the field above.
_FOLDED = re.compile(rb"(?:[ \t][^\n]*+\n?)*+")


def protected(name: str) -> bool:
    """Whether rules may not edit fields of this name."""
    return name.lower() in _PROTECTED or name.lower().startswith(_PROTECTED_PREFIXES)


def add(message: Message, name: str, value: str) -> Message:
    """The message with one more field, at the top of its header.

    This and `set_` raise ValueError for what is no field name; all three do for a header that
    is, or would become, too big.
    """
    head = message.head
    mbox = _MBOX_FROM.match(head)
    at = mbox.end() if mbox else 0
    return _edited(message, head[:at] + _field(name, value) + head[at:])


def set_(message: Message, name: str, value: str) -> Message:
    """The message with this one field of that name: where the first was, or at the top."""
    above, *rest = _without(message, name)
    if not rest:
        return add(message, name, value)
    field = _prefixed(message, name, value) or _field(name, value)
    return _edited(message, b"".join((above, field, *rest)))


def _prefixed(message: Message, name: str, value: str) -> bytes:
    """The field that is there, with words before its value; empty when that is not all."""
    written = message.fields[name.lower().encode()][0]
    prefix = value.removesuffix(header.decoded(written))
    field = _field(name, prefix)
    if (
        not prefix.isascii()
        or not prefix.endswith(" ")
        or len(prefix) == len(value)
        or len(written) > MAX_FIELD
        or field.count(b"\n") > 1
        or _NEVER.search(written)
    ):
        return b""
    return field[:-1] + b" " + written.lstrip(b" \t").rstrip(b"\n") + b"\n"


def remove(message: Message, name: str, selected: Callable[[str], bool] | None = None) -> Message:
    """The message without the fields of that name; of those, the ones whose value is selected.

    The callable is asked about each value, decoded, and says which fields go.
    """
    return _edited(message, b"".join(_without(message, name, selected)))


def _without(
    message: Message, name: str, selected: Callable[[str], bool] | None = None
) -> list[bytes]:
    """The stretches of the header between the fields that shall go."""
    head, key = message.head, name.lower().encode("utf-8", "surrogateescape")
    kept: list[bytes] = []
    done = 0
    for found, start, value, end in islice(header.fields(head, 0, len(head)), MAX_FIELDS):
        if found != key or (selected and not selected(header.decoded(head[value:end]))):
            continue
        kept.append(head[done:start])
        folded = _FOLDED.match(head, end)
        done = folded.end() if folded else end
    return [*kept, head[done:]]


def _edited(message: Message, head: bytes) -> Message:
    if head == message.head:
        return message
    # of fields that are not seen, some of a name could stay behind
    if len(head) > MAX_HEAD or not message.header_seen:
        raise ValueError("header too big")
    return message.edited(head)


def _field(name: str, value: str) -> bytes:
    """A field with its newline. Lines are divided between words, at one space."""
    if not NAME.fullmatch(name):
        raise ValueError("bad field name")
    lines: list[str] = []
    line = f"{name}:"
    left = MAX_FIELD
    for number, word in enumerate(_words(_UNSAFE.sub(" ", value[:MAX_FIELD]).strip(" "))):
        left -= len(word) + 2
        if left < 0:
            break
        if number and len(line) + 1 + len(word) > _LINE:
            lines.append(line)
            line = ""
        line += f" {word}"
    return "\n".join((*lines, line, "")).encode("ascii")


def _words(value: str) -> Iterator[str]:
    """What must not be divided: plain words, and encoded ones for all others."""
    for plain, words in groupby(value.split(" "), _plain):
        if plain:
            yield from words
        else:  # together with the spaces between them, which readers drop between encoded words
            yield from _encoded(" ".join(words))


def _plain(word: str) -> bool:
    """Whether a word is read as it is written."""
    return word.isascii() and "=?" not in word and len(word) <= _LONGEST


def _encoded(text: str) -> Iterator[str]:
    """Encoded words (RFC 2047 section 2); none holds a part of a character."""
    raw = text.encode()
    at = 0
    while at < len(raw):
        end = min(at + _WORD_BYTES, len(raw))
        while end < len(raw) and raw[end] & 0xC0 == 0x80:  # not the first byte of a character
            end -= 1
        yield f"=?utf-8?b?{binascii.b2a_base64(raw[at:end], newline=False).decode()}?="
        at = end
