"""Delete what has been in the quarantine for too long, and what crashes have left there.

Only this deletes by age, and nothing else than messages and their envelopes. A message is as old as
the last that was done to it, or when it came, if that is later: one with a wrong time stays too
long rather than too short. An envelope without a message goes after `OLD` seconds, as it may
be that of a message that is about to come.

Known limit: the clock of the machine is believed.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Iterator
from contextlib import suppress
from typing import NamedTuple

from mdaflow.errors import TempFail

from .held import (
    NOTE,
    PARTS,
    Held,
    NotHeld,
    directory,
    folders,
    messages,
    named,
    read_note,
    taken,
)
from .leftovers import OLD, remove_leftovers
from .quarantine import ENVELOPES

log = logging.getLogger("mdaflow")


class Counts(NamedTuple):
    """What became of what is in a folder."""

    folder: str
    expired: int
    """Messages that were deleted; in a dry run: that are to be."""
    waiting: int
    """Messages whose time is still to come, or that could not be deleted."""
    leftovers: int
    """Envelopes without a message, which were deleted as well."""


def expire(root: str, now: float, seconds: float, *, dry_run: bool = False) -> Iterator[Counts]:
    """Delete messages that have been held for longer than `seconds`; counts for each folder.

    Raises TempFail when the quarantine cannot be read.
    """
    for folder in folders(root):
        expired = waiting = 0
        for name, each in named(root, [*messages(root, folder)]):
            old = _last(root, each, name) < now - seconds
            gone = old and (dry_run or _remove(root, each, name))
            expired, waiting = expired + gone, waiting + (not gone)
        yield Counts(folder, expired, waiting, _remove_leftovers(root, folder, now, dry_run))


def _last(root: str, each: Held, name: str) -> float:
    """When a message came, or was changed last, whatever is later."""
    with suppress(OSError, ValueError, RecursionError):
        return max(each.changed, read_note(root, each.folder, name).envelope.received)
    return each.changed


def _remove(root: str, each: Held, name: str) -> bool:
    try:
        with taken(root, each) as ours:
            ours.remove(name)
    except NotHeld:
        return False
    except TempFail as error:
        log.warning("%s: not deleted: %s", name, error)
        return False
    return True


def _remove_leftovers(root: str, folder: str, now: float, dry_run: bool) -> int:
    """Remove what crashes have left; how many envelopes there were without a message."""
    try:
        with directory(root, folder, "tmp") as tmp:
            if not dry_run:
                remove_leftovers(tmp)
        with directory(root, folder, ENVELOPES) as here:
            alone = _without_message(root, folder, here, now)
            for name in () if dry_run else alone:
                os.unlink(name, dir_fd=here)
            return len(alone)
    except FileNotFoundError:
        return 0
    except OSError as error:
        log.warning("%s/%s: %s", root, folder, error.strerror)
        return 0


def _without_message(root: str, folder: str, envelopes: int, now: float) -> list[str]:
    """Old envelopes without a message; none when we may not have seen all messages: one cannot be
    read, or they were renamed while we looked."""
    before, there = _changed(root, folder), [*messages(root, folder)]
    names = [name for name, _ in named(root, there)]
    known = frozenset(names)
    with os.scandir(envelopes) as entries:
        alone = [entry.name for entry in entries if _is_leftover(entry, known, now)]
    return alone if len(names) == len(there) and before == _changed(root, folder) else []


def _changed(root: str, folder: str) -> list[int]:
    return [os.stat(f"{root}/{folder}/{part}").st_mtime_ns for part in PARTS]


def _is_leftover(entry: os.DirEntry[str], names: Collection[str], now: float) -> bool:
    note = NOTE.fullmatch(entry.name)
    if not note or note[1] in names or not entry.is_file(follow_symlinks=False):
        return False
    about = entry.stat(follow_symlinks=False)
    return max(about.st_mtime, about.st_ctime) < now - OLD
