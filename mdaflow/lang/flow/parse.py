"""Text to tree.

What is wrong with a text that is no program is said by explain.py; a right one never needs it.
"""

from __future__ import annotations

import gc
import re
from typing import Any

from mdaflow.lang.source import Problem, Source

from . import driver

MAX_PIECES = 200_000
"""Words, strings and signs of a text; it takes some 10 µs to read one."""

_PIECE = re.compile(r'#[^\n]*|"(?:[^"\\\n]++|\\.){0,65535}"|[\w.]+|[^\w\s]')
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")


def parse_tree(source: Source) -> tuple[Any, list[Problem]]:
    """The tree of a text, without the statements that could not be read, and all problems.

    The tree is None when nothing can be made of the text.
    """
    if control := _CONTROL.search(source.text):
        at = control.start()
        return None, [Problem.of(source.span(at, at + 1), "control-character")]
    if len(source.text) > MAX_PIECES and sum(1 for _ in _PIECE.finditer(source.text)) > MAX_PIECES:
        start = source.span(0, 0)
        return None, [Problem.of(start, "too-many-words", most=MAX_PIECES)]
    was_enabled = gc.isenabled()
    gc.disable()  # a large tree is all live: collecting it again and again doubles the time
    try:
        tree = driver.parse(source.text)
        if tree is not None:
            return tree, []
        from .explain import explain

        return explain(source)
    finally:
        if was_enabled:
            gc.enable()
