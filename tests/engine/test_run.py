"""Runs of programs: what stages share, and what a Plan tells about a run."""

from __future__ import annotations

import pytest

from mdaflow.engine.context import Fact, Settings
from mdaflow.engine.plan import EvaluationError, Plan
from mdaflow.engine.run import Stage, run
from mdaflow.lang import compile_rules
from mdaflow.mail.message import Message

MAIL = Message(b"From: Ann <ann@example.com>\nSubject: Hello\n\nbody\n")


def plan(rules: str, message: Message = MAIL, owner: str = "user") -> Plan:
    """What rules make of a message."""
    return run(Stage(compile_rules(rules), owner), message)


def test_stages_do_not_share_variables() -> None:
    """What a stage sets, the next one cannot read; a program may be run many times."""
    before = Stage(compile_rules('set a = "1" set b = "{a}{subject}"'), "site")
    user = Stage(compile_rules('if true { set a = "2" } also deliver to "{a}" deliver to "x"'))
    for _ in range(2):
        decided = run([before, user], MAIL)
        assert [action.folder for action in decided.actions] == ["2", "x"]
    unset = Stage(compile_rules('if size > 1G { set a = "2" } deliver to "x{a}"'))
    assert run([before, unset], MAIL).deciding.folder == "x"


def test_program_or_stages() -> None:
    """A program alone is the user's; no stages at all keep the message."""
    decided = run(compile_rules('also deliver to "a"'), MAIL)
    assert [action.owner for action in decided.actions] == ["user", "site"]
    assert decided.implicit_keep
    assert str(run([], MAIL)) == 'deliver to "INBOX"'


OUTCOMES = {
    "keep": "delivered",
    'deliver to "x"': "delivered",
    "discard": "discarded",
    "reject": "rejected",
    "defer": "deferred",
    "quarantine": "quarantined",
    'forward to "a@b"': "forwarded",
    'pipe to ["x"]': "piped",
    'also deliver to "x"': "delivered",
    "also quarantine": "delivered",
    'also quarantine forward to "a@b"': "forwarded",
    'reply "x"': "delivered",
}


@pytest.mark.parametrize(("rules", "outcome"), OUTCOMES.items())
def test_outcomes(rules: str, outcome: str) -> None:
    """A Plan says in one word what became of the message."""
    assert plan(rules).outcome == outcome


def test_folder_that_cannot_be_printed() -> None:
    """An action is printable whatever its folder is called; the folder stays as it is."""
    message = Message("Subject: a\U00018d09b\n\n".encode())
    (action,) = plan('deliver to "{subject}"', message).actions
    assert action.folder == "a\U00018d09b"
    assert str(action) == 'deliver to "a b"'


@pytest.mark.parametrize(
    ("rules", "name"),
    [
        ('deliver to "lists/{list_id}"', "lists/"),
        ('deliver to "{list_id}/x"', "/x"),
        ('deliver to "a/{list_id}/b"', "a//b"),
        ('deliver to "a/{list_id}{subject}"', "a/Hello"),
        ('deliver to "a/{list_id|slug}-"', "a/-"),
        ('deliver to "{list_id}"', ""),
        ('set x = "" deliver to "a/{x}"', "a/"),
        ('set x = "b/{list_id}" deliver to "a/{x}"', "a/b/"),
        ('set x = "b/" deliver to "{x}/c"', "b/c"),
        ('set x = "/b//" deliver to "a/{x}"', "a/b"),
    ],
)
def test_hole_with_nothing_in_it(rules: str, name: str) -> None:
    """A level stays when there was nothing for its hole; slashes too many in a variable go."""
    (action,) = plan(rules).actions
    assert action.folder == name


@pytest.mark.parametrize(
    ("rules", "name"),
    [
        ('deliver to "lists.{subject}"', "lists.x-y-z"),
        ('deliver to "a.{header X-No}.b"', "a..b"),
        ('set x = "b.c" deliver to "a.{x}.d"', "a.b.c.d"),
        ('set x = "b.{subject}" deliver to "a.{x}"', "a.b.x-y-z"),
        ('deliver to "a/b"', "a/b"),
        ('deliver to "inbox"', ""),
        ('deliver to "{header X-Long}.{header X-Long}"', f"{'y' * 80}.{'y' * 80}"),
    ],
)
def test_other_separator(rules: str, name: str) -> None:
    """Where a dot divides levels, the mail can neither make one by it nor by a slash."""
    message = Message(b"Subject: x.y/z\nX-Long: %s\n\n" % (b"y" * 100))
    settings, asked = Settings(separator="."), []

    def ask(fact: Fact) -> list[bool]:
        asked.append(fact.arguments)
        return [True]

    (action,) = run(compile_rules(rules), message, settings=settings).actions
    assert action.folder == name
    question = rules.replace("deliver to", "if folder") + " exists { keep }"
    run(compile_rules(question), message, ask=ask, settings=settings)
    assert asked == [(name or "inbox",)]


def test_options_of_actions() -> None:
    """An action tells its options by their words; times are in seconds."""
    (reply, _) = plan('reply "x" every 2 days from "a@b" subject "{subject}"').actions
    assert reply.option("every") == 172_800.0
    assert reply.option("from") == "a@b"
    assert reply.option("subject") == "Hello"
    assert reply.option("expire") is None


def test_own_addresses() -> None:
    """A Plan knows the recipient's own addresses, as far as the stages that ran do."""
    before = Stage(compile_rules('list me = ["site@example.org"]'), "site")
    user = Stage(compile_rules('list me = ["bob@example.org"] keep'))
    after = Stage(compile_rules('list me = ["after@example.org"]'), "site")
    settings = Settings(own=("b@example.org",))
    found = run([before, user, after], MAIL, settings=settings).own
    assert found == ("b@example.org", "site@example.org", "bob@example.org")


def test_asked_whether_it_was_here() -> None:
    """A Plan tells that rules asked for duplicates, also when a filter came behind."""
    asked = 'if duplicate { } filter through ["/x"] keep'
    given = run(compile_rules(asked), MAIL, ask=lambda fact: [b"Subject: y\n\n"])
    assert given.asked_duplicate
    assert not plan("if size > 1G and duplicate { }").asked_duplicate


def test_edits_of_a_stage_that_failed() -> None:
    """The message, its flags and the list of edits are as before a stage that failed."""
    before = Stage(compile_rules('add header "X: 1" flag "a"'), "site")
    user = Stage(compile_rules('set header "X: 2" flag "b" forward to "{header X-No}"'))
    decided = run([before, user], MAIL)
    assert decided.edits == ('add header "X: 1"',)
    (keep,) = decided.actions
    assert keep.flags == {"a"}
    assert keep.message is not None
    assert keep.message.head.startswith(b"X: 1\nFrom")


def test_edits_that_change_nothing() -> None:
    """A message that is as it came is stored as it came."""
    decided = plan('set header "Subject: Hello" remove header "X" keep')
    assert decided.edits == ()
    assert decided.deciding.message is None


def test_errors_say_where() -> None:
    """An error has the place of its statement, also in a file that was imported."""
    files = {"more.rules": b'\n  forward to "{subject}"'}
    program = compile_rules('import "more.rules"', read=files.__getitem__)
    assert run(program, MAIL).errors[0].startswith("more.rules:2:3: ")
    with pytest.raises(EvaluationError) as caught:
        run(Stage(program, "site"), MAIL)
    assert str(caught.value.span) == "more.rules:2:3"


def test_trace_of_an_error() -> None:
    """A trace ends with the error, and so does what it shows of the tests before it."""
    decided = run(compile_rules('if size > 1 { forward to "{subject}" }'), MAIL, trace=True)
    assert [event.kind for event in decided.trace] == ["rule", "test", "error"]
    assert decided.trace[0].result


def test_the_same_stage_in_many_runs() -> None:
    """A run leaves nothing behind in its stage."""
    stage = Stage(
        compile_rules(
            'score s += 1 flag "x" set header "X: {score.s}" if subject matches /(?P<a>.)/ '
            '{ also deliver to "{a}{score.s}{header X}" }'
        )
    )
    first = run(stage, MAIL, trace=True)
    assert str(run(stage, MAIL, trace=True)) == str(first)
    assert [action.folder for action in first.actions] == ["H11", ""]
