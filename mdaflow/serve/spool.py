"""Where messages wait while they arrive: small ones in memory, all others in a file.

A file has no name, so nothing of it is left when the process ends, however that happens. A
message that came whole is read through a mapping of its file: it costs no memory of ours.

A mapping cannot fail as a read can. Where the disk does not give back what was written to it,
the worker is killed by SIGBUS; nothing was acknowledged, so the mail comes again.
"""

from __future__ import annotations

import errno
import io
import logging
import mmap
import os
import tempfile

from ..errors import (
    DISK_FULL,
    TOO_BIG,
    ConfigError,
    MailError,
    PermFail,
    TempFail,
    from_oserror,
)
from .data import DataReader

log = logging.getLogger("mdaflow")

THRESHOLD = 64 << 10
"""The most bytes of a message that are held in memory."""

_FOR_GOOD = {errno.ENOENT, errno.EEXIST, errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.EROFS}


class Spool:
    """A folder for messages that arrive, of at most `limit` bytes each."""

    def __init__(self, folder: str, limit: int, reserve: int) -> None:
        self.folder = folder
        self.limit = limit
        self._reserve = reserve

    def check(self) -> None:
        """Make the folder when it is missing, and a file in it. Raises ConfigError when that will
        never work; a disk that is full now will not be for ever."""
        try:
            os.makedirs(self.folder, mode=0o700, exist_ok=True)
            os.close(_unnamed(self.folder))
        except OSError as error:
            told = f"lmtp.spool (or state): {self.folder}: {error.strerror}"
            if error.errno in _FOR_GOOD:
                raise ConfigError((told,)) from error
            log.warning("%s", told)

    def need_room(self, size: int) -> None:
        """Raise TempFail unless a message of so many bytes may come (P44)."""
        try:
            found = os.statvfs(self.folder)
        except OSError as error:
            status = from_oserror(error).status
            raise TempFail(status, f"lmtp.spool: {self.folder}: {error.strerror}") from error
        free = found.f_bavail * found.f_frsize
        if free < size + self._reserve:
            raise TempFail(DISK_FULL, f"lmtp.spool: {self.folder}: {free} bytes are free")


class Arrival:
    """One message on its way in. What goes wrong is kept, so that its end is still found."""

    def __init__(self, spool: Spool) -> None:
        self.refusal: MailError | None = None
        """Why it cannot be taken; what comes is not kept any more."""
        self._spool = spool
        self._reader = DataReader(self._store)
        self._memory = io.BytesIO()
        self._file = -1
        self._size = 0

    @property
    def size(self) -> int:
        """Bytes so far, with CRLF."""
        return self._reader.size

    def feed(self, chunk: bytes | memoryview) -> bytes | None:
        """Take the next bytes. None: more, please. Else the end was seen: what follows it."""
        return self._reader.feed(chunk)

    def raw(self) -> bytes | mmap.mmap:
        """All of the message. Raises OSError."""
        if self._file < 0:
            return self._memory.getvalue()  # the buffer itself, not a copy
        mapped = Spooled(self._file, self._size, prot=mmap.PROT_READ)  # a descriptor of its own
        mapped.keep(self._file)
        return mapped

    def close(self) -> None:
        """Forget what is here; a mapping lives on."""
        self._memory = io.BytesIO()
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _store(self, block: bytes) -> None:
        if self.refusal is None and self.size > self._spool.limit:
            self._refuse(PermFail(TOO_BIG))
        if self.refusal is None:
            try:
                self._write(block)
            except OSError as error:
                found = from_oserror(error)
                self._refuse(TempFail(found.status, f"lmtp.spool: {found}"))

    def _refuse(self, refusal: MailError) -> None:
        self.refusal = refusal
        self.close()

    def _write(self, block: bytes) -> None:
        self._size += len(block)
        if self._file < 0 and self._size > THRESHOLD:
            self._file = _unnamed(self._spool.folder)
            _write(self._file, self._memory.getvalue())
            self._memory = io.BytesIO()
        if self._file < 0:
            self._memory.write(block)
        else:
            _write(self._file, block)


class Spooled(mmap.mmap):
    """A message in its file, and a descriptor by which another process can read it and no more."""

    _file = -1

    def keep(self, file: int) -> None:
        """Have a descriptor of the file. Raises OSError."""
        self._file = os.open(f"/proc/self/fd/{file}", os.O_RDONLY | os.O_CLOEXEC)

    def fileno(self) -> int:
        """The descriptor; it is open for as long as this lives."""
        return self._file

    def __del__(self) -> None:
        if self._file >= 0:
            os.close(self._file)


def _unnamed(folder: str) -> int:
    try:
        return os.open(folder, os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC, 0o600)
    except IsADirectoryError:  # a kernel that does not know O_TMPFILE
        pass
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:  # NFS
            raise
    fd, path = tempfile.mkstemp(dir=folder)
    os.unlink(path)
    return fd


def _write(fd: int, block: bytes | memoryview) -> None:
    view = memoryview(block)
    while view:
        view = view[os.write(fd, view) :]
