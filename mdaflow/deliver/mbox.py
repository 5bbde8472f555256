"""Deliver into an mbox file, in the variant mboxrd (see mboxrd.py).

`prepare` takes both locks that readers know, appends the message and syncs it; `commit` gives
the locks back, `abort` first cuts the file to its former length (P18). The locks are an
open-file-description lock on the file (fcntl F_OFD_SETLK: a POSIX lock would not exclude other
threads of this process) and the dotlock `FILE.lock`. They are taken without blocking and given
back together when one is not free, so no order of other programs leads to a deadlock (P19).

A file that is a link, has a second link, is executable or is no file at all is not touched
(P28). What a crash left at the end of the file is closed by an empty line; zeros at the end are cut
off: a power cut leaves them where a file had become longer and the bytes were yet to come.

There is nothing in an mbox to note when a message expires, so it does not.

Known limits: one message waits for its locks until its commit, so a plan must not prepare two
messages for one file at once. A program that holds only a dotlock, for longer than 500 s,
loses it. Not for files on NFS that several machines write.
"""

from __future__ import annotations

import fcntl
import os
import stat
import struct
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from functools import partial
from itertools import chain

from mdaflow.deliver import mboxrd
from mdaflow.deliver.dotlock import drop_dotlock, drop_leftover, take_dotlock
from mdaflow.deliver.keywords import keywords, left_out, letters
from mdaflow.deliver.mailbox import (
    Chunk,
    Chunks,
    Mailbox,
    describe,
    locate,
    open_directory,
    temporary_failures,
    warn_of_no_expiry,
    write,
)
from mdaflow.deliver.subscriptions import subscribe
from mdaflow.errors import INTERNAL, LOCKED, TempFail

LOCK_WAIT = 30.0
"""The longest wait for the locks, in seconds."""
STALE = 500.0
"""A dotlock of this age, in seconds, is a leftover if the file is not locked otherwise, whoever has
made it; one of a process of this machine that has died is one at once (see dotlock.py)."""

# O_NONBLOCK: a FIFO in place of the file must not hang us.
_OPEN = os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
_NEW_FILE = os.O_CREAT | os.O_EXCL
_EXECUTABLE = stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH
_HEAD = 1 << 16  # bytes in which the first header block has to end
_ZEROS = 1 << 16  # the most bytes that a block of a file system has
_FLOCK = "hhqqi0q"  # struct flock: type, whence, start, length (0: all), pid (0: required)


def prepare(
    mailbox: Mailbox,
    folder: str,
    chunks: Chunks,
    flags: Collection[str],
    sender: str,
    received: float,
    expire: float | None = None,
    lock_wait: float = LOCK_WAIT,
) -> Delivery:
    """The message at the end of the folder's file, synced, and the file still locked.

    Raises TempFail (with LOCKED after `lock_wait` seconds), PermFail for a bad folder name,
    ValueError for an unknown flag.
    """
    marks, words = letters(flags), keywords(flags)
    *path, name = locate(mailbox, folder)
    if expire is not None:
        warn_of_no_expiry("mbox")
    with temporary_failures(folder):
        directory = open_directory(mailbox.home, path)
        owner = os.geteuid() if mailbox.owned else None
        file = os.path.join(mailbox.home, *path, name)
        delivery = Delivery(describe(mailbox, folder), directory, file, owner)
        try:
            delivery.lock(lock_wait)
            believed = delivery.list_keywords(words)
            unknown = [word for word in words if word not in believed]
            left_out(f"{mailbox.home}: {delivery.where}", unknown, "no room in X-IMAPbase")
            entry = mboxrd.entry(chunks, marks, sender, received, believed, first=delivery.is_new)
            delivery.append(entry)
        except BaseException:
            delivery.abort()
            raise
    delivery.announce = partial(subscribe, mailbox, folder)
    return delivery


class Delivery:
    """One message at the end of a locked file."""

    def __init__(self, where: str, directory: int, file: str, owner: int | None = None) -> None:
        """`directory` is the open directory of the `file`, whose path is for messages."""
        self.where = where
        self.announce: Callable[[], None] = lambda: None
        """Called when the file is a new one."""
        self._directory = directory
        self._file, self._name = file, os.path.basename(file)
        self._owner = owner
        """Whose the file has to be; None for anybody's."""
        self._fd = -1
        self._dotlock = 0  # its inode, while it is ours
        self._created = False
        self._start = -1  # length of the file before us, while the message can be taken back

    def lock(self, wait: float) -> None:
        """Open the file and take both locks. Raises OSError and TempFail."""
        deadline = time.monotonic() + wait
        while not self._try_lock():
            if time.monotonic() >= deadline:
                raise TempFail(LOCKED, f"{self._file} stayed locked for {wait:g} s")
            time.sleep(0.01 + os.urandom(1)[0] / 5000)  # at random, so as not to march in step

    @property
    def is_new(self) -> bool:
        """We made the file, and nobody wrote to it yet."""
        return self._created and os.fstat(self._fd).st_size == 0

    def list_keywords(self, words: Sequence[str]) -> Sequence[str]:
        """Have keywords listed at the beginning of the file; those that will be believed.

        Nothing takes it back: a name in the list says nothing of a message. Raises OSError.
        """
        believed, start, raw = words, 0, b""
        if words:
            believed, start, raw = mboxrd.listing(os.pread(self._fd, _HEAD, 0), words)
        if raw:
            self._overwrite(start, raw)
        return believed

    def _overwrite(self, start: int, raw: bytes) -> None:
        mode = fcntl.fcntl(self._fd, fcntl.F_GETFL)
        fcntl.fcntl(self._fd, fcntl.F_SETFL, mode & ~os.O_APPEND)  # no position would count
        try:
            os.lseek(self._fd, start, os.SEEK_SET)
            write(self._fd, (raw,))
        finally:
            fcntl.fcntl(self._fd, fcntl.F_SETFL, mode)

    def append(self, entry: Iterable[Chunk]) -> None:
        """Write an entry after what is there, and sync it. Raises OSError."""
        start, end = self._without_zeros()
        self._start = start
        write(self._fd, chain((_gap(end),), entry))
        os.fsync(self._fd)

    def _without_zeros(self) -> tuple[int, bytes]:
        """The length of the file and its last bytes, once zeros at its end are cut off: a message
        ends in a line end, whatever is in it."""
        size = os.fstat(self._fd).st_size
        end = os.pread(self._fd, 2, max(0, size - 2))
        if end.endswith(b"\0"):
            end = os.pread(self._fd, _ZEROS, max(0, size - _ZEROS))
            rest = end.rstrip(b"\0")
            if rest or len(end) == size:  # else that is no trace of a power cut
                size -= len(end) - len(rest)
                end = rest
                os.ftruncate(self._fd, size)
        return size, end[-2:]

    def commit(self) -> None:
        """Give the file back with the message in it. Raises TempFail."""
        with temporary_failures():
            try:
                if self._start < 0:
                    raise TempFail(INTERNAL, "commit without a prepared message")
                if self._start == 0:  # we, or somebody just before us, created the file
                    os.fsync(self._directory)
            except BaseException:
                self.abort()
                raise
        made = self._created
        self._close()
        if made:
            self.announce()

    def abort(self) -> None:
        """Cut the file to its former length, give back the locks and close everything."""
        try:
            with suppress(OSError):  # if even this fails: a message that comes again is no loss
                self._cut()
            with suppress(OSError):
                if self._created and self._fd >= 0 and self._is_unused():
                    os.unlink(self._name, dir_fd=self._directory)
        finally:
            self._close()

    def _cut(self) -> None:
        if self._start >= 0:
            os.ftruncate(self._fd, self._start)
            os.fsync(self._fd)

    def _close(self) -> None:
        self._start, self._created = -1, False
        self._release()
        with suppress(OSError):
            os.close(self._directory)
        self._directory = -1

    def _is_unused(self) -> bool:
        """The file is empty and has its name, under the kernel's lock (perhaps not yet ours)."""
        locked = _lock(self._fd, fcntl.F_WRLCK)
        return locked and os.fstat(self._fd).st_size == 0 and self._is_named()

    def _try_lock(self) -> bool:
        """Take both locks on the file that has the name, or neither."""
        if (
            self._open()
            and _lock(self._fd, fcntl.F_WRLCK)
            and self._take_dotlock()
            and self._is_named()  # a reader may have replaced it before we had the lock (P20)
        ):
            return True
        self._release()
        return False

    def _open(self) -> bool:
        """Open the file, or create it; False when others do so at this very moment."""
        try:
            self._fd = os.open(self._name, _OPEN, dir_fd=self._directory)
        except FileNotFoundError:
            with suppress(FileExistsError):
                self._fd = os.open(self._name, _OPEN | _NEW_FILE, 0o600, dir_fd=self._directory)
                self._created = True
            return self._fd >= 0
        found = os.fstat(self._fd)
        if not stat.S_ISREG(found.st_mode) or found.st_mode & _EXECUTABLE or found.st_nlink > 1:
            raise TempFail(INTERNAL, f"{self._file} is not a plain file with one link")
        if self._owner not in (None, found.st_uid):
            raise TempFail(INTERNAL, f"{self._file} is the file of uid {found.st_uid}")
        return True

    def _is_named(self) -> bool:
        here = os.fstat(self._fd)
        with suppress(FileNotFoundError):
            there = os.stat(self._name, dir_fd=self._directory, follow_symlinks=False)
            return os.path.samestat(here, there) and here.st_nlink == 1
        return False

    def _take_dotlock(self) -> bool:
        try:
            self._dotlock = take_dotlock(self._directory, self._name + ".lock")
        except FileExistsError:
            # We hold the kernel's lock, so no other thread of this process has the dotlock.
            drop_leftover(self._directory, self._name + ".lock", STALE, ours=True)
            return False
        return True

    def _release(self) -> None:
        if self._dotlock:
            drop_dotlock(self._directory, self._name + ".lock", self._dotlock)
        self._dotlock = 0
        if self._fd >= 0:
            with suppress(OSError):  # closing is not enough while a fork has a copy
                _lock(self._fd, fcntl.F_UNLCK)
            with suppress(OSError):
                os.close(self._fd)
        self._fd = -1


def _gap(tail: bytes) -> bytes:
    """The line ends that are missing before the next message, after the last two bytes."""
    if not tail or tail == b"\n\n":
        return b""
    return b"\n" if tail.endswith(b"\n") else b"\n\n"


def _lock(fd: int, kind: int) -> bool:
    """Take or give back the lock on a whole file; False when somebody else has it."""
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, struct.pack(_FLOCK, kind, os.SEEK_SET, 0, 0, 0))
    except BlockingIOError:
        return False
    return True
