"""Read the configuration file: YAML -> `Config`, with every problem at its line and column.

Three steps. A composer turns the events of the YAML parser into plain values and remembers
where each stands; pydantic checks them against the dataclasses of config.py; the table KINDS
says what a type cannot (`checked`). All problems are reported at once (P51), one line each:
`file:line:column: path: message`.

The YAML is a small one, without the traps of version 1.1 (T16): a plain word is a boolean only
as `true` or `false`, a number only in decimal digits without leading zeros, nothing only as an
empty value, `~` or `null`. All else is text: `no`, `12:30`, `0660`, `1_000`. A key stands once.
Anchors, aliases, merge keys, tags, a second document, more than 20 levels, 10,000 values or
1 MiB are refused. Relative paths are taken from the folder of the file.

The file and its folder must belong to root or to the invoking user, and be writable by nobody
else (P52). YAML and pydantic are imported only when there is a file to read.

Limits: with a key given twice only the later value is checked. No more than 100 problems of
type or value are listed. An ACL counts only as far as the group bits show it.
"""

from __future__ import annotations

import errno
import functools
import os
import re
import stat
import typing
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from mdaflow.app.config import Config
from mdaflow.errors import ConfigError

if typing.TYPE_CHECKING:
    from pydantic import TypeAdapter

DEFAULT = "/etc/mdaflow/mdaflow.yaml"
VARIABLE = "MDAFLOW_CONFIG"

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


def find(explicit: str | None) -> str | None:
    """The file to read: `--config`, else $MDAFLOW_CONFIG, else the one in /etc; None for none.

    Raises ConfigError if one of the first two names nothing.
    """
    wanted = os.environ.get(VARIABLE) or None if explicit is None else explicit
    if wanted is None:
        return DEFAULT if _exists(DEFAULT) else None
    if not _exists(wanted):
        source = f"${VARIABLE}" if explicit is None else "--config"
        raise ConfigError((f"{wanted}: no such file, but {source} names it",))
    return wanted


def _exists(path: str) -> bool:
    # A file that we may not see, or a dangling link, is there: to go on with the defaults
    # would be to ignore it.
    try:
        os.lstat(path)
    except OSError as error:
        return error.errno not in (errno.ENOENT, errno.ENOTDIR)
    return True


def read_config(explicit: str | None) -> Config:
    """The configuration that `find` finds, or the defaults. Raises ConfigError."""
    path = find(explicit)
    return Config() if path is None else load(path)


def load(path: str) -> Config:
    """The configuration in a file that nobody else could have written. Raises ConfigError."""
    try:
        return loads(_bytes(path), path)
    except OSError as error:
        raise ConfigError((f"{path}: cannot be read: {error.strerror}",)) from None


def _bytes(path: str) -> bytes:
    # O_NONBLOCK: a FIFO in its place must not hold us up. One byte over the limit shows.
    with open(path, "rb", opener=lambda path, flags: os.open(path, flags | os.O_NONBLOCK)) as file:
        about = os.fstat(file.fileno())
        if not stat.S_ISREG(about.st_mode):
            raise ConfigError((f"{path}: is not a file",))
        folders = {os.path.dirname(os.path.abspath(path)), os.path.dirname(os.path.realpath(path))}
        known = [(path, about), *((folder, os.stat(folder)) for folder in sorted(folders))]
        problems = tuple(f"{name}: {text}" for name, found in known for text in _unsafe(found))
        if problems:
            raise ConfigError(problems)
        return file.read(MAX_BYTES + 1)


def _unsafe(about: os.stat_result) -> Iterator[str]:
    """Why somebody else could have written this file, or put another in this folder."""
    if about.st_uid not in (0, os.getuid()):
        yield "belongs to somebody else; chown it to root"
    sticky_folder = stat.S_ISDIR(about.st_mode) and about.st_mode & stat.S_ISVTX
    if about.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not sticky_folder:
        yield "is writable by others; chmod go-w it"


def loads(text: bytes | str, name: str) -> Config:
    """The configuration in a YAML text; `name` is its file, in messages and for relative paths.

    Raises ConfigError with all problems.
    """
    composer = _Composer()
    config = Config()
    try:
        plain = composer.compose(_decoded(text))
        if plain is not None:
            config = _validated(plain, os.path.dirname(os.path.abspath(name)), composer)
    except _Unreadable as error:
        composer.problems.append(error.problem)
    if composer.problems:
        problems = sorted(composer.problems, key=lambda problem: problem.place)
        raise ConfigError(tuple(_line(name, problem) for problem in problems))
    return config


def schema() -> dict[str, Any]:
    """The JSON Schema of the file."""
    draft = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return draft | _adapter().json_schema()


# Text -> plain values


class _Unreadable(Exception):
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


def _decoded(text: bytes | str) -> str:
    if len(text) > MAX_BYTES:
        raise _Unreadable((1, 1), f"larger than {MAX_BYTES >> 20} MiB")
    try:
        text = text.decode() if isinstance(text, bytes) else text
    except UnicodeDecodeError as error:
        good, bad = error.object[: error.start], error.object[error.start]
        raise _Unreadable(_place_at(good.decode()), f"not UTF-8: byte 0x{bad:02X}") from None
    text = text.removeprefix("\ufeff")
    foreign = re.search(_FOREIGN, text)
    if foreign:
        message = f"the character U+{ord(foreign[0]):04X} is not allowed"
        raise _Unreadable(_place_at(text[: foreign.start()]), message)
    return text


def _place_at(before: str) -> Place:
    """Where the character after `before` stands."""
    return before.count("\n") + 1, len(before) - before.rfind("\n")


def _place(mark: Any) -> Place:
    return mark.line + 1, mark.column + 1


class _Composer:
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
            raise _Unreadable(_place(mark) if mark else (1, 1), message) from None

    def _document(self) -> object:
        first = next(self.events)
        if _kind(first) == "StreamEnd":
            return None
        value = self._value(first, ())
        more = next(self.events)
        if _kind(more) != "StreamEnd":
            raise _Unreadable(_place(more.start_mark), "a second document; only one is allowed")
        return value

    def _value(self, event: Any, path: Path) -> object:
        self.values[path] = _place(event.start_mark)
        if len(path) > MAX_DEPTH:
            raise _Unreadable(self.values[path], f"deeper than {MAX_DEPTH} levels")
        self.count += 1
        if self.count > MAX_VALUES:
            raise _Unreadable(self.values[path], f"more than {MAX_VALUES} values")
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
            raise _Unreadable(_place(event.start_mark), "a key must be a plain word")
        if event.value == "<<":
            raise _Unreadable(_place(event.start_mark), "merge keys are not allowed")
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
_COMPOSE: dict[str, Callable[[_Composer, Any, Path], object]] = {
    "Scalar": _Composer._scalar,
    "SequenceStart": _Composer._list,
    "MappingStart": _Composer._mapping,
    "Alias": lambda *_: None,
}


# Plain values -> Config


@functools.cache
def _adapter() -> TypeAdapter[Config]:
    from pydantic import TypeAdapter

    return TypeAdapter(Config)


def _validated(plain: object, folder: str, source: _Composer) -> Config:
    """The plain values as a Config; problems go to the composer, which knows the places."""
    import json

    from pydantic import ValidationError

    try:
        # As JSON, where strict still means that a list may become a tuple.
        return _adapter().validate_json(json.dumps(plain), context=folder)
    except ValidationError as error:
        wrong = [one for one in error.errors() if one["loc"] not in source.refused]
        for one in wrong[:MAX_PROBLEMS]:
            path, unknown = one["loc"], one["type"] == "unexpected_keyword_argument"
            place = source.keys[path] if unknown else _nearest(source.values, path)
            source.problems.append(Problem(place, path, _message(one)))
    return Config()


def _nearest(places: dict[Path, Place], path: Path) -> Place:
    # What is missing has no place but that of the mapping it is missing from.
    return places.get(path) or places[path[:-1]]


_MUST_BE = {
    "dataclass_type": "a mapping of settings",
    "tuple_type": "a list",
    "string_type": "text",
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "literal_error": "{expected}",
    "value_error": "{error}",
}
"""What pydantic calls a problem, and what the value must be."""


def _message(error: Any) -> str:
    if error["type"] == "missing":
        return "is required"
    if error["type"] == "unexpected_keyword_argument":
        import difflib

        near = difflib.get_close_matches(error["loc"][-1], _names(error["loc"][:-1]), 1)
        return "unknown key" + "".join(f"; did you mean '{name}'?" for name in near)
    if error["type"] not in _MUST_BE:
        return str(error["msg"])
    wanted = _MUST_BE[error["type"]].format(**error.get("ctx", {}))
    return f"must be {wanted}, not {_shown(error['input'])}"


def _names(path: Path) -> list[str]:
    """The keys that the mapping at `path` may have."""
    kind: Any = Config
    for step in path:
        if isinstance(step, int):
            kind = typing.get_args(kind)[0]
        else:
            kind = typing.get_type_hints(kind)[step]
    return list(typing.get_type_hints(kind))


def _shown(value: object) -> str:
    match value:
        case None | "":
            return "empty"
        case []:
            return "an empty list"
        case list():
            return "a list"
        case dict():
            return "a mapping"
        case str():
            return repr(value if len(value) <= 60 else value[:57] + "...")
        case _:
            return str(value).lower()


def _line(name: str, problem: Problem) -> str:
    line, column = problem.place
    path = "".join(map(_step, problem.path)).removeprefix(".")
    return ": ".join(filter(None, (f"{name}:{line}:{column}", path, problem.message)))


def _step(step: str | int) -> str:
    if isinstance(step, int):
        return f"[{step}]"
    return f".{step}" if step.isprintable() and 0 < len(step) <= 60 else f".{_shown(step)}"


# What types cannot say


class Kind(NamedTuple):
    """What a value may be: `accept(value, folder)` returns it in its final form or raises
    ValueError, and then the file is told that the value must be `wanted`."""

    wanted: str
    accept: Callable[[Any, str], object]
    schema: Any
    """The core schema of what the file may hold."""


def checked(word: str, inner: Any) -> Any:
    """The core schema `inner` with what KINDS says of the word; "some" is a list not empty."""
    from pydantic_core import core_schema

    if word == "some":
        # After the items: pydantic's own min_length counts only those that are right.
        return core_schema.no_info_after_validator_function(_some, inner)
    kind = KINDS[word]

    def check(value: Any, info: Any) -> object:
        try:
            return kind.accept(value, info.context)
        except (ValueError, TypeError):
            raise ValueError(kind.wanted) from None

    return core_schema.with_info_before_validator_function(
        check, inner, json_schema_input_schema=kind.schema
    )


def _whole(low: int, high: int) -> Kind:
    return Kind(
        f"a whole number from {low} to {high}",
        lambda value, _: _within(value, low, high),
        {"type": "int", "ge": low, "le": high},
    )


def _measure(wanted: str, units: dict[str, int], low: float, high: float, sort: type) -> Kind:
    """A number, or text of a number and a unit."""
    form = rf"([0-9]{{1,15}}(?:\.[0-9]{{1,6}})?) ?({'|'.join(units)})"

    def accept(value: Any, _: str) -> object:
        if type(value) is str:
            number, unit = _match(form, value).groups()
            value = sort(float(number) * units[unit])
        return _within(value, low, high)

    number = {"type": sort.__name__, "ge": low, "le": high}
    text = {"type": "str", "pattern": f"^{form}$"}
    return Kind(wanted, accept, {"type": "union", "choices": [number, text]})


def _text(wanted: str, form: str, make: Callable[[re.Match[str], str], str] | None = None) -> Kind:
    """Text of a form; `make` says what it becomes, and may raise ValueError."""

    def accept(value: Any, folder: str) -> str:
        # `mode: 600` is a number to YAML, and the text it looks like to us.
        match = _match(form, str(value) if type(value) is int else value)
        return make(match, folder) if make else match[0]

    return Kind(wanted, accept, {"type": "str", "pattern": f"^(?:{form})$"})


def _some(value: tuple[object, ...]) -> tuple[object, ...]:
    if not value:
        raise ValueError("a list of one or more")
    return value


def _within(value: Any, low: float, high: float) -> Any:
    if type(value) is bool or not low <= value <= high:
        raise ValueError
    return value


def _match(form: str, value: str) -> re.Match[str]:
    match = re.fullmatch(form, value)
    if match is None:
        raise ValueError
    return match


def _listen(match: re.Match[str], _: str) -> str:
    six, port = match.groups()
    if port is None:
        # sun_path has 108 bytes with its NUL (unix(7)).
        _within(len(os.fsencode(match[0])), 0, len("unix:") + 107)
    else:
        _within(int(port), 1, 65535)
    if six is not None:
        import ipaddress

        ipaddress.IPv6Address(six)
    return match[0]


def _absolute(match: re.Match[str], folder: str) -> str:
    return os.path.normpath(os.path.join(folder, match[0]))


def _below(match: re.Match[str], _: str) -> str:
    for path in match.groups(""):
        if path.startswith(("/", "~")) or ".." in path.split("/"):
            raise ValueError
    return match[0]


_LOGIN = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,31}\$?"
_SIZES = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_TIMES = {
    word: seconds
    for words, seconds in (
        (("", "s", "second", "seconds"), 1),
        (("m", "minute", "minutes"), 60),
        (("h", "hour", "hours"), 3600),
        (("d", "day", "days"), 86400),
        (("week", "weeks"), 604800),
    )
    for word in words
}

KINDS: dict[str, Kind] = {
    "below": _text("a path below the user's folder, without '..'", r"(.+)", _below),
    "count": _whole(1, 1_000_000),
    "delimiter": _text("some of the characters -+=_.!#%&*^~", r"[-+=_.!#%&*^~]{0,12}"),
    "hostname": _text("a host name", r"(?:[A-Za-z0-9_][A-Za-z0-9._-]{0,252})?"),
    "listen": _text(
        "unix:/PATH (of at most 107 bytes), HOST:PORT or [IPV6]:PORT",
        r"unix:/.+|(?:\[([^\]]+)\]|[A-Za-z0-9_][A-Za-z0-9._-]*):([0-9]{1,5})",
        _listen,
    ),
    "log": _text("stderr, syslog or an absolute path", r"stderr|syslog|/.+"),
    "mailbox": _text(
        "maildir:PATH, mbox:PATH or mbox:PATH:INBOX=PATH, each PATH relative and without '..'",
        r"maildir:([^:]+)|mbox:([^:]+)(?::INBOX=([^:]+))?",
        _below,
    ),
    "mode": _text("an octal mode from 0000 to 0777", r"0?[0-7]{3}"),
    "owner": _text("USER or USER:GROUP", rf"(?:{_LOGIN}(?::{_LOGIN})?)?"),
    "path": _text("a path (~ is not expanded)", r"[^~].*", _absolute),
    "seconds": _measure(
        "a time up to 520 weeks, such as 90, 2 minutes or 1h", _TIMES, 0.001, 520 * 604800, float
    ),
    "size": _measure("a size up to 1024G, such as 512K or 50M", _SIZES, 1, 1 << 40, int),
    "threads": _whole(1, 256),
    "user": _text("a user name", rf"(?:{_LOGIN})?"),
    "workers": _whole(0, 1024),
}
