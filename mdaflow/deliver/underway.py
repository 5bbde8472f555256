"""Who is at something that only one thread or process shall do at a time.

A name is a byte of a file in the folder of state, and a lock of that byte (an open file description
lock, fcntl(2)) goes with its process, however that ends. While the file cannot be had, only threads
of one process see each other; without locks everybody goes on as if alone.

Known limit: machines with one store do not see each other's locks.
"""

from __future__ import annotations

import fcntl
import logging
import os
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from hashlib import blake2b

LOCKS = "underway"
"""The file, whose bytes are the locks; nothing is in it."""
LOOK = 0.02
"""Seconds between two looks whether it is our turn."""

_OPEN = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_FLOCK = struct.Struct("hhqqi0q")  # struct flock: type, whence, start, length, pid (0: required)

_running: set[str] = set()
_ended = threading.Condition()
"""What threads are at while there is no file, and how others know that they are done."""

log = logging.getLogger("mdaflow")


@contextmanager
def alone(state: str, name: str, seconds: float = 0.0) -> Iterator[bool]:
    """Open while we are at `name`; False when others still are after so many seconds.

    `state` is the folder of small state, or empty when there is none.
    """
    until = time.monotonic() + seconds
    file = _open(state) if state else -1
    if file < 0:
        with _alone_here(name, until) if state else nullcontext(True) as ours:
            yield ours
        return
    try:
        yield _lock(file, name, until)
    finally:
        _unlock(file)
        os.close(file)


@contextmanager
def _alone_here(name: str, until: float) -> Iterator[bool]:
    """The same, among the threads of this process."""
    with _ended:
        ours = _ended.wait_for(lambda: name not in _running, max(0.0, until - time.monotonic()))
        if ours:
            _running.add(name)
    try:
        yield ours
    finally:
        if ours:
            with _ended:
                _running.remove(name)
                _ended.notify_all()


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
