"""Names that nobody uses, or that are used twice, and lists."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from itertools import islice

from mdaflow.lang import ir
from mdaflow.lang.source import Problem, Span
from mdaflow.lang.subjects import SCORE, SUBJECTS, split

from .view import MAX_ALIKE, View, where

_GROUP = re.compile(r"\(\?P?<(\w+)>")
_Name = tuple[str, str]
"""The code of the warning if it is not used, and the name."""


def rule_twice(view: View) -> Iterator[Problem]:
    """Two rules have one name."""
    rules: dict[str, Span] = {}
    for branch in view.all(ir.Branch):
        if not branch.name or branch.name == branch.text:  # nobody has named it
            continue
        if branch.name in rules:
            at = where(rules[branch.name], branch.span)
            yield Problem.of(branch.span, "rule-twice", where=at)
        rules.setdefault(branch.name, branch.span)


def unused(view: View) -> Iterator[Problem]:
    """`unused-list`, `unused-variable`, `unused-group`, `unused-score`."""
    known = set(_used(view))
    for (code, name), span in _declared(view):
        if (code, name) not in known:
            known.add((code, name))  # and said once
            yield Problem.of(span, code, name=name)


def _declared(view: View) -> Iterator[tuple[_Name, Span]]:
    """Names that shall be used, but for those in files that may have several users."""
    plain = ir.Assign | ir.Alias
    with_rules = {s.span.file for s in view.program.body if not isinstance(s, plain)}
    nodes: Iterator[ir.Assign | ir.Score | ir.Pattern] = view.all(ir.Assign, ir.Score, ir.Pattern)
    for node in nodes:
        match node:
            case ir.Assign(name=name):
                code = "unused-list" if isinstance(node.value, ir.Items) else "unused-variable"
                if name != "me" and node.span.file in with_rules:
                    yield (code, name), node.span
            case ir.Score():
                yield ("unused-score", node.name), node.span
            case ir.Pattern():
                for name in _GROUP.findall(node.source):
                    yield ("unused-group", name), node.span


def _used(view: View) -> Iterator[_Name]:
    nodes: Iterator[ir.Items | ir.Subject | ir.Hole] = view.all(ir.Items, ir.Subject, ir.Hole)
    for node in nodes:
        if isinstance(node, ir.Items):
            yield "unused-list", node.name
            continue
        name, part = split(node.name) if isinstance(node, ir.Hole) else (node.name, node.part)
        if name == SCORE:
            yield "unused-score", part
        elif name not in SUBJECTS:
            yield from (("unused-variable", name), ("unused-group", name))


def empty_list(view: View) -> Iterator[Problem]:
    """A list that is declared without entries."""
    for name, items in view.lists.items():
        if not items.entries and not items.file:
            yield Problem.of(items.span, "empty-list", name=name)


def duplicate_entry(view: View) -> Iterator[Problem]:
    """An entry that is in a list twice."""
    for items in view.all(ir.Items):
        counted = Counter(items.entries)
        for entry in islice((e for e, count in counted.items() if count > 1), MAX_ALIKE):
            yield Problem.of(items.span, "duplicate-entry", value=entry)
