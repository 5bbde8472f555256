"""Rules on a message that somebody has released from the quarantine."""

from __future__ import annotations

import pytest

from mdaflow.engine.plan import Plan
from mdaflow.engine.run import Stage, run
from mdaflow.lang import compile_rules
from mdaflow.mail.envelope import Envelope
from mdaflow.mail.message import Message

MAIL = Message(b"From: Ann <ann@example.com>\nSubject: Hello\n\nbody\n")
RELEASED = Envelope("ann@example.com", "bob@example.org", released=True)


def plan(*stages: str) -> Plan:
    """What rules of the site, then of the user, make of a released message."""
    owners = ("site", "user")
    programs = [Stage(compile_rules(t), owner) for t, owner in zip(stages, owners, strict=False)]
    return run(programs, MAIL, RELEASED, trace=True)


CAUGHT = """
rule "Viruses" when from is "ann@example.com" {
    flag "\\\\Seen"
    set header "X-Virus: yes"
    learn spam
    score spam += 5
    set bad = "yes"
    if size > 1 { also deliver to "Copies"  quarantine "virus" }
    deliver to "Never"
}
"""


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ('quarantine "all"', 'deliver to "INBOX"'),
        ('quarantine deliver to "x"', 'deliver to "x"'),
        (CAUGHT, 'deliver to "INBOX"'),
        (
            f'{CAUGHT} if bad is "yes" or header "X-Virus" exists {{ discard }}',
            'deliver to "INBOX"',
        ),
        (f'{CAUGHT} if score.spam > 4 {{ discard }} deliver to "x"', 'deliver to "x"'),
        ("rule when size > 1 { learn ham also quarantine } ", 'deliver to "INBOX"'),
        (
            'rule "a" when size < 1 { keep } otherwise { quarantine } deliver to "x"',
            'deliver to "x"',
        ),
        (
            'rule "a" when size > 1 { also deliver to "a" } if size > 1 { quarantine }',
            'also deliver to "a"\ndeliver to "INBOX"',
        ),
    ],
)
def test_passed(rules: str, said: str) -> None:
    """A rule that would quarantine it does nothing at all, and the next one goes on."""
    decided = plan(rules)
    assert str(decided) == said
    assert all(action.message is None and not action.flags for action in decided.actions)
    assert decided.edits == ()


def test_every_stage() -> None:
    """No rule keeps it in the quarantine, neither one of the site nor one of the user."""
    quarantine = "rule when size > 1 { quarantine }"
    assert str(plan(quarantine, f'{quarantine} deliver to "x"')) == 'deliver to "x"'


def test_trace() -> None:
    """The trace says why the rule did nothing."""
    said = [event.text for event in plan('rule "V" when size > 1 { quarantine "why" }').trace]
    assert said[-1] == 'quarantine "why" (passed: the message was released)'


def test_not_released() -> None:
    """A message that nobody has released is quarantined."""
    assert run(compile_rules(CAUGHT), MAIL, Envelope()).outcome == "quarantined"
