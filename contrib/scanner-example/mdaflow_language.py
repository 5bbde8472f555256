"""A scanner for mdaflow: in which writing the body of a message is.

It counts the letters of the first `LOOK_AT` characters by their script, as their Unicode names
begin, and names each that has a share of them: `finding "language"` is e.g. `latin` or `cyrillic`.
A script of one language gives that language: `greek`, `korean`, `japanese`. It knows no words, so
what is in Latin letters is `latin`, whichever language it is.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Mapping

from mdaflow import Envelope, Message, Report

LOOK_AT = 20_000
"""Characters of a body."""

_LANGUAGE = {
    "cjk": "chinese",
    "hangul": "korean",
    "hiragana": "japanese",
    "katakana": "japanese",
}


def make(options: Mapping[str, object]) -> Language:
    """What mdaflow calls. Raises ValueError for options that cannot be used."""
    share = options.get("share", 0.2)
    if not isinstance(share, int | float) or not 0 < share <= 1:
        raise ValueError("share is a number above 0, at most 1")
    if unknown := options.keys() - {"share"}:
        raise ValueError(f"there is no option {min(unknown)!r}; share is the only one")
    return Language(share)


class Language:
    """A scanner; see `mdaflow.Scanner`."""

    name = "language"

    def __init__(self, share: float) -> None:
        """`share`: of all letters, from which on a script counts."""
        self._share = share

    def scan(self, message: Message, envelope: Envelope, seconds: float) -> Report:
        """The scripts of the body, the commonest first. Nothing here waits for anybody."""
        counts = Counter(map(_language, filter(str.isalpha, message.body[:LOOK_AT])))
        enough = counts.total() * self._share
        found = tuple(name for name, count in counts.most_common() if count >= enough)
        return Report(findings={"language": found} if found else {})


def _language(letter: str) -> str:
    """The language of a letter, or its script: the first word of its name (U+0416: CYRILLIC)."""
    script = unicodedata.name(letter, "unnamed").split(" ")[0].lower()
    return _LANGUAGE.get(script, script)
