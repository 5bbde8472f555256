"""The rule language of mdaflow: text to IR.

`to_ir` is the whole way: text to tree (parse.py), tree to IR (lower.py). It reports every
problem of form; what the words mean is judged on the IR by `mdaflow.lang.check`.
"""

from __future__ import annotations

from mdaflow.lang import ir
from mdaflow.lang.limits import DEFAULTS, Limits
from mdaflow.lang.source import Problem, Source


def to_ir(source: Source, limits: Limits = DEFAULTS) -> tuple[ir.Program, list[Problem]]:
    """The program that a text says, and everything wrong with its form."""
    from .lower import lower
    from .parse import parse_tree

    tree, problems = parse_tree(source)
    if tree is None:
        return ir.Program(source.file, ()), problems
    program, more = lower(tree, source, limits)
    return program, problems + more
