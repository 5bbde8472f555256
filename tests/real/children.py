"""Programs that a test starts, each in a session of its own: nothing of it may be left over."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

PATIENCE = 60.0
"""Seconds until a test gives up."""

T = TypeVar("T")


def until(found: Callable[[], T], what: str, instead: Callable[[], object] = str) -> T:
    """The first result that counts as true. When there is none, the test fails, and says what
    it waited for and what was there `instead`."""
    end = time.monotonic() + PATIENCE
    while not (result := found()):
        assert time.monotonic() < end, f"waited in vain for {what}; {instead()}"
        time.sleep(0.02)
    return result


def free_port() -> int:
    """A TCP port of the loopback interface that nobody has."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def accepts(port: int) -> bool:
    """Somebody listens there."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except OSError:
        return False
    return True


class Child:
    """A program and whatever it starts. What it says is in the file `said`."""

    def __init__(self, command: Sequence[str | Path], said: Path) -> None:
        self.said = said
        with said.open("ab") as output:
            self._process = subprocess.Popen(
                command,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self.pid = self._process.pid

    @property
    def running(self) -> bool:
        """It has not ended yet."""
        return self._process.poll() is None

    def wait_for(self, ready: Callable[[], object], what: str) -> None:
        """Wait until it is ready; the test fails when it ends before that."""
        until(lambda: not self.running or ready(), what)
        assert self.running, f"{what}: {self.said.read_text(errors='replace')}"

    def signal(self, number: int) -> None:
        """Send a signal to the program itself."""
        self._process.send_signal(number)

    def kill(self) -> None:
        """Kill it and all that it has started, at once."""
        for pid in (self.pid, *_session(self.pid)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait(PATIENCE)
        until(lambda: not _session(self.pid), "the end of its processes", self._others)

    def is_halted(self) -> bool:
        """All threads of all its processes are stopped by a signal."""
        return all(state == "T" for pid in _session(self.pid) for state in _states(pid))

    def stop(self) -> int:
        """End it; its exit code, negative for a signal. The test fails when something stays."""
        self._process.terminate()
        try:
            code = self._process.wait(PATIENCE)
            until(lambda: not _session(self.pid), "the end of its processes", self._others)
        except BaseException:
            for pid in _session(self.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._process.wait()
            raise
        return code

    def _others(self) -> list[bytes]:
        return [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in _session(self.pid)]


def _states(pid: int) -> list[str]:
    """The states of the threads of a process, a letter each (proc_pid_stat(5))."""
    stats = Path(f"/proc/{pid}/task").glob("*/stat")
    return [stat.read_text().rpartition(") ")[2][0] for stat in stats]


def _session(leader: int) -> list[int]:
    """The processes of a session that have not ended."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):  # it ends while we look
                state, *rest = (entry / "stat").read_text().rpartition(") ")[2].split()
                if state not in "ZX" and int(rest[2]) == leader:
                    found.append(int(entry.name))
    return found
