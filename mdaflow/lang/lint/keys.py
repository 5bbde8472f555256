"""Keys that are equal for equal tests."""

from __future__ import annotations

from collections.abc import Hashable

from mdaflow.lang import ir
from mdaflow.lang.subjects import SUBJECTS

from .about import read_by
from .view import View


def key_of(view: View, test: ir.Test) -> Hashable | None:
    """Equal for equal tests; None for one that may turn out otherwise each time."""
    if id(test) not in view.keys:
        view.keys[id(test)] = _key(view, test)
    return view.keys[id(test)]


def contrary(key: Hashable) -> Hashable:
    """The key of the test that holds if this one does not."""
    return key[1] if isinstance(key, tuple) and key[0] == "not" else ("not", key)


def _key(view: View, test: ir.Test) -> Hashable | None:
    match test:
        case ir.Compare():
            return _compare(view, test)
        case ir.Some():
            inside = key_of(view, test.test)
            return None if inside is None else ("some", test.over, test.every, inside)
        case ir.Question(name="listed"):
            zone = tuple(text.literal for text in test.arguments)
            return None if None in zone else ("listed", *zone)
        case ir.Join():
            keys = [key_of(view, inner) for inner in test.tests]
            if None in keys:
                return None
            return contrary(keys[0]) if test.word == "not" else (test.word, frozenset(keys))
    return None


def _compare(view: View, test: ir.Compare) -> Hashable | None:
    values = list(view.values(test.operands, whole=True))
    if test.subject.name not in SUBJECTS or None in values:
        return None
    fold = str if test.exact else str.casefold
    folded = [fold(value) if isinstance(value, str) else value for value in values]
    said = tuple(folded) if test.relation == "between" else frozenset(folded)
    subjects = frozenset(read_by(test.subject))
    return (subjects, test.relation, test.every, test.all, test.exact, said)
