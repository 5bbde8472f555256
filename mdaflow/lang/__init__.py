"""Rule text to IR: one folder a language, one IR for all of them."""

from __future__ import annotations

import codecs
from collections.abc import Collection

from . import ir
from .source import MAX_PROBLEMS, Problem, Source, SourceError

MAX_FILE = 2 << 20


def compile_rules(
    text: str | bytes, file: str = "rules", actions: Collection[str] = ir.ACTIONS
) -> ir.Program:
    """The program of a rule text.

    `file` names it in messages and traces; `actions` are the verbs that its owner may use.
    Raises SourceError with every problem of the text.
    """
    from .check import check
    from .flow import to_ir

    source = Source("", file)
    start = source.span(0, 0)
    if len(text) > MAX_FILE:
        raise SourceError([Problem(start, f"larger than {MAX_FILE >> 20} MiB")])
    if isinstance(text, bytes):
        try:
            text = text.removeprefix(codecs.BOM_UTF8).decode()
        except UnicodeDecodeError as error:
            raise SourceError([source.decode_error(error)]) from None
    source = Source(text, file)
    program, problems = to_ir(source)
    # what could not be read is not judged as well
    problems += [
        problem
        for problem in check(program, actions)
        if not any(problem.span.covers(form.span) for form in problems[:MAX_PROBLEMS])
    ]
    if problems:
        raise SourceError(problems, source)
    return program
