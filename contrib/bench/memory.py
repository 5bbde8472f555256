"""Memory: what messages cost a server while they arrive, and many large ones a whole server.

- One worker with a delivery that does nothing: how much it grows over its size at rest, at most
  (VmHWM) and in the end (VmRSS). All connections are in the middle of their messages at once.
- `mdaflow serve` with two workers, rules and Maildirs: the sum over all its processes, sampled
  20 times a second, of what each has in memory (RSS), and of its share of that (PSS). Needs
  root, because the server starts as root.

The exit status is 1 when a figure is over its limit.
"""

from __future__ import annotations

import argparse
import re
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import _servers
from _servers import Failed, Side, Site, User, check, cpu, family, stop
from protocol import PATIENCE, Client, Server, at_once, content, started

KB, MB = 1 << 10, 1 << 20
WHOLE_LIMIT = 300 * MB
MANY, LARGE = 100, 10 * MB
SAMPLES = 20
"""In a second."""
WORKERS = 2

over: list[str] = []
"""The figures that are."""


def show(what: str, limit: float, found: float, unit: str = "MiB") -> None:
    scale = MB if unit == "MiB" else 1
    print(f"{what:52} {limit / scale:9.1f} {found / scale:9.1f} {unit}", flush=True)
    if found > limit:
        over.append(what)


def sizes(path: str) -> dict[str, int]:
    """The values of a file of /proc that are in kB, in bytes; none when the process is gone."""
    try:
        text = Path(path).read_text()
    except (FileNotFoundError, ProcessLookupError):
        return {}
    return {name: KB * int(size) for name, size in re.findall(r"(\w+):\s+(\d+) kB", text)}


# one worker


@contextmanager
def growth(server: Server) -> Iterator[dict[str, int]]:
    """Fills in how much a server grew in the block."""
    with Client(server.path) as client:
        client.send("user@example.org", content(4 * KB))
    status = f"/proc/{server.pid}/status"
    Path(f"/proc/{server.pid}/clear_refs").write_text("5")  # the peak is what it is now
    before = sizes(status)["VmRSS"]
    found: dict[str, int] = {}
    yield found
    found.update({name: sizes(status)[name] - before for name in ("VmHWM", "VmRSS")})


def arrive(server: Server, connections: int, raw: bytes) -> None:
    """So many messages at once, none of which ends before all are there."""
    middle = threading.Barrier(connections)

    def one(number: int) -> None:
        with Client(server.path) as client:
            client.begin(f"user{number}@example.org")
            client.sock.sendall(raw[:-3])
            middle.wait(PATIENCE)
            client.finish(raw[-3:])

    at_once([lambda n=n: one(n) for n in range(connections)])  # type: ignore[misc]


def worker(spool: str, what: str, connections: int, raw: bytes, limit: int) -> float:
    """Show the growth by so many messages; the CPU seconds they took."""
    with tempfile.TemporaryDirectory() as folder:  # noqa: SIM117
        with started("mdaflow", Path(folder), spool) as server, growth(server) as found:
            before = cpu(server.pid)
            arrive(server, connections, raw)
            spent = cpu(server.pid) - before
    show(f"{what}: growth at most", limit, found["VmHWM"])
    show(f"{what}: growth that stays", limit, found["VmRSS"])
    return spent


def one_worker(spool: str) -> None:
    limit = 32 * MB
    worker(spool, "200 messages of 1 MiB", 200, content(MB), limit + 200 * 64 * KB)
    worker(spool, "one message of 50 MiB", 1, content(50 * MB), limit + 64 * KB)
    empty = b"\r\n" * (50 * MB // 2) + b".\r\n"
    spent = worker(spool, "50 MiB of empty lines", 1, empty, MB)
    show("50 MiB of empty lines: CPU", 1, spent, "s")


# a whole server


def two_workers(root: Path, site: Site) -> Sequence[str | Path]:
    command = _servers.set_up_mdaflow(root, site)
    config = root / "mdaflow.yaml"
    config.write_text(config.read_text().replace("lmtp: {", f"lmtp: {{workers: {WORKERS}, "))
    return command


def whole_server() -> None:
    _servers.SIDES["mdaflow"] = two_workers
    names = [f"user{number}" for number in range(MANY)]
    site = Site([User(name, 'rule "Lists" when size > 20M { deliver to "L" }\n', "")
                 for name in names], WORKERS)  # fmt: skip
    raw = content(LARGE)
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        root.chmod(0o755)
        side = stack.enter_context(_servers.started("mdaflow", root / "mdaflow", site))
        path = str(side.root / "lmtp")

        def one(name: str) -> None:
            with Client(path) as client:
                client.send(f"{name}@example.org", raw)

        with sampled(side) as most:
            at_once([lambda name=name: one(name) for name in names])  # type: ignore[misc]
        check(side, sum(map(side.stored, names)), MANY)
    what = f"{MANY} messages of {LARGE // MB} MiB, {WORKERS} workers"
    for kind, found in most.items():
        show(f"{what}: sum of {kind.upper()}", WHOLE_LIMIT, found)


@contextmanager
def sampled(side: Side) -> Iterator[Mapping[str, int]]:
    """Fills in the largest sums seen in the block."""
    most = {"Rss": 0, "Pss": 0}
    done = threading.Event()

    def look() -> None:
        while not done.wait(1 / SAMPLES):
            found = [sizes(f"/proc/{pid}/smaps_rollup") for pid in family(side.process.pid)]
            for kind in most:
                most[kind] = max(most[kind], sum(one.get(kind, 0) for one in found))

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield most
    finally:
        done.set()
        watcher.join()


def main() -> int:
    parser = argparse.ArgumentParser(description="memory of the server, against its limits")
    parser.add_argument("--spool", help="folder for large messages (default: a temporary one)")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, stop)
    print(f"{'':52} {'limit':>9} {'found':>9}")
    try:
        with tempfile.TemporaryDirectory() as folder:
            one_worker(arguments.spool or folder)
        whole_server()
    except (Failed, OSError, threading.BrokenBarrierError) as error:
        print(error, file=sys.stderr)
        return _servers.EX_UNAVAILABLE
    except KeyboardInterrupt:
        return 130
    for what in over:
        print(f"over the limit: {what}", file=sys.stderr)
    return 1 if over else 0


if __name__ == "__main__":
    sys.exit(main())
