"""The parts of a message (RFC 2045, 2046), found by one capped scan of the raw bytes.

Parts are offsets into the raw message; nothing is copied until somebody asks for a part's
content. The stdlib `email` package (policy compat32) reads parameters and undoes transfer
encodings, on one part at a time. At most 10,000 parts, 64 levels deep: what lies deeper
belongs to the part it is in. Nothing here raises, whatever the bytes.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Callable
from dataclasses import dataclass
from email.message import Message as EmailPart

from . import header

MAX_PARTS = 10_000
MAX_DEPTH = 64
MAX_TEXT = 8 << 20
MAX_PARAMETERS = 4 << 10
MAX_SEMICOLONS = 100
MAX_HEAD = 64 << 10
"""Bytes of a part's header, but for the first, in which its type is looked for."""
_READ = (b"content-type", b"content-transfer-encoding", b"content-disposition")
_TYPE = re.compile(r"\s*([\w!#$&^.+-]+/[\w!#$&^.+-]+)")


@dataclass(frozen=True, slots=True)
class Part:
    """One leaf: where its content lies in `raw`, and what its header says of it."""

    raw: bytes
    start: int
    end: int
    type: str
    """The declared media type in lower case; `text/plain` when there is none."""
    charset: str
    encoding: str
    disposition: str
    name: str
    """The file name, decoded; empty when there is none."""

    @property
    def attached(self) -> bool:
        """Meant to be saved, not read: has a name, says so, or is no text.

        A multipart that could not be divided is text: that is what its reader sees.
        """
        if self.disposition == "attachment" or self.name:
            return True
        return not self.type.startswith(("text/", "multipart/"))

    def content(self, limit: int | None = None) -> bytes:
        """The content with its transfer encoding undone, of the first `limit` encoded bytes."""
        end = self.end if limit is None else min(self.end, self.start + limit)
        decode = _DECODERS.get(self.encoding)
        raw = self.raw[self.start : end]
        return raw if decode is None else decode(raw)

    @property
    def text(self) -> str:
        """The content as text, of its first 8 MiB."""
        return header.text_of(self.content(MAX_TEXT), self.charset or "utf-8")


_NO_BASE64 = bytes(
    c for c in range(256) if not (chr(c).isascii() and chr(c).isalnum()) and c not in b"+/"
)


def _base64(raw: bytes) -> bytes:
    """What can be read of it: padding may be missing, other characters are passed over."""
    try:
        return binascii.a2b_base64(raw + b"==")
    except binascii.Error:  # one character is too many at the end
        clean = raw.translate(None, _NO_BASE64)
        return binascii.a2b_base64(clean[: len(clean) // 4 * 4])


_DECODERS: dict[str, Callable[[bytes], bytes]] = {
    "base64": _base64,
    "quoted-printable": binascii.a2b_qp,
}


def parts(raw: bytes) -> list[Part]:
    """The leaves of a message in their order."""
    found: list[Part] = []
    todo = [(0, len(raw), 0)]
    for _ in range(MAX_PARTS):  # multiparts count too, or empty ones could go on for long
        if not todo:
            break
        start, end, depth = todo.pop()
        part, boundary = _head(raw, start, end)
        inner: list[tuple[int, int]] = []
        if depth < MAX_DEPTH and boundary:
            inner = _split(raw, part.start, end, boundary)
        elif depth < MAX_DEPTH and part.type == "message/rfc822" and part.start < end:
            todo.append((part.start, end, depth + 1))
        if not inner:
            found.append(part)
        todo.extend((a, b, depth + 1) for a, b in reversed(inner))
    return found


def _head(raw: bytes, start: int, end: int) -> tuple[Part, bytes]:
    head_end = header.block_end(raw, start, end)
    body = head_end + raw.startswith(b"\n", head_end, end)
    part = EmailPart()
    examined = min(head_end, start + MAX_HEAD) if start else head_end
    for name, _, value, stop in header.fields(raw, start, examined):
        if name in _READ and name.decode() not in part:
            text = header.text_of(header.unfold(raw[value:stop][:MAX_PARAMETERS]))
            # `email` needs the square of the semicolons to take a field apart
            part[name.decode()] = ";".join(text.split(";")[:MAX_SEMICOLONS])
    return _leaf(raw, body, end, part), _boundary(part)


def _leaf(raw: bytes, start: int, end: int, part: EmailPart) -> Part:
    declared = _TYPE.match(part.get("content-type", ""))
    return Part(
        raw,
        start,
        end,
        declared[1].lower() if declared else "text/plain",
        _parameter(part, "charset", "content-type"),
        part.get("content-transfer-encoding", "").strip().lower(),
        part.get("content-disposition", "").partition(";")[0].strip().lower(),
        header.decode_words(
            _parameter(part, "filename", "content-disposition")
            or _parameter(part, "name", "content-type")
        ),
    )


def _boundary(part: EmailPart) -> bytes:
    if not part.get("content-type", "").lstrip().lower().startswith("multipart/"):
        return b""
    boundary = _parameter(part, "boundary", "content-type").rstrip()
    return boundary.encode("utf-8", "surrogateescape")


def _parameter(part: EmailPart, name: str, field: str) -> str:
    """A parameter with RFC 2231 undone; empty when it is missing or cannot be read."""
    if name not in part.get(field, "").lower():
        return ""
    try:
        value = part.get_param(name, "", field)
    except (ValueError, LookupError, TypeError):
        return ""
    if isinstance(value, tuple):
        charset, _, text = value
        return header.text_of(text.encode("latin-1", "replace"), charset or "utf-8")
    return str(value)


def _split(raw: bytes, start: int, end: int, boundary: bytes) -> list[tuple[int, int]]:
    """The body parts of a multipart between its delimiter lines (RFC 2046 section 5.1.1)."""
    delimiter = b"--" + boundary
    inner: list[tuple[int, int]] = []
    opened = -1
    at = raw.find(delimiter, start, end)
    while at >= 0 and len(inner) < MAX_PARTS:
        line_end = raw.find(b"\n", at, end)
        line_end = end if line_end < 0 else line_end
        rest = raw[at + len(delimiter) : line_end].strip(b" \t\r")
        if (at == start or raw[at - 1] == 10) and rest in (b"", b"--"):
            if opened >= 0:
                inner.append((opened, max(opened, at - 1)))
            opened = min(line_end + 1, end)
            if rest:
                return inner
        at = raw.find(delimiter, max(line_end, at + 1), end)
    if opened >= 0:  # the closing delimiter is missing: the last part runs to the end
        inner.append((opened, end))
    return inner
