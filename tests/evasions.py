"""Messages that hide a file from a filter, each beside one that does not.

The file is the test string of EICAR, which is no virus and is found by every scanner. It is never
written out here: a scanner would find this file. `cases` are structures that readers of mail read
in different ways, `name_cases` are spellings of the name `evil.exe`. Run as a program, it counts
what Python's `email` alone does not find.
"""

from __future__ import annotations

import base64
import binascii
import email
import quopri
from collections.abc import Callable, Iterator
from itertools import product
from typing import NamedTuple
from urllib.parse import quote

EICAR = bytes.fromhex(
    "58354f2150254041505b345c505a58353428505e2937434329377d2445494341522d5354414e444152"
    "442d414e544956495255532d544553542d46494c452124482b482a"
)


class Case(NamedTuple):
    """A message that hides the file, and one of the same kind that does not."""

    name: str
    kind: str
    raw: bytes
    control: bytes


class NameCase(NamedTuple):
    """A message with an attachment that somebody's program calls evil.exe."""

    name: str
    kind: str
    raw: bytes


HEAD = b"From: a@example.org\nTo: b@example.com\nSubject: x\nMIME-Version: 1.0\n"
TEXT = b"Content-Type: text/plain\n\nSee the attached file.\n"
BOUNDARIES = (b"b1", b"----=_Part_7_x.9", b"=_q'w+e")
CODES = ("base64", "quoted-printable")


def encoded(code: str, content: bytes = EICAR) -> bytes:
    """A content in a transfer encoding."""
    if code == "base64":
        return base64.encodebytes(content)
    if code == "quoted-printable":
        return (
            b"".join(b"=%02X" % c for c in content[:24])
            + b"=\n"
            + quopri.encodestring(content[24:])
            + b"\n"
        )
    return content + b"\n"


def file(
    code: str = "base64", body: bytes | None = None, *, head: bytes = b"", cte: bytes = b""
) -> bytes:
    """A part that carries the file; `head` comes first, `cte` stands instead of its encoding."""
    declared = cte or b"Content-Transfer-Encoding: " + code.encode() + b"\n"
    kind = b"Content-Type: application/octet-stream\n"
    return head + kind + declared + b"\n" + (encoded(code) if body is None else body)


def parts(b: bytes, *inner: bytes, end: bytes = b"--\n") -> bytes:
    """A multipart's body."""
    return b"".join(b"--" + b + b"\n" + part for part in inner) + (b"--" + b + end if end else b"")


def mail(
    b: bytes, *inner: bytes, kind: bytes = b"", head: bytes = HEAD, end: bytes = b"--\n"
) -> bytes:
    """A whole message; `kind` stands instead of the field Content-Type."""
    kind = kind or b'Content-Type: multipart/mixed; boundary="' + b + b'"\n'
    return head + kind + b"\n" + parts(b, *inner, end=end)


def control(b: bytes = b"b1", code: str = "base64") -> bytes:
    """The file as it should be attached."""
    return mail(b, TEXT, file(code))


Shapes = Callable[[bytes, str], Iterator[tuple[str, bytes]]]
_KINDS: dict[str, Shapes] = {}
_ALONE: dict[str, Callable[[], Iterator[tuple[str, bytes, bytes]]]] = {}


def kind(name: str) -> Callable[[Shapes], Shapes]:
    """One class of shapes, made with each boundary and each encoding."""
    return lambda make: _KINDS.setdefault(name, make)


def typed(**fields: bytes) -> Shapes:
    """Shapes that differ in the field Content-Type alone; `%b` stands for the boundary."""

    def make(b: bytes, code: str) -> Iterator[tuple[str, bytes]]:
        for name, value in fields.items():
            yield name, mail(b, TEXT, file(code), kind=value.replace(b"%b", b) + b"\n")

    return make


M = b"Content-Type: multipart/mixed; "
_KINDS |= {
    "boundary twice": typed(
        wrong_first=M + b'boundary="no"; boundary="%b"',
        wrong_last=M + b'boundary="%b"; boundary="no"',
        other_case=M + b'boundary="no"; BOUNDARY="%b"',
        bare=M + b'boundary=no; boundary="%b"',
    ),
    "boundary by RFC 2231": typed(
        extended=M + b"boundary*=us-ascii''%b",
        one_section=M + b'boundary*0="%b"',
        other=M + b'boundary="no"; boundary*="%b"',
        other_first=M + b'boundary*0="%b"; boundary="no"',
        encoded_sections=M + b"boundary*0*=us-ascii'en'%b",
    ),
    "boundary with quotes": typed(
        never_closed=M + b'boundary="%b',
        single=M + b"boundary='%b'",
        escaped=M + b'boundary="\\%b"',
        behind=M + b'boundary="%b"x',
        before=M + b'boundary=x"%b"',
        twice=M + b'boundary=""%b""',
        second_never_closed=M + b'charset="x; boundary="%b"',
    ),
    "boundary with comments": typed(
        before=M + b'boundary=(no)"%b"',
        behind=M + b'boundary="%b"(no)',
        equal=M + b'boundary(no)="%b"',
        bare=M + b"boundary=%b(no)",
        with_boundary=M + b'(boundary="no") boundary="%b"',
    ),
    "boundary as an encoded word": typed(
        quoted=M + b'boundary="=?utf-8?q?%b?="',
        bare=M + b"boundary==?us-ascii?q?%b?=",
    ),
    "boundary with spaces": typed(
        behind=M + b'boundary="%b  "',
        equal=M + b'boundary = "%b"',
        before=M + b'boundary=" %b"',
        tab=M + b'boundary="%b\t"',
    ),
    "boundary with odd bytes": typed(
        nul=M + b'boundary="%b\0"',
        nul_and_more=M + b'boundary="%b\0no"',
        nul_before=M + b'boundary="\0%b"',
        eight_bit=M + b'x="\xff"; boundary="%b"',
        control=M + b'boundary="\x01"; boundary="%b"',
    ),
    "boundary folded": typed(
        inside=M + b'boundary="%b\n "',
        behind_equal=M + b'boundary=\n "%b"',
        before=M + b'\n\tboundary="%b"',
        tabs=M + b'\n\t\n boundary="%b"',
    ),
    "semicolons": typed(
        none=b'Content-Type: multipart/mixed boundary="%b"',
        two=M + b'; ;boundary="%b"',
        comma=b'Content-Type: multipart/mixed, boundary="%b"',
        colon=b'Content-Type: multipart/mixed: boundary="%b"',
    ),
    "two types": typed(
        text_first=b"Content-Type: text/plain\n" + M + b'boundary="%b"',
        text_last=M + b'boundary="%b"\nContent-Type: text/plain',
        two_boundaries=M + b'boundary="no"\n' + M + b'boundary="%b"',
        empty_first=b"Content-Type:\n" + M + b'boundary="%b"',
    ),
    "a name with more before the colon": typed(
        space=b'Content-Type : multipart/mixed; boundary="%b"',
        tab=b'Content-Type\t: multipart/mixed; boundary="%b"',
        nul=b'Content-Type\0: multipart/mixed; boundary="%b"',
    ),
    "a line that is no field": typed(
        before=b"no field\n" + M + b'boundary="%b"',
        space_in_name=b"X y z\n" + M + b'boundary="%b"',
        blank_line=b" \n" + M + b'boundary="%b"',
        tab_line=b"X: y\n\t\n" + M + b'boundary="%b"',
        mbox=b">From someone\n" + M + b'boundary="%b"',
    ),
    "folds forgotten": typed(
        boundary=b'Content-Type: multipart/mixed;\nboundary="%b"',
        spaces=b'Content-Type:\n multipart/mixed;\n boundary="%b"',
        name=b'Content-Type\n: multipart/mixed; boundary="%b"',
    ),
    "types misspelled": typed(
        only=b'Content-Type: multipart; boundary="%b"',
        slash=b'Content-Type: multipart/; boundary="%b"',
        other=b'Content-Type: mulitpart/mixed; boundary="%b"',
        quoted=b'Content-Type: "multipart/mixed"; boundary="%b"',
        comment=b'Content-Type: (x) multipart/mixed; boundary="%b"',
        inside=b'Content-Type: multipart(x)/mixed; boundary="%b"',
        spaces=b'Content-Type: multipart / mixed; boundary="%b"',
        text=b'Content-Type: text/plain; boundary="%b"',
    ),
    "no boundary": typed(
        none=b"Content-Type: multipart/mixed",
        empty=M + b'boundary=""',
        equal=M + b"boundary=",
        word=M + b"boundary",
    ),
    "letters": typed(
        mixed=b'cOnTeNt-tYpE: mULTIpart/MIXED; bOUndary="%b"',
        upper=b'CONTENT-TYPE: MULTIPART/MIXED; BOUNDARY="%b"',
    ),
    "many parameters": typed(
        semicolons=M + b";" * 200 + b'boundary="%b"',
        hundred=M + b"x=y; " * 150 + b'boundary="%b"',
        long=M + b"x=" + b"y" * 5000 + b'; boundary="%b"',
        sections=M + b"".join(b"x*%d=y; " % n for n in range(300)) + b'boundary="%b"',
    ),
}


@kind("no header at the top")
def _top(b: bytes, code: str) -> Iterator[tuple[str, bytes]]:
    whole = control(b, code)
    for name, before in {
        "empty": b"\n",
        "two": b"\n\n",
        "space": b" \n",
        "tab": b"\t\n",
        "cr": b"\r\n",
        "junk": b"hello\n",
        "continued": b" hello\n",
    }.items():
        yield name, before + whole


@kind("bare CR")
def _returns(b: bytes, code: str) -> Iterator[tuple[str, bytes]]:
    whole = control(b, code)
    yield "all", whole.replace(b"\n", b"\r")
    yield "header", whole.replace(b"\nContent-Type: multipart", b"\rContent-Type: multipart")
    yield "boundaries", whole.replace(b"\n--" + b, b"\r--" + b)
    yield "part", whole.replace(b"\nContent-Transfer", b"\rContent-Transfer")
    yield "two", whole.replace(b"\n", b"\r\r\n")


@kind("no empty line")
def _no_empty(b: bytes, code: str) -> Iterator[tuple[str, bytes]]:
    whole = control(b, code)
    yield "before the first", whole.replace(b"\n\n--" + b, b"\n--" + b, 1)
    yield "spaces", whole.replace(b"\n\n--" + b, b"\n \t\n--" + b, 1)
    yield "nul", whole.replace(b"\n\n--" + b, b"\n\0\n--" + b, 1)


@kind("headers of parts")
def _part_heads(b: bytes, code: str) -> Iterator[tuple[str, bytes]]:
    for name, before in {
        "empty": b"\n",
        "space": b" \n",
        "junk": b"junk\n",
        "two": b"\n\n",
        "continued": b" x\n",
        "mbox": b"From x\n",
        "x": b"X: y\n \n",
    }.items():
        yield name, mail(b, TEXT, file(code, head=before))


@kind("the first boundary is missing")
def _no_first(b: bytes, code: str) -> Iterator[tuple[str, bytes]]:
    whole = control(b, code)
    yield "no line", whole.replace(b"--" + b + b"\n", b"", 1)
    yield (
        "one hyphen",
        whole.replace(b"\n--" + b + b"\nContent-Type: app", b"\n-" + b + b"\nContent-Type: app"),
    )
    yield (
        "space",
        whole.replace(b"\n--" + b + b"\nContent-Type: app", b"\n --" + b + b"\nContent-Type: app"),
    )
    yield (
        "spaced",
        whole.replace(b"\n--" + b + b"\nContent-Type: app", b"\n-- " + b + b"\nContent-Type: app"),
    )


@kind("the last boundary is missing")
def _no_last(b: bytes, code: str) -> Iterator[tuple[str, bytes]]:
    yield "none", mail(b, TEXT, file(code), end=b"")
    yield "as others", mail(b, TEXT, file(code), end=b"\n")
    yield "no newline", mail(b, TEXT, file(code), end=b"--")
    yield "one hyphen", mail(b, TEXT, file(code), end=b"-\n")


@kind("behind the end")
def _epilogue(b: bytes, code: str) -> Iterator[tuple[str, bytes]]:
    yield "again", mail(b, TEXT) + parts(b, file(code))
    yield "twice", mail(b, TEXT) + b"--" + b + b"--\n" + parts(b, file(code))
    yield "at once", mail(b) + parts(b, TEXT, file(code))
    yield "only a header", mail(b, TEXT) + file(code)
    yield "text between", mail(b, TEXT) + b"hello\n\n" + parts(b, file(code))


@kind("before the beginning")
def _preamble(b: bytes, code: str) -> Iterator[tuple[str, bytes]]:
    for name, gap in {"header": b"", "empty": b"\n", "text": b"hello\n\n"}.items():
        yield name, HEAD + M + b'boundary="' + b + b'"\n\n' + gap + file(code) + parts(b, TEXT)


@kind("lines that begin as a boundary")
def _prefix(b: bytes, code: str) -> Iterator[tuple[str, bytes]]:
    for behind in (b"x", b"-", b"--x", b" x", b"=", b"\0", b"\x0b", b";"):
        yield (
            repr(behind),
            mail(b, TEXT).replace(
                b"--" + b + b"--", b"--" + b + behind + b"\n" + file(code) + b"--" + b + b"--"
            ),
        )


@kind("boundaries that begin alike")
def _alike(b: bytes, code: str) -> Iterator[tuple[str, bytes]]:
    inner = M + b'boundary="' + b + b'x"\n\n' + parts(b + b"x", file(code))
    yield "longer inside", mail(b, TEXT, inner)
    yield "the same inside", mail(b, TEXT, M + b'boundary="' + b + b'"\n\n' + parts(b, file(code)))
    outer = M + b'boundary="' + b + b'"\n\n' + parts(b, file(code))
    yield "longer outside", mail(b + b"x", TEXT, outer)


@kind("encodings misspelled")
def _misspelled(b: bytes, code: str) -> Iterator[tuple[str, bytes]]:
    for value in (
        "%s (x)",
        "%s;",
        '"%s"',
        "x-%s",
        "%s %s",
        "(x) %s",
        "%s x",
        "%s,7bit",
        "%s\0",
        ":%s",
    ):
        field = b"Content-Transfer-Encoding: " + value.replace("%s", code).encode() + b"\n"
        yield value, mail(b, TEXT, file(code, cte=field))


@kind("encodings that lie")
def _lies(b: bytes, code: str) -> Iterator[tuple[str, bytes]]:
    for value in (b"7bit", b"8bit", b"binary", b"", b"none", b"utf-8", b"x-unknown"):
        body = encoded(code) if code == "base64" else b"".join(b"=%02X" % c for c in EICAR) + b"\n"
        field = b"Content-Transfer-Encoding: " + value + b"\n"
        yield repr(value), mail(b, TEXT, file(code, body, cte=field))


@kind("two encodings")
def _two_encodings(b: bytes, code: str) -> Iterator[tuple[str, bytes]]:
    right = b"Content-Transfer-Encoding: " + code.encode() + b"\n"
    for wrong in (b"7bit", b"quoted-printable" if code == "base64" else b"base64", b"binary"):
        field = b"Content-Transfer-Encoding: " + wrong + b"\n"
        yield f"{wrong!r} first", mail(b, TEXT, file(code, cte=field + right))
        yield f"{wrong!r} last", mail(b, TEXT, file(code, cte=right + field))


@kind("encodings folded")
def _folded(b: bytes, code: str) -> Iterator[tuple[str, bytes]]:
    for field in (
        b"Content-Transfer-Encoding:\n %s\n",
        b"Content-Transfer-Encoding : %s\n",
        b"CONTENT-TRANSFER-ENCODING:%s\n",
        b"Content-Transfer-Encoding:\t\t%s \n",
    ):
        yield repr(field), mail(b, TEXT, file(code, cte=field % code.encode()))


@kind("headers that are long")
def _long(b: bytes, code: str) -> Iterator[tuple[str, bytes]]:
    yield "64 KiB", mail(b, TEXT, file(code, head=b"X: y\n" * 14_000))
    yield "one field", mail(b, TEXT, file(code, head=b"X: " + b"y" * 70_000 + b"\n"))
    yield "at the top", mail(b, TEXT, file(code), head=HEAD + b"X: y\n" * 14_000)


@kind("messages encoded")
def _messages(b: bytes, code: str) -> Iterator[tuple[str, bytes]]:
    whole = control(b, code)
    for kind_ in (b"message/rfc822", b"MESSAGE/RFC822", b"message/global", b"message/news"):
        for outer in CODES:
            head = b"Content-Type: " + kind_ + b"\nContent-Transfer-Encoding: " + outer.encode()
            yield f"{kind_!r} {outer}", mail(b"out", TEXT, head + b"\n\n" + encoded(outer, whole))


@kind("multiparts encoded")
def _multiparts(b: bytes, code: str) -> Iterator[tuple[str, bytes]]:
    body = parts(b, TEXT, file(code))
    for outer in CODES:
        head = HEAD + M + b'boundary="' + b + b'"\nContent-Transfer-Encoding: ' + outer.encode()
        yield outer, head + b"\n\n" + encoded(outer, body)
        yield (
            f"{outer} inside",
            mail(b"out", TEXT, head[len(HEAD) :] + b"\n\n" + encoded(outer, body)),
        )


@kind("messages in parts or elsewhere")
def _partial(b: bytes, code: str) -> Iterator[tuple[str, bytes]]:
    for field in (
        b'message/partial; id="x"; number=1; total=2',
        b"message/external-body; access-type=URL",
    ):
        yield repr(field), mail(b, TEXT, b"Content-Type: " + field + b"\n\n" + file(code))


@kind("nested")
def _nested(b: bytes, code: str) -> Iterator[tuple[str, bytes]]:
    for depth in (63, 66, 100):
        yield (
            f"messages {depth}",
            HEAD + b"Content-Type: message/rfc822\n\n" * depth + control(b, code),
        )
        inner = file(code)
        for n in range(depth):
            inner = M + b"boundary=%db\n\n" % n + parts(b"%db" % n, inner)
        yield f"multiparts {depth}", mail(b, TEXT, inner)


def alone(name: str) -> Callable[[Callable[[], Iterator[tuple[str, bytes, bytes]]]], None]:
    """One class of shapes that bring their own encoding, and their own control."""
    return lambda make: _ALONE.__setitem__(name, make)


def coded(body: bytes, code: str = "base64") -> bytes:
    """A message whose file is encoded like this."""
    return mail(b"b1", TEXT, file(code, body))


B64 = base64.b64encode(EICAR)


@alone("base64 with other characters")
def _junk() -> Iterator[tuple[str, bytes, bytes]]:
    for junk in (b"!", b".", b" ", b"*", b"\0", b"\r", b"\xff", b"-", b"<>", b"\t", b"()"):
        for step in (1, 4, 10):
            body = junk.join(B64[n : n + step] for n in range(0, len(B64), step))
            yield f"{junk!r} {step}", coded(body + b"\n"), control()


@alone("base64 with lines between")
def _lines() -> Iterator[tuple[str, bytes, bytes]]:
    for line in (b"-----", b"hello you!", b"# x", b"", b"====", b"=", b"%%%%"):
        for width in (4, 20, 40):
            lines = [B64[n : n + width] for n in range(0, len(B64), width)]
            yield f"{line!r} {width}", coded((b"\n" + line + b"\n").join(lines) + b"\n"), control()


@alone("base64 that ends early")
def _early() -> Iterator[tuple[str, bytes, bytes]]:
    for size in (1, 2, 3, 4, 5, 10, 20):
        for end in (b"", b"\n"):
            chunks = [base64.b64encode(EICAR[n : n + size]) for n in range(0, len(EICAR), size)]
            yield f"chunks of {size} {end!r}", coded(end.join(chunks) + b"\n"), control()
    for first in (b"QQ==", b"QQ==\n", b"====", b"=", b"QUI=\n\n"):
        yield f"behind {first!r}", coded(first + B64 + b"\n"), control()


@alone("base64 without an end")
def _no_pad() -> Iterator[tuple[str, bytes, bytes]]:
    for end in (b"", b"=", b"===", b"\n\nhello", b"\n--\nlist footer", b"A", b"\n=\n"):
        yield repr(end), coded(B64.rstrip(b"=") + end + b"\n"), control()


@alone("quoted-printable")
def _qp() -> Iterator[tuple[str, bytes, bytes]]:
    qp = "quoted-printable"
    every = [b"=%02X" % c for c in EICAR]
    shapes = {
        "every": b"".join(every),
        "small letters": b"".join(every).lower(),
        "soft ends": b"=\n".join(every),
        "soft ends in text": b"=\n".join(
            EICAR[n : n + 1].replace(b"=", b"=3D") for n in range(len(EICAR))
        ),
        "spaces at the end": b"= \n".join(every),
        "tabs at the end": b"=\t\t\n".join(every),
        "CR": b"=\r".join(every),
        "CR CR": b"=\r\r\n".join(every),
        "broken escapes": b"=ZZ" + b"".join(every) + b"=Z",
        "no newline": b"".join(every) + b"=",
    }
    for name, body in shapes.items():
        yield name, coded(body + b"\n", qp), control(b"b1", qp)


def uu(begin: bytes = b"begin 644 x.com\n", end: bytes = b"`\nend\n") -> bytes:
    """The file as uuencode writes it."""
    lines = [binascii.b2a_uu(EICAR[n : n + 45]) for n in range(0, len(EICAR), 45)]
    return begin + b"".join(lines) + end


def yenc() -> bytes:
    """The file as yEnc writes it."""
    body = EICAR.translate(bytes((c + 42) % 256 for c in range(256)))
    for c in (0x3D, 0, 10, 13):
        body = body.replace(bytes([c]), b"=" + bytes([(c + 64) % 256]))
    return b"=ybegin line=128 size=68 name=x.com\n" + body + b"\n=yend size=68\n"


def binhex() -> bytes:
    """The file in BinHex 4.0, with sums that nobody checks."""
    data = b"\5x.com\0TEXTttxt\0\0" + (68).to_bytes(4, "big") + bytes(6) + EICAR + bytes(2)
    letters = (
        base64.b64encode(data.replace(b"\x90", b"\x90\0"))
        .rstrip(b"=")
        .translate(
            bytes.maketrans(
                b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/",
                b"!\"#$%&'()*+,-012345689@ABCDEFGHIJKLMNPQRSTUVXYZ[`abcdefhijklmpqr",
            )
        )
    )
    lines = b"\n".join((b":" + letters + b":")[n : n + 64] for n in range(0, len(letters) + 2, 64))
    return b"(This file must be converted with BinHex 4.0)\n\n" + lines + b"\n"


@alone("uuencode as a transfer encoding")
def _uu_declared() -> Iterator[tuple[str, bytes, bytes]]:
    for name in (b"x-uuencode", b"uuencode", b"x-uue", b"uue", b"X-UUENCODE"):
        cte = b"Content-Transfer-Encoding: " + name + b"\n"
        yield repr(name), mail(b"b1", TEXT, file("", uu(), cte=cte)), control()


@alone("uuencode in a text")
def _uu_text() -> Iterator[tuple[str, bytes, bytes]]:
    bodies = {
        "plain": uu(),
        "no end": uu(end=b""),
        "mode": uu(b"begin 0755 x.com\n"),
        "spaces": uu(b"begin  644  x.com\n"),
        "CRLF": uu().replace(b"\n", b"\r\n"),
        "text before": b"hello\n\n" + uu(),
        "text behind": uu() + b"bye\n",
    }
    for name, body in bodies.items():
        yield name, HEAD + b"\n" + body, control()
        yield f"{name}, part", mail(b"b1", b"Content-Type: text/plain\n\n" + body), control()
        head = b"Content-Type: text/plain\nContent-Transfer-Encoding: "
        qp = quopri.encodestring(body)
        yield f"{name}, qp", mail(b"b1", head + b"quoted-printable\n\n" + qp), control()
        coded64 = base64.encodebytes(body)
        yield f"{name}, base64", mail(b"b1", head + b"base64\n\n" + coded64), control()


@alone("yEnc and BinHex in a text")
def _other_text() -> Iterator[tuple[str, bytes, bytes]]:
    for name, body in {"yenc": yenc(), "binhex": binhex()}.items():
        yield name, HEAD + b"\n" + body, control()
        yield f"{name}, text before", HEAD + b"\nhello\n\n" + body, control()
        yield f"{name}, part", mail(b"b1", b"Content-Type: text/plain\n\n" + body), control()
        yield f"{name}, html", mail(b"b1", b"Content-Type: text/html\n\n" + body), control()


@alone("BinHex as a type or an encoding")
def _binhex_declared() -> Iterator[tuple[str, bytes, bytes]]:
    for head in (
        b"Content-Type: application/mac-binhex40\n",
        b"Content-Transfer-Encoding: mac-binhex40\n",
    ):
        yield repr(head), mail(b"b1", TEXT, head + b"\n" + binhex()), control()


@alone("charsets of texts")
def _charsets() -> Iterator[tuple[str, bytes, bytes]]:
    text = EICAR.decode()
    for charset, codec in {
        "utf-7": "utf-7",
        "UTF7": "utf-7",
        "utf-16": "utf-16",
        "utf-16le": "utf-16-le",
        "utf-16be": "utf-16-be",
        "utf-32": "utf-32",
        "us-ascii": "utf-16",
        "ibm037": "cp037",
        "cp500": "cp500",
    }.items():
        for kind_ in (b"text/plain", b"text/html"):
            head = b"Content-Type: " + kind_ + b"; charset=" + charset.encode()
            body = base64.encodebytes(text.encode(codec))
            whole = mail(b"b1", head + b"\nContent-Transfer-Encoding: base64\n\n" + body)
            yield f"{charset} {kind_!r}", whole, control()


@alone("many parts")
def _many() -> Iterator[tuple[str, bytes, bytes]]:
    for empty in (b"\n", b"", b"X: y\n\n"):
        yield repr(empty), mail(b"b1", *[empty] * 10_001, file()), control()


@alone("a message quoted in a text")
def _quoted() -> Iterator[tuple[str, bytes, bytes]]:
    for name, before in {
        "bounce": b"Your message:\n\n",
        "copy": b"--- Below this line is a copy.\n\n",
        "nothing": b"",
        "hyphens": b"-----\n\n",
    }.items():
        yield name, HEAD + b"Content-Type: text/plain\n\n" + before + control(), control()


def cases() -> Iterator[Case]:
    """More than 500 messages in more than 40 classes."""
    for name, shapes in _KINDS.items():
        for number, (b, code) in enumerate(product(BOUNDARIES, CODES)):
            for what, raw in shapes(b, code):
                yield Case(f"{name}: {what} {number}", name, raw, control(b, code))
    for name, make in _ALONE.items():
        for what, raw, plain in make():
            yield Case(f"{name}: {what}", name, raw, plain)


# names

EXE = "evil.exe"


def named(disposition: bytes = b"", kind_: bytes = b"", more: bytes = b"") -> bytes:
    """A message with a file, whose header has these values."""
    head = b"Content-Type: application/octet-stream" + kind_ + b"\n" + more
    if disposition:
        head += b"Content-Disposition: attachment" + disposition + b"\n"
    return mail(b"b1", TEXT, head + b"Content-Transfer-Encoding: base64\n\n" + encoded("base64"))


def _words(text: str) -> Iterator[tuple[str, bytes]]:
    """Encoded words (RFC 2047)."""
    for charset in (
        "utf-8",
        "iso-8859-1",
        "koi8-r",
        "utf-16",
        "utf-7",
        "gb2312",
        "x-unknown",
        "us-ascii*en",
    ):
        codec = {"x-unknown": "ascii", "us-ascii*en": "ascii"}.get(charset, charset)
        raw = text.encode(codec)
        yield f"b {charset}", b"=?%b?B?%b?=" % (charset.encode(), base64.b64encode(raw))
        yield (
            f"q {charset}",
            b"=?%b?Q?%b?=" % (charset.encode(), b"".join(b"=%02X" % c for c in raw)),
        )
    yield "two", b"=?utf-8?q?evil?= =?utf-8?q?.exe?="
    yield "half", b"evil=?utf-8?q?.exe?="
    yield "joined", b"=?utf-8?q?evil?==?utf-8?b?LmV4ZQ==?="
    yield "spaces in it", b"=?utf-8?q?evil .exe?="
    yield "no end", b"=?utf-8?q?evil.exe"
    yield "no padding", b"=?utf-8?b?" + base64.b64encode(text.encode()).rstrip(b"=") + b"?="


def _extended() -> Iterator[tuple[str, bytes]]:
    """Extended parameters (RFC 2231)."""
    percent = b"".join(b"%%%02x" % c for c in EXE.encode())
    for charset in (b"utf-8", b"", b"us-ascii", b"x-unknown", b"utf-7"):
        yield f"extended {charset!r}", b"%p*=" + charset + b"''" + percent
        yield f"language {charset!r}", b"%p*=" + charset + b"'en'evil.%65xe"
    yield "sections", b"%p*0=evil; %p*1=.exe"
    yield "sections encoded", b"%p*0*=utf-8''%65vil; %p*1*=.%65xe"
    yield "sections mixed", b"%p*0*=utf-8''evil; %p*1=\".exe\""
    yield "out of order", b"%p*1=.exe; %p*0=evil"
    yield "gap", b"%p*0=evil; %p*2=.exe"
    yield "from one", b"%p*1=evil; %p*2=.exe"
    yield "zeros", b"%p*00=evil; %p*01=.exe"
    yield "twice", b"%p*0=evil; %p*1=.txt; %p*1=.exe"
    yield "twice, other way", b"%p*0=evil; %p*1=.exe; %p*1=.txt"
    yield "both", b"%p=a.txt; %p*=utf-8''evil.exe"
    yield "both, other way", b"%p*=utf-8''evil.exe; %p=a.txt"
    yield "no quotes", b"%p*=evil%2eexe"
    yield "quoted", b"%p*=\"utf-8''evil.exe\""
    yield "many", "".join(f"%p*{n}={c}; " for n, c in enumerate(EXE)).encode()


def _spelled() -> Iterator[tuple[str, bytes]]:
    """Parameters that are written oddly."""
    for value in (
        b"evil.exe",
        b'"evil.exe"',
        b'"evil.exe',
        b"'evil.exe'",
        b'"evil\\.exe"',
        b'"evil.\\e\\x\\e"',
        b'evil".exe"',
        b'"evil".exe',
        b'"evil" ".exe"',
        b'""evil.exe""',
        b"(x)evil.exe",
        b"evil.exe(x)",
        b"evil.exe x",
        b"evil .exe",
        b'"evil.exe";',
        b"evil.exe,",
        b'"\n evil.exe"',
        b'"evil.\n exe"',
        b'"evil\n\t.exe"',
        b" \t evil.exe",
        b'\n "evil.exe"',
    ):
        yield repr(value), b"%p=" + value
    yield "twice", b"%p=a.txt; %p=evil.exe"
    yield "twice, other way", b"%p=evil.exe; %p=a.txt"
    yield "case", b"%P=evil.exe"
    yield "space", b"%p = evil.exe"
    yield "no semicolon", b"x %p=evil.exe"
    yield "quoted name", b'"%p"=evil.exe'
    yield "many parameters", b"x=y; " * 150 + b"%p=evil.exe"


_CHARACTERS = {
    "dots": "evil.exe...",
    "spaces": "evil.exe   ",
    "dots and spaces": "evil.exe . .",
    "tab": "evil.exe\t",
    "no-break space": "evil.exe\u00a0",
    "nul": "evil.exe\0",
    "nul and more": "evil.exe\0.txt",
    "nul inside": "evil.e\0xe",
    "folder": "/tmp/evil.exe",
    "folders": "..\\..\\evil.exe",
    "folder behind": "evil.exe/",
    "fullwidth": "\uff45\uff56\uff49\uff4c\uff0e\uff45\uff58\uff45",
    "fullwidth dot": "evil\uff0eexe",
    "one dot leader": "evil\u2024exe",
    "ideographic stop": "evil\u3002exe",
    "halfwidth stop": "evil\uff61exe",
    "zero width space": "evil.\u200bexe",
    "zero width joiner": "evil.e\u200dxe",
    "soft hyphen": "evil.ex\u00ade",
    "bom": "\ufeffevil.exe",
    "bom behind": "evil.exe\ufeff",
    "reversed": "evil\u202efdp.exe",
    "reversed exe": "evil\u202eexe.fdp",
    "embedding": "evil.\u202aexe",
    "isolate": "evil.exe\u2069",
    "left-to-right mark": "evil.exe\u200e",
    "stream": "evil.exe::$DATA",
    "stream of a text": "evil.exe:a.txt",
    "percent": "evil%2Eexe",
    "percents": "%65vil.%65xe",
    "double": "invoice.pdf.exe",
    "double with spaces": "invoice.pdf          .exe",
    "upper": "EVIL.EXE",
    "delete": "evil.exe\x7f",
    "bell": "evil.\x07exe",
    "line end": "evil.ex\x85e",
    "variation": "evil.exe\ufe0f",
    "hangul filler": "evil.exe\u3164",
    "word joiner": "evil.ex\u2060e",
    "math letters": "evil.\U0001d41e\U0001d431\U0001d41e",
    "ligatures and rings": "evil.\u24d4\u24e7\u24d4",
    "quote behind": "evil.exe'",
    "bracket behind": "evil.exe)",
    "semicolon": "evil.exe;a.txt",
    "question mark": "evil.exe?x",
    "backslash behind": "evil.exe\\",
}


def _bytes() -> Iterator[tuple[str, bytes]]:
    """Characters that programs leave out or read as others, in three spellings."""
    for name, text in _CHARACTERS.items():
        yield f"{name}, raw", b'%p="' + text.replace("\\", "\\\\").encode() + b'"'
        yield f"{name}, percents", b"%p*=utf-8''" + quote(text, safe="").encode()
        yield f"{name}, word", b'%p="=?utf-8?b?' + base64.b64encode(text.encode()) + b'?="'


def name_cases() -> Iterator[NameCase]:
    """More than 200 messages with the name evil.exe."""
    groups = {"RFC 2231": _extended, "spelling": _spelled, "characters": _bytes}
    for group, make in groups.items():
        for name, parameter in make():
            filename = parameter.replace(b"%p", b"filename").replace(b"%P", b"FileName")
            yield NameCase(f"{group}: {name}, filename", group, named(b"; " + filename))
            if group != "characters":
                in_type = parameter.replace(b"%p", b"name").replace(b"%P", b"NAME")
                yield NameCase(f"{group}: {name}, name", group, named(b"", b"; " + in_type))
    for name, word in _words(EXE):
        for quoted in (b'"%b"', b"%b"):
            value = quoted % word
            yield NameCase(
                f"RFC 2047: {name} {quoted!r}", "RFC 2047", named(b"; filename=" + value)
            )
            yield NameCase(
                f"RFC 2047: {name} {quoted!r}, name", "RFC 2047", named(b"", b"; name=" + value)
            )
    for name, raw in _fields():
        yield NameCase(f"fields: {name}", "fields", raw)


def _fields() -> Iterator[tuple[str, bytes]]:
    """Names in one field or another."""
    yield "two names", named(b"; filename=a.txt", b"; name=evil.exe")
    yield "two names, other way", named(b"; filename=evil.exe", b"; name=a.txt")
    yield (
        "two dispositions",
        named(b"; filename=evil.exe", b"", b"Content-Disposition: inline; filename=a.txt\n"),
    )
    yield "two types", named(b"", b"", b"Content-Type: text/plain; name=evil.exe\n")
    yield "location", named(b"", b"", b"Content-Location: evil.exe\n")
    yield "description", named(b"", b"", b"Content-Description: evil.exe\n")
    yield "filename in the type", named(b"", b"; filename=evil.exe")
    yield "name in the disposition", named(b"; name=evil.exe")
    yield (
        "space before the colon",
        named(b"", b"", b"Content-Disposition : attachment; filename=evil.exe\n"),
    )
    yield "bare CR", named(b"", b"", b"X: y\rContent-Disposition: attachment; filename=evil.exe\n")


def missed_by_email() -> list[str]:
    """The cases whose file Python's `email` alone does not find."""

    def finds(raw: bytes) -> bool:
        try:
            parsed = email.message_from_bytes(raw)
            found = [p.get_payload(decode=True) for p in parsed.walk()]
        except RecursionError:
            return False
        return any(isinstance(f, bytes) and EICAR in f for f in found)

    return [case.name for case in cases() if not finds(case.raw)]


if __name__ == "__main__":
    missed, all_ = missed_by_email(), list(cases())
    print(f"{len(missed)} of {len(all_)} in {len({c.kind for c in all_})} classes")
