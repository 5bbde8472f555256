"""The text that a reader of HTML sees, in one pass over the markup.

No tree is built: HTML parsers that build one take minutes for a megabyte of open tags or
attributes. Comments, scripts, styles and the title are left out; tags of words are dropped, all
others end a line. Known limit: what a style sheet hides is seen.
"""

from __future__ import annotations

import html
import re
from functools import lru_cache

MAX_KEPT = 64 << 10
"""Characters of markup whose text is kept for a moment."""

# Each alternative, once begun, matches to the end of the text at the latest: so it is linear.
_MARKUP = re.compile(
    r"""
    <!--.*?(?:--!?>|\Z)
    | <(?P<hidden>script|style|title)(?=[\s/>]).*?(?:</(?P=hidden)(?=[\s/>])[^>]*>?|\Z)
    | <[!?][^>]*>?
    | </?(?P<tag>[a-z][^\s/>]*)
    """,
    re.VERBOSE | re.IGNORECASE | re.DOTALL,
)
_IN_TAG = re.compile(r">|=\s*+(?P<quote>[\"'])?")
_IN_WORDS = frozenset(
    ("a", "abbr", "acronym", "b", "bdi", "bdo", "big", "cite", "code", "del", "dfn", "em", "font",
     "i", "ins", "kbd", "mark", "o:p", "q", "s", "samp", "small", "span", "strike", "strong",
     "sub", "sup", "tt", "u", "var", "wbr")
)  # fmt: skip
_SPACE = re.compile(r"\s+")
_HUGE = re.compile(r"&#[0-9]{8,};?")  # more digits than Python turns into a number


def text_of_html(markup: str) -> str:
    """The lines of text in HTML, without space around them."""
    return _text_again(markup) if len(markup) <= MAX_KEPT else _text(markup)


@lru_cache(4)
def _text_again(markup: str) -> str:
    """The same, which rules, tests of spam and tokens of one message ask for in turn."""
    return _text(markup)


def _text(markup: str) -> str:
    out: list[str] = []
    at = 0
    while found := _MARKUP.search(markup, at):
        out.append(_SPACE.sub(" ", markup[at : found.start()]))
        at = found.end()
        if found["tag"]:
            at = _end_of_tag(markup, at)
            if found["tag"].lower() not in _IN_WORDS:
                out.append("\n")
    out.append(_SPACE.sub(" ", markup[at:]))
    text = html.unescape(_HUGE.sub("\ufffd", "".join(out)))
    return "\n".join(filter(None, (_SPACE.sub(" ", line).strip() for line in text.split("\n"))))


def _end_of_tag(markup: str, at: int) -> int:
    """The offset behind the `>` of a tag; a `>` in a quoted value does not count."""
    while found := _IN_TAG.search(markup, at):
        at = found.end()
        if found[0] == ">":
            return at
        if found["quote"]:
            closed = markup.find(found["quote"], at)
            at = len(markup) if closed < 0 else closed + 1
    return len(markup)
