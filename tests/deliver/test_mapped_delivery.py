"""Messages that wait in a file are delivered as those in memory are, and take no memory."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from unittest import mock

import pytest
from boxes import RECEIVED, messages, split_mboxrd, start
from hypothesis import given
from hypothesis import strategies as st
from mapped import mapped

from mdaflow.deliver import mailbox as mailboxes
from mdaflow.deliver import maildir, mbox, mboxrd, pipe, quarantine
from mdaflow.deliver.job import Job, Means
from mdaflow.deliver.mailbox import Mailbox, write
from mdaflow.engine.plan import Action
from mdaflow.mail import raw as raws
from mdaflow.mail.envelope import Envelope
from mdaflow.mail.message import Message
from mdaflow.mail.trace import stored

BIG = b"Subject: x\nStatus: RO\n\n" + b"From x\n>From y\n" * 200_000
MAILS = {
    "usual": b"Return-Path: <x@y>\nSubject: x\n\nFrom here\nto there\n",
    "no header": b"From here\nFrom there\n\nFrom x\n",
    "no line end": b"Subject: x\n\nFrom x\n>From y",
    "only a header": b"Subject: x\nStatus: RO",
    "only a body": b"\nFrom x\n",
    "big": BIG,
    "big, without lines": b"Subject: x\n\n" + b"x From y" * 400_000 + b"\nFrom x\n",
}


def to_maildir(message: Message, home: Path) -> list[bytes]:
    box = Mailbox("maildir", str(home), "Maildir")
    maildir.prepare(box, "", stored(message, b"Received: x\n"), ()).commit()
    return messages(box)


def to_mbox(message: Message, home: Path) -> list[bytes]:
    chunks = stored(message, b"Received: x\n")
    mbox.prepare(Mailbox("mbox", str(home), "mail"), "", chunks, (), "a@b", RECEIVED).commit()
    return [(home / "mail" / "inbox").read_bytes()]


def to_program(message: Message, home: Path) -> list[bytes]:
    job = Job(message, Envelope(), Mailbox("maildir", str(home), "Maildir"), "id1", Means())
    pipe.prepare(job, Action("pipe", targets=("/bin/sh", "-c", "cat > got"))).commit()
    return [(home / "got").read_bytes()]


def to_quarantine(message: Message, home: Path) -> list[bytes]:
    box = Mailbox("maildir", str(home), "Maildir")
    job = Job(message, Envelope("", "bob"), box, "id1", Means(quarantine=str(home)))
    with mock.patch("os.urandom", lambda size: b"x" * size):  # the name of its envelope
        quarantine.prepare(job, Action("quarantine")).commit()
    return [path.read_bytes() for path in sorted(home.glob("bob/new/*"))]


@pytest.mark.parametrize("deliver", [to_maildir, to_mbox, to_program, to_quarantine])
@pytest.mark.parametrize("raw", MAILS.values(), ids=MAILS)
def test_same_files(raw: bytes, deliver: object, tmp_path: Path) -> None:
    """A message gives the same bytes from a file and from memory, however it is delivered."""
    results = []
    for name, source in (("memory", raw), ("file", mapped(raw))):
        home = tmp_path / name
        home.mkdir()
        results.append(deliver(Message(source), home))  # type: ignore[operator]
    assert results[0] == results[1]
    assert len(results[0]) == 1


@given(st.lists(st.binary(max_size=30), max_size=9), st.integers(1, 20))
def test_write(chunks: list[bytes], size: int) -> None:
    """All bytes are written in their order, whatever is written at once."""
    taken: list[bytes] = []

    def writev(fd: int, views: list[memoryview]) -> int:
        got = b"".join(views)[: size + 1]  # a disk that takes only so much
        taken.append(got)
        return len(got)

    data = b"".join(chunks)
    ends = [0, *sorted(len(chunk) for chunk in chunks), len(data)]
    there = mapped(data)
    views = [memoryview(there)[a:b] for a, b in pairwise(ends)]
    with (
        mock.patch.object(raws, "PIECE", size),
        mock.patch.object(mailboxes, "PIECE", size),
        mock.patch("os.writev", writev),
    ):
        assert write(-1, [*chunks, *views]) == 2 * len(data)
    assert b"".join(taken) == data * 2


LONG = [b"From ", b">", b"\n", b"\nFrom x\n", b"\n>>From ", b"x", b"yyyyyyyyyyyyyyyyyyyyyyyyyyyyyy"]


@given(st.lists(st.sampled_from(LONG), max_size=30).map(b"".join))
def test_blocks_of_long_lines(body: bytes) -> None:
    """A line that is too long for a block is quoted at its beginning and nowhere else."""
    data = b"A: b\n\n" + body.replace(b">>>>", b">")
    with mock.patch.object(mboxrd, "PIECE", 16), mock.patch.object(mboxrd, "_BLOCK", 8):
        entry = b"".join(mboxrd.entry([memoryview(mapped(data))], "", "a@b", RECEIVED))
    assert split_mboxrd(entry) == [data if data.endswith(b"\n") else data + b"\n"]


MIB = 1 << 20
MEMORY = f"""
import sys
sys.path[:0] = {[str(Path(__file__).parent), str(Path(__file__).parent.parent)]!r}
from pathlib import Path
from mapped import mapped_from
from mdaflow.deliver import maildir, mbox, program
from mdaflow.deliver.mailbox import Mailbox
from mdaflow.engine.attachments import attachment_values
from mdaflow.engine.context import Context
from mdaflow.mail.envelope import Envelope
from mdaflow.mail.message import Message
from mdaflow.mail.raw import digest
from mdaflow.mail.trace import stored

PARTS = b"Subject: x\\nContent-Type: multipart/mixed; boundary=b\\n\\n" \\
    b"--b\\n\\nFrom here\\n--b\\n" \\
    b"Content-Type: application/x; name=a.pdf\\nContent-Transfer-Encoding: base64\\n\\n"
home, count, shape = sys.argv[1], int(sys.argv[2]), sys.argv[3]
head, line = {{
    "parts": (PARTS, b"QUJD" * 19 + b"\\n"),
    "header": (b"Subject: x\\n", b"X-mdaflow-a:\\nStatus: R\\nb:" + b"c" * 52 + b"\\n"),
    "fields": (b"Subject: x\\n", b"a:b\\n" * 19 + b" \\n"),
    "field": (b"Subject: x", b" " + b"x" * 75 + b"\\n"),
    "line": (b"Subject: x\\nFrom: ", b"x" * 77),
}}[shape]
lines = line * 13_618 + b"From here\\n"

def memory(name):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(name + ":")) << 10

def to_maildir(message):
    box = Mailbox("maildir", home, "Maildir")
    maildir.prepare(box, "", stored(message, b"A: b\\n"), ()).commit()

def to_mbox(message):
    box = Mailbox("mbox", home, "mail")
    mbox.prepare(box, "", stored(message, b"A: b\\n"), (), "a@b", 0.0).commit()

def to_program(message):
    chunks = stored(message, b"A: b\\n")
    done = program.run_program(["/bin/cat"], chunks, seconds=60, environment={{}}, directory="/")
    assert done.code == 0, done

def facts(message):
    context = Context(message, Envelope(), lambda fact: None)
    return [attachment_values(context, part) for part in ("count", "size", "sha256", "name")]

def views(message):
    return message.parts, message.lines, message.fields, digest([message.raw])

for size in (1, count):  # once with little, so that everything is imported
    message = Message(mapped_from([head, *[lines] * size, b"--b--\\n"]))
    assert message.size > size << 20
    for act in (views, facts, to_maildir, to_mbox, to_program):
        before = memory("VmRSS")
        act(message)
        if size == count:
            print(act.__name__, memory("VmHWM") - before, memory("VmRSS") - before, message.size)
"""


@pytest.mark.parametrize("shape", ["parts", "header", "fields", "field", "line"])
def test_memory(shape: str, tmp_path: Path) -> None:
    """What is done with a message of 50 MiB takes a few MiB, pages of its file among them,
    whether it is nearly all body or nearly all header."""
    with start(MEMORY, str(tmp_path), "50", shape) as child:
        output, _ = child.communicate()
    assert child.returncode == 0
    rows = [line.split() for line in output.splitlines()]
    assert [row[0] for row in rows] == ["views", "facts", "to_maildir", "to_mbox", "to_program"]
    for what, peak, after, size in rows:
        print(f"{what}: at most {int(peak) / MIB:.1f}, then {int(after) / MIB:.1f} MiB")
        assert int(size) > 50 * MIB
        assert int(peak) < 16 * MIB, what
        assert int(after) < 4 * MIB, what
