"""YAML text -> plain values, with the place of each.

The YAML is a small one, without the traps of version 1.1 (T16): a plain word is a boolean only
as `true` or `false`, a number only in decimal digits without leading zeros, nothing only as an
empty value, `~` or `null`. All else is text: `no`, `12:30`, `0660`, `1_000`. A key stands once.
Anchors, aliases, merge keys, tags, a second document, more than 20 levels and more than 1 MiB
are refused. YAML is imported only when there is something to read.

Limit: with a key given twice only the later value is kept.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

MAX_BYTES = 1 << 20
MAX_DEPTH = 20
MAX_VALUES = 10_000
MAX_PROBLEMS = 100

Path = tuple[str | int, ...]
"""The keys and list places that lead to a value: `("users", 0, "folders")`."""
Place = tuple[int, int]
"""Line and column, both from 1; a column is a character."""


class Problem(NamedTuple):
    """One thing that is wrong, where it stands and what it is about."""

    place: Place
    path: Path
    message: str


class Unreadable(Exception):
    """A problem after which nothing more can be read."""

    def __init__(self, place: Place, message: str) -> None:
        super().__init__(message)
        self.problem = Problem(place, (), message)


_FOREIGN = "[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]"
"""What YAML 1.1 section 5.1 does not allow in a stream, and a byte order mark inside of it."""

_SCALARS: dict[str, Callable[[str], object]] = {
    r"~|null|": lambda _: None,
    r"true|false": lambda word: word == "true",
    r"-?(0|[1-9][0-9]{0,17})": int,
    r"-?(0|[1-9][0-9]{0,14})\.[0-9]{1,24}": float,
}
"""What a plain scalar is, if it is not text."""


def decoded(text: bytes | str) -> str:
    if len(text) > MAX_BYTES:
        raise Unreadable((1, 1), f"larger than {MAX_BYTES >> 20} MiB")
    try:
        text = text.decode() if isinstance(text, bytes) else text
    except UnicodeDecodeError as error:
        good, bad = error.object[: error.start], error.object[error.start]
        raise Unreadable(_place_at(good.decode()), f"not UTF-8: byte 0x{bad:02X}") from None
    text = text.removeprefix("\ufeff")
    foreign = re.search(_FOREIGN, text)
    if foreign:
        message = f"the character U+{ord(foreign[0]):04X} is not allowed"
        raise Unreadable(_place_at(text[: foreign.start()]), message)
    return text


def _place_at(before: str) -> Place:
    """Where the character after `before` stands."""
    return before.count("\n") + 1, len(before) - before.rfind("\n")


def _place(mark: Any) -> Place:
    return mark.line + 1, mark.column + 1


class Composer:
    """Makes plain values of parser events, and remembers where each stands.

    PyYAML's own composer would resolve aliases and recurse before they could be refused.
    """

    def __init__(self) -> None:
        self.values: dict[Path, Place] = {}
        self.keys: dict[Path, Place] = {}
        self.problems: list[Problem] = []
        self.refused: set[Path] = set()
        self.count = 0

    def compose(self, text: str) -> object:
        """The value of the one document, of dict, list, str, int, float, bool and None."""
        import yaml

        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        events = yaml.parse(text, Loader=loader)
        self.events = (event for event in events if _kind(event) not in _FRAME)
        try:
            return self._document()
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            tab = mark is not None and text[mark.index : mark.index + 1] == "\t"
            message = "a tab; indent with spaces" if tab else f"not YAML: {error.problem}"
            raise Unreadable(_place(mark) if mark else (1, 1), message) from None

    def _document(self) -> object:
        first = next(self.events)
        if _kind(first) == "StreamEnd":
            return None
        value = self._value(first, ())
        more = next(self.events)
        if _kind(more) != "StreamEnd":
            raise Unreadable(_place(more.start_mark), "a second document; only one is allowed")
        return value

    def _value(self, event: Any, path: Path) -> object:
        self.values[path] = _place(event.start_mark)
        if len(path) > MAX_DEPTH:
            raise Unreadable(self.values[path], f"deeper than {MAX_DEPTH} levels")
        self.count += 1
        if self.count > MAX_VALUES:
            raise Unreadable(self.values[path], f"more than {MAX_VALUES} values")
        if event.anchor:
            self._refuse(path, "anchors and aliases are not allowed")
        elif event.tag:
            self._refuse(path, "tags are not allowed")
        return _COMPOSE[_kind(event)](self, event, path)

    def _refuse(self, path: Path, message: str) -> None:
        """Report a value; what its type is no longer matters."""
        self.problems.append(Problem(self.values[path], path, message))
        self.refused.add(path)

    def _scalar(self, event: Any, path: Path) -> object:
        text: str = event.value
        if not text.isprintable():
            code = ord(next(char for char in text if not char.isprintable()))
            self._refuse(path, f"the character U+{code:04X} is not allowed")
        if not event.implicit[0]:  # quoted
            return text
        makers = (make for form, make in _SCALARS.items() if re.fullmatch(form, text))
        return next(makers, str)(text)

    def _list(self, _: Any, path: Path) -> list[object]:
        return [self._value(event, (*path, index)) for index, event in enumerate(self._inside())]

    def _mapping(self, _: Any, path: Path) -> dict[str, object]:
        found: dict[str, object] = {}
        for event in self._inside():
            key, place = self._key(event), _place(event.start_mark)
            inner = (*path, key)
            if key in found:
                first = "{}:{}".format(*self.keys[inner])
                self.problems.append(Problem(place, inner, f"given twice, first at {first}"))
            else:
                self.keys[inner] = place
            found[key] = self._value(next(self.events), inner)
        return found

    def _key(self, event: Any) -> str:
        if _kind(event) != "Scalar" or event.anchor or event.tag:
            raise Unreadable(_place(event.start_mark), "a key must be a plain word")
        if event.value == "<<":
            raise Unreadable(_place(event.start_mark), "merge keys are not allowed")
        return str(event.value)

    def _inside(self) -> Iterator[Any]:
        """The first event of each key or item, up to the end of what holds them."""
        for event in self.events:
            if _kind(event) in ("SequenceEnd", "MappingEnd"):
                return
            yield event


def _kind(event: Any) -> str:
    return type(event).__name__.removesuffix("Event")


_FRAME = ("StreamStart", "DocumentStart", "DocumentEnd")
_COMPOSE: dict[str, Callable[[Composer, Any, Path], object]] = {
    "Scalar": Composer._scalar,
    "SequenceStart": Composer._list,
    "MappingStart": Composer._mapping,
    "Alias": lambda *_: None,
}
