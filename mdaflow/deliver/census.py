"""How much mail is in a Maildir and its folders: by walking through it, each directory for itself.

A message counts by the `,S=SIZE` in its name, without a look at it; only one whose name does not
say is asked. What begins with a dot is no message, and what is no file is none either. No
symbolic link is followed.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from typing import NamedTuple

from mdaflow.deliver.mailbox import Quota, open_existing

_NOT_THERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
_SIZE = re.compile(r",S=([0-9]{1,18})(?=[:,]|\Z)")


class Total(NamedTuple):
    """Mail: how much, and how many."""

    bytes: int = 0
    messages: int = 0

    def plus(self, size: int, messages: int) -> Total:
        """The sum."""
        return Total(self.bytes + size, self.messages + messages)

    def of(self, quota: Quota) -> str:
        """How much it is of a quota, in words."""
        limited = zip(self, quota.limits, self._fields, strict=True)
        return ", ".join(f"{held:,} of {limit:,} {what}" for held, limit, what in limited if limit)


Counted = dict[tuple[str, str], tuple[int, Total]]
"""Folder, `new` or `cur` -> when that directory changed, what is there."""


def count(root: int, known: Counted) -> Counted:
    """What is in each directory; what is known and has not changed is not read. Raises OSError."""
    found: Counted = {}
    for folder in folders(root):
        for part in ("new", "cur"):
            try:
                found[folder, part] = _count_in(root, folder, part, known.get((folder, part)))
            except OSError as error:
                if error.errno not in _NOT_THERE:
                    raise
    return found


def folders(root: int) -> Iterator[str]:
    """An open Maildir itself and its folders, as directories in it. Raises OSError."""
    yield "."
    with os.scandir(root) as entries:
        for entry in entries:
            if entry.name.startswith(".") and entry.is_dir(follow_symlinks=False):
                yield entry.name


def _count_in(
    root: int, folder: str, part: str, known: tuple[int, Total] | None
) -> tuple[int, Total]:
    with ExitStack() as stack:
        maildir = open_existing(root, folder)
        stack.callback(os.close, maildir)
        directory = open_existing(maildir, part)
        stack.callback(os.close, directory)
        changed = os.fstat(directory).st_mtime_ns
        if known and known[0] == changed:
            return known
        return changed, _total(directory)


def _total(directory: int) -> Total:
    held = messages = 0
    with os.scandir(directory) as entries:
        for entry in entries:
            size = None if entry.name.startswith(".") else size_of(directory, entry.name)
            if size is not None:
                held += size
                messages += 1
    return Total(held, messages)


def added_up(found: Counted) -> Total:
    """What is in all directories together."""
    totals = [total for _, total in found.values()]
    return Total(sum(t.bytes for t in totals), sum(t.messages for t in totals))


def size_of(directory: int, name: str) -> int | None:
    """The bytes of a message, by its name if that has them; None if it is none. Raises OSError."""
    said = _SIZE.search(name)
    if said:
        return int(said[1])
    with suppress(FileNotFoundError):
        about = os.stat(name, dir_fd=directory, follow_symlinks=False)
        return about.st_size if stat.S_ISREG(about.st_mode) else None
    return None
