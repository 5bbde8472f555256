"""What all scanners together say of a message, and how it is kept for a while as text.

Nothing here asks anybody. Whoever could not say is in `unscanned`, and makes the whole unscanned
unless a virus was found.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from mdaflow.engine.plan import printable

from . import Hit, Report

MAX_NAME = 200
"""Characters of the name of a virus, and of why something was not scanned."""
MAX_STATUS = 800
"""Characters of a status, which becomes a header field."""


class Verdict(NamedTuple):
    """What several scanners say."""

    viruses: tuple[str, ...] = ()
    hits: tuple[Hit, ...] = ()
    unscanned: tuple[str, ...] = ()
    """Who could not say, or not all: `clamd: timed out`."""

    @property
    def virus_status(self) -> str:
        """`Clean`, or what else there is to say, as a header field has it: why something was not
        scanned names places of ours, so it is not for senders and recipients."""
        if self.viruses:
            return f"Infected ({', '.join(self.viruses)})"[:MAX_STATUS]
        if self.unscanned:
            return f"Not scanned ({_who(self.unscanned)})"[:MAX_STATUS]
        return "Clean"


def _who(unscanned: Sequence[str]) -> str:
    """The names of scanners, without why."""
    return ", ".join(why.partition(":")[0] for why in unscanned)


def combined(reports: Iterable[tuple[str, Report]]) -> Verdict:
    """One verdict from the reports of several scanners, each with its scanner's name."""
    named = list(reports)
    viruses = (cleaned(virus) for _, report in named for virus in report.viruses)
    return Verdict(
        tuple(dict.fromkeys(viruses)),
        tuple(hit for _, report in named for hit in report.hits),
        tuple(f"{name}: {cleaned(r.unscanned)}" for name, r in named if r.unscanned),
    )


def total(hits: Iterable[Hit]) -> float:
    """The score of all hits together, to a hundredth."""
    return round(math.fsum(hit.score for hit in hits), 2) + 0.0  # no -0.0


def spam_status(hits: Sequence[Hit], required: float, unscanned: Sequence[str] = ()) -> str:
    """`Yes, score=7.1 required=5.0 tests=A,B`, with who could not say behind it."""
    score = total(hits)
    by_weight = sorted(hits, key=lambda hit: -abs(hit.score))
    tests = ",".join(hit.name for hit in by_weight) or "none"
    said = "Yes" if score >= required else "No"
    text = f"{said}, score={score:.1f} required={required:.1f} tests={tests}"
    more = f" (not scanned: {_who(unscanned)})" if unscanned else ""
    return f"{text[: MAX_STATUS - len(more[:MAX_NAME])]}{more[:MAX_NAME]}"


def cleaned(text: str) -> str:
    """What a scanner has called something, as one short line."""
    return " ".join(printable(text[: 2 * MAX_NAME]).split())[:MAX_NAME] or "?"


# --- kept as text ------------------------------------------------------------------------------


def dumps(report: Report) -> str:
    """A report as text; `loads` makes it that again."""
    hits = [list(hit) for hit in report.hits]
    return json.dumps([report.viruses, hits, dict(report.findings), report.unscanned])


def loads(text: str) -> Report | None:
    """The report; None for any other text, as a store may hold (P43)."""
    try:
        viruses, hits, findings, unscanned = json.loads(text)
        return Report(
            tuple(map(_text, viruses)),
            tuple(Hit(_text(name), _number(score), _text(why)) for name, score, why in hits),
            {_text(name): tuple(map(_text, values)) for name, values in findings.items()},
            _text(unscanned),
        )
    except (ValueError, TypeError, AttributeError, RecursionError):
        return None


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _number(value: Any) -> float:
    if not isinstance(value, float | int) or not math.isfinite(value):
        raise TypeError
    return float(value)
