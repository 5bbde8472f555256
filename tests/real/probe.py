"""A program for rules: it writes what it is and has to a file NAME.json in its folder.

    probe.py NAME [filter | exit CODE | kill PID | flood | sleep]

`kill` ends its parent when PID is `parent`.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

LIMITS = ("RLIMIT_CORE", "RLIMIT_NOFILE", "RLIMIT_AS", "RLIMIT_CPU")
FLOOD = 10 << 20
"""Bytes on standard output, and on standard error."""


def descriptors() -> list[int]:
    """Those that are open."""
    found = []
    for fd in range(1024):
        with suppress(OSError):
            os.fstat(fd)
            found.append(fd)
    return found


def limits() -> dict[str, tuple[int, int]]:
    """Once they are set: that is done when the program has begun already."""
    end = time.monotonic() + 10
    while resource.getrlimit(resource.RLIMIT_CPU)[0] < 0 and time.monotonic() < end:
        time.sleep(0.001)
    return {name: resource.getrlimit(getattr(resource, name)) for name in LIMITS}


def about() -> dict[str, Any]:
    """All there is to say."""
    umask = os.umask(0o077)
    os.umask(umask)
    return {
        "descriptors": descriptors(),
        "status": Path("/proc/self/status").read_text(),
        "environment": Path("/proc/self/environ").read_bytes().decode().split("\0")[:-1],
        "folder": os.getcwd(),
        "umask": umask,
        "leads": os.getsid(0) == os.getpgid(0) == os.getpid(),
        "limits": limits(),
        "parent": os.getppid(),
        "pid": os.getpid(),
    }


def echo(content: bytes) -> None:
    """Give the message back."""
    sys.stdout.buffer.write(content)


def flood(content: bytes) -> None:
    """Say more than a pipe holds, at both ends."""
    for stream in (sys.stdout.buffer, sys.stderr.buffer):
        stream.write(b"x" * (FLOOD - 1) + b"\n")
        stream.flush()


def leave(content: bytes) -> None:
    """End with a code."""
    sys.exit(int(sys.argv[3]))


def kill(content: bytes) -> None:
    """Kill ourselves, or the parent."""
    os.kill(os.getppid() if sys.argv[3] == "parent" else os.getpid(), signal.SIGKILL)


def sleep(content: bytes) -> None:
    """Have a child that sleeps, too."""
    if os.fork() == 0:
        Path("child").write_text(str(os.getpid()))
    time.sleep(1000)


ACTS: dict[str, Callable[[bytes], None]] = {
    "filter": echo, "flood": flood, "exit": leave, "kill": kill, "sleep": sleep,
}  # fmt: skip


def main() -> None:
    found = about()
    content = sys.stdin.buffer.read()
    found["size"] = len(content)
    fresh = Path(f"{sys.argv[1]}.new")
    fresh.write_text(json.dumps(found))
    fresh.rename(f"{sys.argv[1]}.json")
    if len(sys.argv) > 2:
        ACTS[sys.argv[2]](content)


if __name__ == "__main__":
    main()
