"""Facts: who is asked for what, when, how often, and what comes before the answers."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest

from mdaflow.engine.context import Fact, Settings
from mdaflow.engine.plan import EvaluationError, Plan, Unanswerable
from mdaflow.engine.run import Stage, run
from mdaflow.lang import compile_rules
from mdaflow.mail.envelope import Envelope
from mdaflow.mail.message import Message

MAIL = Message(b"From: Ann <ann@example.com>\nSubject: Hello\n\nbody\n")
PART = b"--b\nContent-Type: image/png; name=%d.png\n\nx\n"


class World:
    """Answers facts, and remembers what it was asked."""

    def __init__(self, answers: Mapping[str, Any] | None = None) -> None:
        self.answers = answers or {}
        self.asked: list[Fact] = []

    def __call__(self, fact: Fact) -> Sequence[Any] | None:
        self.asked.append(fact)
        answer = self.answers.get(fact.name)
        if isinstance(answer, Exception):
            raise answer
        found: Sequence[Any] | None = answer
        return found

    @property
    def names(self) -> list[str]:
        """What was asked."""
        return [fact.name for fact in self.asked]


def plan(rules: str, world: World | None = None, **how: Any) -> Plan:
    """What a user's rules make of a message."""
    program = compile_rules(rules, read=lambda path: b"")
    return run(
        program, how.pop("message", MAIL), how.pop("envelope", None), world or World(), **how
    )


def attachments(number: int) -> Message:
    """A message with so many attachments."""
    parts = b"".join(PART % n for n in range(number))
    head = b"Subject: x\nContent-Type: multipart/mixed; boundary=b\n\n"
    return Message(head + parts + b"--b--\n")


# asking


def test_asked_once_and_only_when_needed() -> None:
    """The world is asked when a rule asks, and once a run."""
    world = World({"attachment.type": ["image/png"], "spam.score": [5.0]})
    plan('if size > 1G and attachment.type is "a" and spam { } if size < 1G { }', world)
    assert world.names == []
    tests = 'if attachment.type is "a" { } if spam.score > 1 { } log "{spam.score}"\n'
    plan(tests * 3, world, message=attachments(1))
    assert world.names == ["attachment.type", "spam.score"]


def test_what_is_asked() -> None:
    """A question comes with the message, the envelope, what it is about, and whose it is."""
    world = World({"command": [True], "filter": [b"Subject: new\n\n"]})
    envelope = Envelope("ann@example.com", "bob@example.org")
    rules = (
        'filter through ["/f", "{subject}"] within 5 seconds if command ["/c", "x"] succeeds { }'
    )
    run(Stage(compile_rules(rules), "site"), MAIL, envelope, world)
    filtering, asking = world.asked
    assert filtering == Fact("filter", MAIL, envelope, ("/f", "Hello"), "site", 5.0)
    assert asking == Fact("command", asking.message, envelope, ("/c", "x"), "site", 0.0)
    assert asking.message.raw == b"Subject: new\n\n"


def test_questions_are_asked_for_each_argument() -> None:
    """A question about something is asked once for each, and anew for another owner."""
    world = World({"remembered": [False], "listed": [False]})
    rules = (
        'if remembered "a" { } if remembered "b" { } if remembered "{subject|lower|first 0001}" { }'
    )
    again = 'if remembered "a" { } if listed in "z" { }'
    stages = [Stage(compile_rules(again), "site"), Stage(compile_rules(rules + again), "user")]
    run(stages, MAIL, ask=world)
    found = [(fact.name, *fact.arguments, fact.owner) for fact in world.asked]
    assert found == [
        ("remembered", "a", "site"),
        ("listed", "z", "site"),
        ("remembered", "a", "user"),
        ("remembered", "b", "user"),
        ("remembered", "h", "user"),
        ("listed", "z", "user"),
    ]


def test_not_asked_again_for_another_header() -> None:
    """An edited header changes no verdict; a filter does, but for what was here before."""
    world = World(
        {"spam.score": [1.0], "duplicate": [False], "list": ["x"], "filter": [b"X: 1\n\n"]}
    )
    tests = "if spam.score > 5 or duplicate or subject in l { }\n"
    plan(f'list l from "l"\n{tests} add header "X: 1" {tests}', world)
    assert world.names == ["spam.score", "duplicate", "list"]
    world.asked.clear()
    plan(f'list l from "l"\n{tests} filter through ["/f"] {tests}', world)
    assert world.names == ["spam.score", "duplicate", "list", "filter", "spam.score"]


def test_a_filter_is_run_each_time() -> None:
    """A filter that stands there twice filters twice."""
    world = World({"filter": [b"Subject: x\n\n"]})
    plan('filter through ["/f"] filter through ["/f"]', world)
    assert world.names == ["filter", "filter"]
    assert world.asked[1].message.raw == b"Subject: x\n\n"


def test_filter_of_an_edited_message() -> None:
    """A filter gets the edited message, and what it gives can be edited again."""
    world = World({"filter": [b"Subject: x\n\n"]})
    found = plan('add header "A: 1" filter through ["/f"] add header "B: 2"', world)
    assert world.asked[0].message.head.startswith(b"A: 1\n")
    assert found.deciding.message is not None
    assert found.deciding.message.head == b"B: 2\nSubject: x\n"


def test_lists_are_prepared_once() -> None:
    """The entries of a file are prepared anew only when the answer is another one."""
    stage = Stage(
        compile_rules('list l from "l" if subject in l { discard }', read=lambda path: b"")
    )
    entries = ["HELLO"]
    world = World({"list": entries})
    assert run(stage, MAIL, ask=world).outcome == "discarded"
    entries[0] = "other"  # whoever gives a list gives another one when it has changed
    assert run(stage, MAIL, ask=world).outcome == "discarded"
    world.answers = {"list": ["other"]}
    assert run(stage, MAIL, ask=world).outcome == "delivered"


ASKING = {
    "a truth": ("if virus.found { }", "virus.found"),
    "a number": ("if spam.score > 5 { }", "spam.score"),
    "a hole": ('log "{virus.name}"', "virus.name"),
    "attachments": ('if attachment.type is "x" { }', "attachment.type"),
    "one attachment": ('if attachment where (inner is "x") { }', "attachment.inner"),
    "a question": ('if remembered "x" { }', "remembered"),
    "a list": ('list l from "l" if subject in l { }', "list"),
    "entries of a list": ('list l from "l" if subject contains l { }', "list"),
    "a filter": ('filter through ["/f"]', "filter"),
    "a score": ("score s += 1 per match of /x/ in spam.symbols", "spam.symbols"),
    "a header to remove": ('list l from "l" remove header "Subject" in l', "list"),
}


@pytest.mark.parametrize(("rules", "name"), ASKING.values(), ids=ASKING)
@pytest.mark.parametrize("trace", [False, True])
def test_what_cannot_be_told(rules: str, name: str, trace: bool) -> None:
    """Whoever cannot be asked breaks the rule that asks, wherever it does."""
    world = World({name: Unanswerable("out of order")})
    message = attachments(1)
    found = plan(f'also deliver to "x" {rules}', world, message=message, trace=trace)
    assert str(found) == 'deliver to "INBOX"'
    assert [error.partition(": ")[2] for error in found.errors] == ["out of order"]
    program = compile_rules(rules, read=lambda path: b"")
    with pytest.raises(EvaluationError, match="out of order"):
        run(Stage(program, "site"), message, ask=world)


@pytest.mark.parametrize(("rules", "name"), ASKING.values(), ids=ASKING)
def test_what_nobody_knows(rules: str, name: str) -> None:
    """What is unknown breaks nothing."""
    assert not plan(rules, World(), message=attachments(1)).errors
    if name != "filter":  # what it gives is a message, if it gives any
        assert not plan(rules, World({name: []}), message=attachments(1)).errors


def test_the_owner_is_told_apart() -> None:
    """What a stage asks, it asks as its owner."""
    world = World()
    stages = [
        Stage(compile_rules("if virus.found { }"), "site"),
        Stage(compile_rules("if virus.found or known_sender { }"), "user"),
    ]
    run(stages, MAIL, ask=world)
    assert [(fact.name, fact.owner) for fact in world.asked] == [
        ("virus.found", "site"),
        ("known_sender", "user"),
    ]


# given facts

Given = dict[tuple[str, str], list[Any]]
GIVEN: dict[str, tuple[Given, str]] = {
    "an address": ({("from", ""): ["Zed <zed+x@example.net>"]}, "{from}/{from.user}/{from.detail}"),
    "a header": ({("header", "x-a"): ["1", "2"]}, "{header X-A}/{header.count X-a}"),
    "a subject": ({("subject", ""): ["given"]}, "{subject}"),
    "a size": ({("size", ""): [5.0]}, "{size}"),
    "a truth": ({("virus.found", ""): [True]}, "{virus.found}"),
    "a count": ({("attachment.count", ""): [21.0]}, "{attachment.count}"),
    "a date": (
        {("date", ""): ["2026-02-03 04:05"]},
        "{date.year}{date.month}{date.hour}{date.day}",
    ),
    "a year": ({("date.year", ""): [1999.0]}, "{date.year}"),
    "a time of day": ({("received.time", ""): ["23:15"]}, "{received.time}"),
    "an arrival": ({("received", ""): ["2026-02-03 04:05"]}, "{received}"),
    "an envelope": ({("envelope.from", ""): ["z@example.net"]}, "{envelope.from}"),
    "a result": ({("auth.spf", ""): ["pass"]}, "{auth.spf}"),
    "a client": ({("client.ip", ""): ["192.0.2.1"]}, "{client.ip}"),
}
SAID = {
    "an address": "zed+x@example.net/zed/x", "a header": "1/2", "a subject": "given", "a size": "5",
    "a truth": "true", "a count": "21", "a date": "2026020403", "a year": "1999",
    "a time of day": "23-15", "an arrival": "2026-02-03 04-05", "an envelope": "z@example.net",
    "a result": "pass", "a client": "192.0.2.1",
}  # fmt: skip


@pytest.mark.parametrize("name", GIVEN)
def test_given(name: str) -> None:
    """What is given comes before the message, the envelope and the world, which is not asked."""
    given, hole = GIVEN[name]
    world = World()
    (action,) = plan(f'deliver to "{hole}"', world, given=given).actions
    assert action.folder.replace(":", "-") == SAID[name]
    assert not world.asked


def test_given_headers() -> None:
    """Of several headers those that are given come before those of the message."""
    given: Given = {("header", "subject"): ["given"], ("header", "x-a"): []}
    rules = """
        if every header ["From", "Subject"] matches /ann|given/ { also deliver to "1" }
        if header ["X-A", "Subject"] is "given" and header.count ["X-A", "Subject"] = 1 {
            also deliver to "2"
        }
    """
    assert [a.folder for a in plan(rules, given=given).actions] == ["1", "2", ""]


def test_given_questions() -> None:
    """A question is given for one argument, or for all."""
    given: Given = {("remembered", "a"): [True], ("folder", ""): [True], ("command", "/x"): [False]}
    rules = (
        'if remembered "a" { also deliver to "1" } if remembered "b" { also deliver to "2" }'
        'if folder "x" exists and folder "y" exists { also deliver to "3" }'
        'if command ["/x", "y"] succeeds { also deliver to "4" }'
    )
    world = World()
    found = plan(rules, world, given=given)
    assert [action.folder for action in found.actions] == ["1", "3", ""]
    assert world.names == ["remembered"]


def test_given_attachments() -> None:
    """Given values are those of the attachments in their order; what is left has none."""
    given: Given = {("attachment.type", ""): ["a/b", "c/d"], ("attachment.size", ""): [7.0, 8.0]}
    rules = (
        'if attachment where (type is "c/d" and size is 8) { also deliver to "1" }'
        'if attachment where (type is "c/d" and size is 7) { also deliver to "2" }'
        'if every attachment where (type exists) { also deliver to "3" }'
        'if attachment.type is "a/b" and attachment.size > 7 { also deliver to "4" }'
    )
    found = plan(rules, given=given, message=attachments(3))
    assert [action.folder for action in found.actions] == ["1", "4", ""]


def test_given_nothing() -> None:
    """An empty list of given values is no value, whatever the subject."""
    names = ("from", "date", "received", "size", "spam.score", "virus.found", "attachment.type")
    given: Given = {(name, ""): [] for name in names} | {("header", "x"): []}
    rules = (
        "if from exists or from.user exists or date exists or date.year exists or received exists "
        'or size exists or spam.score exists or spam or virus.found or header "X" exists '
        "or attachment.type exists or attachment where (type exists) "
        '{ discard } deliver to "x{from}{from.user}{date.age}{header X}{spam.score}"'
    )
    assert str(plan(rules, given=given, message=attachments(1))) == 'deliver to "x"'


def test_given_duplicate() -> None:
    """A fact that is given is none that the world is asked about."""
    world = World()
    assert plan("if duplicate { discard }", world, given={("duplicate", ""): [True]}).outcome == (
        "discarded"
    )
    assert not world.asked


# where facts come from


@pytest.fixture
def in_kolkata(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The system's local time is that of Kolkata."""
    monkeypatch.setenv("TZ", "Asia/Kolkata")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def test_zone_of_the_system(in_kolkata: None) -> None:
    """Without a configured zone the clock is that of the machine."""
    rules = 'if received = "1970-01-01 05:30" { deliver to "{received}" }'
    found = plan(rules, envelope=Envelope(received=0.0), settings=Settings(zone=None))
    assert found.deciding.folder == "1970-01-01 05:30"


def test_where_looks_at_all() -> None:
    """However many attachments there are, `where` asks each."""
    rules = (
        'if attachment where (name is "2999.png") { also deliver to "one" }'
        'if every attachment where (name is not "2999.png") { also deliver to "never" }'
        'if every attachment where (size = 1) { also deliver to "every" }'
    )
    found = plan(rules, message=attachments(3000))
    assert [action.folder for action in found.actions] == ["one", "every", ""]


def test_delimiters() -> None:
    """Any of the configured characters divides user and detail, the first one that is there."""
    envelope = Envelope(recipient="bob-x+y@example.org")
    for delimiters, said in (("+", "bob-x=y"), ("-+", "bob=x+y"), ("", "bob-x+y=")):
        found = plan(
            'deliver to "{envelope.to.user}={envelope.to.detail}"',
            envelope=envelope,
            settings=Settings(delimiters),
        )
        assert found.deciding.folder == said
