"""Tests of what a message says, and how.

A test gives how far it is met, from 0 (not at all) to 1.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from .clues import MAX_PART, Clues, Tests
from .headers import shouting

_INVISIBLE = re.compile(
    r"[a-z](?:[\u00ad\u200b-\u200d\u2060\ufeff]|&shy;|&zwnj;|&#8203;|&#173;)[a-z]", re.IGNORECASE
)
_MIXED = re.compile(
    r"[a-z][\u0391-\u03c9\u0400-\u045f]{1,3}[a-z]|[\u0400-\u045f][a-z]{1,2}[\u0400-\u045f]",
    re.IGNORECASE,
)
_GAPPY = re.compile(r"(?<!\w)(?:[A-Za-z][ ._*-]){5,40}[A-Za-z](?!\w)")
_MONEY = re.compile(r"[$€£]\s?\d[\d,.]*")
_RANDOM_LINE = re.compile(
    r"^[^\S\n]*(?=[a-z0-9]*\d)(?=[a-z0-9]*[a-z])[a-z0-9]{8,60}(?:-[a-z0-9]{1,40})?[^\S\n]*$",
    re.MULTILINE,
)
_QUOTED = re.compile(r"^[>|]", re.MULTILINE)
_WROTE = re.compile(
    r"^[^\n]{0,120}\b(?:wrote|writes|said|schrieb|écrit|escribió"
    r"|escreveu|scritto|schreef|skrev)\b[^\n]{0,40}:",
    re.MULTILINE | re.IGNORECASE,
)
_NO_CHARSET = ("", "us-ascii", "ascii", "unknown", "unknown-8bit", "x-unknown")
_SIGNATURE = re.compile(r"^-- ?$", re.MULTILINE)
_PATCH = re.compile(
    r"^(?:diff -|@@ -\d|Index: |--- a/|\+\+\+ b/|commit [0-9a-f]{40})"
    r"|^\s{1,20}(?:if|for|def|return|#include|printf)\b",
    re.MULTILINE,
)
_GREETING = re.compile(
    r"\b(?:dear|hello|hi|attn:?|attention:?|greetings|good (?:day|morning)"
    r"|sehr geehrter?|bonjour|hola|olá)[\s,]{1,3}(\S{1,80}@\S{1,80}?)[,!:.;)]{0,3}\s",
    re.IGNORECASE,
)


def _many(group: str, few: int, many: int) -> Callable[[Clues], float]:
    """How much is said of a group: nothing below `few` phrases, all from `many` on.

    A long text has phrases of everything, so they count less there.
    """
    return lambda c: min(1.0, max(0.0, (c.said[group] * c.density - few + 1) / (many - few + 1)))


def _shouting_words(c: Clues) -> float:
    long = [word for word in c.words[:5000] if len(word) > 3]
    upper = sum(map(str.isupper, long))
    return min(1.0, max(0.0, upper / len(long) - 0.1) / 0.4) if len(long) >= 20 else 0.0


def _exclaims(c: Clues) -> float:
    marks = c.shown.count("!")
    return min(1.0, max(0.0, 40 * marks / (len(c.words) + 20) - 0.3)) if marks > 2 else 0.0


def _unlabelled(c: Clues) -> bool:
    """Text with bytes that are no ASCII, and no word of what they mean."""
    return any(
        part.type.startswith("text/")
        and not part.attached
        and part.charset.lower() in _NO_CHARSET
        and not part.content(MAX_PART).isascii()
        for part in c.parts[:10]
    )


def _needless_base64(c: Clues) -> bool:
    """Text of ASCII alone that is hidden in base64."""
    return (
        any(
            part.encoding == "base64" and part.type.startswith("text/") and not part.attached
            for part in c.parts[:10]
        )
        and (c.plain + c.html).isascii()
    )


def _greets_address(c: Clues) -> bool:
    found = _GREETING.search(c.shown[:2000])
    known = {a.address.lower() for a in c.recipients[:5]}
    return found is not None and (found[1].strip("<>").lower() in known or len(c.recipients) == 0)


def _greets_name(c: Clues) -> bool:
    """`Dear bob.smith`: by the local part of the address."""
    start = c.shown[:1000].lower()
    found = (
        a.local.lower() for a in c.recipients[:3] if len(a.local) > 4 and not a.local.isalpha()
    )
    return any(
        re.search(rf"\b(?:dear|hello|hi|hey)[\s,]+{re.escape(local)}\b", start) for local in found
    )


def _text(pattern: re.Pattern[str], least: int = 1) -> Callable[[Clues], bool]:
    """Whether the text that is shown has a pattern so often."""

    def test(c: Clues) -> bool:
        found = pattern.finditer(c.shown)
        return sum(1 for _, _ in zip(range(least), found, strict=False)) >= least

    return test


TESTS: Tests = {
    # what is said
    "SAYS_FEE": _many("fee", 2, 6),
    "SAYS_LOTTERY": _many("lottery", 1, 4),
    "SAYS_DRUGS": _many("drugs", 1, 4),
    "SAYS_POTENCY": _many("potency", 1, 3),
    "SAYS_HEALTH": _many("health", 1, 4),
    "SAYS_SEX": _many("sex", 2, 5),
    "SAYS_LOANS": _many("loans", 1, 5),
    "SAYS_RICHES": _many("riches", 1, 4),
    "SAYS_CRYPTO": _many("crypto", 2, 5),
    "SAYS_EXTORTION": _many("extortion", 3, 6),
    "SAYS_THREAT": _many("threat", 2, 6),
    "SAYS_PARCEL": _many("parcel", 2, 4),
    "SAYS_PAPERS": _many("papers", 2, 5),
    "SAYS_LISTS": _many("lists", 2, 5),
    "SAYS_SEO": _many("seo", 2, 5),
    "SAYS_TRADE": _many("trade", 2, 5),
    "SAYS_STOCKS": _many("stocks", 2, 6),
    "SAYS_GOODS": _many("goods", 1, 4),
    "SAYS_CASINO": _many("casino", 1, 4),
    "SAYS_SALES": _many("sales", 2, 8),
    "SAYS_EXCUSE": _many("excuse", 1, 4),
    "SAYS_LEAVE": _many("leave", 1, 4),
    "SAYS_TASK": _many("task", 2, 4),
    "GREETS_STRANGER": _many("stranger", 1, 1),
    "GREETS_ADDRESS": _greets_address,
    "GREETS_LOCAL_PART": _greets_name,
    # how it is said
    "TEXT_EMPTY": lambda c: not c.shown.strip() and not c.attachments,
    "TEXT_SHOUTS": _shouting_words,
    "TEXT_SHOUTS_ALL": lambda c: len(c.words) > 40 and shouting(c.shown),
    "TEXT_EXCLAIMS": _exclaims,
    "TEXT_GAPPY": _text(_GAPPY),
    "TEXT_OBFUSCATED": _many("broken", 1, 1),
    "TEXT_MIXED": _text(_MIXED, 2),
    "TEXT_INVISIBLE": _text(_INVISIBLE, 2),
    "TEXT_MONEY": _text(_MONEY, 4),
    "TEXT_BIG_MONEY": _many("millions", 1, 1),
    "TEXT_RANDOM_LINE": _text(_RANDOM_LINE),
    "TEXT_PHONE": _many("phone", 1, 1),
    "TEXT_UNLABELLED": _unlabelled,
    "TEXT_NEEDLESS_BASE64": _needless_base64,
    # what speaks for people
    "QUOTES": lambda c: len(_QUOTED.findall(c.plain)) >= 2,
    "QUOTES_SOMEBODY": lambda c: bool(_WROTE.search(c.plain[:20_000])),
    "SIGNATURE": lambda c: bool(_SIGNATURE.search(c.plain)),
    "PATCH": lambda c: bool(_PATCH.search(c.plain)),
    "SIGNED": lambda c: any("signature" in p.type for p in c.parts) or "-----BEGIN PGP" in c.plain,
}
