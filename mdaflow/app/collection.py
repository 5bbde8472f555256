"""Messages that lie somewhere: in files, folders of files, Maildirs and mbox files.

Whoever can write there can put anything there: what is no regular file is passed over, no link is
followed but one that the caller names, nothing is waited for, and of a message 8 MiB are read.
Memory is bounded by that and by the names in one folder. A file that goes away meanwhile, as a
message that is read by its user does, is none.

Root reads by another process, as the one to whom the files belong (`collect_aside`), and what is
root's own only where nobody else could have put it.

Known limit: a message in an mbox ends before any line that begins with `From ` behind an empty one.
"""

from __future__ import annotations

import errno
import json
import os
import stat
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import BinaryIO, NamedTuple

from mdaflow.mail.message import Message

MAX_MESSAGE = 8 << 20
"""Bytes that are read of a message."""
DEEPEST = 16
"""Folders in folders."""
STDIN = "-"
BROKEN_OFF = "who reads the messages has broken off"

_LINE = 64 << 10
_OPEN = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
_MOST = MAX_MESSAGE + 2 * _LINE
_SKIPPED = "tmp"  # of a Maildir: messages that are not there yet


class Found(NamedTuple):
    """A message, or why a file could not be read."""

    path: str
    message: Message | None
    bytes: int = 0
    """Of the file that were read for it."""
    trouble: str = ""


def collect(paths: Iterable[str]) -> Iterator[Found]:
    """The messages in files and folders; `-` is standard input. Raises nothing of a file's."""
    for path in paths:
        for file in [path] if path == STDIN else files(path):
            yield from _read(file, named=file == path)


def collect_aside(paths: Sequence[str]) -> Iterator[Found]:
    """As `collect`, for root: to be called before root is given up, and read from afterwards."""
    source, target = os.pipe()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()  # or the child writes it, too
    pid = os.fork()
    if pid == 0:
        code = os.EX_SOFTWARE
        try:
            os.close(source)
            _send(paths, target)
            code = os.EX_OK
        finally:
            os._exit(code)
    os.close(target)
    return _received(source, pid)


def _send(paths: Sequence[str], target: int) -> None:
    from .aside import step_aside

    with open(target, "wb") as pipe:
        try:
            step_aside(path for path in paths if path != STDIN)
            found = collect(paths)
        except OSError as error:
            found = iter([Found(", ".join(paths)[:4096], None, 0, str(error.strerror))])
        for path, message, size, trouble in found:
            raw = message.raw[:] if message else None
            about = path, size, trouble, None if raw is None else len(raw)
            pipe.write(json.dumps(about).encode() + b"\n" + (raw or b""))


def _received(source: int, pid: int) -> Iterator[Found]:
    try:
        with open(source, "rb") as pipe:
            while about := pipe.readline(_LINE):
                path, size, trouble, length = json.loads(about)
                message = None if length is None else Message(pipe.read(min(length, _MOST)))
                yield Found(path, message, size, trouble)
    except ValueError as error:
        raise OSError(errno.EIO, BROKEN_OFF) from error
    finally:
        _, ended = os.waitpid(pid, 0)
    if ended:  # whose files they are can kill it
        raise OSError(errno.EIO, BROKEN_OFF)


def files(path: str, depth: int = 0) -> Iterator[str]:
    """The file at a path, or all below it that may be messages: of a Maildir what is in `new/`
    and `cur/` of it and of its folders, of another folder all that are not hidden."""
    try:
        inside = os.scandir(path)
    except OSError as error:
        if error.errno != errno.ENOENT or depth == 0:
            yield path  # no folder, or whoever opens it is told
        return
    with inside:
        entries = sorted(inside, key=lambda entry: entry.name)
    kinds = {entry.name for entry in entries if entry.is_dir(follow_symlinks=False)}
    maildir = not kinds.isdisjoint(("new", "cur"))
    for entry in entries:
        if entry.name in kinds:
            if _of_others(entry):
                yield entry.path
                continue
            below = depth < DEEPEST and not (maildir and entry.name == _SKIPPED)
            yield from files(entry.path, depth + 1) if below else ()
        elif not maildir and not entry.name.startswith("."):
            yield entry.path


def _of_others(entry: os.DirEntry[str]) -> bool:
    """We are root, and somebody else could put links there."""
    return os.geteuid() == 0 and entry.stat(follow_symlinks=False).st_uid != 0


def size_of(paths: Iterable[str]) -> int:
    """Bytes of all files, for who waits."""
    size = 0
    for path in paths:
        for file in files(path):
            with suppress(OSError):
                size += os.lstat(file).st_size
    return size


def _read(path: str, *, named: bool) -> Iterator[Found]:
    try:
        with open(_opened(path, named=named), "rb") as file:
            yield from _messages(path, file)
    except FileNotFoundError as error:
        if named:
            yield Found(path, None, 0, str(error.strerror))
    except OSError as error:
        yield Found(path, None, 0, str(error.strerror))


def _opened(path: str, *, named: bool) -> int:
    """A descriptor of a regular file. Raises OSError."""
    if path == STDIN:
        return os.dup(0)
    file = os.open(path, _OPEN | (0 if named else os.O_NOFOLLOW))
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise OSError(errno.EINVAL, "Not a regular file", path)
    return file


def _messages(path: str, file: BinaryIO) -> Iterator[Found]:
    first = file.readline(_LINE)
    if first.startswith(b"From "):
        yield from _of_mbox(path, file, len(first))
        return
    raw = first + file.read(MAX_MESSAGE)
    message = Message.from_wire(raw)
    if message.header_end:
        yield Found(path, message, len(raw))
    else:
        yield Found(path, None, len(raw), "Not a message")


def _of_mbox(path: str, file: BinaryIO, read: int) -> Iterator[Found]:
    lines: list[bytes] = []
    size, blank = 0, False
    while line := file.readline(_LINE):
        read += len(line)
        if blank and line.startswith(b"From "):
            yield Found(path, Message.from_wire(b"".join(lines)), read)
            lines, size, read = [], 0, 0
        elif size < MAX_MESSAGE:
            lines.append(line)
            size += len(line)
        blank = line in (b"\n", b"\r\n")
    yield Found(path, Message.from_wire(b"".join(lines)), read)
