"""A server with its master in a process of its own, and the script that process runs.

The settings are a JSON file that SIGHUP reads again: `lmtp` and `hostname` as in the
configuration, and `trouble`, which breaks a start. The courier writes each message to a file
of its own in the folder `spool`, and answers with its process id, user id and the host name.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mdaflow.app.config import Config, Lmtp
from mdaflow.app.inflight import InFlight
from mdaflow.errors import RECIPIENT_OK, TOO_SLOW, ConfigError, Status
from mdaflow.mail.envelope import Envelope
from mdaflow.mail.message import Message

USER = "nobody" if os.geteuid() == 0 else ""


class SpoolCourier:
    """Stores in `folder/spool`; `slow` waits for the file `go`.

    The rules of `dies` kill the worker, those of `hangs` hold its interpreter, those of `grows`
    keep 80 MiB; `waits` is at its rules until there is the file `go`.
    """

    def __init__(self, folder: Path, config: Config, inflight: InFlight) -> None:
        self._folder = folder
        self._inflight = inflight
        self._kept: list[bytearray] = []
        self._text = f"{os.getpid()} {os.getuid()} {config.hostname}"

    def check(self, recipient: str, *_: object) -> Status:
        return RECIPIENT_OK

    def whose(self, recipient: str) -> str:
        return recipient

    def unconfirmed(self, message: Message, envelope: Envelope) -> None:
        """Nothing: nobody counts what comes twice."""

    def deliver(self, message: Message, envelope: Envelope, fence: Callable[[], bool]) -> Status:
        with self._inflight.noted(message, envelope) as spare:
            if not spare:
                self._run_rules(envelope.recipient)
        if envelope.recipient.startswith("slow@"):
            (self._folder / "spool" / f"slow.{os.getpid()}").touch()
            while not (self._folder / "go").exists():
                time.sleep(0.01)
        if not fence():
            return TOO_SLOW
        handle, _ = tempfile.mkstemp(dir=self._folder / "spool", suffix=".mail")
        with open(handle, "wb") as file:
            file.write(message.raw)
        return Status(250, "2.0.0", self._text)

    def _run_rules(self, recipient: str) -> None:
        if recipient.startswith("dies@"):
            os.kill(os.getpid(), signal.SIGKILL)
        if recipient.startswith("hangs@"):
            (self._folder / "spool" / "slow.hang").touch()
            ctypes.PyDLL(None).sleep(60)
        if recipient.startswith("grows@"):
            self._kept.append(bytearray(b"x") * (80 << 20))
        if recipient.startswith("waits@"):
            (self._folder / "spool" / f"slow.{os.getpid()}").touch()
            while not (self._folder / "go").exists():
                time.sleep(0.01)


def script(folder: Path) -> int:
    """What the process does."""
    from mdaflow.serve import forks, master, worker

    logging.basicConfig(filename=folder / "log", format="%(levelname)s %(message)s", level="INFO")
    master.DRAIN = float(os.environ.get("DRAIN", "30"))
    master.HANG = float(os.environ.get("HANG", "120"))
    forks.START = float(os.environ.get("START", "30"))
    worker.BEAT = min(1.0, master.HANG / 40)

    def load() -> Config:
        settings = json.loads((folder / "settings").read_text())
        if settings["trouble"] == "config":
            raise ConfigError(("mdaflow.yaml:1:1: this is bad", "mdaflow.yaml:2:1: this, too"))
        limits = {"spool": "/tmp", "listen": tuple(settings["listen"]), "threads": 4}
        limits |= settings["lmtp"]
        return Config(hostname=settings["hostname"], user=settings["user"], lmtp=Lmtp(**limits))

    def make_courier(config: Config, inflight: InFlight, _: object) -> SpoolCourier:
        trouble = json.loads((folder / "settings").read_text())["trouble"]
        if trouble == "courier":
            raise ConfigError(("state: cannot be used",))
        if trouble == "bug":
            raise ZeroDivisionError("a bug")
        if trouble == "never":
            (folder / "spool" / f"never.{os.getpid()}").touch()
            time.sleep(600)
        return SpoolCourier(folder, config, inflight)

    return master.serve(load(), make_courier, load)


class Mastered:
    """The process as the tests see it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = str(folder / "lmtp")
        self.process: subprocess.Popen[bytes] | None = None
        self._notified = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notified.bind(str(folder / "notify"))
        self._notified.settimeout(20)
        self.settings: dict[str, Any] = {
            "listen": [f"unix:{self.path}"],
            "hostname": "one.example",
            "user": USER,
            "lmtp": {"workers": 2},
            "trouble": "",
        }

    def configure(self, **settings: Any) -> None:
        """Write the settings down."""
        self.settings |= settings
        (self.folder / "settings").write_text(json.dumps(self.settings))

    def spawn(self, *wrapper: str, **settings: Any) -> None:
        """Start the process, perhaps by way of a Python script."""
        self.configure(**settings)
        environment = os.environ | {
            "NOTIFY_SOCKET": str(self.folder / "notify"),
            "PYTHONPATH": os.pathsep.join(sys.path),
        }
        command = [sys.executable, *(wrapper or (__file__,)), str(self.folder)]
        self.process = subprocess.Popen(command, env=environment)

    def start(self, *wrapper: str, **settings: Any) -> None:
        """Start the process and wait until it serves."""
        self.spawn(*wrapper, **settings)
        assert self.said() == "READY=1"

    def said(self) -> str:
        """What systemd is told next."""
        return self._notified.recv(4096).decode()

    def kill(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def reload(self, **settings: Any) -> None:
        """SIGHUP, and wait until it was dealt with."""
        self.configure(**settings)
        self.kill(signal.SIGHUP)
        assert self.said().startswith("RELOADING=1\nMONOTONIC_USEC=")
        assert self.said() == "READY=1"

    def ended(self) -> int:
        """Wait for the end of the master; its exit code."""
        assert self.process is not None
        return self.process.wait(60)

    def workers(self) -> list[int]:
        """The process ids of its children."""
        assert self.process is not None
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in children.read_text().split()]

    def descriptors(self) -> int:
        """The number of descriptors of the master."""
        assert self.process is not None
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def stored(self) -> list[bytes]:
        return [file.read_bytes() for file in (self.folder / "spool").glob("*.mail")]

    def slow(self) -> bool:
        """Is a delivery to `slow` waiting?"""
        return any((self.folder / "spool").glob("slow.*"))

    def never(self) -> int:
        """How many workers are at a start that does not end?"""
        return len(list((self.folder / "spool").glob("never.*")))

    def go(self) -> None:
        (self.folder / "go").touch()

    def log(self) -> str:
        return (self.folder / "log").read_text()

    def close(self) -> None:
        self._notified.close()
        self.go()
        if self.process is not None:
            workers = self.workers() if self.process.poll() is None else []
            self.process.kill()
            self.process.wait(10)
            for pid in workers:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


@contextlib.contextmanager
def mastered() -> Iterator[Mastered]:
    """A folder for a server; whatever was started there is ended."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)  # the worker is somebody else
    (folder / "spool").mkdir()
    (folder / "spool").chmod(0o777)
    made = Mastered(folder)
    try:
        yield made
    finally:
        made.close()
        shutil.rmtree(folder)


if __name__ == "__main__":
    sys.exit(script(Path(sys.argv[1])))
