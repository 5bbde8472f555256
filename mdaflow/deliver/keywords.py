"""The flags of IMAP: system flags, and keywords, which a Maildir keeps as Dovecot does.

The letters `a` to `z` behind `:2,` in a message's name stand for the 26 keywords of its folder.
The file `dovecot-keywords` in the folder says for which: a line `0 invoice` for `a`, and so on.
A name keeps its number for good, so that reading needs no lock.

A new name is added as Dovecot does it: under the lock of its list of messages,
`dovecot-uidlist.lock`, for it has none of its own for this; the file is written anew as
`dovecot-keywords.lock`, synced and renamed. Its modification time grows by a second at least:
Dovecot reads the file again only if that has changed.

A keyword never stops a message: what cannot be had, for a lock that nobody gives back, for 26
other names or for any error of the system, is left out, and the log says so.

Known limit: Dovecot's CONTROL= puts the file elsewhere, where we do not look.
"""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress

from mdaflow.deliver.dotlock import drop_dotlock, drop_leftover, take_dotlock

FLAGS = {"\\Answered": "R", "\\Deleted": "T", "\\Draft": "D", "\\Flagged": "F", "\\Seen": "S"}
"""The system flags (RFC 3501 section 2.3.2) that a message can be stored with -> its letter in a
Maildir."""

LOCK_WAIT = 5.0
"""The longest wait for the lock, in seconds."""
STALE = 120.0
"""A lock of this age, in seconds, is a leftover, as for Dovecot, which touches its own meanwhile;
that of an owner that has died is one at once (see dotlock.py)."""
LOCKS = ("dovecot-uidlist.lock", "dovecot-keywords.lock")
"""The lock, and what is written under it and then renamed."""

_LETTERS = {name.lower(): letter for name, letter in FLAGS.items()}
_KEYWORD = re.compile(r"[!#$&'+-\[^-z|}~]{1,60}")  # printable ASCII but for space ( ) { % * " \ ]

_FILE = "dovecot-keywords"
_LOCK, _FRESH = LOCKS
_MOST = 26
_LONGEST = 1 << 16  # bytes of the file
_LINE = re.compile(r"([0-9]{1,2}) ([^\n]+)\n")
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

Names = dict[int, str]


def valid_keyword(flag: str) -> bool:
    """It can be a flag of the user's own, as `invoice` or `$Forwarded`: an atom of IMAP
    (RFC 3501 section 9) of at most 60 characters."""
    return _KEYWORD.fullmatch(flag) is not None


def keywords(flags: Collection[str]) -> tuple[str, ...]:
    """Those of some flags that are keywords, sorted, each once: their case does not count."""
    words = {flag.lower(): flag for flag in sorted(flags) if valid_keyword(flag)}
    return tuple(sorted(words.values()))


def letters(flags: Collection[str]) -> str:
    """The letters of the others, the system flags, in a Maildir, sorted.

    Raises ValueError for what is neither.
    """
    system = [flag for flag in flags if not valid_keyword(flag)]
    unknown = [flag for flag in system if flag.lower() not in _LETTERS]
    if unknown:
        raise ValueError(f"unknown flag {unknown[0]!r}: neither of {' '.join(FLAGS)}, nor an atom")
    return "".join(sorted({_LETTERS[flag.lower()] for flag in system}))


def registered(maildir: int, words: Sequence[str], place: str, wait: float = LOCK_WAIT) -> str:
    """The letters of keywords in an open Maildir, sorted; new names are on the disk.

    `place` is what the log calls the Maildir. Never raises; what cannot be had is left out.
    """
    found: dict[str, str] = {}
    why = "the folder has 26 others"
    try:
        found = _letters(_read(maildir))
        if any(word.lower() not in found for word in words):
            found = _letters(_add(maildir, words, wait))
    except OSError as error:
        why = error.strerror or str(error)
    left_out(place, [word for word in words if word.lower() not in found], why)
    return "".join(sorted({found[word.lower()] for word in words if word.lower() in found}))


def left_out(place: str, words: Sequence[str], why: str) -> None:
    """Say in the log what keywords a message was stored without, if there are any."""
    if words:
        import logging  # only here: most mail needs none

        text = "%s: stored without the keywords %s: %s"
        logging.getLogger("mdaflow").warning(text, place, " ".join(words), why)


def _letters(names: Names) -> dict[str, str]:
    return {name.lower(): chr(ord("a") + number) for number, name in names.items()}


def _read(maildir: int) -> Names:
    """The names by their numbers. Raises OSError."""
    text = _content(maildir, _FILE)
    if len(text) > _LONGEST:
        raise OSError(errno.EFBIG, f"{_FILE} is too long")
    lines = _LINE.findall(text if text.endswith("\n") else f"{text}\n")
    return {int(number): name for number, name in lines if int(number) < _MOST}


def _content(maildir: int, file: str) -> str:
    """What is in a file, or at least too much; nothing if there is none. Raises OSError."""
    try:
        fd = os.open(file, _READ, dir_fd=maildir)
    except FileNotFoundError:
        return ""
    try:
        return os.read(fd, _LONGEST + 1).decode("latin-1")  # every byte comes back as it was
    finally:
        os.close(fd)


def _add(maildir: int, words: Sequence[str], wait: float) -> Names:
    """Give the new ones of some words a number, if there is one; all names. Raises OSError."""
    with _locked(maildir, wait):
        names = _read(maildir)
        known = _letters(names)
        # Not in a gap: messages may have the letter of a name that was lost.
        free = range(max(names, default=-1) + 1, _MOST)
        new = dict(zip(free, (word for word in words if word.lower() not in known), strict=False))
        if new:
            _write(maildir, {**names, **new})
        return {**names, **new}


def _write(maildir: int, names: Names) -> None:
    """Replace the file, under the lock. Raises OSError."""
    with suppress(FileNotFoundError):
        os.unlink(_FRESH, dir_fd=maildir)  # of somebody who died; we have the lock
    fd = os.open(_FRESH, _WRITE, 0o600, dir_fd=maildir)
    try:
        try:
            raw = "".join(f"{number} {names[number]}\n" for number in sorted(names))
            if os.write(fd, raw.encode("latin-1")) < len(raw):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.utime(fd, (time.time(), max(time.time(), _changed(maildir) + 1)))
            os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(_FRESH, _FILE, src_dir_fd=maildir, dst_dir_fd=maildir)
    except BaseException:
        with suppress(OSError):
            os.unlink(_FRESH, dir_fd=maildir)
        raise
    os.fsync(maildir)


def _changed(maildir: int) -> float:
    """When the file was last changed, if it exists."""
    try:
        return os.stat(_FILE, dir_fd=maildir, follow_symlinks=False).st_mtime
    except FileNotFoundError:
        return 0.0


@contextmanager
def _locked(maildir: int, wait: float) -> Iterator[None]:
    """Hold the lock on Dovecot's list of messages. Raises OSError, TimeoutError among them."""
    deadline = time.monotonic() + wait
    while not (inode := _take(maildir)):
        if time.monotonic() >= deadline:
            raise TimeoutError(errno.ETIMEDOUT, f"{_LOCK} stayed for {wait:g} s")
        time.sleep(0.01 + os.urandom(1)[0] / 5000)  # at random, so as not to march in step
    try:
        yield
    finally:
        drop_dotlock(maildir, _LOCK, inode)


def _take(maildir: int) -> int:
    """The inode of the lock, 0 when somebody has it; a leftover is removed for the next try."""
    try:
        return take_dotlock(maildir, _LOCK)
    except FileExistsError:
        drop_leftover(maildir, _LOCK, STALE)
    return 0
