"""Doubtful rules: each warning at its place and in its words, and none where nothing is doubtful.

In tests/lint/*.rules a comment beside the line says what is doubtful in it: `# warning: COLUMN:
message`. A line `# own: a@b` gives the user's addresses, `# provided: x y` the facts that somebody
tells, `# separator: .` what divides the levels of folders. clean.rules has what people write.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mdaflow.engine.run import Stage, run
from mdaflow.lang import compile_rules
from mdaflow.lang.lint import MAX_STEPS, lint
from mdaflow.lang.messages import ERRORS, WARNINGS
from mdaflow.lang.source import MAX_PROBLEMS, Problem, SourceError
from mdaflow.mail.message import Message

FOLDER = Path(__file__).parent / "lint"
FILES = sorted(FOLDER.glob("*.rules"))
_NOTE = re.compile(r"# warning: (\d+): (.*?)(?=  # warning|$)")


def said(text: str, name: str) -> list[str] | None:
    """The words of a line `# name: ...`."""
    found = re.search(rf"^# {name}: (.*)$", text, re.MULTILINE)
    return found[1].split() if found else None


def warnings(path: Path) -> list[Problem]:
    """What lint says of a file."""
    text = path.read_text("utf-8")
    program = compile_rules(text, "r")
    own, separator = said(text, "own") or (), said(text, "separator")
    provided = said(text, "provided")
    return lint(program, provided=provided, own=own, separator="".join(separator or "/"))


def codes(text: str) -> list[str]:
    """The codes of the warnings for a text."""
    return [problem.code for problem in lint(compile_rules(text))]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_doubtful_rules_give_their_warnings_and_no_others(path: Path) -> None:
    """Each file gives exactly the warnings that are written in it."""
    wanted = [
        f"{number}:{note[1]}: {note[2]}"
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        for note in _NOTE.finditer(line)
    ]
    assert bool(wanted) == (path.stem != "clean")
    found = warnings(path)
    assert sorted(wanted) == sorted(f"{p.span.line}:{p.span.column}: {p.message}" for p in found)
    assert all(problem.is_warning for problem in found)
    assert [p.span for p in found] == sorted(p.span for p in found)


def test_every_warning_is_earned() -> None:
    """Each text of the table is said of some line, and none is an error as well."""
    assert {problem.code for path in FILES for problem in warnings(path)} == set(WARNINGS)
    assert not set(WARNINGS) & set(ERRORS)


def test_nothing_is_said_of_facts_when_nobody_knows_who_tells_them() -> None:
    """Without `provided` no fact is doubted; with it those are that are not in it."""
    program = compile_rules("if spam or virus.found { learn spam }")
    assert lint(program) == []
    assert [p.code for p in lint(program, provided=())] == 2 * ["unknown-fact"] + ["nobody-learns"]
    assert lint(program, provided=("spam", "virus.found", "learn")) == []


def test_own_addresses_come_from_both_sides() -> None:
    """What is one's own is given, or is in the list `me`; without either nothing is known."""
    text = 'if size > 5 { forward to "bob@example.org" } else { reply "x" from "b@example.org" }'
    assert codes(text) == []
    assert codes(f'list me = ["bob@"] {text}') == ["forward-self", "reply-from"]
    own = lint(compile_rules(text), own=["Bob@Example.ORG", "b@example.org"])
    assert [p.code for p in own] == ["forward-self"]


FILES_OF_ONE_PROGRAM = {
    "lists.rules": b'list ours = ["a"] list theirs = ["b"] set base = "x"',
    "ends.rules": b'if subject contains "a" { keep }\ndiscard',
    "names.txt": b"a@example.org",
}


def compiled(text: str) -> list[str]:
    program = compile_rules(text, "main.rules", read=FILES_OF_ONE_PROGRAM.__getitem__)
    return list(map(str, lint(program)))


def test_imported_files() -> None:
    """A file of nothing but names may have more than one uses; what ends in another is named."""
    assert compiled('import "lists.rules" if subject in ours { keep }') == []
    assert compiled('import "ends.rules"\nif subject contains "ab" { keep }') == [
        "main.rules:2:1: nothing comes here: the run always ends at ends.rules:2"
    ]


def test_lists_in_files() -> None:
    """What is in a file is not known before the run, but it is the same for two rules."""
    text = 'list names from "names.txt"\nif from in names { keep }\n'
    assert compiled(text) == []
    assert compiled(text + 'if from is "a@example.org" { keep } if subject in names { keep }') == []
    assert len(compiled(text + "if from in names and size > 5 { keep }")) == 1


def test_many_warnings() -> None:
    """Of very many doubts some are said, and of one list a few."""
    assert len(codes('flag "Seen"\n' * 1000)) == MAX_PROBLEMS
    entries = ", ".join(f'"{n}.example"' for n in range(1000))
    assert codes(f"if from in [{entries}] {{ keep }}") == 3 * ["list-entry"]


def test_a_long_value_is_shown_short() -> None:
    """A warning quotes the beginning of a long value."""
    (problem,) = lint(compile_rules(f'if subject matches "{"x" * 5000}" {{ keep }}'))
    assert problem.code == "glob-plain"
    assert len(str(problem)) < 600


HOSTILE = {
    "ranges": "\n".join(f"if size between {n} and {n + 1} {{ keep }}" for n in range(4000)),
    "ranges of the same": "if size > 5 and lines > 6 { keep }\n" * 4000,
    "conjunctions": "\n".join(f"if lines = {n} and size > 5 {{ keep }}" for n in range(4000)),
    "elif": ("if lines = 5 {}" + " elif lines = 6 { keep }" * 99 + "\n") * 30,
    "substrings": "\n".join(f'if body contains "{"x" * n}" {{}}' for n in range(1, 300)) * 3,
    "names": "\n".join(f'if header "X-Spam-{n:x}" exists {{ keep }}' for n in range(4000)),
    "anchors": f"if subject matches /{'^' * 60_000}/ {{ keep }}",
    "classes": f"if subject matches /{'[[:alpha:]]' * 500}/ {{ keep }}",
    "networks": f'if client.ip is "{"a:" * 30_000}" {{ keep }}',
    "stars": f'if subject contains "{"a" * 60_000}" or subject is "{"*a" * 30_000}" {{ keep }}',
    "brackets": f'if from is "{"<" * 60_000}" or from in ["{"a." * 30_000}"] {{ keep }}',
    "labels": f'if from in ["@a"] {{ keep }} if from is "a@{"a." * 30_000}b" {{ keep }}',
    "folders": f'deliver to "{"- " * 30_000}"',
    "list": 'list x = ["a@b"' + ', "x@y"' * 90_000 + "]" + "if from in x { keep }" * 4,
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_hostile_programs_have_an_end(text: str) -> None:
    """No program makes lint compare everything with everything."""
    assert len(codes(text)) <= MAX_PROBLEMS


def test_what_is_not_compared_any_more_is_no_warning() -> None:
    """Behind the last look-up nothing is said to be shadowed, though it may be."""
    wide = "\n".join(f"if size between {n} and {n + 1} {{ keep }}" for n in range(4, 3000))
    assert MAX_STEPS < 3000 * 3000 / 2
    assert codes(f"if size > 3 and lines > 3 {{ keep }}\n{wide}\nif size = 2900.5 {{ keep }}") == []
    assert codes("if size between 1 and 2 { keep } if size = 1.5 { keep }") == ["shadowed"]


TEXTS = [path.read_text("utf-8") for path in FILES]
_VALUE = re.compile(
    r'"(?:[^"\\\n]|\\.)*"|(?<=matches )/(?:[^/\\\n]|\\.)*/|\d+[KM]?\b|\b(?:and|or)\b'
)
VALUES = sorted({value for text in TEXTS for value in _VALUE.findall(text)})
ALIKE = {kind: [v for v in VALUES if v[0] == kind] for kind in {v[0] for v in VALUES}}
edits = st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(0, 1 << 16)), max_size=20)


@given(st.sampled_from(TEXTS), edits)
@settings(max_examples=200)
def test_any_program_can_be_looked_at(text: str, edits: list[tuple[int, int]]) -> None:
    """Of any program there are warnings at places in it, or none."""
    for place, other in edits:
        values = list(_VALUE.finditer(text))
        old = values[place % len(values)]
        known = ALIKE[old[0][0]]
        text = text[: old.start()] + known[other % len(known)] + text[old.end() :]
    try:
        program = compile_rules(text)
    except SourceError:
        return
    last = text.count("\n") + 1
    for problem in lint(program, provided=(), own=("a@b",)):
        assert problem.is_warning
        assert 0 < problem.span.line <= last


WORDS = ["a", "b", "ab", "AB", "ba", "", "ß", "ss", "a@b", "@b", ".b", "a@", "b.c", "a@b.c"]
words = st.sampled_from(WORDS).map('"{}"'.format)
globs = st.text(st.sampled_from("ab*?ß"), max_size=4).map('"{}"'.format)


def listed(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.lists(inner, min_size=1, max_size=3).map(lambda found: f"[{', '.join(found)}]")


def spoken(*parts: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.tuples(*parts).map(" ".join)


every = st.sampled_from(["", "", "every"])
subjects = st.sampled_from(
    [
        *("subject", "from", "to", "recipients", "from.domain", "from.user", "raw subject"),
        *('header "X-A"', 'header ["X-A", "Subject"]'),
    ]
)
exactly = st.sampled_from(["", "", "exactly", "all", "all exactly"])
comparisons = st.one_of(
    spoken(
        every, subjects, st.sampled_from(["is", "contains", "starts with", "ends with", "is not"]),
        exactly, st.one_of(words, listed(words)),
    ),
    spoken(every, subjects, st.just("matches"), exactly, st.one_of(globs, listed(globs))),
    spoken(every, subjects, st.just("matches"), st.sampled_from(["/a/", "/a/c", "/b$/"])),
    spoken(every, subjects, st.just("in"), listed(words)),
    spoken(every, subjects, st.just("exists")),
    spoken(
        st.sampled_from(["lines", "to.count", "from.count"]),
        st.sampled_from(["<", "<=", ">", ">=", "=", "!=", "between 1 and"]),
        st.sampled_from("01234"),
    ),
)  # fmt: skip
conditions = st.recursive(
    comparisons,
    lambda inner: st.one_of(
        inner.map("not ({})".format),
        spoken(inner, st.sampled_from(["and", "or"]), inner).map("({})".format),
    ),
    max_leaves=4,
)
ADDRESSES = ["a@b", "a@b.c", "ab <B@b>", "a <x@y>", '"a@b" <b@x.c>', "ba", "", "a@B, b@a"]
SUBJECTS = ["a", "AB", "ba", "ß", "", "aab", "ss", "=?utf-8?q?ab?=", "a@b.c"]
FIELDS = ["X-A: b", "X-A: ab", "X-A:", "Cc: a@b", "X-A: a\nX-A: B", "Subject: b", "Bcc: b@b.c"]
MESSAGES = [
    Message(f"From: {sender}\nTo: {to}\nSubject: {subject}\n{field}\n\n".encode())
    for sender, to in zip(ADDRESSES, [*ADDRESSES[3:], "a@c", "ß <a@b>", "ss"], strict=True)
    for subject, field in zip(SUBJECTS, [*FIELDS, "X-B: a", "X-A: ß"], strict=True)
]


def ran(rules: Stage, message: Message) -> str:
    """The rule whose action came first."""
    return run(rules, message).actions[0].rule


@given(conditions, conditions, st.sampled_from(["{1}", "({0}) and {1}", "{1} and ({0})"]))
@settings(max_examples=300)
def test_what_is_shadowed_never_runs(first: str, second: str, form: str) -> None:
    """No message comes to a rule that is said to be shadowed, or behind the end of the run."""
    second = form.format(first, second)
    text = f'rule "1" when {first} {{ discard }}\nrule "2" when {second} {{ discard }}'
    found = {problem.code for problem in lint(compile_rules(text))}
    if found & {"shadowed", "unreachable"}:
        rules = Stage(compile_rules(text))
        assert all(ran(rules, message) != "2" for message in MESSAGES)


@given(comparisons, conditions)
@settings(max_examples=30)
def test_what_is_contrary_is_always_so(first: str, second: str) -> None:
    """Joined to its contrary a condition is always what the warning says."""
    for join, value in (("and", False), ("or", True)):
        text = f'rule "1" when {first} {join} ({second}) {join} not ({first}) {{ discard }}'
        assert "contrary" in codes(text)
        rules = Stage(compile_rules(text))
        assert {ran(rules, message) == "1" for message in MESSAGES} == {value}
