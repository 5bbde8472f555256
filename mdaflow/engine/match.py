"""How one value stands in a relation to what a rule compares it with.

Constants are prepared here, once: lists become hash tables, patterns are compiled, text is
folded. What comes out of holes or files is prepared when it is known.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from mdaflow.lang import ir
from mdaflow.lang.patterns import compile_glob, compile_regex, glob_pattern
from mdaflow.lang.source import Span
from mdaflow.lang.subjects import SUBJECTS, type_of

from .plan import EvaluationError
from .state import Run
from .texts import Pieces, compile_text, plain

MAX_STEPS = 1 << 28
"""Instructions of a pattern times bytes of a text that it looks at: RE2 is linear in both."""

MAX_GLOB = 4 << 10
"""Characters of a glob that came out of a hole or a file: each may take 200 bytes."""

Match = Callable[[Run, Any], bool]
"""Does one value, a text given by its alternatives or a number, stand in the relation?"""
Lists = dict[str, ir.Items]
"""The lists that are known at a place."""


def compile_match(node: ir.Compare, lists: Lists) -> Match:
    """How one value is matched with the operands."""
    kind = type_of(node.subject.name, node.subject.part)
    if kind in ("moment", "day", "clock"):
        return _time_match(node, kind)
    if kind == "number" or any(isinstance(o, ir.Number) for o in node.operands):
        return _number_match(node)
    if node.relation == "in":
        return _membership(node, lists)
    entries = [match for operand in node.operands for match in _matches(node, operand, lists)]
    if len(entries) == 1:
        return entries[0]
    joined, span = all if node.all and entries else any, node.span  # nothing is in an empty list
    return lambda run, value: joined(e(run, value) for e in run.watched(span, entries))


def _matches(node: ir.Compare, operand: ir.Value, lists: Lists) -> list[Match]:
    if isinstance(operand, ir.Pattern):
        flags = operand.flags + "c" * node.exact
        return [search(node.span, compile_regex(operand.source, flags))]
    if isinstance(operand, ir.Text):
        return [_text_match(node, operand)]
    assert isinstance(operand, ir.Items)
    items = lists.get(operand.name, operand)
    if items.file:
        return [_file_match(node, items)]
    return [_literal_match(node, entry) for entry in items.entries]


# texts

_STRINGS: dict[str, Callable[[str, str], bool]] = {
    "is": lambda value, wanted: value == wanted,
    "contains": lambda value, wanted: wanted in value,
    "starts": lambda value, wanted: value.startswith(wanted),
    "ends": lambda value, wanted: value.endswith(wanted),
}


def _text_match(node: ir.Compare, text: ir.Text) -> Match:
    if text.literal is not None:
        return _literal_match(node, text.literal)
    if node.relation == "glob":
        glob = _glob_text(text)
        return lambda run, value: _glob_match(node, plain(glob(run)))(run, value)
    put_together = compile_text(text)
    return lambda run, value: _literal_match(node, plain(put_together(run)))(run, value)


def _glob_text(text: ir.Text) -> Callable[[Run], Pieces]:
    """A glob with holes: only what was written makes wildcards, what is put in is literal."""
    parts = [(isinstance(p, str), compile_text(ir.Text(text.span, (p,)))) for p in text.parts]

    def get(run: Run) -> Pieces:
        whole = [(written, plain(part(run))) for written, part in parts]
        return tuple((t if written else _WILD.sub(r"\\\g<0>", t), True) for written, t in whole)

    return get


_WILD = re.compile(r"[\\*?]")


def _literal_match(node: ir.Compare, wanted: str) -> Match:
    if node.relation == "glob":
        return search(node.span, compile_glob(wanted, node.exact))
    holds = _STRINGS[node.relation]
    whole = node.relation == "is"  # `is` is about the address, not about the display name
    if node.exact:
        if whole:
            return lambda run, value: bool(value[0] == wanted)
        return lambda run, value: any(holds(v, wanted) for v in value)
    wanted = wanted.casefold()
    if whole:
        return lambda run, value: run.fold(value[0]) == wanted
    return lambda run, value: any(holds(run.fold(v), wanted) for v in value)


def _glob_match(node: ir.Compare, glob: str) -> Match:
    """A glob that is known only now; patterns of mails are not kept as those of rules are."""
    if len(glob) > MAX_GLOB:
        raise EvaluationError(node.span, "the pattern is too large")
    try:
        return search(node.span, compile_regex(glob_pattern(glob), "sc" if node.exact else "s"))
    except ValueError:
        raise EvaluationError(node.span, "the pattern is too large") from None


def search(span: Span, pattern: Any) -> Match:
    """A search for a pattern, which binds its groups when it finds it."""
    names: tuple[str, ...] = tuple(pattern.groupindex)
    longest = MAX_STEPS // (pattern.programsize * (pattern.groups + 1))

    def search(run: Run, value: Sequence[str]) -> bool:
        for text in value:
            run.watch(span)
            found = pattern.search(text.encode("utf-8", "surrogateescape")[:longest])
            if found:
                groups = [found[0], *found.groups()]
                texts = [(g or b"").decode("utf-8", "replace") for g in groups]
                run.pending = {k: v for k, v in run.pending.items() if not k.isdecimal()}
                run.pending.update(zip(map(str, range(len(texts))), texts, strict=True))
                for name in names:
                    run.pending[name] = texts[pattern.groupindex[name]]
                return True
        return False

    return search


# lists


def _membership(node: ir.Compare, lists: Lists) -> Match:
    """`in`: one look-up a value, however long the list is.

    For addresses an entry is an address, `@domain`, `.domain` (its subdomains too) or `word@`.
    """
    fold: Callable[[str], str] = str if node.exact else str.casefold
    operands = [lists.get(o.name, o) for o in node.operands if isinstance(o, ir.Items)]
    known = frozenset(fold(entry) for items in operands for entry in items.entries)
    files = [_entries(node.span, items.file, fold) for items in operands if items.file]
    is_member = _member if _is_address(node.subject) else _contained

    def member(run: Run, value: Sequence[str]) -> bool:
        folded = fold(value[0])
        return is_member(folded, known) or any(is_member(folded, get(run)) for get in files)

    return member


def _is_address(subject: ir.Subject) -> bool:
    kind = SUBJECTS.get(subject.name)
    return kind is not None and kind.type == "address" and subject.part in ("", "address")


def _contained(text: str, wanted: frozenset[str]) -> bool:
    return text in wanted


def _member(address: str, wanted: frozenset[str]) -> bool:
    return any(key in wanted for key in address_keys(address))


def address_keys(address: str) -> list[str]:
    """All that can stand in a list for an address."""
    local, at, domain = address.rpartition("@")
    if not at:
        return [address]
    labels = domain.split(".")[-128:]
    below = ["." + ".".join(labels[i:]) for i in range(len(labels))]
    return [address, f"@{domain}", f"{local}@", *below]


def _entries(span: Span, file: str, fold: Callable[[str], str]) -> Callable[[Run], frozenset[str]]:
    """The entries of a file, folded; made anew only when it has changed."""

    def get(run: Run) -> frozenset[str]:
        return _folded(run.ask(span, "list", (file,)) or (), fold)

    return get


_FOLDED: OrderedDict[tuple[int, Any], tuple[Any, frozenset[str]]] = OrderedDict()
MAX_FOLDED = 64
"""Lists of files that are kept folded, for all rules that use them."""


def _folded(entries: Sequence[str], fold: Callable[[str], str]) -> frozenset[str]:
    """The entries, folded; made anew only when the list is another one."""
    key = id(entries), fold
    kept, found = _FOLDED.get(key, (None, frozenset()))
    if kept is not entries:
        found = frozenset(map(fold, entries))
        _FOLDED[key] = entries, found
        if len(_FOLDED) > MAX_FOLDED:
            with suppress(KeyError):  # another thread was faster
                _FOLDED.popitem(last=False)
    return found


def _file_match(node: ir.Compare, items: ir.Items) -> Match:
    """Any relation but `in` to the entries of a file."""
    last: tuple[Any, list[Match]] = (None, [])
    joined = all if node.all else any

    def match(run: Run, value: Sequence[str]) -> bool:
        nonlocal last
        found = run.ask(node.span, "list", (items.file,)) or ()
        answer, matches = last
        if answer is not found:
            make = _glob_match if node.relation == "glob" else _literal_match
            matches = [make(node, entry) for entry in run.watched(node.span, found)]
            last = found, matches
        return bool(matches) and joined(m(run, value) for m in run.watched(node.span, matches))

    return match


# numbers and times

_NUMBERS: dict[str, Callable[..., bool]] = {
    "=": lambda a, b: a == b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
    "between": lambda a, low, high: low <= a <= high,
}


def _number_match(node: ir.Compare) -> Match:
    holds = _NUMBERS.get(node.relation, _NUMBERS["="])
    wanted = [o.amount for o in node.operands if isinstance(o, ir.Number)]

    def match(run: Run, value: Any) -> bool:
        number = value if isinstance(value, float) else leading_number(value[0])
        return number is not None and holds(number, *wanted)

    return match


def leading_number(text: str) -> float | None:
    """The number that a text starts with; None when it starts with none."""
    found = re.match(r"\s*([+-]?\d{1,18}(?:\.\d{1,18})?)", text, re.ASCII)
    return float(found[1]) if found else None


_Span = tuple[float, float]
_SPANS: dict[str, Callable[..., bool]] = {
    "=": lambda at, a: a[0] <= at < a[1],
    "<": lambda at, a: at < a[0],
    "<=": lambda at, a: at < a[1],
    ">": lambda at, a: at >= a[1],
    ">=": lambda at, a: at >= a[0],
    "between": lambda at, a, b: a[0] <= at < b[1],
}
"""A text such as `2026-12-20` stands for all the time that it covers."""


def _time_match(node: ir.Compare, kind: str) -> Match:
    from mdaflow.mail.date import parse_clock, parse_moment

    holds = _SPANS.get(node.relation, _SPANS["="])
    texts = [o.literal or "" for o in node.operands if isinstance(o, ir.Text)]
    if kind == "clock":
        clocks = [parse_clock(text) or (0, 0) for text in texts]
        if node.relation == "between" and clocks[0][0] > clocks[1][0]:  # it crosses midnight
            return lambda run, value: bool(value >= clocks[0][0] or value < clocks[1][1])
        return lambda run, value: holds(value, *clocks)

    def match(run: Run, value: float) -> bool:
        zone = run.context.settings.zone
        return holds(value, *(parse_moment(text, zone) or (0.0, 0.0) for text in texts))

    return match
