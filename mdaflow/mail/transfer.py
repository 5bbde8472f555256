"""Transfer encodings (RFC 2045 section 6), and what readers of mail take for one.

A decoder takes the pieces of an encoded content and gives the decoded ones. What can be read is
read, whatever the bytes: nothing raises. `base64` and `quoted-printable` go piece by piece. The
others take the whole: they are for contents that readers read differently, and for files that
stand in a text (uuencode, yEnc, BinHex 4.0 of RFC 1741).
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Callable, Iterable, Iterator

MAX_BINHEX = 64 << 20
"""Bytes that runs of one byte may become."""
MAX_ENDS = 100_000
"""Ends of base64 behind which it is read on; what is behind is one piece."""

ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_NO_BASE64 = bytes(c for c in range(256) if c not in ALPHABET)
_NO_BASE64_OR_PAD = _NO_BASE64.replace(b"=", b"")


def base64(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """What can be read of it: padding may be missing, other characters are passed over."""
    text = b""
    for piece in pieces:
        if text:  # and there is more behind it
            text = text.translate(None, _NO_BASE64_OR_PAD)
            letters, last = text.replace(b"=", b""), text[-1:]
            begun = len(letters) % 4
            content = binascii.a2b_base64(text + b"A" * (-begun % 4))
            if len(content) < (len(letters) + 3) // 4 * 3:  # pads have ended it
                break
            yield content[: len(letters) // 4 * 3]
            text = letters[len(letters) - begun :] + (last if last == b"=" else b"")
        text += piece
    try:
        yield binascii.a2b_base64(text + b"==")
    except binascii.Error:  # one character is too many at the end
        yield _letters(text)


def _letters(text: bytes) -> bytes:
    """What all letters together say, as if there were nothing else."""
    clean = text.translate(None, _NO_BASE64)
    begun = len(clean) % 4
    return binascii.a2b_base64(
        clean + b"=" * (4 - begun) if begun > 1 else clean[: len(clean) - begun]
    )


def quoted_printable(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Divided behind a line, else, in a line of a MiB, before an escape."""
    text = b""
    for piece in pieces:
        if text:
            end = text.rfind(b"\n") + 1 or len(text[: text.rfind(b"=") + 1].rstrip(b"="))
            end = end or len(text)
            yield binascii.a2b_qp(text[:end])
            text = text[end:]
        text += piece
    yield binascii.a2b_qp(text)


# as other readers do


def _base64_on(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Nothing ends it: pads are passed over as all that is no letter."""
    yield _letters(b"".join(pieces))


def _base64_each(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """What pads have ended begins anew behind them."""
    yield b"".join(map(_letters, re.split(b"=+", b"".join(pieces), maxsplit=MAX_ENDS)))


def _base64_lines(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Lines that have something else than letters are passed over as a whole."""
    lines = _BASE64_LINE.finditer(b"".join(pieces))
    yield _letters(b"".join(line[0] for line in lines))


def _base64_url(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The alphabet for file names (RFC 4648 section 5)."""
    yield _letters(b"".join(pieces).translate(_URL))


def _trimmed(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """White space at the end of a line was put there on the way (RFC 2045 section 6.7)."""
    text = b""
    for piece in pieces:
        lines, end, text = (text + piece).rpartition(b"\n")
        yield binascii.a2b_qp(_SOFT.sub(b"=\n", lines + end))
    yield binascii.a2b_qp(_SOFT.sub(b"=\n", text))


_BASE64_LINE = re.compile(rb"^[A-Za-z0-9+/]+={0,2}[ \t\r]*$", re.MULTILINE)
_URL = bytes.maketrans(b"-_", b"+/")
_SOFT = re.compile(rb"=(?:[ \t]+\r?\n|[ \t]*\r(?!\n))")


def _uuencode(pieces: Iterable[bytes]) -> Iterator[bytes]:
    text = b"".join(pieces)
    begin = UU_BEGIN.search(text)
    out = bytearray()
    for line in _LINE.finditer(text, begin.end() if begin else 0):
        if line[0] == b"end":
            break
        encoded = line[0].rstrip(b"\r")
        length = (((encoded[0] - 32) & 63) * 4 + 5) // 3  # lines may have a checksum behind
        try:
            out += binascii.a2b_uu(encoded[:length])
        except binascii.Error:
            continue
    yield bytes(out)


UU_BEGIN = re.compile(rb"^begin(?:-base64)? +[0-7]{3,6} +([^\r\n]+)\r?\n", re.MULTILINE)
_LINE = re.compile(rb"[^\n]+")


def _yenc(pieces: Iterable[bytes]) -> Iterator[bytes]:
    text = b"".join(pieces)
    begin = YENC_BEGIN.search(text)
    start = begin.end() if begin else 0
    end = text.find(b"\n=yend", max(start - 1, 0))
    lines = text[start : end if end >= 0 else len(text)].translate(None, b"\r\n")
    for at in range(0, len(lines), _YENC_PIECE):
        piece = lines[at : at + _YENC_PIECE + 1]
        escaped = lines[at - 1 : at] == b"=" and _open(lines, at)
        last = piece[-1:] if len(piece) > _YENC_PIECE and _open(lines, at + _YENC_PIECE) else b""
        body = piece[escaped:_YENC_PIECE] + last
        yield _YENC_ESCAPE.sub(lambda m: bytes([(m[1][0] - 64) % 256]), body).translate(_YENC)


def _open(lines: bytes, at: int) -> bool:
    """Does the escape before this offset take the byte at it?"""
    before = lines[max(0, at - _YENC_PIECE) : at]
    return (len(before) - len(before.rstrip(b"="))) % 2 == 1


_YENC_PIECE = 1 << 16
YENC_BEGIN = re.compile(rb"^=ybegin [^\n]*?name=([^\r\n]*)\r?\n(?:=ypart [^\n]*\n)?", re.MULTILINE)
_YENC_ESCAPE = re.compile(rb"=(.)", re.DOTALL)
_YENC = bytes((c - 42) % 256 for c in range(256))


def _binhex(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The whole of it: the name, the data, the resources."""
    text = b"".join(pieces)
    start = text.find(b"\n:") + 2
    encoded = text[start : text.find(b":", start) % (len(text) + 1)]
    first, *rest = _letters(encoded.translate(_HQX, _NO_HQX)).split(b"\x90")
    out = bytearray(first)
    for run in rest:  # the count of a run, and what is behind it
        count = run[0] if run else 0x90
        out += out[-1:] * (count - 1) if count else b"\x90"
        out += run[1:]
        if len(out) > MAX_BINHEX:
            break
    yield bytes(out)


_HQX_LETTERS = b"!\"#$%&'()*+,-012345689@ABCDEFGHIJKLMNPQRSTUVXYZ[`abcdefhijklmpqr"
_HQX = bytes.maketrans(_HQX_LETTERS, ALPHABET)
_NO_HQX = bytes(c for c in range(256) if c not in _HQX_LETTERS)

DECODERS: dict[str, Callable[[Iterable[bytes]], Iterable[bytes]]] = {
    "base64": base64,
    "quoted-printable": quoted_printable,
}
"""What RFC 2045 knows."""
OTHERS: dict[str, Callable[[Iterable[bytes]], Iterable[bytes]]] = {
    "base64, all letters": _base64_on,
    "base64, piece by piece": _base64_each,
    "base64, whole lines": _base64_lines,
    "base64url": _base64_url,
    "quoted-printable, trimmed": _trimmed,
    "uuencode": _uuencode,
    "yenc": _yenc,
    "binhex": _binhex,
}
"""What some readers do; a message cannot declare them by these names."""
OTHER_WAYS = tuple(OTHERS)[:5]
"""Those of base64 (`base64url` is the last), and that of quoted-printable."""
