"""What the passes from tree to IR share: places, words, strings, numbers, lists and nesting."""

from __future__ import annotations

from typing import Any

from mdaflow.lang import ir
from mdaflow.lang.limits import DEFAULTS
from mdaflow.lang.source import MAX_PROBLEMS, Problem, Source, Span

from . import strings
from .driver import lex

_SIZES = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_SECONDS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400, "week": 7 * 86400}

Node = Any
"""A tree, or a token, which is a str, of driver.py."""


class Form:
    """A text that is being lowered, and what was found wrong with its form."""

    def __init__(self, source: Source, nesting: int = DEFAULTS.nesting) -> None:
        self.source = source
        self.nesting = nesting
        self.problems: list[Problem] = []
        self.depth = 0

    # places

    def span(self, node: Node) -> Span:
        """Where a node stands."""
        start, end = extent(node)
        return self.source.span(start, end)

    def text(self, node: Node) -> str:
        """A node as it is written, on one line."""
        return self._line(*extent(node))

    def head(self, node: Node, block: Node) -> str:
        """What of a node stands before its block."""
        return self._line(extent(node)[0], extent(block)[0])

    def _line(self, start: int, end: int) -> str:
        text = self.source.text[start:end]
        if "#" in text:  # between the tokens there may be comments
            pieces, at = [], start
            for token in lex(text):
                gap = start + token.start_pos > at
                pieces.append(" " * gap + token)
                at = start + token.end_pos
            text = "".join(pieces)
        return " ".join(text.split())

    def problem(self, node: Node, code: str, /, **values: object) -> None:
        """Something is wrong here."""
        self.problems.append(Problem.of(self.span(node), code, **values))

    def junk(self, node: Node) -> None:
        """What is never right, and says so itself."""
        from .mend import never_right

        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(never_right(self.source, node.children[0]))

    def enter(self, node: Node) -> bool:
        """Go one level deeper; False when that is too deep. Who enters leaves by `depth -= 1`."""
        if self.depth == self.nesting:
            self.problem(node, "too-deep", most=self.nesting)
            return False
        self.depth += 1
        return True

    # values

    def string(self, node: Node) -> ir.Text:
        """A string with its holes: the token, or the node around it."""
        token = node if isinstance(node, str) else node.children[0]
        return strings.text(str(token), extent(token)[0], self.source, self.problems)

    def plain(self, token: Node) -> str:
        """A string in which nothing can be put."""
        return strings.plain(str(token), extent(token)[0], self.source, self.problems)

    def items(self, node: Node) -> ir.Items:
        """A list of plain strings."""
        return ir.Items(self.span(node), tuple(self.plain(token) for token in tokens(node)))

    def texts(self, node: Node) -> tuple[ir.Text, ...]:
        """A list of strings with holes."""
        return tuple(self.string(token) for token in tokens(node))

    def plains(self, node: Node) -> tuple[str, ...]:
        """One plain string, or a list of them."""
        return (self.plain(node),) if isinstance(node, str) else self.items(node).entries

    def number(self, token: Node) -> ir.Number:
        """A number, a size in bytes, or a time in seconds."""
        amount = seconds if token.type == "DURATION" else number
        return ir.Number(self.span(token), amount(str(token)))

    def pattern(self, token: Node) -> ir.Pattern:
        """A regular expression."""
        source, _, flags = str(token)[1:].rpartition("/")
        return ir.Pattern(self.span(token), source.replace("\\/", "/"), flags)


def tokens(node: Node) -> list[Node]:
    """The words of a node, without what is built of several."""
    return [child for child in node.children if isinstance(child, str)]


def extent(node: Node) -> tuple[int, int]:
    """The offsets of a node."""
    place: Any = node if isinstance(node, str) else node.meta
    return int(place.start_pos or 0), int(place.end_pos or 0)


def number(word: str) -> float:
    """`2.5`, or `10K` in bytes."""
    return float(word[:-1]) * _SIZES[word[-1]] if word[-1] in _SIZES else float(word)


def seconds(word: str) -> float:
    """`30 days` in seconds."""
    digits = word.rstrip("abcdefghijklmnopqrstuvwxyz \t\r\n")
    return float(digits) * _SECONDS[word[len(digits) :].strip().rstrip("s")]
