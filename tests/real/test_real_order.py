"""In which order a running server writes, syncs, publishes and answers (P1, P17).

strace is attached to the worker; a call counts as done when its result was seen.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import pytest
from children import Child
from mdaflow_server import MBOXES, Lmtp, Mdaflow, User, new_root
from need import need
from traces import Call, calls

CALLS = "write,writev,pwrite64,fsync,fdatasync,rename,renameat,renameat2,linkat,mkdirat,sendto"
MESSAGE = b"Subject: x\r\n\r\nhello\r\n"
RULES = 'deliver to "lists/dev"'


@contextmanager
def traced(mdaflow: Mdaflow, name: str) -> Iterator[Path]:
    """The file with the calls of the only worker; it is whole at the end."""
    [worker] = mdaflow.workers()
    output = mdaflow.root / f"{name}.trace"
    command = (need("strace"), "-f", "-y", "-s", "64", "-e", f"trace={CALLS}", "-o", output)
    strace = Child([*command, "-p", str(worker)], mdaflow.root / f"{name}.out")
    try:
        strace.wait_for(lambda: "attached with" in strace.said.read_text(), "strace is attached")
        yield output
    finally:
        strace.stop()


def deliveries(domain: str) -> Iterator[tuple[User, list[Call]]]:
    """Two deliveries to a user: one that makes the folder, one that finds it."""
    if os.geteuid() != 0:
        pytest.skip("needs root: strace is attached to a process that is not its child")
    root = new_root()
    mdaflow = Mdaflow(root, root / "lmtp", workers=1)
    try:
        mdaflow.start()
        user = mdaflow.user(RULES, domain=domain)
        for name in ("first", "second"):
            with traced(mdaflow, name) as output, Lmtp(mdaflow.socket) as client:
                reply = client.deliver(user.address, MESSAGE)
                assert reply.startswith(f"250 2.0.0 <{user.address}> ")
            yield user, [call for call in calls(output.read_text()) if call.worked]
    finally:
        mdaflow.close()


def one(found: list[Call], *names: str, on: Path | None = None) -> Call:
    """The only call of these names on a file."""
    [call] = [c for c in found if c.name in names and (on is None or c.on(on))]
    return call


def reply_to(user: User, found: list[Call]) -> Call:
    """The call that tells the client of success."""
    [call] = [c for c in found if c.name == "sendto" and f'"250 2.0.0 <{user.address}>' in str(c)]
    return call


def in_order(*found: Call) -> bool:
    """Each was done before the next began."""
    return all(a.end < b.start for a, b in pairwise(found))


def made_folders(found: list[Call], reply: Call) -> int:
    """How many folders were made; each is synced, and so is the one that it is in."""
    made = [call for call in found if call.name == "mkdirat"]
    for call in made:
        match = re.match(r'\d+<(.+)>, "(.+)", ', call.text)
        assert match is not None
        parent = Path(match[1])
        for path in (parent, parent / match[2]):
            syncs = [c for c in found if c.name == "fsync" and c.on(path)]
            assert any(in_order(call, sync, reply) for sync in syncs), path
    return len(made)


def test_maildir() -> None:
    """Written, synced, renamed, the folder synced, and only then 250; new folders synced too."""
    folders = []
    for user, found in deliveries("example.org"):
        reply = reply_to(user, found)
        rename = one(found, "renameat2", "rename", "linkat")
        match = re.match(r'\d+<(.+)>, "(.+)", \d+<(.+)>, "(.+)"', rename.text)
        assert match is not None
        temporary, folder = Path(match[1], match[2]), Path(match[3])
        assert (folder / match[4]).is_file()
        assert folder == user.maildir / ".lists.dev" / "new"
        written = one(found, "write", "writev", "pwrite64", on=temporary)
        synced = one(found, "fsync", "fdatasync", on=temporary)
        published = [c for c in found if c.name == "fsync" and c.on(folder)][-1]
        assert in_order(written, synced, rename, published, reply)
        folders.append(made_folders(found, reply))
    assert folders == [5, 0]


def test_mbox() -> None:
    """Appended, synced, the folder of a new file synced, and only then 250."""
    folders = []
    for user, found in deliveries(MBOXES):
        reply = reply_to(user, found)
        file = user.mbox / "lists" / "dev"
        written = one(found, "write", "writev", "pwrite64", on=file)
        synced = one(found, "fsync", "fdatasync", on=file)
        assert in_order(written, synced, reply)
        new = made_folders(found, reply)
        if new:
            entered = [c for c in found if c.name == "fsync" and c.on(file.parent)][-1]
            assert in_order(written, entered, reply)
        folders.append(new)
    assert folders == [2, 0]
