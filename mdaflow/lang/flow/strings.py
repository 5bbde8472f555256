"""String literals: escapes, indentation of long strings, and holes."""

from __future__ import annotations

import re

from mdaflow.lang import ir
from mdaflow.lang.source import Problem, Source, Span

_ESCAPES = {"\\": "\\", '"': '"', "n": "\n", "t": "\t"}
_PIECE = re.compile(
    r"\\u(?:\{(?P<code>[^{}\n]*)\})?|\\(?P<escape>.)|(?P<brace>\{\{|\}\})"
    r"|\{(?P<hole>[^{}\n]*)\}|(?P<stray>[{}])|(?P<text>[^\\{}]+)",
    re.DOTALL,
)
_HOLE = re.compile(
    r"\s*(?P<name>[\w.]+)(?:\s+(?P<argument>[^|\s][^|]*))?\s*(?P<filters>(?:\|[^|]*)*)"
)
_FILTER = re.compile(r"\s*(\w+)(?:\s+([0-9]{1,6}))?\s*")
_CODE = re.compile("[0-9A-Fa-f]{1,6}")


def text(token: str, start: int, source: Source, problems: list[Problem]) -> ir.Text:
    """A string literal that stands at an offset, as a Text with its holes."""
    long = token.startswith('"""')
    content = token[3:-3] if long else token[1:-1]
    at = start + (3 if long else 1)
    parts: list[str | ir.Hole] = []
    literal = ""
    for piece in _PIECE.finditer(content):
        here = source.span(at + piece.start(), at + piece.end())
        if piece["hole"] is not None:
            hole = _hole(piece["hole"], here, problems)
            if hole is not None:
                parts += [literal, hole] if literal else [hole]
                literal = ""
        elif piece["stray"]:
            problems.append(Problem.of(here, "lone-brace", brace=piece["stray"]))
        else:
            literal += _literal(piece, here, problems)
    if literal:
        parts.append(literal)
    span = source.span(start, start + len(token))
    return ir.Text(span, _stripped(tuple(parts), content) if long else tuple(parts))


def raw(token: str) -> str:
    """A long string as it stands, without its indentation; it ends with a newline."""
    (content,) = _stripped((token[3:-3],), token[3:-3]) or ("",)
    assert isinstance(content, str)
    return content


def plain(token: str, start: int, source: Source, problems: list[Problem]) -> str:
    """A string literal in which nothing is put."""
    found = text(token, start, source, problems)
    for part in found.parts:
        if isinstance(part, ir.Hole):
            problems.append(Problem.of(part.span, "no-holes"))
    return found.literal or ""


def _literal(piece: re.Match[str], here: Span, problems: list[Problem]) -> str:
    if piece["text"] is not None:
        return piece["text"]
    if piece["brace"]:
        return piece["brace"][0]
    letter = piece["escape"]
    if letter is None:
        return _character(piece["code"] or "", here, problems)
    if letter == "\n":
        problems.append(Problem.of(here, "joined-lines"))
    elif letter not in _ESCAPES:
        problems.append(Problem.of(here, "unknown-escape", letter=letter))
    return _ESCAPES.get(letter, "")


def _character(code: str, here: Span, problems: list[Problem]) -> str:
    number = int(code, 16) if _CODE.fullmatch(code) else 0
    if 0 < number < 0x110000 and not 0xD800 <= number < 0xE000:
        return chr(number)
    said = "no-character" if number else "character-form"
    problems.append(Problem.of(here, said, code=code.upper()))
    return ""


def _hole(inside: str, here: Span, problems: list[Problem]) -> ir.Hole | None:
    found = _HOLE.fullmatch(inside)
    if not found:
        problems.append(Problem.of(here, "no-hole"))
        return None
    filters: list[tuple[str, int]] = []
    for word in found["filters"].split("|")[1:]:
        match = _FILTER.fullmatch(word)
        if not match:
            problems.append(Problem.of(here, "no-filter", word=word.strip()))
            continue
        filters.append((match[1], int(match[2] or 0)))
    return ir.Hole(here, found["name"], (found["argument"] or "").strip(), tuple(filters))


def _stripped(parts: tuple[str | ir.Hole, ...], content: str) -> tuple[str | ir.Hole, ...]:
    """A long string without its first newline and the indentation of its closing quotes."""
    last = content.rpartition("\n")[2]
    indent = last if not last.strip() else ""
    out: list[str | ir.Hole] = []
    for index, part in enumerate(parts):
        if isinstance(part, str):
            part = part.replace("\r\n", "\n")  # the file is of Windows, its value is not
            part = part.replace("\n" + indent, "\n") if indent else part
            if index == 0:
                part = part.removeprefix("\n").removeprefix(indent)
        out.append(part)
    return tuple(part for part in out if part != "")
