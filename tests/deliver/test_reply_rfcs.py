"""What RFC 3834 and RFC 5230 ask of an automatic reply, section by section, and who shows it.

`ASKED` is the table. What is not in it says nothing about replies as such: introductions, the
registration of names, the syntax of Sieve. The deliverer's other tests are in test_reply.py.
"""

from __future__ import annotations

import email
import email.policy
import time
from dataclasses import replace
from email.message import EmailMessage
from pathlib import Path
from typing import NamedTuple

import pytest
import test_reply
from fake_mta import EXTENSIONS, FakeMTA
from hypothesis import given
from hypothesis import strategies as st
from parsers import by_email
from test_reply import ACTION, ANN, BOB, HEADER, job, sent, where

from mdaflow.deliver import reply
from mdaflow.engine.plan import Action
from mdaflow.engine.run import Stage, run
from mdaflow.lang import compile_rules
from mdaflow.mail.envelope import Envelope
from mdaflow.mail.message import Message
from mdaflow.store.memory import MemoryStore


class Asked(NamedTuple):
    """What a section asks, and the tests that show it; a file of tests/cases is one."""

    section: str
    what: str
    tests: tuple[str, ...]


ASKED = (
    Asked("3834 2", "none to the null sender", ("test_null_sender",)),
    Asked("3834 2", "none to owner-*, *-request, MAILER-DAEMON", ("test_system_sender",)),
    Asked("3834 2", "none to mail with Auto-Submitted other than no", ("test_marks",)),
    Asked("3834 2", "none to lists and bulk mail", ("test_marks", "test_more_marks")),
    Asked("3834 2", "none unless named in To, Cc, Bcc, Resent-*", ("test_addressed",)),
    Asked("3834 2", "the same only once in several days, by default 7", ("test_once",)),
    Asked("3834 2", "none to spam and viruses", ("test_marks",)),
    Asked("3834 2", "none that loops with itself", ("test_own_address",)),
    Asked("3834 3.1.1", "From is the recipient", ("test_from",)),
    Asked("3834 3.1.2", "no Reply-To that is not needed", ("test_fields",)),
    Asked("3834 3.1.3", "To is the one who gets it", ("test_fields",)),
    Asked("3834 3.1.4", "Date is that of the reply", ("test_fields",)),
    Asked("3834 3.1.5", "Subject is Auto: and the subject", ("test_reply", "test_hostile_mail")),
    Asked("3834 3.1.6", "In-Reply-To and References", ("test_thread", "test_mail_without_an_id")),
    Asked("3834 3.1.7", "Auto-Submitted: auto-replied", ("test_fields",)),
    Asked("3834 3.1.8", "Precedence may be left out", ("test_fields",)),
    Asked("3834 3.2", "text for people, nothing of the message", ("test_content",)),
    Asked("3834 3.3", "the null sender, and NOTIFY=NEVER", ("test_envelope",)),
    Asked("3834 4", "to the sender of the envelope and nobody else", ("test_where_to",)),
    Asked("3834 5", "case, comments and parameters of Auto-Submitted", ("test_spellings",)),
    Asked("3834 6", "not many replies for one message", ("reply_in_html.case",)),
    Asked("5230 4.1", "days: at least 1, by default 7", ("test_every", "test_once")),
    Asked("5230 4.2", "what was sent is remembered for each user and sender", ("test_once",)),
    Asked("5230 4.2", "other words are another reply", ("test_changed_words",)),
    Asked("5230 4.2", "a handle makes them one", ("test_handle",)),
    Asked("5230 4.3", "subject and from of the rule", ("test_options",)),
    Asked("5230 4.3", "a from that may not be is ignored", ("test_from_of_others",)),
    Asked("5230 4.4", "a reason in MIME: here text and HTML", ("test_html",)),
    Asked("5230 4.5", "none unless named, by all own addresses", ("test_addressed",)),
    Asked("5230 4.5", "not by a name that is no own address", ("test_not_addressed",)),
    Asked("5230 4.6", "none to automatic mail and lists", ("test_marks", "test_system_sender")),
    Asked("5230 4.7", "the message is kept, whatever is replied", ("soft_actions.case",)),
    Asked("5230 4.7", "one reply a message", ("soft_actions.case",)),
    Asked("5230 5.1", "the null sender, and NOTIFY=NEVER", ("test_envelope",)),
    Asked("5230 5.2", "Date is now", ("test_fields",)),
    Asked("5230 5.3", "without a subject a fixed one", ("test_mail_without_an_id",)),
    Asked("5230 5.4", "From is the owner of the rules", ("test_from",)),
    Asked("5230 5.5", "To is the one who gets it", ("test_fields",)),
    Asked("5230 5.6", "Auto-Submitted: auto-replied", ("test_fields",)),
    Asked("5230 5.7", "a body in UTF-8", ("test_content", "test_html")),
    Asked("5230 5.8", "In-Reply-To and References", ("test_thread",)),
    Asked("5230 9", "no flood, and no reply from others' addresses", ("test_from_of_others",)),
)


def test_every_demand_has_its_test() -> None:
    """Each test that the table names is there."""
    cases = {path.name for path in Path(__file__).parents[1].glob("cases/*.case")}
    here = {*globals(), *vars(test_reply), *cases}
    assert [(a.section, t) for a in ASKED for t in a.tests if t not in here] == []


def read(mta: FakeMTA) -> EmailMessage:
    """The reply, as another program reads it."""
    found = email.message_from_bytes(sent(mta).raw, policy=email.policy.strict)
    assert isinstance(found, EmailMessage)
    return found


def test_fields() -> None:
    """A reply has the fields that it should have, and no others."""
    header = HEADER + "Reply-To: eve@example.com\nDate: Thu, 1 Jan 2015 00:00:00 +0000\n"
    with FakeMTA() as mta:
        reply.prepare(job(mta, header), ACTION).commit()
    found = read(mta)
    assert sorted(found.keys()) == [
        "Auto-Submitted",
        "Content-Transfer-Encoding",
        "Content-Type",
        "Date",
        "From",
        "In-Reply-To",
        "MIME-Version",
        "Message-ID",
        "References",
        "Subject",
        "To",
    ]
    assert found["To"] == ANN
    assert found["Auto-Submitted"] == "auto-replied (mdaflow)"
    assert found["Message-ID"] != "<1@example.com>"
    assert abs(found["Date"].datetime.timestamp() - time.time()) < 3600


def test_envelope() -> None:
    """The sender is the null sender, and nobody is told what becomes of a reply."""
    with FakeMTA(extensions=(*EXTENSIONS, "DSN")) as mta:
        reply.prepare(job(mta), ACTION).commit()
    commands = mta.sessions[0].commands
    assert commands[1].startswith(b"MAIL FROM:<> ")
    assert commands[2] == f"RCPT TO:<{ANN}> NOTIFY=NEVER".encode()


def test_where_to() -> None:
    """What the header says of its sender is not where a reply goes."""
    header = (
        f"Return-Path: <r@example.com>\nFrom: f@example.com\nSender: s@example.com\n"
        f"Reply-To: p@example.com\nErrors-To: e@example.com\nTo: {BOB}, t@example.com\n"
    )
    with FakeMTA() as mta:
        reply.prepare(job(mta, header), ACTION).commit()
    assert [c for c in mta.sessions[0].commands if c.startswith(b"RCPT")] == [
        f"RCPT TO:<{ANN}>".encode()
    ]
    assert b"@example.com" not in sent(mta).raw.replace(ANN.encode(), b"")


def test_content() -> None:
    """The words of the rule and nothing else are in it, as text in UTF-8."""
    with FakeMTA() as mta:
        reply.prepare(job(mta), replace(ACTION, text="Zurück am 5.\n")).commit()
    found = read(mta)
    assert found.get_content_type() == "text/plain"
    assert found.get_content_charset() == "utf-8"
    assert found.get_content() == "Zurück am 5.\n"


def test_html() -> None:
    """A reply with HTML has the text first and the HTML last (RFC 2046 section 5.1.4)."""
    html = "<p>Zurück am <b>5.</b></p>"
    with FakeMTA() as mta:
        reply.prepare(job(mta), replace(ACTION, options=(("html", html),))).commit()
    found = read(mta)
    assert found.get_content_type() == "multipart/alternative"
    parts = [(p.get_content_type(), p.get_content()) for p in found.iter_parts()]
    assert parts == [("text/plain", "Back on the 5th.\nBob\n"), ("text/html", html + "\n")]


OWN = ("bob@example.org", "Robert@Example.Org", "bob@example.net")


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ("To: robert@example.org", "Robert@Example.Org"),
        ("To: BOB@example.net, robert@example.org", "bob@example.net"),
        ("To: eve@example.com\nCc: bob@example.net", "bob@example.net"),
        ("To: eve@example.com\nResent-To: Robert <ROBERT@example.org>", "Robert@Example.Org"),
        ("To: robert+news@example.org", "Robert@Example.Org"),
        ("To: bob@example.org", "bob@example.org"),
    ],
)
def test_from(fields: str, expected: str) -> None:
    """A reply is from the own address by which the user was addressed, as he writes it."""
    with FakeMTA() as mta:
        header = f"From: {ANN}\n{fields}\nSubject: x\n"
        reply.prepare(job(mta, header, own=OWN), ACTION).commit()
    assert sent(mta).header("From") == [expected]


def test_detail() -> None:
    """Who wrote to an address with a detail gets the reply from there."""
    with FakeMTA() as mta:
        header = f"From: {ANN}\nTo: bob+shop@example.org\n"
        reply.prepare(job(mta, header, recipient="bob+shop@example.org"), ACTION).commit()
        at_home = job(mta, recipient="bob+shop@example.org", sender="carl@example.com")
        reply.prepare(at_home, ACTION).commit()
    first, second = (Message(s.data.replace(b"\r\n", b"\n")) for s in mta.taken)
    assert first.header("From") == ["bob+shop@example.org"]
    assert second.header("From") == [BOB]


HOSTILE = st.one_of(
    st.binary(max_size=80).map(lambda raw: raw.replace(b"\n", b" ").decode("latin-1")),
    st.text(max_size=40),
    st.sampled_from(["=?utf-8?q?a=0d=0aBcc:_e@x?=", "<a@b\rBcc: c@d>", "a" * 5000, "<x@y> <z@z>"]),
)


@given(HOSTILE, HOSTILE, HOSTILE)
def test_hostile_mail_in_a_strict_reader(subject: str, ident: str, name: str) -> None:
    """Whatever a message has in its header, the reply to it is well-formed."""
    lines = [
        f"From: {name} <{ANN}>",
        f"To: {BOB}",
        f"Subject: {subject}",
        f"Message-ID: {ident}",
        f"References: {ident} <1@x> {subject}",
    ]
    raw = "\n".join(line.replace("\n", " ") for line in lines).encode("utf-8", "replace")
    one = job(header=raw.decode() + "\n")
    case = reply._case(one, ACTION)
    html = (("html", f"<p>{name}</p>"),)
    found = by_email(reply._write(one, replace(ACTION, text=subject, options=html), case))
    assert found.fields["to"] == ANN
    assert found.fields["from"] == BOB
    assert "bcc" not in found.fields
    assert [kind for kind, _ in found.parts] == ["text/plain", "text/html"]


SPELLINGS = (
    *("auto-replied", "Auto-Replied", " AUTO-GENERATED ", "auto-notified; owner-email=x"),
    *("(no) auto-replied", "auto-replied(no)", "auto-replied;no", "x-unknown", "no-reply", "none"),
    *("", "()", ";", "yes", "no, really", "no auto-replied", "=?utf-8?q?auto-replied?=", '"no"'),
    *("n o", "no\x00", "\xa0no-such", "(", "(no", "auto-replied\n no"),
)


@pytest.mark.parametrize("name", ["Auto-Submitted", "AUTO-SUBMITTED", "auto-submitted "])
@pytest.mark.parametrize("value", SPELLINGS)
def test_spellings(name: str, value: str) -> None:
    """Whatever is not the plain word `no` is the mark of automatic mail."""
    assert where(job(header=f"{HEADER}{name}: {value}\n")) == "no reply: automatic mail"


@pytest.mark.parametrize("value", ["no", "No", "NO;x=y", "(a person)no(really) ; a=b", "\n no"])
def test_spellings_of_no(value: str) -> None:
    """A person's mail may say that it is none."""
    assert where(job(header=f"{HEADER}Auto-Submitted: {value}\n")) == f"reply {ANN}"


@pytest.mark.parametrize(
    "field",
    [
        "X-Precedence: bulk",
        "Precedence: Auto_Reply",
        "Precedence: auto-reply",
        "X-Autoreply: yes",
        "X-Autorespond: vacation",
        "X-Failed-Recipients: x@y",
        "X-Cron-Env: <SHELL=/bin/sh>",
        "X-Mailman-Version: 2.1",
        "List-Unsubscribe-Post: List-Unsubscribe=One-Click",
        "X-ML-Name: dev",
    ],
)
def test_more_marks(field: str) -> None:
    """What other programs write into their mail is a mark as well."""
    assert where(job(header=f"{HEADER}{field}\n")).startswith("no reply: ")


def planned(rules: str, subject: str = "x") -> Action:
    """The reply that rules plan."""
    message = Message(f"From: {ANN}\nTo: {BOB}\nSubject: {subject}\n\n".encode())
    plan = run(Stage(compile_rules(rules)), message, Envelope(ANN, BOB))
    return next(action for action in plan.actions if action.verb == "reply")


def answers(*rules: str | Action) -> list[bool]:
    """Which of the replies go to one sender, one after the other."""
    memory = MemoryStore()
    with FakeMTA() as mta:
        ready = []
        for rule in rules:
            action = planned(rule) if isinstance(rule, str) else rule
            ready.append(reply.prepare(job(mta, memory=memory), action))
            ready[-1].commit()
    return [one.where.startswith("reply ") for one in ready]


def test_changed_words() -> None:
    """Other words, another subject, sender or HTML is sent again; the same is not."""
    rules = (
        'reply "Away."',
        'reply "Away!"',
        'reply "Away." subject "s"',
        'reply "Away." from "bob@example.org"',
        'reply "Away." html "<b>Away</b>"',
    )
    assert answers(*rules) == [True] * 5
    assert answers(rules[0], 'reply """Away.""" every 3 days', rules[0]) == [True, False, False]


def test_put_in() -> None:
    """What is put into a reply does not make it another one."""
    rule = 'reply "About {subject|first 20}" subject "Re: {subject}" html "<i>{subject}</i>"'
    assert answers(planned(rule, "one"), planned(rule, "two")) == [True, False]
    assert answers(rule, rule.replace("{subject}", "{from}")) == [True, True]


def test_handle() -> None:
    """Replies of one name are one, whatever their words are; those of another are others."""
    rules = ('reply "a" as "Away"', 'reply "b" subject "s" as "away "', 'reply "a" as "Ill"')
    assert answers(*rules, 'reply "a"') == [True, False, True, True]
