"""Runs of programs: what they may cost, and what becomes of those that fail."""

from __future__ import annotations

from functools import partial
from itertools import count

import pytest

from mdaflow.engine import compile as compiling
from mdaflow.engine import state as running
from mdaflow.engine.facts import Fact
from mdaflow.engine.plan import EvaluationError, Plan
from mdaflow.engine.run import Stage, run
from mdaflow.engine.state import MAX_ACTIONS
from mdaflow.lang import compile_rules
from mdaflow.mail.message import Message

MAIL = Message(b"From: Ann <ann@example.com>\nSubject: Hello\n\nbody\n")
LONG = Message(b"Subject: " + b"x" * 5000 + b"\n\n" + b"a" * (4 << 20))


def plan(rules: str, message: Message = MAIL, owner: str = "user") -> Plan:
    return run(Stage(compile_rules(rules), owner), message)


def test_most_actions() -> None:
    """A run plans so many actions and no more; the same folder counts once."""
    rules = "".join(f'also deliver to "{n}"\n' for n in range(MAX_ACTIONS - 1))
    assert len(plan(rules + 'also deliver to "0"\nkeep').actions) == MAX_ACTIONS
    failed = plan(rules + 'also deliver to "a"\nkeep')
    assert [str(action) for action in failed.actions] == ['deliver to "INBOX"']
    assert failed.errors == (f"rules:{MAX_ACTIONS + 1}:1: more than 64 actions",)


TOO_MUCH = {
    "text that doubles": (
        'set a = "{subject}"\n' + 'set a = "{a}{a}"\n' * 40 + 'deliver to "x"',
        "a text of more than 1,048,576 characters",
    ),
    "variables together": (
        "\n".join(f'set v{n} = "{{body|first 999999}}"' for n in range(5)),
        "the variables are too large together",
    ),
    "text in a folder": ('deliver to "{body}"', "a text of more than 1,048,576 characters"),
    "glob from a body": (
        'if subject matches "*{body|first 900000}" { discard }',
        "the pattern is too large",
    ),
}


@pytest.mark.parametrize(("rules", "error"), TOO_MUCH.values(), ids=TOO_MUCH)
def test_too_much(rules: str, error: str) -> None:
    """What a message makes too large is an error of the rules: the message is kept."""
    failed = plan(rules, LONG)
    assert [str(action) for action in failed.actions] == ['deliver to "INBOX"']
    assert [text.partition(": ")[2] for text in failed.errors] == [error]
    with pytest.raises(EvaluationError, match=error):
        plan(rules, LONG, owner="site")


def test_empty_text_that_doubles() -> None:
    """Nothing, put together with itself, stays nothing."""
    doubling = 'set a = "{header X-No}"\n' + 'set a = "{a}{a}"\n' * 60
    assert str(plan(doubling + 'deliver to "x{a}"')) == 'deliver to "x"'


SLOW = {
    "branches": "if size > 1 { }\n" * 10,
    "a long list": "if subject contains [" + '"xy", ' * 200 + "] { }",
    "long texts": "if body matches /x/ or body matches /y/ { }",
}


@pytest.mark.parametrize("rules", SLOW.values(), ids=SLOW)
def test_cpu(rules: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rules that take too long end with the message in the inbox (P31)."""
    for clock in ("monotonic", "thread_time"):
        monkeypatch.setattr(running, clock, partial(next, count(0.0, 2.0)))
    failed = plan('also deliver to "x"\n' + rules, LONG)
    assert [str(action) for action in failed.actions] == ['deliver to "INBOX"']
    assert failed.errors[0].endswith("more than 1 s of CPU in the rules")
    with pytest.raises(EvaluationError):
        plan(rules, LONG, owner="site")


def test_large_pattern_on_a_long_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pattern looks at so much of a text that it has an end: the larger, the less."""
    monkeypatch.setattr(compiling, "MAX_STEPS", 1 << 20)
    rules = "if body matches /(?:a?){900}b/ { keep } if body matches /b$/ { discard }"
    assert plan(rules, Message(b"\n" + b"a" * 10_000 + b"b")).outcome == "discarded"
    assert plan(rules, Message(b"\n" + b"a" * 100 + b"b")).outcome == "delivered"


def test_facts_are_asked_once_and_only_when_needed() -> None:
    """The world is asked when a rule asks, once a run, and with what the rules are about."""
    asked: list[Fact] = []

    def ask(fact: Fact) -> list[str]:
        asked.append(fact)
        return ["image/png"]

    rules = 'if size > 1G and attachment.type is "a" { } if size < 1G { keep }'
    run(Stage(compile_rules(rules)), MAIL, ask=ask)
    assert asked == []
    rules = 'if attachment.type is "a" { } if every attachment.type matches "image/*" { discard }'
    assert run(Stage(compile_rules(rules)), MAIL, ask=ask).outcome == "discarded"
    ((name, message, _),) = asked
    assert (name, message) == ("attachment.type", MAIL)


def test_stages_do_not_share_variables() -> None:
    """What a stage sets, the next one cannot read; a program may be run many times."""
    before = Stage(compile_rules('set a = "1" set b = "{a}{subject}"'), "site")
    user = Stage(compile_rules('if true { set a = "2" } also deliver to "{a}" deliver to "x"'))
    for _ in range(2):
        decided = run([before, user], MAIL)
        assert [action.folder for action in decided.actions] == ["2", "x"]
    unset = Stage(compile_rules('if size > 1G { set a = "2" } deliver to "x{a}"'))
    assert run([before, unset], MAIL).deciding.folder == "x"


def test_outcomes() -> None:
    """A Plan says in one word what became of the message."""
    words = ("keep", 'deliver to "x"', "discard", "reject", "defer", 'also deliver to "x"')
    outcomes = [plan(word).outcome for word in words]
    assert outcomes == ["delivered"] * 2 + ["discarded", "rejected", "deferred", "delivered"]
