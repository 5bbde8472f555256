"""Golden cases: rules and a message in, the Plan and its trace out (tests/cases/*.case).

A file begins with a sentence that says what it shows. Sections follow, each begun by a line:

    --- rules       of the user; also `--- before` and `--- after`, of the site
    --- file NAME   optional: what rules import, a list with an entry a line, what a filter makes
    --- envelope    optional: one thing a line, see below
    --- message     the bytes as they are
    --- plan        expected: the actions with their owner and rule; below one whose message is
                    not the one that came, how it differs; then the edits and the errors
    --- trace       expected: what was tested, with the values that were seen

A folder that begins with `never` must not be in the plan. The lines of the envelope are

    from: to: original:                             addresses
    client.ip: client.name: client.helo:            what XFORWARD said
    received: 2026-11-20 10:00:00                   the arrival, in the zone; this one if not said
    zone: delimiters: trusted: own: spam_score:     settings; UTC, `+` and 5 if not said
    fact NAME: a, b                                 what the world answers; it knows no others
    fact attachment.inner: a + b, c                 `+` is between the values of one attachment
    fact folder Work: true                          what it answers about something
    fact filter /bin/prog: NAME                     the file that the program gives
    fact list NAME: ! why                           it cannot be told: the rule fails
    given NAME: a, b                                a fact that comes before all
    given header X-A: a                             and one with an argument

A run that gives something else writes it to NAME.got; `pytest --update` accepts it.
"""

from __future__ import annotations

import difflib
import errno
import os
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from mdaflow.engine.context import Fact, Settings
from mdaflow.engine.plan import Action, EvaluationError, Plan, Unanswerable
from mdaflow.engine.run import Stage, run
from mdaflow.lang import compile_rules, ir
from mdaflow.lang.check.conditions import RELATIONS
from mdaflow.lang.source import Span
from mdaflow.lang.subjects import SUBJECTS, split, type_of
from mdaflow.mail.date import parse_moment
from mdaflow.mail.envelope import Client, Envelope
from mdaflow.mail.message import Message

CASES = sorted((Path(__file__).parent / "cases").glob("*.case"))
_SECTION = re.compile(
    rb"^--- (rules|before|after|file [^\n]+|envelope|message|plan|trace)\n", re.MULTILINE
)
_STAGES = {"before": "site", "rules": "user", "after": "site"}
_TRUTHS = {"true": True, "false": False}
Sections = dict[str, bytes]
Said = dict[tuple[str, str], str]
"""Facts as they are written: (name, what it is about) -> values."""


def read(path: Path) -> tuple[bytes, Sections]:
    """What stands before the sections, and the sections by name."""
    sentence, *rest = _SECTION.split(path.read_bytes())
    return sentence, {name.decode(): text for name, text in zip(rest[::2], rest[1::2], strict=True)}


def programs(sections: Sections) -> list[tuple[ir.Program, str]]:
    """The programs of a case in their order, with their owners."""

    def content(path: str) -> bytes:
        if f"file {path}" not in sections:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return sections[f"file {path}"]

    return [
        (compile_rules(sections[name], name, read=content), owner)
        for name, owner in _STAGES.items()
        if name in sections
    ]


# what is said in the section `envelope`


class World:
    """Who answers facts in a case."""

    def __init__(self, said: Said, sections: Sections) -> None:
        self.said = said
        self.sections = sections

    def __call__(self, fact: Fact) -> Sequence[Any] | None:
        about = fact.arguments[0] if fact.arguments else ""
        said = self.said.get((fact.name, about))
        if said is not None and said.startswith("! "):
            raise Unanswerable(said[2:])
        if fact.name == "list":
            return self.sections[f"file {about}"].decode().splitlines()
        if said is None:
            return None
        return [self.sections[f"file {said}"]] if fact.name == "filter" else typed(fact.name, said)


def typed(name: str, said: str) -> list[Any]:
    """The values of a fact."""
    values = [] if not said else said.split(", ")
    subject, part = split(name)
    kind = "truth" if name in ir.QUESTIONS else type_of(subject, part)
    if kind == "truth":
        return [_TRUTHS[value] for value in values]
    if kind == "number":
        return [float(value) for value in values]
    if name in ("attachment.inner", "attachment.danger"):
        return [value.split(" + ") if value else [] for value in values]
    return values


def facts(said: dict[str, str], word: str) -> Said:
    """The lines that begin with a word."""
    lines = ((line.split(" ", 2), value) for line, value in said.items())
    return {(w[1], "".join(w[2:])): value for w, value in lines if w[0] == word}


@cache
def zone(name: str) -> ZoneInfo:
    """A zone, by its name."""
    return ZoneInfo(name)


def words_of(text: str) -> tuple[str, ...]:
    """What commas divide."""
    return tuple(text.split(", ")) if text else ()


def decide(sections: Sections, *, trace: bool) -> Plan:
    """What the rules of a case make of its message; raises EvaluationError if the site's fail."""
    lines = sections.get("envelope", b"").decode().splitlines()
    said = {name: value for name, _, value in (line.partition(": ") for line in lines)}
    settings = Settings(
        said.get("delimiters", "+"),
        zone(said.get("zone", "UTC")),
        words_of(said.get("trusted", "")),
        words_of(said.get("own", "")),
        float(said.get("spam_score", "5")),
    )
    arrival = parse_moment(said.get("received", "2026-11-20 10:00:00"), settings.zone)
    assert arrival, "this is no moment"
    envelope = Envelope(
        said.get("from", "ann@example.com"),
        said.get("to", "bob@example.org"),
        said.get("original", ""),
        Client(**{f.name: said.get(f"client.{f.name}", "") for f in fields(Client)}),
        received=arrival[0],
    )
    return run(
        [Stage(program, owner) for program, owner in programs(sections)],
        Message(sections["message"]),
        envelope,
        World(facts(said, "fact"), sections),
        trace=trace,
        settings=settings,
        given={
            (name, about if name in ir.QUESTIONS else about.lower()): typed(name, value)
            for (name, about), value in facts(said, "given").items()
        },
    )


# what is shown


def shown(action: Action, came: bytes) -> Iterator[str]:
    """The lines of the expected plan for an action."""
    rule = f'  (rule "{action.rule}")' if action.rule else ""
    yield f"{action.owner}: {action}{rule}"
    if action.message is not None:
        whole = b"".join(action.message.under(action.message.head))
        old, new = (raw.decode("utf-8", "replace").split("\n") for raw in (came, whole))
        yield from (
            f"    {line}"
            for line in difflib.unified_diff(old, new, n=0, lineterm="")
            if not line.startswith(("---", "+++", "@@"))
        )


def outcome(sections: Sections) -> tuple[list[str], list[str]]:
    """The lines of plan and trace; a run that is not traced must give the same plan."""
    try:
        plan = decide(sections, trace=True)
    except EvaluationError as error:
        with pytest.raises(EvaluationError, match=re.escape(str(error))):
            decide(sections, trace=False)
        return [f"comes again later: {error}"], []
    lines = planned(plan, sections)
    untraced = decide(sections, trace=False)
    assert planned(untraced, sections) == lines
    assert not untraced.trace
    return lines, [str(event) for event in plan.trace]


def planned(plan: Plan, sections: Sections) -> list[str]:
    """The lines of a plan."""
    came = sections["message"]
    return [
        *(line for action in plan.actions for line in shown(action, came)),
        *["nothing finished it"] * plan.implicit_keep,
        *(f"edit: {edit}" for edit in plan.edits),
        *["it will be known as seen"] * plan.asked_duplicate,
        *(f"error: {error}" for error in plan.errors),
    ]


def written(sentence: bytes, sections: Sections) -> bytes:
    """The file of a case with what it gives."""
    lines, trace = outcome(sections)
    assert not [line for line in lines if 'deliver to "never' in line.lower()]
    sections = {
        **sections,
        "plan": "".join(f"{line}\n" for line in lines).encode(),
        "trace": "".join(f"{event}\n" for event in trace).encode(),
    }
    return sentence + b"".join(b"--- %b\n%b" % (n.encode(), t) for n, t in sections.items())


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_case(path: Path, pytestconfig: pytest.Config) -> None:
    """Each case gives its plan and its trace, byte by byte."""
    sentence, sections = read(path)
    assert sentence.endswith(b".\n"), "a case begins with a sentence"
    wanted, got = path.read_bytes(), written(sentence, sections)
    other = path.with_suffix(".got")
    if pytestconfig.getoption("--update"):
        path.write_bytes(got)
    elif got != wanted:
        other.write_bytes(got)
        old, new = (text.decode("utf-8", "replace").splitlines() for text in (wanted, got))
        pytest.fail("\n".join(difflib.unified_diff(old, new, path.name, other.name, lineterm="")))
    other.unlink(missing_ok=True)


# what the cases cover


def nodes(value: object) -> Iterator[object]:
    """Every node of a program: a node is a tuple too, of what is in it."""
    if isinstance(value, tuple) and not isinstance(value, Span):
        yield value
        for item in value:
            yield from nodes(item)


def kind_of(name: str) -> str:
    """Subjects of one kind have the same parts, which need one case."""
    kind = SUBJECTS[name].type if name in SUBJECTS else ""
    return kind if kind == "address" else name


def operand(value: object, kept: Collection[str] = ()) -> str:
    """What kind of value stands on the right; `kept` are the lists in files."""
    match value:
        case ir.Text(literal=None):
            return "a text with holes"
        case ir.Items(name=name):
            return "a list in a file" if name in kept else "a named list" if name else "a list"
    return type(value).__name__


def lists_in_files(program: ir.Program) -> set[str]:
    """The names of the lists of a program whose entries stand in files."""
    named = (statement for statement in program.body if isinstance(statement, ir.Assign))
    return {n.name for n in named if isinstance(n.value, ir.Items) and n.value.file}


def words(node: object, kept: Collection[str]) -> Iterator[str]:
    """What a node uses of the language."""
    yield type(node).__name__
    match node:
        case ir.Subject():
            yield from (f"{'raw ' * node.raw}{node.name}", f"{kind_of(node.name)}.{node.part}")
        case ir.Compare(relation=relation):
            yield f"{type_of(node.subject.name, node.subject.part)} {relation}"
            yield from (f"{w} {relation}" for w in ("every", "all", "exact") if getattr(node, w))
            yield from (f"{relation} {operand(value, kept)}" for value in node.operands)
        case ir.Join(word="not", tests=(ir.Compare() as test,)):
            yield from ("not", *(f"not {word}" for word in words(test, kept)))
        case ir.Join(word=word):
            yield word
        case ir.Question():
            yield node.name
        case ir.Some():
            yield f"{'every ' * node.every}where"
        case ir.Act():
            also = "also " * (ir.ACTIONS[node.verb] and not node.ends)
            yield f"{also}{node.verb}{' with words' * bool(node.operands)}"
            yield from (f"{node.verb} {name}" for name, _ in node.options)
            yield from [f"{node.verb} flags"] * bool(node.flags)
        case ir.Flag(operation=operation):
            yield f"Flag {operation}"
        case ir.Edit(operation=operation, test=test):
            yield f"Edit {operation}{f' {test.relation}' if test else ''}"
        case ir.Score(pattern=pattern, most=most):
            yield f"score per {operand(pattern)}{' at most' * (most is not None)}"
        case ir.Hole():
            yield from (f"|{name}" for name, _ in node.filters)
            yield "hole with a name" if node.argument else f"hole {kind_of(split(node.name)[0])}"


def relations() -> Iterator[str]:
    """Each relation with each type that it fits, and its negation."""
    for kind, fitting in RELATIONS.items():
        for relation in fitting:
            yield from (f"{kind} {relation}", f"not {kind} {relation}")


def operands() -> Iterator[str]:
    """Each relation with each kind of value that it can have."""
    for relation in ("is", "contains", "starts", "ends", "glob", "in"):
        values = ("a list", "a named list", "a list in a file")
        texts = () if relation == "in" else ("Text", "a text with holes")
        yield from (f"{relation} {value}" for value in (*texts, *values))
        yield from (f"{mode} {relation}" for mode in ("every", "all", "exact"))
    yield from ("regex Pattern", "every regex", "exact regex", "every exists", "truth true")
    for relation in ("=", "<", "<=", ">", ">=", "between"):
        yield from (f"{relation} Number", f"{relation} Text", f"every {relation}")


def statements() -> Iterator[str]:
    """Each statement in each of its forms."""
    for verb, final in ir.ACTIONS.items():
        yield from (f"{also}{verb}" for also in ("", "also ") if final and verb in _BARE)
        yield from [f"{verb} with words"] * (verb != "keep")
    yield from (f"also {verb} with words" for verb in ("deliver", "forward", "pipe", "quarantine"))
    yield from (f"{verb} {name}" for verb in ("deliver", "keep") for name in ("flags", "expire"))
    yield from (f"reply {name}" for name in ("subject", "every", "from"))
    yield from ("pipe within", "pipe locked", "remember for")
    yield from ("Flag add", "Flag remove", "Edit add", "Edit set", "Edit remove")
    yield from (f"Edit remove {relation}" for relation in ("is", "glob", "regex", "in", "exists"))
    yield from ("score per NoneType", "score per Text", "score per a text with holes at most")
    yield from ("score per Pattern", "score per Pattern at most", "score per Text at most")


_BARE = ("keep", "discard", "reject", "defer", "quarantine")
"""Final actions that need no words."""


def test_cases_cover_the_language() -> None:
    """Every subject, part, relation, value, action, option, filter and node is in some case."""
    found = {
        word
        for path in CASES
        for program, _ in programs(read(path)[1])
        for node in nodes(program)
        for word in words(node, lists_in_files(program))
    }
    parts = ((kind_of(name), part) for name, kind in SUBJECTS.items() for part in kind.parts)
    wanted = {
        *SUBJECTS,
        *(f"{kind}.{part}" for kind, part in parts),
        *(f"raw {name}" for name, kind in SUBJECTS.items() if kind.raw),
        *relations(),
        *operands(),
        *statements(),
        *ir.QUESTIONS,
        *(f"|{name}" for name in ir.FILTERS),
        *("and", "or", "not", "where", "every where", "score.s"),
        *("hole address", "hole subject", "hole received", "hole with a name", "hole score"),
        *("Branch", "Assign", "Stop", "Constant", "Filter", "Alias", "Case", "Given", "Expected"),
    }
    assert not sorted(wanted - found - _MEANINGLESS)


_MEANINGLESS = {
    *("also discard", "also reject", "also defer", "discard with words"),
    *(f"all {relation}" for relation in ("is", "in")),
}
"""What the language does not have, or what nobody would write."""
