"""What two processes of ours say to each other over a stream socket: values, bytes and files.

A frame is a JSON value with a piece of raw bytes behind it, and perhaps descriptors (unix(7),
SCM_RIGHTS). Nothing that comes is believed to be more than that: each side checks what it uses.
Texts may hold what is no UTF-8 (surrogates), as addresses do.
"""

from __future__ import annotations

import array
import fcntl
import json
import math
import mmap
import os
import socket
import struct
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from mdaflow.engine.plan import Unanswerable
from mdaflow.errors import MailError, PermFail, Status, TempFail

MAX_VALUE = 4 << 20
"""Bytes of a value as JSON."""
MAX_RAW = 4 << 20
"""Bytes behind a value; what is larger goes in a file."""
MAX_FILE = 4 << 30
"""Bytes of a file that comes with a frame."""
MAX_FILES = 2
"""Descriptors with a frame."""

_BITS = 63
"""Of a whole number."""
_HEAD = struct.Struct("II")
_ROOM = socket.CMSG_SPACE(MAX_FILES * 4)
_PIECE, _MOST = 64 << 10, 1 << 20  # bytes of one read
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_WRITE


class Nonsense(ConnectionError):
    """The other side has said what it must not, or what nobody understands."""


class Frame(NamedTuple):
    """What came; whoever takes it closes the files."""

    value: Any
    raw: bytes
    files: tuple[int, ...]


class Frames:
    """One end of a conversation. All calls raise OSError: ConnectionError when the other side is
    gone, Nonsense when it has said what is no frame."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock

    def send(self, value: Any, raw: bytes = b"", files: Sequence[int] = ()) -> None:
        """Say something. Raises also TimeoutError, when a time limit was set on the socket."""
        text = json.dumps(value).encode()
        if len(text) > MAX_VALUE or len(raw) > MAX_RAW:
            raise Nonsense("too much to say")
        whole = memoryview(_HEAD.pack(len(text), len(raw)) + text + raw)
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", files))] if files else []
        done = self.socket.sendmsg([whole], rights, socket.MSG_NOSIGNAL)
        if done < len(whole):
            self.socket.sendall(whole[done:], socket.MSG_NOSIGNAL)

    def receive(self, seconds: float | None = None) -> Frame:
        """What the other side says next, within so many seconds. Raises TimeoutError."""
        end = None if seconds is None else time.monotonic() + seconds
        files: list[int] = []
        try:
            found = self._read(_HEAD.size, end, files)
            lengths = _HEAD.unpack_from(found)
            if lengths[0] > MAX_VALUE or lengths[1] > MAX_RAW:
                raise Nonsense("no frame of ours")
            size = _HEAD.size + sum(lengths)
            found += self._read(size - len(found), end, files)
            if len(found) != size:  # each side waits for an answer before it goes on
                raise Nonsense("no frame of ours")
            at = _HEAD.size + lengths[0]
            return Frame(json.loads(found[_HEAD.size : at]), found[at:], tuple(files))
        except BaseException as error:
            for file in files:
                os.close(file)
            if isinstance(error, ValueError | RecursionError):
                raise Nonsense("no frame of ours") from error
            raise

    def _read(self, size: int, end: float | None, files: list[int]) -> bytes:
        """So many bytes, or more if they are there already. Raises OSError."""
        found = b""
        while len(found) < size:
            if end is not None:
                self.socket.settimeout(max(end - time.monotonic(), 0.001))
            room = max(_PIECE, min(size - len(found), _MOST))
            more, rights, _, _ = self.socket.recvmsg(room, _ROOM, socket.MSG_CMSG_CLOEXEC)
            files += _files(rights)
            if len(files) > MAX_FILES:
                raise Nonsense("no frame of ours")
            if not more:
                raise ConnectionError("the other side is gone")
            found += more
        return found

    @property
    def gone(self) -> bool:
        """The other side is gone, or has said something unasked."""
        self.socket.setblocking(False)
        try:
            self.socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True
        finally:
            self.socket.settimeout(None)
        return True

    def close(self) -> None:
        """Leave."""
        self.socket.close()


def _files(rights: Sequence[tuple[int, int, bytes]]) -> list[int]:
    found = array.array("i")
    for level, kind, data in rights:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            found.frombytes(data[: len(data) - len(data) % found.itemsize])
    return list(found)


# --- what is in frames -------------------------------------------------------------------------


def fits(value: object, form: Any) -> bool:
    """Whether a value has a form: a type, `[form]` for a list of any length, a tuple of forms for
    a list of as many."""
    match form, value:
        case [each], list() if isinstance(form, list):
            return all(fits(one, each) for one in value)
        case tuple(), list():
            return len(value) == len(form) and all(map(fits, value, form))
        case ((list() | tuple()), _):
            return False
    if isinstance(value, float) and not math.isfinite(value):  # JSON has 1e999
        return False
    if isinstance(value, int) and value.bit_length() > _BITS:
        return False
    return isinstance(value, form) and not (isinstance(value, bool) and form is not bool)


def answer_of(act: Callable[[], object]) -> list[object]:
    """What a call returns or raises, to be said to whoever asked; `result` makes it that again."""
    try:
        return ["ok", act()]
    except MailError as error:
        status = error.status
        return ["mail", status.code, status.enhanced, status.text, str(error), list(error.done)]
    except Unanswerable as error:
        return ["unanswerable", str(error)]
    except Nonsense:
        raise
    except OSError as error:
        return ["os", error.errno or 0, error.strerror or str(error)]


def result(answer: Any) -> Any:
    """What `answer_of` was given. Raises what that has raised."""
    match answer:
        case ["ok", value]:
            return value
        case ["mail", int(code), str(enhanced), str(text), str(cause), list(done)]:
            status = Status(code, enhanced, text)
            raise (TempFail if status.temporary else PermFail)(status, cause, tuple(done))
        case ["unanswerable", str(text)]:
            raise Unanswerable(text)
        case ["os", int(code), str(text)]:
            raise OSError(code, text)
    raise Nonsense("no words of ours")


def received_raw(frame: Frame, *, sealed: bool, most: int = MAX_FILE) -> bytes | mmap.mmap:
    """The bytes of a message: those behind the value, or a mapping of the file that came.

    `sealed`: nobody can change or cut it any more, or it is not taken. Raises OSError, also when
    it has more than `most` bytes.
    """
    if not frame.files:
        return frame.raw
    [file, *_] = frame.files
    size = os.fstat(file).st_size
    if size > most:
        raise Nonsense("a file that is too large")
    if sealed and fcntl.fcntl(file, fcntl.F_GET_SEALS) & _SEALS != _SEALS:
        raise Nonsense("a file that may change")
    return mmap.mmap(file, size, prot=mmap.PROT_READ) if size else b""


def sealed_file(chunks: Sequence[bytes | memoryview]) -> int:
    """A descriptor of a file in memory that nobody can change. Raises OSError."""
    file = os.memfd_create("mdaflow", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        for chunk in chunks:
            view = memoryview(chunk)
            while view:
                view = view[os.write(file, view) :]
        fcntl.fcntl(file, fcntl.F_ADD_SEALS, _SEALS | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
        os.lseek(file, 0, os.SEEK_SET)
    except BaseException:
        os.close(file)
        raise
    return file
