"""Mailboxes for tests: store a message, read all of them back, look at every file."""

from __future__ import annotations

import gc
import os
import re
import stat
import subprocess
import sys
from collections.abc import Collection, Sequence
from pathlib import Path

import mdaflow
from mdaflow import deliver
from mdaflow.deliver.mailbox import Mailbox, locate

RECEIVED = 1762003500.0
"""Sat Nov  1 13:25:00 2025 UTC."""

ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": str(Path(str(mdaflow.__file__)).parent.parent),
    "PYTHONDONTWRITEBYTECODE": "1",
}


def store(
    mailbox: Mailbox,
    raw: bytes,
    folder: str = "",
    flags: Collection[str] = (),
    sender: str = "bob@example.org",
) -> str:
    """Store one message; where."""
    prepared = deliver.prepare(mailbox, folder, [raw], flags, sender, RECEIVED)
    prepared.commit()
    return prepared.where


def messages(mailbox: Mailbox, folder: str = "") -> list[bytes]:
    """The messages of a folder, sorted by their bytes."""
    place = Path(mailbox.home, *locate(mailbox, folder))
    if mailbox.format == "mbox":
        return sorted(split_mboxrd(place.read_bytes()))
    return sorted(file.read_bytes() for part in ("new", "cur") for file in place.glob(f"{part}/*"))


def split_mboxrd(raw: bytes) -> list[bytes]:
    """The messages of an mboxrd file, as a simple reader sees them."""
    first, *parts = re.split(rb"^From .*\n", raw, flags=re.MULTILINE)
    assert not first
    assert all(part.endswith(b"\n") for part in parts)
    return [re.sub(rb"^>(>*From )", rb"\1", part[:-1], flags=re.MULTILINE) for part in parts]


def tree(home: Path) -> dict[str, tuple[str, bytes]]:
    """Every file below `home`: path -> mode as `ls` writes it, content."""
    return {
        str(path.relative_to(home)): (
            stat.filemode(path.lstat().st_mode),
            path.read_bytes() if stat.S_ISREG(path.lstat().st_mode) else b"",
        )
        for path in sorted(home.rglob("*"))
    }


def descriptors() -> int:
    """How many files this process has open, without those that nobody has any more."""
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


def start(code: str, *arguments: str, before: Sequence[str] = ()) -> subprocess.Popen[str]:
    """A child that runs `code`; its standard input and output are pipes."""
    return subprocess.Popen(
        [*before, sys.executable, "-c", code, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    )
