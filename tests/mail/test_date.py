"""Dates of mail, and moments of rules."""

from __future__ import annotations

import calendar
import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone, tzinfo
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mdaflow.mail.date import Moment, parse_clock, parse_date, parse_moment, parts
from mdaflow.mail.trace import date

BERLIN = ZoneInfo("Europe/Berlin")
HOUR = 3600
AT = calendar.timegm((2026, 11, 21, 10, 5, 30))


@pytest.fixture
def in_berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The system's local time is that of Berlin."""
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


# 10:05:30 on 21 November 2026 in UTC, and the offset
DATES = {
    "Sat, 21 Nov 2026 10:05:30 +0000": 0,
    "Sat, 21 Nov 2026 11:05:30 +0100": HOUR,
    "21 Nov 2026 05:35:30 -0430": -4.5 * HOUR,
    "Sat, 21 Nov 2026 10:05:30 -0000": None,
    "Sat, 21 Nov 2026 10:05:30": None,
    "Sat,21 Nov 26 10:05:30 GMT": 0,
    "21 Nov 126 10:05:30 UT": 0,
    "Sat, 21 Nov 2026 05:05:30 EST": -5 * HOUR,
    "Sat, 21 Nov 2026 03:05:30 pdt": -7 * HOUR,
    "Sat, 21 Nov 2026 11:05:30 CET": HOUR,
    "Sat, 21 Nov 2026 10:05:30 Q": None,
    "Sat, 21 Nov 2026 11:05:30 GMT+0100": HOUR,
    "Sat, 21 Nov 2026 12:05:30 UTC+2": 2 * HOUR,
    "Sat, 21 Nov 2026 11:05:30 +01:00": HOUR,
    "Sat, 21 Nov 2026 11:05:30 +100": HOUR,
    "Sat, 21 Nov 2026 10:05:30 +9900": None,
    "Sat, 21 Nov 2026 10:05:30 +01000": None,
    "Sat (a (nested) one), 21 Nov (\t) 2026 11 : 05 : 30 +0100 (CET) (": HOUR,
    " sat, 21  november\t2026\n 10.05.30 \"GMT\"": 0,
    "Sat, 21-Nov-2026 10:05:30 GMT": 0,
    "Sat, 21 Nov 2026 10:05:30.123 Z": 0,
    "Sat, 21 Nov 2026 11:5:30 AM +0100": HOUR,
    "Sat Nov 21 10:05:30 2026": None,
    "Sat Nov 21 11:05:30 2026 +0100": HOUR,
    "Sat Nov 21 11:05:30 CET 2026": HOUR,
    "November 21, 2026, 10:05:30 a.m. GMT": 0,
    "Nov, 21 2026 11:05:30 AM +0100": HOUR,
    "2026-11-21 11:05:30 +0100": HOUR,
    "2026-11-21T10:05:30Z": 0,
    "2026-11-21T10:05:30.5+00:00": 0,
}  # fmt: skip


@pytest.mark.parametrize(("text", "offset"), DATES.items())
def test_dates(text: str, offset: float | None) -> None:
    """A date is read as it is seen in the wild, with the offset of its sender."""
    assert parse_date(text) == (AT, offset)


MORE_DATES = {
    "1 Jan 1970 00:00 +0000": 0,
    "1 Jan 70 00:00:00 GMT": 0,
    "1 Jan 49 00:00:00 GMT": calendar.timegm((2049, 1, 1, 0, 0, 0)),
    "1 Jan 1970 12:00 AM GMT": 0,
    "1 Jan 1970 12:30 PM GMT": 12.5 * HOUR,
    "29 Feb 2024 23:59:60 GMT": calendar.timegm((2024, 3, 1, 0, 0, 0)),
    "1 Mar 2100 00:00:00 GMT": calendar.timegm((2100, 3, 1, 0, 0, 0)),
    "31 Dec 9999 23:59:59 GMT": calendar.timegm((9999, 12, 31, 23, 59, 59)),
    "1 Jan 0001 00:00:00 GMT": calendar.timegm((1, 1, 1, 0, 0, 0)),
}


@pytest.mark.parametrize(("text", "seconds"), MORE_DATES.items())
def test_more_dates(text: str, seconds: float) -> None:
    """Days are counted by the Gregorian calendar, from year 1 to 9999."""
    assert parse_date(text) == (seconds, 0)


@pytest.mark.parametrize(
    "text",
    [
        *("", "x", "Sat", "21 Nov 2026", "10:05:30", "Sat, 21 Nov 10:05:30", "2026-11-21"),
        *("31 Nov 2026 10:05:30 GMT", "29 Feb 2026 10:00 GMT", "0 Nov 2026 10:05 GMT"),
        *("21 Nov 2026 24:00:00 GMT", "21 Nov 2026 10:60:00 GMT", "21 Nov 2026 10:05:61 GMT"),
        *("21 Nov 0000 10:05:30 GMT", "21 Foo 2026 10:05:30 GMT", "2026-13-01 10:05:30"),
        *("21 Nov 20260 10:05:30 GMT", "(21 Nov 2026 10:05:30)", "٢١ Nov 2026 10:05:30", "\0"),
    ],
)
def test_no_dates(text: str) -> None:
    """What names no point in time is no date."""
    assert parse_date(text) is None


@given(st.integers(0, 253_402_300_799))
def test_own_dates(seconds: int) -> None:
    """A date that we write is read back."""
    assert parse_date(date(seconds)) == (seconds, 0)


WORDS = ["Sat", ",", " ", "21", "Nov", "2026", "10:05", ":30", "+0100", "GMT", "(", ")", "-", "T"]


@given(st.one_of(st.text(), st.lists(st.sampled_from(WORDS), max_size=20).map("".join)))
@example("(" * 100_000)
@example("()" * 100_000)
@example("1 " * 100_000)
def test_any_text_is_a_date_or_none(text: str) -> None:
    """Any text gives a date that a clock can show, or nothing."""
    found = parse_date(text)
    if found:
        seconds, offset = found
        assert offset is None or abs(offset) < 24 * HOUR
        assert 1 <= parts(seconds, BERLIN).year <= 9999


# text | zone | seconds from its start in UTC | seconds it lasts
MOMENTS: dict[str, tuple[tzinfo, tuple[int, ...], float]] = {
    "2026-12-20": (BERLIN, (2026, 12, 19, 23, 0, 0), 24 * HOUR),
    "2026-03-29": (BERLIN, (2026, 3, 28, 23, 0, 0), 23 * HOUR),
    "2026-10-25": (BERLIN, (2026, 10, 24, 22, 0, 0), 25 * HOUR),
    "2026-12-20 10:00": (BERLIN, (2026, 12, 20, 9, 0, 0), 60),
    "2026-07-20T10:00": (BERLIN, (2026, 7, 20, 8, 0, 0), 60),
    "2026-12-20 10:00:30": (BERLIN, (2026, 12, 20, 9, 0, 30), 1),
    "2026-10-25 02:30": (BERLIN, (2026, 10, 25, 0, 30, 0), 60),
    "2026-10-25 03:30": (BERLIN, (2026, 10, 25, 2, 30, 0), 60),
    "2026-12-20Z": (BERLIN, (2026, 12, 20, 0, 0, 0), 24 * HOUR),
    "2026-12-20T10:00:30Z": (BERLIN, (2026, 12, 20, 10, 0, 30), 1),
    "2026-12-20 10:00+01:00": (ZoneInfo("UTC"), (2026, 12, 20, 9, 0, 0), 60),
    "2026-12-20 10:00 -0130": (BERLIN, (2026, 12, 20, 11, 30, 0), 60),
}


@pytest.mark.parametrize(("text", "moment"), MOMENTS.items())
def test_moments(text: str, moment: tuple[tzinfo, tuple[int, ...], float]) -> None:
    """A moment covers its day, minute or second; days of 23 and 25 hours too."""
    zone, start, lasts = moment
    seconds = calendar.timegm(start)
    assert parse_moment(text, zone) == (seconds, seconds + lasts)


@pytest.mark.usefixtures("in_berlin")
@pytest.mark.parametrize(("text", "moment"), MOMENTS.items())
def test_local_moments(text: str, moment: tuple[tzinfo, tuple[int, ...], float]) -> None:
    """Without a zone a moment is one of the system's local time."""
    assert parse_moment(text, None) == parse_moment(text, BERLIN)


@pytest.mark.parametrize(
    "text",
    [
        *("", "x", "2026", "2026-12", "2026-13-01", "2026-02-29", "2026-12-20 24:00"),
        *("2026-12-20 10", "2026-12-20 10:60", "2026-12-20 10:00:60", "0000-01-01", " 2026-12-20"),
        *("2026-12-20 10:00+99:00", "9999-12-31", "20 Dec 2026", "２０２６-12-20", "2026-12-20\n"),
    ],
)
def test_no_moments(text: str) -> None:
    """What is no moment of the calendar covers nothing."""
    assert parse_moment(text, BERLIN) is None


@given(st.one_of(st.text(), st.from_regex(r"\d{4}-\d\d-\d\d( \d\d:\d\d(:\d\d)?)?", fullmatch=True)))
@example("0001-01-01")
@example("0001-01-01 00:00+01:00")
def test_any_text_is_a_moment_or_none(text: str) -> None:
    """Any text gives an interval of some length, or nothing."""
    found = parse_moment(text, BERLIN)
    assert found is None or found[0] < found[1]


CLOCKS = {
    "22:00": (22 * HOUR, 22 * HOUR + 60),
    "22:00:30": (22 * HOUR + 30, 22 * HOUR + 31),
    "9:05": (9 * HOUR + 300, 9 * HOUR + 360),
    "00:00": (0, 60),
    "23:59:59": (24 * HOUR - 1, 24 * HOUR),
    **dict.fromkeys(["", "24:00", "10", "10:60", "10:5", "10:00:60", " 10:00", "10:00\n", "x"]),
}


@pytest.mark.parametrize(("text", "seconds"), CLOCKS.items())
def test_clocks(text: str, seconds: tuple[int, int] | None) -> None:
    """A time of day covers its minute or its second."""
    assert parse_clock(text) == seconds


PARTS = [
    (BERLIN, Moment(2026, 11, 21, "saturday", 11, 5, 30, "2026-11-21", "11:05", "+0100")),
    (
        ZoneInfo("Asia/Kolkata"),
        Moment(2026, 11, 21, "saturday", 15, 35, 30, "2026-11-21", "15:35", "+0530"),
    ),
    (
        timezone(-timedelta(hours=10, minutes=6)),
        Moment(2026, 11, 20, "friday", 23, 59, 30, "2026-11-20", "23:59", "-1006"),
    ),
]


@pytest.mark.parametrize(("zone", "moment"), PARTS)
def test_parts(zone: tzinfo, moment: Moment) -> None:
    """A point in time has the parts that a clock shows in its zone."""
    assert parts(AT + 0.9, zone) == moment


@pytest.mark.usefixtures("in_berlin")
@given(st.datetimes(datetime(1990, 1, 1), datetime(2037, 1, 1)).map(datetime.timestamp))
def test_local_parts(seconds: float) -> None:
    """Without a zone the clock is the system's."""
    assert parts(seconds, None) == parts(seconds, BERLIN)


@pytest.mark.parametrize("seconds", [-1e30, 1e30, float("inf"), float("-inf")])
@pytest.mark.parametrize("zone", [None, BERLIN, timezone(timedelta(hours=23))])
def test_parts_of_what_no_clock_shows(seconds: float, zone: tzinfo | None) -> None:
    """Times beyond all calendars are shown as the first or the last day."""
    assert parts(seconds, zone).year in (1, 9999)


def test_moment_holds_its_parts() -> None:
    """Every hour of two days with a change of the clock is in the day that it shows."""
    for day in ("2026-03-29", "2026-10-25"):
        start, end = parse_moment(day, BERLIN) or (0.0, 0.0)
        shown = [parts(start + n, BERLIN).date for n in range(0, int(end - start), 600)]
        assert set(shown) == {day}
        assert parts(start - 1, BERLIN).date < day < parts(end, BERLIN).date
