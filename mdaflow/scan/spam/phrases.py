"""What spam says, by subject: groups of phrases in many languages, in `phrases.txt`.

All phrases are looked for at once, in time linear in the text: in two automata, since the states of
those with a gap (`{0,50}`) would be multiplied by those of all others. A group counts its different
phrases, not how often each stands there: one alone often means nothing.
"""

from __future__ import annotations

import re
from collections import Counter
from functools import cache
from typing import Any, NamedTuple

from .names import sections

MEMORY = 32 << 20
"""Bytes that each automaton may take. With less it is built again and again."""

_GAP = re.compile(r"\{0,\d\d\}")
_SEEN_AS = dict.fromkeys(map(ord, "\u00ad\u200b\u200c\u200d\u2060\ufeff")) | dict.fromkeys(
    map(ord, "’‘´`"), "'"
)


class _Phrases(NamedTuple):
    automaton: Any
    groups: list[str]
    """The group of each phrase."""


def heard(text: str) -> Counter[str]:
    """How many different phrases of each group stand in a text."""
    text = " ".join(text.lower().split())
    if not text.isascii():
        text = text.translate(_SEEN_AS)
    return Counter(
        phrases.groups[at] for phrases in _all() for at in phrases.automaton.Match(text) or ()
    )


@cache
def _all() -> tuple[_Phrases, ...]:
    """All phrases. It costs some 30 ms to read them, and more with the first texts."""
    phrases = [(g, p) for g, found in sections("phrases.txt").items() for p in found]
    return tuple(
        _compiled([(g, p) for g, p in phrases if bool(_GAP.search(p)) is gap])
        for gap in (False, True)
    )


def _compiled(phrases: list[tuple[str, str]]) -> _Phrases:
    import re2

    options = re2.Options()
    options.log_errors = False
    options.max_mem = MEMORY
    automaton = re2.Set.SearchSet(options)
    for _, phrase in phrases:
        automaton.Add(phrase)
    automaton.Compile()
    return _Phrases(automaton, [group for group, _ in phrases])
