"""The parser's tables: made by Lark from grammar.lark, once, when the package is built.

At run time the tables are all it takes to read programs (driver.py) and to say what is wrong with
them (repair.py), so that a start does not pay for Lark, 30 ms of import and tables. Tables that
do not belong to this grammar are not used: they are
then made anew, in 90 ms. This file needs the standard library and Lark, so that a build can
run it alone.
"""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lark import Lark

FORMAT = 2
_HERE = os.path.dirname(os.path.abspath(__file__))
_TABLES = os.path.join(_HERE, "tables.json")

Tables = dict[str, Any]
"""`lexer`: one regular expression; `ignore`: its groups that are dropped; `words`: keyword ->
terminal; `states`: symbol -> next state, or -1 - rule, "" for all others; `rules`: see `_rule`;
`start`, `end`."""


def _grammar() -> str:
    with open(os.path.join(_HERE, "grammar.lark"), encoding="utf-8") as file:
        return file.read()


def build() -> Lark:
    """The parser of Lark."""
    from lark import Lark

    return Lark(_grammar(), parser="lalr", lexer="basic", propagate_positions=True,
                maybe_placeholders=True)  # fmt: skip


def load() -> Tables:
    """The tables."""
    try:
        with open(_TABLES, encoding="utf-8") as file:
            tables: Tables = json.load(file)
    except (OSError, ValueError):
        return make()
    return tables if tables["made from"] == [FORMAT, _grammar()] else make()


def save_tables() -> None:
    """Write the tables beside the grammar."""
    with open(_TABLES, "w", encoding="utf-8") as file:
        json.dump(make(), file, separators=(",", ":"))


def make() -> Tables:
    """The tables, from the grammar."""
    lark: Any = build()
    rules = {rule: number for number, rule in enumerate(lark.rules)}
    table = lark.parser.parser._parse_table
    words = {t.pattern.value: t.name for t in lark.terminals if _is_word(t)}
    return {
        "made from": [FORMAT, _grammar()],
        "lexer": "|".join(
            f"(?P<{t.name}>{t.pattern.to_regexp()})"
            for t in lark.parser.lexer.terminals  # in the order in which Lark tries them
            if not _is_word(t)
        ),
        "ignore": list(lark.ignore_tokens),
        "words": words,
        "states": [_row(table.states[state], rules) for state in range(len(table.states))],
        "rules": [_rule(rule) for rule in lark.rules],
        "start": table.start_states["start"],
        "end": table.end_states["start"],
    }


def _is_word(terminal: Any) -> bool:
    pattern = terminal.pattern
    return pattern.type == "str" and re.fullmatch(r"[a-z]+", pattern.value) is not None


def _row(actions: dict[str, Any], rules: dict[Any, int]) -> dict[str, int]:
    """What a state does with each symbol: go to a state, or reduce by rule n as -1 - n.

    The reduction that is met most is left to "": a wrong symbol is found at the next shift, and
    the tables are a quarter as large.
    """
    row = {
        symbol: argument if str(action) == "Shift" else -1 - rules[argument]
        for symbol, (action, argument) in actions.items()
    }
    reductions = [step for step in row.values() if step < 0]
    if not reductions:
        return row
    default = max(set(reductions), key=lambda step: (reductions.count(step), step))
    return {**{symbol: step for symbol, step in row.items() if step != default}, "": default}


def _rule(rule: Any) -> list[Any]:
    """How a rule makes a node, as Lark does: [origin, name, length, children, nones, alone].

    A child is [index, is it spliced in, how many None before it]; `nones` follow the last one.
    `alone`: a single child takes the place of the node.
    """
    options, expansion = rule.options, rule.expansion
    missing = options.empty_indices or [False] * len(expansion)
    gaps = [len(run) for run in "".join(str(int(m)) for m in missing).split("0")]
    children, nones = [], 0
    for index, symbol in enumerate(expansion):
        nones += gaps[index]
        if not (symbol.is_term and symbol.filter_out):
            spliced = not symbol.is_term and symbol.name.startswith("_")
            children.append([index, spliced, nones])
            nones = 0
    nones += gaps[len(expansion)]
    alone = bool(options.expand1 and not rule.alias)
    return [
        rule.origin.name,
        rule.alias or rule.origin.name,
        len(expansion),
        children,
        nones,
        alone,
    ]
