"""A real clamd for tests, whose only signature is that of the EICAR test file.

It runs from a copy: the profile that Debian gives to AppArmor allows /usr/sbin/clamd no files of
ours.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType

from need import need

EICAR = bytes.fromhex(  # https://www.eicar.org: only like this, or this file would be a find
    "58354f2150254041505b345c505a58353428505e2937434329377d2445494341522d5354414e"
    "444152442d414e544956495255532d544553542d46494c452124482b482a"
)
VIRUS = "Mdaflow.Test.EICAR.UNOFFICIAL"
"""What clamd calls it: UNOFFICIAL is whatever ClamAV has not signed."""

CONFIG = """\
Foreground yes
LocalSocket {folder}/socket
TCPSocket {port}
TCPAddr 127.0.0.1
DatabaseDirectory {folder}/database
TemporaryDirectory {folder}
LogFile {folder}/log
LocalSocketMode 666
SelfCheck 0
"""
OPTIONS = {"MaxThreads": "2", "StreamMaxLength": "25M", "AlertExceedsMax": "yes"}
START = 30.0
"""Seconds in which it has to answer."""


class ClamdServer:
    """`with ClamdServer(MaxQueue=4) as server:`, where options are those of clamd.conf."""

    def __init__(self, **options: object) -> None:
        self._program = need("clamd")
        self._folder = tempfile.TemporaryDirectory(prefix="clamd")  # a socket's path is short
        self._path = Path(self._folder.name)
        self._options = {**OPTIONS, **options}
        self._process: subprocess.Popen[bytes] | None = None
        self.socket = str(self._path / "socket")
        self.address = f"unix:{self.socket}"
        self.tcp = ""
        """The same server's `host:port`; another one after each start."""

    def __enter__(self) -> ClamdServer:
        self._path.chmod(0o755)  # whoever scans is not always who has started it
        (self._path / "database").mkdir(mode=0o700)
        signature = f"Mdaflow.Test.EICAR:0:*:{EICAR.hex()}\n"
        (self._path / "database" / "test.ndb").write_text(signature)
        shutil.copy(self._program, self._path / "clamd")
        try:
            self.start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()
        self._folder.cleanup()

    @property
    def pid(self) -> int:
        """Of the process that runs."""
        assert self._process
        return self._process.pid

    def start(self) -> None:
        """Start it, and wait until it answers."""
        until = time.monotonic() + START
        self._launch()
        while not self._answers():
            if self._process is None or self._process.poll() is not None:
                self._launch()  # somebody else had the port
            assert time.monotonic() < until, f"clamd does not answer: {self._log()}"
            time.sleep(0.02)

    def stop(self) -> None:
        """End it, as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """It stands still."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """It goes on."""
        os.kill(self.pid, signal.SIGCONT)

    def _launch(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self.tcp = f"127.0.0.1:{port}"
        lines = CONFIG.format(folder=self._path, port=port)
        lines += "".join(f"{name} {value}\n" for name, value in self._options.items())
        (self._path / "clamd.conf").write_text(lines)
        with open(self._path / "said", "ab") as said:
            self._process = subprocess.Popen(
                [self._path / "clamd", "-c", self._path / "clamd.conf"],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
            )

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as line:
            line.settimeout(START)
            line.connect(self.socket)
            line.sendall(b"nPING\n")
            return line.recv(5) == b"PONG\n"
        return False

    def _log(self) -> str:
        return "".join(
            (self._path / name).read_text(errors="replace")
            for name in ("said", "log")
            if (self._path / name).exists()
        )
