"""Subscribe to a folder that was just made: IMAP clients show what is in Dovecot's list.

The list is the file `subscriptions` in a Maildir, `.subscriptions` in a folder of mbox files.
Behind its head, `V<TAB>2` and an empty line, each line is a folder, its levels divided by tabs and
spelt as on the disk. Older files have no head, and `.` or `/` between the levels.

It is changed as Dovecot does: the new list is written to `subscriptions.lock`, which nobody else
can have then, and renamed. A folder is in it once. What a user has unsubscribed from stays away:
only a new folder is added.

Nothing of this stops a message: what fails is said in the log.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress

from mdaflow.deliver.dotlock import drop_leftover
from mdaflow.deliver.mailbox import Mailbox, open_directory, spelt, write

LOCK_WAIT = 2.0
"""The longest wait for another who changes the list, in seconds."""
STALE = 30.0
"""A lock of this age, in seconds, is a leftover, as for Dovecot."""
LOCK = "subscriptions.lock"
"""The lock in a Maildir."""

_HEAD = b"V\t2\n\n"
_FILES = {"maildir": "subscriptions", "mbox": ".subscriptions"}
_MOST = 1 << 20  # bytes of a list
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def subscribe(mailbox: Mailbox, folder: str, wait: float = LOCK_WAIT) -> None:
    """Add a new folder to the list, if the mailbox has one and it is not there. Never raises."""
    try:
        levels = spelt(mailbox, folder)
        if mailbox.subscribe and levels:
            root = open_directory(mailbox.home, mailbox.path.split("/"))
            try:
                _add(root, _FILES[mailbox.format], levels, _separator(mailbox), wait)
            finally:
                os.close(root)
    except OSError as error:
        import logging  # only here: most mail makes no folder

        text = "%s: %s is not subscribed: %s"
        logging.getLogger("mdaflow").warning(text, mailbox.home, folder, error.strerror or error)


def _separator(mailbox: Mailbox) -> str:
    return "." if (mailbox.format, mailbox.layout) == ("maildir", "") else "/"


def _add(root: int, file: str, levels: list[str], separator: str, wait: float) -> None:
    lock = f"{file}.lock"
    fd = _take(root, lock, wait)
    try:
        try:
            old, mode = _content(root, file)
            line = ("\t" if old.startswith(_HEAD) else separator).join(levels).encode()
            new = line not in old.split(b"\n")
            if new:
                write(fd, (old, b"" if old.endswith(b"\n") else b"\n", line, b"\n"))
                os.fchmod(fd, mode)
                os.fsync(fd)
        finally:
            os.close(fd)
        if new:
            os.rename(lock, file, src_dir_fd=root, dst_dir_fd=root)
        else:
            os.unlink(lock, dir_fd=root)
    except BaseException:
        with suppress(OSError):
            os.unlink(lock, dir_fd=root)
        raise


def _take(root: int, lock: str, wait: float) -> int:
    """The lock, open to be written. Raises OSError, FileExistsError when others keep it."""
    until = time.monotonic() + wait
    while True:
        try:
            return os.open(lock, _WRITE, 0o600, dir_fd=root)
        except FileExistsError:
            if time.monotonic() >= until:
                raise
        drop_leftover(root, lock, STALE)
        time.sleep(0.01 + os.urandom(1)[0] / 5000)


def _content(root: int, file: str) -> tuple[bytes, int]:
    """The list, or the head of a new one, and its mode. Raises OSError."""
    try:
        fd = os.open(file, _READ, dir_fd=root)
    except FileNotFoundError:
        return _HEAD, 0o600
    try:
        raw = os.read(fd, _MOST + 1)
        if len(raw) > _MOST:
            raise OSError(f"{file} is too long")
        return raw or _HEAD, os.fstat(fd).st_mode & 0o777
    finally:
        os.close(fd)
