"""The long tests: thousands of messages while mdaflow is killed under them. Is anything lost?

1. Through a real Postfix, while single workers are killed with SIGKILL at random.
2. Cycles: clients of LMTP keep a ledger, on the disk before and after each message; in the middle
   of it master and workers are killed at once, and started again.

What a client or Postfix was told is delivered must be in a mailbox, byte for byte. It may be there
twice only if a connection was lost after the final dot. Exit code: 0, 1 (something is lost, not
whole, refused, or there twice for no reason; the files are kept), 69 (a program is missing).

`contrib/dev torture` runs this; with its defaults it takes two to five minutes. The tests of
tests/real/test_real_kills.py are the same in short. Known limit: the machine stays up, so what
is not synced is not lost; tests/real/test_real_order.py looks at that.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import shutil
import signal
import sys
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from threading import Lock
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests/real")]

import storm  # noqa: E402
from mdaflow_server import Mdaflow, new_root  # noqa: E402
from postfix import Postfix  # noqa: E402

EX_UNAVAILABLE = 69
MESSAGES, CYCLES = 10_000, 50
SESSIONS = 8
SHORTEST, LONGEST = 0.1, 1.5
"""Seconds of a cycle, from the server's start to its end."""


class Report(NamedTuple):
    """What became of the messages of a part."""

    sent: int
    kills: int
    acknowledged: int
    lost: int
    broken: int
    refused: int
    duplicates: int
    unexplained: int
    """Duplicates without a lost connection."""
    seconds: float

    @property
    def good(self) -> bool:
        return not (self.lost or self.broken or self.refused or self.unexplained)


class Ledger:
    """A file with what was sent and what was taken, a line each, written through to the disk."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = Lock()
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def note(self, word: str, number: int) -> None:
        """Write a line. When this returns, it is on the disk."""
        with self._lock:
            os.write(self._fd, f"{word} {number}\n".encode())
            os.fsync(self._fd)

    def close(self) -> None:
        os.close(self._fd)

    def numbers(self, word: str) -> Counter[int]:
        """How often something was noted of each message."""
        lines = (line.split() for line in self.path.read_text().splitlines())
        return Counter(int(number) for noted, number in lines if noted == word)


class Progress:
    """A line that changes, if somebody sees it; at most ten times a second."""

    def __init__(self) -> None:
        self._seen = sys.stderr.isatty()
        self._next = 0.0

    def show(self, text: str) -> bool:
        """Show how far we are. True, for conditions."""
        if self._seen and time.monotonic() >= self._next:
            self._next = time.monotonic() + 0.1
            print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
        return True

    def clear(self) -> None:
        if self._seen:
            print("\r\033[K", end="", file=sys.stderr, flush=True)


def kill_workers(
    mdaflow: Mdaflow, postfix: Postfix, seed: int, messages: int, progress: Progress
) -> Report:
    """The first part."""
    began = time.monotonic()
    mails = storm.new_mails(mdaflow, seed)
    clients = storm.Clients(mails, storm.by_smtp(postfix.port))

    def go_on() -> bool:
        there = storm.stored(mails)
        progress.show(f"workers: {clients.taken} sent, {there} stored of {messages}")
        return not clients.done or there < messages * 0.95

    with clients.sending(range(messages), SESSIONS):
        kills = storm.kill_workers(mdaflow, random.Random(seed), go_on)
    postfix.settle()
    doubt = storm.sent_in_doubt(postfix.log.read_text())
    refused = storm.refusals(mdaflow, mails, postfix)
    acknowledged = Counter(range(messages))  # the queue is empty
    return judge(mails, acknowledged, doubt, messages, kills, refused, began)


def kill_all(
    mdaflow: Mdaflow, ledger: Ledger, seed: int, cycles: int, progress: Progress
) -> Report:
    """The second part; the server runs neither before nor afterwards."""
    began = time.monotonic()
    dice = random.Random(seed)
    mails = storm.new_mails(mdaflow, seed)
    clients = storm.Clients(mails, storm.by_lmtp(mdaflow.socket), ledger.note)
    with clients.sending(itertools.count(), SESSIONS):
        for cycle in range(cycles):
            mdaflow.start()
            time.sleep(dice.uniform(SHORTEST, LONGEST))
            mdaflow.kill()
            progress.show(f"cycles: {cycle + 1} of {cycles}, {clients.taken} taken")
        mdaflow.start()  # for what was begun
    mdaflow.stop()
    sent, taken = ledger.numbers("sent"), ledger.numbers("taken")
    refused = storm.refusals(mdaflow, mails)
    return judge(mails, taken, sent - taken, len(sent), cycles, refused, began)


def judge(
    mails: storm.Mails,
    acknowledged: Counter[int],
    doubt: Counter[int],
    sent: int,
    kills: int,
    refused: list[str],
    began: float,
) -> Report:
    """Compare what is there with what was said to be there; `doubt`: how often a message was sent
    without an answer."""
    found = storm.look(mails)
    return Report(
        sent=sent,
        kills=kills,
        acknowledged=len(acknowledged),
        lost=len(found.lost(acknowledged)),
        broken=len(found.broken),
        refused=len(refused),
        duplicates=found.doubled.total(),
        unexplained=(found.doubled - doubt).total(),
        seconds=round(time.monotonic() - began, 1),
    )


def run(root: Path, seed: int, messages: int, cycles: int) -> dict[str, Report]:
    """Both parts, below `root`; the reports by their names."""
    progress = Progress()
    with ExitStack() as stack:
        stack.callback(progress.clear)
        mdaflow, postfix = storm.in_the_storm(root)
        for server in (mdaflow, postfix):
            stack.callback(server.stop)
            server.start()
        workers = kill_workers(mdaflow, postfix, seed, messages, progress)
        mdaflow.check_log()
    with ExitStack() as stack:
        stack.callback(progress.clear)
        mdaflow = Mdaflow(root / "cycles", root / "cycles.lmtp", storm.WORKERS)
        stack.callback(mdaflow.stop)
        ledger = Ledger(root / "ledger")
        stack.callback(ledger.close)
        everything = kill_all(mdaflow, ledger, seed, cycles, progress)
        mdaflow.check_log()
    return {"workers": workers, "cycles": everything}


def show(found: dict[str, Report]) -> None:
    """Print the reports, a line for each figure."""
    print(f"{'':<14}" + "".join(f"{name:>12}" for name in found))
    for figure in Report._fields:
        print(f"{figure:<14}" + "".join(f"{getattr(r, figure):>12}" for r in found.values()))


def missing() -> list[str]:
    """What keeps us from running."""
    found = [] if os.geteuid() == 0 else ["run it as root: Postfix needs that"]
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))
    if shutil.which("postfix", path=path) is None:
        found.append("postfix is missing (Debian: apt-get install postfix)")
    return found


def arguments() -> argparse.Namespace:
    """What we were asked for."""
    parser = argparse.ArgumentParser(prog="torture", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seed", type=int, help="of messages and kills; by default random")
    parser.add_argument("--messages", type=int, default=MESSAGES, help="through Postfix")
    parser.add_argument("--cycles", type=int, default=CYCLES, help="of kills of the whole server")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report there, too")
    return parser.parse_args()


def main() -> int:
    options = arguments()
    reasons = missing()
    if reasons:
        print(*(f"torture: {reason}" for reason in reasons), sep="\n", file=sys.stderr)
        return EX_UNAVAILABLE
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, frame: sys.exit(128 + number))
    seed = random.randrange(2**32) if options.seed is None else options.seed
    print(f"seed {seed}", flush=True)
    root = new_root()
    found: dict[str, Report] = {}
    try:
        found = run(root, seed, options.messages, options.cycles)
    except SystemExit:  # a signal
        shutil.rmtree(root)
        raise
    except AssertionError as error:
        print(f"torture: {error}", file=sys.stderr)
    good = bool(found) and all(report.good for report in found.values())
    show(found)
    if options.json:
        reports = {name: report._asdict() for name, report in found.items()}
        options.json.write_text(json.dumps({"seed": seed, "good": good, **reports}) + "\n")
    if good:
        shutil.rmtree(root)
        return 0
    print(f"torture: not good; all is in {root}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
