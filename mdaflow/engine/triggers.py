"""What must be found in a message for a test to hold.

From a condition a *trigger* is derived, if there is one: texts of which some must be found in a
subject for it to hold. What stands before it neither fails nor asks the outside world: no hole,
no list from a file, no scanner.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from mdaflow.lang import ir
from mdaflow.lang.patterns import glob_pattern
from mdaflow.lang.source import Span
from mdaflow.lang.subjects import SUBJECTS, is_asked, type_of

from .match import Lists

MAX_ATOMS = 256
"""Texts of one trigger."""
MAX_PART = 64
"""Characters of a part that is looked for; the rule itself looks for the rest."""
MAX_PATTERN = 4096
"""Characters of a regular expression, or of a whole value."""
DEAR = 64
"""A body is read in the time in which so many rules are tried."""


class Atom(NamedTuple):
    """A text to be found in a subject: one of `_WORTH` says how."""

    subject: ir.Subject
    how: str
    text: str = ""
    flags: str = ""


Trigger = frozenset[Atom]
"""One of them must be found; if there are none, the test never holds."""
Found = tuple[list[Trigger], bool]
"""The triggers of a test, each of which is enough, and whether the test is harmless: it neither
fails nor asks. If a trigger is not found, the test says no before it could do that."""

_WORTH = ("whole", "starts", "ends", "contains", "regex", "any")
"""How an atom is found; the first ones tell most."""


def triggers(test: ir.Test, lists: Lists) -> Found:
    """What must be found for a test to hold."""
    return _TESTS[type(test)](test, lists)


def _constant(node: ir.Constant, lists: Lists) -> Found:
    return ([] if node.value else [frozenset()]), True


def _question(node: ir.Question, lists: Lists) -> Found:
    return [], False


def _some(node: ir.Some, lists: Lists) -> Found:
    return [], triggers(node.test, lists)[1]


def _join(node: ir.Join, lists: Lists) -> Found:
    sides = [triggers(inner, lists) for inner in node.tests]
    harmless = all(harmless for _, harmless in sides)
    if node.word == "and":
        return list(_all_of(sides)), harmless
    if node.word == "or" and all(found for found, _ in sides):
        return [frozenset[Atom]().union(*(min(found, key=cost) for found, _ in sides))], harmless
    return [], harmless


def _all_of(sides: Sequence[Found]) -> Iterator[Trigger]:
    """Each side is tested only if those before it hold; a body is not read before its turn."""
    for at, (found, harmless) in enumerate(sides):
        yield from (trigger for trigger in found if at == 0 or not _is_dear(trigger))
        if not harmless:
            return


def _compare(node: ir.Compare, lists: Lists) -> Found:
    name, part = node.subject.name, node.subject.part
    operands = [lists.get(o.name, o) if isinstance(o, ir.Items) else o for o in node.operands]
    if is_asked(name, part) or any(map(_is_open, operands)):
        return [], False
    is_text = name in SUBJECTS and type_of(name, part) in ("text", "address")
    if not is_text or any(isinstance(operand, ir.Number) for operand in operands):
        return [], True
    atoms = [atom for operand in operands for atom in _atoms(node, operand)]
    if node.relation == "exists":
        atoms = [Atom(_anywhere(node.subject), "any")]
    if len(atoms) > MAX_ATOMS or any(len(atom.text) > MAX_PATTERN for atom in atoms):
        return [], True
    if node.all and node.relation != "in":
        return [frozenset((atom,)) for atom in atoms], True
    return [frozenset(atoms)], True


def _is_open(operand: ir.Value) -> bool:
    """Is it known only when the test is made?"""
    if isinstance(operand, ir.Items):
        return bool(operand.file)
    return isinstance(operand, ir.Text) and operand.literal is None


def _atoms(node: ir.Compare, operand: ir.Value) -> list[Atom]:
    subject, exact = _anywhere(node.subject), "c" * node.exact
    if isinstance(operand, ir.Pattern):
        return [Atom(subject, "regex", operand.source, operand.flags + exact)]
    assert isinstance(operand, ir.Text | ir.Items)
    entries = operand.entries if isinstance(operand, ir.Items) else (operand.literal or "",)
    if node.relation == "glob":
        return [Atom(subject, "regex", glob_pattern(entry), "s" + exact) for entry in entries]
    return [Atom(subject, *_LITERALS[node.relation](entry.casefold())) for entry in entries]


_LITERALS: dict[str, Callable[[str], tuple[str, str]]] = {
    "is": lambda text: ("whole", text),
    "in": lambda text: ("whole", text),
    "contains": lambda text: ("contains", text[:MAX_PART]),
    "starts": lambda text: ("starts", text[:MAX_PART]),
    "ends": lambda text: ("ends", text[-MAX_PART:]),
}
"""How a literal is looked for. What is equal `exactly` is also equal without regard to case."""


def _anywhere(subject: ir.Subject) -> ir.Subject:
    """The subject, which is the same wherever it is written."""
    return subject._replace(span=Span("", 0, 0, 0, 0))


_TESTS: dict[type, Callable[[Any, Lists], Found]] = {
    ir.Constant: _constant,
    ir.Join: _join,
    ir.Compare: _compare,
    ir.Question: _question,
    ir.Some: _some,
}


def _is_dear(trigger: Trigger) -> bool:
    return any(atom.subject.name in ("body", "body.html", "attachment") for atom in trigger)


def cost(trigger: Trigger, shared: Mapping[Atom, int] | None = None) -> tuple[int, int, int]:
    """What a trigger costs: the rules that it stands for, as far as they are known."""
    rules = sum(shared[atom] for atom in trigger) if shared else len(trigger)
    worst = max((_WORTH.index(atom.how) for atom in trigger), default=0)
    shortest = min((len(atom.text) for atom in trigger), default=0)
    return rules + DEAR * _is_dear(trigger), worst, -shortest
