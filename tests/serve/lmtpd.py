"""A real LMTP server in this process, a scripted courier behind it, and a plain client."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator

from mdaflow.app.config import Config, Lmtp
from mdaflow.errors import (
    LOCKED,
    RECIPIENT_OK,
    REJECTED,
    TOO_SLOW,
    UNKNOWN_USER,
    PermFail,
    Status,
    TempFail,
)
from mdaflow.mail.envelope import Envelope
from mdaflow.mail.message import Message
from mdaflow.serve import lmtp, tls, worker

lmtp.PAUSE = 0.001  # errors are what tests are about
SAVED = Status(250, "2.0.0", "7Xk2 Saved to lists/dev")


def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition; ten seconds without it are a failure."""
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)


class FakeCourier:
    """Does what the local part of a recipient says; `delivered` is what it committed."""

    def __init__(self) -> None:
        self.delivered: list[tuple[Envelope, bytes]] = []
        self.checked: list[str] = []
        self.hanging: list[str] = []
        self.unknown: list[str] = []
        """Recipients whose client may not know that they have their mail."""
        self.go = threading.Event()

    def check(self, recipient: str, *_: object) -> Status:
        self.checked.append(recipient)
        match _local(recipient):
            case "unknown":
                return UNKNOWN_USER
            case "noanswer":
                self.go.wait(10)
            case "nocheck":
                raise OSError(errno.EIO, "Input/output error", "/secret/path")
        return RECIPIENT_OK

    def whose(self, recipient: str) -> str:
        return recipient

    def unconfirmed(self, message: Message, envelope: Envelope) -> None:
        self.unknown.append(envelope.recipient)

    def deliver(self, message: Message, envelope: Envelope, fence: Callable[[], bool]) -> Status:
        match _local(envelope.recipient):
            case "full":
                raise OSError(errno.ENOSPC, "No space left on device", "/secret/path")
            case "locked":
                raise TempFail(LOCKED, "held by 4711")
            case "loop":
                raise PermFail(Status(554, "5.4.6", "Mail loop detected"))
            case "rejected":
                return REJECTED
            case "evil":
                return Status(250, "2.0.0", "a\r\n250 2.0.0 b\0\x1b[2J\u202e" + "x" * 600)
            case "exits":
                raise SystemExit("no")
            case "slow":
                self._hang(envelope)
        if not fence():
            return TOO_SLOW
        if _local(envelope.recipient) == "hung":  # in the commit itself
            self._hang(envelope)
        self.delivered.append((envelope, message.raw[:]))
        return SAVED

    def _hang(self, envelope: Envelope) -> None:
        self.hanging.append(envelope.recipient)
        self.go.wait(10)
        self.hanging.remove(envelope.recipient)

    def recipients(self) -> list[str]:
        return [envelope.recipient for envelope, _ in self.delivered]


def _local(recipient: str) -> str:
    return recipient.partition("@")[0]


class Client:
    """Sends bytes and reads lines; ten seconds of silence are a failure."""

    def __init__(self, address: str | tuple[str, int]) -> None:
        family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
        self.sock = socket.socket(family, socket.SOCK_STREAM)
        self.sock.settimeout(10)
        try:
            self.sock.connect(address)
        except OSError:
            self.sock.close()
            raise
        self.lines = self.sock.makefile("rb")

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.lines.close()
        self.sock.close()

    def send(self, raw: bytes) -> None:
        # A server that has said goodbye need not take the rest.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.sock.sendall(raw)

    def line(self) -> str:
        """The next line without its CRLF; empty at the end."""
        try:
            raw = self.lines.readline()
        except ConnectionResetError:
            return ""
        assert not raw or raw.endswith(b"\r\n"), raw
        return raw[:-2].decode()

    def reply(self) -> str:
        """The last line of the next reply."""
        while (line := self.line())[3:4] == "-":
            pass
        return line

    def say(self, command: str) -> str:
        """The reply to a command."""
        self.send(command.encode() + b"\r\n")
        return self.reply()

    def hello(self) -> Client:
        """Past greeting and LHLO."""
        assert self.reply().startswith("220 ")
        assert self.say("LHLO client.example").startswith("250 ")
        return self

    def start(self, *recipients: str, raw: bytes = b"Subject: x\r\n\r\nhello\r\n") -> None:
        """A whole transaction up to the final dot."""
        assert self.say("MAIL FROM:<alice@example.com>").startswith("250 ")
        for recipient in recipients:
            assert self.say(f"RCPT TO:<{recipient}>").startswith("250 ")
        assert self.say("DATA").startswith("354 ")
        self.send(raw + b".\r\n")

    def deliver(self, *recipients: str, raw: bytes = b"Subject: x\r\n\r\nhello\r\n") -> list[str]:
        """A whole transaction; the code and enhanced code of each reply after DATA."""
        self.start(*recipients, raw=raw)
        return self.codes(len(recipients))

    def codes(self, count: int) -> list[str]:
        """Code and enhanced code of the next replies; then no more must come."""
        found = [" ".join(self.reply().split(" ")[:2]) for _ in range(count)]
        assert self.say("NOOP step") == "250 2.0.0 Ok"
        return found


class Running:
    """A server in a thread of its own."""

    def __init__(self, path: str, courier: FakeCourier) -> None:
        self.path = path
        self.courier = courier
        self._stop: Callable[[], object] = lambda: None
        self._thread: threading.Thread | None = None

    def client(self) -> Client:
        return Client(self.path)

    def stop(self) -> None:
        """Begin to drain."""
        self._stop()

    def ended(self) -> None:
        """Wait for the end."""
        assert self._thread is not None
        self._thread.join(10)
        assert not self._thread.is_alive()

    def begin(self, sock: socket.socket, config: Config) -> None:
        ready = threading.Event()

        async def main() -> None:
            stop = asyncio.Event()
            loop = asyncio.get_running_loop()
            self._stop = lambda: loop.call_soon_threadsafe(stop.set)
            context = tls.context(config.lmtp)
            await worker.serve([sock], config, self.courier, stop, ready.set, context)

        self._thread = threading.Thread(target=lambda: asyncio.run(main()))
        self._thread.start()
        assert ready.wait(10)


@contextlib.contextmanager
def running(sock: socket.socket | None = None, /, **limits: object) -> Iterator[Running]:
    """A server on a unix socket, or on `sock`; `limits` as in the configuration's `lmtp`."""
    settings = {"threads": 4, "deadline": 20.0, "idle": 20.0, "spool": "/tmp"} | limits
    config = Config(hostname="mx.example.org", lmtp=Lmtp(**settings))  # type: ignore[arg-type]
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "lmtp")
        if sock is None:
            sock = socket.socket(socket.AF_UNIX)
            sock.bind(path)
        server = Running(path, FakeCourier())
        server.begin(sock, config)
        try:
            yield server
        finally:
            server.courier.go.set()
            with contextlib.suppress(RuntimeError):  # it may have ended already
                server.stop()
            server.ended()
