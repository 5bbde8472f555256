"""What an address stands for, as aliases(5) writes it."""

from __future__ import annotations

import time
import tracemalloc
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdaflow.mail.letter import is_address
from mdaflow.mail.targets import KINDS, MAX_ITEMS, Target, TargetError, parse_targets, words


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("ann, bob@x.org", ["address ann", "address bob@x.org"]),
        ("ann,\n\tbob@x.org,", ["address ann", "address bob@x.org"]),
        (r"\bob", ["user bob"]),
        (r'"\\bob"', ["user bob"]),
        ('"joe smith"@example.org', ['address "joe smith"@example.org']),
        ('"joe smith"', ['address "joe smith"']),
        ('"ann", "bob"@x.org', ["address ann", "address bob@x.org"]),
        ('"ann@x.org", "a@b"@x.org', ["address ann@x.org", 'address "a@b"@x.org']),
        ("ann (the boss), bob@x.org (x)", ["address ann", "address bob@x.org"]),
        ("Ann Smith <ann@x.org>, <bob@x.org>", ["address ann@x.org", "address bob@x.org"]),
        ('"Smith, Ann" <ann@x.org>', ["address ann@x.org"]),
        ('"|/usr/bin/prog -x, y"', ["program /usr/bin/prog -x, y"]),
        ('|"/usr/bin/prog \\"a b\\""', ['program /usr/bin/prog "a b"']),
        ("|/usr/bin/prog -x", ["program /usr/bin/prog -x"]),
        ('/var/mail/x, "/srv/a b/"', ["file /var/mail/x", "file /srv/a b/"]),
        (":include:/etc/lists/x", ["include /etc/lists/x"]),
        (":INCLUDE: /etc/lists/x", ["include /etc/lists/x"]),
        (":fail: 5.2.1 gone, really", ["fail 5.2.1 gone, really"]),
        (":defer:", ["defer "]),
        (":blackhole:", ["nothing "]),
        ("/dev/null", ["nothing "]),
        ("@example.org", ["address @example.org"]),
        (",, ,", []),
    ],
)
def test_parse(text: str, found: list[str]) -> None:
    """Items of every kind, quoted and not."""
    assert [f"{t.kind} {t.value}" for t in parse_targets(text)] == found


@pytest.mark.parametrize(
    ("text", "reason", "at"),
    [
        ("ann bob", "comma missing", 0),
        ("ann, a@b@c", "is no address", 5),
        ('ann, "x', "quote", 5),
        ("x, # why", "comment", 3),
        (":includ:/x", "is none of", 0),
        (":include:x", "begins with /", 0),
        ("ann, :fail: x", "stands alone", 5),
        (":blackhole: x", "nothing behind", 0),
        ("/etc/../x", ". and ..", 0),
        ('"|"', "no program", 0),
        ('"|prog \'x"', "quotation", 0),
        ("a\x00b", "control", 0),
        ("x" * 5000, "more than", 0),
        ('x, "/a\\\n/b"', "control", 3),
        ('"/a\n/b"', "control", 0),
        ("/a\tb", "control", 0),
        ("/a\u2028b", "control", 0),
        (":include:/a\nb", "control", 0),
        ('":include:/a\\\nb"', "control", 0),
        ("\\a\u0085b", "is no address", 0),
        ("a\u009bb@x.org", "is no address", 0),
    ],
)
def test_wrong(text: str, reason: str, at: int) -> None:
    """What is none of them, with its place."""
    with pytest.raises(TargetError, match=reason) as caught:
        parse_targets(text)
    assert caught.value.start == at


def test_lines() -> None:
    """In files with an item a line, lines end items, and comments say nothing."""
    found = parse_targets("# a, b\nann\n  # c\nbob, carl\n", by_line=True)
    assert [t.value for t in found] == ["ann", "bob", "carl"]
    assert [t.start for t in found] == [7, 17, 22]
    found = parse_targets("# a\n:fail: 5.2.1 gone\n# why\nfor good\n", by_line=True)
    assert [t.value for t in found] == ["5.2.1 gone for good"]


@pytest.mark.parametrize(
    ("command", "argv"),
    [
        ("/bin/x -a 'b c'", ("/bin/x", "-a", "b c")),
        ("x y", ("x", "y")),
        ("exec /bin/x", ("/bin/sh", "-c", "exec /bin/x")),
        ("/bin/x > /tmp/y", ("/bin/sh", "-c", "/bin/x > /tmp/y")),
        ("A=1 /bin/x", ("/bin/sh", "-c", "A=1 /bin/x")),
        ("/bin/x $USER", ("/bin/sh", "-c", "/bin/x $USER")),
    ],
)
def test_words(command: str, argv: tuple[str, ...]) -> None:
    """A command is split here; what takes a shell is left to one, as Postfix does."""
    assert words(command) == argv


HOSTILE = (
    "a\n", "a,", "a", '""', '"', '"\\', '"\\"', ",", "\n", "\f", "#\n", " #\n,", " ", "<", "<,",
    "<a>", "a" + " " * 400 + "(x),", '"' + "x" * 380 + '" <a@b.c>,', '"' + r"\a" * 200 + '"@x,',
    "a (" + "x" * 400 + "),",
    "|x " + r"\' " * 130 + ",", '"|x ' + r"\\' " * 100 + '",',
    "/" + "a/" * 200 + ",", "a" + " " * 4000 + "b,", ":fail: a ", "\u00fc@\u00fc,",
)  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("by_line", [False, True])
def test_hostile_text(text: str, by_line: bool) -> None:
    """4 MiB of anything take less than 64 MiB, and no time to speak of: here ten times as much as
    the slowest on a slow machine."""
    whole = (text * ((4 << 20) // len(text) + 1))[: 4 << 20]
    found: tuple[Target, ...] = ()
    began = time.process_time()
    with suppress(TargetError):
        found = parse_targets(whole, by_line=by_line)
    assert time.process_time() - began < 6
    assert len(found) <= MAX_ITEMS
    tracemalloc.start()
    with suppress(TargetError):
        parse_targets(whole, by_line=by_line)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64 << 20


def test_most() -> None:
    """A text has so many items, and no more; where one is too many is told."""
    assert len(parse_targets("a,b,c", most=3)) == 3
    with pytest.raises(TargetError, match="more than 3 items") as caught:
        parse_targets("a,b,c, d", most=3)
    assert caught.value.start == 7
    assert len(parse_targets("a\n" * MAX_ITEMS, by_line=True)) == MAX_ITEMS
    with pytest.raises(TargetError, match="more than 10,000 items"):
        parse_targets("a\n" * (MAX_ITEMS + 1), by_line=True)


@pytest.mark.parametrize("text", ["x" * 4093 + '"a, b"', '"' + "x" * 4097 + '"', "x<" * 2049])
def test_long_item(text: str) -> None:
    """An item that is too long is none, and not two, wherever it would be cut."""
    with pytest.raises(TargetError, match="4096"):
        parse_targets(text)


@given(st.text(max_size=200))
def test_any_text(text: str) -> None:
    """Any text is targets or an error; what is an address is one, and a path is absolute."""
    for by_line in (False, True):
        try:
            found = parse_targets(text, by_line=by_line)
        except TargetError as error:
            found, place = (), (error.start, error.end)
        else:
            place = (0, len(text))
        assert 0 <= place[0] <= place[1] <= len(text)
        for target in found:
            assert target.kind in KINDS
            assert target.kind == "program" or not set("\n\r\t\x1b\x85") & set(target.value)
            if target.kind in ("address", "user"):
                value = target.value
                assert is_address(f"x{value}" if value[:1] == "@" else value) or is_address(
                    f"{value}@x"
                )
            if target.kind in ("file", "include"):
                assert target.value.startswith("/")
                assert ".." not in target.value.split("/")


@given(
    st.lists(st.sampled_from(["ann", "b@x.org", '"a b"@x', "/var/x", ":blackhole:"]), max_size=5)
)
def test_written_again(items: list[str]) -> None:
    """Targets that are written again are the same targets."""
    found = parse_targets(", ".join(items))
    again = parse_targets(", ".join(map(str, found)))
    assert [Target(t.kind, t.value) for t in found] == [Target(t.kind, t.value) for t in again]
