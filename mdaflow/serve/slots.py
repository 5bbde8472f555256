"""Deliveries at once for one user: `PER_USER`, over all workers together (P32).

The master opens one unnamed file before it forks, and each worker opens it anew. A slot of a
user is one byte of it, taken with an open-file-description lock (F_OFD_SETLK): never waited
for, and given back by the kernel when its worker dies, however that happens. Where the byte is
says `hash`, which is the same in all forks of one process, and is nobody's to guess. The file
has no content. Workers of an old and a new configuration share it as well.

The locks of one worker do not exclude each other, so it counts its own. Without a file, as in
a worker that is alone, nothing else is counted. Where the kernel cannot lock, mail goes on.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import logging
import os
import struct

log = logging.getLogger("mdaflow")

PER_USER = 2

_SLOTS = tuple(1 << number for number in range(PER_USER))
_HASH = (1 << 61) - 1  # so that no byte is behind the largest offset
_FLOCK = struct.Struct("hhqqi0q")  # struct flock: type, whence, start, length, pid (0: required)

# Not fcntl.fcntl: it lets go of the interpreter's lock for a call that waits for nothing, and
# to have it back from sixteen threads takes longer than the rest of a job's way to its thread.
_fcntl = ctypes.PyDLL(None).fcntl


def open_file() -> int:
    """A descriptor of a new file for all workers. Raises OSError."""
    return os.memfd_create("mdaflow-slots", os.MFD_CLOEXEC)


class Slots:
    """The slots that one worker has taken; not for many threads. `file` is from `open_file`."""

    def __init__(self, file: int = -1) -> None:
        """Raises OSError."""
        self._fd = -1
        if file >= 0:  # not a duplicate: that would share its locks with the other workers
            self._fd = os.open(f"/proc/self/fd/{file}", os.O_RDWR | os.O_CLOEXEC)
        self._flock = ctypes.create_string_buffer(_FLOCK.size)
        self._address = ctypes.c_void_p(ctypes.addressof(self._flock))
        self._taken: dict[str, int] = {}
        """The slots of users, as bits."""

    @property
    def shared(self) -> bool:
        """Other workers may take slots, too."""
        return self._fd >= 0

    def take(self, user: str) -> bool:
        """Take a slot of a user, if one is free."""
        taken = self._taken.get(user, 0)
        for slot in _SLOTS:
            if not taken & slot and self._lock(user, slot, fcntl.F_WRLCK):
                self._taken[user] = taken | slot
                return True
        return False

    def give(self, user: str) -> None:
        """Give a slot back that was taken."""
        taken = self._taken.pop(user)
        slot = taken & -taken
        if taken != slot:
            self._taken[user] = taken - slot
        self._lock(user, slot, fcntl.F_UNLCK)

    def close(self) -> None:
        """Give all back, at the end."""
        if self.shared:
            os.close(self._fd)
        self._fd = -1
        self._taken.clear()

    def _lock(self, user: str, slot: int, kind: int) -> bool:
        """False: another worker has it."""
        if self._fd < 0:
            return True
        at = (hash(user) & _HASH) * PER_USER + slot.bit_length() - 1
        _FLOCK.pack_into(self._flock, 0, kind, os.SEEK_SET, at, 1, 0)
        if _fcntl(self._fd, fcntl.F_OFD_SETLK, self._address) == 0:
            return True
        try:  # it knows why
            fcntl.fcntl(self._fd, fcntl.F_OFD_SETLK, self._flock.raw)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                return False
            log.warning("slots of users: %s", error.strerror)
        return True
