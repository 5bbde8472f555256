"""The format mboxrd: quoting that can be undone, and no state from outside."""

from __future__ import annotations

import mailbox
import tracemalloc
from collections import Counter
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from unittest import mock

import pytest
from boxes import RECEIVED, split_mboxrd
from hypothesis import given
from hypothesis import strategies as st

from mdaflow.deliver import mboxrd
from mdaflow.deliver.mboxrd import Listing, entry, listing, separator

PIECES = [b"From ", b">", b"\n", b"\n\n", b"\r\n", b"F", b"rom ", b"x: y\n", b" ", b"\0", b"\xff"]
hostile = st.lists(st.one_of(st.sampled_from(PIECES), st.binary(max_size=8))).map(b"".join)


def written(*chunks: bytes | memoryview, letters: str = "") -> bytes:
    return b"".join(entry(chunks, letters, "bob@example.org", RECEIVED))


@given(hostile)
def test_round_trip(raw: bytes) -> None:
    """Any bytes come back as they were, but for a last line end."""
    body = b"Subject: x\n\n" + raw
    whole = body if body.endswith(b"\n") else body + b"\n"
    assert split_mboxrd(written(body)) == [whole]
    assert split_mboxrd(written(body) * 3) == [whole] * 3


@given(hostile, st.lists(st.integers(0, 200), max_size=5))
def test_joins_of_chunks_do_not_matter(raw: bytes, cuts: list[int]) -> None:
    """However a message is cut into chunks, the file gets the same bytes."""
    ends = [0, *sorted(cuts), len(raw)]
    assert written(*(memoryview(raw)[a:b] for a, b in pairwise(ends))) == written(raw)


@pytest.mark.parametrize("size", [65535, 65536, 65537, 200_000])
def test_blocks_do_not_matter(size: int) -> None:
    """A line is quoted wherever the content is cut for quoting, and a long line is not cut."""
    filler = b"x" * size
    for body in (filler + b"\nFrom a\n>From b\n", b"\n" * size + b"From a\n", filler + b"From a\n"):
        assert split_mboxrd(written(b"A: b\n\n", body)) == [b"A: b\n\n" + body]


def test_layout() -> None:
    """Separator, quoted message, empty line."""
    assert written(b"A: b\n", b"From x\n\nFrom y\n>>From z\nFrom\n From q\n>From") == (
        b"From bob@example.org Sat Nov  1 13:25:00 2025\n"
        b"A: b\n>From x\n\n>From y\n>>>From z\nFrom\n From q\n>From\n\n"
    )


def test_empty_message() -> None:
    """A message without a byte is a separator and an empty line."""
    assert split_mboxrd(written()) == split_mboxrd(written(b"", b"")) == [b""]


@pytest.mark.parametrize(
    ("sender", "word"),
    [
        ("", "MAILER-DAEMON"),
        ("a@b", "a@b"),
        ('"a b\tc"@d', '"abc"@d'),
        ("a\n\nFrom x\r\0@b\u2028\x85\x7f", "aFromx@b"),
        (" ", "MAILER-DAEMON"),
        ("jürgen@example.org", "jürgen@example.org"),
        ("\udcff@b", "?@b"),
    ],
)
def test_separator_is_one_line_whatever_the_sender(sender: str, word: str) -> None:
    """The sender is one word, so that no address forges a date or a line."""
    assert separator(sender, 0.5) == f"From {word} Thu Jan  1 00:00:00 1970\n".encode()


STATE = [b"Status", b"X-Status", b"X-UID", b"X-IMAP", b"X-IMAPbase", b"X-Keywords"]


@pytest.mark.parametrize("name", [*STATE, b"Content-Length", b"STATUS", b"content-length"])
def test_forged_state_is_removed(name: bytes) -> None:
    """Fields that readers believe in an mbox are removed from the header, and only from it."""
    body = b"\n" + name + b": 3\n"
    for head in (
        b"A: b\n%s: 1\nC: d\n",
        b"A: b\n%s \t:1\n\tfolded\n 2\nC: d\n",
        b"%s:\nA: b\nC: d\n",
    ):
        assert split_mboxrd(written(head % name + body)) == [b"A: b\nC: d\n" + body]
        assert split_mboxrd(written(b"A: b\nC: d\n", head % name, body)) == [
            b"A: b\nC: d\n" * 2 + body
        ]


@given(st.lists(st.sampled_from([b"A: b\n", b"Status: R\n", b" c\n", b"\n", b"d"])))
def test_header_without_end(lines: list[bytes]) -> None:
    """State is removed, field by field, as far as a header is looked at; the rest stays."""
    raw = b"".join([*lines, b"e\n"])
    with mock.patch.object(mboxrd, "_HEAD", 30):
        entry = written(raw)
        assert entry == written(*(raw[at : at + 7] for at in range(0, len(raw), 7)))
        looked = mboxrd._header([raw])[1:]
    assert len(looked) <= 30
    assert mboxrd._header([raw])[1:].startswith(looked)
    [got] = split_mboxrd(entry)
    assert got.endswith(raw[len(looked) :])
    assert b"\nStatus" not in b"\n" + got[: len(got) - len(raw) + len(looked)]


def test_similar_fields_stay() -> None:
    """A field that only looks like one of state is kept."""
    raw = b"X-Status-Old: 1\nMy-Status: 2\nStatus-: 3\n Status: 4\nStatus\n\nStatus: 5\n"
    assert split_mboxrd(written(b"A: b\n" + raw)) == [b"A: b\n" + raw]


def test_state_at_the_end() -> None:
    """A header without body, or without a last line end, loses its state too."""
    assert split_mboxrd(written(b"A: b\nStatus: R\n")) == [b"A: b\n"]
    assert split_mboxrd(written(b"A: b\nStatus: R")) == [b"A: b\n"]
    assert split_mboxrd(written(b"\nStatus: R\n")) == [b"\nStatus: R\n"]


@pytest.mark.parametrize(
    ("letters", "fields"),
    [("S", b"Status: R\n"), ("DFRST", b"Status: R\nX-Status: AFTD\n"), ("F", b"X-Status: F\n")],
)
def test_flags_are_state_fields(letters: str, fields: bytes) -> None:
    """Flags stand at the top of the header as Dovecot and mutt write them."""
    assert split_mboxrd(written(b"A: b\nStatus: O\n\n", letters=letters)) == [fields + b"A: b\n\n"]


FROM = b"From bob@example.org Sat Nov  1 13:25:00 2025\n"
BASE = b"X-IMAPbase: 1762003500 0000000007"


@pytest.mark.parametrize(
    ("header", "after"),
    [
        (BASE + b" a\nX-UID: 7      \n", BASE + b" a new\nX-UID: 7  \n"),
        (BASE + b"\nX-Keywords:    \nA: b\n", BASE + b" new\nX-Keywords:\nA: b\n"),
        (BASE + b" a     \nX-UID: 1\n", BASE + b" a new \nX-UID: 1\n"),
        (BASE + b"\nX-UID: 1 \nX-Keywords:    \n", BASE + b" new\nX-UID: 1 \nX-Keywords:\n"),
        (b"A: b\nX-IMAP: 1 0000000001  a    \n", b"A: b\nX-IMAP: 1 0000000001  a new\n"),
    ],
)  # fmt: skip
def test_keyword_is_listed(header: bytes, after: bytes) -> None:
    """A keyword goes into the list of the first message; spaces behind it give way."""
    head = FROM + header + b"\nText\n"
    words, start, raw = listing(head, ["a", "new"] if b" a" in header else ["new"])
    assert words[-1] == "new"
    assert head[:start] + raw + head[start + len(raw) :] == FROM + after + b"\nText\n"


@pytest.mark.parametrize(
    "header",
    [
        BASE + b" a\nX-UID: 7   \n",
        BASE + b" a\nSubject: x          \n",
        BASE + b" a\nX-UID: 7\n\nX-Keywords:         \n",
    ],
)
def test_no_room(header: bytes) -> None:
    """Without room only what is listed already is believed; other fields and the body stay."""
    assert listing(FROM + header + b"\nText\n", ["A", "new"])[::2] == (("A",), b"")


@pytest.mark.parametrize(
    "head",
    [
        b"",
        FROM + b"Subject: x\n\n" + BASE + b"      \n\n",
        FROM + BASE + b"                  ",
        FROM + b"X-IMAPbase: 12 13      \n\n",
        b"X: y\n" + BASE + b"        \n\n",
        FROM + BASE + b" \xff       \n\n",
    ],
)
def test_no_list(head: bytes) -> None:
    """Where there is no list at all, nothing is written, and the reader may know the words."""
    assert listing(head, ["new"]) == Listing(("new",))


def test_long_keyword_is_not_believed() -> None:
    """Dovecot would drop all keywords of a message for one that is longer than it allows."""
    assert listing(b"", ["x" * 50, "y" * 51]).keywords == ("x" * 50,)


LINES = [b"X-UID: 1", b"X-Keywords:", b" old", b" ", b" " * 10, b"\n", b"A: b", BASE]
heads = st.lists(st.sampled_from(LINES), max_size=12).map(b"".join)


@given(heads, st.lists(st.sampled_from(["old", "new", "$x", "Longer"]), unique=True))
def test_listing_moves_nothing(header: bytes, words: list[str]) -> None:
    """Whatever the header, only the list grows and only spaces go; a second time, nothing."""
    head = FROM + BASE + header + b"\n\n" + b"Text   \n" * 5
    believed, start, raw = listing(head, words)
    after = head[:start] + raw + head[start + len(raw) :]
    words_after, words_before = Counter(after.split()), Counter(head.split())
    assert len(after) == len(head)
    assert after.count(b"\n") == head.count(b"\n")
    assert not words_before - words_after
    assert words_after - words_before <= Counter(word.encode() for word in believed)
    assert listing(after, believed)[::2] == (believed, b"")


def test_python_reads_it(tmp_path: Path) -> None:
    """The mbox of Python's library finds the same messages and flags."""
    path = tmp_path / "mbox"
    raw = b"Subject: x\nTo: y\n\nText\n\nmore\n"
    path.write_bytes(written(raw, letters="DFS") + written(raw) + written(raw + b"\n\n"))
    with closing(mailbox.mbox(path, create=False)) as box:
        read = list(box)
    assert [message.get_flags() for message in read] == ["RFT", "", ""]
    assert read[1].as_bytes() == raw
    assert read[1].get_from() == "bob@example.org Sat Nov  1 13:25:00 2025"


@pytest.mark.parametrize(
    "raw",
    [
        b"Status: x" + b"\n x" * 500_000,
        b"A: b\n\n" + b"From \n" * 300_000,
        b"A: b\n\n" + b">" * 1_000_000 + b"From ",
    ],
    ids=["folded", "quoted", "marks"],
)
def test_hostile_content_needs_little_memory(raw: bytes) -> None:
    """What quoting and removing need stays near the size of the message."""
    tracemalloc.start()
    try:
        size = sum(len(chunk) for chunk in entry([raw], "", "", RECEIVED))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert size < 2 * len(raw)
    assert peak < 5 * len(raw)
