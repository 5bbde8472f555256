"""The long tests: mail, while everything around it fails. Is anything lost?

    contrib/dev torture [options] [KIND[=COUNT] ...]

Without a KIND all of them run, each with its usual count. Exit code: 0, 1 (something is wrong; the
files are kept), 69 (a program is missing). The tests in tests/real/ are the same in short.
"""

from __future__ import annotations

import argparse
import glob
import json
import os
import random
import shutil
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests/real")]

import content  # noqa: E402
import crowds  # noqa: E402
import faults  # noqa: E402
import growing  # noqa: E402
import killing  # noqa: E402
import powercuts  # noqa: E402
from mdaflow_server import new_root  # noqa: E402
from report import Kind, Progress, Report, Run  # noqa: E402

EX_UNAVAILABLE = 69
MOST_LINES = 20
"""Lines that are shown of what is wrong with a kind."""


@dataclass(frozen=True, slots=True)
class Usual:
    """A kind, and how much of it there is unless somebody says otherwise."""

    kind: Kind
    count: int
    of_what: str


KINDS = {
    "points": Usual(faults.points, 1, "times SIGKILL at every system call of all deliveries"),
    "errors": Usual(faults.errors, 1, "times every error at every system call of all deliveries"),
    "workers": Usual(killing.workers, 10_000, "messages through Postfix while workers are killed"),
    "cycles": Usual(killing.cycles, 50, "kills of the whole server under mail"),
    "stops": Usual(killing.stops, 50, "ends of the server by SIGTERM under mail"),
    "power": Usual(powercuts.cuts, 200, "power cuts under mail"),
    "bytes": Usual(content.bytes_kept, 10_000, "hostile messages, stored and read back"),
    "reading": Usual(content.read, 5_000, "messages each that Dovecot reads as they come"),
    "accounts": Usual(crowds.accounts, 3_000, "deliveries to accounts, and races with them"),
    "leaks": Usual(growing.leaks, 20_000, "deliveries to a server that must not grow"),
}

PROGRAMS = {
    "postfix": "postfix",
    "dovecot": "dovecot-core dovecot-imapd",
    "strace": "strace",
    "/usr/lib/*/libnss_wrapper.so": "libnss-wrapper",
    "losetup": "mount",
    "mkfs.ext4": "e2fsprogs",
}
"""What has to be there -> the packages of Debian that it is in."""


def missing() -> list[str]:
    """What keeps us from running."""
    found = [] if os.geteuid() == 0 else ["run it as root: Postfix, loop devices and strace do"]
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))
    for program, packages in PROGRAMS.items():
        if not (shutil.which(program, path=path) or glob.glob(program)):
            found.append(f"{program} is missing (Debian: apt-get install {packages})")
    return found


def run(name: str, count: int, seed: int, progress: Progress) -> Report:
    """A kind in a folder of its own, which is kept if anything is wrong."""
    began = time.monotonic()
    root = new_root()
    try:
        report = KINDS[name].kind(Run(root, seed, count, progress))
    except (Exception, SystemExit) as error:
        if isinstance(error, SystemExit):  # a signal
            shutil.rmtree(root)
            raise
        report = Report({}, [repr(error)])
    progress.clear()
    if report.wrong:
        report.wrong.append(f"the files are in {root}")
    else:
        shutil.rmtree(root)
    seconds = round(time.monotonic() - began, 1)
    return report._replace(figures={**report.figures, "seconds": seconds})


def show(name: str, report: Report) -> None:
    """Print a report."""
    figures = ", ".join(f"{figure} {number:,}" for figure, number in report.figures.items())
    print(f"{name:<9}{figures}", flush=True)
    for line in (*report.wrong[:MOST_LINES], *report.wrong[MOST_LINES:][-1:]):
        print(f"torture: {name}: {line}", file=sys.stderr)


def counted(text: str) -> tuple[str, int]:
    """The kind and the count of `KIND` or `KIND=COUNT`."""
    name, _, count = text.partition("=")
    if name not in KINDS:
        raise argparse.ArgumentTypeError(f"unknown kind {name!r}: it is one of {', '.join(KINDS)}")
    if count and not count.isdecimal():
        raise argparse.ArgumentTypeError(f"{count!r} is not a number")
    return name, int(count) if count else KINDS[name].count


def arguments() -> argparse.Namespace:
    """What we were asked for."""
    kinds = "\n".join(f"  {f'{n}={u.count}':<16} {u.of_what}" for n, u in KINDS.items())
    parser = argparse.ArgumentParser(
        prog="torture",
        description=(__doc__ or "").split("\n")[0],
        epilog=f"kinds, with their usual counts:\n{kinds}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("kinds", type=counted, nargs="*", metavar="KIND[=COUNT]")
    parser.add_argument("--seed", type=int, help="of messages and faults; by default random")
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
    progress = Progress()
    found = {}
    for name, count in options.kinds or [(name, usual.count) for name, usual in KINDS.items()]:
        found[name] = run(name, count, seed, progress)
        show(name, found[name])
    good = not any(report.wrong for report in found.values())
    if options.json:
        reports = {name: report._asdict() for name, report in found.items()}
        options.json.write_text(json.dumps({"seed": seed, "good": good, **reports}) + "\n")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
