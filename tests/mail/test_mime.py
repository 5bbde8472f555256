"""The parts of a message, of good ones and of hostile ones."""

from __future__ import annotations

import pytest

from mdaflow.mail.message import Message
from mdaflow.mail.mime import MAX_DEPTH, MAX_PARTS, Part, parts


def multipart(
    *inner: bytes, boundary: bytes = b"b", kind: bytes = b"mixed", end: bytes = b"--b--\n"
) -> bytes:
    """A multipart of some parts."""
    head = b'Content-Type: multipart/%b; boundary="%b"\n\n' % (kind, boundary)
    return head + b"".join(b"--%b\n%b\n" % (boundary, part) for part in inner) + end


def part(raw: bytes) -> Part:
    """The only part of a message."""
    (found,) = parts(raw)
    return found


# raw | the content of each leaf
TREES = {
    "no MIME": (b"A: 1\n\nbody\n", [b"body\n"]),
    "no header": (b"body\n", [b"body\n"]),
    "empty": (b"", [b""]),
    "multipart": (multipart(b"\na", b"\nb"), [b"a", b"b"]),
    "preamble and epilogue": (
        multipart(b"\na").replace(b"\n\n--b", b"\n\nno part\n--b") + b"no part", [b"a"],
    ),
    "no end": (multipart(b"\na", b"\nb", end=b""), [b"a", b"b\n"]),
    "no newline at the end": (multipart(b"\na", end=b"--b--"), [b"a"]),
    "spaces behind a boundary": (multipart(b"\na").replace(b"--b\n", b"--b \t\n"), [b"a"]),
    "only the beginning of a line": (multipart(b"\na --b\nc"), [b"a --b\nc"]),
    "a longer boundary": (multipart(b"\na\n--bc\nd"), [b"a\n--bc\nd"]),
    "empty part": (multipart(b"", b"\nb"), [b"", b"b"]),
    "part without an empty line": (multipart(b"A: 1"), [b""]),
    "part without a header": (multipart(b"hello\n\nyou"), [b"hello\n\nyou"]),
    "nested": (
        multipart(b'Content-Type: multipart/x; boundary=c\n\n--c\n\n1\n--c\n\n2\n--c--', b"\n3"),
        [b"1", b"2", b"3"],
    ),
    "nested without an end": (
        multipart(b"Content-Type: multipart/x; boundary=c\n\n--c\n\n1", b"\n2"), [b"1", b"2"],
    ),
    "same boundary inside": (
        multipart(b"Content-Type: multipart/x; boundary=b\n\n--b\n\n1\n--b--"),
        [b"", b"1"],
    ),
    "nothing inside": (b"Content-Type: multipart/x; boundary=b\n\nhello", [b"hello"]),
    "no boundary": (b"Content-Type: multipart/x\n\n--b\n\nhello", [b"--b\n\nhello"]),
    "a message": (
        b"Content-Type: message/rfc822\n\nA: inner\n\nhello", [b"A: inner\n\nhello", b"hello"],
    ),
    "twice the field": (
        b"Content-Type: multipart/x; boundary=b\nContent-Type: text/plain\n\n--b\n\na\n--b--\n",
        [b"a"],
    ),
    "boundary by RFC 2231": (
        b"Content-Type: multipart/x; boundary*0=\"b\"; boundary*1=c\n\n--bc\n\na\n--bc--\n", [b"a"],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("raw", "contents"), TREES.values(), ids=TREES)
def test_leaves(raw: bytes, contents: list[bytes]) -> None:
    """The leaves of a message in their order, whatever is missing."""
    assert [found.content() for found in parts(raw)] == contents


NAMES = {
    "filename": (b"Content-Disposition: attachment; filename=a.pdf", "a.pdf"),
    "quoted": (b'Content-Disposition: attachment; filename="a \\"b\\".pdf"', 'a "b".pdf'),
    "name": (b"Content-Type: application/pdf; name=a.pdf", "a.pdf"),
    "filename first": (
        b"Content-Type: application/pdf; name=a.pdf\nContent-Disposition: inline; filename=b.pdf",
        "b.pdf",
    ),
    "RFC 2231": (b"Content-Disposition: inline; filename*=utf-8''%C3%BC%20.pdf", "ü .pdf"),
    "language": (b"Content-Disposition: inline; filename*=iso-8859-1'de'%FC.pdf", "ü.pdf"),
    "continued": (b"Content-Disposition: inline; filename*0=a; filename*1=b.pdf", "ab.pdf"),
    "continued and encoded": (
        b"Content-Disposition: inline; filename*0*=utf-8''%C3; filename*1*=%BC; filename*2=.pdf",
        "ü.pdf",
    ),
    "out of order": (b"Content-Disposition: inline; filename*1=b; filename*0=a", "ab"),
    "unknown charset": (b"Content-Disposition: inline; filename*=x''%C3%BC", "ü"),
    "RFC 2047": (b'Content-Disposition: inline; filename="=?utf-8?q?=C3=BC.pdf?="', "ü.pdf"),
    "8 bit": (b'Content-Disposition: inline; filename="\xc3\xbc.pdf"', "ü.pdf"),
    "latin-1": (b"Content-Disposition: inline; filename=\xfc.pdf", "ü.pdf"),
    "folded": (b"Content-Disposition: inline;\n filename=a.pdf", "a.pdf"),
    "empty": (b"Content-Disposition: inline; filename=", ""),
    "none": (b"Content-Disposition: inline", ""),
    "huge number": (b"Content-Disposition: inline; filename*" + b"9" * 4000 + b"=b", "b"),
}


@pytest.mark.parametrize(("head", "name"), NAMES.values(), ids=NAMES)
def test_names(head: bytes, name: str) -> None:
    """The name of a part, with all that RFC 2231 and RFC 2047 do to it undone (P47)."""
    assert part(head + b"\n\n").name == name


TYPES = {
    b"": ("text/plain", False),
    b"Content-Type: text/html": ("text/html", False),
    b"Content-Type: TEXT/HTML ; charset=x": ("text/html", False),
    b"Content-Type: image/png": ("image/png", True),
    b"Content-Type: text/plain; name=a": ("text/plain", True),
    b"Content-Disposition: ATTACHMENT": ("text/plain", True),
    b"Content-Type: nonsense": ("text/plain", False),
    b"Content-Type: multipart/mixed": ("multipart/mixed", False),
    b"Content-Type: application/x.y+z-1; a=b": ("application/x.y+z-1", True),
}


@pytest.mark.parametrize(("head", "found"), TYPES.items())
def test_types(head: bytes, found: tuple[str, bool]) -> None:
    """The declared type, and whether a part is to be saved instead of read."""
    only = part(head + b"\n\nx" if head else b"\nx")
    assert (only.type, only.attached) == found


CONTENTS = {
    "base64": (b"base64", b"QUJD\nREVG\n", b"ABCDEF"),
    "spaces and case": (b" BASE64 ", b" QU JD", b"ABC"),
    "no padding": (b"base64", b"QUI", b"AB"),
    "one character too many": (b"base64", b"QUJDR", b"ABC"),
    "padding in the middle": (b"base64", b"QQ==\nQUJD", b"A"),
    "junk": (b"base64", b"QU!J\xffD", b"ABC"),
    "quoted-printable": (b"quoted-printable", b"a=C3=BC=\nb =\n", "aüb ".encode()),
    "broken quoted-printable": (b"quoted-printable", b"a=ZZ=", b"a=ZZ"),
    "uuencode": (b"x-uuencode", b"begin 644 a\n#0V%T\n`\nend\n", b"begin 644 a\n#0V%T\n`\nend\n"),
    "8bit": (b"8bit", b"\xff\x00", b"\xff\x00"),
    "unknown": (b"x-none", b"QUJD", b"QUJD"),
}


@pytest.mark.parametrize(("encoding", "body", "content"), CONTENTS.values(), ids=CONTENTS)
def test_contents(encoding: bytes, body: bytes, content: bytes) -> None:
    """A transfer encoding is undone as well as can be."""
    raw = b"Content-Transfer-Encoding: " + encoding + b"\n\n" + body
    assert part(raw).content() == content
    assert part(raw).content(0) == b""


def test_text() -> None:
    """Text has the charset that is declared, or one that fits."""
    raw = b"Content-Type: text/plain; charset=%b\n\n\xa4\xfc"
    assert part(raw % b"iso-8859-15").text == "€ü"
    assert part(raw % b"'iso-8859-15'").text in ("€ü", "¤ü")
    assert part(raw % b"none").text == "¤ü"


def test_depth() -> None:
    """What is nested deeper than 64 levels is the text of the part it is in."""
    raw = b"".join(
        b"Content-Type: multipart/x; boundary=b%d\n\n--b%d\n" % (n, n) for n in range(500)
    )
    (leaf,) = parts(raw + b"\nhello")
    assert leaf.type == "multipart/x"
    assert leaf.content().startswith(b"--b%d\n" % MAX_DEPTH)
    assert "hello" in Message(raw + b"\nhello").body
    letters = b"Content-Type: message/rfc822\n\n" * 500
    assert len(parts(letters)) == MAX_DEPTH + 1


def test_number_of_parts() -> None:
    """At most 10,000 parts are looked at, multiparts among them."""
    assert len(parts(multipart(*[b"\nx"] * (MAX_PARTS + 10)))) == MAX_PARTS - 1
    inner = b"Content-Type: multipart/x; boundary=c\n\n--c\n\nx\n--c--"
    assert len(parts(multipart(*[inner] * 6000))) == MAX_PARTS // 2 - 1


def test_fields_that_say_nothing() -> None:
    """Very many fields of a part cost no more than to read them."""
    raw = b"".join(b"Content-%d: x\n" % n for n in range(50_000))
    assert part(raw + b"Content-Type: text/x\n\nbody").type == "text/x"
