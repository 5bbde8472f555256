"""A program as the checks see it: its nodes in the order of the text, its lists, and what is
known beside it."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Iterator
from typing import Any, TypeVar

from mdaflow.lang import ir
from mdaflow.lang.source import Span

MAX_VALUE = 320
"""Characters of a value that is judged: no address or file name is longer."""
MAX_ALIKE = 3
"""Entries of one list that are warned of for one reason."""

_Node = TypeVar("_Node")


class View:
    """A program and what is known of it."""

    def __init__(
        self,
        program: ir.Program,
        provided: Collection[str] | None,
        own: Collection[str],
        separator: str,
    ) -> None:
        self.program = program
        self.provided = provided
        """The facts that somebody can tell; None: not known."""
        self.separator = separator
        """What divides the levels of a folder name; empty: not known."""
        self.nodes = list(walk(program.body))
        assigned = [(assign.name, assign.value) for assign in self.all(ir.Assign)]
        self.lists = {name: value for name, value in assigned if isinstance(value, ir.Items)}
        mine = self.lists["me"].entries if "me" in self.lists else ()
        self.own = {address.casefold() for address in (*own, *mine)}
        """The user's addresses, and entries that match them."""
        self.keys: dict[int, Hashable | None] = {}
        """Of tests, by their `id`: see keys.py."""

    def all(self, *kinds: type[_Node]) -> Iterator[_Node]:
        """The nodes of some kinds, in the order of the text."""
        return (node for node in self.nodes if type(node) in kinds)

    def blocks(self) -> Iterator[list[ir.Statement]]:
        """The steps of each block."""
        yield steps(self.program.body)
        for branch in self.all(ir.Branch):
            yield steps(branch.body)
            yield steps(branch.otherwise)

    def values(self, operands: Iterable[ir.Value], *, whole: bool = False) -> Iterator[Hashable]:
        """What a subject is compared with: texts, and other things; None for what is not known
        before the run. A named list is one thing if it is to be taken `whole`."""
        for operand in operands:
            match operand:
                case ir.Number(amount=amount):
                    yield ("number", amount)
                case ir.Pattern(source=source, flags=flags):
                    yield ("regex", source, frozenset(flags))
                case ir.Text():
                    yield operand.literal
                case ir.Items(name=name):
                    items = self.lists.get(name, operand)
                    if items.file or (name and whole):
                        yield ("list", name)
                    else:
                        yield from items.entries


def walk(node: Any) -> Iterator[Any]:
    """A node and all that are in it, from the outside in, in the order of the text."""
    waiting = [node]
    while waiting:
        node = waiting.pop()
        if isinstance(node, tuple) and not isinstance(node, Span):
            if type(node) is not tuple:
                yield node
            waiting.extend(reversed(node))


def steps(block: Iterable[ir.Statement]) -> list[ir.Statement]:
    """The statements of a block that a run goes through: no declarations."""
    return [statement for statement in block if not _declares(statement)]


def _declares(statement: ir.Statement) -> bool:
    if isinstance(statement, ir.Assign):
        return isinstance(statement.value, ir.Items)
    return isinstance(statement, ir.Alias | ir.Include)


def literals(value: ir.Value) -> list[str]:
    """What is written in a value."""
    match value:
        case ir.Pattern():
            return [value.source]
        case ir.Items():
            return list(value.entries)
        case ir.Text():
            return [part for part in value.parts if isinstance(part, str)]
    return []


def where(span: Span, seen_from: Span) -> str:
    """How a place is named in a message that stands at another one."""
    return f"line {span.line}" if span.file == seen_from.file else span.short
