"""What strace -f has written: the system calls of all threads, in order."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

_LINE = re.compile(r"(\d+) +(?:<\.\.\. (\w+) resumed>|(\w+)\()(.*)")


class Call(NamedTuple):
    """A system call: `start` and `end` are places in the trace."""

    pid: int
    name: str
    text: str
    """Its arguments and its result."""
    start: int
    end: int

    @property
    def worked(self) -> bool:
        """It gave no error."""
        return not re.search(r"\) += -1 ", self.text)

    def on(self, path: Path) -> bool:
        """Its first argument is a descriptor of this file."""
        return f"<{path}>" in self.text.partition(", ")[0]


def calls(trace: str) -> list[Call]:
    """The calls in the output of strace -f, by the end of each."""
    found: list[Call] = []
    begun: dict[str, tuple[int, str]] = {}
    for number, line in enumerate(trace.splitlines()):
        match = _LINE.fullmatch(line)
        if match is None:
            continue
        pid, resumed, started, text = match.groups()
        if text.endswith("<unfinished ...>"):
            begun[pid] = number, text.removesuffix("<unfinished ...>")
            continue
        start, before = begun.pop(pid) if resumed else (number, "")
        found.append(Call(int(pid), resumed or started, before + text, start, number))
    return found
