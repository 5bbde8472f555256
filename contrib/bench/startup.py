"""Start-up: `mdaflow test` with six rules on a 4 KB message, against an empty Python.

Both are the interpreter that runs this file, in alternation, with the bytecode of every module
compiled. The ratio is the median of the pairwise ratios, so that other work on the machine
falls on both; CPU time is shown beside the time on the clock, because it suffers less from it.
A configuration in /etc/mdaflow would be read, too, and take its time.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

from lmtp import LENGTH, RULES, SENDER, SUBJECT

MDAFLOW = Path(sys.executable).with_name("mdaflow")
NOT_PASSED_ON = {"PYTHONDONTWRITEBYTECODE", "PYTHONPROFILEIMPORTTIME", "MDAFLOW_CONFIG"}
EX_UNAVAILABLE, EX_SOFTWARE = 69, 70
HEADER = f"From: <{SENDER}>\nTo: <user1@example.org>\nSubject: {SUBJECT}\n\n"


class Times(NamedTuple):
    """What a command takes, in milliseconds."""

    clock: float
    cpu: float


def times(command: Sequence[str | Path]) -> Times:
    """Run a command. Raises CalledProcessError when it fails."""
    kept = {name: value for name, value in os.environ.items() if name not in NOT_PASSED_ON}
    before, began = cpu(), time.perf_counter()
    subprocess.run(command, check=True, env=kept, stdout=subprocess.DEVNULL)
    return Times(1000 * (time.perf_counter() - began), 1000 * (cpu() - before))


def cpu() -> float:
    """CPU seconds of all commands so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure(folder: Path, rounds: int) -> list[tuple[Times, Times]]:
    """`mdaflow test` and the empty Python, in pairs."""
    rules, message = folder / "six.rules", folder / "message.eml"
    rules.write_text(RULES)
    message.write_text(HEADER + ("X" * 79 + "\n") * (LENGTH // 80))
    test = (MDAFLOW, "test", "--rules", rules, message)
    nothing = (sys.executable, "-c", "pass")
    times(test), times(nothing)  # compiles what is not compiled
    return [(times(test), times(nothing)) for _ in range(rounds)]


def show(what: str, pairs: Sequence[tuple[float, float]]) -> None:
    test, nothing = (median(column) for column in zip(*pairs, strict=True))
    ratio = median(ours / theirs for ours, theirs in pairs)
    print(f"{what:>8} {test:15.1f} {nothing:15.1f} {ratio:8.1f}")


def main() -> int:
    parser = argparse.ArgumentParser(description="start-up of `mdaflow test`")
    parser.add_argument("--rounds", type=int, default=25, help="pairs (default 25)")
    arguments = parser.parse_args()
    if arguments.rounds < 1:
        parser.error("at least 1 round")
    if not MDAFLOW.exists():
        print(f"{MDAFLOW} is missing: pip install -e .", file=sys.stderr)
        return EX_UNAVAILABLE
    with tempfile.TemporaryDirectory() as folder:
        try:
            pairs = measure(Path(folder), arguments.rounds)
        except subprocess.CalledProcessError as error:
            print(error, file=sys.stderr)
            return EX_SOFTWARE
    print(f"{'ms':>8} {'mdaflow test':>15} {'python -c pass':>15} {'ratio':>8}")
    show("clock", [(ours.clock, theirs.clock) for ours, theirs in pairs])
    show("CPU", [(ours.cpu, theirs.cpu) for ours, theirs in pairs])
    return 0


if __name__ == "__main__":
    sys.exit(main())
