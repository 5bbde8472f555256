"""Tests of numbers and dates as ranges."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC
from math import inf
from typing import NamedTuple

from mdaflow.lang import ir
from mdaflow.lang.subjects import type_of
from mdaflow.mail.date import parse_moment


class Range(NamedTuple):
    """Numbers from `low` to `high`; an end that is open is not one of them."""

    low: float = -inf
    high: float = inf
    open_low: bool = False
    open_high: bool = False

    @property
    def empty(self) -> bool:
        """There is no such number."""
        return self.low > self.high or (self.low == self.high and (self.open_low or self.open_high))

    def meet(self, other: Range) -> Range:
        """The numbers that are in both."""
        low, open_low = max((self.low, self.open_low), (other.low, other.open_low))
        high, closed = min((self.high, not self.open_high), (other.high, not other.open_high))
        return Range(low, high, open_low, not closed)

    def covers(self, other: Range) -> bool:
        """All numbers of the other are in this one."""
        return self.meet(other) == other

    def __str__(self) -> str:
        return f"{self.low:g} or more" if self.high == inf else f"{self.low:g} to {self.high:g}"


_RANGES: dict[str, Callable[[float, float], Range]] = {
    **dict.fromkeys(("is", "=", "between"), Range),
    "<": lambda first, end: Range(high=first, open_high=True),
    "<=": lambda first, end: Range(high=end),
    ">": lambda first, end: Range(low=first, open_low=True),
    ">=": lambda first, end: Range(low=first),
}
"""From what is written, which covers the time from `first` to `end` or is a number."""
_BOUNDS = {
    **dict.fromkeys(("size", "lines", "count"), Range(0)),
    "month": Range(1, 12),
    "day": Range(1, 31),
    "hour": Range(0, 23),
    "minute": Range(0, 59),
}
"""The numbers that there are."""
_NO_ZONE = re.compile(r"\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d)?)?", re.ASCII)


def numbers(test: ir.Compare) -> Range | None:
    """The numbers for which a test holds; None for a test of something else."""
    amounts = [o.amount for o in test.operands if isinstance(o, ir.Number)]
    if not amounts or test.relation not in _RANGES:
        return None
    return _RANGES[test.relation](amounts[0], amounts[-1])


def moments(test: ir.Compare) -> Range | None:
    """The seconds for which a test of dates may hold; None for a test of something else."""
    if type_of(test.subject.name, test.subject.part) not in ("moment", "day"):
        return None
    texts = [o.literal or "" for o in test.operands if isinstance(o, ir.Text)]
    # a zone that is written cannot be compared with that of the recipient
    found = [parse_moment(text, UTC) for text in texts if _NO_ZONE.fullmatch(text)]
    times = [time for time in found if time is not None]
    if not times or len(times) < len(texts) or test.relation not in _RANGES:
        return None
    return _RANGES[test.relation](times[0][0], times[-1][1])


def bounds(test: ir.Compare) -> Range | None:
    """The numbers that the subject of a test can be; None when there is no limit."""
    is_number = type_of(test.subject.name, test.subject.part) == "number"
    return _BOUNDS.get(test.subject.part or test.subject.name) if is_number else None
