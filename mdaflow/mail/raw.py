"""The bytes of a message: `bytes`, or a mapping of the file in which it waits.

A mapping is never copied whole. Its pages count as memory of ours once they are touched, so what
reads a message to its end goes piece by piece and lets the pages behind it go: the kernel has
them from the file again whenever somebody asks.

Nothing here raises. Known limit: a mapping cannot fail as a read can. Where the disk does not
give a page back, the process is killed by SIGBUS; nothing was acknowledged, so the message comes
again.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Protocol, overload

PIECE = 1 << 20
"""The most bytes that are looked at before their pages are let go."""
_DONTNEED = 4  # MADV_DONTNEED, linux/mman.h


class Mapped(Protocol):
    """What we need of an `mmap.mmap` that is shared and only read; this layer opens none."""

    def __len__(self) -> int: ...

    @overload
    def __getitem__(self, at: int, /) -> int: ...

    @overload
    def __getitem__(self, at: slice, /) -> bytes: ...

    def __buffer__(self, flags: int, /) -> memoryview: ...

    def find(self, what: bytes, start: int, end: int, /) -> int:
        """As that of bytes; a long `what` can take the product of both lengths."""

    def madvise(self, advice: int, /) -> None:
        """Say what will be done with the pages. Raises OSError."""


Raw = bytes | Mapped
"""The bytes of a message. An empty one is `bytes`: there is no empty mapping."""


def let_go(raw: object) -> None:
    """Give back the memory of a mapping's pages; of anything else, nothing."""
    if not isinstance(raw, bytes) and hasattr(raw, "madvise"):
        with suppress(OSError):  # the process has locked all of its memory
            raw.madvise(_DONTNEED)


def pieces(chunks: Iterable[Raw | memoryview]) -> Iterator[memoryview]:
    """The same bytes in pieces of at most 1 MiB.

    Who asks for the next piece is done with the one before: its pages are let go.
    """
    for chunk in chunks:
        view = memoryview(chunk)
        for at in range(0, len(view), PIECE):
            yield view[at : at + PIECE]
            let_go(view.obj)


def slices(raw: Raw, start: int, end: int, more: int = 0) -> Iterable[bytes]:
    """Copies of what is between two offsets, of 1 MiB, each with `more` bytes of the next."""
    if end - start <= PIECE:  # fast, and true of almost all mail
        return (cut(raw, start, end),)
    return (cut(raw, at, min(at + PIECE + more, end)) for at in range(start, end, PIECE))


def cut(raw: Raw, start: int, end: int) -> bytes:
    """A copy of what is between two offsets."""
    found = raw[start:end]
    let_go(raw)
    return found


def finds(raw: Raw, what: bytes, start: int, end: int) -> Iterator[int]:
    """The offsets of `what` between two others, in time linear to their distance."""
    at = start
    for piece in slices(raw, start, end, len(what) - 1):
        found = piece.find(what)
        while found >= 0:
            yield at + found
            found = piece.find(what, found + len(what))
        at += PIECE


def windows(raw: Raw, start: int, end: int) -> Iterator[tuple[int, bytes]]:
    """Copies of what is between two offsets, each with its offset: whole lines, as far as they have
    less than 1 MiB. The newline that ends one begins the next, too."""
    while start < end:
        piece = cut(raw, start, min(start + PIECE, end))
        last = piece.rfind(b"\n") if start + len(piece) < end else -1
        yield start, piece[: last + 1] if last > 0 else piece
        start += last if last > 0 else len(piece)


def behind(pattern: re.Pattern[bytes], raw: Raw, start: int, end: int) -> int:
    """The offset behind the first match of a pattern, which is about one line; -1 for none."""
    for at, piece in windows(raw, start, end):
        if found := pattern.search(piece):
            return at + found.end()
    return -1


def digest(chunks: Iterable[Raw | memoryview]) -> str:
    """SHA-256 of all chunks together, in hexadecimal."""
    from hashlib import sha256  # a millisecond that most mail has no use for

    found = sha256()
    for piece in pieces(chunks):
        found.update(piece)
    return found.hexdigest()
