"""What nobody tells here."""

from __future__ import annotations

from collections.abc import Iterator

from mdaflow.lang import ir
from mdaflow.lang.source import Problem
from mdaflow.lang.subjects import is_asked, split

from .view import View

_Asking = ir.Subject | ir.Hole | ir.Question | ir.Act


def unknown(view: View) -> Iterator[Problem]:
    """`unknown-fact`, `nobody-learns`: what nobody tells, or does, each once."""
    if view.provided is None:
        return
    told = {"", *view.provided}
    nodes: Iterator[_Asking] = view.all(ir.Subject, ir.Hole, ir.Question, ir.Act)
    for node in nodes:
        if (fact := _asked(node)) in told:
            continue
        told.add(fact)
        outcome = "always true" if fact == "virus.unscanned" else "tests on it are false"
        code = "nobody-learns" if isinstance(node, ir.Act) else "unknown-fact"
        yield Problem.of(node.span, code, fact=fact, outcome=outcome)


def _asked(node: _Asking) -> str:
    """The fact that a node asks for; empty when it asks for none."""
    match node:
        case ir.Question():
            return node.name
        case ir.Act():
            return "learn" if node.verb == "learn" else ""
        case ir.Subject():
            name, part, words = node.name, node.part, node.words
        case ir.Hole():
            words = node.name
            name, part = split(words)
    return words if is_asked(name, part) else ""
