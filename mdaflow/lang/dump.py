"""The IR as JSON and back: what is kept of a program that was good.

`load(dump(program)) == program`, spans included. What was dumped by another version of the IR
is not loaded.
"""

from __future__ import annotations

import json
from typing import Any

from . import ir
from .source import Span

_NODES = {
    cls.__name__: cls
    for cls in vars(ir).values()
    if isinstance(cls, type) and issubclass(cls, tuple) and cls is not Span
}


def dump(program: ir.Program) -> str:
    """A program as JSON."""
    return json.dumps({"version": ir.VERSION, "program": _plain(program)}, ensure_ascii=False)


def load(text: str) -> ir.Program:
    """The program of `dump`; raises ValueError when it is none of this version."""
    data = json.loads(text)
    if not isinstance(data, dict) or data.get("version") != ir.VERSION:
        raise ValueError("not a program of this version")
    try:
        program = _node(data["program"])
    except (KeyError, TypeError) as error:
        raise ValueError(f"not a program: {error}") from error
    if not isinstance(program, ir.Program):
        raise ValueError("not a program")
    return program


def _plain(value: Any) -> Any:
    if isinstance(value, Span):
        return {"node": "Span", "at": list(value)}
    if type(value).__name__ in _NODES:
        inside = zip(value._fields, map(_plain, value), strict=True)
        return {"node": type(value).__name__, **dict(inside)}
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def _node(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_node(item) for item in value)
    if not isinstance(value, dict):
        return value
    if value["node"] == "Span":
        return Span(*value["at"])
    return _NODES[value["node"]](**{k: _node(v) for k, v in value.items() if k != "node"})
