"""Floods and slow clients: how much throughput they leave to others.

One worker with a delivery that does nothing, on a core of its own; four good clients deliver
messages of 4 KB one after the other. They keep their connections, as Postfix does, and come
again when they are turned away. Each attack runs in a process of its own with the lowest
priority, so that it takes the server's time and not the good clients'. Rounds without and with
the attack alternate; the figure is the median of their ratios, and should be 80 % or more (P33).
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from statistics import median

from protocol import Null

from mdaflow.app.config import Config, Lmtp
from mdaflow.serve import worker

CLIENTS = 4
LEAST = 0.8
BODY = (b"x" * 72 + b"\r\n") * 56
fork = multiprocessing.get_context("fork")


def serve(folder: str, core: int) -> None:
    os.sched_setaffinity(0, {core})
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(f"{folder}/lmtp")

    async def main() -> None:
        config = Config(hostname="bench", lmtp=Lmtp(spool=folder, workers=1))
        await worker.serve([sock], config, Null(), asyncio.Event(), lambda: None)

    asyncio.run(main())


def connect(folder: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(30)
    while True:
        try:
            sock.connect(f"{folder}/lmtp")
            return sock
        except (BlockingIOError, ConnectionRefusedError, FileNotFoundError):
            time.sleep(0.01)  # the queue of connections is full, or nobody listens yet


# --- good clients ---------------------------------------------------------------------------


class Good:
    """A client that keeps its connection, and comes again when it is turned away."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._sock: socket.socket | None = None

    def deliver(self, until: float) -> int:
        """Deliver until then; how many messages were taken."""
        taken = 0
        while time.monotonic() < until:
            try:
                self._sock = self._sock or self._greeted()
                self._message(self._sock)
                taken += 1
            except (OSError, EOFError):
                self._sock = None
        return taken

    def _greeted(self) -> socket.socket:
        sock = connect(self._folder)
        self._lines = sock.makefile("rb")
        self._answers(1)
        sock.sendall(b"LHLO good\r\n")
        self._answers(1)
        return sock

    def _message(self, sock: socket.socket) -> None:
        sock.sendall(b"MAIL FROM:<a@x>\r\nRCPT TO:<good@x>\r\nDATA\r\n")
        self._answers(3)
        sock.sendall(BODY + b".\r\n")
        self._answers(1)

    def _answers(self, count: int) -> None:
        for _ in range(count):
            while (line := self._lines.readline())[3:4] == b"-":
                pass
            if line[:1] not in (b"2", b"3"):
                raise EOFError


def throughput(clients: list[Good], seconds: float) -> float:
    """Messages a second of all good clients."""
    until = time.monotonic() + seconds
    counts = [0] * len(clients)

    def one(number: int) -> None:
        counts[number] = clients[number].deliver(until)

    threads = [threading.Thread(target=one, args=(n,)) for n in range(len(clients))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / seconds


# --- attacks: each runs until it is killed ----------------------------------------------------


def _crowd(folder: str, count: int, said: bytes, drip: bytes = b"") -> None:
    """So many connections that say this and stop, or then say a byte every ten seconds; who is
    dropped comes again."""
    crowd: list[socket.socket | None] = [None] * count
    while True:
        for number, sock in enumerate(crowd):
            try:
                if sock is None:
                    sock = crowd[number] = connect(folder)
                    sock.sendall(said)
                    sock.setblocking(False)
                else:
                    with suppress(BlockingIOError):
                        while sock.recv(4096):
                            pass
                        raise ConnectionError
                    sock.send(drip)
            except OSError:
                if sock is not None:
                    sock.close()
                crowd[number] = None
        time.sleep(10 if drip else 1)


def idle(folder: str) -> None:
    """1,000 idle connections"""
    _crowd(folder, 1000, b"")


def slow_command(folder: str) -> None:
    """150 slow in a command"""
    _crowd(folder, 150, b"LHLO slow\r\nMAIL FR", b"x")


def slow_data(folder: str) -> None:
    """150 slow in DATA"""
    _crowd(folder, 150, b"LHLO slow\r\nMAIL FROM:<>\r\nRCPT TO:<a@x>\r\nDATA\r\nhello\r\n", b"x")


def slow_dot(folder: str) -> None:
    """150 silent before the dot"""
    _crowd(folder, 150, b"LHLO slow\r\nMAIL FROM:<>\r\nRCPT TO:<a@x>\r\nDATA\r\nhello\r\n.\r")


def _burst(folder: str, said: bytes) -> None:
    """Say this and read all replies until the end, again and again."""
    while True:
        with connect(folder) as sock, suppress(OSError):
            sock.sendall(said)
            while sock.recv(65536):
                pass


def recipients(folder: str) -> None:
    """10,000 RCPT, again and again"""
    _burst(folder, b"LHLO a\r\nMAIL FROM:<>\r\n" + b"RCPT TO:<a@x>\r\n" * 10_000)


def noop(folder: str) -> None:
    """endless NOOP, 20 clients"""
    for _ in range(19):
        threading.Thread(target=_burst, args=(folder, b"NOOP\r\n" * 10_000), daemon=True).start()
    _burst(folder, b"NOOP\r\n" * 10_000)


def deaf(folder: str) -> None:
    """50 pipeline and read nothing"""
    crowd = []
    while True:
        if len(crowd) < 50:
            crowd.append(connect(folder))
            crowd[-1].setblocking(False)
        for sock in tuple(crowd):
            try:
                sock.send(b"RCPT TO:<a@x>\r\n" * 1000)
            except BlockingIOError:
                time.sleep(0.001)
            except OSError:
                sock.close()
                crowd.remove(sock)


def knock(folder: str) -> None:
    """connect and close, 4 at once"""

    def one() -> None:
        while True:
            connect(folder).close()

    for _ in range(3):
        threading.Thread(target=one, daemon=True).start()
    one()


ATTACKS = (idle, slow_command, slow_data, slow_dot, recipients, noop, deaf, knock)


# --- rounds ---------------------------------------------------------------------------------


@contextmanager
def started(target: Callable[..., None], *arguments: object) -> Iterator[None]:
    process = fork.Process(target=target, args=arguments)
    process.start()
    try:
        yield
    finally:
        process.kill()
        process.join()


def _attack(attack: Callable[[str], None], folder: str, core: int) -> None:
    os.nice(19)
    os.sched_setaffinity(0, {core})
    attack(folder)


def compare(attack: Callable[[str], None], rounds: int, seconds: float) -> float:
    """The median of what an attack leaves, as a part of what there is without it."""
    cores = sorted(os.sched_getaffinity(0))
    left = []
    for _ in range(rounds):
        with ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            stack.enter_context(started(serve, folder, cores[0]))
            os.sched_setaffinity(0, {cores[-1]})
            stack.callback(os.sched_setaffinity, 0, cores)
            clients = [Good(folder) for _ in range(CLIENTS)]
            alone = throughput(clients, seconds)
            stack.enter_context(started(_attack, attack, folder, cores[-1]))
            time.sleep(2)
            left.append(throughput(clients, seconds) / alone)
    return median(left)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", help="attacks (default: all)")
    parser.add_argument("--rounds", type=int, default=3, help="of each attack (default 3)")
    parser.add_argument("--seconds", type=float, default=2.0, help="of a round (default 2)")
    arguments = parser.parse_args()
    known = {attack.__name__: attack for attack in ATTACKS}
    if unknown := set(arguments.names) - set(known):
        parser.error(f"{', '.join(unknown)}: choose from {', '.join(known)}")
    worst = 1.0
    print(f"  {'attack':<32} left of the throughput of {CLIENTS} good clients")
    for name in arguments.names or known:
        left = compare(known[name], arguments.rounds, arguments.seconds)
        worst = min(worst, left)
        print(f"  {known[name].__doc__:<32} {left:6.0%}", flush=True)
    print(f"  the least {worst:.0%}, should be {LEAST:.0%}")
    return 0 if worst >= LEAST else 1


if __name__ == "__main__":
    sys.exit(main())
