"""What is right in a program, but doubtful: rules that are never reached, tests that never hold,
names that look mistyped, and the traps for those who are new to the language.

It judges programs that check.py found right, and keeps none from running. A false alarm is worse
than a miss: a warning is certain, or about something that nobody writes on purpose.

A check is a function that goes over a `View` of the program and yields what it finds. They know
nothing of each other. Their time is linear in the size of the program.

Known limits: what a condition with holes, variables or scores takes is not known. The entries of
a list have no places: a warning names the entry and points at the list.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from heapq import merge

from mdaflow.lang import ir
from mdaflow.lang.source import MAX_PROBLEMS, Problem, Span

from . import (
    actions,
    addresses,
    conditions,
    facts,
    folders,
    headers,
    names,
    patterns,
    reach,
    texts,
    traps,
)
from .shadows import MAX_STEPS as MAX_STEPS
from .view import View

CHECKS: tuple[Callable[[View], Iterator[Problem]], ...] = (
    reach.never_reached,
    conditions.amounts,
    conditions.empty_texts,
    conditions.parts_exist,
    conditions.no_entries,
    conditions.joined,
    traps.traps,
    traps.weekday_number,
    patterns.globs,
    patterns.regexes,
    patterns.exactly_caseless,
    headers.mistyped_header,
    facts.unknown,
    names.rule_twice,
    names.unused,
    names.empty_list,
    names.duplicate_entry,
    folders.no_folder,
    folders.levels,
    folders.alike,
    actions.flag_backslash,
    actions.program_words,
    actions.flag_undone,
    actions.copy_again,
    actions.reject_after_copy,
    addresses.forward_self,
    addresses.alias_self,
    addresses.reply_from,
    texts.dollar,
    texts.hidden_character,
)


def lint(
    program: ir.Program,
    *,
    provided: Collection[str] | None = None,
    own: Collection[str] = (),
    separator: str = "/",
) -> list[Problem]:
    """What is doubtful in a program: warnings only, by place, at most MAX_PROBLEMS.

    `provided` are the facts that somebody can tell here, as `virus.found`, `attachment.type`,
    `listed` or `learn`; None: not known. `own` are the user's addresses.
    `separator` divides the levels of folder names; empty: not known, or not the same for all.
    """
    view = View(program, provided, own, separator)
    problems: set[Problem] = set()
    # nobody reads more: merged, so that what is left out is mostly the end of the program
    for problem in merge(*(check(view) for check in CHECKS), key=_place):
        problems.add(problem)
        if len(problems) == MAX_PROBLEMS:
            break
    return sorted(problems, key=_place)


def _place(problem: Problem) -> tuple[Span, str]:
    return problem.span, problem.message
