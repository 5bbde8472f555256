"""The messages of a folder that others write to, one after the other: Maildir, mbox, plain files.

What a folder is tells what is there: a file is an mbox, a directory with `cur` or `new` a Maildir,
any other holds a message a file. Below `home` no link is followed, and what is no regular file is
never opened (P28): a FIFO would wait for ever. A message has a key that stays as long as it is in
its folder, so that it is read once: in a Maildir of the part of its name that never changes.

Who asks decides how long it goes on, and where: what is no message, and now and then a long mbox,
gives None. Nothing is locked, and nothing changed.

Known limits: a file whose content changes under the same name is not read again. A message that
is being written to an mbox while we read is seen as far as it is there.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Container, Iterable, Iterator
from contextlib import ExitStack, suppress
from hashlib import blake2b
from typing import NamedTuple

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_BELOW = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
_PARTS = ("new", "cur")
"""In this order: a message moves from the first to the second only."""
_LINE = 4 << 10
_LINES = 1_000
"""Lines of an mbox, or entries that are passed over, after which None is said."""


class Folder(NamedTuple):
    """Where messages are: from `home` on, which is trusted, by these names."""

    home: str
    names: tuple[str, ...] = ()

    @property
    def path(self) -> str:
        """For the log."""
        return "/".join((self.home, *self.names))

    @property
    def key(self) -> int:
        """What it is called in an index."""
        return _key(self.path)


class Letter(NamedTuple):
    """A message that was found."""

    key: int
    raw: bytes | None
    """None: it is known."""
    changed: int = 0
    """When its file was last changed, in seconds since the epoch."""
    end: int = 0
    """How far one has come with it: bytes of an mbox, entries of directories."""


class Version(NamedTuple):
    """What changes with a folder."""

    inode: int = 0
    changed: tuple[int, ...] = ()
    """Nanoseconds since the epoch."""
    size: int = 0
    """mbox: its bytes; a directory has none."""


class Opened:
    """A folder that is open: a context."""

    def __init__(self, folder: Folder) -> None:
        """Raises OSError; FileNotFoundError when it is not there."""
        self._folder = folder
        with ExitStack() as stack:
            here = os.open(folder.home, _FOLDER)
            stack.callback(os.close, here)
            for name in folder.names:
                here = os.open(name, _BELOW, dir_fd=here)
                stack.callback(os.close, here)
            self._fd = here
            self._parts = {name: fd for name in _PARTS if (fd := _part(here, name)) is not None}
            for fd in self._parts.values():
                stack.callback(os.close, fd)
            self._stack = stack.pop_all()

    def __enter__(self) -> Opened:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def version(self) -> Version:
        """As it is now. Raises OSError for what is no folder."""
        about = os.fstat(self._fd)
        if stat.S_ISREG(about.st_mode):
            return Version(about.st_ino, (about.st_mtime_ns,), about.st_size)
        if not stat.S_ISDIR(about.st_mode):
            raise OSError(errno.EPERM, "neither a file nor a directory", self._folder.path)
        directories = self._parts.values() or [self._fd]
        return Version(about.st_ino, tuple(os.fstat(fd).st_mtime_ns for fd in directories))

    @property
    def is_mbox(self) -> bool:
        """It is a file."""
        return stat.S_ISREG(os.fstat(self._fd).st_mode)

    def begins_at(self, offset: int) -> int:
        """Where to go on in an mbox that was read until there: 0 if it is no longer the same."""
        if offset == os.fstat(self._fd).st_size:
            return offset
        return offset if offset and os.pread(self._fd, 6, offset - 1) == b"\nFrom " else 0

    def letters(self, known: Container[int], most: int, start: int = 0) -> Iterator[Letter | None]:
        """All messages, of each at most so many bytes; those that are known are not read.

        `start` passes over what was seen: bytes of an mbox, entries of directories. Raises OSError.
        """
        place = self._folder.key
        if self.is_mbox:
            yield from _mbox(os.dup(self._fd), place, start, known, most)
            return
        entries = enumerate(_entries(self._parts.values() or [self._fd]), 1)
        for number, (directory, entry) in entries:
            if number > start and _is_message(entry):
                name = entry.name.partition(":")[0] if self._parts else entry.name
                key = _key(f"{place} {name}")
                yield Letter(key, *_read(directory, entry.name, key, known, most), number)
            elif number > start or number % _LINES == 0:
                yield None


def _part(parent: int, name: str) -> int | None:
    with suppress(FileNotFoundError, NotADirectoryError):
        return os.open(name, _BELOW | os.O_DIRECTORY, dir_fd=parent)
    return None


def _key(text: str) -> int:
    """63 bits, as SQLite holds them."""
    return int.from_bytes(blake2b(os.fsencode(text), digest_size=8).digest(), "big") >> 1


def _entries(directories: Iterable[int]) -> Iterator[tuple[int, os.DirEntry[str]]]:
    for directory in directories:
        with os.scandir(directory) as entries:
            for entry in entries:
                yield directory, entry


def _is_message(entry: os.DirEntry[str]) -> bool:
    return not entry.name.startswith(".") and entry.is_file(follow_symlinks=False)


def _read(
    directory: int, name: str, key: int, known: Container[int], most: int
) -> tuple[bytes | None, int]:
    """The beginning of a file, and when it changed; nothing of what is known or was moved: there
    it is found again."""
    if key in known:
        return None, 0
    try:
        file = os.open(name, _BELOW, dir_fd=directory)
    except FileNotFoundError:
        return None, 0
    except PermissionError:
        return b"", 0
    with open(file, "rb", buffering=0) as opened:
        about = os.fstat(file)
        raw = opened.read(most) if stat.S_ISREG(about.st_mode) else b""
        return raw or b"", int(about.st_mtime)


def _mbox(
    fd: int, place: int, start: int, known: Container[int], most: int
) -> Iterator[Letter | None]:
    with open(fd, "rb") as file:
        changed = int(os.fstat(fd).st_mtime)
        begin = at = file.seek(start)
        raw, size, lines, empty = list[bytes](), 0, 0, True
        while line := file.readline(_LINE):
            if empty and line.startswith(b"From ") and at > begin:
                yield _of_mbox(place, begin, at, b"".join(raw), known, changed)
                begin, raw, size = at, [], 0
            if size < most:
                raw.append(line)
                size += len(line)
            at += len(line)
            lines += 1
            empty = line in (b"\n", b"\r\n")
            if lines % _LINES == 0:
                yield None
        if raw:
            yield _of_mbox(place, begin, at, b"".join(raw), known, changed)


def _of_mbox(
    place: int, begin: int, end: int, raw: bytes, known: Container[int], changed: int
) -> Letter:
    key = _key(f"{place} {begin} {raw[:100]!r}")
    return Letter(key, None if key in known else raw, changed, end)
