"""What is in an archive: the names, and what is dangerous, without writing a file.

zip is read by the signatures of its entries, not by its directory: so an archive behind other data,
with two directories, with lying sizes or with entries that lie over each other gives every name
that any unpacker finds. gzip, bzip2, xz and tar come from the standard library. At most depth 5,
1,000 files, 64 MiB unpacked, 100 times the packed size, 5 s of computing: what is beyond is `not
opened`, as are damaged archives and kinds that nobody here opens (rar, 7z, cab, zstd ...). Nothing
raises. Known limit: the content of a zip entry is looked at when it is stored or deflated, and only
its first 64 KiB unless it is an archive or a document.
"""

from __future__ import annotations

import bz2
import io
import lzma
import struct
import tarfile
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from mdaflow.mail.header import text_of

from . import kinds

MAX_DEPTH = 5
MAX_FILES = 1_000
MAX_UNPACKED = 64 << 20
MAX_RATIO = 100
MAX_SECONDS = 5.0
SEEN = 64 << 10
"""Bytes of a file in an archive by which its kind is told."""
MAX_HEADER = 16 << 10
"""Bytes of a header in a tar: a long name, or fields of pax."""
_SMALL = 1 << 20
"""Below this a high ratio harms nobody."""

ENCRYPTED = "encrypted"
NOT_OPENED = "not opened"
PROGRAM = "program"


@dataclass(slots=True)
class Inside:
    """What was found in one attachment, in the order in which it was found."""

    names: dict[str, None] = field(default_factory=dict)
    dangers: set[str] = field(default_factory=set)
    limit: str = ""
    """The limit that was reached; empty when there was none."""
    left: int = MAX_UNPACKED
    ends: float = field(default_factory=lambda: time.thread_time() + MAX_SECONDS)

    def stop(self, why: str) -> None:
        """A limit was reached."""
        self.limit = self.limit or why
        self.dangers.add(NOT_OPENED)

    def name(self, name: str) -> bool:
        """One more name. False: no more."""
        if name not in self.names and len(self.names) >= MAX_FILES:
            self.stop("too many files in an archive")
            return False
        self.names[name] = None
        return True

    def spend(self, size: int) -> bool:
        """So many bytes were unpacked. False: no more."""
        self.left -= size
        if self.left < 0:
            self.stop("an archive that unpacks to too much")
        elif time.thread_time() > self.ends:
            self.stop("an archive that takes too long")
        else:
            return True
        return False


class _Stream(NamedTuple):
    """A compressed stream, e.g. of a tar."""

    start: Callable[[], Any]
    suffixes: tuple[str, ...]


_STREAMS = {
    "gzip": _Stream(lambda: zlib.decompressobj(31), (".gz", ".tgz", ".svgz")),
    "bzip2": _Stream(bz2.BZ2Decompressor, (".bz2", ".tbz2", ".tbz")),
    "xz": _Stream(lambda: lzma.LZMADecompressor(memlimit=MAX_UNPACKED), (".xz", ".txz", ".lzma")),
}


def look(content: bytes, name: str = "", inside: Inside | None = None) -> Inside:
    """What is in the content of an attachment of this name, in the room that `inside` has left."""
    inside = Inside() if inside is None else inside
    _look(content, name, 0, inside)
    return inside


def _look(content: bytes, name: str, depth: int, inside: Inside) -> None:
    kind = kinds.kind(content)
    if kind in kinds.PROGRAMS:
        inside.dangers.add(PROGRAM)
    elif kind in kinds.CLOSED:
        inside.dangers.add(NOT_OPENED)
    if kind in kinds.CLOSED and kinds.locked(kind, content):
        inside.dangers.add(ENCRYPTED)
    if kind == "ole":
        inside.dangers |= kinds.ole(content)
    elif kind == "pdf" and kinds.locked(kind, content):
        inside.dangers.add(ENCRYPTED)
    opener = _OPENERS.get(kind)
    if kind != "zip" and opener is None and content.find(b"PK\1\2") >= 0:
        opener = _zip  # behind something else, e.g. a program or a picture
    if opener is None:
        return
    if depth >= MAX_DEPTH:
        inside.stop("archives in archives, too deep")
        return
    opener(content, name, depth, inside)


# zip (APPNOTE.TXT 6.3.10)

_LOCAL = struct.Struct("<4x5H3I2H")
_CENTRAL = struct.Struct("<6x5H3I5H2I")
_STORED, _DEFLATED = 0, 8
_METHODS = frozenset((*range(13), 14, 16, 18, 19, 20, *range(92, 100)))
_BIT_ENCRYPTED, _BIT_SIZE_BEHIND, _BIT_UTF8 = 1, 8, 1 << 11
_ZIP64 = 0xFFFFFFFF


class _Entry(NamedTuple):
    """A header of a file in a zip."""

    flags: int
    method: int
    packed: int
    size: int
    names: tuple[str, ...]
    start: int
    """Of the content; in a directory, of the other header."""
    at: int
    end: int


def _zip(content: bytes, name: str, depth: int, inside: Inside) -> None:
    del name
    directory = list(_entries(content, b"PK\1\2", _central, inside))
    local = list(_entries(content, b"PK\3\4", _local, inside))
    for run in _runs(directory):
        if sum(entry.size for entry in run) > inside.left or _overlap(run):
            inside.stop("an archive that unpacks to too much")
    if not local and not directory:
        inside.dangers.add(NOT_OPENED)
    for entry in (*directory, *local):
        if not all(map(inside.name, entry.names)):
            return
        if entry.flags & _BIT_ENCRYPTED or entry.method == 99:
            inside.dangers.add(ENCRYPTED)
        inside.dangers |= kinds.of_entry(entry.names[0])
    listed: dict[tuple[str, ...], list[_Entry]] = {}
    for entry in directory:
        listed.setdefault(entry.names, []).append(entry)
    for entry in local:
        said = listed.get(entry.names, [entry])
        if not _entry(content, entry, said, depth, inside):
            return


def _runs(directory: list[_Entry]) -> Iterator[list[_Entry]]:
    """The directories: entries that follow each other. A stored zip has its own."""
    run: list[_Entry] = []
    for entry in directory:
        if run and run[-1].end != entry.at:
            yield run
            run = []
        run.append(entry)
    yield run


def _entries(
    content: bytes, sign: bytes, parse: Callable[[bytes, int], _Entry | None], inside: Inside
) -> Iterator[_Entry]:
    """The headers behind a sign. Each counts, though many have the same name, and takes time."""
    at, count = content.find(sign), 0
    while at >= 0 and inside.spend(0):
        if entry := parse(content, at):
            count += 1
            if count > MAX_FILES:
                inside.stop("too many files in an archive")
                return
            yield entry
        at = content.find(sign, at + 4)


def _local(content: bytes, at: int) -> _Entry | None:
    if len(content) < at + 30:
        return None
    version, flags, method, _, _, _, packed, size, length, extra = _LOCAL.unpack_from(content, at)
    if method not in _METHODS or version & 0xFF > 99 or not length:
        return None
    names = _names(content, at + 30, length, extra, flags)
    end = at + 30 + length + extra
    return _Entry(flags, method, packed, size, names, end, at, end)


def _central(content: bytes, at: int) -> _Entry | None:
    if len(content) < at + 46:
        return None
    _, flags, method, _, _, _, packed, size, length, extra, comment, _, _, _, start = (
        _CENTRAL.unpack_from(content, at)
    )
    if method not in _METHODS or not length:
        return None
    names = _names(content, at + 46, length, extra, flags)
    return _Entry(flags, method, packed, size, names, start, at, at + 46 + length + extra + comment)


def _names(content: bytes, at: int, length: int, extra: int, flags: int) -> tuple[str, ...]:
    """The name, and that of the Unicode extra field (0x7075), which some unpackers prefer."""
    raw = content[at : at + length]
    found = [text_of(raw, "utf-8" if flags & _BIT_UTF8 else "cp437")]
    if flags & _BIT_UTF8 == 0 and not raw.isascii():
        found.append(text_of(raw))
    fields, at = content[at + length : at + length + extra], 0
    while at + 4 <= len(fields):
        kind, size = struct.unpack_from("<2H", fields, at)
        if kind == 0x7075 and size > 5:
            found.append(text_of(fields[at + 9 : at + 4 + size]))
        at += 4 + size
    return tuple(dict.fromkeys(name.partition("\0")[0] or name for name in found))


def _overlap(directory: list[_Entry]) -> bool:
    """Do entries lie over each other, as in a bomb?"""
    at = 0
    for entry in sorted(directory, key=lambda e: e.start):
        if entry.start < at:
            return True
        at = entry.start + entry.packed
    return False


def _entry(content: bytes, entry: _Entry, listed: list[_Entry], depth: int, inside: Inside) -> bool:
    """Look into a file. False: no more. `listed` are those of its names in directories."""
    if entry.flags & _BIT_ENCRYPTED or entry.names[0].endswith("/"):
        return True
    if entry.method not in (_STORED, _DEFLATED):
        inside.dangers.add(NOT_OPENED)
        return True
    later = entry.flags & _BIT_SIZE_BEHIND and not entry.size
    said = next((e for e in listed if e.start == entry.at), listed[0]) if later else entry
    start = _unpacked(content, entry, said.packed, SEEN)
    if len(start) > said.size != _ZIP64 or all(e.size not in (said.size, _ZIP64) for e in listed):
        inside.stop("an archive that lies about its sizes")
    if not inside.spend(len(start)):
        return False
    kind = kinds.kind(start)
    if kind in _OPENERS or kind in ("ole", "pdf"):
        start = _unpacked(content, entry, said.packed, inside.left)
        if not inside.spend(len(start)):
            return False
        if len(start) > MAX_RATIO * max(said.packed, 1) and len(start) > _SMALL:
            inside.stop("an archive that unpacks to too much")
    _look(start, entry.names[0], depth + 1, inside)
    return True


def _unpacked(content: bytes, entry: _Entry, packed: int, most: int) -> bytes:
    """The first bytes of a file; what a damaged one gives is given."""
    if entry.method == _STORED:
        return content[entry.start : entry.start + min(packed, most + 1)]
    decompress, out, at = zlib.decompressobj(-15), bytearray(), entry.start
    try:
        while len(out) <= most and not decompress.eof and at < len(content):
            out += decompress.decompress(content[at : at + SEEN], most + 1 - len(out))
            at += SEEN
    except zlib.error:
        pass
    return bytes(out)


# streams and tar


def _stream(kind: str) -> Callable[[bytes, str, int, Inside], None]:
    def opener(content: bytes, name: str, depth: int, inside: Inside) -> None:
        whole, damaged = _whole(content, _STREAMS[kind].start, inside)
        if damaged:
            inside.dangers.add(NOT_OPENED)
        if len(whole) > MAX_RATIO * len(content) and len(whole) > _SMALL:
            inside.stop("an archive that unpacks to too much")
        bare = _bare(name, _STREAMS[kind].suffixes)
        if kind == "gzip" and (stored := _gzip_name(content)):
            inside.name(stored)
        if kinds.kind(whole) == "tar":
            bare = bare if bare.endswith(".tar") else f"{bare}.tar"
        elif bare:
            inside.name(bare)
        _look(whole, bare, depth + 1, inside)

    return opener


def _whole(content: bytes, start: Callable[[], Any], inside: Inside) -> tuple[bytes, bool]:
    """All members of a stream as far as the limits go, and whether they are damaged."""
    out = bytearray()
    rest, damaged = memoryview(content), False
    try:
        while len(rest) and not inside.limit:
            member = start()
            at = 0
            while not member.eof and inside.left >= 0:
                ready = getattr(member, "unconsumed_tail", b"") or bytes(rest[at : at + SEEN])
                fed = 0 if getattr(member, "unconsumed_tail", b"") else len(ready)
                made = member.decompress(ready, 4 * SEEN)
                at += fed
                out += made
                if not inside.spend(len(made)):
                    break
                if not made and not fed:
                    damaged = True
                    break
            if damaged or not member.eof:
                break
            rest = rest[at - len(member.unused_data) :]
            if bytes(rest[:64]).strip(b"\0") == b"":
                break
    except (zlib.error, lzma.LZMAError, OSError, EOFError, ValueError):
        damaged = not out or bytes(rest[:2]) == content[:2]
    return bytes(out), damaged


def _bare(name: str, suffixes: tuple[str, ...]) -> str:
    for suffix in suffixes:
        if name.lower().endswith(suffix):
            return name[: -len(suffix)] + (".tar" if suffix.startswith(".t") else "")
    return name


def _gzip_name(content: bytes) -> str:
    """The name that a gzip gives to what is in it (RFC 1952); empty when there is none."""
    if len(content) < 10 or not content[3] & 8:
        return ""
    at = 10
    if content[3] & 4:
        at += 2 + int.from_bytes(content[10:12], "little")
    return text_of(content[at : at + 1000].partition(b"\0")[0], "latin-1")


class _Headers(io.BytesIO):
    """What tarfile reads of a tar. It would copy a header of any size, and search it for long."""

    def __init__(self, content: bytes, inside: Inside) -> None:
        super().__init__(content)
        self._inside = inside

    def read(self, size: int | None = -1, /) -> bytes:
        """Raises OSError for a header that is too long, and when there is no more time."""
        if size is None or not 0 <= size <= MAX_HEADER or not self._inside.spend(0):
            raise OSError("too long")
        return super().read(size)


def _tar(content: bytes, name: str, depth: int, inside: Inside) -> None:
    del name
    try:
        with tarfile.open(fileobj=_Headers(content, inside), mode="r:") as tar:
            while member := tar.next():
                if not inside.name(member.name) or not inside.spend(512):
                    return
                inside.dangers |= kinds.of_entry(member.name)
                if not member.isreg():
                    continue
                start = content[member.offset_data : member.offset_data + max(member.size, 0)]
                if not inside.spend(len(start)):
                    return
                if len(start) < member.size:
                    inside.dangers.add(NOT_OPENED)
                _look(start, member.name, depth + 1, inside)
    except (tarfile.TarError, OSError, EOFError, ValueError, OverflowError, RecursionError):
        inside.dangers.add(NOT_OPENED)


_OPENERS: dict[str, Callable[[bytes, str, int, Inside], None]] = {
    "zip": _zip,
    "tar": _tar,
    **{kind: _stream(kind) for kind in _STREAMS},
}
