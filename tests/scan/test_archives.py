"""What is in archives, also in hostile ones."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdaflow.scan.archives import MAX_FILES, Inside, look

EXE = b"MZ\x90\0" + bytes(100)
OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600)


def zipped(method: int = zipfile.ZIP_DEFLATED, **files: bytes) -> bytes:
    """A zip; `__` in a name stands for a dot."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name.replace("__", "."), content)
    return out.getvalue()


def tarred(mode: str = "w", **files: bytes) -> bytes:
    """A tar."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            member = tarfile.TarInfo(name.replace("__", "."))
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return out.getvalue()


def nested(depth: int) -> bytes:
    """A zip in a zip in a zip."""
    found = zipped(a__txt=b"x")
    for _ in range(depth - 1):
        found = zipped(a__zip=found)
    return found


NAMES = {
    "zip": (zipped(a__txt=b"x", b__exe=b"y"), "x.zip", ["a.txt", "b.exe"]),
    "stored": (zipped(zipfile.ZIP_STORED, a__txt=b"x"), "x.zip", ["a.txt"]),
    "gzip": (gzip.compress(b"x" * 99), "x.txt.gz", ["x.txt"]),
    "bzip2": (bz2.compress(b"x"), "x.txt.bz2", ["x.txt"]),
    "xz": (lzma.compress(b"x"), "x.txt.xz", ["x.txt"]),
    "tar": (tarred(a__txt=b"x", b__txt=b"y"), "x.tar", ["a.txt", "b.txt"]),
    "tar.gz": (tarred("w:gz", a__txt=b"x"), "x.tgz", ["a.txt"]),
    "tar.bz2": (tarred("w:bz2", a__txt=b"x"), "x.tar.bz2", ["a.txt"]),
    "tar.xz": (tarred("w:xz", a__txt=b"x"), "x.tar.xz", ["a.txt"]),
    "two gzips": (gzip.compress(b"x") + gzip.compress(b"y"), "x.gz", ["x"]),
    "nested": (zipped(b__zip=zipped(a__txt=b"x")), "x.zip", ["b.zip", "a.txt"]),
    "tar in zip": (zipped(b__tgz=tarred("w:gz", a__txt=b"x")), "x.zip", ["b.tgz", "a.txt"]),
    "behind something": (b"GIF89a" + bytes(99) + zipped(a__exe=b"x"), "x.gif", ["a.exe"]),
    "something behind": (zipped(a__exe=b"x") + b"more" * 99, "x.zip", ["a.exe"]),
    "two archives": (zipped(a__txt=b"x") + zipped(b__exe=b"x"), "x.zip", ["a.txt", "b.exe"]),
    "stored in stored": (
        zipped(zipfile.ZIP_STORED, b__zip=zipped(zipfile.ZIP_STORED, a__txt=b"x")),
        "x.zip", ["b.zip", "a.txt"],
    ),
    "no archive": (b"hello", "x.txt", []),
    "empty": (b"", "x.zip", []),
}  # fmt: skip


@pytest.mark.parametrize(("content", "name", "names"), NAMES.values(), ids=NAMES)
def test_names(content: bytes, name: str, names: list[str]) -> None:
    """The names of all files in an archive are found, and nothing is dangerous about it."""
    inside = look(content, name)
    assert sorted(inside.names) == sorted(names)
    assert (inside.dangers, inside.limit) == (set(), "")


def renamed(old: bytes, new: bytes, count: int = -1) -> bytes:
    """A zip in whose headers a name was replaced."""
    return zipped(a__txt=b"x").replace(old, new, count)


def encrypted() -> bytes:
    """A zip whose file says that it is encrypted."""
    raw = bytearray(zipped(a__txt=b"x"))
    raw[6] |= 1
    raw[raw.index(b"PK\1\2") + 8] |= 1
    return bytes(raw)


def overlapping(copies: int = 20) -> bytes:
    """A zip whose directory names one file many times, as the bomb of Fifield does."""
    raw = zipped(a__txt=bytes(1 << 20))
    at = raw.index(b"PK\1\2")
    entry, end = raw[at : raw.index(b"PK\5\6")], bytearray(raw[raw.index(b"PK\5\6") :])
    struct.pack_into("<HHII", end, 8, copies, copies, len(entry) * copies, at)
    return raw[:at] + entry * copies + end


def lying(size: int = 5) -> bytes:
    """A zip that says that a MiB is a few bytes."""
    raw = zipped(a__txt=bytes(1 << 20))
    return raw.replace(struct.pack("<I", 1 << 20), struct.pack("<I", size))


def many(count: int) -> bytes:
    """A zip of so many empty files."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for n in range(count):
            archive.writestr(f"{n}.txt", b"")
    return out.getvalue()


def entries(name: bytes, count: int) -> bytes:
    """The headers of so many empty files of one name."""
    sizes = struct.pack("<5H3I2H", 20, 0, 0, 0, 0, 0, 0, 0, len(name), 0)
    return (b"PK\3\4" + sizes + name) * count


def extra_name() -> bytes:
    """A zip with a second name in an extra field (Info-ZIP Unicode Path)."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        info = zipfile.ZipInfo("a.txt")
        path = b"\1" + struct.pack("<I", zlib.crc32(b"a.txt")) + b"b.exe"
        info.extra = struct.pack("<2H", 0x7075, len(path)) + path
        archive.writestr(info, b"x")
    return out.getvalue()


HOSTILE = {
    "encrypted": (encrypted(), "encrypted", ""),
    "deep": (nested(6), "not opened", "archives in archives, too deep"),
    "bomb": (zipped(a__gz=gzip.compress(bytes(80 << 20))), "not opened", "unpacks to too much"),
    "gzip bomb": (gzip.compress(bytes(80 << 20)), "not opened", "unpacks to too much"),
    "gzip ratio": (gzip.compress(bytes(8 << 20)), "not opened", "unpacks to too much"),
    "bzip2 bomb": (bz2.compress(bytes(80 << 20)), "not opened", "unpacks to too much"),
    "xz bomb": (lzma.compress(bytes(80 << 20)), "not opened", "unpacks to too much"),
    "claims much": (lying(1 << 31), "not opened", "unpacks to too much"),
    "lies": (lying(), "not opened", "lies about its sizes"),
    "overlaps": (overlapping(), "not opened", "unpacks to too much"),
    "many files": (many(MAX_FILES + 1), "not opened", "too many files"),
    "many files of one name": (entries(b"a.txt", MAX_FILES + 1), "not opened", "too many files"),
    "truncated gzip": (gzip.compress(bytes(range(256)) * 99)[:-200], "not opened", ""),
    "truncated bzip2": (bz2.compress(bytes(range(256)) * 99)[:-20], "not opened", ""),
    "damaged xz": (lzma.compress(bytes(range(256)) * 99)[:60] + b"x" * 60, "not opened", ""),
    "truncated tar": (tarred(a__txt=b"x" * 5000)[:2000], "not opened", ""),
    "rar": (b"Rar!\x1a\x07\0" + bytes(99), "not opened", ""),
    "encrypted rar": (b"Rar!\x1a\x07\0\0\0\x73\x80\0\x0d\0" + bytes(99), "encrypted", ""),
    "7z": (b"7z\xbc\xaf\x27\x1c" + bytes(99), "not opened", ""),
    "winmail.dat": (b"\x78\x9f\x3e\x22" + bytes(99), "not opened", ""),
    "zip of a rar": (zipped(a__rar=b"Rar!\x1a\x07\0" + bytes(99)), "not opened", ""),
    "no entry": (b"PK\3\4" + bytes(99), "not opened", ""),
    "odd method": (zipped(zipfile.ZIP_LZMA, a__txt=b"x"), "not opened", ""),
    "program": (EXE, "program", ""),
    "program in a zip": (zipped(a__jpg=EXE), "program", ""),
    "program in zip in tar.gz": (tarred("w:gz", a__zip=zipped(a__jpg=EXE)), "program", ""),
    "macros": (zipped(word_vbaProject__bin=OLE), "macros", ""),
    "old macros": (OLE + "_VBA_PROJECT".encode("utf-16-le"), "macros", ""),
    "old macros in a zip": (zipped(a__doc=OLE + "Macros\0".encode("utf-16-le")), "macros", ""),
    "encrypted office": (OLE + "EncryptedPackage".encode("utf-16-le"), "encrypted", ""),
    "encrypted pdf": (b"%PDF-1.4\n/Encrypt 1 0 R", "encrypted", ""),
}


@pytest.mark.parametrize(("content", "danger", "limit"), HOSTILE.values(), ids=HOSTILE)
def test_hostile(content: bytes, danger: str, limit: str) -> None:
    """Bombs, damage, passwords and what cannot be opened are dangers; limits are said (P48)."""
    inside = look(content, "x")
    assert danger in inside.dangers
    assert limit in inside.limit
    assert bool(limit) == bool(inside.limit)


BOTH = {
    "in the directory": renamed(b"PK\1\2", b"PK\1\2").replace(b"a.txt", b"b.exe", 1),
    "in the file's header": zipped(a__txt=b"x")[::-1].replace(b"txt.a", b"exe.b", 1)[::-1],
    "nul": renamed(b"a.txt", b"b.e\0x").replace(b"b.e\0x", b"b.exe", 1),
    "extra field": extra_name(),
}


@pytest.mark.parametrize("content", BOTH.values(), ids=BOTH)
def test_two_names(content: bytes) -> None:
    """A file with two names has both."""
    assert "b.exe" in look(content).names


def test_hostile_names() -> None:
    """Names are only names: nothing is written, and folders, NUL and device names are seen."""
    raw = renamed(b"a.txt", b"../\0x")
    assert list(look(raw).names) == ["../"]


def test_quine() -> None:
    """An archive that contains itself is left at some depth."""
    raw = zipped(a__zip=b"@" * 200)
    for _ in range(8):
        raw = zipped(zipfile.ZIP_STORED, a__zip=raw)
    assert look(raw).limit


def test_room() -> None:
    """What one archive has used is missing to the next."""
    inside = Inside(left=100)
    assert look(zipped(a__txt=b"x" * 90), "x", inside).limit == ""
    assert look(zipped(b__txt=b"x" * 90), "x", inside).limit != ""


SAMPLES: list[bytes] = [content for content, *_ in NAMES.values()]


@given(
    st.sampled_from(SAMPLES),
    st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=8),
    st.sampled_from([lambda raw: raw, lambda raw: raw[: len(raw) // 2], lambda raw: raw + raw]),
)
def test_any_damage(
    sample: bytes, changes: list[tuple[int, int]], last: Callable[[bytes], bytes]
) -> None:
    """Whatever is damaged, nothing raises, and there are no more names than allowed."""
    raw = bytearray(sample)
    for at, value in changes:
        if raw:
            raw[at % len(raw)] = value
    assert len(look(last(bytes(raw)), "x").names) <= MAX_FILES
