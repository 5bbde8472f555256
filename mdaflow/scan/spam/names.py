"""Texts in files beside this one: `[section]  # about`, and below it what belongs to it.

They are part of the program: a broken one is a mistake of ours, and raises what it raises.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

_SECTION = re.compile(r"\[(\w+)\]")


@cache
def sections(file: str) -> dict[str, tuple[str, ...]]:
    """The lines of each section of a file, without empty ones and comments."""
    found: dict[str, list[str]] = {}
    name = ""
    for line in Path(__file__).with_name(file).read_text("utf-8").splitlines():
        head = _SECTION.match(line)
        if head:
            name = head[1]
            found[name] = []
        elif line and not line.startswith("#"):
            found[name].append(line)
    return {name: tuple(lines) for name, lines in found.items()}


def names(section: str) -> frozenset[str]:
    """The words of a section of `names.txt`."""
    return frozenset(word for line in sections("names.txt")[section] for word in line.split())


def owners() -> dict[str, tuple[str, ...]]:
    """Names that are often borrowed -> what the domains of their owners begin with."""
    pairs = (line.partition(": ") for line in sections("names.txt")["brands"])
    return {name: tuple(begin.split()) for name, _, begin in pairs}
