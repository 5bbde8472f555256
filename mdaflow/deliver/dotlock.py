"""Lock files, as Dovecot makes and reads them: there is one, or there is none.

It holds `PID:HOST` of its owner. So what a killed process has left is known at once, on the same
machine: by Dovecot for ours, by us for both. Others write nothing, a pid without its host, or `0`;
theirs are leftovers by their age alone.
"""

from __future__ import annotations

import os
import re
import time
from contextlib import suppress
from typing import NamedTuple

ASKED = 2.0
"""Seconds: not before this age is it asked for whether the owner still lives. For containers that
share a directory and a host name, but not their pids."""

_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_OWNER = re.compile(rb"([1-9][0-9]{0,8}):([^\n]+)\n?")
_LONGEST = 300  # bytes of a lock that can have an owner


def take_dotlock(directory: int, name: str) -> int:
    """Make a lock file that says who we are; its inode.

    Raises OSError, FileExistsError when somebody has it.
    """
    fd = os.open(name, _NEW_FILE, 0o600, dir_fd=directory)
    try:
        os.write(fd, f"{os.getpid()}:{os.uname().nodename}".encode())
        return os.fstat(fd).st_ino
    except BaseException:
        with suppress(OSError):
            os.unlink(name, dir_fd=directory)
        raise
    finally:
        os.close(fd)


def drop_dotlock(directory: int, name: str, inode: int) -> None:
    """Remove a lock file, if it is still the one that was made. Never raises."""
    with suppress(OSError):
        if os.stat(name, dir_fd=directory, follow_symlinks=False).st_ino == inode:
            os.unlink(name, dir_fd=directory)


def drop_leftover(directory: int, name: str, stale: float, *, ours: bool = False) -> None:
    """Remove a lock file whose owner has died, or that is older than `stale` seconds: a pid may be
    given again. `ours`: also one that this process has made.

    Whoever wants the lock takes it after a pause: others may be about to remove the same leftover,
    and shall not find a new lock by then. Never raises.
    """
    with suppress(OSError):
        lock = _look_at(directory, name)
        mine = ours and lock.owner == os.getpid()
        left = mine or lock.is_orphan or lock.age > stale
        if left and _look_at(directory, name).made == lock.made:
            os.unlink(name, dir_fd=directory)


class _Dotlock(NamedTuple):
    """A lock file that somebody has."""

    made: tuple[int, int]
    """Its inode, whose number may be given again at once, and its time in nanoseconds."""
    age: float
    """In seconds; below 0 when the clock was set back."""
    owner: int
    """The pid of its owner; 0 if that is not on this machine, or nobody says."""

    @property
    def is_orphan(self) -> bool:
        """Its owner has died."""
        return bool(self.owner) and abs(self.age) > ASKED and not _lives(self.owner)


def _look_at(directory: int, name: str) -> _Dotlock:
    about = os.stat(name, dir_fd=directory, follow_symlinks=False)
    made = about.st_ino, about.st_mtime_ns
    return _Dotlock(made, time.time() - about.st_mtime, _owner(directory, name))


def _owner(directory: int, name: str) -> int:
    raw = b""
    with suppress(OSError):  # a link, a directory, or not ours to read
        fd = os.open(name, _READ, dir_fd=directory)
        try:
            raw = os.read(fd, _LONGEST)
        finally:
            os.close(fd)
    found = _OWNER.fullmatch(raw)
    return int(found[1]) if found and found[2] == os.uname().nodename.encode() else 0


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
