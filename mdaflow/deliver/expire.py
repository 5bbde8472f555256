"""Delete what was stored with `expire`, once its time is over.

Nothing in a user's Maildir is ever deleted but by this, and only what a record in `mdaflow-expire/`
names (see maildir.py): by the part of its name that never changes, in `new/` or `cur/` of the same
Maildir. A message that its user flagged stays as long as it is, and one that was moved to another
folder stays for good. No symbolic link is followed, and none is deleted.

A message goes first, then its record; so a run may be killed at any point, and several may run at
once. The record of a message that is gone is removed as well, but for young ones, whose message is
perhaps only about to come, and not when something changed while we looked. Memory is bounded,
whatever the size of a mailbox. A `maildirsize` (see quota.py) is told what was deleted.

Known limit: in an mbox nothing expires, nor where folders are in each other (`LAYOUT=fs`).
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from contextlib import ExitStack, suppress
from itertools import islice
from typing import NamedTuple

from mdaflow.deliver.census import Total, folders, size_of
from mdaflow.deliver.mailbox import (
    Mailbox,
    locate,
    open_directory,
    open_existing,
    temporary_failures,
)
from mdaflow.deliver.maildir import RECORDS
from mdaflow.deliver.quota import release
from mdaflow.deliver.spelling import from_modified_utf7

YOUNG = 3600.0
"""A record without a message is kept for so many seconds."""

_BATCH = 50_000  # records that are held in memory
_DIGITS = 10  # of a deadline
_RECORD = re.compile(r"([0-9]{10})-([^,:]+)")
_UNIQUE = re.compile(r"[^,:]+")
_FLAGGED = re.compile(r":2,[A-Za-z]*F")  # not every program sorts the letters

Found = dict[str, tuple[int, str]]  # unique part -> directory, name


class Counts(NamedTuple):
    """What became of the recorded messages of a folder."""

    folder: str
    expired: int
    """Deleted; in a dry run: to be deleted."""
    flagged: int
    """Kept because their user flagged them."""
    waiting: int
    """Their time is still to come."""
    gone: int
    """Deleted or moved by others; their records are removed."""


def expire(mailbox: Mailbox, now: float, *, dry_run: bool = False) -> Iterator[Counts]:
    """Delete what has expired `now`, in seconds since the epoch. Yields the counts of each folder
    in which something is recorded. `dry_run`: nothing is changed.

    Raises TempFail.
    """
    if mailbox.format != "maildir" or mailbox.layout:
        return
    with temporary_failures():
        try:
            root = open_directory(mailbox.home, locate(mailbox, ""), make=False)
        except FileNotFoundError:  # nothing was delivered yet
            return
        with ExitStack() as stack:
            stack.callback(os.close, root)
            for directory in folders(root):
                if counts := _expire_in(root, directory, now, dry_run):
                    if counts["expired"] and not dry_run:
                        release(root, Total(counts["bytes"], counts["expired"]), mailbox.home)
                    name = directory[1:].replace(".", mailbox.separator) or mailbox.name
                    called = name if mailbox.utf8 else from_modified_utf7(name)
                    yield Counts(called, *(counts[field] for field in Counts._fields[1:]))


def _expire_in(root: int, directory: str, now: float, dry_run: bool) -> Counter[str]:
    """Delete what has expired in one folder; how often each field of Counts was met, and the
    `bytes` of what expired."""
    counts: Counter[str] = Counter()
    with ExitStack() as stack:

        def opened(parent: int, name: str) -> int:
            fd = open_existing(parent, name)
            stack.callback(os.close, fd)
            return fd

        try:
            maildir = opened(root, directory)
            records = opened(maildir, RECORDS)
            parts = [opened(maildir, name) for name in ("new", "cur")]
        except FileNotFoundError:
            return counts
        noted = _noted(stack.enter_context(os.scandir(records)))
        while batch := dict(islice(noted, _BATCH)):
            found, certain = _find(parts, batch)
            for unique, record in batch.items():
                place = found.get(unique)
                if place:
                    size = size_of(*place) or 0
                    became = _settle(place, records, record, now, dry_run)
                    counts[became] += 1
                    counts["bytes"] += size if became == "expired" else 0
                elif certain and _is_old(records, record, now):
                    _remove(records, record, dry_run)
                    counts["gone"] += 1
    return counts


def _noted(records: Iterable[os.DirEntry[str]]) -> Iterator[tuple[str, str]]:
    """The unique part of a message's name, and its record."""
    for entry in records:
        if found := _RECORD.fullmatch(entry.name):
            yield found[2], entry.name


def _find(parts: list[int], batch: Collection[str]) -> tuple[Found, bool]:
    """Where the messages are; whether those that were not found are gone for certain.

    A message moves from `new/` to `cur/` only, so it is in one of them when we look. But one
    whose flags change meanwhile may be missed.
    """
    before = [os.fstat(fd).st_mtime_ns for fd in parts]
    found = {}
    for fd in parts:
        with os.scandir(fd) as entries:
            for entry in entries:
                unique = _UNIQUE.match(entry.name)
                if unique and unique[0] in batch and entry.is_file(follow_symlinks=False):
                    found[unique[0]] = fd, entry.name
    return found, before == [os.fstat(fd).st_mtime_ns for fd in parts]


def _settle(place: tuple[int, str], records: int, record: str, now: float, dry_run: bool) -> str:
    """Delete a message if its time is over; what became of it, a field of Counts."""
    directory, name = place
    if int(record[:_DIGITS]) > now:
        return "waiting"
    if _FLAGGED.search(name):
        return "flagged"
    if not _remove(directory, name, dry_run):
        return "waiting"  # it has a new name by now; perhaps it was flagged
    _remove(records, record, dry_run)
    return "expired"


def _remove(directory: int, name: str, dry_run: bool) -> bool:
    """Delete a file; False when it was not there any more."""
    with suppress(FileNotFoundError):
        if not dry_run:
            os.unlink(name, dir_fd=directory)
        return True
    return False


def _is_old(records: int, record: str, now: float) -> bool:
    with suppress(FileNotFoundError):  # somebody else has removed it
        return os.stat(record, dir_fd=records, follow_symlinks=False).st_mtime < now - YOUNG
    return False
