"""Run a program by its arguments, never by a shell (P25, P26).

It has the descriptors 0, 1 and 2, a clean environment, umask 077, a session and a process group
of its own, and limits (setrlimit(2)). The group is killed at the time limit, and also when the
program has ended: nothing it started in the background stays.

Known limits: a process that leaves the group (setsid) is not killed. The limits are set by
prlimit(2) when the program has just begun, since a process with threads may run nothing between
fork and exec; one that is set-uid is another user's and keeps ours.
"""

from __future__ import annotations

import errno
import os
import re
import resource
import signal
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import IO, TYPE_CHECKING, NamedTuple

from mdaflow.engine.plan import one_line
from mdaflow.errors import INTERNAL, TempFail
from mdaflow.mail.address import split_local
from mdaflow.mail.envelope import Envelope
from mdaflow.mail.raw import pieces

from .mailbox import Chunk

if TYPE_CHECKING:  # 15 ms that `mdaflow test` has no use for
    from selectors import SelectorKey
    from subprocess import Popen

PATH = "/usr/local/bin:/usr/bin:/bin"
UNAVAILABLE = 69
"""EX_UNAVAILABLE: the program cannot be started."""
FAILED = 75
"""EX_TEMPFAIL: we have ended the program."""
MAX_ERRORS = 4096
"""Bytes of standard error that are kept, the last ones."""

_MOST_ERRORS = 16 << 20  # bytes: who complains longer than this never ends
_MACHINE = (errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.ENOMEM)
_LIMITS = {
    resource.RLIMIT_CORE: 0,
    resource.RLIMIT_NOFILE: 256,
    resource.RLIMIT_AS: 4 << 30,  # interpreters reserve much more than they use
}
_PIECE = 64 << 10  # bytes of one read
_SHORTEST, _LONGEST = 0.001, 0.05  # seconds between two looks at a quiet program
_STUCK = 5.0  # seconds to wait for a killed program: one that waits for a dead disk stays

# Postfix's command_expansion_filter: what no shell can mistake for anything but a word.
_UNSAFE = re.compile(r"[^A-Za-z0-9!@%_=+:,./-]")


MAX_COMPLAINT = 200
"""Characters of a complaint in our log."""


class Ended(NamedTuple):
    """How a program ended."""

    code: int
    """Its exit code, 128 + N for signal N, UNAVAILABLE or FAILED; 0 is success and nothing else."""
    output: bytes
    """Its whole standard output; empty when there is a `reason`."""
    errors: str
    """The end of its standard error."""
    reason: str
    """Why there is no exit code of its own; empty when there is one."""

    @property
    def complaint(self) -> str:
        """The first line of what is kept of its standard error, for our log."""
        return one_line(self.errors.lstrip().partition("\n")[0])[:MAX_COMPLAINT]


def find(name: str) -> str:
    """The path of a program: `name` when that is absolute, else from PATH; empty if not there."""
    folders = ("",) if name.startswith("/") else () if "/" in name else PATH.split(":")
    paths = (os.path.join(folder, name) for folder in folders)
    return next((p for p in paths if os.path.isfile(p) and os.access(p, os.X_OK)), "")


def clean_environment(
    envelope: Envelope, home: str, delimiters: str = "+", whose: str = ""
) -> dict[str, str]:
    """All the variables of a program, named as Postfix's local(8) names them.

    `whose` is the address of the user who was found, whose local part is the login; empty when
    nobody looked. What came from outside has `_` for every character that a shell could take for
    more than a part of a word. Of our own environment only TZ is passed on.
    """
    e = envelope
    local, at, domain = e.recipient.rpartition("@")
    local, domain = (local, domain) if at else (domain, "")
    user, extension = split_local(local, delimiters)
    if login := whose.rpartition("@")[0]:
        known = local[: len(login)].lower() == login.lower()  # a delimiter may be part of it
        user, extension = login, local[len(login) + 1 :] if known else extension
    outside = {
        "USER": user,
        "LOGNAME": user,
        "LOCAL": local,
        "EXTENSION": extension,
        "DOMAIN": domain,
        "SENDER": e.sender,
        "RECIPIENT": e.recipient,
        "ORIGINAL_RECIPIENT": e.original or e.recipient,
        "CLIENT_ADDRESS": e.client.ip,
        "CLIENT_HOSTNAME": e.client.name,
        "CLIENT_HELO": e.client.helo,
    }
    ours = {"PATH": PATH, "HOME": home, "SHELL": "/bin/sh", "LANG": "C.UTF-8"}
    zone = {name: os.environ[name] for name in ("TZ",) if name in os.environ}
    return ours | zone | {name: _UNSAFE.sub("_", value) for name, value in outside.items()}


def run_program(
    argv: Sequence[str],
    feed: Iterable[Chunk],
    *,
    seconds: float,
    environment: Mapping[str, str],
    directory: str,
    output_limit: int = 0,
) -> Ended:
    """Run a program to its end, with `feed` as its standard input; how it ended.

    `seconds` is its time limit. `output_limit` is the most bytes of standard output; 0 means
    that nobody wants any, and it goes to /dev/null. The program need not read its input.

    Raises TempFail when the machine has no room for one more process, and what `feed` raises.
    """
    try:
        child = _start(argv, environment, directory, bool(output_limit))
    except (OSError, ValueError) as error:  # ValueError: an argument with a NUL
        if isinstance(error, OSError) and error.errno in _MACHINE:
            raise TempFail(INTERNAL, f"cannot start a program: {error.strerror}") from error
        return Ended(UNAVAILABLE, b"", "", f"cannot start the program: {error}")
    until = time.monotonic() + seconds
    output, errors = _Kept(output_limit, output_limit), _Kept(MAX_ERRORS, _MOST_ERRORS)
    try:
        _limit(child.pid, seconds)
        code = _converse(child, _Feed(feed), output, errors, until)
    except ChildProcessError as error:
        raise TempFail(INTERNAL, "the program's exit code was lost") from error
    finally:
        _end(child)
        _close(child, output, errors)
    code, reason = _judge(code, output, errors, seconds)
    said = errors.data.decode("utf-8", "replace")
    return Ended(code, b"" if reason else bytes(output.data), said, reason)


def _start(
    argv: Sequence[str], environment: Mapping[str, str], directory: str, wanted: bool
) -> Popen[bytes]:
    """The program, running. Raises OSError, ValueError."""
    from subprocess import DEVNULL, PIPE, Popen

    name = argv[0] if argv else ""
    path = find(name)
    if not path:
        raise FileNotFoundError(errno.ENOENT, "there is no such program", name)
    return Popen(  # noqa: S603 - arguments, no shell
        argv,
        bufsize=0,
        executable=path,
        stdin=PIPE,
        stdout=PIPE if wanted else DEVNULL,
        stderr=PIPE,
        cwd=directory,
        env=environment,
        umask=0o077,
        start_new_session=True,
    )


def _limit(pid: int, seconds: float) -> None:
    """Limit what a process and its children may use, never to more than is allowed now."""
    limits = _LIMITS | {resource.RLIMIT_CPU: max(1, round(seconds))}
    with suppress(PermissionError, ProcessLookupError):  # it is set-uid, or over already
        for what, most in limits.items():
            _, hard = resource.prlimit(pid, what)
            most = most if hard == resource.RLIM_INFINITY else min(most, hard)
            resource.prlimit(pid, what, (most, most))


class _Feed:
    """Standard input: chunks, written as the program takes them."""

    def __init__(self, chunks: Iterable[Chunk]) -> None:
        self._pieces = pieces(chunks)
        self._rest = memoryview(b"")

    def move(self, fd: int) -> bool:
        """Write what can be written now; whether there may be more. Raises BlockingIOError."""
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return False
            self._rest = piece
        try:
            self._rest = self._rest[os.write(fd, self._rest) :]
        except BrokenPipeError:
            return False
        return True


class _Kept:
    """Standard output or error: its last `keep` bytes. More than `most` are too many."""

    def __init__(self, keep: int, most: int) -> None:
        self.data = bytearray()
        self.most = most
        self._keep = keep
        self._size = 0

    @property
    def over(self) -> bool:
        """It is too much."""
        return self._size > self.most

    def move(self, fd: int) -> bool:
        """Read what can be read now; whether there may be more. Raises BlockingIOError."""
        piece = os.read(fd, _PIECE)
        self._size += len(piece)
        self.data += piece
        del self.data[: -self._keep]
        return bool(piece)


def _converse(
    child: Popen[bytes], feed: _Feed, output: _Kept, errors: _Kept, until: float
) -> int | None:
    """Feed a program and hear it to its end; its exit code, or None when it is to be ended."""
    from selectors import EVENT_READ, EVENT_WRITE, PollSelector

    events = (EVENT_WRITE, EVENT_READ, EVENT_READ)
    with PollSelector() as waiting:
        for end, mover, event in zip(_ends(child), (feed, output, errors), events, strict=True):
            if end is not None:
                os.set_blocking(end.fileno(), False)
                waiting.register(end, event, mover)
        pause = _SHORTEST
        while (code := _exit_code(child.pid)) is None:
            left = until - time.monotonic()
            if left <= 0 or output.over or errors.over:
                return None
            ready = waiting.select(min(left, pause))
            pause = _SHORTEST if ready else min(2 * pause, _LONGEST)
            for key, _ in ready:
                if not _move(key):
                    waiting.unregister(key.fileobj)
                    key.fileobj.close()  # type: ignore[union-attr]
    return code


def _move(key: SelectorKey) -> bool:
    try:
        return bool(key.data.move(key.fd))
    except BlockingIOError:
        return True


def _ends(child: Popen[bytes]) -> tuple[IO[bytes] | None, ...]:
    return child.stdin, child.stdout, child.stderr


def _exit_code(pid: int) -> int | None:
    """The exit code of a child, -N for signal N; None while it runs.

    It stays a zombie: its process group cannot become another's before it is killed. Raises
    ChildProcessError where Popen would say 0: a lost exit code is no success.
    """
    found = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    if found is None:
        return None
    return found.si_status if found.si_code == os.CLD_EXITED else -found.si_status


def _end(child: Popen[bytes]) -> None:
    """Kill the process group: a program that is to end, or what it has left behind."""
    from subprocess import TimeoutExpired

    with suppress(OSError):
        os.killpg(child.pid, signal.SIGKILL)
    with suppress(TimeoutExpired):  # Popen will look after it when the next program is started
        child.wait(_STUCK)


def _close(child: Popen[bytes], output: _Kept, errors: _Kept) -> None:
    """Read what is still in the pipes, waiting for nobody, and close them."""
    for end, kept in zip(_ends(child)[1:], (output, errors), strict=True):
        with suppress(BlockingIOError):
            while end is not None and not end.closed and not kept.over and kept.move(end.fileno()):
                pass
    for end in filter(None, _ends(child)):
        end.close()


def _judge(code: int | None, output: _Kept, errors: _Kept, seconds: float) -> tuple[int, str]:
    """The code of `Ended`, and its reason."""
    for kept in (output, errors):
        if kept.over:
            return FAILED, f"it wrote more than {kept.most:,} bytes"
    if code is None:
        return FAILED, f"it ran longer than {seconds:g} seconds"
    return (128 - code, f"it was killed by signal {-code}") if code < 0 else (code, "")
