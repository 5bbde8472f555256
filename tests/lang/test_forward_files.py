r"""`.forward` files as programs."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdaflow.engine.plan import Plan
from mdaflow.engine.run import Stage, run
from mdaflow.lang import ir
from mdaflow.lang.forward import compile_forward
from mdaflow.lang.source import SourceError
from mdaflow.mail.envelope import Envelope
from mdaflow.mail.message import Message

BOB = "bob@example.org"
POWERS = ("deliver", "keep", "discard", "forward")
MAIL = Message(b"Subject: x\n\nhello\n")


def plan(text: str, powers: tuple[str, ...] = ir.POWERS, **files: str) -> Plan:
    """What comes of a message for bob."""

    def read(path: str) -> bytes:
        return files[path.rpartition("/")[2]].encode()

    program = compile_forward(text, "/home/bob/.forward", powers, read, whose=BOB)
    return run(Stage(program), MAIL, Envelope("eve@example.net", BOB))


@pytest.mark.parametrize(
    ("text", "acts"),
    [
        ("ann@elsewhere.example", ["forward to ann@elsewhere.example"]),
        ("# away\nann\n", ["forward to ann@example.org"]),
        ("ann@x.example, carl", ["also forward to ann@x.example", "forward to carl@example.org"]),
        ("ann@x.example\ncarl@x.example",
         ["also forward to ann@x.example", "forward to carl@x.example"]),
        ("ann@x.example, ANN@x.example, carl@x.example, ann@x.example",
         ["also forward to ann@x.example", "forward to carl@x.example"]),
        ("/dev/null, |/bin/x, |/bin/x", ["pipe to /bin/x"]),
        ("/dev/null, :blackhole:", ["discard"]),
        ("\\bob, ann@x.example", ["also forward to ann@x.example", 'deliver to "INBOX"']),
        ("ann@x.example\nbob", ["also forward to ann@x.example", 'deliver to "INBOX"']),
        ("BOB@example.org", ['deliver to "INBOX"']),
        ("bob+x@example.org", ['deliver to "INBOX"']),
        ("Ann Smith <ann@x.example>", ["forward to ann@x.example"]),
        ('"|/usr/bin/prog -x \'a b\'"', ["pipe to /usr/bin/prog -x a b"]),
        ("|/usr/bin/prog -x", ["pipe to /usr/bin/prog -x"]),
        ('"|IFS=\' \' && exec /usr/bin/procmail -f- || exit 75 #bob"',
         ["pipe to /bin/sh -c IFS=' ' && exec /usr/bin/procmail -f- || exit 75 #bob"]),
        ("/home/bob/mail/x", ['deliver to "mbox:/home/bob/mail/x"']),
        ("/home/bob/mail/x/", ['deliver to "maildir:/home/bob/mail/x"']),
        ("/dev/null", ["discard"]),
        ("", ['deliver to "INBOX"']),
        ("# nothing\n\n", ['deliver to "INBOX"']),
    ],
)  # fmt: skip
def test_plan(text: str, acts: list[str]) -> None:
    """Targets are actions; the message is kept only where the user is one of them."""
    found = [str(action).partition(" from_line")[0] for action in plan(text).actions]
    assert found == acts


def test_lists() -> None:
    """A list of the user's stands for its lines, also for the user himself."""
    said = plan(":include:/home/bob/friends", friends="ann@x.example\n# and me\n\\bob\n")
    assert list(map(str, said.actions)) == ["also forward to ann@x.example", 'deliver to "INBOX"']


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ("ann@x.example\nann smith", "2:1", "is there a comma missing?"),
        ('ok@x.example\n"|/bin/x', "2:1", "a quote is not closed"),
        ('"|/usr/bin/prog"', "1:1", "'pipe' is not allowed"),
        ("/home/bob/mbox", "1:1", "not allowed"),
        (":fail: no", "1:1", "'reject' is not allowed"),
        (":include:/etc/shadow", "1:1", "is not below the folder"),
        ("a@x, :includ:/x", "1:6", "is none of :include:"),
        ("ann\n" * 1001, "1001:1", "more than 1,000 items"),
    ],
)
def test_wrong(text: str, place: str, message: str) -> None:
    """What is wrong is told with its place, and so is what users may not do."""
    with pytest.raises(SourceError) as caught:
        plan(text, POWERS)
    assert str(caught.value).startswith(f"/home/bob/.forward:{place}: ")
    assert message in str(caught.value)
    assert "--site" not in str(caught.value)


@given(st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
def test_any_bytes(text: bytes) -> None:
    """Any bytes are a program, or an error with a place."""
    with suppress(SourceError):
        program = compile_forward(text, "/home/bob/.forward", POWERS, whose=BOB)
        assert all(isinstance(s, ir.Act | ir.Stop) for s in program.body)
