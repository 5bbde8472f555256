"""Deliver into a Maildir, or a Maildir++ folder of it (https://cr.yp.to/proto/maildir.html).

`prepare` writes the message to `tmp/` and syncs it. `commit` renames it to `new/NAME,S=SIZE`,
or with flags to `cur/NAME,S=SIZE:2,FLAGS`, and syncs that directory: a name there always refers
to a whole message, on the disk (P1, P17). An existing name is never replaced.

A keyword is a letter in the name which `dovecot-keywords` explains (see keywords.py). A message
that expires has a record beside it, in `mdaflow-expire/` of the same Maildir: an empty file
`DEADLINE-UNIQUE`, the deadline in seconds since the epoch, then the part of the message's name
that never changes. The record is on the disk before the message is visible; only what is recorded
is ever deleted, and only by `expire` (see expire.py).

A mailbox with a quota has its account in `maildirsize` (see quota.py): `prepare` asks it for room
before anything is written, `commit` adds to it.

No lock is needed, also with many machines on one NFS export: names are unique by time, process,
counter, 32 random bits and host, so neither fork nor a clock set back makes one twice (P45).

Known limit: of a directory that another delivery is making at the same moment, we rely on the
file system to write it to the disk before what is synced in it, as ext4, xfs and btrfs do.
"""

from __future__ import annotations

import errno
import math
import os
import re
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from functools import cache
from itertools import count

from mdaflow.deliver.keywords import keywords, letters, registered
from mdaflow.deliver.leftovers import remove_leftovers
from mdaflow.deliver.mailbox import (
    Chunks,
    Mailbox,
    describe,
    enter,
    is_inbox,
    locate,
    open_directory,
    open_existing,
    temporary_failures,
    warn_of_no_expiry,
    write,
)
from mdaflow.deliver.quota import Account, Use
from mdaflow.deliver.subscriptions import subscribe

RECORDS = "mdaflow-expire"
"""The directory in a Maildir whose files say which messages expire, and when."""

_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_NOREPLACE = 1  # RENAME_NOREPLACE, linux/fs.h
_FOREVER = 9_999_999_999  # the year 2286
_TRIES = 3  # names that are tried when one is taken
_NO_HOST = re.compile(rb"[^A-Za-z0-9._-]")
_counter = count(1)


def prepare(
    mailbox: Mailbox,
    folder: str,
    chunks: Chunks,
    flags: Collection[str],
    deadline: float | None = None,
) -> Delivery:
    """The message in `tmp/` of the folder's Maildir, synced; missing directories are made.

    `deadline` is when it expires, in seconds since the epoch; None for never. With `LAYOUT=fs`
    nothing expires.

    Raises TempFail, PermFail for a bad folder name and as the quota says, ValueError for an
    unknown flag.
    """
    if mailbox.layout and deadline is not None:
        deadline = None  # readers would take the records for a folder
        warn_of_no_expiry("LAYOUT=fs")
    delivery = Delivery(describe(mailbox, folder), letters(flags), keywords(flags), deadline)
    with temporary_failures(folder):
        try:
            delivery.enter(mailbox, folder, sum(map(len, chunks)))
            delivery.write(chunks)
        except BaseException:
            delivery.abort()
            raise
    return delivery


class Delivery:
    """One message on its way from `tmp/` to `new/` or `cur/`."""

    def __init__(
        self, where: str, marks: str, words: Sequence[str], deadline: float | None
    ) -> None:
        self.where = where
        self._marks, self._words = marks, words
        self._deadline = "" if deadline is None else f"{math.ceil(min(deadline, _FOREVER)):010}"
        self._tmp = self._into = self._records = -1  # descriptors of directories
        self._name = self._info = ""
        self._size = 0
        self._record = ""  # its name, while it may have to be taken back
        self._account: Account | None = None

    @property
    def use(self) -> Use | None:
        """What the message means for the quota; None without one."""
        return self._account.use if self._account else None

    def enter(self, mailbox: Mailbox, folder: str, size: int) -> None:
        """Open the Maildir's directories, see that there is room for so many bytes, and find
        letters for the keywords. Raises OSError, TempFail and PermFail."""
        inside, place = not is_inbox(folder), f"{mailbox.home}: {self.where}"
        maildir = open_directory(mailbox.home, locate(mailbox, folder))
        try:
            try:
                self._tmp = open_existing(maildir, "tmp")
            except FileNotFoundError:
                self._tmp = _make(maildir, inside and not mailbox.layout)
                subscribe(mailbox, folder)
            if mailbox.quota is not None:
                self._account = Account(self._tmp, folder=inside, quota=mailbox.quota, place=place)
                self._account.admit(size)
            marks = self._marks
            if self._words:
                marks += registered(maildir, self._words, place)
            self._info = f":2,{marks}" if marks else ""
            self._into = enter(maildir, "cur" if marks else "new")
            if self._deadline:
                self._records = enter(maildir, RECORDS)
        finally:
            os.close(maildir)

    def write(self, chunks: Chunks) -> None:
        """Write the message to `tmp/` and sync it. Raises OSError."""
        name = _unique()
        fd = os.open(name, _NEW_FILE, 0o600, dir_fd=self._tmp)
        self._name = name
        try:
            self._size = write(fd, chunks)
            os.fsync(fd)
        finally:
            os.close(fd)

    def commit(self) -> None:
        """Give the message its final name, and sync the directory. Raises TempFail."""
        with temporary_failures():
            try:
                self._publish()
            except BaseException:
                self.abort()
                raise
        remove_leftovers(self._tmp)
        self._close()

    def abort(self) -> None:
        """Remove the temporary file, if it is still there, and close everything."""
        with suppress(OSError):
            if self._name:
                os.unlink(self._name, dir_fd=self._tmp)
        self._forget()
        if self._account:
            self._account.refund()
        self._close()

    def _close(self) -> None:
        if self._account:
            self._account.close()
        for fd in (self._tmp, self._into, self._records):
            with suppress(OSError):
                os.close(fd)
        self._tmp = self._into = self._records = -1
        self._name = self._record = ""

    def _publish(self) -> None:
        if self._account:
            self._account.charge(self._size)
        final = self._rename()
        try:
            os.fsync(self._into)
        except OSError:  # the peer will send it again, so it must not be here twice
            with suppress(OSError):
                os.unlink(final, dir_fd=self._into)
            raise

    def _rename(self) -> str:
        name = self._name
        for _ in range(_TRIES):
            final = f"{name},S={self._size}{self._info}"
            self._note(name)
            with suppress(FileExistsError):
                _rename(self._tmp, self._name, self._into, final)
                return final
            self._forget()  # that is somebody else's name
            name = _unique()
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), self._name)

    def _note(self, name: str) -> None:
        """Record when the message expires that will have this name."""
        if self._deadline:
            record = f"{self._deadline}-{name}"
            os.close(os.open(record, _NEW_FILE, 0o600, dir_fd=self._records))
            self._record = record
            os.fsync(self._records)

    def _forget(self) -> None:
        with suppress(OSError):
            if self._record:
                os.unlink(self._record, dir_fd=self._records)
        self._record = ""


def _make(maildir: int, folder: bool) -> int:
    """Make what a Maildir consists of; a descriptor of its `tmp`, the last, so that a Maildir
    with `tmp` is known to be whole. A folder of Maildir++ has a file that says so."""
    if folder:
        with suppress(FileExistsError):
            os.close(os.open("maildirfolder", _NEW_FILE, 0o600, dir_fd=maildir))
    for name in ("cur", "new"):
        os.close(enter(maildir, name))
    return enter(maildir, "tmp")


def _unique() -> str:
    seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
    noise = os.urandom(4).hex()  # from the kernel: not the same in both halves of a fork
    return f"{seconds}.M{nanoseconds // 1000}P{os.getpid()}Q{next(_counter)}R{noise}.{_host()}"


@cache
def _host() -> str:
    """The host's name, as the Maildir page writes what could be taken for another part."""
    name = os.fsencode(os.uname().nodename)
    return _NO_HOST.sub(lambda char: b"\\%03o" % char[0][0], name)[:64].decode()


def _rename(source: int, name: str, target: int, final: str) -> None:
    """Rename without replacing (P17). Raises OSError, FileExistsError when the name is taken."""
    code = _renameat2()(source, os.fsencode(name), target, os.fsencode(final), _NOREPLACE)
    if code in (errno.EINVAL, errno.ENOSYS):  # NFS, or an old kernel
        try:
            os.link(name, final, src_dir_fd=source, dst_dir_fd=target, follow_symlinks=False)
        except FileExistsError:  # so NFS also says when a lost reply was asked for again
            if os.stat(name, dir_fd=source, follow_symlinks=False).st_nlink != 2:
                raise
        with suppress(OSError):  # the message is in place; a leftover in tmp/ is aged out
            os.unlink(name, dir_fd=source)
    elif code:
        raise OSError(code, os.strerror(code), final)


@cache
def _renameat2() -> Callable[[int, bytes, int, bytes, int], int]:
    """renameat2(2), returning the error number; ENOSYS where the C library has none."""
    import ctypes

    function = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if function is None:
        return lambda *_: errno.ENOSYS
    function.argtypes = (
        ctypes.c_int,
        ctypes.c_char_p,
        ctypes.c_int,
        ctypes.c_char_p,
        ctypes.c_uint,
    )
    return lambda *arguments: ctypes.get_errno() if function(*arguments) else 0
