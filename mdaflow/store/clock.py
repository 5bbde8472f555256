"""The time by which a store keeps values: it goes on as the machine runs, whatever its clock says.

Times to live are lengths of time, and a clock that is set must not end them (P45). While the
machine runs, only its uptime counts. Over a restart the clock tells how long it was since, but is
believed for `MOST_OFF`, or for the new uptime where that is more; and never that time went back. So
values end too late after a longer time off, and too early only by so much.

Known limits: where the kernel tells no boot id (`ProcSubset=pid` of systemd), a restart is known
by the uptime, which is less than it was; values end too late if that was short. So they do where
a machine is set back or paused by its host.
"""

from __future__ import annotations

import time
from functools import cache
from typing import NamedTuple

MOST_OFF = 86_400.0
"""Seconds that the clock is believed to have gone on."""

_NEVER = 1e15  # no time is so far away; nor is what is no number


class Mark(NamedTuple):
    """A point in time, from which on the uptime is counted."""

    boot: str
    """Which run of the machine it is in."""
    ahead: float
    """What is added to the uptime, in seconds."""
    last: float
    """The time by which values are kept, in seconds; at first that of the clock."""
    clock: float
    """What the clock said."""

    def now(self) -> float:
        """The time by which values are kept, in this run of the machine."""
        return uptime() + self.ahead


def uptime() -> float:
    """Seconds for which the machine is on, asleep or awake."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@cache
def boot() -> str:
    """The id of this run of the machine; empty when the kernel does not tell."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read(100).strip()
    except (OSError, ValueError):
        return ""


def begin(before: Mark | None = None) -> Mark:
    """A mark of now, which goes on from another one."""
    this, up, clock = boot(), uptime(), time.time()
    if before is None:
        at = clock
    elif before.boot == this if this else up >= before.last - before.ahead:
        at = up + before.ahead
    else:
        at = before.last + min(max(0.0, clock - before.clock), max(up, MOST_OFF))
    return Mark(this, at - up, at, clock)


def parse(text: str) -> Mark | None:
    """The mark of `written`; None for anything else."""
    try:
        this, *numbers = text.split(" ")
        ahead, last, clock = map(float, numbers)
    except ValueError:
        return None
    possible = all(abs(number) < _NEVER for number in (ahead, last, clock))
    return Mark(this, ahead, last, clock) if possible else None


def written(mark: Mark) -> str:
    """A mark as text."""
    return f"{mark.boot} {mark.ahead!r} {mark.last!r} {mark.clock!r}"
