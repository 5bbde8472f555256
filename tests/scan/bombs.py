"""Messages that are made to take all memory or time of who looks at them (R01 to R17).

Of full size, 50 MiB at most, where looking at one takes a second or three; else reduced.
"""

from __future__ import annotations

import base64
import bz2
import gzip
import io
import lzma
import struct
import tarfile
import zlib
from collections.abc import Callable

M = b"Content-Type: multipart/mixed; "
C = b"Content-Transfer-Encoding: "


def packed(content: bytes) -> bytes:
    """A message that is an attachment."""
    return C + b"binary\nContent-Disposition: attachment; filename=a\n\n" + content


def entry(name: bytes, size: int, packed_size: int, at: int = 0) -> tuple[bytes, bytes]:
    """The two headers of a file in a zip."""
    sizes = struct.pack("<3I", 0, packed_size, size)
    local = b"PK\3\4" + struct.pack("<5H", 20, 0, 8, 0, 0) + sizes
    central = b"PK\1\2" + struct.pack("<6H", 20, 20, 0, 8, 0, 0) + sizes
    central += struct.pack("<5H2I", len(name), 0, 0, 0, 0, 0, at)
    return local + struct.pack("<2H", len(name), 0) + name, central + name


def deflated(content: bytes) -> bytes:
    """A zip of one file."""
    squeeze = zlib.compressobj(9, zlib.DEFLATED, -15)
    body = squeeze.compress(content) + squeeze.flush()
    local, central = entry(b"a", len(content), len(body))
    return local + body + central


def entries(count: int, *, same: bool = False) -> bytes:
    """A zip of so many files, or of one file that is listed so often."""
    files = [entry(b"%d" % n, 1, 3, 0 if same else 33 * n) for n in range(count)]
    local = b"".join(f[0] + b"x\3\0" for f in files[: 1 if same else None])
    return local + b"".join(f[1] for f in files)


def long_names(count: int) -> bytes:
    """A tar of headers that announce a long name."""
    head = bytearray(512)
    head[:4], head[124:136], head[156:157] = b"x" * 4, b"00000000004\0", b"L"
    head[257:263] = b"ustar "
    head[148:156] = b"%06o\0 " % (sum(head[:148]) + sum(head[156:]) + 8 * 32)
    return (bytes(head) + b"name" + bytes(508)) * count


def extra_fields(count: int) -> bytes:
    """A zip of so many files, whose headers share 64 KiB of empty extra fields."""
    head = b"PK\3\4" + struct.pack("<5H3I2H", 20, 0, 0, 0, 0, 0, 0, 0, 1, 65535) + b"a"
    return head * count + struct.pack("<2H", 1, 0) * 16383


def long_path(size: int) -> bytes:
    """A tar whose one file has a path of so many characters, some of which need four bytes."""
    record = b"%d path=" % (size + 17) + "\U0001f600".encode() + b"a" * (size - 1) + b"\n"
    with io.BytesIO() as out:
        with tarfile.open(fileobj=out, mode="w") as tar:
            for kind, content in ((tarfile.XHDTYPE, record), (tarfile.REGTYPE, b"")):
                head = tarfile.TarInfo("a")
                head.type, head.size = kind, len(content)
                tar.addfile(head, io.BytesIO(content))
        return out.getvalue()


def boundaries(fields: int, size: int) -> bytes:
    """An encoded multipart with many boundaries, none of which is there."""
    said = (
        M + b"; ".join(b'boundary="x%da%d"' % (n, m) for m in range(40)) + b"\n"
        for n in range(fields)
    )
    codes = C + b"base64\n" + C + b"quoted-printable\n"
    return b"".join(said) + codes + b"\n" + b"\n--x0aQUFBQUFBQUFBQUFB" * (size // 24)


def encoded(depth: int) -> bytes:
    """A message in base64 in a message in base64 ..."""
    raw = b"A: b\n\n" + b"x\n" * (1 << 20)
    for _ in range(depth):
        raw = b"Content-Type: message/rfc822\n" + C + b"base64\n\n" + base64.encodebytes(raw)
    return raw


BOMBS: dict[str, Callable[[], bytes]] = {
    "R01 nested multiparts": lambda: b"".join(
        M + b"boundary=%d\n\n--%d\n" % (n, n) for n in range(10000)
    ),
    "R01 nested multiparts, one boundary": lambda: (M + b"boundary=b\n\n--b\n") * 100000,
    "R02 nested messages": lambda: b"Content-Type: message/rfc822\n\n" * 100000,
    "R02 encoded messages": lambda: encoded(8),
    "R03 parts": lambda: M + b"boundary=b\n\n" + b"--b\n\n" * 1000000,
    "R03 parts with names": lambda: (
        M + b"boundary=b\n\n" + b"--b\nContent-Disposition: attachment; filename=a.b\n\nx\n" * 20000
    ),
    "R04 a long field": lambda: b"Content-Type: " + b"x" * (10 << 20) + b"\n\nx",
    "R04 a folded field": lambda: b"Content-Type: x" + b"\n " * 1000000 + b"\n\nx",
    "R05 fields": lambda: b"A: b\n" * 1000000 + b"\nx",
    "R05 types": lambda: b"Content-Type: text/plain\n" * 40000 + b"\nx",
    "R05 blank lines in a header": lambda: b"A: b\n \n" * 100000 + b"\nx",
    "R07 parameters": lambda: b"Content-Type: x/y; " + b"a=b; " * 100000 + b"\n\nx",
    "R07 sections": lambda: (
        b"Content-Disposition: x; "
        + b"".join(b"filename*%d=a; " % n for n in range(100000))
        + b"\n\nx"
    ),
    "R07 boundaries": lambda: (
        b"Content-Type: multipart/x; " + b"boundary=b; " * 100000 + b"\n\n" + b"--b\n" * 100000
    ),
    "R07 many fields of parameters": lambda: (
        M
        + b"boundary=b\n\n"
        + (b"--b\nContent-Disposition: x; " + b'filename="a' * 350 + b"\n\nx\n") * 2000
    ),
    "R08 encoded words": lambda: (
        b'Content-Disposition: x; filename="' + b"=?utf-8?q?a?= " * 100000 + b'"\n\nx'
    ),
    "R08 unknown charsets": lambda: (
        b"Content-Disposition: x; filename*=" + b"/etc/" * 99999 + b"''a\n\nx"
    ),
    "R09 empty lines": lambda: b"A: b\n\n" + b"\n" * (50 << 20),
    "R09 CR": lambda: b"A: b\n\n" + b"\r" * (50 << 20),
    "R09 one line": lambda: b"A: b\n\n" + b"x" * (50 << 20),
    "R09 hyphens": lambda: M + b"boundary=b\n\n" + b"--x\n" * (10 << 20),
    "R09 boundaries that go on": lambda: M + b"boundary=b\n\n--b\n" + b"--bx\n" * (4 << 20),
    "R09 headers in a text": lambda: b"A: b\n\n" + b"Content-Type: x\n\n" * (2 << 20),
    "R09 lines about content": lambda: b"A: b\n\n" + b"\ncontent-t" * (4 << 20),
    "R09 multiparts in a text": lambda: (
        b"A: b\n\n" + b"".join(M + b"boundary=%d\n\n" % n for n in range(100000))
    ),
    "R10 zip": lambda: packed(deflated(b"\0" * (60 << 20))),
    "R10 gzip": lambda: packed(gzip.compress(b"\0" * (200 << 20), 1)),
    "R10 gzip of many members": lambda: packed(gzip.compress(b"") * 500000),
    "R10 bzip2": lambda: packed(bz2.compress(b"\0" * (4 << 20), 1) * 20),
    "R10 xz": lambda: packed(lzma.compress(b"\0" * (4 << 20), preset=0) * 20),
    "R10 zips in a zip": lambda: packed(deflated(deflated(b"\0" * (60 << 20)) * 50)),
    "R10 entries": lambda: packed(entries(600000)),
    "R10 entries over each other": lambda: packed(entries(60000, same=True)),
    "R10 tar": lambda: packed((b"x" * 257 + b"ustar" + b"\0" * 250) * 90000),
    "R10 tar of long names": lambda: packed(long_names(20000)),
    "R10 signs of entries": lambda: packed(gzip.compress(b"PK\3\4" + b"PK\1\2" * (15 << 20), 1)),
    "R10 extra fields": lambda: (
        M + b"boundary=b\n\n" + (b"--b\n" + packed(extra_fields(1000))) * 50
    ),
    "R10 tar with a long path": lambda: packed(gzip.compress(long_path(40 << 20), 1)),
    "R10 hundred archives": lambda: (
        M + b"boundary=b\n\n" + (b"--b\n" + packed(deflated(b"\0" * (30 << 20)))) * 150
    ),
    "R11 base64": lambda: C + b"base64\n\n" + b"QUJD" * (12 << 20),
    "R11 base64 of junk": lambda: C + b"base64\n\n" + b"!Q" * (12 << 20),
    "R11 base64 that ends": lambda: C + b"base64\n\n" + b"QQ==" * (6 << 20),
    "R11 base64 undeclared": lambda: b"A: b\n\n" + (b"QUJD" * 19 + b"\n") * 600000,
    "R11 quoted-printable": lambda: C + b"quoted-printable\n\n" + b"=" * (50 << 20),
    "R11 soft line ends": lambda: C + b"quoted-printable\n\n" + b"=   \n" * (6 << 20),
    "R11 uuencode": lambda: b"A: b\n\nbegin 644 a.b\n" + b"#AAAA\n" * (6 << 20),
    "R11 uuencode, short lines": lambda: b"A: b\n\nbegin 644 a.b\n" + b"!\n" * (12 << 20),
    "R11 uuencode, begun often": lambda: b"A: b\n\n" + b"begin 644 a\n" * (3 << 20),
    "R11 yEnc": lambda: b"A: b\n\n=ybegin line=1 name=x\n" + b"=" * (20 << 20),
    "R11 BinHex": lambda: (
        b"A: b\n\n(This file must be converted with BinHex 4.0)\n\n:" + b"!!*!!N!*" * (2 << 20)
    ),
    "R07 boundaries of an encoded multipart": lambda: boundaries(20, 12 << 20),
    "R14 html, a long tag": lambda: b"Content-Type: text/html\n\n<" + b"a" * (64 << 10),
    "R14 html": lambda: b"Content-Type: text/html\n\n" + b"<a b=c " * (4 << 20),
    "charset": lambda: b"Content-Type: text/plain; charset=utf-7\n\n" + b"+AAAA" * (10 << 20),
    "R17 all together": lambda: (
        M
        + b"boundary=b\n\n--b\n"
        + packed(deflated(b"\0" * (50 << 20)))
        + b"\n--b\n\n"
        + b"<a>" * (1 << 20)
    ),
}
