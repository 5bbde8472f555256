"""Addresses in header fields, read as tolerantly as mail programs read them.

The format is RFC 5322 section 3.4 with what is seen in the wild: groups, comments, routes,
missing brackets. One pass over tokens, so that nothing is slow and nothing recurses; at most
1,000 addresses are read. Addresses of the envelope are another matter: see path.py.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from .header import MAX_FIELD, decode_words, text_of, unfold

MAX_ADDRESSES = 1000

_PIECE = re.compile(r'"(?:[^"\\]|\\.)*"?|<[^<>]*>|[<(),;:]|[^"<(),;:]+', re.DOTALL)
_PAIR = re.compile(r"\\(.)", re.DOTALL)
_SPACE = re.compile(r"\s+")
_AT = re.compile(" ?@ ?")


@dataclass(frozen=True, slots=True)
class Address:
    """One mailbox: the display name, decoded, and the address as written."""

    name: str
    address: str

    @property
    def local(self) -> str:
        """The part before the last `@`."""
        return self.address.rpartition("@")[0] if "@" in self.address else self.address

    @property
    def domain(self) -> str:
        """The part behind the last `@`; empty when there is none."""
        return self.address.rpartition("@")[2] if "@" in self.address else ""


def split_local(local: str, delimiters: str) -> tuple[str, str]:
    """User and detail of a local part, divided at the first of `delimiters` (RFC 5233)."""
    for at, char in enumerate(local):
        if char in delimiters and at > 0:
            return local[:at], local[at + 1 :]
    return local, ""


def without_detail(address: str, delimiters: str) -> str:
    """An address without its subaddress: whose it is, however it was written to."""
    local, at, domain = address.rpartition("@")
    return f"{split_local(local, delimiters)[0]}{at}{domain}" if at else address


def parse_addresses(value: bytes) -> list[Address]:
    """The addresses of one field body; group names are dropped, their members are kept."""
    text = text_of(unfold(value[:MAX_FIELD]))
    found: list[Address] = []
    words: list[str] = []
    comment: list[str] = []
    angle: str | None = None
    depth = 0
    for piece in _pieces(text):
        if piece == "(":
            depth += 1
        elif piece == ")" and depth:
            depth -= 1
        elif depth:
            comment.append(piece)
        elif piece in ",;":
            _finish(found, words, comment, angle)
            words, comment, angle = [], [], None
        elif piece == ":":
            words = []
        elif piece == "<":  # a bracket that was never closed is none
            words.append(" ")
        elif piece[0] == "<" and angle is None:
            angle = piece[1:-1]
        else:
            words.append(piece)
        if len(found) >= MAX_ADDRESSES:
            break
    if depth:  # a comment that was never closed: what stood before it counts
        _finish(found, words, comment[:-1], angle)
    return found


def _pieces(text: str) -> list[str]:
    pieces: list[str] = _PIECE.findall(text + ",")
    last = pieces[-1]
    if last[0] == '"':  # a quote that was never closed is none
        pieces[-1:] = _PIECE.findall(last.replace('"', " "))
    return pieces


def _finish(found: list[Address], words: list[str], comment: list[str], angle: str | None) -> None:
    if angle is not None:
        address = angle.rpartition(":")[2] if angle.lstrip().startswith("@") else angle
        name = _phrase(words) or _phrase(comment)
        found.append(Address(name, _SPACE.sub("", address)))
        return
    bare = "".join(words).strip()
    if not bare:
        return
    if "@" in bare and '"' not in bare:
        # `bob @ example.org` is an address, `Bob bob@example.org` a name and an address
        bare = _AT.sub("@", _SPACE.sub(" ", bare))
        name, _, address = bare.rpartition(" ")
        found.append(Address(_phrase([name]) or _phrase(comment), address))
    elif "@" in bare.rpartition('"')[2]:
        found.append(Address(_phrase(comment), bare))
    elif " " in bare or '"' in bare:
        found.append(Address(_phrase([bare]), ""))
    else:
        found.append(Address(_phrase(comment), bare))


def _phrase(words: list[str]) -> str:
    parts = [_PAIR.sub(r"\1", w[1:].removesuffix('"')) if w[:1] == '"' else w for w in words]
    return _SPACE.sub(" ", decode_words("".join(parts))).strip()
