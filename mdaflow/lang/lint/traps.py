"""Values that a test cannot mean, by what it is about."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Iterator
from itertools import islice

from mdaflow.lang import ir
from mdaflow.lang.source import Problem, Span, near

from .about import ADDRESS_FIELDS, aspect
from .view import MAX_ALIKE, MAX_VALUE, View

_Trap = tuple[str, str, str]
"""The code of the warning, the relations with which a value is one, and its form."""

_ENTRY = r"(?!.*\*)(?:[^\s@<>]+@[^\s@<>]*|@[^\s@<>]+|\.[^\s@<>]+|.*\".*|)\Z"
"""An entry of a list of addresses: see `in`. What is quoted is not judged."""
_WHOLE = r"(?:[^\s@<>]+@[^\s@<>]+|.*\".*|)\Z"
_BARE = r"[\w+=~-]+\Z"
"""A name without a domain, which an envelope can have."""
_FLAGS = re.IGNORECASE | re.DOTALL
_WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_LITERAL = "is in starts ends contains"
_TYPE = (("type-form", "is in", r"(?P<rest>[\w+-]+)"),)
_LOCAL = (("user-at", _LITERAL, r"(?P<rest>[^@]*)@.*"),)
_TRAPS: dict[str, tuple[_Trap, ...]] = {
    "address": (
        ("part-of-address", "is", rf"(?!{_WHOLE}).*"),
        ("list-entry", "in", rf"(?!{_ENTRY}).*"),
    ),
    "path": (
        ("part-of-address", "is", rf"(?!{_WHOLE}|{_BARE}).*"),
        ("list-entry", "in", rf"(?!{_ENTRY}|{_BARE}).*"),
    ),
    "address field": (("header-address", "is in ends", r"[^\s<>]*@[^\s<>]+"),),
    "domain": (
        ("domain-at", _LITERAL, r".*@(?P<rest>[^@]*)"),
        ("domain-dot", "is in starts", r"\.(?P<rest>.+)"),
    ),
    "user": _LOCAL,
    "detail": _LOCAL,
    "extension": (("extension-dot", f"{_LITERAL} glob", r".*\.(?P<rest>[^.]*)"),),
    "type": _TYPE,
    "declared_type": _TYPE,
    "weekday": (("weekday", "is in", rf"(?!(?:{'|'.join(_WEEKDAYS)})\Z).*"),),
    "client.ip": (
        ("network", "is in", r"(?P<rest>(?:[\da-f]+[.:])+?)(?:0[.:])*(?:[\da-f]*|:)/\d+"),
    ),
}
"""What a subject is about (`_aspect`) -> traps; a value falls into the first."""
_EVERYWHERE = (
    # `*.pdf`, but not `***SPAM***`, `* an item`, `*SPAM*`
    ("star", "is in", r"[^*]*[^\s*\d]\*[^\s*\d][^*]*"),
    ("star", _LITERAL, r"(?!(?-i:\*[^a-z*]+\*\Z))(?:\*(?![*\s])[^*]+\*?|[^*]*[^*\s]\*)"),
)
_ADVICE = (
    (r"\*?(?P<rest>@[\w.-]+)", '; write: {subject} in ["{rest}"]'),
    (r"(?:\*?@)?\*?(?P<rest>\.[\w.-]+)", '; write: {subject} in ["{rest}"]'),
    (r"(?P<rest>[^@\s<>*]+@)\*?", '; write: {subject} in ["{rest}"]'),
    (r"(?P<rest>[\w-]+(?:\.[\w-]+)+)", '; write: {subject} in ["@{rest}"]'),
    (r"[^<]*<(?P<rest>[^<>\s]+@[^<>\s]+)>", '; write "{rest}"'),
    (r"[\w+-]+", "; what stands before the @ is tested with: {subject}.user is …"),
    (r"[^@*]+", "; a display name is tested with: {subject}.name is …"),
)
"""What stands where an address was expected, and what was meant."""


def traps(view: View) -> Iterator[Problem]:
    """The codes of `_TRAPS`; a named list is looked at once for each thing it is compared with."""
    told: set[Hashable] = set()
    for test in view.all(ir.Compare):
        for operand in test.operands:
            name = operand.name if isinstance(operand, ir.Items) else ""
            about = (name, aspect(test.subject), test.relation)
            if not name or about not in told:
                told.add(about)
                values = view.values((operand,))
                yield from _fallen(operand.span, test.relation, test.subject, values)
    if mine := view.lists.get("me"):  # whose entries are compared with recipients
        yield from _fallen(mine.span, "in", ir.Subject(mine.span, "to"), mine.entries)


def weekday_number(view: View) -> Iterator[Problem]:
    """`weekday`: a day of the week by its number."""
    for test in view.all(ir.Compare):
        for operand in test.operands if aspect(test.subject) == "weekday" else ():
            if isinstance(operand, ir.Number):
                yield Problem.of(operand.span, "weekday", value=f"{operand.amount:g}", hint="")


def _fallen(
    span: Span, relation: str, subject: ir.Subject, values: Iterable[Hashable]
) -> Iterator[Problem]:
    """The problems of values that are traps; a value falls into the first."""
    rows = _TRAPS.get(aspect(subject), ()) + _EVERYWHERE
    forms = [(code, form) for code, relations, form in rows if relation in relations.split()]
    texts = (value for value in values if isinstance(value, str) and len(value) <= MAX_VALUE)
    found = ((text, trap) for text in texts if (trap := _first(text, forms)))
    for text, (code, match) in islice(found, MAX_ALIKE):
        yield Problem.of(span, code, **_filled(text, subject, match))


def _first(text: str, forms: Iterable[tuple[str, str]]) -> tuple[str, re.Match[str]] | None:
    """The first form that a text has: what stands beside it, and how it matches."""
    matches = ((said, re.fullmatch(form, text, _FLAGS)) for said, form in forms)
    return next(((said, match) for said, match in matches if match), None)


def _filled(value: str, subject: ir.Subject, match: re.Match[str]) -> dict[str, str]:
    """What the messages of traps are filled with."""
    field = subject.arguments[0] if subject.arguments else ""
    return {
        "rest": "",
        **match.groupdict(),
        "value": value,
        "field": field,
        "subject": ADDRESS_FIELDS.get(field.lower(), subject.words),
        "advice": _advice(value, subject),
        "hint": near(value.lower(), _WEEKDAYS),
    }


def _advice(value: str, subject: ir.Subject) -> str:
    for form, advice in _ADVICE:
        if found := re.fullmatch(form, value):
            return advice.format_map({**found.groupdict(), "subject": subject.name})
    return ""
