"""A message: its raw bytes, which never change, and views of them that are made when asked.

Lines end in LF, as they are stored; `from_wire` takes the CRLF of the wire or of a file.
Any bytes are a Message. Nothing here does I/O or raises.

An edited message has another header block and shares all that is behind it: a body is never
copied and never parsed twice.
"""

from __future__ import annotations

from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING

from . import header
from .address import MAX_ADDRESSES, Address, parse_addresses
from .header import decoded, undecoded
from .raw import Raw, cut, digest, let_go, slices

if TYPE_CHECKING:  # most messages are sorted by their header: MIME is imported when asked for
    from .contents import Contents
    from .mime import Part
    from .readings import Readings

MAX_TEXT = 4 << 20
MAX_READ = 8 << 20


class Message:
    """An immutable message. `raw` is all of it as it came, with LF line ends: bytes, or a
    mapping of a file (see raw.py for what that means), whose views are the same."""

    def __init__(self, raw: Raw) -> None:
        self.raw = raw

    @classmethod
    def from_wire(cls, data: bytes) -> Message:
        """A message whose lines may end in CRLF, e.g. a file that a mail program saved.

        The `From ` line of an mbox, which Postfix too puts before what it pipes, is none of it.
        """
        first = data.find(b"\n")
        raw = data.replace(b"\r\n", b"\n") if data[first - 1 : first] == b"\r" else data
        return cls(raw[raw.find(b"\n") + 1 :] if raw.startswith(b"From ") else raw)

    def __repr__(self) -> str:
        return f"<Message {self.size:,} bytes>"

    def edited(self, head: bytes) -> Message:
        """The same message with another header block: fields, each with its newline, or none."""
        return _Edited(self, head)

    def under(self, *head: bytes) -> list[bytes | memoryview]:
        """The chunks of a message: this header block, and the body as it came."""
        gap = self._gap if any(head) else b""
        body = memoryview(self.raw)[self.header_end :]
        chunks: tuple[bytes | memoryview, ...] = (*head, gap, body)
        return [chunk for chunk in chunks if chunk]

    @property
    def _gap(self) -> bytes:
        """What parts fields from a body that came without a header: they must not swallow it."""
        return b"\n" if self.header_end == 0 and self.raw[:1] not in (b"", b"\n") else b""

    @property
    def size(self) -> int:
        """Bytes."""
        return len(self.raw)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the message as it came, in hexadecimal."""
        return digest([self.raw])

    @cached_property
    def lines(self) -> int:
        """Lines of header and body."""
        return _lines(self.raw)

    @cached_property
    def header_end(self) -> int:
        """The offset in `raw` behind the last header field that came; at most 1 MiB."""
        end = header.block_end(self.raw)
        let_go(self.raw)
        return end

    @property
    def head(self) -> bytes:
        """The header block, without the empty line behind it."""
        return self.raw[: self.header_end]

    @cached_property
    def fields(self) -> dict[bytes, list[bytes]]:
        """The folded bodies of the first 10,000 header fields by name, in lower case."""
        found: dict[bytes, list[bytes]] = {}
        head = self.head
        for name, _, start, end in islice(header.fields(head, 0, len(head)), header.MAX_FIELDS):
            found.setdefault(name, []).append(head[start:end])
        return found

    @property
    def header_seen(self) -> bool:
        """Whether all that a reader takes for the header is among `fields`."""
        end = self.header_end
        ended = end == 0 or self.raw[end : end + 1] in (b"", b"\n")
        return ended and sum(map(len, self.fields.values())) < header.MAX_FIELDS

    def header(self, name: str, *, raw: bool = False) -> list[str]:
        """The values of every field called `name`, decoded (RFC 2047) unless `raw`."""
        read = undecoded if raw else decoded
        return [read(value) for value in self.fields.get(_key(name), ())]

    def addresses(self, name: str) -> list[Address]:
        """The addresses of every field called `name`; at most 1,000."""
        values = self.fields.get(_key(name), ())
        return list(islice((a for value in values for a in parse_addresses(value)), MAX_ADDRESSES))

    @cached_property
    def parts(self) -> list[Part]:
        """The leaves of the MIME structure."""
        from .mime import parts

        return parts(self.raw)

    @cached_property
    def readings(self) -> Readings:
        """What all readers see together: these parts, and what others make of the message."""
        from .readings import read

        return read(self.raw, self.parts)

    @cached_property
    def contents(self) -> Contents:
        """What is to be scanned: the contents of all readings."""
        from .contents import gather

        return gather(self.readings)

    @cached_property
    def attachments(self) -> list[Part]:
        """The parts that are there to be saved, not read, in the eyes of any reader."""
        return [part for part in self.readings.parts if part.attached]

    @cached_property
    def body(self) -> str:
        """The text that a person reads: of all text parts, HTML as text; 4 MiB of it.

        Parts behind the first 8 MiB of text, as they are in the message, are not read.
        """
        texts: list[str] = []
        left, unread = MAX_TEXT, MAX_READ
        for part in self.parts:
            if left > 0 and unread > 0 and not part.attached:
                texts.append(_readable(part)[:left])
                left -= len(texts[-1])
                unread -= part.end - part.start
        return "\n".join(texts)

    @property
    def raw_body(self) -> bytes:
        """What is behind the header, as it is; 4 MiB of it."""
        end = self.header_end
        start = end + (self.raw[end : end + 1] == b"\n")
        return cut(self.raw, start, start + MAX_TEXT)


class _Edited(Message):
    """A message with another header block; what is behind it is read by the original, once."""

    def __init__(self, original: Message, head: bytes) -> None:
        super().__init__(original.raw)
        self._original = original
        self._head = head
        self.header_end = original.header_end

    def edited(self, head: bytes) -> Message:
        return _Edited(self._original, head)

    @property
    def head(self) -> bytes:
        return self._head

    @property
    def size(self) -> int:
        return sum(map(len, self.under(self._head)))

    @cached_property
    def lines(self) -> int:
        gap = len(self._gap) if self._head else 0
        return self._original.lines - _lines(self._original.head) + _lines(self._head) + gap

    @cached_property
    def parts(self) -> list[Part]:
        return self._original.parts

    @cached_property
    def readings(self) -> Readings:
        return self._original.readings

    @cached_property
    def contents(self) -> Contents:
        return self._original.contents

    @cached_property
    def body(self) -> str:
        return self._original.body


def _key(name: str) -> bytes:
    return name.lower().encode("utf-8", "surrogateescape")


def _lines(raw: Raw) -> int:
    ends = sum(piece.count(b"\n") for piece in slices(raw, 0, len(raw)))
    return ends + (raw[-1:] not in (b"", b"\n"))


def _readable(part: Part) -> str:
    if part.type != "text/html":
        return part.text
    from .html import text_of_html

    return text_of_html(part.text)
