"""The rules in rules/ are what they promise: right, tested rule by rule, and well laid out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from mdaflow import POWERS, MemoryStore, Program, Stage, compile_rules, layout, lint
from mdaflow.app.answers import _PROVIDERS, Answers
from mdaflow.app.lists import parse_list
from mdaflow.app.rulebook import USER_ACTIONS
from mdaflow.app.trial import Result, named_rules, try_case, unreached
from mdaflow.engine.context import Fact, Settings

FOLDER = Path(__file__).resolve().parent.parent / "rules"
FILES = sorted(path.name for path in FOLDER.glob("*.rules"))


def is_of_site(name: str) -> bool:
    return name.startswith("site")


def content(path: str) -> bytes:
    """A file, whoever owns the checkout."""
    return Path(path).read_bytes()


def ask(fact: Fact) -> Sequence[Any] | None:
    if fact.name == "list":
        return parse_list(content(fact.arguments[0]))
    return Answers(MemoryStore())(fact)


def program(name: str) -> Program:
    path, powers = str(FOLDER / name), POWERS if is_of_site(name) else USER_ACTIONS
    return compile_rules(content(path), path, powers, content)


def results(program: Program, owner: str) -> list[Result]:
    stage, rules = Stage(program, owner), named_rules(program)
    return [
        try_case(stage, case, rules, settings=Settings(), ask=ask, read=content)
        for case in program.cases
    ]


@pytest.mark.parametrize("name", FILES)
def test_cases(name: str) -> None:
    """All tests of a file pass, and together they reach each of its rules."""
    compiled = program(name)
    found = results(compiled, "site" if is_of_site(name) else "user")
    assert [(r.case.name, [f.text for f in r.failures]) for r in found if not r.passed] == []
    assert len(found) > 1
    assert unreached(named_rules(compiled), found) == {}


@pytest.mark.parametrize("name", FILES)
def test_lint(name: str) -> None:
    """Nothing in a file is doubtful, but for facts that need a scanner."""
    doubts = lint(program(name), provided={*_PROVIDERS, "learn"})
    assert [str(doubt) for doubt in doubts if doubt.code != "unknown-fact"] == []


@pytest.mark.parametrize("name", FILES)
def test_layout(name: str) -> None:
    """A file is laid out as `mdaflow fmt` does it."""
    text = (FOLDER / name).read_text()
    assert layout(text, name) == text


def test_site_files_are_of_the_site() -> None:
    """What users may install needs no rights of the site: the two kinds differ by their names."""
    assert {name for name in FILES if is_of_site(name)} >= {"site.rules", "site-roles.rules"}
    assert len(FILES) > 10


def test_overview() -> None:
    """README.md tells of each file, and of no others."""
    text = (FOLDER / "README.md").read_text()
    told = {link for link in re.findall(r"\]\(([^)]+)\)", text) if "/" not in link}
    assert told == {path.name for path in FOLDER.iterdir()} - {"README.md"}
