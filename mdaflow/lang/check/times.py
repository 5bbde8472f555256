"""Operands that are times: strings of a form."""

from __future__ import annotations

TIMES = ("moment", "day", "clock")
"""Types whose operands are strings of a form."""


def is_time(kind: str, text: str) -> bool:
    """Is the text a time of this kind?"""
    from mdaflow.mail.date import parse_clock, parse_moment  # few programs have one

    if kind == "clock":
        return parse_clock(text) is not None
    return parse_moment(text, None) is not None and (kind == "moment" or len(text) == 10)
