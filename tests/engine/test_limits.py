"""What rules may be and cost: each bound, and rules and mail that are made to break it."""

from __future__ import annotations

from functools import partial
from itertools import count
from typing import Any

import pytest

from mdaflow.engine import compile as compiling
from mdaflow.engine import match as matching
from mdaflow.engine import state as running
from mdaflow.engine import texts as putting
from mdaflow.engine.context import Ask, Context, Fact, Settings
from mdaflow.engine.plan import EvaluationError, Plan
from mdaflow.engine.run import Stage, run
from mdaflow.engine.state import END, Run
from mdaflow.lang import compile_rules, patterns
from mdaflow.lang.limits import DEFAULTS, Limits
from mdaflow.lang.source import SourceError
from mdaflow.mail.envelope import Envelope
from mdaflow.mail.message import Message

MAIL = Message(b"From: Ann <ann@example.com>\nSubject: Hello\n\nbody\n")
LONG = Message(b"Subject: " + b"x" * 5000 + b"\n\n" + b"a" * (4 << 20))
IN_THE_INBOX = 'deliver to "INBOX"'


def plan(
    rules: str,
    message: Message = MAIL,
    owner: str = "user",
    *,
    limits: Limits = DEFAULTS,
    ask: Ask = lambda fact: None,
    trace: bool = False,
) -> Plan:
    """What rules make of a message."""
    program = compile_rules(rules, read=lambda path: b"")
    settings = Settings(limits=limits)
    return run(Stage(program, owner), message, ask=ask, settings=settings, trace=trace)


def errors(found: Plan) -> list[str]:
    """What went wrong, without the places; the message must be in the inbox then."""
    assert str(found) == IN_THE_INBOX
    return [text.partition(": ")[2] for text in found.errors]


def test_defaults() -> None:
    """The bounds are those that the language promises."""
    assert Limits() == DEFAULTS == (2 << 20, 10_000, 32, 10, 64, 10, 1.0)


# of a program


def problems(rules: str, limits: Limits, files: dict[str, bytes] | None = None) -> set[str]:
    """The kinds of all that is wrong with a program."""
    try:
        compile_rules(rules, read=(files or {}).__getitem__, limits=limits)
    except SourceError as error:
        return {problem.code for problem in error.problems}
    return set()


NESTED = {
    "blocks": ("if true { " * 3 + "keep" + "}" * 3, "if true { " * 4 + "keep" + "}" * 4),
    "conditions": ("if not not not true { }", "if not not not not true { }"),
    "where": (
        "if attachment where (not (not size > 1)) { }",
        "if attachment where (not (not (not size > 1))) { }",
    ),
}


@pytest.mark.parametrize(("fits", "too_deep"), NESTED.values(), ids=NESTED)
def test_nesting(fits: str, too_deep: str) -> None:
    """Blocks and conditions are so many levels deep, and no deeper."""
    assert not problems(fits, Limits(nesting=3))
    assert problems(too_deep, Limits(nesting=3)) == {"too-deep"}


def test_rules() -> None:
    """A file has so many rules, and no more."""
    assert not problems("rule { }" * 3, Limits(rules=3))
    assert problems("rule { }" * 4, Limits(rules=3)) == {"too-many-rules"}


def test_elifs() -> None:
    """An `elif` is a level of its own: there are a hundred, and no more."""
    assert not problems("if true { }" + "elif true { }" * 100, DEFAULTS)
    assert problems("if true { }" + "elif true { }" * 101, DEFAULTS) == {"too-many-elifs"}
    around = "if true { } elif true { if true { }" + "elif true { }" * 99 + "}"
    assert not problems(around, DEFAULTS)
    assert problems("if true { } elif true {" + around + "}", DEFAULTS) == {"too-many-elifs"}


def test_file() -> None:
    """A program has so many bytes, in all its files together."""
    assert not problems("keep" + " " * 96, Limits(file=100))
    assert problems("keep" + " " * 97, Limits(file=100)) == {"too-large"}
    files = {"a": b" " * 90}
    assert not problems('import "a"', Limits(file=100), files)
    assert problems('import "a" ', Limits(file=100), files) == {"files-too-large"}


def test_imports() -> None:
    """Imports are so many levels deep."""
    files = {str(n): f'import "{n + 1}"'.encode() for n in range(5)} | {"5": b"keep"}
    assert not problems('import "4"', Limits(imports=2), files)
    assert problems('import "3"', Limits(imports=2), files) == {"imports-deep"}


# of a run


def test_actions() -> None:
    """A run plans so many actions and no more; the same folder counts once."""
    rules = "".join(f'also deliver to "{n}"\n' for n in range(64))
    assert len(plan(rules + 'also deliver to "0"\ndeliver to "1"').actions) == 64
    found = plan(rules + "keep")
    assert found.errors == ("rules:65:1: more than 64 actions",)
    assert errors(found)
    with pytest.raises(EvaluationError, match="more than 64 actions"):
        plan(rules + "keep", owner="site")


@pytest.mark.parametrize("verb", ["log", 'notify "a@b"'])
def test_actions_that_end_nothing_count(verb: str) -> None:
    """What only says something is an action too; the bound is the site's."""
    limits = Limits(actions=3)
    assert len(plan(f'{verb} "x"\n' * 2 + "keep", limits=limits).actions) == 3
    assert errors(plan(f'{verb} "x"\n' * 3 + "keep", limits=limits)) == ["more than 3 actions"]


def test_actions_of_all_stages_count() -> None:
    """The actions of the site and of the user count together; the keep at the end is free."""
    before = Stage(compile_rules('also deliver to "a" also deliver to "b"'), "site")
    user = Stage(compile_rules('also deliver to "c" also deliver to "d"'))
    settings = Settings(limits=Limits(actions=3))
    found = run([before, user], MAIL, settings=settings)
    assert [action.folder for action in found.actions] == ["a", "b", ""]
    assert found.errors
    settings = Settings(limits=Limits(actions=4))
    assert len(run([before, user], MAIL, settings=settings).actions) == 5


def test_forwards() -> None:
    """A message is sent on to so many addresses, by all forwards together; equal ones are one."""
    ten = ", ".join(f'"a{n}@example.org"' for n in range(10))
    assert len(plan(f"forward to [{ten}, {ten}]").deciding.targets) == 10
    eleven = plan(f'forward to [{ten}, "b@example.org"]')
    assert errors(eleven) == ["sends to more than 10 addresses"]
    several = "".join(f'also forward to "a{n}@example.org"\n' for n in range(11))
    assert errors(plan(several)) == ["sends to more than 10 addresses"]
    two = 'also forward to ["a@b", "c@d"] forward to "e@f"'
    assert errors(plan(two, limits=Limits(forwards=2))) == ["sends to more than 2 addresses"]


TOO_MUCH = {
    "text that doubles": (
        'set a = "{subject}"\n' + 'set a = "{a}{a}"\n' * 40 + 'deliver to "x"',
        "a text of more than 1,048,576 characters",
    ),
    "text of many pieces": (
        'set a = "-{subject|first 1}"\n' + 'set a = "{a}{a}"\n' * 15 + 'deliver to "x"',
        "a text of more than 10,000 pieces",
    ),
    "variables together": (
        "\n".join(f'set v{n} = "{{body|first 999999}}"' for n in range(5)),
        "the variables are too large together",
    ),
    "text in a folder": ('deliver to "{body}"', "a text of more than 1,048,576 characters"),
    "text in a header": ('add header "X: {body}"', "a text of more than 1,048,576 characters"),
    "glob from a body": (
        'if subject matches "*{body|first 5000}" { discard }',
        "the pattern is too large",
    ),
    "header that grows": (
        'add header "X: {body|first 16000}"\n' * 20,
        "header too big",
    ),
}


@pytest.mark.parametrize(("rules", "error"), TOO_MUCH.values(), ids=TOO_MUCH)
def test_too_much(rules: str, error: str) -> None:
    """What a message makes too large is an error of the rules: the message is kept."""
    assert errors(plan(rules, LONG)) == [error]
    assert errors(plan(rules, LONG, trace=True)) == [error]
    with pytest.raises(EvaluationError, match=error):
        plan(rules, LONG, owner="site")


def test_glob_from_a_file_that_is_too_large() -> None:
    """Neither is an entry of a list in a file a pattern of any size."""
    rules = 'list l from "l" if subject matches l { discard }'
    found = plan(rules, ask=lambda fact: ["x" * 5000])
    assert errors(found) == ["the pattern is too large"]


def test_variables_are_given_back() -> None:
    """A variable that is set anew gives back the room of its old value."""
    rules = 'set a = "{body|first 999999}"\n' * 10 + 'deliver to "x"'
    assert str(plan(rules, LONG)) == 'deliver to "x"'


def test_pieces_of_one_kind_are_one() -> None:
    """Only what comes from the rules and from the mail by turns is of many pieces."""
    rules = 'set a = "-"\n' + 'set a = "{a}{a}"\n' * 15 + 'set b = "{a|first 3}" deliver to "{b}"'
    assert str(plan(rules)) == 'deliver to "---"'
    mailed = 'set a = "{subject}"\n' + 'set a = "{a}{a}"\n' * 15 + 'deliver to "{a|first 6}"'
    assert str(plan(mailed)) == 'deliver to "HelloH"'


def test_empty_text_that_doubles() -> None:
    """Nothing, put together with itself, stays nothing."""
    doubling = 'set a = "{header X-No}"\n' + 'set a = "{a}{a}"\n' * 60
    assert str(plan(doubling + 'deliver to "x{a}"')) == 'deliver to "x"'


def test_slug_of_letters_that_are_many() -> None:
    """A slug is made of the beginning of a text: one character may stand for eighteen."""
    text = "\ufdfa" * (1 << 18) + "z"
    message = Message(b"Content-Type: text/plain; charset=utf-8\n\n" + text.encode())
    assert str(plan('deliver to "x{body|slug}"', message)) == 'deliver to "x"'


def test_levels_and_names_of_folders() -> None:
    """What comes out of a hole makes one level of a bounded length."""
    (action,) = plan('deliver to "a/{body|first 999999}/b"', LONG).actions
    assert action.folder == f"a/{'a' * putting.MAX_LEVEL}/b"


def test_large_pattern_on_a_long_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pattern looks at so much of a text that it has an end: the larger, the less."""
    monkeypatch.setattr(matching, "MAX_STEPS", 1 << 20)
    monkeypatch.setattr(compiling, "MAX_STEPS", 1 << 20)
    rules = "if body matches /(?:a?){900}b/ { keep } if body matches /b$/ { discard }"
    assert plan(rules, Message(b"\n" + b"a" * 10_000 + b"b")).outcome == "discarded"
    assert plan(rules, Message(b"\n" + b"a" * 100 + b"b")).outcome == "delivered"
    score = "score s += 1 per match of /(?:a?){900}b/ in body if score.s > 0 { discard }"
    assert plan(score, Message(b"\n" + b"a" * 10_000 + b"b")).outcome == "delivered"
    assert plan(score, Message(b"\n" + b"a" * 100 + b"b")).outcome == "discarded"


def test_matches_that_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """A score counts so many matches, and no more."""
    monkeypatch.setattr(compiling, "MAX_MATCHES", 3)
    for pattern in ("/a/", '"a"'):
        rules = f'score s += 1 per match of {pattern} in body deliver to "{{score.s}}"'
        assert str(plan(rules, Message(b"\naaaaa"))) == 'deliver to "3"'
        assert str(plan(rules, Message(b"\naa"))) == 'deliver to "2"'


def test_body_html() -> None:
    """Of all HTML as much is seen as of all text."""
    part = b"--b\nContent-Type: text/html\n\n" + b"x" * (3 << 20) + b"\n"
    message = Message(b"Content-Type: multipart/mixed; boundary=b\n\n" + part * 3 + b"--b--\n")
    rules = f'score s += 1 per match of "{"x" * 1024}" in body.html deliver to "{{score.s}}"'
    assert str(plan(rules, message)) == 'deliver to "4096"'


# the CPU

SLOW = {
    "branches": "if size > 1 { }\n" * 10,
    "nested branches": "if size > 1 { " * 10 + "}" * 10,
    "a long list": "if subject contains [" + '"xy", ' * 200 + "] { }",
    "long texts": "if body matches /x/ or body matches /y/ { }",
    "many values": 'if header "X" contains "y" { }',
    "every one of many values": 'if every header "X" contains "x" { }',
    "patterns on many values": 'if header "X" matches /y/ { }',
    "a list in a file": "if subject contains kept { }",
    "globs in a file": "if subject matches kept { }",
    "scores": 'score s += 1 per match of /x/ in header "X"',
    "matches": "score s += 1 per match of /./ in subject",
    "attachments": 'if attachment where (name is "y") { }',
    "every attachment": 'if every attachment where (name is "x") { }',
    "edits": 'add header "Y: 1"\n' * 3,
    "fields to remove": 'remove header "X" matches /y/',
    "texts": 'log "' + "{header X-Y}x" * 10 + '"',
    "arguments": 'if remembered "a{header X-Y}b{header X-Y}c" { } if remembered "b" { }',
}
WIDE = Message(
    b"Subject: " + b"x" * 1000 + b"\nX-Y: y\n" + b"X: x\n" * 1000
    + b"Content-Type: multipart/mixed; boundary=b\n\n" + b"--b\nContent-Type: a/b; name=x\n\n" * 200
    + b"--b--\n"
)  # fmt: skip


@pytest.mark.parametrize("rules", SLOW.values(), ids=SLOW)
@pytest.mark.parametrize("trace", [False, True])
def test_cpu(rules: str, trace: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever takes long looks at the clock, and ends with the message in the inbox (P31)."""
    for clock in ("monotonic", "thread_time"):
        monkeypatch.setattr(running, clock, partial(next, count(0.0, 2.0)))
    rules = 'list kept from "kept"\nalso deliver to "x"\n' + rules
    facts: dict[str, list[Any]] = {"list": ["xy"] * 200, "remembered": [False]}

    def ask(fact: Fact) -> list[Any]:
        return facts[fact.name]

    found = plan(rules, WIDE, ask=ask, trace=trace)
    assert errors(found) == ["more than 1 s of CPU in the rules"]
    with pytest.raises(EvaluationError, match="more than 1 s of CPU"):
        plan(rules, WIDE, "site", ask=ask)


def test_cpu_is_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    """The site says how much a run may take."""
    for clock in ("monotonic", "thread_time"):
        monkeypatch.setattr(running, clock, partial(next, count(0.0, 2.0)))
    rules = "if size > 1 { }\n" * 10
    assert not plan(rules, limits=Limits(cpu=1000.0)).errors
    assert errors(plan(rules, limits=Limits(cpu=5.0))) == ["more than 5 s of CPU in the rules"]


def test_waiting_is_no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only CPU counts: a machine that stands still, or a slow answer, breaks no rules."""
    monkeypatch.setattr(running, "monotonic", partial(next, count(0.0, 100.0)))
    assert not plan("if size > 1 { }\n" * 100).errors


def addresses(number: int) -> Message:
    """A message to so many."""
    lines = [
        b"To: " + b",".join(b"u%d@host%d.example" % (n, n) for n in range(at, at + 20)) + b"\n"
        for at in range(0, number, 20)
    ]
    return Message(b"".join(lines) + b"\n")


def attachments(number: int) -> Message:
    """A message with so many attachments."""
    part = b"--b\nContent-Type: image/png; name=x.png\n\nx\n"
    return Message(b"Content-Type: multipart/mixed; boundary=b\n\n" + part * number + b"--b--\n")


LIST = ", ".join(f'"entry{n}@zzz.example"' for n in range(10_000))
BOTH = Message(b"Subject: x\n\n" + b"ab" * (2 << 20))
HOSTILE = {
    "regexes that need many states, on a long body": (
        "".join(f"if body matches /[ab]*a[ab]{{{n}}}[cd]/ {{ }}\n" for n in range(100, 500)),
        BOTH,
    ),
    "a regex on long fields": (
        "".join(f'if header "X" matches /a[ab]{{{n}}}[cd]/ {{ }}\n' for n in range(800, 990)),
        Message(b"".join(b"X: %b%d\n" % (b"ab" * 15_000, n) for n in range(34)) + b"\n"),
    ),
    "a long list and many addresses": (
        f"list l = [{LIST}]\n" + "if to contains l { }\n" * 10,
        addresses(1000),
    ),
    "a long list of patterns and many addresses": (
        "if to matches kept { }\n" * 10,
        addresses(1000),
    ),
    "a score that needs the square of the body": (
        "score s += 1 per match of /a(?s:.*)c|a/ in body\n",
        LONG,
    ),
    "scores of everything": ("score s += 1 per match of /a/ in body\n" * 2000, LONG),
    "scores of a text": ('score s += 1 per match of "a" in body\n' * 1000, LONG),
    "`where` and many attachments": (
        'if attachment where (name is "y" or size > 5 or name matches /x(.)y/) { }\n' * 500,
        attachments(9999),
    ),
    "every one of many attachments": (
        'if every attachment where (not name matches "*y*") { }\n' * 500,
        attachments(9999),
    ),
    "edits and tests by turns": (
        "".join(f'set header "X: {{body|first 16000}}{n}"\nif header "X" contains "zz" {{ }}\n'
                for n in range(3000)),
        LONG,
    ),
    "edits that find nothing": (
        "".join(f'remove header "X" matches /a[ab]{{{n}}}[cd]/\n' for n in range(100, 900)),
        Message(b"".join(b"X: %b%d\n" % (b"ab" * 7000, n) for n in range(17)) + b"\n"),
    ),
    "large variables": (
        'set v = "{body|first 900000}"\nif v contains "zz" { }\n' * 1000,
        LONG,
    ),
    "large folders": (
        "".join(f'if folder "{{body|first 900000}}{n}" exists {{ }}\n' for n in range(3000)),
        LONG,
    ),
    "a large text for each of many values": (
        'if to contains "{body|first 900000}" { }\n' * 100,
        Message(addresses(1000).raw + b"a" * (1 << 20)),
    ),
    "patterns made of the mail": (
        "".join(f'if body matches "*{{subject}}*a*b*{n}" {{ }}\n' for n in range(3000)),
        BOTH,
    ),
    "slugs": ('if subject is "{body|slug}" { }\n' * 2000, LONG),
}  # fmt: skip


@pytest.mark.parametrize(("rules", "message"), HOSTILE.values(), ids=HOSTILE)
def test_hostile(rules: str, message: Message) -> None:
    """Rules that would take minutes end soon, with the message in the inbox (P31, P34)."""
    rules = f'list kept from "kept"\n{rules}also deliver to "x"'
    entries = [f"entry{n}@*zzz?example" for n in range(10_000)]

    def ask(fact: Fact) -> list[str] | None:
        return entries if fact.name == "list" else None

    found = plan(rules, message, limits=Limits(cpu=0.05), ask=ask)
    assert errors(found) == ["more than 0.05 s of CPU in the rules"]


def test_long_list_of_addresses() -> None:
    """Membership in a list takes one look-up an address, however long the list is."""
    rules = f"list l = [{LIST}]\nif to in l {{ discard }} if every to not in l {{ reject }}"
    assert not plan(f'{rules} deliver to "x"', addresses(1000)).errors


# what a run leaves behind


def after(rules: str, message: Message) -> Run:
    """The state of a run at its end."""
    state = Run(Context(message, Envelope(), lambda fact: None), traced=False)
    assert Stage(compile_rules(rules)).block(state) == END
    return state


def test_texts_that_are_gone_are_not_kept() -> None:
    """Folded texts are kept for later tests, but not those of values that are no more."""
    variables = 'set v = "{body|first 9000}"\nif v contains "zz" { }\n' * 20 + "keep"
    assert after(variables, LONG).fold.cache_info().currsize <= 2
    edits = 'set header "X: {subject}x"\nif header "X" contains "zz" { }\n' * 20
    assert after(edits + "keep", LONG).fold.cache_info().currsize <= 2


def test_patterns_of_mails_are_not_kept() -> None:
    """Globs of rules are compiled once for all; those that a mail is put into are not kept."""
    rules = "".join(f'if subject matches "*{{subject}}{n}" {{ }}\n' for n in range(20))
    stage = Stage(compile_rules(rules))
    before = patterns.compile_glob.cache_info()
    assert not run(stage, MAIL).errors
    assert patterns.compile_glob.cache_info() == before


def test_texts_of_letters() -> None:
    """What goes into a letter is no longer than a letter, whatever is put into it."""
    many = [("a", "x" * 16), ("b", "{a}" * 16), ("c", "{b}" * 16), ("d", "{c}" * 20)]
    text = "".join(f'set {name} = "{value}"\n' for name, value in many)
    text += 'reply "{d}" html "{d}" subject "{d}" notify "a@b" "{d}"'
    plan = run(Stage(compile_rules(text)), Message(b"Subject: x\n\n"), Envelope("a@b", "c@d"))
    said = [text for a in plan.actions for text in (a.text, *dict(a.options).values()) if text]
    assert [len(str(text)) for text in said] == [64 << 10] * 4
