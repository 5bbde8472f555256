"""Folders that are not what they look like, or nearly the same."""

from __future__ import annotations

import re
from collections.abc import Iterator
from unicodedata import normalize

from mdaflow.lang import ir
from mdaflow.lang.source import Problem, Span

from .view import View, where

_NO_FOLDERS = tuple(
    (code, re.compile(pattern, re.IGNORECASE))
    for code, pattern in (
        ("folder-inbox", r"INBOX(?P<sign>[./])(?P<rest>.*)"),
        ("folder-home", r"(?:~\w*|\$\{?\w+\}?|%h)/(?:(?:Maildir|mail)/)?(?P<rest>.*)"),
        ("folder-home", r"Maildir/(?P<rest>.*)"),
    )
)
"""Names from other programs, where they mean what is the `rest` here."""

_DOT = re.compile(r"(?<=[^\W\d]|\})\.(?=[^\W\d]|\{…\})")
"""Between words; in `v1.2` it is a part of one."""
_SLASH = re.compile("/")
_PATHS = ("mbox:", "maildir:")


def no_folder(view: View) -> Iterator[Problem]:
    """`folder-inbox`, `folder-home`: a name from another program."""
    for text in _folders(view):
        if found := _from_elsewhere(text, view.separator or "/"):
            code, rest = found
            yield Problem.of(text.span, code, rest=rest or "…")


def levels(view: View) -> Iterator[Problem]:
    """`folder-levels`: a dot as in the names that Maildir++ gives to directories; `folder-slash`:
    a slash where something else divides the levels."""
    other = _DOT if view.separator == "/" else _SLASH
    for text in _folders(view) if view.separator else ():
        name = "".join(part if isinstance(part, str) else "{…}" for part in text.parts)
        meant = other.sub(view.separator, name)
        if meant != name and not (name.startswith(_PATHS) or _from_elsewhere(text)):
            code = "folder-levels" if other is _DOT else "folder-slash"
            yield Problem.of(text.span, code, meant=meant)


def alike(view: View) -> Iterator[Problem]:
    """`folder-alike`: folders that one would take for the same."""
    families: dict[str, dict[str, list[Span]]] = {}
    for text in _folders(view):
        name = text.literal
        if name and name.upper() != "INBOX" and not _from_elsewhere(text):
            families.setdefault(_blurred(name), {}).setdefault(name, []).append(text.span)
    for spellings in families.values():
        usual = max(spellings, key=lambda name: len(spellings[name]))
        for name, (span, *_) in spellings.items():
            if name != usual:
                at = where(spellings[usual][0], span)
                yield Problem.of(span, "folder-alike", folder=name, other=usual, where=at)


def _folders(view: View) -> Iterator[ir.Text]:
    """The names of folders that a program says."""
    nodes: Iterator[ir.Act | ir.Question] = view.all(ir.Act, ir.Question)
    for node in nodes:
        match node:
            case ir.Act(verb="deliver", operands=names):
                yield from names
            case ir.Question(name="folder", arguments=names):
                yield from names


def _from_elsewhere(folder: ir.Text, separator: str = "/") -> tuple[str, str] | None:
    """The code of the warning for a name from another program, and what it means here."""
    first = folder.parts[0] if folder.parts else ""
    for code, pattern in _NO_FOLDERS:
        if isinstance(first, str) and (found := pattern.fullmatch(first)):
            sign = found.groupdict().get("sign") or "/"
            return code, found["rest"].replace(sign, separator)
    return None


def _blurred(folder: str) -> str:
    """Equal for folders that look alike; digits that are apart stay so."""
    folder = normalize("NFC", folder).casefold().replace(".", "/")
    return re.sub(r"[\s_-]+", " ", re.sub(r"(?<!\d)[\s_-]+(?!\d)", "", folder))
