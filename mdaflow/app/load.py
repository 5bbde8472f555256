"""Read the configuration file: YAML -> `Config`, with every problem at its line and column.

Three steps. plain.py turns the text into plain values and remembers where each stands; pydantic
checks them against the dataclasses of config.py; kinds.py says what a type cannot. All problems
are reported at once (P51), one line each: `file:line:column: path: message`. Relative paths are
taken from the folder of the file.

The file and its folder must belong to root or to the invoking user, and be writable by nobody
else (P52). YAML and pydantic are imported only when there is a file to read.

Limits: no more than 100 problems of type or value are listed. An ACL counts only as far as the
group bits show it.
"""

from __future__ import annotations

import errno
import functools
import os
import stat
import typing
from collections.abc import Iterator
from typing import Any

from mdaflow.app.config import Config
from mdaflow.errors import ConfigError

from .kinds import TAG, TAGGED
from .plain import (
    MAX_BYTES,
    MAX_PROBLEMS,
    Composer,
    Path,
    Place,
    Problem,
    Unreadable,
    decoded,
)

if typing.TYPE_CHECKING:
    from pydantic import TypeAdapter

DEFAULT = "/etc/mdaflow/mdaflow.yaml"
VARIABLE = "MDAFLOW_CONFIG"


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
    composer = Composer()
    config = Config()
    try:
        plain = composer.compose(decoded(text))
        if plain is not None:
            config = _validated(plain, os.path.dirname(os.path.abspath(name)), composer)
    except Unreadable as error:
        composer.problems.append(error.problem)
    if composer.problems:
        problems = sorted(composer.problems, key=lambda problem: problem.place)
        raise ConfigError(tuple(_line(name, problem) for problem in problems))
    return config


def schema() -> dict[str, Any]:
    """The JSON Schema of the file."""
    draft = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return draft | _adapter().json_schema()


@functools.cache
def _adapter() -> TypeAdapter[Config]:
    from pydantic import TypeAdapter

    return TypeAdapter(Config)


def _validated(plain: object, folder: str, source: Composer) -> Config:
    """The plain values as a Config; problems go to the composer, which knows the places."""
    import json

    from pydantic import ValidationError

    try:
        # As JSON, where strict still means that a list may become a tuple.
        return _adapter().validate_json(json.dumps(plain), context=folder)
    except ValidationError as error:
        wrong = [(_written(one["loc"]), one) for one in error.errors()]
        wrong = [(path, one) for path, one in wrong if path not in source.refused]
        for path, one in wrong[:MAX_PROBLEMS]:
            unknown = one["type"] == "unexpected_keyword_argument"
            place = source.keys[path] if unknown else _nearest(source.values, path)
            source.problems.append(Problem(place, path, _message(one)))
    return Config()


def _written(path: Path) -> Path:
    """The path as it is in the file."""
    return tuple(step for step in path if not str(step).startswith(TAG))


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
        elif step.startswith(TAG):
            kind = TAGGED.get(step, kind)
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
