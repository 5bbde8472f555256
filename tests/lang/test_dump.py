"""Programs that are kept: what is not one of ours is not loaded."""

from __future__ import annotations

import json

import pytest

from mdaflow.lang import compile_rules, ir
from mdaflow.lang.dump import dump, load

RULES = 'rule "Ü" when subject matches /(a)/s and size > 5K { deliver to "{1|first 2}" }'


def test_round_trip() -> None:
    """A program is the same again, with the types of its nodes."""
    program = compile_rules(RULES, "my.rules")
    again = load(dump(program))
    assert repr(again) == repr(program)
    (branch,) = again.body
    assert isinstance(branch, ir.Branch)
    assert str(branch.span) == "my.rules:1:1"


def test_deep_programs() -> None:
    """A program that is nested as deep as can be is dumped, loaded and shown."""
    deep = "if true { } " + "elif true { } " * 99 + "elif true {" + "if true {" * 31 + "}" * 32
    program = compile_rules(deep)
    assert repr(load(dump(program))) == repr(program)


BAD = {
    "no JSON": "x",
    "nothing": "",
    "a list": "[]",
    "another version": json.dumps({"version": ir.VERSION + 1, "program": {}}),
    "no program": json.dumps({"version": ir.VERSION}),
    "another node": json.dumps({"version": ir.VERSION, "program": {"node": "Stop"}}),
    "no node": json.dumps({"version": ir.VERSION, "program": {"a": 1}}),
    "unknown node": json.dumps({"version": ir.VERSION, "program": {"node": "os.system"}}),
    "text": json.dumps({"version": ir.VERSION, "program": "x"}),
    "more in it": dump(compile_rules("keep")).replace('"verb"', '"verbs"'),
}


@pytest.mark.parametrize("text", BAD.values(), ids=BAD)
def test_no_program(text: str) -> None:
    """What is no program of this version is a ValueError, whatever it is."""
    with pytest.raises(ValueError, match=r"."):
        load(text)
