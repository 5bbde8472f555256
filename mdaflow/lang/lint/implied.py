"""What follows from a test for one value: keys, so that to compare tests is to look them up.

A test that fails says of each value that it is not so (`said`). A test that holds says of a value
that it is so, and so is much else (`implied`). When one of these is among those, it cannot hold.

Texts are compared by octets, by RE2, or by casefold: see `_FOLDS`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence

from mdaflow.lang import ir
from mdaflow.lang.patterns import wildcards
from mdaflow.lang.subjects import type_of

from .about import Key, is_address
from .addresses import wider
from .view import MAX_VALUE

AFFIXES = ("starts", "ends", "contains")

_FOLDS: dict[str, Callable[[str], str]] = {"exact": str, "re2": str.lower, "fold": str.casefold}
"""How texts are compared: by octets, by RE2 (ASCII only, here), by casefold; a test that holds
in one way holds in those after it."""
_WHOLE_PATTERN = {
    (False, False): "is",
    (False, True): "starts",
    (True, False): "ends",
    (True, True): "contains",
}
"""Whether a glob begins and ends with `*` -> what it is then, without another wildcard."""
_CUTS: dict[str, Callable[[str, int], Iterable[str]]] = {
    "starts": lambda text, length: (text[:length],),
    "ends": lambda text, length: (text[-length:],),
    "contains": lambda text, length: (
        text[at : at + length] for at in range(len(text) - length + 1)
    ),
}
"""What of a text can be looked up."""


def said(subject: Key, test: ir.Compare, value: Hashable) -> Iterator[Key]:
    """The keys of what a failed test says of a value."""
    yield _same(subject, test, value)
    if not isinstance(value, str):
        return
    relation, fold = test.relation, "exact" if test.exact else "fold"
    if relation == "glob":
        core = value.strip("*")
        if "\\" in value or wildcards(core) or not value or not (test.exact or value.isascii()):
            return
        relation = _WHOLE_PATTERN[value.startswith("*"), value.endswith("*")]
        value, fold = core, "exact" if test.exact else "re2"
    text = _FOLDS[fold](value)
    if relation in ("is", "in") and (form := _member(subject, test, text)):
        yield (form[0], "member", fold, form[1])
    if relation in AFFIXES and not text:
        yield (subject, "exists")
    elif relation in ("is", *AFFIXES) or (relation == "in" and not is_address(test.subject)):
        yield (subject, "is" if relation == "in" else relation, fold, text)


def implied(
    subject: Key, test: ir.Compare, value: Hashable, lengths: Mapping[Key, set[int]]
) -> Iterator[Key]:
    """The keys of all that is true of a value if a test holds for it: one of them is enough.

    `lengths` are those of the texts in the keys of AFFIXES that are looked up.
    """
    yield _same(subject, test, value)
    if not isinstance(value, str) or len(value) > MAX_VALUE:
        return
    whole, inside = _known(test, value)
    for name in _folds(test, value):
        fold = _FOLDS[name]
        if whole is not None and (form := _member(subject, test, fold(whole))):
            yield from ((form[0], "member", name, entry) for entry in wider(form[1]))
        if whole is not None and not (test.relation in ("in", "glob") and is_address(test.subject)):
            yield (subject, "is", name, fold(whole))
        for relation, texts in inside.items():
            for length in lengths.get((subject, relation, name), ()):
                for text in map(fold, texts):
                    yield from ((subject, relation, name, t) for t in _CUTS[relation](text, length))


def _same(subject: Key, test: ir.Compare, value: Hashable) -> Key:
    return (subject, "same", test.relation, test.exact, value)


def _known(test: ir.Compare, value: str) -> tuple[str | None, dict[str, Sequence[str]]]:
    """What is known of what a test holds for: the whole, if it is, and how it starts, how it
    ends, and what it contains."""
    match test.relation:
        case "is":
            return value, dict.fromkeys(AFFIXES, (value,))
        case "in":
            is_text = not is_address(test.subject) or "@" in value.strip("@")
            return value, dict.fromkeys(AFFIXES, (value,)) if is_text else {}
        case "starts" | "ends" | "contains":
            return None, {test.relation: (value,), "contains": (value,)}
        case "glob" if "\\" not in value:
            pieces = re.split(r"[*?]", value)
            whole = value if len(pieces) == 1 else None
            return whole, {"starts": pieces[:1], "ends": pieces[-1:], "contains": pieces}
    return None, {}


def _folds(test: ir.Compare, value: str) -> tuple[str, ...]:
    """The ways to compare in which a value is known: see `_FOLDS`."""
    if test.exact:
        return ("exact", "re2", "fold") if value.isascii() else ("exact", "fold")
    if test.relation == "glob":
        return ("re2", "fold") if value.isascii() else ()
    return ("fold",)


def _member(subject: Key, test: ir.Compare, text: str) -> tuple[Key, str] | None:
    """What a text is as an entry of a list of addresses, and of whose addresses."""
    if test.relation not in ("is", "in") or type_of(test.subject.name, "") != "address":
        return None
    if subject[1] == "domain":
        return (subject[0], "", *subject[2:]), f"@{text}"
    if subject[1] or (test.relation == "is" and not 0 < text.find("@") < len(text) - 1):
        return None
    return subject, text
