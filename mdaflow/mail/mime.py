"""The parts of a message (RFC 2045, 2046), found by one capped scan of the raw bytes.

Parts are offsets into the raw message; nothing is copied until somebody asks for a part's
content. The stdlib `email` package (policy compat32) reads parameters and undoes transfer
encodings, on one part at a time. At most 10,000 parts, 64 levels deep: what lies deeper
belongs to the part it is in. Nothing here raises, whatever the bytes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from email.message import Message as EmailPart

from . import header
from .raw import Raw, finds, let_go, slices
from .transfer import DECODERS, OTHERS

MAX_PARTS = 10_000
MAX_DEPTH = 64
MAX_MISSED = 10_000
"""Lines of a multipart that begin like a delimiter, and are none."""
MAX_TEXT = 8 << 20
MAX_PARAMETERS = 4 << 10
MAX_SEMICOLONS = 100
MAX_HEAD = 64 << 10
"""Bytes of a part's header, but for the first, in which its type is looked for."""
_READ = (b"content-type", b"content-transfer-encoding", b"content-disposition")
_DELIMITER_END = re.compile(rb"[ \t\r]*+(--)?[ \t\r]*+(?:\n|\Z)")
_TYPE = re.compile(r"\s*([\w!#$&^.+-]+/[\w!#$&^.+-]+)")


@dataclass(frozen=True, slots=True)
class Part:
    """One leaf: where its content lies in `raw`, and what its header says of it."""

    raw: Raw
    start: int
    end: int
    type: str
    """The declared media type in lower case; `text/plain` when there is none."""
    charset: str
    encoding: str
    disposition: str
    name: str
    """The file name, decoded; empty when there is none."""
    head: int = -1
    """Where its header begins, which ends at `start`; -1 when it has none."""

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
        return b"".join(self.pieces(limit))

    def pieces(self, limit: int | None = None) -> Iterable[bytes]:
        """The same piece by piece, each of a few MiB at most."""
        end = self.end if limit is None else min(self.end, self.start + limit)
        if end < self.end and self.encoding == "quoted-printable":
            torn = _TORN.search(self.raw, max(self.start, end - 2), end)
            end = torn.start() if torn else end
        raw = slices(self.raw, self.start, end)
        decode = DECODERS.get(self.encoding) or OTHERS.get(self.encoding)
        return raw if decode is None else decode(raw)

    @property
    def text(self) -> str:
        """The content as text, of its first 8 MiB."""
        cut = self.end - self.start > MAX_TEXT
        return header.text_of(self.content(MAX_TEXT), self.charset or "utf-8", cut=cut)


_TORN = re.compile(rb"=[^=]?\Z")  # an escape that is cut in two


def parts(raw: Raw) -> list[Part]:
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
            inner = split(raw, part.start, end, boundary)
        elif depth < MAX_DEPTH and part.type == "message/rfc822" and part.start < end:
            todo.append((part.start, end, depth + 1))
        if not inner:
            found.append(part)
        todo.extend((a, b, depth + 1) for a, b in reversed(inner))
    return found


def _head(raw: Raw, start: int, end: int) -> tuple[Part, bytes]:
    head_end = header.block_end(raw, start, end)
    body = head_end + (head_end < end and raw[head_end] == 10)
    part = EmailPart()
    examined = min(head_end, start + MAX_HEAD) if start else head_end
    for name, _, value, stop in header.fields(raw, start, examined):
        if name in _READ and name.decode() not in part:
            text = header.text_of(header.unfold(raw[value:stop][:MAX_PARAMETERS]))
            # `email` needs the square of the semicolons to take a field apart
            part[name.decode()] = ";".join(text.split(";")[:MAX_SEMICOLONS])
    let_go(raw)
    return _leaf(raw, start, body, end, part), _boundary(part)


def _leaf(raw: Raw, head: int, start: int, end: int, part: EmailPart) -> Part:
    declared = _TYPE.match(part.get("content-type", ""))
    return Part(
        raw,
        start,
        end,
        declared[1].lower() if declared else "text/plain",
        _parameter(part, "charset", "content-type"),
        _encoding(part.get("content-transfer-encoding", "")),
        part.get("content-disposition", "").partition(";")[0].strip().lower(),
        header.decode_words(
            _parameter(part, "filename", "content-disposition")
            or _parameter(part, "name", "content-type")
        ),
        head,
    )


def _encoding(declared: str) -> str:
    found = declared.strip().lower()
    return "" if found in OTHERS else found


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


def split(
    raw: Raw, start: int, end: int, boundary: bytes, stop: Callable[[], object] = bool
) -> list[tuple[int, int]]:
    """The body parts of a multipart between its delimiter lines (RFC 2046 section 5.1.1).

    The line above `start` is the empty one behind the header. `stop` is called where so many lines
    only begin like a delimiter that the rest is not divided.
    """
    missed = 0
    delimiter = b"\n--" + boundary
    inner: list[tuple[int, int]] = []
    opened = -1
    for at in finds(raw, delimiter, start - 1, end):
        line_end = _DELIMITER_END.match(raw, at + len(delimiter), end)
        if line_end is None:
            missed += 1
            if missed == MAX_MISSED:
                stop()
                break
            continue
        if opened >= 0:
            inner.append((opened, max(opened, at)))
        opened = line_end.end()
        if line_end[1] or len(inner) == MAX_PARTS:
            return inner
    if opened >= 0:  # the closing delimiter is missing: the last part runs to the end
        inner.append((opened, end))
    return inner
