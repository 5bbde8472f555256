"""Points in time: the dates of mail (RFC 5322 section 3.3), and what rules say of time.

Dates of mail are read as they are seen: obsolete and common names of zones, years of two
digits, missing seconds, the order of asctime and of ISO 8601, comments. Moments of rules are
strict. A time is in seconds since the epoch, UTC; a zone is a tzinfo, or None for the system's.

Known limits: a local time that comes twice, when summer time ends, is the first of the two; one
that does not exist is read with the offset from before the gap. Abbreviations that are used for
several zones (IST) are unknown. No I/O but for the system's own tables of zones.
"""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:  # imported where it is needed: most messages are sorted without a calendar
    from datetime import tzinfo

MAX_DATE = 256
"""Characters of a date that are looked at."""

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_HOURS: dict[str, float] = {
    "UT": 0, "GMT": 0, "UTC": 0, "Z": 0, "WET": 0, "WEST": 1, "BST": 1,
    "EST": -5, "EDT": -4, "CST": -6, "CDT": -5, "MST": -7, "MDT": -6, "PST": -8, "PDT": -7,
    "AKST": -9, "AKDT": -8, "HST": -10, "NST": -3.5, "NDT": -2.5,
    "CET": 1, "MET": 1, "MEZ": 1, "CEST": 2, "MEST": 2, "MESZ": 2, "EET": 2, "EEST": 3, "MSK": 3,
    "HKT": 8, "SGT": 8, "AWST": 8, "JST": 9, "KST": 9, "ACST": 9.5, "ACDT": 10.5,
    "AEST": 10, "AEDT": 11, "NZST": 12, "NZDT": 13,
}  # fmt: skip
"""Names of zones -> hours east of Greenwich: those of RFC 5322, and those that are often seen."""

_CLOCK = (
    r"(?P<hour>\d\d?) ?[:.] ?(?P<minute>\d\d?)(?: ?[:.] ?(?P<second>\d\d?))?(?:[.,]\d+)?"
    r"(?: ?(?P<half>[ap])\.?m\b\.?)?"
)
_ZONE = r"(?: ?(?P<name>[a-z]+))?(?: ?(?P<sign>[+-])(?P<hours>\d\d?):?(?P<minutes>\d\d)?(?!\d))?"
_MONTH = r"(?P<month>[a-z]{3})[a-z]*\.?"
_MONTH_DAY = rf"(?:[a-z]+,? )?{_MONTH},? (?P<day>\d\d?),?"
_YEAR = r"(?P<year>\d{4})(?!\d)"
_DATES = (  # compiled when the first date is read: `re` keeps them
    # Sat, 21 Nov 2026 10:05:00 +0100
    rf"\D{{0,20}}(?P<day>\d\d?)[ -]?{_MONTH}[ ,-]*(?P<year>\d{{2,4}}),? {_CLOCK}{_ZONE}",
    # Sat Nov 21 10:05:00 2026 +0100
    rf"{_MONTH_DAY} {_CLOCK} {_YEAR}{_ZONE}",
    # Sat Nov 21 10:05:00 CET 2026
    rf"{_MONTH_DAY} {_CLOCK}{_ZONE} {_YEAR}",
    # November 21, 2026, 10:05 PM
    rf"{_MONTH_DAY} {_YEAR},? {_CLOCK}{_ZONE}",
    # 2026-11-21T10:05:00+01:00
    rf"{_YEAR}-(?P<month>\d\d)-(?P<day>\d\d)[ T]{_CLOCK}{_ZONE}",
)
_COMMENT = re.compile(r"\([^()]*\)")
_SPACE = re.compile(r'[\s"]+')
_MOMENT = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)(?:[T ](\d\d):(\d\d)(?::(\d\d))?)?"
    r"(?: ?(?:(Z)|([+-])(\d\d):?([0-5]\d)))?",
    re.ASCII,
)
_TIME_OF_DAY = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)(?::([0-5]\d))?", re.ASCII)

_DAY = 86_400
# One day within what a datetime can be, so that it can in every zone.
_FIRST, _LAST = -62_135_510_400.0, 253_402_214_400.0


class Moment(NamedTuple):
    """A point in time as a clock on the wall shows it."""

    year: int
    month: int
    day: int
    weekday: str
    """`monday` to `sunday`."""
    hour: int
    minute: int
    second: int
    date: str
    """`2026-12-20`."""
    time: str
    """`10:05`."""
    zone: str
    """The offset from UTC: `+0100`."""


def parse_date(text: str) -> tuple[float, int | None] | None:
    """The time of a Date field, and its offset in seconds east of Greenwich.

    The offset is None where the sender did not tell his zone (`-0000`, or nothing that is
    known); the time is UTC then. None for what is no date.
    """
    line, before = text[:MAX_DATE], ""
    while line != before:  # the innermost comments first
        line, before = _COMMENT.sub(" ", line), line
    line = _SPACE.sub(" ", line).strip(" ")
    found = next((m for date in _DATES if (m := re.match(date, line, re.A | re.I))), None)
    seconds = _seconds(found) if found else None
    if found is None or seconds is None:
        return None
    offset = _offset(found)
    return float(seconds - (offset or 0)), offset


def _seconds(found: re.Match[str]) -> int | None:
    """The seconds since the epoch that a clock in Greenwich would show so; None if none can."""
    month_name, half = found["month"].lower(), (found["half"] or "").lower()
    if not month_name.isdigit() and month_name not in _MONTHS:
        return None
    month = int(month_name) if month_name.isdigit() else _MONTHS.index(month_name) + 1
    year, day = _full_year(found["year"]), int(found["day"])
    hour, minute, second = (int(found[name] or 0) for name in ("hour", "minute", "second"))
    if half:
        hour = hour % 12 + 12 * (half == "p")
    if not (year >= 1 and 1 <= month <= 12 and hour < 24 and minute < 60 and second <= 60):
        return None
    start = _days(year, month)
    if not 1 <= day <= _days(year + month // 12, month % 12 + 1) - start:
        return None
    return (start + day - 1) * _DAY + hour * 3600 + minute * 60 + second


def _full_year(digits: str) -> int:
    """RFC 5322 section 4.3: years of two and three digits are counted from 1900 or 2000."""
    year = int(digits)
    if len(digits) == 4:
        return year
    return year + (2000 if len(digits) == 2 and year < 50 else 1900)


def _days(year: int, month: int) -> int:
    """The days from the epoch to the first of a month. `calendar` would import datetime."""
    y = year - (month < 3)  # a year begins in March: its leap day is the last
    return 365 * y + y // 4 - y // 100 + y // 400 + (153 * ((month + 9) % 12) + 2) // 5 - 719_468


def _offset(found: re.Match[str]) -> int | None:
    """Seconds east of Greenwich; None when the zone is unknown."""
    hours, minutes = int(found["hours"] or 0), int(found["minutes"] or 0)
    if found["sign"] is None:
        known = _HOURS.get((found["name"] or "").upper())
        return None if known is None else int(known * 3600)
    if hours > 23 or minutes > 59 or (found["sign"] == "-" and hours == minutes == 0):
        return None
    return (hours * 3600 + minutes * 60) * (-1 if found["sign"] == "-" else 1)


def parse_moment(text: str, zone: tzinfo | None) -> tuple[float, float] | None:
    """What a text in a rule covers, from the first second to the one behind the last.

    `2026-12-20` covers the day in `zone`, which has 23 to 25 hours; `2026-12-20 10:00` the
    minute; `2026-12-20 10:00:30` the second. `T` may stand for the blank, `Z` or `+01:00` at
    the end for another zone. None for anything else.
    """
    from datetime import datetime, timedelta, timezone

    found = _MOMENT.fullmatch(text)
    if found is None:
        return None
    year, month, day, hour, minute, second, utc, sign, hours, minutes = found.groups()
    try:
        if utc or sign:
            east = timedelta(hours=int(hours or 0), minutes=int(minutes or 0))
            zone = timezone(-east if sign == "-" else east)
        clock = (int(hour or 0), int(minute or 0), int(second or 0))
        start = datetime(int(year), int(month), int(day), *clock, tzinfo=zone)
        if hour is None:
            return start.timestamp(), (start + timedelta(days=1)).timestamp()
        return start.timestamp(), start.timestamp() + (1 if second else 60)
    except (ValueError, OverflowError):  # no such day, hour or zone
        return None


def parse_clock(text: str) -> tuple[int, int] | None:
    """What `22:00` or `22:00:30` covers, in seconds since midnight; the end is not in it."""
    found = _TIME_OF_DAY.fullmatch(text)
    if found is None:
        return None
    start = int(found[1]) * 3600 + int(found[2]) * 60 + int(found[3] or 0)
    return start, start + (1 if found[3] else 60)


def parts(seconds: float, zone: tzinfo | None) -> Moment:
    """What a clock in `zone` shows at a time. Before year 1 and after 9999 it stands still."""
    seconds = min(max(seconds, _FIRST), _LAST)
    if zone is None:
        t = time.localtime(seconds)
        east = t.tm_gmtoff
    else:
        from datetime import datetime, timedelta

        local = datetime.fromtimestamp(seconds, zone)
        t = local.timetuple()
        east = int((local.utcoffset() or timedelta(0)).total_seconds())
    return Moment(
        *t[:3],
        _WEEKDAYS[t.tm_wday],
        *t[3:6],
        f"{t.tm_year:04}-{t.tm_mon:02}-{t.tm_mday:02}",
        f"{t.tm_hour:02}:{t.tm_min:02}",
        f"{'-' if east < 0 else '+'}{abs(east) // 3600:02}{abs(east) // 60 % 60:02}",
    )
