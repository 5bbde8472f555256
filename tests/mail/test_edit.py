"""Edits of the header."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mdaflow.mail.edit import MAX_HEAD, NAME, add, protected, remove, set_
from mdaflow.mail.header import MAX_BLOCK, MAX_FIELD, MAX_FIELDS
from mdaflow.mail.message import Message
from mdaflow.mail.trace import stored


def whole(message: Message) -> bytes:
    """A message as bytes."""
    return b"".join(message.under(message.head))


def is_two(value: str) -> bool:
    return value == "two"


# raw | edit | what becomes of it
EDITS: dict[str, tuple[bytes, Callable[[Message], Message], bytes]] = {
    "add": (b"A: 1\n\nx", lambda m: add(m, "B", "2"), b"B: 2\nA: 1\n\nx"),
    "add below an mbox line": (
        b"From a Sat\nA: 1\n\nx", lambda m: add(m, "B", "2"), b"From a Sat\nB: 2\nA: 1\n\nx",
    ),
    "add twice": (b"A: 1\n\n", lambda m: add(add(m, "A", "2"), "A", "3"), b"A: 3\nA: 2\nA: 1\n\n"),
    "add to no header": (b"hello\n", lambda m: add(m, "A", "1"), b"A: 1\n\nhello\n"),
    "add to an empty header": (b"\nhello", lambda m: add(m, "A", "1"), b"A: 1\n\nhello"),
    "add to nothing": (b"", lambda m: add(m, "A", "1"), b"A: 1\n"),
    "add above what has no body": (b"A: 1", lambda m: add(m, "B", "2"), b"B: 2\nA: 1"),
    "add nothing": (b"A: 1\n\n", lambda m: add(m, "B", ""), b"B: \nA: 1\n\n"),
    "set": (
        b"A: 1\nB: 2\nb : 3\n 4\nC: 5\nB:\n\nB: x", lambda m: set_(m, "b", "6"),
        b"A: 1\nb: 6\nC: 5\n\nB: x",
    ),
    "set what is missing": (b"A: 1\n\nx", lambda m: set_(m, "B", "2"), b"B: 2\nA: 1\n\nx"),
    "set the last": (b"A: 1", lambda m: set_(m, "A", "2"), b"A: 2\n"),
    "remove": (
        b"A: 1\nB: 2\n\t3\nC: 4\nB: 5\n\nB: x", lambda m: remove(m, "b"), b"A: 1\nC: 4\n\nB: x",
    ),
    "remove by value": (
        b"A: one\nA: =?utf-8?q?two?=\nA: t\n wo\n\n", lambda m: remove(m, "A", is_two),
        b"A: one\nA: t\n wo\n\n",
    ),
    "remove all": (b"A: 1\n\nx", lambda m: remove(m, "A"), b"\nx"),
    "remove what was added": (
        b"hello\n", lambda m: remove(add(m, "A", "1"), "A"), b"hello\n",
    ),
    "remove with lines of spaces": (
        b"A: 1\nB: 2\n \n  3\nC: 4\n\n", lambda m: remove(m, "B"), b"A: 1\nC: 4\n\n",
    ),
    "a line that is no field stays": (
        b"A: 1\nB: 2\nno field\nC: 3\n\n", lambda m: remove(m, "B"), b"A: 1\nno field\nC: 3\n\n",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("raw", "edit", "expected"), EDITS.values(), ids=EDITS)
def test_edits(raw: bytes, edit: Callable[[Message], Message], expected: bytes) -> None:
    """An edit changes the fields it names and nothing else."""
    edited = edit(Message(raw))
    assert whole(edited) == expected
    assert (edited.size, edited.lines) == (len(expected), Message(expected).lines)


def test_edit_that_changes_nothing() -> None:
    """What removes nothing gives the same message."""
    message = Message(b"A: 1\n\n")
    assert remove(message, "B") is message
    assert remove(message, "A", is_two) is message


# value | the field as it is written
VALUES = {
    "plain": ("a  b ", "X: a b"),
    "controls": ("a\r\nEvil: 1\0\x85\u2028b", "X: a Evil: 1 b"),
    "half characters": ("a\udcffb", "X: a b"),
    "8 bit": ("für Ann", "X: =?utf-8?b?ZsO8cg==?= Ann"),
    "8 bit, two words": ("grün blau für", "X: =?utf-8?b?Z3LDvG4=?= blau =?utf-8?b?ZsO8cg==?="),
    "what looks encoded": ("=?utf-8?q?x?=", "X: =?utf-8?b?PT91dGYtOD9xP3g/PQ==?="),
    "folded": (" ".join(["word"] * 30), f"X:{' word' * 15}\n{' word' * 15}"),
    "long word": ("x" * 200 + " y", f"X: {'x' * 200}\n y"),
}


@pytest.mark.parametrize(("value", "field"), VALUES.values(), ids=VALUES)
def test_values(value: str, field: str) -> None:
    """A value is written on lines of ASCII that nothing from outside can begin (P15)."""
    assert add(Message(b""), "X", value).head.decode("ascii") == field + "\n"


@pytest.mark.parametrize(
    ("written", "value", "field"),
    [
        (b" =?iso-8859-1?q?caf=E9?=\n", "[SPAM] caf\u00e9", b" [SPAM] =?iso-8859-1?q?caf=E9?=\n"),
        (b" a\n \t b  c\n", "[SPAM] a b  c", b" [SPAM] a\n \t b  c\n"),
        (b" caf\xe9\n", "[SPAM] caf\u00e9", b" [SPAM] caf\xe9\n"),
        (b"a\n", "[SPAM] a", b" [SPAM] a\n"),
        (b" caf\xe9\n", "[\u017d] caf\u00e9", b" =?utf-8?b?W8W9XSBjYWbDqQ==?=\n"),
        (b" caf\xe9\n", "xcaf\u00e9", b" =?utf-8?b?eGNhZsOp?=\n"),
        (b" caf\xe9\0\n", "[SPAM] caf\u00e9\0", b" [SPAM] =?utf-8?b?Y2Fmw6k=?=\n"),
        (b" a\n", "b a c", b" b a c\n"),
        (b"\n", "[SPAM] ", b" [SPAM]\n"),
    ],
)
def test_what_is_behind_a_prefix_stays(written: bytes, value: str, field: bytes) -> None:
    """What a field said is not written anew where something is only put before it."""
    edited = set_(Message(b"Subject:" + written + b"To: x\n\nbody\n"), "subject", value)
    assert edited.head == b"subject:" + field + b"To: x\n"


@pytest.mark.parametrize("value", ["x" * 99_999, "word " * 9_999, "ü" * 99_999, "ü a " * 9_999])
def test_long_values_are_cut(value: str) -> None:
    """A value is cut where it could not be read back."""
    message = add(Message(b""), "X", value)
    [read] = message.header("X")
    assert value.startswith(read)
    assert MAX_FIELD // 6 < len(message.head) <= MAX_FIELD + 3


@pytest.mark.parametrize("name", ["", "a b", "a:", "ü", "a\n", "a\nb", "a" * 77, "\x7f"])
def test_bad_names(name: str) -> None:
    """What is no field name is not written."""
    assert not NAME.fullmatch(name)
    for write in (add, set_):
        with pytest.raises(ValueError, match="bad field name"):
            write(Message(b""), name, "x")


def test_big_headers() -> None:
    """A header may be edited up to 256 KiB, and if all of it is seen."""
    line = b"X: " + b"x" * 1020 + b"\n"
    full = Message(line * 256 + b"\n")
    assert len(remove(full, "X").head) == 0
    assert remove(full, "Y") is full
    with pytest.raises(ValueError, match="header too big"):
        add(full, "A", "1")
    most = Message((line * 256)[: MAX_HEAD - 6] + b"\n\n")
    assert len(add(most, "A", "").head) < MAX_HEAD
    with pytest.raises(ValueError, match="header too big"):
        remove(Message(line * (MAX_BLOCK // 1024 + 1) + b"\n"), "X")
    with pytest.raises(ValueError, match="header too big"):
        remove(Message(b"X:\n" * (MAX_FIELDS + 1) + b"\n"), "X")


def test_protected() -> None:
    """Fields that loops, the envelope and the body rest on are not for rules."""
    names = ["Received", "RETURN-PATH", "delivered-to", "X-Original-To", "X-mdaflow-Loop"]
    names += ["Content-Type", "Content-Transfer-Encoding", "MIME-Version", "Auto-Submitted"]
    assert all(map(protected, names))
    assert not any(map(protected, ["Subject", "From", "X-Spam-Flag", "X-Content", "Precedence"]))


def test_body_is_shared() -> None:
    """An edited message does not parse its body again, and does not copy it."""
    raw = b"Content-Type: multipart/mixed; boundary=b\n\n--b\n\nx\n--b\n\nyy\n--b--\n"
    message = Message(raw)
    edited = add(add(message, "A", "1"), "B", "2")
    assert edited.parts is message.parts
    assert edited.body is message.body
    assert edited.raw is raw
    assert edited.raw_body == message.raw_body
    assert edited.header("Content-Type") == message.header("Content-Type")
    assert (message.header("A"), edited.header("A")) == ([], ["1"])


# Whatever the mail, the name and the value

SIGNS = [
    *(b"A: 1\n", b"a:\n", b"X-y:  z\n", b" more\n", b"\t\n", b" \n", b"no field\n", b"\n"),
    *(b"From x\n", b"A: =?utf-8?q?=C3=BC?=\n", b"A : 2\n", b"B: \xff", b"A: 3", b"\0", b"\r"),
    b"Return-Path: <a>\n",
]
mails = st.one_of(
    st.binary(max_size=80), st.lists(st.sampled_from(SIGNS), max_size=12).map(b"".join)
)
names = st.sampled_from(["A", "b", "X-Y", "x-new"])
values = st.one_of(
    st.text(st.characters(), max_size=200),
    st.lists(
        st.sampled_from(
            ["a", "ü", "日本", "=?utf-8?q?x?=", "\n", "\r\nB: 1", " ", "x" * 1000, "\0"]
        ),
        max_size=20,
    ).map(" ".join),
)


def others(head: bytes, name: str) -> list[bytes]:
    """The lines of a header that are not of fields called `name`, found in the slow way."""
    kept, ours = [], False
    for line in re.findall(rb"[^\n]*\n|[^\n]+", head):
        if line[:1] not in (b" ", b"\t"):
            found = re.match(rb"([!-9;-~]+)[ \t]*:", line)
            ours = found is not None and found[1].lower() == name.lower().encode()
        if not ours:
            kept.append(line)
    return kept


@given(mails, names, values)
@example(b"A: 1\nA: 2", "A", "x" * 17_000)
@example(b"no header", "A", "ü" * 5_000)
@example(b">From x\nA: 1\n\n", "b", "")
def test_any_edit(raw: bytes, name: str, value: str) -> None:
    """One field is written, every other byte stays as it was, and the value can be read back."""
    message = Message(raw)
    edited = set_(message, name, value)
    clean = re.sub("[\0- \x7f-\x9f\u2028\u2029\ud800-\udfff]+", " ", value).strip(" ")
    [read] = edited.header(name)
    assert read == clean or (len(value) > 2000 and clean.startswith(read))
    assert others(edited.head, name) == others(message.head, name)
    assert remove(edited, name).head == b"".join(others(message.head, name))
    new = set(edited.head.split(b"\n")) - set(raw.split(b"\n"))
    assert all(len(line) <= 998 and re.fullmatch(rb"[ -~]*", line) for line in new)


@given(mails, names, values)
@example(b"hello", "A", "")
@example(b"\n", "A", "")
def test_any_edited_message_is_stored(raw: bytes, name: str, value: str) -> None:
    """An edited message is as big as its bytes, and is the same message when it is read again."""
    message = Message(raw)
    for edited in (add(message, name, value), remove(message, name)):
        joined = whole(edited)
        assert (edited.size, edited.lines) == (len(joined), Message(joined).lines)
        assert joined.endswith(raw[message.header_end :])
        again = Message(b"".join(stored(edited, b"Return-Path: <>\n")))
        assert again.header("Return-Path") == ["<>"]
        assert again.header(name) == edited.header(name)
        if not raw.startswith((b"From ", b">From ")):
            assert again.raw_body.removeprefix(b"\n") == edited.raw_body.removeprefix(b"\n")
