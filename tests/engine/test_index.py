"""Rules that are looked up: fewer are tried, and nothing else is different."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import count
from threading import Barrier
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mdaflow.engine import index, lookup, triggers
from mdaflow.engine import state as running
from mdaflow.engine.context import Context, Fact
from mdaflow.engine.plan import EvaluationError, Unanswerable
from mdaflow.engine.run import Stage, run
from mdaflow.engine.state import Run
from mdaflow.lang import compile_rules
from mdaflow.mail.envelope import Envelope
from mdaflow.mail.message import Message


@contextmanager
def set_to(**values: object) -> Iterator[None]:
    """The index with other bounds."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in values.items():
            (module,) = (m for m in (index, lookup, triggers) if hasattr(m, name))
            patch.setattr(module, name, value)
        yield


def compiled(rules: str, owner: str = "user") -> Stage:
    return Stage(compile_rules(rules, read=lambda path: b""), owner)


def quoted(text: str) -> str:
    """A text as a string of the language."""
    return '"' + "".join(f"\\u{{{ord(c):x}}}" if c in '"\\{}\n\x01' else c for c in text) + '"'


# Texts

# They meet, also without regard to case, and RE2 sees some of them differently.
TEXTS = [
    *("a", "b", "ab", "abc", "ABCD", "bcd", "a b", "", "@", "a@b.c", "A@B.C", "x@sub.b.c", "@b.c"),
    *(".c", "a@", "kiss", "KISS", "\u212aiss", "ki\u017fs", "ki\xdf", "strasse", "stra\xdfe"),
    *("\u0130", "i\u0307", "\u0131", "STRA\u1e9eE", "\u03a3\u03c2", "\u03c3", "\ufb00", "ff"),
    *(
        "Re: abc",
        "*",
        "a*c",
        "?b",
        "\\",
        "12 a",
        "a\u0308",
        "\xe4",
        "\u1e9e",
        "\U0001f600b",
        "\x01",
    ),
    *("a\nbcd", "abc " * 30 + "end", "abc " * 30 + "END of it", "only the end"),
]
PATTERNS = [
    *("a", "^a", "b$", "a(b)?c", "(?P<g>b)(c)", "kiss", "k[i\u0131]s+", "ki\u017fs", "\u212aiss"),
    *("STRASSE", "stra\xdfe", "\u0130", "i\u0307", "\\bab", "a.c", "abc|kiss", "(?:abc|bcd)+d?"),
    *("(?:)", "x*", "\\w+@b", "(?i)KISS", "(?-i:kiss)", "\\x{212a}iss", "\\pL\\pL\\pL", "[^a]bcd"),
    *(
        "a{3,}",
        "(a|b|c)(a|b|c)(c|d)",
        "\\QA@b.\\E",
        "abc.*end",
        "(?:re|fwd): (.*)",
        "\\z",
        "\ufb00",
    ),
    *("abc.*\\x{1}end", "a.bcd", "^bcd", "stra\u1e9ee", "\xe4\\z", "\xc3\xa4", "\\C\\Ciss"),
]
WAYS = [
    *("is {}", "is exactly {}", "contains {}", "contains exactly {}", "starts with {}", "in [{}]"),
    *("starts with exactly {}", "ends with {}", "ends with exactly {}", "matches {}"),
    *("matches exactly {}", 'is all [{}, "a"]', 'contains all ["ab", {}]', 'is ["x", {}]'),
    *('starts with ["x", {}]', 'in ["x", {}]'),
]
VALUES = [
    *(text.encode() for text in TEXTS),
    *(b"\xff", b"ki\xff\xc3\x9f", b"=?utf-8?q?ki=C3=9F?=", b"\xc3\xa4 \xc3", b"=?x?q?a?= a@B.c"),
    *(b"STRASSE", b"\xc4\xb0stanbul", b"xabcx", b"Ann <a@b.c>, kiss <x@b.c>", b"a" * 300_000),
]


def every_way() -> Iterator[str]:
    for text in TEXTS:
        yield from (way.format(quoted(text)) for way in WAYS)
    for pattern in PATTERNS:
        yield from (f"matches /{pattern}/{flags}" for flags in ("", "c", "s", "m"))


@pytest.fixture(scope="module")
def dictionary() -> Callable[[str], Stage]:
    """A program that says by flags in which ways a subject compares with which texts."""
    lines = [f'{way} {{ flag "f{number}" }}' for number, way in enumerate(every_way())]
    return lambda subject: compiled("\n".join(f"if {subject} {line}" for line in lines))


def decided(stage: Stage, message: Message) -> tuple[frozenset[str], tuple[str, ...]]:
    plan = run(stage, message)
    return plan.actions[0].flags, plan.errors


@pytest.mark.parametrize(
    "subject", ["subject", "raw subject", "from", "every from.name", 'header ["X-A", "From"]']
)
def test_texts(subject: str, dictionary: Callable[[str], Stage]) -> None:
    """Every text is found in every way in which it would be found without looking it up."""
    stage = dictionary(subject)
    for value in VALUES:
        line = value.replace(b"\n", b"\n ")
        raw = b"Subject: %s\nFrom: %s\nX-A: b\n\n" % (line, line)
        looked_up = decided(stage, Message(raw))
        with set_to(ENABLED=False):
            assert looked_up == decided(stage, Message(raw))


# Conditions, and what rules do


def sentence(*parts: st.SearchStrategy[str] | str) -> st.SearchStrategy[str]:
    """Parts with spaces between them."""
    found = [st.just(part) if isinstance(part, str) else part for part in parts]
    return st.tuples(*found).map(" ".join)


words = st.sampled_from(['"a"', '"ab"', '"b"', '"a@b.c"', '"@b.c"', '"kiss"', '"ki\xdf"', '""'])
items = st.lists(words, max_size=3).map(lambda found: f"[{', '.join(found)}]")
lists = st.one_of(items, items, st.sampled_from(["some", "filed"]))
literals = st.one_of(
    *(words, words, lists, sentence("all", lists), sentence("exactly", words)),
    st.sampled_from(['"{subject}"', '"{v}"']),
)
regexes = st.sampled_from(["/a/", "/^ab/", "/(a)(?P<g>b)?/c", "/kiss|a@b/", "/k\xeds+/", "/./s"])
subjects = sentence(
    st.sampled_from(["", "", "", "every"]),
    st.sampled_from([
        *("subject", "subject", 'header "X-A"', 'header "X-A"', "from", "from", "raw subject"),
        *("from.domain", "recipients", 'header ["X-A", "Cc"]', "body", "raw body", "body.html"),
        *("attachment", "envelope.from", "v", "received.weekday", "virus.name", "spam.symbols"),
        *("attachment.type", "auth.dkim"),
    ]),
)  # fmt: skip
comparisons = st.one_of(
    sentence(subjects, st.sampled_from(["is", "contains", "starts with", "ends with"]), literals),
    sentence(subjects, st.sampled_from(["is not", "not contains", "matches"]), literals),
    sentence(subjects, st.sampled_from(["matches", "not matches", "matches exactly"]), regexes),
    sentence(subjects, st.sampled_from(["in", "not in"]), lists),
    sentence(subjects, st.sampled_from(["exists", "not exists"])),
)
others = st.sampled_from([
    *("true", "false", "size > 90", "from.count = 1", "score.p >= 1", "subject > 5", "duplicate"),
    *("known_sender", "personal", "bounce", 'folder "x" exists', 'remembered "{subject}"'),
    *('attachment where (name contains "a" and size > 1)', 'listed in "zone"', "multipart"),
    *("attachment where (type in some)", "spam.score > 3", "virus.found", "date exists"),
])  # fmt: skip
conditions = st.recursive(
    st.one_of(comparisons, comparisons, comparisons, others),
    lambda inner: st.one_of(
        sentence("not (", inner, ")"),
        sentence("(", inner, ")"),
        sentence(inner, "and", inner),
        sentence(inner, "or", inner),
    ),
    max_leaves=4,
)
actions = st.sampled_from([
    *("", "", "", "", 'also deliver to "x"', 'also deliver to "{subject}"', 'deliver to "{v}"'),
    *("score p += 1", 'set v = "{subject|first 2}"', 'set v = "kiss"', "stop", 'reject "{v}"'),
    *('add header "X-A: kiss"', 'set header "Subject: ab"', 'remove header "X-A"', "learn spam"),
    *('remove header "Subject" matches /b/', 'filter through ["p"]', 'also forward to "{from}"'),
    *("score p += 1 per match of /a/ in subject", 'unflag "f1"', 'log "{v}"'),
])  # fmt: skip
MARK = 'flag "f#"'
"""The number of each says where a run has been."""
bound = sentence("if", subjects, 'matches /(.)(?P<g>.?)/ { also deliver to "{1}{g}"', MARK, "}")
statements = st.recursive(
    st.one_of(actions, actions, bound),
    lambda inner: st.one_of(
        sentence("if", conditions, "{", MARK, inner, "}"),
        sentence("if", conditions, "{", MARK, inner, inner, "}"),
        sentence("if", conditions, "{", MARK, inner, "} else {", MARK, inner, "}"),
    ),
    max_leaves=3,
)
rules = st.one_of(
    sentence("rule when", conditions, "{", MARK, statements, "}"),
    sentence("rule when", conditions, "{", MARK, statements, "}"),
    sentence("rule when", conditions, "{", statements, "} otherwise {", MARK, statements, "}"),
    sentence("rule {", statements, "}"),
    statements,
)
FIRST = 'list some = ["a@b.c", "@b.c", "kiss"] list filed from "f" set v = "ab" score p += 0\n'


def numbered(found: Iterable[str]) -> str:
    """The text of a program in which each mark has its number."""
    numbers = count()
    return FIRST + re.sub("#", lambda _: str(next(numbers)), "\n".join(found))


texts = st.lists(rules, min_size=2, max_size=10).map(numbered)
values = st.lists(
    st.sampled_from([b"a", b"b", b"ab", b"a@b.c", b"KISS", b"ki\xc3\x9f", b"\xff", b" ", b", "]),
    max_size=3,
).map(b"".join)
names = st.sampled_from([b"From", b"Cc", b"Subject", b"Subject", b"X-A", b"X-A"])
heads = st.lists(st.tuples(names, values).map(b": ".join), min_size=1, max_size=5)
TYPES = [
    b"",
    b"",
    b"\nContent-Type: text/html; charset=utf-8",
    b'\nContent-Type: application/pdf; name="ab"\nContent-Disposition: attachment',
]
mails = st.tuples(heads.map(b"\n".join), st.sampled_from(TYPES), st.just(b"\n\n"), values)

ANSWERS: dict[str, Sequence[Any]] = {
    "virus.name": ["kiss"], "spam.symbols": ["ab", "b"], "attachment.type": ["kiss"] * 9,
    "duplicate": [True], "known_sender": [False], "folder": [True], "remembered": [False],
    "filter": [b"Subject: kiss\nX-A: ab\n\nab\n"], "list": ["kiss", "@b.c"], "spam.score": [5.0],
}  # fmt: skip


def told(stage: Stage, raw: bytes, refused: str, *, trace: bool) -> object:
    """All that a run decides and asks."""
    asked: list[object] = []

    def ask(fact: Fact) -> Sequence[Any] | None:
        asked.append((fact.name, fact.arguments, fact.message.head))
        if fact.name == refused:
            raise Unanswerable(fact.name)
        return ANSWERS.get(fact.name)

    envelope = Envelope("a@b.c", "ann+x@b.c", received=1_700_000_000)
    try:
        plan = run(stage, Message(raw), envelope, ask, trace=trace)
    except EvaluationError as error:
        return str(error), asked
    actions = [(replace(a, message=None), a.message and a.message.head) for a in plan.actions]
    return replace(plan, actions=(), trace=()), actions, asked


@given(texts, mails.map(b"".join), st.sampled_from(["", "", "", *ANSWERS]))
@settings(max_examples=150, deadline=None)
def test_looking_up_changes_nothing(text: str, raw: bytes, refused: str) -> None:
    """Looked up, tried one by one, or traced: rules decide the same, and ask the same."""
    with set_to(MIN_RULES=1, MIN_SHARED=1):
        stage, site = compiled(text), compiled(text, "site")
        looked_up = told(stage, raw, refused, trace=False)
        assert looked_up == told(stage, raw, refused, trace=True)
        at_site = told(site, raw, refused, trace=False)
    with set_to(ENABLED=False):
        assert looked_up == told(stage, raw, refused, trace=False)
        assert at_site == told(site, raw, refused, trace=False)


@given(texts, mails.map(b"".join))
@settings(max_examples=30, deadline=None)
def test_a_trace_shows_every_rule(text: str, raw: bytes) -> None:
    """A trace is the same whether rules are looked up or not."""
    with set_to(MIN_RULES=1, MIN_SHARED=1):
        stage = compiled(text)
        told(stage, raw, "", trace=False)
        trace = run(stage, Message(raw), trace=True).trace
    with set_to(ENABLED=False):
        assert trace == run(stage, Message(raw), trace=True).trace


# What is tried

NOTHING = b"From: Ann <ann@example.com>\nSubject: Hello world\n\nA body.\n"
TRIED = """
passed | from is "x@y.z"
passed | from in ["x@y.z", "@y.z"]
passed | subject contains ["x", "y"]
passed | every subject ends with "x"
passed | subject contains all ["hello", "longer than that"]
tried  | subject contains all []
passed | subject contains []
passed | subject matches /^Re: (abc|def)/
passed | subject matches "Re: abc*"
tried  | subject matches /^\\d/
passed | header "X-A" exists
passed | false
tried  | true
tried  | subject is not "Hello world"
tried  | size > 5M
passed | size > 5M and subject is "x"
passed | not (known is "x") and subject is "x"
passed | not bounce and subject is "x"
passed | subject is "x" and duplicate
tried  | duplicate and subject is "x"
tried  | not duplicate and subject is "x"
passed | subject is "x" or from is "x@y.z"
tried  | subject is "x" or size > 5M
tried  | subject is "x" or duplicate
passed | (subject is "x" and duplicate) or (from is "x@y.z" and known_sender)
tried  | subject is "{from}"
tried  | subject contains "{known}" and from is "x@y.z"
passed | subject is "x" and from is "{subject}"
tried  | virus.name is "x"
tried  | attachment.type is "x" and subject is "x"
tried  | attachment where (type is "x") and subject is "x"
passed | attachment where (name is "x") and subject is "x"
tried  | folder "x" exists and subject is "x"
tried  | known is "x"
tried  | attachment where (name is "x")
passed | body contains "x"
tried  | size > 5M and body contains "x"
"""
TABLE = [[cell.strip() for cell in line.split("|", 1)] for line in TRIED.strip().splitlines()]


def chosen(conditions: Sequence[str], raw: bytes = NOTHING) -> list[int]:
    """The numbers of the rules that are tried."""
    text = 'set known = "a"\n' + "\n".join(f"if {condition} {{ }}" for condition in conditions)
    body = compile_rules(text).body[1:]
    numbers = [(node.span, partial(int, at)) for at, node in enumerate(body)]
    choose = index.compile_choice(numbers, [(node, {}) for node in body])  # type: ignore[arg-type]
    return [step() for _, step in choose(running_on(raw))]  # type: ignore[call-arg]


def running_on(raw: bytes) -> Run:
    return Run(Context(Message(raw), Envelope(), lambda fact: None), traced=False)


def test_only_rules_that_may_hold_are_tried() -> None:
    """A rule is passed over when its trigger is missing, but not if it could fail or ask first."""
    with set_to(MIN_SHARED=1):
        tried = chosen([condition for _, condition in TABLE])
    found = [["tried" if at in tried else "passed", c] for at, (_, c) in enumerate(TABLE)]
    assert found == TABLE
    assert tried == sorted(tried)


FILLERS = "".join(
    f'if subject is "no {n}" {{ discard }}\nif header "X-A" is "no {n}" {{ discard }}\n'
    for n in range(9)
)


def folders(rules: str, raw: bytes = NOTHING) -> list[str]:
    """Where the message goes, with rules looked up."""
    return [action.folder for action in run(compiled(rules + FILLERS), Message(raw)).actions]


@pytest.mark.parametrize(
    "edit",
    ['set header "X-A: kiss"', 'add header "X-A: kiss"', 'if true { add header "X-A: kiss" }'],
)
def test_an_edited_header_is_looked_up_again(edit: str) -> None:
    """Rules behind an edit see the new header, those before it do not, and none runs twice."""
    test = 'if header "X-A" is "kiss" {{ also deliver to "{}" }}\n'.format
    rules = f'{test("before")} if subject contains "hello" {{ {edit} }} {test("behind")} '
    assert folders(rules + "if size > 1 { }\n") == ["behind", ""]
    rules = f'{test("a")} remove header "X-A" {test("b")} {edit} {test("c")} {test("d")} '
    assert folders(rules + "if size > 1 { }\n", b"X-A: kiss\n\n") == ["a", "c", "d", ""]


def test_a_filtered_message_is_looked_up_again() -> None:
    """Rules behind a filter see its output."""
    stage = compiled('if subject is "hello world" { filter through ["p"] }\n' + FILLERS)
    plan = run(stage, Message(NOTHING), ask=lambda fact: [b"Subject: no 7\n\n"])
    assert plan.outcome == "discarded"


def test_a_body_is_read_when_its_rule_comes() -> None:
    """A subject is not read before a run comes to the first rule that needs it."""
    bodies = "".join(f'if body contains "no {n}" {{ discard }}\n' for n in range(9))
    stage = compiled(FILLERS + 'if subject contains "hello" { deliver to "x" }\n' + bodies)
    message = Message(NOTHING)
    assert run(stage, message).deciding.folder == "x"
    assert "body" not in vars(message)
    other = Message(NOTHING.replace(b"Hello", b"").replace(b"A body", b"No 3"))
    assert run(stage, other).outcome == "discarded"


def test_what_few_rules_ask_for_is_not_looked_up() -> None:
    """Where there is little to look up, rules are tried."""
    conditions = [f'subject is "no {n}"' for n in range(index.MIN_RULES)]
    assert chosen(conditions) == []
    assert chosen(conditions[1:]) == list(range(index.MIN_RULES - 1))
    alone = [*conditions, 'to is "x@y.z"', 'to is "x@y.z" or subject is "x"']
    assert chosen(alone) == [len(conditions), len(conditions) + 1]


def test_the_rarest_trigger_is_chosen() -> None:
    """Of several triggers of a rule the one is looked up that the fewest rules share."""
    same = [f'from contains "ann" and subject contains "no {n}"' for n in range(9)]
    assert chosen(same) == []
    assert chosen(same, NOTHING.replace(b"Hello", b"No 4")) == [4]


# What can go wrong

MANY = [f'subject contains "no {n:04} of many"' for n in range(300)]
MANY += [f"subject matches /no {n:04} of (?:very )?many/" for n in range(300)]


@pytest.mark.parametrize("memory", [1, 8000, 100_000, lookup.MEMORY])
def test_automata_that_do_not_fit_are_divided(memory: int) -> None:
    """With too little memory there are more automata; what fits nowhere is always tried."""
    with set_to(MEMORY=memory, ROOM={"part": 4000, "regex": 3000}):
        tried = chosen(MANY, b"Subject: No 0042 of many\n\n")
    assert {42, 342} <= set(tried)
    assert len(tried) == (301 if memory == 1 else 2)


def test_an_automaton_without_memory_says_nothing() -> None:
    """When an automaton runs out of memory while it searches, all its rules are tried."""
    for found, tried in ((None, {1, 2, 5}), ([0], {1, 2, 5}), ([2, 0], {1, 5}), ([2], set())):
        finder = lookup.Finder(lambda text, found=found: found, [[1, 5], [2]])  # type: ignore[misc]
        assert set(finder.search(b"text")) == tried


def test_long_texts_are_not_looked_up() -> None:
    """In a text that would take too long every rule looks for itself."""
    long = b"Subject: " + b"x" * (lookup.MAX_LOOKED + 1)
    assert chosen(MANY, long + b"\n\n") == list(range(len(MANY)))
    assert chosen(MANY, long[:-100] + b"\n\n") == []


def test_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looking up takes time that counts (P31)."""
    stage = compiled("\n".join(f"if {condition} {{ }}" for condition in MANY))
    assert run(stage, Message(NOTHING)).errors == ()
    for clock in ("monotonic", "thread_time"):
        monkeypatch.setattr(running, clock, partial(next, count(0.0, 2.0)))
    (error,) = run(stage, Message(NOTHING)).errors
    assert error.endswith("more than 1 s of CPU in the rules")


def test_threads_share_what_is_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads that need it at once make it once, and each decides what is right."""
    made: list[object] = []
    build = index._Index.build

    def built(*given: Any) -> None:
        made.append(given)
        build(*given)

    monkeypatch.setattr(index._Index, "build", built)
    stage = compiled("\n".join(f'if {c} {{ flag "f{n}" }}' for n, c in enumerate(MANY)))
    together = Barrier(8)

    def flags(number: int) -> frozenset[str]:
        together.wait(10)
        message = Message(b"Subject: no %04d of many\n\n" % number)
        return run(stage, message).actions[0].flags

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(flags, range(8)))
    assert found == [{f"f{n}", f"f{n + 300}"} for n in range(8)]
    assert len(made) == 1


def test_folding_keeps_addresses_in_their_parts() -> None:
    """No character but themselves folds to what divides an address, so that its keys fold, too."""
    folded = {
        char for char in map(chr, range(sys.maxunicode + 1)) if set(char.casefold()) & {*"@."}
    }
    assert folded == {"@", "."}


def test_a_list_of_another_file() -> None:
    """Files of a stage may each have a list of one name; rules know that of their own file."""
    names = "".join(f'rule when subject is "no {n}" {{ keep }}\n' for n in range(9))
    one = compile_rules('list block = ["eve@x.org"]\nrule when from in block { discard }\n' + names)
    two = compile_rules(
        'list block = ["mallory@x.org"]\nrule when from in block { deliver to "M" }'
    )
    rules = Stage(one._replace(body=one.body + two.body))
    for sender, wanted in (("eve", "discarded"), ("mallory", "delivered")):
        plan = run(rules, Message(f"From: {sender}@x.org\n\n".encode()))
        assert plan.outcome == wanted
        with set_to(ENABLED=False):
            assert run(rules, Message(f"From: {sender}@x.org\n\n".encode())) == plan
