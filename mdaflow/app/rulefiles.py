"""Reading rule files, what they import and the lists they name: only what is safe to read.

A file of a user counts only when nobody but its owner could have written it (P27), a file of
the site, as root, only when it is root's (P52). What is no regular file is refused without
being waited for. `Unsafe` says that a file is to be ignored; every other OSError may go away.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import OrderedDict
from collections.abc import Callable
from threading import Lock

from mdaflow.errors import from_oserror

MAX_LIST = 16 << 20
"""Bytes of a list in a file."""
MAX_ENTRIES = 500_000
MAX_LISTS = 1_000
"""Lists that are kept in memory."""

Version = tuple[int, ...]


class Unsafe(OSError):
    """A file that could have been written by somebody else, or is none."""


def version(about: os.stat_result) -> Version:
    """What changes with a file; the time of its last change covers owner, mode and links."""
    return about.st_dev, about.st_ino, about.st_mtime_ns, about.st_ctime_ns, about.st_size


def read_of_user(path: str, limit: int) -> tuple[Version, bytes]:
    """A file of a user, one byte more than the limit at most. Raises OSError; Unsafe if it is to be ignored."""
    return _read(path, limit, os.O_NOFOLLOW, _unsafe_of_user)


def read_of_site(path: str, limit: int) -> tuple[Version, bytes]:
    """A file of the site, which may be a link. Raises OSError; Unsafe if it must not count."""
    return _read(path, limit, 0, _unsafe_of_site)


Read = Callable[..., tuple[Version, bytes]]


def _read(
    path: str, limit: int, flags: int, unsafe: Callable[[str, os.stat_result], str]
) -> tuple[Version, bytes]:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | flags)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):
            raise _refused(path, "not a regular file") from error
        raise
    try:
        about = os.fstat(descriptor)
        reason = "" if stat.S_ISREG(about.st_mode) else "not a regular file"
        if reason := reason or unsafe(path, about):
            raise _refused(path, reason)
        with open(descriptor, "rb", closefd=False) as file:
            return version(about), file.read(limit + 1)
    finally:
        os.close(descriptor)


def _refused(path: str, reason: str) -> Unsafe:
    return Unsafe(errno.EPERM, reason, path)


def _unsafe_of_user(path: str, about: os.stat_result) -> str:
    if about.st_nlink != 1:
        return "has more than one link"
    if about.st_mode & 0o022:
        return "writable by others than its owner (chmod go-w)"
    folder = os.lstat(os.path.dirname(path))
    if stat.S_ISLNK(folder.st_mode):
        return "in a folder that is a symbolic link"
    if about.st_uid not in (0, os.geteuid(), folder.st_uid):
        return "owned by somebody else"
    if folder.st_mode & 0o002:
        return "in a folder that everybody can write to"
    return ""


def _unsafe_of_site(path: str, about: os.stat_result) -> str:
    if os.geteuid() == 0 and about.st_uid != 0:
        return "not owned by root"
    if os.geteuid() == 0 and about.st_mode & 0o022:
        return "writable by others than root (chmod go-w)"
    return ""


_FOR_GOOD = frozenset((
    errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENAMETOOLONG,
))  # fmt: skip
"""What the author of the file has to mend; all else may go away by itself."""


class Reading:
    """The files of one program, as its compiler asks for them, with their versions."""

    def __init__(self, read: Read, top: str, limit: int) -> None:
        self._read = read
        self._limit = limit
        self._top = os.path.dirname(top)
        self.versions: dict[str, Version | None] = {}
        """None for a file that is not there."""

    def __call__(self, path: str) -> bytes:
        """The content of a file. Raises OSError for what its author has to mend, else TempFail."""
        self.versions[path] = version_of(path)
        try:
            self._refuse_links(path)
            self.versions[path], content = self._read(path, self._limit)
        except OSError as error:
            if error.errno in _FOR_GOOD:
                raise
            raise from_oserror(error) from error
        return content

    def _refuse_links(self, path: str) -> None:
        folder = os.path.dirname(path)
        while self._read is read_of_user and len(folder) > len(self._top):
            if stat.S_ISLNK(os.lstat(folder).st_mode):
                raise _refused(path, "in a folder that is a symbolic link")
            folder = os.path.dirname(folder)


def version_of(path: str) -> Version | None:
    """The version of a file; None when it is not there."""
    try:
        return version(os.lstat(path))
    except OSError:
        return None


class ListFiles:
    """The entries of lists in files, read again when a file has changed."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, str], tuple[Version, tuple[str, ...]]] = OrderedDict()
        self._lock = Lock()

    def entries(self, path: str, owner: str) -> tuple[str, ...]:
        """The entries of a list: the same object as long as the file is the same.

        Raises OSError when it cannot be read, Unsafe when it is not to be.
        """
        key = path, owner
        seen = version(os.stat(path))
        with self._lock:
            known, entries = self._kept.get(key, (None, ()))
            if known == seen:
                self._kept.move_to_end(key)
                return entries
        read = read_of_site if owner == "site" else read_of_user
        seen, text = read(path, MAX_LIST)
        entries = parse_list(text)
        with self._lock:
            self._kept[key] = seen, entries
            while len(self._kept) > MAX_LISTS:
                self._kept.popitem(last=False)
        return entries


def parse_list(text: bytes) -> tuple[str, ...]:
    """The entries of a list in a file: one a line, `#` begins a comment, empty lines are none.

    Raises OSError when it is too large or no UTF-8.
    """
    if len(text) > MAX_LIST:
        raise OSError(errno.EFBIG, f"larger than {MAX_LIST >> 20} MiB")
    try:
        lines = text.decode().removeprefix("\ufeff").splitlines()
    except UnicodeDecodeError as error:
        raise OSError(errno.EILSEQ, f"no UTF-8 at byte {error.start + 1}") from error
    found = (line.partition("#")[0].strip() for line in lines)
    entries = tuple(filter(None, found))
    if len(entries) > MAX_ENTRIES:
        raise OSError(errno.EFBIG, f"more than {MAX_ENTRIES:,} entries")
    return entries
