"""A message and its views."""

from __future__ import annotations

import pytest

from mdaflow.mail.html import text_of_html
from mdaflow.mail.message import MAX_TEXT, Message

FROM_WIRE = {
    b"A: 1\r\n\r\nb\r\n": b"A: 1\n\nb\n",
    b"A: 1\n\nb\r\n": b"A: 1\n\nb\r\n",
    b"\r\nb": b"\nb",
    b"\nb": b"\nb",
    b"A: 1": b"A: 1",
    b"A: 1\r": b"A: 1\r",
    b"": b"",
    b"From a@b Sat Nov 21 10:00:00 2026\r\nA: 1\r\n": b"A: 1\n",
    b"From a@b": b"",
    b"From: a@b\n": b"From: a@b\n",
}


@pytest.mark.parametrize(("data", "raw"), FROM_WIRE.items())
def test_from_wire(data: bytes, raw: bytes) -> None:
    """The line ends of the wire become ours, and the line of an mbox is no part of a message."""
    expected = raw if data != b"From a@b" else data
    assert Message.from_wire(data).raw == expected


@pytest.mark.parametrize(
    ("raw", "lines"), [(b"", 0), (b"a", 1), (b"a\n", 1), (b"a\nb", 2), (b"\n\n", 2)]
)
def test_lines(raw: bytes, lines: int) -> None:
    """A last line without an end is a line."""
    assert Message(raw).lines == lines


def test_long_texts_are_cut() -> None:
    """Of the text of a message the first 4 MiB are seen, in all its parts together."""
    head = b"Content-Type: multipart/mixed; boundary=b\n\n"
    message = Message(head + b"--b\n\n" + b"x" * MAX_TEXT + b"\n--b\n\nyy\n--b--\n")
    assert len(message.body) == MAX_TEXT
    assert len(message.raw_body) == MAX_TEXT
    small = Message(head + b"--b\n\nx\n--b\n\nyy\n--b--\n")
    assert small.body == "x\nyy"


HTML = {
    "<p>a</p><p>b</p>": "a\nb",
    "a<b>b</b><span class='x'>c</span>d": "abcd",
    "a<br>b<br/>c": "a\nb\nc",
    "  a \n b\t<td> c </td> ": "a b\nc",
    "a &amp; &lt;b&gt; &#8364;&nbsp;&euro;": "a & <b> € €",
    "a<!-- b --> c<!-- d": "a c",
    "a<script>b < c</script>d<STYLE>x</style >e<title>f</title>g": "adeg",
    "a<script>b": "a",
    "<scripted>a</scripted>": "a",
    "<a href=\"x>y\" title='>'>b</a>": "b",
    "<p title=a'b>c": "c",
    "<!DOCTYPE html><?xml?><html><body>a": "a",
    "a < b <3 c": "a < b <3 c",
    "1<2>3": "1<2>3",
    "</": "</",
    "a<b": "a",
    "&#xD800;&#0;&#99999999999999999999;": "\ufffd\ufffd\ufffd",
    "a&#10;b": "a\nb",
    "": "",
}


@pytest.mark.parametrize(("markup", "text"), HTML.items())
def test_html(markup: str, text: str) -> None:
    """The text of HTML is what a person reads: words stay whole, blocks are lines."""
    assert text_of_html(markup) == text
