"""The cost of the protocol: our LMTP server against stock aiosmtpd's, delivery being nothing.

Each server is one process on a core of its own, where there are two; the client has another.
Both take the same messages from the same client: connections that stay open, MAIL, RCPT and
DATA in one write as Postfix does, then the message. Rounds alternate, and the ratio is the
median of the pairwise ratios, so that other work on the machine falls on both.

The time on the clock includes the client's, which draws its ratio towards 1; the CPU time is of
the server alone, with all its threads. Ours writes messages over 64 KiB to a file while they
arrive, aiosmtpd holds them in memory: that is in both figures.

Known limit: without the part of `mdaflow serve` above the worker, so without rules and mailboxes.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from threading import Thread
from typing import NamedTuple

from _servers import Failed, cpu, finished

SIZES = {"4 KB": (4 << 10, 2000), "64 KB": (64 << 10, 800), "4 MB": (4 << 20, 16)}
"""What a message is called -> its bytes, and the messages of a round."""
EXPECTED = {"4 KB": 1.5, "64 KB": 5.0, "4 MB": 7.0}
"""How many times faster it should be at least."""
CONNECTIONS = (1, 8)
HOSTNAME = "mx.example.org"
HEADER = b"From: <dave@example.com>\r\nTo: <user@example.org>\r\nSubject: Notes\r\n\r\n"
PATIENCE = 60.0


# the servers, each in a process of its own


class Null:
    """A courier that takes everything and does nothing."""

    def __init__(self) -> None:
        from mdaflow.errors import RECIPIENT_OK, SAVED  # not where aiosmtpd is measured

        self.good, self.saved = RECIPIENT_OK, SAVED

    def check(self, recipient: str, *_: object) -> object:
        return self.good

    def whose(self, recipient: str) -> str:
        return recipient

    def deliver(self, message: object, envelope: object, fence: Callable[[], bool]) -> object:
        return self.saved

    def unconfirmed(self, message: object, envelope: object) -> None:
        pass


async def serve_mdaflow(sock: socket.socket, spool: str) -> None:
    from mdaflow.app.config import Config, Lmtp
    from mdaflow.serve import worker

    config = Config(hostname=HOSTNAME, lmtp=Lmtp(spool=spool))
    await worker.serve([sock], config, Null(), asyncio.Event(), ready)  # type: ignore[arg-type]


async def serve_aiosmtpd(sock: socket.socket, spool: str) -> None:
    from aiosmtpd.lmtp import LMTP

    class Handler:
        async def handle_DATA(self, server: object, session: object, envelope: object) -> str:
            return "250 OK"

    handler = Handler()
    loop = asyncio.get_running_loop()
    server = await loop.create_unix_server(lambda: LMTP(handler, hostname=HOSTNAME), sock=sock)
    ready()
    await server.serve_forever()


SERVERS = {"mdaflow": serve_mdaflow, "aiosmtpd": serve_aiosmtpd}


def ready() -> None:
    print("ready", flush=True)


def serve(name: str, path: str, spool: str, core: int) -> None:
    """Serve until killed."""
    if core >= 0:
        os.sched_setaffinity(0, {core})
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(path)
        asyncio.run(SERVERS[name](sock, spool))


class Server(NamedTuple):
    """One that runs."""

    name: str
    pid: int
    path: str


@contextmanager
def started(name: str, folder: Path, spool: str, core: int = -1) -> Iterator[Server]:
    """A server up to the end of the block, bound to a core unless that is -1."""
    path = str(folder / name)
    command = [sys.executable, __file__, "--serve", name, path, spool, str(core)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            if process.stdout.readline() != b"ready\n":
                raise Failed(f"{name} does not start")
            yield Server(name, process.pid, path)
        finally:
            process.kill()


# the client


def content(size: int, line: bytes = b"x" * 72) -> bytes:
    """A message of about so many bytes, as it is sent."""
    return HEADER + (line + b"\r\n") * ((size - len(HEADER)) // (len(line) + 2)) + b".\r\n"


class Client:
    """One connection, past LHLO."""

    def __init__(self, path: str) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(PATIENCE)
        self.sock.connect(path)
        self._lines = self.sock.makefile("rb")
        self._expect(b"220")
        self.sock.sendall(b"LHLO client.example\r\n")
        self._expect(b"250")

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self._lines.close()
        self.sock.close()

    def begin(self, recipient: str) -> None:
        """Up to the 354."""
        envelope = f"MAIL FROM:<dave@example.com>\r\nRCPT TO:<{recipient}>\r\nDATA\r\n"
        self.sock.sendall(envelope.encode())
        self._expect(b"250", b"250", b"354")

    def finish(self, rest: bytes) -> None:
        """The message, or the rest of it, and the reply."""
        self.sock.sendall(rest)
        self._expect(b"250")

    def send(self, recipient: str, raw: bytes, times: int = 1) -> None:
        """Whole transactions."""
        for _ in range(times):
            self.begin(recipient)
            self.finish(raw)

    def _expect(self, *codes: bytes) -> None:
        for code in codes:
            while (line := self._lines.readline())[3:4] == b"-":
                pass
            if line[:3] != code:
                raise Failed(f"the server says {line!r}")


def at_once(jobs: Sequence[Callable[[], None]]) -> None:
    """Run all in threads. Raises the first exception of them."""
    errors: list[Exception] = []

    def run(job: Callable[[], None]) -> None:
        try:
            job()
        except Exception as error:
            errors.append(error)

    threads = [Thread(target=run, args=[job]) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


# the measurement


class Cost(NamedTuple):
    """Of one message, in milliseconds."""

    clock: float
    cpu: float


def measure(server: Server, raw: bytes, messages: int, connections: int) -> Cost:
    """Send so many messages, over so many connections at once."""
    clients = [Client(server.path) for _ in range(connections)]
    try:
        for number, client in enumerate(clients):
            client.send(f"user{number}@example.org", content(0))
        spent, began = cpu(server.pid), time.perf_counter()
        each = messages // connections
        at_once([lambda c=c, n=n: c.send(f"user{n}@example.org", raw, each)  # type: ignore[misc]
                 for n, c in enumerate(clients)])  # fmt: skip
        took, spent = time.perf_counter() - began, cpu(server.pid) - spent
    finally:
        for client in clients:
            client.__exit__()
    return Cost(1000 * took / messages, 1000 * spent / messages)


def show(size: str, connections: int, pairs: Sequence[tuple[Cost, Cost]]) -> None:
    for what, kind in enumerate(Cost._fields):
        ours, theirs = ([cost[what] for cost in side] for side in zip(*pairs, strict=True))
        ratio = median(b / a for a, b in zip(ours, theirs, strict=True))
        print(f"{size:>6} {connections:12} {kind:>6} {median(ours):12.3f} {median(theirs):12.3f}"
              f" {ratio:8.1f} {EXPECTED[size]:9.1f}", flush=True)  # fmt: skip


def compare(spool: str, rounds: int) -> None:
    cores = sorted(os.sched_getaffinity(0))
    server_core, client_core = (cores[0], cores[1]) if len(cores) > 1 else (-1, -1)
    if client_core >= 0:
        os.sched_setaffinity(0, {client_core})
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        sides = [stack.enter_context(started(name, folder, spool, server_core))
                 for name in SERVERS]  # fmt: skip
        print(f"{'size':>6} {'connections':>12} {'ms':>6} {'mdaflow':>12} {'aiosmtpd':>12}"
              f" {'ratio':>8} {'at least':>9}")  # fmt: skip
        for size, (length, messages) in SIZES.items():
            raw = content(length)
            for connections in CONNECTIONS:
                pairs = []
                for _ in range(rounds):
                    ours, theirs = (measure(s, raw, messages, connections) for s in sides)
                    pairs.append((ours, theirs))
                show(size, connections, pairs)


def main() -> int:
    if sys.argv[1:2] == ["--serve"]:
        name, path, spool, core = sys.argv[2:]
        serve(name, path, spool, int(core))
    parser = argparse.ArgumentParser(description="cost of the protocol, against stock aiosmtpd")
    parser.add_argument("--rounds", type=int, default=5, help="pairs (default 5)")
    parser.add_argument("--spool", help="folder for large messages (default: a temporary one)")
    arguments = parser.parse_args()
    if arguments.rounds < 1:
        parser.error("at least 1 round")

    def measure() -> None:
        with tempfile.TemporaryDirectory() as folder:
            compare(arguments.spool or folder, arguments.rounds)

    return finished(measure)


if __name__ == "__main__":
    sys.exit(main())
