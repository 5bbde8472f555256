"""What a kind of torture has found, how far it is, and what it tells itself about its messages."""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import NamedTuple


class Report(NamedTuple):
    """The end of a kind."""

    figures: Mapping[str, float]
    wrong: list[str]
    """What must not be, a line each; nothing is wrong when there is none."""


@dataclass(frozen=True, slots=True)
class Run:
    """What a kind is given."""

    root: Path
    """A folder of its own, that every user can enter."""
    seed: int
    count: int
    progress: Progress


Kind = Callable[[Run], Report]


def only_zero(figures: Mapping[str, float], *names: str) -> list[str]:
    """What is wrong when some of the figures are not 0."""
    return [f"{name}: {figures[name]}" for name in names if figures[name]]


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
        """Take the line away."""
        if self._seen:
            print("\r\033[K", end="", file=sys.stderr, flush=True)


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
        """Close the file."""
        os.close(self._fd)

    def numbers(self, word: str) -> Counter[int]:
        """How often something was noted of each message."""
        lines = (line.split() for line in self.path.read_text().splitlines())
        return Counter(int(number) for noted, number in lines if noted == word)
