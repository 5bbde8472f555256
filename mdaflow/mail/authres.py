"""What our own MTA found out about the sender: Authentication-Results (RFC 8601).

Only the topmost field of a trusted authserv-id counts. The MTA must remove fields that claim to
be its own from what comes in (RFC 8601 section 5): a reader cannot tell them apart. Comments
are dropped and what is quoted is one word, so that neither can give a result; what is not closed
hides all behind it. Encoded words are not decoded: no MTA writes any here.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from .header import MAX_FIELD
from .message import Message

METHODS = ("spf", "dkim", "dmarc")
"""The methods that always have a result, if only `none`."""

NONE = ("none",)

# The results of RFC 8601 section 6.6, and a word that its predecessors had.
_KNOWN = {
    *("none", "pass", "fail", "policy", "neutral", "softfail", "temperror", "permerror"),
    *("nxdomain", "signed", "unknown", "discard"),
}
_FORMER = {"hardfail": "fail"}
_PIECE = re.compile(r'\\.|[();"]|[^\\();"]+|\\', re.DOTALL)
_RESULT = re.compile(r"\s*([\w-]+)\s*(?:/\s*\d+\s*)?=\s*([\w-]+)(?!\S)", re.ASCII)
_NO_WORD = re.compile(r"[^\w.-]", re.ASCII)


def results(message: Message, trusted: Collection[str]) -> dict[str, tuple[str, ...]]:
    """The results of each method in lower case, e.g. `{"dkim": ("fail", "pass"), …}`.

    `trusted` are authserv-ids, without regard to case. METHODS are always there.
    """
    known = {name.lower() for name in trusted}
    found: dict[str, tuple[str, ...]] = {}
    fields = message.header("Authentication-Results", raw=True) if known else []
    for field in fields:
        name, *claims = _clauses(field[:MAX_FIELD])
        if name.partition(" ")[0].lower() in known:  # a version may follow
            found = _read(claims)
            break
    return {**dict.fromkeys(METHODS, NONE), **found}


def _read(claims: list[str]) -> dict[str, tuple[str, ...]]:
    found: dict[str, list[str]] = {}
    for claim in filter(None, map(_RESULT.match, claims)):
        method, result = claim[1].lower(), claim[2].lower()
        result = _FORMER.get(result, result)
        if result in _KNOWN and result not in found.setdefault(method, []):
            found[method].append(result)
    return {method: tuple(words) for method, words in found.items() if words}


def _clauses(text: str) -> list[str]:
    """What is between semicolons, without comments and the quotes of quoted strings."""
    clauses: list[str] = []
    words: list[str] = []
    depth, quoted = 0, False
    for piece in _PIECE.findall(text + ";"):
        if quoted:
            quoted = piece != '"'
            words.append(_NO_WORD.sub("_", piece) if quoted else "")
        elif depth or piece == "(":
            depth += (piece == "(") - (piece == ")")
            words.append(" ")
        elif piece == ";":
            clauses.append(" ".join("".join(words).split()))
            words = []
        elif piece == '"':
            quoted = True
        else:
            words.append(piece)
    return clauses or [""]
