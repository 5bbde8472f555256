"""File names in all their readings."""

from __future__ import annotations

import evasions
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdaflow.mail.message import Message
from mdaflow.mail.mime import Part
from mdaflow.mail.names import MAX_NAMES, extensions, names, undecodable
from mdaflow.scan.dangers import dangers

CASES = list(evasions.name_cases())
KINDS = sorted({case.kind for case in CASES})


def part(head: bytes) -> Part:
    """The only part of a message."""
    [found] = Message(head + b"\n\n").parts
    return found


def clean(raw: bytes) -> bool:
    """Has no attachment the extension, nor a danger?"""
    message = Message.from_wire(raw)
    seen = {e.lower() for p in message.attachments for e in extensions(names(p))}
    return "exe" not in seen and not any(dangers(message))


def test_enough_spellings() -> None:
    """There are as many spellings as promised."""
    assert len({case.name for case in CASES}) == len(CASES) >= 200


@pytest.mark.parametrize("kind", KINDS)
def test_spellings(kind: str) -> None:
    """However evil.exe is written, the extension is seen, or the name is a danger (P47)."""
    assert not [case.name for case in CASES if case.kind == kind and clean(case.raw)]


PLAIN = {
    b"filename=a.pdf": ("a.pdf",),
    b'filename="annual report (1).pdf"': ("annual report (1).pdf",),
    b"filename*=utf-8''%C3%BC.pdf": ("ü.pdf",),
    b"filename*0=a; filename*1=.pdf": ("a.pdf",),
    b'filename="=?utf-8?q?=C3=BC.pdf?="': ("ü.pdf",),
    b'filename="\xc3\xbc.pdf"': ("ü.pdf",),
    b'\n filename="a b.pdf"': ("a b.pdf",),
    b"filename=": (),
    b'filename="  "': (),
}


@pytest.mark.parametrize(("parameter", "readings"), PLAIN.items())
def test_plain_names(parameter: bytes, readings: tuple[str, ...]) -> None:
    """A name that is written as it should be has one reading, and can be decoded."""
    found = part(b"Content-Disposition: attachment; " + parameter)
    assert names(found) == readings
    assert not undecodable(found)


SEVERAL = {
    b"filename=a.txt; filename=b.exe": ("a.txt", "b.exe"),
    b"filename=a.txt; filename*=utf-8''b.exe": ("a.txt", "b.exe"),
    b'filename="../a.exe"': ("../a.exe", "a.exe"),
    b'filename="a.exe."': ("a.exe.", "a.exe"),
    b"filename=a%2eexe": ("a%2eexe", "a.exe"),
}


@pytest.mark.parametrize(("parameter", "readings"), SEVERAL.items())
def test_several_names(parameter: bytes, readings: tuple[str, ...]) -> None:
    """A name that readers read differently has all of these readings."""
    found = names(part(b"Content-Disposition: attachment; " + parameter))
    assert set(readings) <= set(found)


UNDECODABLE = (
    b"filename*=x-unknown''a.exe", b'filename="=?x-unknown?q?a.exe?="', b'filename="=?utf-8?b?A?="',
    b"filename*=utf-8''a%00.exe", b'filename="=?utf-7?q?a?="', b'filename="a.\xff"',
)  # fmt: skip


@pytest.mark.parametrize("parameter", UNDECODABLE)
def test_undecodable(parameter: bytes) -> None:
    """A name that cannot be decoded as it says is known as such."""
    assert undecodable(part(b"Content-Disposition: attachment; " + parameter))


def test_names_of_last_resort() -> None:
    """Other fields are names only where there is no name, and where they look like one."""
    other = b"Content-Type: image/png\nContent-Description: a picture\nContent-Location: x/b.exe"
    assert names(part(other)) == ("x/b.exe", "b.exe")
    assert names(part(b"Content-Disposition: inline; filename=a.png\n" + other)) == ("a.png",)


@given(st.text(max_size=200))
def test_any_name(name: str) -> None:
    """Any name has a bounded number of readings."""
    raw = name.replace("\n", " ").encode("utf-8", "surrogateescape")
    found = part(b'Content-Disposition: attachment; filename="' + raw + b'"')
    assert len(names(found)) <= MAX_NAMES
    assert isinstance(undecodable(found), bool)
