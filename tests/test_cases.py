"""Golden cases: rules and a message in, the Plan and its trace out (tests/cases/*.case).

A file begins with a sentence that says what it shows. Sections follow, each begun by a line:

    --- rules       of the user; also `--- before` and `--- after`, of the site
    --- envelope    optional: `from:`, `to:`, `original:`, `client.ip:` and so on, `delimiters:`,
                    and `fact NAME: VALUE` for what the world answers
    --- message     the bytes as they are
    --- plan        expected: the actions with their owner and rule, then the errors
    --- trace       expected: what was tested, with the values that were seen

A run that gives something else writes it to NAME.got; `pytest --update` accepts it.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from mdaflow.engine.facts import Fact, Settings
from mdaflow.engine.plan import Action, Plan
from mdaflow.engine.run import Stage, run
from mdaflow.lang import compile_rules, ir
from mdaflow.lang.source import Span
from mdaflow.lang.subjects import SUBJECTS
from mdaflow.mail.envelope import Client, Envelope
from mdaflow.mail.message import Message

CASES = sorted((Path(__file__).parent / "cases").glob("*.case"))
_SECTION = re.compile(rb"^--- (\w+)\n", re.MULTILINE)
_STAGES = {"before": "site", "rules": "user", "after": "site"}
Sections = dict[str, bytes]


def read(path: Path) -> tuple[bytes, Sections]:
    """What stands before the sections, and the sections by name."""
    sentence, *rest = _SECTION.split(path.read_bytes())
    return sentence, {name.decode(): text for name, text in zip(rest[::2], rest[1::2], strict=True)}


def programs(sections: Sections) -> list[tuple[ir.Program, str]]:
    """The programs of a case in their order, with their owners."""
    return [
        (compile_rules(sections[name], name), owner)
        for name, owner in _STAGES.items()
        if name in sections
    ]


def decide(sections: Sections, *, trace: bool) -> Plan:
    """What the rules of a case make of its message."""
    lines = sections.get("envelope", b"").decode().splitlines()
    said = dict(line.split(": ", 1) for line in lines)
    facts = {k.removeprefix("fact "): v.split(", ") for k, v in said.items() if "fact " in k}
    client = {f.name: said.get(f"client.{f.name}", "") for f in dataclasses.fields(Client)}
    envelope = Envelope(
        said.get("from", "ann@example.com"),
        said.get("to", "bob@example.org"),
        said.get("original", ""),
        Client(**client),
    )

    def ask(fact: Fact) -> list[str] | None:
        return facts.get(fact.name)

    stages = [Stage(program, owner) for program, owner in programs(sections)]
    settings = Settings(said.get("delimiters", "+"))
    message = Message(sections["message"])
    return run(stages, message, envelope, ask, trace=trace, settings=settings)


def shown(action: Action) -> str:
    """One line of the expected plan."""
    rule = f'  (rule "{action.rule}")' if action.rule else ""
    return f"{action.owner}: {action}{rule}"


def written(sentence: bytes, sections: Sections, plan: Plan) -> bytes:
    """The file of a case with what it gives."""
    lines = [shown(action) for action in plan.actions]
    lines += ["nothing finished it"] * plan.implicit_keep
    lines += [f"error: {error}" for error in plan.errors]
    sections = {
        **sections,
        "plan": "".join(f"{line}\n" for line in lines).encode(),
        "trace": "".join(f"{event}\n" for event in plan.trace).encode(),
    }
    return sentence + b"".join(b"--- %b\n%b" % (n.encode(), t) for n, t in sections.items())


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_case(path: Path, pytestconfig: pytest.Config) -> None:
    """Each case gives its plan and its trace, byte by byte."""
    sentence, sections = read(path)
    assert sentence.endswith(b".\n"), "a case begins with a sentence"
    plan = decide(sections, trace=True)
    wanted, got = path.read_bytes(), written(sentence, sections, plan)
    other = path.with_suffix(".got")
    if pytestconfig.getoption("--update"):
        path.write_bytes(got)
    elif got != wanted:
        other.write_bytes(got)
        old, new = (text.decode("utf-8", "replace").splitlines() for text in (wanted, got))
        pytest.fail("\n".join(difflib.unified_diff(old, new, path.name, other.name, lineterm="")))
    other.unlink(missing_ok=True)
    untraced = decide(sections, trace=False)
    assert untraced == dataclasses.replace(plan, trace=())


def nodes(value: object) -> Iterator[object]:
    """Every node of a program: a node is a tuple too, of what is in it."""
    if isinstance(value, tuple) and not isinstance(value, Span):
        yield value
        for item in value:
            yield from nodes(item)


def kind_of(name: str) -> str:
    """Subjects of one kind have the same parts, which need one case."""
    return SUBJECTS[name].type if SUBJECTS[name].type == "address" else name


def words(node: object) -> Iterator[str]:
    """What a node uses of the language."""
    match node:
        case ir.Subject():
            yield from (f"{'raw ' * node.raw}{node.name}", f"{kind_of(node.name)}.{node.part}")
        case ir.Compare():
            yield from (node.relation, *(w for w in ("every", "all", "exact") if getattr(node, w)))
        case ir.Act():
            yield node.verb if node.ends else f"also {node.verb}"
        case ir.Flag():
            yield f"flag {node.operation}"
        case ir.Hole():
            yield from (f"|{name}" for name, _ in node.filters)
        case ir.Join():
            yield node.word
        case _:
            yield type(node).__name__


def test_cases_cover_the_language() -> None:
    """Every subject, part, relation, action, filter and kind of node is in some case."""
    found = {
        word
        for path in CASES
        for program, _ in programs(read(path)[1])
        for node in nodes(program)
        for word in words(node)
    }
    wanted = {
        *SUBJECTS,
        *(f"{kind_of(name)}.{part}" for name, kind in SUBJECTS.items() for part in kind.parts),
        *(f"raw {name}" for name, kind in SUBJECTS.items() if kind.raw),
        *(relation for relation in ir.RELATIONS if relation != "true"),
        *ir.ACTIONS,
        *("also deliver", "also keep", "flag add", "flag remove"),
        *(f"|{name}" for name in ir.FILTERS),
        *("and", "or", "not", "every", "all", "exact"),
        *("Branch", "Assign", "Stop", "Constant", "Items", "Pattern", "Number", "Text"),
    }
    assert not wanted - found
