"""HTML as spam uses it: links, images, colours, and what hides words. One pass over the tags.

No tree is built. A `>` in a quoted value ends the tag: a browser would read on. Linear in the
markup; so many links and images are kept.
"""

from __future__ import annotations

import html
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

from .links import Url, read_url
from .names import names

MAX_LINKS = 500
MAX_LINK_TEXT = 300

# Nothing is given back: a name of 64 KiB without a `>` would be read from each of its letters.
_TAG = re.compile(r"<(/?)([a-z][a-z0-9:]*+)([^<>]*+)>|<!--(?!\[)", re.IGNORECASE)
_HREF = re.compile(r"\bhref\s*+=\s*+(?:\"([^\"]*)|'([^']*)|([^\s\"'>]+))", re.IGNORECASE)
_SRC = re.compile(r"\bsrc\s*+=\s*+(?:\"([^\"]*)|'([^']*)|([^\s\"'>]+))", re.IGNORECASE)
_SIZE = re.compile(r"\b(width|height)\s*+[=:]\s*+[\"']?(\d{1,5})", re.IGNORECASE)
_MARK = re.compile(r"<[^<>]*>")
_SPACE = re.compile(r"\s+")


_KNOWN = names("tags")


class Link(NamedTuple):
    """Where it leads, and what is shown for it."""

    url: Url
    text: str


class Image(NamedTuple):
    """Where it lies, and its size in pixels; -1 where none is told."""

    source: str
    width: int
    height: int


@dataclass(slots=True)
class Markup:
    """What stands in the HTML of a message."""

    size: int = 0
    """Characters."""
    tags: Counter[str] = field(default_factory=Counter)
    """How often each tag is opened, in lower case."""
    unknown: int = 0
    """Tags that no HTML has."""
    comments: int = 0
    links: list[Link] = field(default_factory=list)
    images: list[Image] = field(default_factory=list)
    text: int = 0
    """Characters of text outside of tags."""


def read_markup(text: str) -> Markup:
    """What stands in a text of HTML; nothing in one without tags."""
    found = Markup(size=len(text))
    opened: tuple[Url, int] | None = None
    end = 0
    for tag in _TAG.finditer(text):
        found.text += tag.start() - end
        end = tag.end()
        if tag[2] is None:
            found.comments += 1
            continue
        name = tag[2].lower()
        if opened and name == "a":
            _finish(found, opened, text, tag.start())
            opened = None
        if tag[1]:
            continue
        found.tags[name] += 1
        found.unknown += name not in _KNOWN and ":" not in name
        if name in ("a", "area"):
            opened = _link(found, tag[3], tag.end())
        elif name == "img":
            _image(found, tag[3])
    found.text += len(text) - end
    if opened:
        _finish(found, opened, text, len(text))
    return found


def _link(found: Markup, attributes: str, end: int) -> tuple[Url, int] | None:
    target = _value(_HREF, attributes)
    if not target or target[0] == "#" or len(found.links) >= MAX_LINKS:
        return None
    return read_url(target), end


def _finish(found: Markup, opened: tuple[Url, int], text: str, at: int) -> None:
    url, start = opened
    inner = text[start : min(at, start + 4 * MAX_LINK_TEXT)]
    shown = _SPACE.sub(" ", html.unescape(_MARK.sub(" ", inner))[:MAX_LINK_TEXT]).strip()
    found.links.append(Link(url, shown))


def _image(found: Markup, attributes: str) -> None:
    if len(found.images) < MAX_LINKS:
        sizes = {name.lower(): int(value) for name, value in _SIZE.findall(attributes)}
        source = _value(_SRC, attributes)
        found.images.append(Image(source, sizes.get("width", -1), sizes.get("height", -1)))


def _value(attribute: re.Pattern[str], attributes: str) -> str:
    value = attribute.search(attributes)
    if value is None:
        return ""
    return html.unescape((value[1] or value[2] or value[3] or "")[:2000]).strip()
