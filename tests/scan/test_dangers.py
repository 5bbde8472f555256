"""What is dangerous about attachments, and what could not be looked at."""

from __future__ import annotations

import base64
import io
import zipfile

import pytest

from mdaflow import Envelope, Message, compile_rules, run
from mdaflow.app.answers import Answers
from mdaflow.engine.context import Fact
from mdaflow.scan.dangers import MAX_ATTACHMENTS, WORDS, dangers, inner, looked, unopened
from mdaflow.store.memory import MemoryStore

ASK = Answers(MemoryStore())
EXE = b"MZ\x90\0" + bytes(100)
PNG = b"\x89PNG\r\n\x1a\n"


def mail(name: str, content: bytes = b"x", kind: str = "application/octet-stream") -> Message:
    """A message with one attachment."""
    head = f'Content-Type: {kind}; name="{name}"\nContent-Transfer-Encoding: base64\n\n'
    return Message(head.encode() + base64.encodebytes(content))


def zipped(name: str, content: bytes = b"x") -> bytes:
    """A zip of one file."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr(name, content)
    return out.getvalue()


DANGERS = {
    "nothing": (mail("a.pdf", b"%PDF-1.4"), ()),
    "program by name": (mail("a.exe"), ("program",)),
    "program by name, in capitals": (mail("A.JSE"), ("program",)),
    "program by content": (mail("a", EXE), ("program",)),
    "program called a picture": (mail("a.jpg", EXE), ("program", "other type")),
    "picture by its type": (mail("a", EXE, "image/png"), ("program", "other type")),
    "page called a picture": (mail("a.jpg", b"<!DOCTYPE html><p>"), ("other type",)),
    "picture called a picture": (mail("a.jpg", PNG), ()),
    "table that is a page": (mail("a.xls", b"<html><table>"), ()),
    "shell script as text": (mail("a.txt", b"#!/bin/sh\n", "text/plain"), ("program",)),
    "double extension": (mail("a.pdf.exe"), ("program", "double extension")),
    "page after document": (mail("invoice.pdf.html", b"<p>"), ("double extension",)),
    "packed document": (mail("a.pdf.zip", zipped("a.pdf")), ()),
    "version numbers": (mail("a.1.2.txt"), ()),
    "reversed": (mail("a\u202efdp.exe"), ("program", "reversed name")),
    "undecodable": (mail("=?x?q?a.txt?="), ("undecodable name", "doubtful name")),
    "two extensions": (mail('a.txt"; name="b.doc'), ("doubtful name",)),
    "macros by name": (mail("a.docm"), ("macros",)),
    "macros": (mail("a.docx", zipped("word/vbaProject.bin")), ("macros",)),
    "name in a zip": (mail("a.zip", zipped("b.scr")), ("program",)),
    "double in a zip": (mail("a.zip", zipped("b.doc.js")), ("program", "double extension")),
    "content in a zip": (mail("a.zip", zipped("b.png", EXE)), ("program",)),
    "rar": (mail("a.rar", b"Rar!\x1a\x07\0" + bytes(99)), ("not opened",)),
}


@pytest.mark.parametrize(("message", "words"), DANGERS.values(), ids=DANGERS)
def test_dangers(message: Message, words: tuple[str, ...]) -> None:
    """The dangers of an attachment, in the order of the table."""
    assert dangers(message)[0] == words
    assert {*words} <= {*WORDS}
    assert unopened(message) == ""


def test_inner() -> None:
    """The names in an archive, for each attachment; rules see both."""
    message = mail("a.zip", zipped("b.exe"))
    assert inner(message) == [("b.exe",)]
    rules = compile_rules(
        'rule when attachment where (inner matches "*.exe" and danger is "program") '
        '{ deliver to "Programs" }'
    )
    assert run(rules, message, ask=ASK).deciding.folder == "Programs"


def test_facts() -> None:
    """The site's answers tell dangers, inner names, and what is ambiguous."""
    message = mail("a.exe")
    assert ASK(Fact("attachment.danger", message, Envelope())) == [("program",)]
    assert ASK(Fact("attachment.inner", message, Envelope())) == [()]
    assert ASK(Fact("ambiguous", message, Envelope())) == [False]
    twice = Message(b"Content-Transfer-Encoding: 7bit\n" + message.raw[:])
    assert ASK(Fact("ambiguous", twice, Envelope())) == [True]


def test_known_once() -> None:
    """A message is looked into once."""
    message = mail("a.exe")
    assert looked(message) is looked(message)


def test_attachment_of_another_reader() -> None:
    """An attachment that only some readers see counts as any other."""
    raw = (
        b"Content-Type: multipart/mixed; boundary=b\n\n--b\n\nhello\n--b--\n--b\n"
        b"Content-Type: image/png; name=a.exe\n\nx\n--b--\n"
    )
    message = Message(raw)
    assert not [part for part in message.parts if part.attached]
    assert dangers(message) == [("program",)]


def test_limits() -> None:
    """What was not looked at for a limit is said: too many, too deep, a bomb."""
    part = b"--b\nContent-Type: image/png\n\nx\n"
    head = b"Content-Type: multipart/mixed; boundary=b\n\n"
    many = Message(head + part * (MAX_ATTACHMENTS + 1) + b"--b--\n")
    assert unopened(many) == "too many attachments"
    assert dangers(many)[-2:] == [(), ("not opened",)]
    raw = zipped("a")
    for _ in range(6):
        raw = zipped("a.zip", raw)
    assert unopened(mail("a.zip", raw)) == "archives in archives, too deep"
    deep = Message(b"Content-Type: message/rfc822\n\n" * 70)
    assert unopened(deep) == "nested deeper than 64"
