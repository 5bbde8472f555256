"""Texts with holes, and folder names that are safe whatever was put into them.

While a text is put together each piece remembers whether it came from the mail: in a folder
name what came from the mail makes no levels, and nothing can leave the mailbox.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from itertools import groupby
from operator import itemgetter

from mdaflow.lang import ir
from mdaflow.lang.subjects import SCORE, SUBJECTS, split
from mdaflow.mail.path import CONTROL

from .context import shown
from .plan import EvaluationError
from .state import Run

Pieces = tuple[tuple[str, bool], ...]
"""A text as (piece, came from the mail)."""

MAX_TEXT = 1 << 20
"""Characters of a text that was put together."""
MAX_PIECES = 10_000
"""Pieces of a text, one behind the other from the rules and from the mail."""
MAX_SLUG = 1 << 16
"""Characters that become a slug: some characters are written as eighteen others."""
MAX_LEVEL = 80
"""Characters of one level of a folder name that came out of a hole."""

_NOTHING: Pieces = (("", True),)
_HIDDEN = re.compile(r"\A[\s.~]+")
_NO_SLUG = re.compile(r"[^a-z0-9]+")


def compile_text(text: ir.Text) -> Callable[[Run], Pieces]:
    """A function that puts a text together."""
    literal = text.literal
    if literal is not None:
        pieces: Pieces = ((literal, False),)
        return lambda run: pieces
    getters = [_getter(part) for part in text.parts]

    def put_together(run: Run) -> Pieces:
        found: list[tuple[str, bool]] = []
        size = 0
        for piece in (piece for get in getters for piece in get(run)):
            run.watch(text.span)
            size += len(piece[0])
            if size > MAX_TEXT:  # a text that is put into itself doubles each time
                raise EvaluationError(text.span, f"a text of more than {MAX_TEXT:,} characters")
            if len(found) == MAX_PIECES:
                raise EvaluationError(text.span, f"a text of more than {MAX_PIECES:,} pieces")
            found.append(piece)
        return tuple(
            (plain(tuple(pieces)), tainted) for tainted, pieces in groupby(found, itemgetter(1))
        )

    return put_together


def _getter(part: str | ir.Hole) -> Callable[[Run], Pieces]:
    if isinstance(part, str):
        pieces: Pieces = ((part, False),)
        return lambda run: pieces
    get, filters = _hole(part), part.filters

    def fill(run: Run) -> Pieces:
        pieces = _filtered(get(run), filters)
        return pieces if any(text for text, _ in pieces) else _NOTHING

    return fill


def _hole(hole: ir.Hole) -> Callable[[Run], Pieces]:
    name, part = split(hole.name)
    if name in SUBJECTS or name == SCORE:
        arguments = (hole.argument,) if hole.argument else ()
        subject = ir.Subject(hole.span, name, part, arguments)
        return lambda run: ((_first_value(run, subject), True),)
    name = hole.name

    def named(run: Run) -> Pieces:
        if name in run.variables:
            return run.variables[name]
        return ((run.captures.get(name, ""), True),)

    return named


def _first_value(run: Run, subject: ir.Subject) -> str:
    found = run.values(subject)
    return shown(found[0]) if found else ""


def _filtered(pieces: Pieces, filters: tuple[tuple[str, int], ...]) -> Pieces:
    for name, number in filters:
        pieces = _FILTERS[name](pieces, number)
    return pieces


def _lower(pieces: Pieces, _: int) -> Pieces:
    return tuple((text.lower(), tainted) for text, tainted in pieces)


def _upper(pieces: Pieces, _: int) -> Pieces:
    return tuple((text.upper(), tainted) for text, tainted in pieces)


def _slug(pieces: Pieces, _: int) -> Pieces:
    """Of all pieces together; nothing in it could be unsafe."""
    text = plain(pieces)[:MAX_SLUG].casefold()
    letters = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return ((_NO_SLUG.sub("-", letters).strip("-"), True),)


def _first(pieces: Pieces, number: int) -> Pieces:
    out: list[tuple[str, bool]] = []
    for text, tainted in pieces:
        if number <= 0:
            break
        out.append((text[:number], tainted))
        number -= len(text)
    return tuple(out)


_FILTERS: dict[str, Callable[[Pieces, int], Pieces]] = {
    "lower": _lower,
    "upper": _upper,
    "slug": _slug,
    "first": _first,
}


def plain(pieces: Pieces) -> str:
    """The text itself."""
    return "".join(piece for piece, _ in pieces)


def in_html(pieces: Pieces) -> str:
    """The text, in which nothing that came from the mail is markup."""
    return "".join(_escaped(piece) if tainted else piece for piece, tainted in pieces)


def _escaped(text: str) -> str:
    for char, name in (("&", "amp"), ("<", "lt"), (">", "gt"), ('"', "quot"), ("'", "#39")):
        text = text.replace(char, f"&{name};")
    return text


def length(pieces: Pieces) -> int:
    """Characters."""
    return sum(len(piece) for piece, _ in pieces)


_MAILBOX = re.compile(r"\A(mbox|maildir):(?=/)")


def folder(pieces: Pieces, separator: str) -> str:
    """The text as a folder name: levels divided by `separator`, empty for the inbox.

    A level with a hole stays when there was nothing to put in, and the name is that of no folder:
    without the level, `lists/{list}` would be the parent of all lists. It never names a mailbox by
    its path: only a text without holes can (see compile.py).
    """
    levels: list[list[str]] = [[]]
    for piece, tainted in pieces:
        first, *more = [_safe(piece, separator)] if tainted else piece.split(separator)
        if first or tainted:
            levels[-1].append(first)
        levels += [[text] if text else [] for text in more]
    name = separator.join(_level("".join(parts)) for parts in levels if parts)
    return "" if name.upper() == "INBOX" else _MAILBOX.sub(r"\1-", name)


def _level(text: str) -> str:
    return _HIDDEN.sub("", text)[:MAX_LEVEL].rstrip()


def _safe(piece: str, separator: str) -> str:
    printable = piece.encode("utf-8", "replace").decode()
    for char in ("/", "\\", separator):
        printable = printable.replace(char, "-")
    return CONTROL.sub(" ", printable)
