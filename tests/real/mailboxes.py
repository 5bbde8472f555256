"""What is in mailboxes, as a program sees it that knows nothing of mdaflow."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_SEPARATOR = re.compile(rb"^From [^\n]*\n", re.MULTILINE)
_QUOTED = re.compile(rb"^>(>*From )", re.MULTILINE)


class Mail(NamedTuple):
    """A message as it is stored."""

    place: str
    """For a report."""
    raw: bytes
    named: bool
    """In a Maildir: its name says its size."""
    in_mbox: bool = False


def maildir(folder: Path) -> list[Mail]:
    """The messages of a Maildir."""
    paths = [path for part in ("new", "cur") for path in sorted(folder.glob(f"{part}/*"))]
    mails = [(path, path.read_bytes()) for path in paths]
    return [Mail(str(path), raw, f",S={len(raw)}" in path.name) for path, raw in mails]


def mbox(file: Path) -> list[Mail]:
    """The messages of an mboxrd file, the quotes taken away."""
    before, *parts = _SEPARATOR.split(file.read_bytes())
    messages = [_QUOTED.sub(rb"\1", part).removesuffix(b"\n") for part in parts]
    found = [Mail(f"{file}, {n}", raw, True, True) for n, raw in enumerate(messages, 1)]
    return [Mail(f"{file}, 0", before, False), *found] if before else found


def folders(home: Path) -> Iterator[list[Mail]]:
    """The messages of each folder below a user's home: a Maildir has `new`, and an mbox is a file
    below `mail` that is no lock."""
    yield from (maildir(new.parent) for new in home.rglob("new"))
    files = [path for path in home.glob("mail/**/*") if path.is_file() and not _is_lock(path)]
    yield from map(mbox, files)


def leftovers(home: Path) -> list[Path]:
    """What a delivery has below a folder only while it lasts."""
    return [path for path in home.rglob("*") if path.parent.name == "tmp" or _is_lock(path)]


def _is_lock(path: Path) -> bool:
    return path.suffix == ".lock" and path.is_file()
