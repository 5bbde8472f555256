"""The quota of a Maildir, kept in `maildirsize` as Courier and Dovecot do
(https://www.courier-mta.org/imap/README.maildirquota.html).

The first line of the file has the limits, `1000000S,1000C`. Behind it are lines of a number of
bytes and a number of messages, to be added up: first what was counted, then each change, which
is appended by one write. All is counted anew, and the file replaced, when it is missing, broken,
of 5,120 bytes, or of other limits; and before a message is refused, if anything was appended
since or the count is over 15 minutes old.

What counts is all mail of the Maildir and its folders, Trash and what is marked as deleted too:
so does Dovecot by default, and Courier as Debian builds it.

No lock is needed. A line is appended just before its message becomes visible: who has counted
by then has not seen it, and who counts later finds its directory changed and counts that again.

A quota loses no mail. What cannot be read is counted; where that fails too, the message is stored
as if there was no quota, and the log says so, as with Dovecot. Nothing of this is synced: what a
power cut leaves of the file is counted anew.

Known limits: deliveries at the same moment may together pass the limit. A folder that is a
symbolic link does not count. What a kill, or two steps within one tick of a file system's clock,
leaves out or counts twice stays so until all is counted anew.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import time
from contextlib import suppress
from typing import NamedTuple

from mdaflow.deliver.census import Total, added_up, count
from mdaflow.deliver.mailbox import Mailbox, Quota, locate, open_directory, open_existing
from mdaflow.errors import PermFail, TempFail

FILE = "maildirsize"
LONGEST = 5120
"""Bytes of the file with which it begins anew."""
STALE = 900.0
"""Seconds for which no room is taken for no room."""

_TRIES = 3  # to count directories that change meanwhile
_OPEN = (
    os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
)  # fmt: skip
_NEW_FILE = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_LIMIT = re.compile(rb"([0-9]{1,18})([SC])")


class Use(NamedTuple):
    """What a Maildir held before a message came, and what it holds now."""

    before: Total
    now: Total
    quota: Quota

    def crossed(self, percent: int) -> bool:
        """With this message so many percent of the quota were reached."""
        return _part(self.before, self.quota) < percent / 100 <= _part(self.now, self.quota)


def _part(total: Total, quota: Quota) -> float:
    parts = (held / limit for held, limit in zip(total, quota.limits, strict=True) if limit)
    return max(parts, default=0.0)


class Account:
    """What a Maildir holds, and the lines of one message. `place` is what the log calls it."""

    def __init__(self, tmp: int, *, folder: bool, quota: Quota, place: str) -> None:
        """`tmp` is the open `tmp/` of the Maildir, or of a `folder` in it. It stays open."""
        self._tmp = tmp
        self._root = "../.." if folder else ".."
        self._path = f"{self._root}/{FILE}"
        self._quota = quota
        self._place = place
        self._fd = -1
        self._seen = 0  # bytes of the file that were read
        self._charged: int | None = None  # bytes of a message that may be taken back
        self.use: Use | None = None
        """What a message that was admitted means; None when nobody knows."""

    def admit(self, size: int) -> None:
        """Is there room for a message of so many bytes? Raises TempFail or PermFail if not."""
        try:
            held = self._read(size)
        except OSError as error:
            self._warn(error, "no room is refused")
            return
        if self._quota.over is not None and not self._has_room(held, size):
            refusal = TempFail if self._quota.over.temporary else PermFail
            raise refusal(self._quota.over, f"over quota: {held.of(self._quota)}")
        self.use = Use(held, held.plus(size, 1), self._quota)

    def charge(self, size: int) -> None:
        """Add a message. Never raises."""
        if self.change(size, 1):
            self._charged = size
            with suppress(OSError):
                self._look_before(size)

    def _look_before(self, size: int) -> None:
        """What others have added since we read was there before our message. Raises OSError."""
        start = os.lseek(self._fd, 0, os.SEEK_CUR) - len(_line(size, 1))
        if start != self._seen:
            held = _parse(os.pread(self._fd, start, 0), self._quota)
            if held is not None:
                self.use = Use(held, held.plus(size, 1), self._quota)

    def refund(self) -> None:
        """Take the message back. Never raises."""
        if self._charged is not None:
            with suppress(OSError):  # if the file was replaced, who did it has not met the message
                _write(self._fd, _line(-self._charged, -1))
        self._charged = None

    def change(self, size: int, messages: int) -> bool:
        """Add to the account; whether that was done. Never raises: else the next one counts."""
        try:
            self._append(_line(size, messages))
        except FileNotFoundError:
            return False
        except OSError as error:
            self._warn(error, f"{FILE} is removed, and made anew")
            self._remove()
            return False
        return True

    def close(self) -> None:
        """Close the file."""
        with suppress(OSError):
            if self._fd >= 0:
                os.close(self._fd)
        self._fd = -1

    def _has_room(self, held: Total, size: int) -> bool:
        then = held.plus(size, 1)
        return all(n <= limit for n, limit in zip(then, self._quota.limits, strict=True) if limit)

    def _read(self, size: int) -> Total:
        """What the Maildir holds. Raises OSError when that cannot be told."""
        with suppress(OSError):  # whatever is there, it is replaced
            self._open()
            raw = os.read(self._fd, LONGEST)
            self._seen = len(raw)
            held = _parse(raw, self._quota)
            if held is not None and (self._has_room(held, size) or self._is_fresh(raw)):
                return held
        return self._recount()

    def _open(self) -> None:
        self.close()
        self._fd = os.open(self._path, _OPEN, dir_fd=self._tmp)

    def _is_fresh(self, raw: bytes) -> bool:
        """Nothing was appended to the count, and it is young; the clock may have been set."""
        age = time.time() - os.fstat(self._fd).st_mtime
        return raw.count(b"\n") == 2 and abs(age) < STALE

    def _recount(self) -> Total:
        root = os.open(self._root, _DIRECTORY, dir_fd=self._tmp)
        try:
            found = count(root, {})
            for _ in range(_TRIES):
                held = added_up(found)
                self._replace(held)
                before, found = found, count(root, found)
                if found == before:
                    return held
        finally:
            os.close(root)
        self._remove()  # others write here all the time: some of them will have luck
        return added_up(found)

    def _replace(self, held: Total) -> None:
        """Begin the file anew. Never raises: without it the next one counts."""
        self.close()
        name = f"{FILE}.{time.time_ns()}.{os.getpid()}.{os.urandom(4).hex()}"
        raw = b"%s\n%s" % (_header(self._quota), _line(*held))
        try:
            self._fd = os.open(name, _NEW_FILE, 0o600, dir_fd=self._tmp)
            _write(self._fd, raw)
            self._seen = len(raw)
            os.rename(name, self._path, src_dir_fd=self._tmp, dst_dir_fd=self._tmp)
        except OSError as error:
            self._warn(error, f"{FILE} is not written")
            self.close()
            with suppress(OSError):
                os.unlink(name, dir_fd=self._tmp)

    def _append(self, line: bytes) -> None:
        """Append to the file, to the new one if it was replaced. Raises OSError."""
        about = os.fstat(self._fd) if self._fd >= 0 else None
        if about is None or not about.st_nlink:
            self._open()
            about = os.fstat(self._fd)
        if not stat.S_ISREG(about.st_mode) or about.st_nlink > 1:
            raise OSError(errno.EMLINK, f"{FILE} is not a plain file with one link")
        _write(self._fd, line)

    def _remove(self) -> None:
        self.close()
        with suppress(OSError):
            os.unlink(self._path, dir_fd=self._tmp)

    def _warn(self, error: OSError, then: str) -> None:
        import logging  # only here: most mail needs none

        text = error.strerror or str(error)
        logging.getLogger("mdaflow").warning("%s: quota: %s; %s", self._place, text, then)


def check(mailbox: Mailbox) -> None:
    """Is there room for any mail? Raises TempFail or PermFail if not."""
    if mailbox.quota is None:
        return
    try:
        tmp = open_directory(mailbox.home, (*locate(mailbox, ""), "tmp"), make=False)
    except OSError:  # nothing is there yet, or it is the delivery's to say what is wrong
        return
    account = Account(tmp, folder=False, quota=mailbox.quota, place=mailbox.home)
    try:
        account.admit(1)
    finally:
        account.close()
        os.close(tmp)


def release(maildir: int, deleted: Total, place: str) -> None:
    """Tell the account of an open Maildir, if it has one, what was deleted. Never raises."""
    with suppress(OSError):
        tmp = open_existing(maildir, "tmp")
        try:
            account = Account(tmp, folder=False, quota=Quota(), place=place)
            account.change(-deleted.bytes, -deleted.messages)
            account.close()
        finally:
            os.close(tmp)


def _write(fd: int, raw: bytes) -> None:
    if os.write(fd, raw) < len(raw):  # the rest would be a line of its own
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _line(size: int, messages: int) -> bytes:
    return b"%d %d\n" % (size, messages)


def _header(quota: Quota) -> bytes:
    limits = zip(quota.limits, (b"S", b"C"), strict=True)
    return b",".join(b"%d%s" % (limit, letter) for limit, letter in limits if limit) or b"0S"


def _parse(raw: bytes, quota: Quota) -> Total | None:
    """The sum of a file; None when it has to be made anew."""
    head, _, changes = raw.partition(b"\n")
    limits = {letter: int(limit) for limit, letter in _LIMIT.findall(head)}
    same = (limits.get(b"S", 0), limits.get(b"C", 0)) == quota.limits
    lines = changes.count(b"\n")
    pairs = changes.translate(None, b"-0123456789") == b" \n" * lines
    if not (same and lines and pairs) or len(raw) >= LONGEST:
        return None
    try:
        numbers = list(map(int, changes.split()))
        total = Total(sum(numbers[::2]), sum(numbers[1::2]))
    except ValueError:
        return None
    return total if len(numbers) == 2 * lines and min(total) >= 0 else None
