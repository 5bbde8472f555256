"""xtext: text in the value of an ESMTP parameter (RFC 3461 section 4), and its kin for UTF-8.

`+41` is one byte. In addresses of the type `utf-8` (RFC 6533 section 3) `\\x{FC}` is one
character, and others may stand as they are: utf-8-addr-unitext; without those it is
utf-8-addr-xtext. What is decoded is UTF-8 without controls, because it ends up in logs and
header fields. No I/O.

Wider than the RFCs on purpose: hexadecimal digits in lower case, and `+41` for `utf-8` too,
because Postfix writes it.
"""

from __future__ import annotations

import re

from .path import CONTROL

_XTEXT = re.compile(r"(?:[!-*,-<>-~]|\+[0-9A-Fa-f]{2})*")
_UTF8 = re.compile(
    r"(?:[^\0- +=\\\x7f]|\+[0-9A-Fa-f]{2}"  # negated: a set up to U+10FFFF is slow to compile
    r"|\\x\{(?:[0-9A-Fa-f]{2,5}|10[0-9A-Fa-f]{4})\})*"
)
_BYTE = re.compile(rb"\+(..)")
_POINT = re.compile(r"\\x\{(.{2,6}?)\}")
_NOT_XTEXT = re.compile(rb"[^!-*,-<>-~]")
_NOT_QCHAR = re.compile(r"[^!-*,-<>-\[\]-~]")
_NOT_VISIBLE = re.compile(r"[^!-~]")


def decode(value: str) -> str:
    """xtext as text. Raises ValueError with a short reason."""
    if not _XTEXT.fullmatch(value):
        raise ValueError("not xtext")
    return _text(value)


def decode_address(value: str) -> str:
    """utf-8-addr-xtext or utf-8-addr-unitext as text. Raises ValueError with a short reason."""
    if not _UTF8.fullmatch(value):
        raise ValueError("not utf-8-addr-xtext")
    try:
        # a point that is `+` must not begin a byte
        return _text(_POINT.sub(lambda m: encode(chr(int(m[1], 16))), value))
    except UnicodeEncodeError:  # half of one
        raise ValueError("not a character") from None


def encode(text: str) -> str:
    """Text as xtext. Raises UnicodeEncodeError for half a character."""
    return _NOT_XTEXT.sub(lambda m: b"+%02X" % ord(m[0]), text.encode()).decode()


def encode_address(text: str) -> str:
    """Text as utf-8-addr-xtext: ASCII, for any header field."""
    return _NOT_QCHAR.sub(_point, text)


def in_ascii(value: str) -> str:
    """utf-8-addr-unitext as utf-8-addr-xtext, which means the same; xtext stays as it is."""
    return _NOT_VISIBLE.sub(_point, value)


def _point(found: re.Match[str]) -> str:
    return f"\\x{{{ord(found[0]):02X}}}"


def _text(value: str) -> str:
    try:
        text = _BYTE.sub(lambda m: bytes.fromhex(m[1].decode()), value.encode()).decode()
    except UnicodeDecodeError:
        raise ValueError("not UTF-8") from None
    if CONTROL.search(text):
        raise ValueError("control character")
    return text
