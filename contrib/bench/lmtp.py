"""Throughput: mdaflow against Dovecot's LMTP server with Pigeonhole Sieve, on one machine.

Both take the same messages by the same rules for the same users (see _servers.py). Rounds
alternate, and the ratio is the median of the pairwise ratios, so that other work on the machine
falls on both. Before each round the mailboxes are removed and made again by a first message of
every session, which is not timed; after it the messages in them are counted. The count of
system calls shows that both sync.

Everything is made in a new folder, which is removed at the end.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import NamedTuple

from _servers import (
    SIDES,
    Failed,
    Side,
    Site,
    User,
    check,
    dovecot_version,
    family,
    finished,
    need,
    send,
    started,
)

USERS, SESSIONS, LENGTH = 8, 2, 4096
LARGE, LARGE_LENGTH = 20, 10 << 20
COUNTED = 160
"""Messages of the round in which system calls are counted."""
SYNCS = ("fsync", "fdatasync", "sync_file_range", "syncfs", "msync")

# Six rules, none of which takes the message: both sides look at all of them, and keep it.
SUBJECT, SENDER = "Notes for Monday", "dave@example.com"
RULES = r"""
list board = ["ceo@example.org", "cfo@example.org", "chair@board.example.org"]

rule "Board" when from in board { deliver to "Board" }
rule "Lists" when header "List-Id" contains "lists.example.org" { deliver to "Lists" }
rule "Spam" when header "X-Spam-Flag" is "yes" { deliver to "Junk" }
rule "Large" when size > 20M { deliver to "Large" }
rule "Invoices" when subject contains ["invoice", "rechnung"] { deliver to "Invoices" }
rule "Tickets" when subject matches /\[ticket #[0-9]+\]/ { deliver to "Tickets" }
"""
SIEVE = r"""
require ["fileinto", "regex"];

if address :is "from" ["ceo@example.org", "cfo@example.org", "chair@board.example.org"]
    { fileinto "Board"; stop; }
if header :contains "list-id" "lists.example.org" { fileinto "Lists"; stop; }
if header :is "x-spam-flag" "yes" { fileinto "Junk"; stop; }
if size :over 20M { fileinto "Large"; stop; }
if header :contains "subject" ["invoice", "rechnung"] { fileinto "Invoices"; stop; }
if header :regex "subject" "\\[ticket #[0-9]+\\]" { fileinto "Tickets"; stop; }
"""

NAMES = [f"user{n}" for n in range(1, USERS + 1)]


class Round(NamedTuple):
    """What was measured: messages or megabytes a second, and the server's CPU ms for a message."""

    rate: float
    cpu: float


# the load


def load(side: Side, each: int, length: int, users: int = USERS, sessions: int = SESSIONS) -> float:
    """Have `each` messages sent to every user; the seconds it took."""
    options = ["-l", str(length), "-S", SUBJECT, "-f", SENDER]
    return send(side, NAMES[:users], each, sessions, options)


def empty(side: Side) -> None:
    """New mailboxes, with a message of each session, and no work left over for the disk."""
    for name in NAMES:
        shutil.rmtree(side.maildir(name), ignore_errors=True)
    load(side, SESSIONS, LENGTH)
    os.sync()


def count(side: Side, sent: int) -> None:
    """Raise Failed unless every message is in a mailbox."""
    check(side, sum(map(side.stored, NAMES)), sent + USERS * SESSIONS)


def small(side: Side, messages: int) -> Round:
    """A round of small messages, in messages per second."""
    empty(side)
    each, before = messages // USERS, side.cpu()
    took = load(side, each, LENGTH)
    spent = side.cpu() - before
    count(side, each * USERS)
    return Round(each * USERS / took, 1000 * spent / (each * USERS))


def large(side: Side) -> Round:
    """A round of large messages in one session, in megabytes per second."""
    empty(side)
    before = side.cpu()
    took = load(side, LARGE, LARGE_LENGTH, users=1, sessions=1)
    spent = side.cpu() - before
    count(side, LARGE)
    return Round(LARGE * LARGE_LENGTH / 1e6 / took, 1000 * spent / LARGE)


def count_syncs(side: Side) -> dict[str, float]:
    """How often each system call is made for a message."""
    empty(side)
    table = side.root / "syncs"
    pids = [word for pid in family(side.process.pid) for word in ("-p", str(pid))]
    trace = ",".join(SYNCS)
    strace = subprocess.Popen(
        ["strace", "-f", "-c", "-e", f"trace={trace}", "-o", table, *pids], stderr=subprocess.PIPE
    )
    try:
        assert strace.stderr is not None
        for _ in range(0, len(pids), 2):  # it says once for each process that it is attached
            if b"attached" not in strace.stderr.readline():
                raise Failed("strace cannot attach to the servers")
        load(side, COUNTED // USERS, LENGTH)
    finally:
        strace.send_signal(signal.SIGINT)
        strace.communicate()
    count(side, COUNTED)
    rows = [line.split() for line in table.read_text().splitlines()]
    return {row[-1]: int(row[3]) / COUNTED for row in rows if row and row[-1] in SYNCS}


# what is shown


def compare(
    what: str, sides: Sequence[Side], rounds: int, measure: Callable[[Side], Round]
) -> None:
    """Alternate the rounds, and print them."""
    names = " ".join(f"{side.name:>9}" for side in sides)
    print(f"\n  {what:>12} {names}   ratio   CPU ms for a message", flush=True)
    rows: list[list[Round]] = []
    for number in range(1, rounds + 1):
        rows.append([measure(side) for side in sides])
        print_row(f"round {number}", rows[-1], rows[-1][0].rate / rows[-1][1].rate)
    medians = [Round(*map(median, zip(*column, strict=True))) for column in zip(*rows, strict=True)]
    print_row("median", medians, median(ours.rate / theirs.rate for ours, theirs in rows))


def print_row(name: str, found: Sequence[Round], ratio: float) -> None:
    rates = " ".join(f"{one.rate:9.1f}" for one in found)
    spent = " ".join(f"{one.cpu:9.2f}" for one in found)
    print(f"  {name:>12} {rates} {ratio:7.2f} {spent}", flush=True)


def print_syncs(sides: Sequence[Side]) -> None:
    print("\n  sync calls for a message")
    for side in sides:
        counts = count_syncs(side)
        said = ", ".join(f"{name} {count:.2f}" for name, count in counts.items()) or "none"
        print(f"  {side.name:>12} {said}", flush=True)


def bench(
    label: str, folder: str, rounds: int, messages: int, fsync: str, *, accounts: bool
) -> None:
    """All measurements with everything in one folder."""
    print(f"\nMail on {label}: {folder} ({file_system(folder)})", flush=True)
    with ExitStack() as stack:
        new = tempfile.TemporaryDirectory(prefix="mdaflow-bench-", dir=folder)
        root = Path(stack.enter_context(new))
        root.chmod(0o755)
        users = [User(name, RULES, SIEVE) for name in NAMES]
        site = Site(users, USERS * SESSIONS, fsync, accounts)
        sides = [stack.enter_context(started(name, root / name, site)) for name in SIDES]
        compare("messages/s", sides, rounds, lambda side: small(side, messages))
        compare("10 MB: MB/s", sides, rounds, large)
        print_syncs(sides)


def file_system(folder: str) -> str:
    found = subprocess.run(["df", "--output=fstype", folder], capture_output=True, text=True)
    if found.returncode:
        raise Failed(found.stderr.strip())
    return found.stdout.split()[-1]


def main() -> int:
    parser = argparse.ArgumentParser(description="mdaflow against Dovecot: LMTP throughput")
    parser.add_argument("--rounds", type=int, default=5, help="pairs of rounds (default 5)")
    parser.add_argument("--messages", type=int, default=2000, help="of a round (default 2000)")
    parser.add_argument("--disk", default="/var/tmp", metavar="DIR",
                        help="a folder on a disk; empty for none")  # fmt: skip
    parser.add_argument("--tmpfs", default="/dev/shm", metavar="DIR",
                        help="a folder in memory; empty for none")  # fmt: skip
    parser.add_argument("--fsync", default="optimized", choices=("optimized", "always"),
                        help="Dovecot's mail_fsync (default optimized)")  # fmt: skip
    parser.add_argument("--accounts", action="store_true",
                        help="deliver as each user (needs libnss-wrapper)")  # fmt: skip
    arguments = parser.parse_args()
    if arguments.rounds < 1 or arguments.messages < USERS * SESSIONS:
        parser.error(f"at least 1 round and {USERS * SESSIONS} messages")

    def measure() -> None:
        need(strace="strace")
        print(
            f"mdaflow on Python {platform.python_version()} against Dovecot {dovecot_version()}, "
            f"mail_fsync = {arguments.fsync}\n"
            f"{os.cpu_count()} cores, {USERS} users with {SESSIONS} sessions each, "
            f"{arguments.messages} messages of {LENGTH} bytes a round"
        )
        for label, folder in (("disk", arguments.disk), ("tmpfs", arguments.tmpfs)):
            if folder:
                rounds, messages = arguments.rounds, arguments.messages
                bench(label, folder, rounds, messages, arguments.fsync, accounts=arguments.accounts)

    return finished(measure)


if __name__ == "__main__":
    sys.exit(main())
