"""What the header of a part declares, in all the ways in which readers of mail read it.

RFC 2045 leaves one way to read a Content-Type; programs have found many more: the first or the
last of two fields, quotes that are not closed, comments, RFC 2231 or not, a bare CR as a line end.
Here are all of them, bounded. What nobody reads in two ways is `plain`. Nothing here raises.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import groupby
from urllib.parse import unquote_to_bytes

from . import header
from .raw import Raw

MAX_VALUE = 4 << 10
MAX_FIELDS = 20
MAX_READINGS = 32
MAX_SECTIONS = 64
MAX_PARAMETER = 1_000
"""Characters of one parameter, or of one section of it."""

Declared = dict[str, list[bytes]]
"""Field -> the different bodies of those fields, folded as they came."""

_FIELD = re.compile(
    rb"^(content-(?:type|transfer-encoding|disposition|description|location))"
    rb"[\x00-\x09\x0b-\x20]*+:([^\n]*+(?:\n[ \t][^\n]*+)*+)",
    re.MULTILINE | re.IGNORECASE,
)
_QUOTED = rb'"[^"\\\x00-\x1f\x7f-\xff]*"'
_TOKEN = rb'[^\s;"(),\\\x00-\x1f\x7f-\xff]+'
_PLAIN = re.compile(
    rb"\s*[\w!#$&^.+-]+(?:/[\w!#$&^.+-]+)?\s*"
    rb"(?:;\s*[\w.-]+\s*=(?:\s*(?:" + _QUOTED + rb"|" + _TOKEN + rb"))?\s*)*;?\s*"
)


def declared(raw: Raw, start: int, end: int) -> Declared:
    """The fields about content in a header block, at most 20 of each name."""
    head = raw[start:end]
    found: Declared = {}
    for text in _spellings(head):
        for field in _FIELD.finditer(text):
            values = found.setdefault(field[1].decode("latin-1").lower(), [])
            value = field[2][:MAX_VALUE].strip(b" \t\r\n\0")
            if value not in values and len(values) < MAX_FIELDS:
                values.append(value)
    return found


def _spellings(head: bytes) -> Iterator[bytes]:
    yield head
    if b"\r" in head:
        yield head.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    if b"\0" in head:
        yield head.replace(b"\0", b"")


def plain(value: bytes, name: bytes) -> bool:
    """Whether all readers find the same parameter called `name`, or all none."""
    named = re.findall(rb"(?<![\w-])" + name + rb"[\s*\d]*=", value, re.IGNORECASE)
    return len(named) <= 1 and _PLAIN.fullmatch(value) is not None


def parameters(value: bytes, name: str) -> list[str]:
    """Every reading of a parameter, at most 32; bytes that are no UTF-8 as surrogates."""
    text = header.unfold(value).decode("utf-8", "surrogateescape")
    found = [
        (m[1], bool(m[2]), _values(text[m.end() : m.end() + MAX_PARAMETER]))
        for m in _starts(text, name)
    ]
    whole = [r for at, encoded, values in found if not at for r in _whole(values, encoded)]
    sections = [(int(at), encoded, values[0]) for at, encoded, values in found if at and values]
    readings = [*_joined(sections), *whole]
    folded = b'"' in _CLOSED.sub(b"", value)  # who unfolds within quotes may drop the space
    tight = [r.replace(" ", "").replace("\t", "") for r in readings if folded]
    return list(dict.fromkeys(r for r in (*readings, *tight) if r))[:MAX_READINGS]


def _starts(text: str, name: str) -> Iterator[re.Match[str]]:
    pattern = rf"(?<![\w-]){name}\"?(?:\*(\d{{1,4}}))?(\*?)\s*=\s*"
    found = re.finditer(pattern, text, re.ASCII | re.IGNORECASE)
    return (m for _, m in zip(range(MAX_SECTIONS), found, strict=False))


def _values(text: str) -> list[str]:
    """What a value can be that begins here."""
    rest = text.partition(";")[0].strip()
    if not text.startswith('"'):
        bare = _BARE.match(text)
        assert bare is not None
        found = [
            rest,
            bare[0],
            _COMMENT.sub("", rest).strip(),
            rest.strip("'"),
            rest.replace('"', ""),
        ]
        return list(dict.fromkeys(found))
    quoted = _STRING.match(text)
    assert quoted is not None
    content = quoted[1]
    behind = text[quoted.end() :].partition('"')[2].partition(";")[0].strip()
    found = [_ESCAPE.sub(r"\1", content), content, content.partition('\\"')[0]]
    if behind:
        found += [
            (content + behind).replace('"', ""),
            content + _COMMENT.sub("", behind).strip(' "'),
        ]
    if quoted.end() == len(text):  # never closed
        found += [rest[1:], rest]
    return list(dict.fromkeys(found))


_CLOSED = re.compile(rb'"[^"\n]*"')
_BARE = re.compile(r'[^\s;"(),]*')
_STRING = re.compile(r'"([^"\\]*(?:\\.[^"\\]*)*)', re.DOTALL)
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_COMMENT = re.compile(r"\([^()]*\)")


def _whole(values: Iterable[str], encoded: bool) -> Iterator[str]:
    for value in values:
        if encoded or value.count("'") >= 2:
            yield _extended(value)
        if not encoded or "'" not in value:
            yield value


def _extended(value: str) -> str:
    """An extended value with its charset and its percents undone (RFC 2231 section 4)."""
    charset, _, rest = value.partition("'")
    rest = rest.partition("'")[2] if value.count("'") > 1 else value
    content = unquote_to_bytes(rest.encode("utf-8", "surrogateescape"))
    return header.text_of(content, charset if charset != value else "utf-8")


def _joined(sections: list[tuple[int, bool, str]]) -> Iterator[str]:
    """A value in sections (RFC 2231 section 3): in all orders, with gaps or up to one."""
    if not sections:
        return
    by_number = sorted(sections, key=lambda s: s[0])
    groups = [list(same) for _, same in groupby(by_number, lambda s: s[0])]
    first = [group[0] for group in groups]
    unbroken = [s for at, s in enumerate(first, first[0][0]) if s[0] == at]
    for order in (first, [group[-1] for group in groups], unbroken, by_number, sections):
        yield _concatenated(order)


def _concatenated(sections: list[tuple[int, bool, str]]) -> str:
    texts = [text for _, _, text in sections]
    charset = "utf-8"
    if sections[0][1] and texts[0].count("'") >= 2:
        charset, _, texts[0] = texts[0].split("'", 2)
    raw = [text.encode("utf-8", "surrogateescape") for text in texts]
    content = b"".join(
        unquote_to_bytes(r) if encoded else r
        for r, (_, encoded, _) in zip(raw, sections, strict=True)
    )
    return header.text_of(content, charset)
