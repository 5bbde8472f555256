"""All readings of a message: of good ones there is one, of evasions every one is looked at."""

from __future__ import annotations

import email.message
import email.policy

import evasions
import pytest
from evasions import EICAR, Case
from hypothesis import given
from hypothesis import strategies as st

from mdaflow.mail import contents as contents_module
from mdaflow.mail import readings
from mdaflow.mail.contents import contents, is_plain
from mdaflow.mail.message import Message
from mdaflow.mail.mime import MAX_PARTS

CASES = list(evasions.cases())
KINDS = sorted({case.kind for case in CASES})


def found(message: Message) -> bool:
    """Is the file among the decoded contents?"""
    return any(EICAR in b"".join(content.pieces()) for content in contents(message))


def clean(case: Case) -> bool:
    """Would a scanner of all contents, and who asks for doubts, let it pass?"""
    message = Message.from_wire(case.raw)
    said = message.readings.doubts or message.contents.limit
    return not (said or EICAR in message.raw or found(message))


def test_enough_evasions() -> None:
    """There are as many evasions as promised, of as many kinds, each with another name."""
    assert len({case.name for case in CASES}) == len(CASES) >= 500
    assert len(KINDS) >= 40


@pytest.mark.parametrize("kind", KINDS)
def test_evasions(kind: str) -> None:
    """A hidden file is found in some reading, or the message is ambiguous, or not all was seen."""
    assert not [case.name for case in CASES if case.kind == kind and clean(case)]


def test_controls() -> None:
    """The same file, not hidden, is found in the plain reading, and nothing is ambiguous."""
    for raw in {case.control for case in CASES}:
        message = Message(raw)
        assert any(EICAR in part.content() for part in message.parts)
        divided = frozenset({"multipart/mixed"})
        assert message.readings == readings.Readings(tuple(message.parts), divided=divided)


def test_what_email_alone_misses() -> None:
    """Python's email by itself does not find the file in many of the evasions."""
    missed = evasions.missed_by_email()
    print(f"email misses {len(missed)} of {len(CASES)}")  # shown by pytest -s
    assert missed


DOUBTS = {
    "boundary twice": "an unclear boundary",
    "two types": "two types",
    "two encodings": "two transfer encodings",
    "encodings misspelled": "an unclear transfer encoding",
    "behind the end": "parts behind the end",
    "lines that begin as a boundary": "a line that begins as a boundary",
    "base64 that ends early": "base64 that goes on behind its end",
    "uuencode in a text": "uuencode in a text",
    "messages in parts or elsewhere": "message/partial",
    "messages encoded": "an encoded message",
    "multiparts encoded": "an encoded multipart",
    "bare CR": "bare CR",
    "types misspelled": "a boundary, but no multipart",
    "no header at the top": "a header that not all readers see",
    "no boundary": "a part that not all readers see",
    "a line that is no field": "a header line without a colon",
    "a name with more before the colon": "a space before a colon",
}


@pytest.mark.parametrize(("kind", "doubt"), DOUBTS.items())
def test_doubts(kind: str, doubt: str) -> None:
    """Why a message is ambiguous is said in a few words."""
    said = {d for c in CASES if c.kind == kind for d in Message.from_wire(c.raw).readings.doubts}
    assert doubt in said


def by_email(*files: tuple[str, bytes], html: bool = False) -> bytes:
    """A message as Python's email writes it."""
    message = email.message.EmailMessage(policy=email.policy.SMTP)
    message["Subject"] = "x"
    message.set_content("Dear all,\nsee below.\n-- \nme\n")
    if html:
        message.add_alternative("<p>Dear all</p>", subtype="html")
    for name, content in files:
        message.add_attachment(content, maintype="application", subtype="pdf", filename=name)
    return message.as_bytes()


ORDINARY = {
    "text": b"Subject: x\n\nhello\n",
    "no header": b"hello\n\nworld\n",
    "empty": b"",
    "by email": by_email(("a.pdf", b"%PDF-1.4\n\0\xff" * 500)),
    "html and names": by_email(("ü.pdf", b"x"), ("a b (1).pdf", b"y"), html=True),
    "a message within": b"Content-Type: message/rfc822\n\n"
    + by_email(("a.pdf", b"x")).replace(b"\r", b""),
    "truncated": by_email(("a.pdf", b"x" * 5000))[:3000],
    "footer of a list": evasions.control() + b"_______\nlist mailing list\nhttp://x.example/\n",
    "footer behind base64": evasions.mail(
        b"b",
        evasions.file().replace(b"octet-stream", b"x") + b"_______________\nlist mailing list\n",
    ),
    "encodings in capitals": evasions.control().replace(b"base64", b"BASE64 "),
    "encoding that changes nothing": b"Content-Type: text/plain\nContent-Transfer-Encoding: 8-bit"
    b"\n\nhello\n",
    "quoted-printable multipart": evasions.control().replace(
        b"MIME-Version", b"Content-Transfer-Encoding: quoted-printable\nMIME-Version"
    ),
    "boundary in its own name": evasions.mail(b"Boundary_(x=1)", evasions.TEXT),
    "begin in a text": b"Subject: x\n\nbegin 6 weeks from now\nend\n",
    "a quoted bounce": b"Subject: x\n\nIt failed:\n\n" + evasions.control(),
    "hyphens": b"Content-Type: multipart/mixed; boundary=b\n\n--b\n\n--\nme\n----\n--b--\n",
}


@pytest.mark.parametrize("raw", ORDINARY.values(), ids=ORDINARY)
def test_ordinary(raw: bytes) -> None:
    """What good and careless programs write is not ambiguous, and looked at completely."""
    message = Message.from_wire(raw)
    assert (message.readings.doubts, message.contents.limit) == ((), "")
    assert message.readings.parts == tuple(message.parts)


@pytest.mark.parametrize("kind", ["signed", "parallel", "x-new"])
def test_rare_multiparts(kind: str) -> None:
    """What scanners may not take apart, or take for another kind, is not plain."""
    raw = evasions.control()
    assert is_plain(Message(raw).readings)
    assert not is_plain(Message(raw.replace(b"mixed", kind.encode())).readings)


def test_encoded_messages() -> None:
    """A message that is encoded, as it should not be, is not plain."""
    raw = b"Content-Type: message/delivery-status\nContent-Transfer-Encoding: %b\n\nQUFB\n"
    assert is_plain(Message(raw % b"8bit").readings)
    assert not is_plain(Message(raw % b"base64").readings)


def test_contents_once() -> None:
    """The same bytes come once, however often they are in a message."""
    raw = evasions.mail(b"b", evasions.file(), evasions.file(body=evasions.B64 + b"\n"))
    [content] = contents(Message(raw))
    assert b"".join(content.pieces()) == EICAR


def test_charsets() -> None:
    """A text in which ASCII is written differently comes in UTF-8, too."""
    body = "hello".encode("utf-16")
    raw = b"Content-Type: text/plain; charset=utf-16\n\n" + body
    assert [b"".join(c.pieces()) for c in contents(Message(raw))] == [body, b"hello"]


@pytest.mark.parametrize(
    ("raw", "limit"),
    [
        (evasions.mail(b"b", *[b"\n"] * (2 * MAX_PARTS + 1)), "more than 10,000 parts"),
        (evasions.HEAD + b"Content-Type: message/rfc822\n\n" * 70, "nested deeper than 64"),
        (b"A: " + b"b" * (1 << 20) + b"\n\nx", "a header of more than 1 MiB"),
        (b"A: b\n\n" + b"begin 644 a\nend\n" * 1001, "too much that is encoded in texts"),
        (
            b"Content-Transfer-Encoding: quoted-printable\n\n" + b"x\n" * (9 << 20),
            "too large to be decoded and divided",
        ),
    ],
    ids=["parts", "depth", "header", "files", "text"],
)
def test_limits(raw: bytes, limit: str) -> None:
    """What is beyond a limit is said, never called clean."""
    message = Message(raw)
    assert message.readings.limit == limit
    assert message.contents.limit == limit


def test_too_many_contents(monkeypatch: pytest.MonkeyPatch) -> None:
    """Contents end where there are too many bytes, and it is said."""
    monkeypatch.setattr(contents_module, "MAX_CONTENTS", 5)
    raw = evasions.mail(b"b", b"\none\n", b"\ntwo two\n", b"\nthree\n")
    assert Message(raw).contents.limit == "too many contents"
    assert len(list(contents(Message(raw)))) == 2


def test_edited() -> None:
    """What rules do to the header changes no reading."""
    raw = evasions.control().replace(b"MIME", b"Content-Type: text/plain\nMIME")
    message = Message(raw)
    edited = message.edited(b"Subject: y\n")
    assert edited.readings is message.readings
    assert edited.contents is message.contents
    assert edited.attachments


PIECES = (
    *(b"\n", b"\r", b" ", b"\0", b"--b", b"--b--", b";", b'"', b"=", b"x", b"QUJD", b"\xff"),
    *(b"(", b"*", b"%"),
    *(b"Content-Type: ", b"content-transfer-encoding: ", b"Content-Disposition: attachment"),
    *(b"multipart/mixed", b"message/rfc822", b"boundary=b", b"base64", b"quoted-printable"),
    *(b"charset=utf-7", b"name", b"filename*0*=", b"utf-8''%41", b"=?utf-8?q?a?=", b"\nend\n"),
    *(b"=ybegin name=a\n", b"(This file must be converted with BinHex 4.0)\n:", b"text/plain"),
    *(b"begin 644 a\n", b"A" * 40),
)


@given(st.binary(max_size=300) | st.lists(st.sampled_from(PIECES), max_size=60).map(b"".join))
def test_any_bytes(raw: bytes) -> None:
    """Any bytes have contents, no more of them than the readings can make of so many bytes."""
    message = Message(raw)
    sizes = [len(b"".join(content.pieces())) for content in contents(message)]
    assert sum(sizes) <= 300 * (len(raw) + 100)
    assert message.readings.parts[: len(message.parts)] == tuple(message.parts)
    assert message.attachments is not None
