"""Rule text to IR: one folder a language, one IR for all of them."""

from __future__ import annotations

from collections.abc import Collection

from . import ir
from .files import MAX_FILE as MAX_FILE
from .files import Gathering, Reader
from .limits import DEFAULTS, Limits
from .source import MAX_PROBLEMS, SourceError


def compile_rules(
    text: str | bytes,
    file: str = "rules",
    powers: Collection[str] = ir.POWERS,
    read: Reader | None = None,
    limits: Limits = DEFAULTS,
) -> ir.Program:
    """The program of a rule text.

    `file` names it in messages and traces; `powers` are what its owner may do; `read` gives
    the files that it names; `limits` bound it. Raises SourceError with every problem of the text.
    """
    from .check import check
    from .flow import to_ir

    gathering = Gathering(lambda source: to_ir(source, limits), read, limits)
    program = gathering.program(text, file)
    problems = gathering.problems
    # what could not be read is not judged as well
    problems += [
        problem
        for problem in check(program, powers)
        if not any(problem.span.covers(form.span) for form in problems[:MAX_PROBLEMS])
    ]
    if problems:
        raise SourceError(problems, gathering.sources)
    return program
