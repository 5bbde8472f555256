"""Tests that stand beside rules: what is expected, what is given, and what no test reaches."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from mdaflow.app.answers import Answers
from mdaflow.app.trial import Result, named_rules, parse_given, try_case, unreached
from mdaflow.engine.context import Ask, Fact, Settings
from mdaflow.engine.run import Stage
from mdaflow.errors import INTERNAL, TempFail
from mdaflow.lang import compile_rules, ir
from mdaflow.lang.source import SourceError
from mdaflow.store.memory import MemoryStore

MAIL = 'message """\nFrom: Ann <ann@example.com>\nSubject: Tea\n\nNow.\n"""\n'
ZIP = """message \"\"\"
Content-Type: multipart/mixed; boundary=b

--b
Content-Type: application/pdf; name=a.zip
Content-Disposition: attachment

PK
--b--
\"\"\"
"""


def nobody(fact: Fact) -> None:
    return None


def read(path: str) -> bytes:
    return Path(path).read_bytes()


def tried(
    rules: str, case: str, *, ask: Ask = nobody, file: str = "rules", owner: str = "user"
) -> Result:
    """What becomes of a case with these lines; without a message it has MAIL."""
    lines = case if "message" in case else MAIL + case
    program = compile_rules(f'{rules}\ntest "t" {{\n{lines}\n}}\n', file, read=read)
    stage, [one] = Stage(program, owner), program.cases
    return try_case(stage, one, named_rules(program), settings=Settings(), ask=ask, read=read)


def said(result: Result) -> list[str]:
    return [failure.text for failure in result.failures]


COPIES = """
rule "A" when subject is "tea" { also deliver to "a/b" with flags ["\\\\Seen", "$X"] expire 2 days }
rule "B" when subject is "rum" { discard }
rule "C" { also forward to ["x@example.org", "y@example.org"] }
if true { reply "Hello {subject}" subject "s" every 7 days from "b@example.org" }
notify "z@example.org" "text"
remember "key" for 7 days
"""
ALL = """
expect deliver to "a/b"
expect forward
expect reply "Hello Tea"
expect notify
expect remember "key" for 7 days
"""

MET = [
    ("keep", "expect keep"),
    ("keep", 'expect deliver to "INBOX"'),
    ('deliver to "inbox"', "expect keep"),
    ('if false { discard }', "expect keep"),
    ('deliver to "a"', "expect deliver"),
    ('deliver to "a/{subject}"', 'expect deliver to "a/Tea"'),
    ('deliver to "{subject}"', 'expect deliver to "Tea"'),
    ("reject", "expect reject"),
    ('reject "no {subject}"', 'expect reject "no Tea"'),
    ('reject "no"', "expect reject"),
    ("quarantine", "expect quarantine"),
    ('learn spam', "expect learn spam\nexpect keep"),
    ('pipe to ["a", "{subject}"]', 'expect pipe to ["a", "Tea"]'),
    ('log "x"', 'expect log "x"\nexpect also keep'),
    ('deliver to "mbox:/var/mail/all"', 'expect deliver to "mbox:/var/mail/all"'),
    (COPIES, ALL + "expect keep"),
    (COPIES, ALL + "expect also keep"),
    (COPIES, "expect also notify"),
    (COPIES, 'expect also deliver to "a/b" with flags ["$x", "\\\\seen"]'),
    (COPIES, 'expect also deliver to "a/b" expire 2 days'),
    (COPIES, 'expect also forward to ["y@example.org", "x@example.org"]'),
    (COPIES, 'expect also reply "Hello Tea" subject "s" every 7 days from "b@example.org"'),
    (COPIES, 'expect also notify "z@example.org" "text"'),
    (COPIES, "expect also remember \"key\" for 7 days"),
    (COPIES, 'expect not discard\nexpect not deliver to "a"\nexpect not reply "Hello"'),
    (COPIES, 'expect rule "A"\nexpect rule "C"\nexpect not rule "B"'),
]  # fmt: skip


@pytest.mark.parametrize(("rules", "case"), MET)
def test_met(rules: str, case: str) -> None:
    """What is said of an action has to be so, what is not said may be anything."""
    assert said(tried(rules, case)) == []


UNMET = [
    ("keep", "expect discard", 'the plan is deliver to "INBOX"'),
    (
        "if false { discard }",
        "expect discard",
        'the plan is deliver to "INBOX", for no rule finished it',
    ),
    ("discard", "expect keep", "the plan is discard"),
    ("discard", "expect also keep", "the plan is discard"),
    ('deliver to "a"', "expect keep", 'the plan is deliver to "a"'),
    ('deliver to "a"', "expect not deliver", 'the plan has deliver to "a"'),
    ("keep", "expect not keep", 'the plan has deliver to "INBOX"'),
    ('reject "a"', 'expect reject "b"', 'the plan is reject "a"'),
    ('deliver to "a"', 'expect deliver to "A"', 'the plan is deliver to "a"'),
    (
        'also forward to "x@example.org"\nkeep',
        "expect keep",
        "the plan also has also forward to x@example.org",
    ),
    ('rule "R" when size > 1K { discard }', 'expect rule "R"', "its condition did not hold"),
    ('keep\nrule "R" when size > 1 { discard }', 'expect rule "R"', "it was not reached"),
    ('rule "R" when size > 1 { keep }', 'expect not rule "R"', "its condition held"),
]


@pytest.mark.parametrize(("rules", "case", "why"), UNMET)
def test_unmet(rules: str, case: str, why: str) -> None:
    """A failure says in one line what was expected and what happened."""
    assert said(tried(rules, case)) == [f"{case}: {why}"]


@pytest.mark.parametrize(
    "wrong",
    [
        'deliver to "a/b" with flag "\\\\Seen"',
        'deliver to "a/b" expire 3 days',
        'forward to "x@example.org"',
        'reply "Hello Tea" subject "other"',
        'notify "z@example.org" "other"',
        'remember "key" for 8 days',
    ],
)
def test_details(wrong: str) -> None:
    """A flag, an option or an operand that is another is another action."""
    [why] = said(tried(COPIES, f"expect also {wrong}"))
    assert why.startswith(f"expect also {wrong}: the plan is ")
    assert said(tried(COPIES, f"expect not {wrong}")) == []


def test_all_actions_are_named() -> None:
    """Plain expectations name all actions; `also` and `not` alone do not."""
    [why] = said(tried(COPIES, ALL))
    assert why == 'expect deliver to "a/b": the plan also has deliver to "INBOX"'
    assert said(tried(COPIES, 'expect also reply "Hello Tea"\nexpect not discard')) == []


def test_place_of_a_failure() -> None:
    """A failure has the place of the line that was not met, and the result the trace."""
    result = tried('rule "R" when subject is "rum" { discard }', "expect keep\nexpect discard")
    [failure] = result.failures
    assert str(failure.span) == "rules:10:1"
    assert [event.text for event in result.trace][1:] == ['subject is "rum"']
    assert not result.passed


def test_long_plan() -> None:
    """A failure stays short, however long a text of an action is."""
    [why] = said(tried('set x = "{body}{body}{body}"\nreject "{x}{x}"', "expect keep\n" + LONG))
    assert len(why) < 300


LONG = 'message """\n\n' + "word " * 1000 + '\n"""'


# rules that fail

WRONG = 'set header "X-A: {body}"\nforward to "{subject}"\nkeep'


def test_rules_that_fail() -> None:
    """An error of the rules fails the test, whatever it expects, and is told by its place."""
    result = tried(WRONG, "expect keep")
    assert said(result) == ["the rules failed: 'Tea' is no address: malformed address"]
    assert result.failures[0].span.line == 2
    assert result.trace[-1].kind == "error"


def test_rules_of_the_site_that_fail() -> None:
    """The same for rules of the site, where nothing is planned then."""
    result = tried(WRONG, "expect keep", owner="site")
    assert said(result) == ["the rules failed: 'Tea' is no address: malformed address"]
    assert result.failures[0].span.line == 2


def test_who_is_asked_fails() -> None:
    """What cannot be told for now fails the test."""

    def ask(fact: Fact) -> Sequence[Any]:
        raise TempFail(INTERNAL, "no disk")

    rules = 'list x from "list"\nif from in x { discard }'
    assert said(tried_with_list(rules, "expect keep", ask)) == ["the rules failed: no disk"]


def tried_with_list(rules: str, case: str, ask: Ask) -> Result:
    program = compile_rules(f'{rules}\ntest "t" {{\n{MAIL}{case}\n}}\n', read=lambda path: b"")
    names = named_rules(program)
    return try_case(
        Stage(program), program.cases[0], names, settings=Settings(), ask=ask, read=read
    )


# messages


def test_message_in_a_file(tmp_path: Path) -> None:
    """The message may stand in a file, found from where the rules are."""
    (tmp_path / "samples").mkdir()
    (tmp_path / "samples" / "x.eml").write_bytes(b"Subject: Rum\r\n\r\n")
    rules, case = 'if subject is "rum" { discard }', 'message "samples/x.eml"\nexpect discard'
    assert said(tried(rules, case, file=str(tmp_path / "rules"))) == []
    missing = said(tried(rules, case, file=str(tmp_path / "samples" / "rules")))
    assert missing == ["the message 'samples/x.eml' cannot be read: No such file or directory"]


# facts

ME = 'list me = ["@example.org", "bob@example.com"]\n'
NEUTRAL = [
    'envelope.to is "bob@example.org"',
    'envelope.from is "ann@example.com"',
    'received = "2026-01-05 12:00" and received.weekday is "monday"',
    "not (virus.found or virus.unscanned or spam or duplicate or known_sender)",
    'not (listed in "z" or remembered "k" or folder "F" exists or command ["p"] succeeds)',
    "spam.score = 0 and not virus.name exists and not spam.symbols exists",
    "not bounce and not client.ip exists",
]
GIVEN = [
    ('received = "2026-11-20 10:00"', "received.hour = 10 and received.year = 2026"),
    ('envelope.to = "me+x@example.net"', 'envelope.to.detail is "x"'),
    ('envelope.to = "x@y.org"', 'envelope.original.domain is "y.org"'),
    ('envelope.original = "a@b.org"', 'envelope.original is "a@b.org"'),
    ('envelope.from = ""', 'bounce and envelope.from is ""'),
    ('client.ip = "192.0.2.1", client.helo = "h"', 'client.ip is "192.0.2.1"'),
    ('client.helo = "h"', 'client.helo is "h"'),
    ("spam.score = 7", "spam and spam.score = 7"),
    ("spam = true", "spam"),
    ("virus.found = true", "virus.found and not virus.unscanned"),
    ('subject = "Rum"', 'subject is "rum"'),
    ('header "X-A" = ["1", "2"]', 'header "X-A" is "2"'),
    ('cc = "a@b.org", cc = "c@d.org"', "cc.count = 2"),
    ('remembered "k" = true', 'remembered "k" and not remembered "l"'),
    ("listed = true", 'listed in "any"'),
    ("size = 10M", "size > 5M"),
]


@pytest.mark.parametrize("condition", NEUTRAL)
def test_neutral(condition: str) -> None:
    """What is not given is neutral: nothing speaks against the mail, and nobody knows it."""
    assert said(tried(f"if {condition} {{ discard }}", "expect discard")) == []


@pytest.mark.parametrize(("facts", "condition"), GIVEN)
def test_given(facts: str, condition: str) -> None:
    """What is given is so, for all that depends on it."""
    rules = f"if {condition} {{ discard }}"
    assert said(tried(rules, f"given {facts}\nexpect discard")) == []


def test_recipient() -> None:
    """The mail is for the first address of the list `me`, and for its owner."""
    rules = ME + 'if envelope.to is "bob@example.com" and personal { discard }'
    case = 'message """\nFrom: a@b.org\nTo: BOB@example.com\n\n"""\nexpect discard'
    assert said(tried(rules, case)) == []


def test_return_path() -> None:
    """A message that was stored knows its sender."""
    case = 'message """\nReturn-Path: <>\nFrom: a@b.org\n\n"""\nexpect discard'
    assert said(tried("if bounce { discard }", case)) == []


def test_types_of_attachments() -> None:
    """Attachments are looked at; where nobody can, their declared types count."""
    rules = (
        'if attachment.type is "application/zip" { discard }\nif attachment.inner is "x" { stop }'
    )
    assert said(tried(rules, ZIP + "expect discard", ask=lambda fact: ["application/zip"])) == []
    assert said(tried(rules, ZIP + "expect keep")) == []
    pdf = 'if attachment.type is "application/pdf" { discard }'
    assert said(tried(pdf, ZIP + "expect discard")) == []


def test_lists_in_files(tmp_path: Path) -> None:
    """Lists in files are really read; one that is missing is an error of the rules."""
    blocked = tmp_path / "blocked.txt"
    blocked.write_text("# nobody likes them\n@example.com\n")
    blocked.chmod(0o600)
    rules = 'list blocked from "blocked.txt"\nif from in blocked { discard }'
    file, ask = str(tmp_path / "rules"), Answers(MemoryStore())
    assert said(tried(rules, "expect discard", file=file, ask=ask)) == []
    program = compile_rules(f'{rules}\ntest "t" {{ {MAIL} expect keep }}', file, read=read)
    blocked.unlink()
    result = try_case(Stage(program), program.cases[0], {}, settings=Settings(), ask=ask, read=read)
    assert said(result) == [f"the rules failed: the list {blocked}: No such file or directory"]


def test_filters_do_not_run() -> None:
    """No filter runs: the trace says so, and the message is as it came."""
    result = tried('filter through ["p"] within 30 seconds\nif subject is "tea" { discard }',
                   "expect discard", ask=lambda fact: [b"Subject: rum\n\n"])  # fmt: skip
    assert result.passed
    assert result.trace[0].text.endswith("(not run)")


# coverage

RULES = """
rule "Tea" when subject is "tea" { log "x" } otherwise { log "y" }
rule when subject is "rum" { discard }
if size > 1 { log "z" }
rule "Last" { keep }
rule "Never" { keep }
"""
CASES = f"""
test "a" {{
    {MAIL} expect also keep
}}
test "b" {{
    {MAIL} given subject = "Rum"
    expect also discard
}}
"""


def coverage(program: ir.Program, cases: int) -> tuple[list[str], list[tuple[str, int]]]:
    """The names of all rules, and of those that the first cases do not reach, with lines."""
    rules, stage = named_rules(program), Stage(program)
    results = [
        try_case(stage, case, rules, settings=Settings(), ask=nobody, read=read)
        for case in program.cases[:cases]
    ]
    missed = unreached(rules, results)
    return list(rules.values()), [(name, span.line) for span, name in missed.items()]


def test_coverage() -> None:
    """A rule is reached when its condition held in a test; blocks without a name are none."""
    program = compile_rules(RULES + CASES)
    rum = 'rule when subject is "rum"'
    names, missed = coverage(program, 0)
    assert names == ["Tea", rum, "Last", "Never"]
    assert [name for name, _ in missed] == names
    assert coverage(program, 1)[1] == [(rum, 3), ("Never", 6)]
    assert coverage(program, 2)[1] == [("Never", 6)]


def test_coverage_of_nested_rules() -> None:
    """Rules in blocks, as other languages have them, count as well."""
    program = compile_rules(RULES + CASES)
    outer = program.body[2]
    assert isinstance(outer, ir.Branch)
    nested = outer._replace(body=program.body[:2], otherwise=program.body[3:])
    names, missed = coverage(program._replace(body=(nested,)), 1)
    assert names == ["Tea", 'rule when subject is "rum"', "Last", "Never"]
    assert [line for _, line in missed] == [3, 5, 6]


# facts from the command line


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("spam.score=7", ("spam.score", ""), 7.0),
        ("spam.score=-1.5", ("spam.score", ""), -1.5),
        ("size=5M", ("size", ""), 5 << 20),
        ("virus.found=true", ("virus.found", ""), True),
        ("spam=FALSE", ("spam", ""), False),
        ("envelope.to=a=b@c.org", ("envelope.to", ""), "a=b@c.org"),
        ("subject=", ("subject", ""), ""),
        ("subject=7", ("subject", ""), "7"),
        ("subject=a:b=c", ("subject", ""), "a:b=c"),
        ("header:X-A=b=c", ("header", "x-a"), "b=c"),
        ("remembered:a=b:c=true", ("remembered", "a=b:c"), True),
        ("listed=true", ("listed", ""), True),
        ("from.domain=c.org", ("from.domain", ""), "c.org"),
        ("received=2026-11-20 10:00", ("received", ""), "2026-11-20 10:00"),
        ("received.time=10:00", ("received.time", ""), "10:00"),
    ],
)
def test_parse_given(text: str, key: tuple[str, str], value: object) -> None:
    """Facts are read by the type of their subject; an argument stands behind a colon."""
    assert parse_given([text]) == {key: (value,)}


def test_parse_given_twice() -> None:
    """A fact that is given twice has both values."""
    assert parse_given(["to=a@b", "to=c@d"]) == {("to", ""): ("a@b", "c@d")}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("virus.fond=true", "unknown subject 'virus.fond'; did you mean 'virus.found'?"),
        ("rememberd:k=true", "unknown subject 'rememberd'"),
        ("from.domian=x", "'from' has no part 'domian'; it has .address"),
        ("spam.score=many", "'spam.score' is a number; this is not"),
        ("spam.score=nan", "'spam.score' is a number; this is not"),
        ("virus.found=1", "'virus.found' is true or false; this is not"),
        ("listed=zone", "'listed' is true or false; this is not"),
        ("received=noon", "'received' is a date; this is not"),
        ("header=x", "'header' needs a name"),
        ("subject:x=y", "'subject' takes no name"),
        ("=x", "unknown subject ''"),
    ],
)
def test_parse_given_refuses(text: str, message: str) -> None:
    """What is unknown or does not fit is refused with a near miss or the type."""
    with pytest.raises(SourceError) as caught:
        parse_given([text])
    assert caught.value.problems[0].message.startswith(message)


@pytest.mark.parametrize("name", ["/etc/passwd", "../secret.eml", "a/../../secret.eml"])
def test_message_elsewhere(name: str, tmp_path: Path) -> None:
    """A message stands below the folder of the rules: whoever checks them may read more."""
    (tmp_path / "secret.eml").write_bytes(b"Subject: Rum\r\n\r\n")
    (tmp_path / "rules").mkdir()
    case = f'message "{name}"\nexpect keep'
    [failure] = said(tried("", case, file=str(tmp_path / "rules" / "r")))
    assert failure == (
        f"the message '{name}' cannot be read: it is not below the folder of the rules"
    )
