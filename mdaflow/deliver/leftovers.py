"""What crashed programs leave in a Maildir: files in `tmp/` that nobody will rename, and locks.

The files are removed when they are older than 36 h, as the Maildir page says: only regular files,
and only in `tmp/`. Locks are removed that our deliveries take as well, once their owner has died or
they are stale (see dotlock.py). Nothing else is. A Maildir is looked at when a message has been
stored in it, at most once an hour by each process, so this costs next to nothing.

A file is as old as its last change, that of its inode counted: who stores an old message sets the
time of the file to that of the message. A clock that has just been set forward makes every file
old, also those of programs that are at it; so after a jump nothing is removed for an hour.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from itertools import islice

from mdaflow.deliver import keywords, subscriptions
from mdaflow.deliver.dotlock import drop_leftover

OLD = 36 * 3600.0
"""Seconds after which a file in `tmp/` is a leftover."""
EVERY = 3600.0
"""Seconds between two looks at one Maildir, and after a jump of the clock."""

_JUMP = 60.0  # seconds by which two clocks may differ in a process's life
_MOST = 10_000  # files that one look looks at, and Maildirs that are remembered
_LOCKS = {f"../{name}": keywords.STALE for name in keywords.LOCKS} | {
    f"../{subscriptions.LOCK}": subscriptions.STALE
}
_looked: dict[tuple[int, int], float] = {}  # when, by the clock that never jumps


def _clock() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)  # goes on while the machine sleeps


class _Jumps:
    """Notices when the clock of the files is set."""

    def __init__(self) -> None:
        self._offset = time.time() - _clock()
        self._quiet_until = 0.0

    def quiet(self) -> bool:
        """It was set not long ago."""
        now = _clock()
        offset = time.time() - now
        if abs(offset - self._offset) > _JUMP:
            self._offset, self._quiet_until = offset, now + EVERY
        return now < self._quiet_until


_jumps = _Jumps()


def remove_leftovers(tmp: int) -> None:
    """Remove what is old in the open `tmp/` of a Maildir, if it is time to look. Never raises."""
    with suppress(OSError):
        about = os.fstat(tmp)
        maildir, now = (about.st_dev, about.st_ino), _clock()
        if now - _looked.get(maildir, -EVERY) < EVERY or _jumps.quiet():
            return
        if len(_looked) >= _MOST:
            _looked.clear()
        _looked[maildir] = now
        for lock, stale in _LOCKS.items():
            drop_leftover(tmp, lock, stale)
        _remove_old(tmp, time.time() - OLD)


def _remove_old(tmp: int, before: float) -> None:
    with os.scandir(tmp) as entries:
        for entry in islice(entries, _MOST):
            if entry.is_file(follow_symlinks=False) and not entry.name.startswith("."):
                about = entry.stat(follow_symlinks=False)
                if max(about.st_mtime, about.st_ctime) < before:
                    with suppress(OSError):
                        os.unlink(entry.name, dir_fd=tmp)
