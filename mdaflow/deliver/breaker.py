"""Whom we leave alone for a while: a next hop that did not answer a moment ago.

Without this every delivery that sends something would wait for a hung next hop, one thread each,
until none is left. After a step that nobody answered the hop is left alone for 10 seconds; then
one caller tries, and the others go on without until that one knows. A transaction that came to
its end, or an answer that ended it, closes the matter. Each process finds out for itself.

Known limit: those who ask a hop together, before the first of them knows, all wait for it.
"""

from __future__ import annotations

import threading
import time

PAUSE = 10.0
"""Seconds for which a hop that did not answer is not asked."""
TRIAL = 120.0
"""Seconds that are given to the one who tries; then another does."""

_lock = threading.Lock()
_until: dict[str, float] = {}
"""When hops that did not answer may be tried again, on the monotonic clock."""


def may_ask(hop: str) -> bool:
    """Whether this caller may talk to a hop; then he says `silent` or `answered`."""
    with _lock:
        now = time.monotonic()
        if now < _until.get(hop, now):
            return False
        if hop in _until:
            _until[hop] = now + TRIAL
        return True


def silent(hop: str) -> None:
    """It did not answer in time, or there was no connection."""
    with _lock:
        _until[hop] = time.monotonic() + PAUSE


def answered(hop: str) -> None:
    """It is there."""
    with _lock:
        _until.pop(hop, None)
