"""Is a program right? Names, types, places: every problem of the IR, whatever language it was.

What this finds are errors: with one of them a program is not run. What is only doubtful is
found by `mdaflow.lang.lint`. The checks are those that need no message and no outside world.
Functions of these files take a `Scope`, in which they find what is known and leave what is
wrong; statements are judged in their order, so that a name is known from its declaration on.
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress

from mdaflow.lang import ir
from mdaflow.lang.source import Problem

from .cases import check_case
from .scope import MAX_ENTRIES as MAX_ENTRIES
from .scope import MAX_GROUPS as MAX_GROUPS
from .scope import MAX_INSTRUCTIONS as MAX_INSTRUCTIONS
from .scope import Enough, Scope
from .statements import check_block
from .values import is_mailbox as is_mailbox


def check(
    program: ir.Program, powers: Collection[str] = ir.POWERS, *, rules: bool = True
) -> list[Problem]:
    """Everything wrong with a program. `powers` are what its owner may do; `rules`: it may be one
    of the site, too."""
    scope = Scope(powers, rules=rules)
    with suppress(Enough):
        check_block(scope, program.body)
        for case in program.cases:
            check_case(scope, case)
    return scope.problems
