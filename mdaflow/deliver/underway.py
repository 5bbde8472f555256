"""Who is at something that only one thread or process shall do at a time.

A name is a byte of a file in the folder of state, and a lock of that byte (an open file description
lock, fcntl(2)) goes with its process, however that ends. Without the folder, or without locks,
everybody goes on as if alone.

Known limit: machines with one store do not see each other's locks.
"""

from __future__ import annotations

import fcntl
import logging
import os
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import blake2b

LOCKS = "underway"
"""The file, whose bytes are the locks; nothing is in it."""
LOOK = 0.02
"""Seconds between two looks whether it is our turn."""

_OPEN = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_FLOCK = struct.Struct("hhqqi0q")  # struct flock: type, whence, start, length, pid (0: required)

log = logging.getLogger("mdaflow")


@contextmanager
def alone(state: str, name: str, seconds: float = 0.0) -> Iterator[bool]:
    """Open while we are at `name`; False when others still are after so many seconds.

    `state` is the folder of small state, or empty when there is none.
    """
    file = _open(state) if state else -1
    try:
        yield file < 0 or _lock(file, name, time.monotonic() + seconds)
    finally:
        if file >= 0:
            _unlock(file)
            os.close(file)


def _open(state: str) -> int:
    """The file of the locks; -1 when it cannot be had."""
    try:
        return os.open(f"{state}/{LOCKS}", _OPEN, 0o600)
    except OSError as error:
        log.warning("%s/%s: %s", state, LOCKS, error.strerror)
        return -1


def _unlock(file: int) -> None:
    """Not left to close(2): a process that a scanner of others has forked has the file, too, and
    would keep the lock."""
    with suppress(OSError):
        fcntl.fcntl(file, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_UNLCK, os.SEEK_SET, 0, 0, 0))


def _lock(file: int, name: str, until: float) -> bool:
    at = int.from_bytes(blake2b(name.encode(), digest_size=8).digest()) >> 2  # an off_t is signed
    said = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, at, 1, 0)
    while True:
        try:
            fcntl.fcntl(file, fcntl.F_OFD_SETLK, said)
        except BlockingIOError:
            if time.monotonic() >= until:
                return False
            time.sleep(LOOK)
        except OSError as error:  # no locks there
            log.warning("%s: %s", LOCKS, error.strerror)
            return True
        else:
            return True
