"""A message as it stands in an mboxrd file (RFC 4155, with the reversible quoting of qmail).

A line `From SENDER DATE`, the message with every line `>*From ` quoted by one more `>`, and an
empty line. This file does no I/O, reads the content once, in time linear to its size, and
copies only the header block, at most a MiB and a bit, and blocks in which there is something to
quote.

Header fields in which mail readers keep state in an mbox, or by which they find its end, are
removed: from outside they are forgeries. The flags we were asked for are written in the same
way: `Status: R`, `X-Status: AFTD`, `X-Keywords: invoice`. Dovecot believes X-Keywords only for
names that X-IMAPbase (or X-IMAP) lists, which stands in the first message of a file: a new file
gets one, and `listing` adds to it in the space that Dovecot leaves for that.

Known limits: a reader that knows only the older mbox, as Dovecot, shows a quoted line with its
additional `>`. State behind the first MiB of a header stays. Where the first message has no list
yet, or no room in its header block, Dovecot drops a keyword that it has not met in that folder. A
line that begins with more than a MiB of
`>` gets no further one before its `From `: it ends no message, but reads as it was not.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from mdaflow.deliver.mailbox import Chunk, Chunks
from mdaflow.mail.header import MAX_BLOCK
from mdaflow.mail.raw import PIECE, let_go

_BLOCK = 1 << 16  # about so many bytes are quoted at once
_HEAD = MAX_BLOCK + (64 << 10)  # bytes of a header without an end that are looked at, ours on top
_FLAGS = {"R": "A", "F": "F", "D": "T", "T": "D"}  # letter in a Maildir -> letter in X-Status
_FROM = re.compile(rb"From ")
_FROM_LINE = re.compile(rb">*+From ")
_BEFORE_FROM_LINE = re.compile(rb"\n(?=>*+From )")
_LINE_END = re.compile(rb"\n")
_WHOLE_FIELDS = re.compile(rb".*\n(?=[^ \t])", re.DOTALL)
_EMPTY_LINE = re.compile(rb"\n(?=\n)")
_SPACES = re.compile(r"[\s\x00-\x1f\x7f-\x9f]+")
# With the folded lines that belong to it. Possessive: a long field takes no memory.
_STATE = re.compile(
    rb"\n(?:Status|X-Status|X-UID|X-IMAP|X-IMAPbase|X-Keywords|Content-Length)"
    rb"[ \t]*+:[^\n]*+(?:\n[ \t][^\n]*+)*+",
    re.IGNORECASE,
)
# The list of keywords: UIDVALIDITY, the last UID, the names.
_LIST = re.compile(rb"\nX-IMAP(?:base)?: [0-9]+ +[0-9]{10}((?: +[!-~]+)*)(?= *\n)", re.IGNORECASE)
_LONGEST = 50  # characters of a keyword: of a longer one Dovecot believes nothing
_PADDED = (b"X-UID:", b"X-Keywords:")  # where Dovecot leaves space at the end


class Listing(NamedTuple):
    """Keywords that are believed, and what has to be written for that at the file's beginning."""

    keywords: tuple[str, ...]
    start: int = 0
    raw: bytes = b""


def entry(
    chunks: Chunks,
    letters: str,
    sender: str,
    received: float,
    keywords: Sequence[str] = (),
    *,
    first: bool = False,
) -> Iterator[Chunk]:
    """All bytes that are added to a file that ends in an empty line, or is empty.

    `letters` are flags as in a Maildir, `received` is in seconds since the epoch. `first`: the
    file is new, so that no reader has a UIDVALIDITY for it.
    """
    yield separator(sender, received)
    if keywords and first:
        validity = max(1, int(received)) & 0x7FFFFFFF
        yield f"X-IMAPbase: {validity} {0:010} {' '.join(keywords)}\n".encode()
    yield _status(letters)
    if keywords:
        yield f"X-Keywords: {' '.join(keywords)}\n".encode()
    last: Chunk = b"\n"
    whole = _whole_lines(_without_state([chunk for chunk in chunks if chunk]))
    for fresh, last in _blocks(whole):
        yield from _quoted(fresh, last)
    yield b"\n" if last[-1:] == b"\n" else b"\n\n"


def separator(sender: str, received: float) -> bytes:
    """The line before a message, in UTC: `From bob@example.org Sat Nov  1 09:05:00 2025`."""
    who = _SPACES.sub("", sender) or "MAILER-DAEMON"
    return f"From {who} {time.asctime(time.gmtime(received))}\n".encode(errors="replace")


def listing(head: bytes, keywords: Sequence[str]) -> Listing:
    """What a file that begins with `head` lets a reader believe of some keywords.

    Those that its first message does not list get a place there, if there is room: nothing
    behind the header block may move, so only spaces give way.
    """
    end = head.find(b"\n\n") + 1
    found = _LIST.search(head, 0, end) if head.startswith(b"From ") else None
    words = [word for word in keywords if len(word) <= _LONGEST]
    if not found:
        return Listing(tuple(words))
    known = found[1].decode().lower().split()
    start, new = found.end(1), ""
    room, stop = _room(head, start, end)
    for word in words:
        if word.lower() not in known and len(new) + 1 + len(word) <= room:
            new += f" {word}"
            known.append(word.lower())
    raw = new.encode() + head[start : stop - len(new)] if new else b""
    return Listing(tuple(word for word in words if word.lower() in known), start, raw)


def _room(head: bytes, start: int, end: int) -> tuple[int, int]:
    """The most spaces at the end of one line that may have them, and where they end."""
    rooms = [(0, start)]
    at = start
    for line in head[start:end].split(b"\n"):
        at += len(line)
        if not line.strip(b" ") or line.startswith(_PADDED):
            rooms.append((len(line) - len(line.rstrip(b" ")), at))
        at += 1
    return max(rooms)


def _status(letters: str) -> bytes:
    others = "".join(there for here, there in _FLAGS.items() if here in letters)
    return (b"Status: R\n" if "S" in letters else b"") + (
        f"X-Status: {others}\n".encode() if others else b""
    )


def _without_state(chunks: Chunks) -> Iterator[Chunk]:
    """The same chunks without the fields of `_STATE` in the header block."""
    head = _header(chunks)
    clean = memoryview(_STATE.sub(b"", head))[1:]
    if clean:
        yield clean
    behind = len(head) - 1
    for chunk in chunks:
        if behind < len(chunk):
            yield memoryview(chunk)[behind:] if behind else chunk
        behind = max(0, behind - len(chunk))


def _header(chunks: Chunks) -> bytes:
    """The header block with a line end before it, so that every line has one."""
    head: list[Chunk] = [b"\n"]
    left = _HEAD
    for chunk in chunks:
        seen = memoryview(chunk)[:left]
        end = _header_end(head[-1], seen)
        if end >= 0:
            return b"".join([*head, seen[:end]])
        head.append(seen)
        left -= len(seen)
    block = b"".join(head)
    if left:
        return block
    whole = _WHOLE_FIELDS.match(block)
    return block[: whole.end()] if whole else b"\n"


def _header_end(before: Chunk, chunk: Chunk) -> int:
    """Where in a chunk the empty line after the header begins; -1 when it is not in it."""
    if before[-1:] == b"\n" and chunk[:1] == b"\n":
        return 0
    found = _EMPTY_LINE.search(chunk)
    return found.end() if found else -1


def _whole_lines(chunks: Iterable[Chunk]) -> Iterator[Chunk]:
    """The same bytes, joined where a line runs from one chunk into the next."""
    parts: list[Chunk] = []
    for chunk in chunks:
        parts.append(chunk)
        if chunk[-1:] == b"\n":
            yield _joined(parts)
            parts = []
    if parts:
        yield _joined(parts)


def _joined(parts: list[Chunk]) -> Chunk:
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _blocks(chunks: Iterable[Chunk]) -> Iterator[tuple[bool, memoryview]]:
    """The same bytes in blocks, so that quoting needs little memory; does one begin a line?"""
    for chunk in chunks:
        view = memoryview(chunk)
        start, fresh = 0, True
        while start < len(view):
            most = start + _BLOCK + PIECE
            line_end = _LINE_END.search(view, start + _BLOCK, most)
            end = line_end.end() if line_end else min(most, len(view))
            yield fresh, view[start:end]
            let_go(view.obj)
            start, fresh = end, line_end is not None


def _quoted(fresh: bool, block: memoryview) -> Iterator[Chunk]:
    if not _FROM.search(block):  # fast, and true of almost all mail
        yield block
        return
    if fresh and _FROM_LINE.match(block):
        yield b">"
    yield _BEFORE_FROM_LINE.sub(b"\n>", block)
