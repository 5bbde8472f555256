"""Header fields: where they are, and what they say."""

from __future__ import annotations

import pytest

from mdaflow.mail.header import MAX_BLOCK, MAX_FIELD, block_end, decoded, fields, text_of, undecoded
from mdaflow.mail.message import Message

# raw | the header block, up to `end`
BLOCKS = {
    "usual": (b"A: 1\nB: 2\n\nbody: x\n", b"A: 1\nB: 2\n"),
    "folded": (b"A: 1\n 2\n\t3\n\nbody", b"A: 1\n 2\n\t3\n"),
    "no body": (b"A: 1\nB: 2", b"A: 1\nB: 2"),
    "empty header": (b"\nA: 1\n", b""),
    "empty": (b"", b""),
    "no header": (b"hello\nA: 1\n\nx", b""),
    "begins folded": (b" A: 1\nB: 2\n\nx", b""),
    "line that is no field": (b"A: 1\nno field\nB: 2\n\nx", b"A: 1\nno field\nB: 2\n"),
    "space before the colon": (b"A : 1\n\nx", b"A : 1\n"),
    "mbox": (b"From a Sat\nA: 1\n\nx", b"From a Sat\nA: 1\n"),
    "quoted mbox": (b">From a Sat\nA: 1\n\nx", b">From a Sat\nA: 1\n"),
    "only an mbox line": (b"From a Sat\nhello\n\nx", b""),
    "no ASCII in a name": (b"\xc3\x84: 1\n\nx", b""),
}


@pytest.mark.parametrize(("raw", "block"), BLOCKS.values(), ids=BLOCKS)
def test_block(raw: bytes, block: bytes) -> None:
    """The header ends before the first empty line; without a field at its start there is none."""
    assert raw[: block_end(raw)] == block
    assert block_end(b"x\n" + raw, 2) == 2 + len(block)


def test_fields() -> None:
    """Fields are found by their lines; a line that is none is passed over."""
    raw = b"A: 1\n 2\nno field\nb :x\nA:\n\nC: 3\n"
    found = [(name, raw[start:end]) for name, _, start, end in fields(raw, 0, block_end(raw))]
    assert found == [(b"a", b" 1\n 2\n"), (b"b", b"x\n"), (b"a", b"\n")]


def test_block_is_examined_for_so_long() -> None:
    """Fields behind the first MiB of a header are not seen."""
    message = Message(b"A: 1\n" + b"X: x\n" * (MAX_BLOCK // 5) + b"B: 2\n\n")
    assert message.header("A") == ["1"]
    assert message.header("B") == []


# a field body | decoded | undecoded
BODIES = {
    "spaces": (b"  a  b \t", "a  b", "a  b"),
    "fold": (b" a\n  b\n\tc\n", "a b c", "a  b\tc"),
    "8 bit": (b"\xc3\xbc", "ü", "ü"),
    "latin-1": (b"\xfc", "ü", "\udcfc"),
    "quoted-printable": (b"=?UTF-8?Q?a_=C3=BC=3F?=", "a ü?", "=?UTF-8?Q?a_=C3=BC=3F?="),
    "base64": (b"=?utf-8?B?w7w=?=", "ü", "=?utf-8?B?w7w=?="),
    "no padding": (b"=?utf-8?b?w7w?=", "ü", "=?utf-8?b?w7w?="),
    "two words": (b"=?utf-8?q?a?= \n =?utf-8?q?b?=", "ab", "=?utf-8?q?a?=  =?utf-8?q?b?="),
    "glued words": (b"=?utf-8?q?a?==?koi8-r?q?=C1?=", "aа", "=?utf-8?q?a?==?koi8-r?q?=C1?="),
    "empty word": (b"=?utf-8?q??= =?utf-8?q?b?= c", "b c", "=?utf-8?q??= =?utf-8?q?b?= c"),
    "a word and a half": (b"=?utf-8?q?a?= =?", "a =?", "=?utf-8?q?a?= =?"),
    "a word and a strange one": (
        b"=?utf-8?q?a?= =?x?q?b?=", "a =?x?q?b?=", "=?utf-8?q?a?= =?x?q?b?=",
    ),
    "wrong bytes": (b"=?utf-8?q?=FC?=", "ü", "=?utf-8?q?=FC?="),
    "stateful": (
        b"=?iso-2022-jp?b?GyRCRnxLXBsoQg?=", "日本", "=?iso-2022-jp?b?GyRCRnxLXBsoQg?=",
    ),
    "controls": (b"=?utf-8?q?=0D=0Aa=00?=", "\r\na\0", "=?utf-8?q?=0D=0Aa=00?="),
}  # fmt: skip


@pytest.mark.parametrize(("value", "text", "raw"), BODIES.values(), ids=BODIES)
def test_bodies(value: bytes, text: str, raw: str) -> None:
    """A field body is read as a person reads it, or as it is."""
    assert decoded(value) == text
    assert undecoded(value) == raw
    message = Message(b"Subject:" + value.rstrip(b"\n") + b"\n\n")
    assert message.header("SUBJECT") == [text]
    assert message.header("subject", raw=True) == [raw]


def test_long_field_is_not_decoded() -> None:
    """A field over 16 KiB is unfolded and no more (T12)."""
    long = b"=?utf-8?q?a?= " * (MAX_FIELD // 14 + 1)
    assert decoded(b"x\n " + long) == "x " + long.decode().strip()
    assert decoded(b"x " + b"=?utf-8?q?a?= " * 100) == "x " + "a" * 100


CHARSETS = {
    **dict.fromkeys(["iso-8859-15", "ISO_8859-15", "latin9", "iso--8859--15"], "€ü"),
    **dict.fromkeys(["KOI8-U", "koi8_u"], "єЭ"),
    "utf-16-be": "\ua4fc",
    **dict.fromkeys(["hex", "rot13", "utf-7", "unicode_escape", "idna", "undefined"], "¤ü"),
    **dict.fromkeys(["../os", "utf8\0", "ü" * 50, "x" * 5000, "", "none"], "¤ü"),
}


@pytest.mark.parametrize(("charset", "text"), CHARSETS.items())
def test_charsets(charset: str, text: str) -> None:
    """Charsets have many spellings; for one that is none bytes are UTF-8, or else Latin-1."""
    assert text_of(b"\xa4\xfc", charset) == text
    if charset not in ("utf-16-be",):
        assert text_of(b"a", charset) == "a"


def test_unknown_charsets_leave_nothing_behind() -> None:
    """Python's registry of codecs, which never forgets, is not asked for what mail names."""
    import encodings

    before = len(encodings._cache)
    for number in range(100):
        assert text_of(b"a", f"x-unknown-{number}") == "a"
        assert text_of(b"a", f"utf{'-' * number}16") == "a"
    assert len(encodings._cache) <= before + 1
