"""Scanners of Debian for tests: started by hand in a folder of their own, ended as a group.

Whoever wants another port or file than the system's says so in the command.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from mdaflow import Message

START = 60.0
"""Seconds in which a daemon has to be there."""
END = 10.0
"""Seconds in which it has to end when it is asked to."""
_GTUBE = "XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X"
_LETTER = """\
From: Ann <ann@example.com>
To: Bob <bob@example.org>
Subject: Lunch on Friday?
Message-ID: <1a2b3c4d5e6f@mail.example.com>
Date: Fri, 20 Nov 2026 12:00:00 +0000

Hello Bob,

shall we have lunch together on Friday, as we did last week?
{}
Ann
"""
CLEAN = Message(_LETTER.format("").encode())
SPAM = Message(_LETTER.format(_GTUBE).encode())
"""A message that every spam filter calls spam (GTUBE)."""


class Daemon:
    """A daemon and all processes that it has made."""

    def __init__(self, command: Sequence[str], folder: Path) -> None:
        self._out = folder / "out"
        with self._out.open("wb") as out:
            self._process = subprocess.Popen(
                command, cwd=folder, stdout=out, stderr=out, start_new_session=True
            )

    def wait_for(self, there: Callable[[], object]) -> None:
        """Wait until it is there."""
        until = time.monotonic() + START
        while not there():
            assert self._process.poll() is None, self._out.read_text()
            assert time.monotonic() < until, self._out.read_text()
            time.sleep(0.02)

    def freeze(self) -> None:
        """They stand still."""
        os.killpg(self._process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """They go on."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGCONT)

    def end(self) -> None:
        """End them; the first one waits for those that it has made."""
        self.thaw()
        self._process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(END)
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


@contextmanager
def running(command: Sequence[str], folder: Path) -> Iterator[Daemon]:
    """A daemon for as long as that lasts."""
    daemon = Daemon(command, folder)
    try:
        yield daemon
    finally:
        daemon.end()
