"""Processes for what a command of root has to do as somebody else: one for each task.

They are bounded in number and in time. One that fails or hangs does not stop the others: it is
killed when its time is over, and forgotten when the kernel does not let it end (a file server that
is away), and then there is one less at once.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import NamedTuple

LAST = 5.0
"""Seconds in which a process that was killed has to end."""
KILLED = -signal.SIGKILL
"""What became of a task that took too long, or was not begun because of those."""


class Task(NamedTuple):
    """Something to do, and what it is called. `act` returns an exit code and raises nothing."""

    name: str
    act: Callable[[], int]
    seconds: float = float("inf")
    """How long it may take."""


class _Running(NamedTuple):
    name: str
    pid: int
    until: float


def run_all(tasks: Iterable[Task], *, most: int = 1) -> Iterator[tuple[str, int]]:
    """The name and the exit code of each task, as they end; negative is a signal.

    `most` run at once. Raises OSError when there can be no process.
    """
    waiting, running = iter(tasks), dict[int, _Running]()
    while True:
        while len(running) < most and (task := next(waiting, None)) is not None:
            child = _start(task)
            running[os.pidfd_open(child.pid)] = child
        if not running:
            break
        for file in _ended(running):
            child = running.pop(file)
            os.close(file)
            code = _code(child.pid)
            most -= code is None
            yield child.name, KILLED if code is None else code
    yield from ((task.name, KILLED) for task in waiting)


def _start(task: Task) -> _Running:
    for stream in (sys.stdout, sys.stderr):
        stream.flush()  # or the child writes it, too
    pid = os.fork()
    if pid == 0:
        code = os.EX_SOFTWARE
        try:
            code = task.act()
        finally:
            os._exit(code)
    return _Running(task.name, pid, time.monotonic() + task.seconds)


def _ended(running: dict[int, _Running]) -> list[int]:
    """Those that have ended, or had to."""
    first = min(child.until for child in running.values())
    wait = None if first == float("inf") else max(first - time.monotonic(), 0.0)
    ended, _, _ = select.select(running, [], [], wait)
    late = [file for file in running if running[file].until <= time.monotonic()]
    for file in late:
        signal.pidfd_send_signal(file, signal.SIGKILL)
        select.select([file], [], [], LAST)
    return list({*ended, *late})


def _code(pid: int) -> int | None:
    """The exit code of a process that should have ended; None if it has not."""
    with suppress(ChildProcessError):
        ended, status = os.waitpid(pid, os.WNOHANG)
        return os.waitstatus_to_exitcode(status) if ended else None
    return os.EX_SOFTWARE
