"""Dates and times of day: the Date field as its sender wrote it, and the arrival."""

from __future__ import annotations

from mdaflow.lang.ir import Subject
from mdaflow.mail.date import parse_clock, parse_date, parse_moment, parts

from .context import Context, Told, Values


def moment(context: Context, subject: Subject) -> Values:
    """The values of `date` or `received`, or of a part of it."""
    found = _date(context) if subject.name == "date" else (context.envelope.received, None)
    if found is None:
        return []
    seconds, offset = found
    if subject.part == "age":
        return [context.envelope.received - seconds]
    at = parts(seconds, context.settings.zone)
    match subject.part:
        case "":
            return [Told(seconds, f"{at.date} {at.time}")]
        case "date":
            return [Told(seconds, at.date)]
        case "time":
            return [Told(at.hour * 3600 + at.minute * 60 + at.second, at.time)]
        case "weekday":
            return [(at.weekday,)]
        case "zone":
            return [(at.zone if subject.name == "received" else _zone(offset),)]
        case "year":
            return [Told(at.year, f"{at.year:04}")]
    number = getattr(at, subject.part)
    return [Told(number, f"{number:02}")]


def _date(context: Context) -> tuple[float, int | None] | None:
    told = context.given.get(("date", ""))
    if told is not None:
        return (given_moment(context, "moment", str(told[0])), None) if told else None
    for value in context.message.header("Date", raw=True)[:1]:
        return parse_date(value)
    return None


def _zone(offset: int | None) -> str:
    """As the Date field says it; -0000 is unknown (RFC 5322 section 3.3)."""
    if offset is None:
        return "-0000"
    hours, minutes = divmod(abs(offset) // 60, 60)
    return f"{'-' if offset < 0 else '+'}{hours:02}{minutes:02}"


def given_moment(context: Context, kind: str, text: str) -> float:
    """A time that is given as a text."""
    found = parse_clock(text) if kind == "clock" else parse_moment(text, context.settings.zone)
    return Told(found[0] if found else 0.0, text)
