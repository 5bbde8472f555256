"""Every action in a whole delivery: rules in, and what became of the message.

The site is a real one, with folders, its SQLite store and real programs; the next hop is a
server with a script. A test sees the reply, the line of the log, every mailbox, and what was
sent.
"""

from __future__ import annotations

import json
import os
import re
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from fake_mta import FakeMTA, closed_hop
from here import ANN, BOB, HEADER, RAW, Here, close

from mdaflow.app import build, pipeline
from mdaflow.mail import loop
from mdaflow.mail.envelope import Envelope
from mdaflow.mail.message import Message

GRANTS = ("reject", "defer", "pipe", "filter", "command", "learn", "files")
BUSY, REFUSED = b"450 4.2.1 Busy\r\n", b"550 5.1.1 Nobody\r\n"


class Case(NamedTuple):
    """Rules, and what becomes of a message."""

    reply: str
    status: str
    reason: str
    folders: dict[str, int]
    user: str = ""
    before: str = ""
    after: str = ""
    script: dict[str, bytes] = {}  # noqa: RUF012  # nobody changes it
    sent: int = 0


STORED = "250 2.0.0 ID Saved to "
FAILS = '["/bin/sh", "-c", "cat >/dev/null; echo no >&2; exit {}"]'
CASES = {
    "keep": Case(STORED + "INBOX", "delivered", "BOX INBOX", {"INBOX": 1}, "keep"),
    "nothing": Case(STORED + "INBOX", "delivered", "BOX INBOX", {"INBOX": 1}),
    "deliver": Case(STORED + "a/b", "delivered", "BOX a/b", {"a/b": 1}, 'deliver to "a/b"'),
    "discard": Case("250 2.0.0 ID Discarded", "discarded", "Discarded", {}, "discard"),
    "discard with a copy": Case(
        "250 2.0.0 ID Discarded", "discarded", "BOX a", {"a": 1}, 'also deliver to "a" discard'
    ),
    "reject": Case("550 5.7.1 Not you", "rejected", "Not you", {}, 'reject "Not you"'),
    "reject by the site": Case(
        "550 5.7.1 No", "rejected", "BOX a", {"a": 1}, 'reject "No"', 'also deliver to "a"'
    ),
    "defer": Case("451 4.7.1 Later", "deferred", "Later", {}, 'also keep defer "Later"'),
    "forward": Case(
        "250 2.0.0 ID Forwarded",
        "forwarded",
        "smtp x@example.com",
        {},
        'forward to "x@example.com"',
        sent=1,
    ),
    "forward to several": Case(
        "250 2.0.0 ID Forwarded",
        "forwarded",
        "smtp x@example.com, y@example.com",
        {},
        'forward to ["x@example.com", "y@example.com", "x@example.com"]',
        sent=1,
    ),
    "forward and keep": Case(
        STORED + "INBOX",
        "delivered",
        "BOX INBOX, smtp x@example.com",
        {"INBOX": 1},
        'also forward to "x@example.com"',
        sent=1,
    ),
    "forward, busy": Case(
        "450 4.2.1 Next hop has trouble, try again later",
        "deferred",
        "Next hop has trouble, try again later: HOP: RCPT <x@example.com>: 450 4.2.1 Busy",
        {},
        'also deliver to "a" forward to "x@example.com"',
        script={"rcpt": BUSY},
    ),
    "forward, busy at the end": Case(
        "450 4.2.1 Next hop has trouble, try again later",
        "deferred",
        "Next hop has trouble, try again later: HOP: message: 450 4.2.1 Busy",
        {},
        'forward to "x@example.com"',
        script={"dot": BUSY},
        sent=1,
    ),
    "forward, refused": Case(
        "550 5.1.1 Refused by the next hop",
        "rejected",
        "Refused by the next hop: HOP: RCPT <x@example.com>: 550 5.1.1 Nobody",
        {},
        'forward to "x@example.com"',
        script={"rcpt": REFUSED},
    ),
    "forward, refused at the end": Case(
        "550 5.1.1 Refused by the next hop",
        "rejected",
        "Refused by the next hop: HOP: message: 550 5.1.1 Nobody",
        {},
        'remember "x" for 1 day also forward to "x@example.com" discard',
        script={"dot": REFUSED},
        sent=1,
    ),
    "forward with a copy, refused": Case(
        STORED + "a, INBOX",
        "delivered",
        "BOX a, BOX INBOX: HOP: RCPT <x@example.com>: 550 5.1.1 Nobody; kept in the inbox",
        {"a": 1, "INBOX": 1, "notices": 1},
        'also deliver to "a" forward to "x@example.com"',
        script={"rcpt": REFUSED},
    ),
    "forward with a copy, refused at the end": Case(
        STORED + "a, INBOX",
        "delivered",
        "BOX a, BOX INBOX: HOP: message: 550 5.1.1 Nobody; kept in the inbox",
        {"a": 1, "INBOX": 1, "notices": 1},
        'also deliver to "a" forward to "x@example.com"',
        script={"dot": REFUSED},
        sent=1,
    ),
    "forward and keep, refused": Case(
        STORED + "INBOX",
        "delivered",
        "BOX INBOX: HOP: RCPT <x@example.com>: 550 5.1.1 Nobody; kept in the inbox",
        {"INBOX": 1, "notices": 1},
        'also forward to "x@example.com"',
        script={"rcpt": REFUSED},
    ),
    "forward by the site, refused": Case(
        STORED + "a, INBOX",  # and no notice: the user has done nothing
        "delivered",
        "BOX a, BOX INBOX: HOP: RCPT <x@example.com>: 550 5.1.1 Nobody; kept in the inbox",
        {"a": 1, "INBOX": 1},
        'deliver to "a"',
        'also forward to "x@example.com"',
        script={"rcpt": REFUSED},
    ),
    "forward before a refusal, refused": Case(
        "550 5.7.1 No",
        "rejected",
        "No: HOP: RCPT <x@example.com>: 550 5.1.1 Nobody",
        {},
        'reject "No"',
        'also forward to "x@example.com"',
        script={"rcpt": REFUSED},
    ),
    "forward to nobody": Case(
        "451 4.4.1 Next hop does not answer, try again later",
        "deferred",
        "Next hop does not answer, try again later: HOP: ",
        {},
        'also keep forward to "x@example.com"',
        script={"greeting": b"<drop>"},
    ),
    "pipe": Case(
        "250 2.0.0 ID Taken by a program",
        "piped",
        "pipe sh",
        {},
        'pipe to ["/bin/sh", "-c", "cat > piped"]',
    ),
    "pipe, refused by a program of the site": Case(
        "550 5.7.1 Rejected by rule",
        "rejected",
        "Rejected by rule: pipe sh: exit code 77: no",
        {},
        before=f"pipe to {FAILS.format(77)}",
    ),
    "pipe, unknown to a program of the site": Case(
        "550 5.1.1 No such user here",
        "rejected",
        "No such user here: pipe sh: exit code 67: no",
        {},
        before=f"pipe to {FAILS.format(67)}",
    ),
    "pipe with a copy, refused by a program of the site": Case(
        STORED + "a, INBOX",
        "delivered",
        "BOX a, BOX INBOX: pipe sh: exit code 77: no; kept in the inbox",
        {"a": 1, "INBOX": 1},
        before=f'also deliver to "a" pipe to {FAILS.format(77)}',
    ),
    "pipe, refused by a program of a user": Case(
        "451 4.3.0 Program failed, try again later",
        "deferred",
        "Program failed, try again later: pipe sh: exit code 77: no",
        {},
        f"pipe to {FAILS.format(77)}",
    ),
    "pipe, busy": Case(
        "451 4.3.0 Program failed, try again later",
        "deferred",
        "Program failed, try again later: pipe sh: exit code 75: no",
        {},
        before=f"pipe to {FAILS.format(75)}",
    ),
    "pipe, too slow": Case(
        "451 4.3.0 Program failed, try again later",
        "deferred",
        "Program failed, try again later: pipe sh: it ran longer than 0.1 seconds",
        {},
        'pipe to ["/bin/sh", "-c", "sleep 60"] within 0.1 seconds',
    ),
    "pipe to a missing program, by the site": Case(
        "451 4.3.0 Internal error, try again later",
        "deferred",
        "Internal error, try again later: there is no program /nowhere/x",
        {},
        before='also keep pipe to ["/nowhere/x"]',
    ),
    "pipe to a missing program, by a user": Case(
        STORED + "INBOX",
        "delivered",
        "BOX INBOX: there is no program /nowhere/x; kept in the inbox",
        {"INBOX": 1, "notices": 1},
        'pipe to ["/nowhere/x"]',
    ),
    "filter": Case(
        STORED + "changed/HELLO",
        "delivered",
        "BOX changed/HELLO",
        {"changed/HELLO": 1},
        'filter through ["/bin/sh", "-c", "sed s/hello/HELLO/"]\n'
        'if subject contains exactly "HELLO" { deliver to "changed/{subject}" }',
    ),
    "filter by the site": Case(
        STORED + "HELLO",
        "delivered",
        "BOX HELLO",
        {"HELLO": 1},
        'deliver to "{subject}"',
        'set header "X-A: 1" filter through ["/bin/sh", "-c", "sed s/hello/HELLO/"]',
    ),
    "filter, failing": Case(
        "451 4.3.0 Internal error, try again later",
        "deferred",
        "Internal error, try again later: /bin/sh: ended with 1: no",
        {},
        f"also keep filter through {FAILS.format(1)}",
    ),
    "filter that gives nothing": Case(
        "451 4.3.0 Internal error, try again later",
        "deferred",
        "Internal error, try again later: /bin/sh: gave nothing: no",
        {},
        before=f"filter through {FAILS.format(0)}",
    ),
    "filter, missing, of the site": Case(
        "451 4.3.0 Internal error, try again later",
        "deferred",
        "Internal error, try again later: ROOT/before/1.rules:1:1: there is no program /nowhere/x",
        {},
        before='filter through ["/nowhere/x"]',
    ),
    "filter, missing, of a user": Case(
        STORED + "a, INBOX",
        "delivered",
        "BOX a, BOX INBOX",
        {"a": 1, "INBOX": 1, "notices": 1},
        'also deliver to "b" filter through ["/nowhere/x"]',
        'also deliver to "a"',
    ),
    "command": Case(
        STORED + "yes",
        "delivered",
        "BOX yes",
        {"yes": 1},
        'if command ["/bin/grep", "-q", "hello"] succeeds { deliver to "yes" }',
    ),
    "command that says no": Case(
        STORED + "INBOX",
        "delivered",
        "BOX INBOX",
        {"INBOX": 1},
        'if command ["/bin/grep", "-q", "nothing like it"] succeeds { deliver to "yes" }',
    ),
    "command, busy": Case(
        "451 4.3.0 Internal error, try again later",
        "deferred",
        "Internal error, try again later: /bin/sh: ended with 75: no",
        {},
        f"if command {FAILS.format(75)} succeeds {{ discard }}",
    ),
    "command, killed": Case(
        "451 4.3.0 Internal error, try again later",
        "deferred",
        "Internal error, try again later: /bin/sh: it was killed by signal 9",
        {},
        'if not command ["/bin/sh", "-c", "kill -9 $$"] succeeds { discard }',
    ),
    "command, missing, of the site": Case(
        "451 4.3.0 Internal error, try again later",
        "deferred",
        "Internal error, try again later: ROOT/before/1.rules:1:8: there is no program /nowhere/x",
        {},
        before='if not command ["/nowhere/x"] succeeds { discard }',
    ),
    "command, missing, of a user": Case(
        STORED + "INBOX",
        "delivered",
        "BOX INBOX",
        {"INBOX": 1, "notices": 1},
        'if not command ["/nowhere/x"] succeeds { discard }',
    ),
    "quarantine": Case(
        "250 2.0.0 ID Quarantined", "quarantined", "quarantine: odd", {}, 'quarantine "odd"'
    ),
    "reply": Case(
        STORED + "INBOX",
        "delivered",
        f"BOX INBOX, reply {ANN}",
        {"INBOX": 1},
        'reply "Gone"',
        sent=1,
    ),
    "reply, refused": Case(
        STORED + "INBOX",
        "delivered",
        "BOX INBOX, no reply: Refused by the next hop",
        {"INBOX": 1},
        'reply "Gone"',
        script={"mail": REFUSED},
    ),
    "notify": Case(
        STORED + "INBOX",
        "delivered",
        "BOX INBOX, notice x@example.com",
        {"INBOX": 1},
        'notify "x@example.com" "{subject}"',
        sent=1,
    ),
    "notify, busy": Case(
        STORED + "INBOX",
        "delivered",
        "BOX INBOX, no notice: Next hop has trouble, try again later",
        {"INBOX": 1},
        'notify "x@example.com" "{subject}"',
        script={"dot": BUSY},
        sent=1,
    ),
    "remember": Case(
        STORED + "INBOX",
        "delivered",
        "BOX INBOX, remember",
        {"INBOX": 1},
        'remember "{subject}" for 7 days',
    ),
    "learn": Case(
        STORED + "INBOX",
        "delivered",
        "BOX INBOX, learned spam",
        {"INBOX": 1},
        "learn spam",
    ),
    "log": Case(STORED + "INBOX", "delivered", "BOX INBOX, log", {"INBOX": 1}, 'log "x"'),
    "a folder that cannot be": Case(
        STORED + "INBOX",
        "delivered",
        f"BOX INBOX: bad folder name '{'a/' * 19}a'; kept in the inbox",
        {"INBOX": 1, "notices": 1},
        f'set x = "{"a/" * 20}" deliver to "{{x}}"',
    ),
    "three stages": Case(
        STORED + "a, b, c",
        "delivered",
        "BOX a, BOX b, BOX c",
        {"a": 1, "b": 1, "c": 1},
        'also deliver to "b" stop discard',
        'also deliver to "a"',
        'deliver to "c"',
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_action(name: str, both: Here) -> None:
    """The reply, the words of the log and the mailboxes after each action, of site and user."""
    case, both.grant = CASES[name], GRANTS
    with FakeMTA(case.script) as mta:
        both.hop = mta.hop
        both.set(case.user, case.before, case.after)
        reply = str(both.send())
    assert re.sub(r"(?<=2\.0\.0 )[0-9a-f]{11}", "ID", reply) == case.reply
    said = both.entry["reason"].replace(both.hop, "HOP").replace(str(both.root), "ROOT")
    expected = re.sub(r"\bBOX\b", both.format, case.reason)
    assert said == expected or (expected.endswith(": ") and said.startswith(expected))
    assert (both.entry["status"], both.entry["dsn"]) == (case.status, reply[4:9])
    assert both.folders == case.folders
    assert len(mta.taken) == case.sent
    assert both.leftovers() == []


def on_the_wire(mta: FakeMTA) -> bytes:
    """The only message that was sent, with LF line ends."""
    (session,) = mta.taken
    data: bytes = session.data
    return data.removesuffix(b".\r\n").replace(b"\r\n", b"\n")


def names(here: Here) -> list[str]:
    """The names of the files in bob's Maildirs, without what is never the same."""
    files = here.home.glob("Maildir/**/*,S=*")
    return sorted(f"{f.parent.parent.name}/{f.parent.name}{f.name[-9:]}" for f in files)


# copies


def test_flags_keywords_and_expiry_in_a_maildir(here: Here) -> None:
    """Flags and keywords are in the name, and a record beside it says when it expires."""
    here.set('flag "\\\\Flagged" deliver to "j" with flags ["\\\\Seen", "$Work"] expire 30 days')
    here.send()
    [stored] = here.home.glob("Maildir/.j/cur/*")
    assert stored.name.endswith(":2,FSa")
    assert (here.home / "Maildir/.j/dovecot-keywords").read_text() == "0 $Work\n"
    [record] = here.home.glob("Maildir/.j/mdaflow-expire/*")
    deadline, _, unique = record.name.partition("-")
    assert int(deadline) == 1_800_000_000 + 30 * 86_400
    assert stored.name.startswith(f"{unique},S=")


@pytest.mark.parametrize("both", ["mbox"], indirect=True)
def test_flags_and_keywords_in_an_mbox(both: Here) -> None:
    """In an mbox they are fields."""
    both.set('deliver to "j" with flags ["\\\\Seen", "\\\\Flagged", "$Work"] expire 30 days')
    both.send()
    [raw] = both.mails("j")
    for field in (b"\nStatus: R\n", b"\nX-Status: F\n", b"\nX-Keywords: $Work\n"):
        assert field in raw


def test_edits_of_the_header(both: Here) -> None:
    """A copy has the header as it was when it was planned, and the body as it came."""
    both.set(
        'also deliver to "first" add header "X-A: ü {subject}" set header "Subject: changed"\n'
        'remove header "X-Gone" if subject is "changed" { also deliver to "second" } discard'
    )
    both.send(f"{HEADER}X-Gone: 1\n\nFrom here\n\xff".encode("latin-1"))
    [first], [second] = both.mails("first"), both.mails("second")
    assert b"X-Gone: 1\n" in first
    assert b"Subject: hello\n" in first
    assert b"X-Gone" not in second
    assert b"\nSubject: changed\nMessage-ID: <1@x>\n" in second
    assert b"\nX-A: =?utf-8?b?w7w=?= hello\n" in second
    body = b"\n\nFrom here\n\xff" if both.format == "maildir" else b"\n\n>From here\n\xff"
    assert first.rstrip(b"\n").endswith(body)
    assert second.rstrip(b"\n").endswith(body)


def test_two_copies_with_an_edit_in_between(both: Here) -> None:
    """A Maildir gets both versions, an mbox the last one: its first copy would hold the lock."""
    both.set('also deliver to "a" add header "X-A: 1" also deliver to "a" with flag "\\\\Seen"')
    assert both.send().ok
    mails = both.mails("a")
    assert [b"\nX-A: 1\n" in b"\n" + raw for raw in mails].count(True) == 1
    assert len(mails) == (2 if both.format == "maildir" else 1)
    assert both.folders["INBOX"] == 1


def test_bodies_are_shared(both: Here) -> None:
    """Twenty copies of a large message, ten of them edited, cost no memory for their bodies."""
    copies = "".join(f'also deliver to "f{n}" set header "X-N: {n}"\n' for n in range(10))
    both.set(copies + "".join(f'also deliver to "g{n}"\n' for n in range(10)) + "also quarantine")
    both.send()  # all is imported, all folders are there
    message = Message(HEADER.encode() + b"\n" + (b"x" * 78 + b"\n") * 100_000)
    envelope = Envelope(ANN, BOB)
    tracemalloc.start()
    try:
        assert pipeline.deliver_message(both.site, message, envelope).ok
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < message.size / 4


def test_mailbox_of_the_site(both: Here) -> None:
    """A rule of the site names a mailbox by its path, and no place is stored to twice."""
    path = both.root / "archive"
    path.mkdir()
    own = both.home / ("mail/inbox" if both.format == "mbox" else "Maildir")
    both.set(
        before=f'also deliver to "mbox:{path}/all" also deliver to "maildir:{path}/all.d"\n'
        f'also deliver to "{both.format}:{own}"'
    )
    assert both.send().ok
    assert (path / "all").read_bytes().count(b"\nSubject: hello\n") == 1
    assert len(list(path.glob("all.d/new/*"))) == 1
    assert both.folders == {"INBOX": 1}


def test_mailbox_of_the_site_through_a_link(both: Here) -> None:
    """A path that leads to the user's own inbox in a roundabout way is that inbox."""
    (both.root / "link").symlink_to(both.home)
    path = f"{both.root}/link/{'mail/inbox' if both.format == 'mbox' else 'Maildir'}"
    (both.home / "mail").mkdir()
    both.set(before=f'also deliver to "{both.format}:{path}"')
    assert both.send().ok
    assert both.folders == {"INBOX": 1}


def test_user_needs_a_grant_for_a_mailbox_by_its_path(here: Here) -> None:
    """Such a name in a user's rules is an error, and a made-up one stays below the mailbox."""
    path = here.root / "stolen"
    here.set(f'deliver to "mbox:{path}"')
    assert here.send().ok
    assert here.folders == {"INBOX": 1, "notices": 1}
    here.set(f'set x = "mbox:{path}" deliver to "{{x}}"')
    assert here.send().ok
    assert not path.exists()
    here.grant = ("files",)
    here.set(f'deliver to "mbox:{path}"')
    assert here.send().ok
    assert path.read_bytes().count(b"Subject: hello\n") == 1


# what leaves us


def test_what_is_forwarded(here: Here) -> None:
    """What is sent on has the proof, our Received field, the rules' edits, and all other bytes."""
    with FakeMTA() as mta:
        here.hop = mta.hop
        here.set('set header "X-A: 1" forward to "x@example.com"')
        here.send()
    [session] = mta.taken
    assert session.commands[1].startswith(f"MAIL FROM:<{ANN}> ".encode())
    assert session.commands[2] == b"RCPT TO:<x@example.com>"
    proof = loop.proof(here.site.key, BOB, Message(RAW)).encode()
    head = b"X-mdaflow-Loop: %b\nReceived: by mx.example.org (mdaflow)" % proof
    assert on_the_wire(mta).startswith(head)
    assert on_the_wire(mta).endswith(b"\nX-A: 1\n" + RAW)


def test_forward_of_a_bounce(here: Here) -> None:
    """A bounce is sent on with the null sender (P39)."""
    with FakeMTA() as mta:
        here.hop = mta.hop
        here.set('forward to "x@example.com"')
        here.send(sender="")
    assert mta.taken[0].commands[1].startswith(b"MAIL FROM:<> ")


def test_reply_once(here: Here) -> None:
    """A sender gets one reply, however often he writes and whatever process sees it."""
    with FakeMTA() as mta:
        here.hop = mta.hop
        here.set('reply "Back on the 5th." subject "Away: {subject}" every 3 days')
        here.send()
        here.send()
        assert here.entry["reason"] == "maildir INBOX, no reply: had one"
        here.set("keep")
        here.set('reply "Back on the 5th." subject "Away: {subject}" every 1 day')  # once more
        here.send()
    assert len(mta.taken) == 1
    assert mta.taken[0].commands[1].startswith(b"MAIL FROM:<> ")
    assert b"\nSubject: Away: hello\n" in on_the_wire(mta)
    assert here.folders == {"INBOX": 3}


def test_replies_in_the_same_instant(here: Here) -> None:
    """Of two processes that are about to reply to one sender, one does (P38)."""
    start = threading.Barrier(2)

    def fence() -> bool:  # both have looked whether there was a reply
        start.wait(30)
        return True

    with FakeMTA() as mta:
        here.hop = mta.hop
        here.set('reply "Gone"')
        sites = [here.site, here.open()]
        with ThreadPoolExecutor(2) as pool:
            work = [
                pool.submit(pipeline.deliver_message, site, Message(RAW), Envelope(ANN, BOB), fence)
                for site in sites
            ]
            assert all(job.result().ok for job in work)
        close(sites[1])
    assert len(mta.taken) == 1
    assert here.folders == {"INBOX": 2}


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (f"{HEADER}List-Id: <l.example.com>\n", "mailing list"),
        (f"{HEADER}Precedence: bulk\n", "bulk mail"),
        (f"{HEADER}Auto-Submitted: auto-replied\n", "automatic mail"),
        (HEADER.replace(BOB, "all@example.org"), "not addressed"),
    ],
)
def test_no_reply(header: str, reason: str, here: Here) -> None:
    """Lists, automatic mail and what is not for the user get no reply, and are delivered."""
    with FakeMTA() as mta:
        here.hop = mta.hop
        here.set('reply "Gone"')
        here.send(f"{header}\nx\n".encode())
    assert mta.sessions == []
    assert here.entry["reason"] == f"maildir INBOX, no reply: {reason}"


def test_own_addresses_of_the_rules(here: Here) -> None:
    """Mail for an address of the list `me` is for the user: it gets a reply."""
    with FakeMTA() as mta:
        here.hop = mta.hop
        here.set('list me = ["robert@example.org"] rule when personal { reply "Gone" }')
        here.send(f"{HEADER.replace(BOB, 'robert@example.org')}\nx\n".encode())
    assert len(mta.taken) == 1


def test_notice(here: Here) -> None:
    """A notice is short, from the null sender, and has the words of the rule."""
    with FakeMTA() as mta:
        here.hop = mta.hop
        here.set('notify "x@example.com" "{from.name} wrote: {subject}"')
        here.send()
    assert mta.taken[0].commands[1].startswith(b"MAIL FROM:<> ")
    assert b"\nSubject: Ann wrote: hello\n" in on_the_wire(mta)


# programs


def test_what_a_program_gets(here: Here) -> None:
    """A program is run in the user's folder and gets the message as it would be stored."""
    here.grant = GRANTS
    here.set('add header "X-A: 1" pipe to ["/bin/sh", "-c", "cat > got; pwd > where"]')
    assert here.send().ok
    got = (here.home / "got").read_bytes()
    assert got.startswith(f"Return-Path: <{ANN}>\nDelivered-To: {BOB}\n".encode())
    assert got.endswith(b"\nX-A: 1\n" + RAW)
    assert (here.home / "where").read_text().strip() == str(here.home.resolve())


def test_programs_one_after_the_other(here: Here) -> None:
    """`locked` lets one program of a name run at a time."""
    here.grant = GRANTS
    line = "cat >/dev/null; echo in >> trace; sleep 0.05; echo out >> trace"
    here.set(f'pipe to ["/bin/sh", "-c", "{line}"] locked "one"')
    with ThreadPoolExecutor(3) as pool:
        assert all(status.ok for status in pool.map(lambda _: here.send(), range(3)))
    assert (here.home / "trace").read_text() == "in\nout\n" * 3


def test_output_of_a_filter(both: Here) -> None:
    """Later tests and copies see what a filter gave; copies before have what came."""
    both.grant = GRANTS
    both.set(
        'also deliver to "before" filter through ["/bin/sed", "s/body/b\\u{f6}dy\\\\r/"]\n'
        'if body contains "b\\u{f6}dy" { also deliver to "after" } add header "X-A: 1"'
    )
    both.send(b"MIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\n" + RAW)
    [before], [after], [last] = both.mails("before"), both.mails("after"), both.mails()
    assert b"\n\nbody\n" in before
    assert "\n\nb\u00f6dy\r\n".encode() in after
    assert b"\nX-A: 1\n" in last
    assert "\n\nb\u00f6dy\r\n".encode() in last


def test_line_ends_of_a_filter(here: Here) -> None:
    """What a filter gives with CRLF, or with the first line of an mbox, is stored as all mail."""
    here.grant = GRANTS
    (here.home / "crlf").write_text("printf 'From x\\r\\n'; sed 's/$/\\r/'\n")
    here.set('filter through ["/bin/sh", "crlf"]')
    assert here.send().ok
    [raw] = here.mails()
    assert raw.endswith(b"\n" + RAW)
    assert b"\r" not in raw


# memory


def test_remembered(both: Here) -> None:
    """What a rule remembers, it knows the next time; the memory of the site is its own."""
    rule = 'if remembered "{from}" { also deliver to "known" } remember "{from}" for 7 days'
    both.set(rule, rule.replace("known", "site"))
    assert [both.send().ok for _ in range(2)] == [True, True]
    assert both.folders == {"INBOX": 2, "known": 1, "site": 1}
    both.send(to="bob+x@example.org")
    assert both.folders == {"INBOX": 3, "known": 2, "site": 2}  # a detail is no other user


def test_not_remembered_when_it_comes_again(here: Here) -> None:
    """A message that is put off is not remembered: it would be taken for another one."""
    here.hop = closed_hop()
    here.set('if remembered "x" { discard } remember "x" for 1 day also forward to "x@example.com"')
    assert here.send().code == 451
    with FakeMTA() as mta:
        here.hop = mta.hop
        here.close()
        assert here.send().ok
    assert here.folders == {"INBOX": 1}


@pytest.mark.parametrize("rules", ["", 'set header "Message-ID: <2@x>"', "filter"])
def test_duplicate(rules: str, here: Here) -> None:
    """The second delivery of a message knows of the first, whatever rules did to it."""
    here.grant = GRANTS
    change = 'filter through ["/bin/sed", "s/body/changed/"]' if rules == "filter" else rules
    here.set(f'{change} if duplicate {{ deliver to "again" }} {change}')
    for message_id in (b"<1@x>", b"<1@x>", b"<other@x>"):
        assert here.send(RAW.replace(b"<1@x>", message_id)).ok
    assert here.folders == {"INBOX": 2, "again": 1}


def test_details_are_one_user(here: Here) -> None:
    """What was here, by whatever detail, is known to the user; and the quarantine is one."""
    here.set('if duplicate { deliver to "again" } quarantine "why"')
    for recipient in ("bob+a@example.org", "bob+b@example.org", "BOB@Example.org"):
        assert here.send(to=recipient).ok
    assert here.folders == {"again": 2}
    assert [path.name for path in (here.root / "quarantine").iterdir()] == ["bob@example.org"]


def test_no_duplicate_of_what_was_put_off(here: Here) -> None:
    """A message that was not delivered is no duplicate when it comes again."""
    here.grant = GRANTS
    here.set('if duplicate { discard } pipe to ["/bin/sh", "-c", "test -e ok || exit 75"]')
    assert here.send().code == 451
    (here.home / "ok").touch()
    assert here.send().text.endswith("Taken by a program")
    assert here.send().text.endswith("Discarded")


def test_folder_exists(both: Here) -> None:
    """A rule asks whether a folder is there; what can be none is not."""
    name = "a/" * 20
    both.set(
        f'set x = "{name}" if folder "{{x}}" exists {{ discard }}\n'
        'if folder "{from.user}" exists { deliver to "{from.user}" }'
    )
    both.send()
    store = 'also deliver to "ann"'
    both.set(store)
    both.send()
    both.set('if folder "{from.user}" exists { deliver to "{from.user}" }')
    both.send()
    assert both.folders == {"INBOX": 2, "ann": 2}


def test_folder_that_cannot_be_looked_at(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the disk does not tell whether a folder is there, the mail can wait."""
    here.set('if not folder "a" exists { discard }')
    here.send()
    real = os.lstat

    def lstat(path: Any, **more: Any) -> os.stat_result:
        if str(path).endswith("/.a"):
            raise OSError(5, "Input/output error")
        return real(path, **more)

    monkeypatch.setattr(os, "lstat", lstat)
    assert here.send().code == 451


def test_what_rules_log(here: Here) -> None:
    """The words of a rule are in the log, with their place, on one line."""
    here.set('rule "x" {\n  log "{subject}\\nforged: line"\n}')
    here.send()
    assert f"<{BOB}>: rules:2: hello forged: line" in here.said


@pytest.mark.parametrize("when", ["before", "after the plan"])
def test_store_away(when: str, both: Here) -> None:
    """Without the store all mail is delivered; what needs the store is left out."""
    asked = 'if duplicate { discard } if remembered "x" { discard } reply "Gone"'
    with FakeMTA() as mta:
        both.hop = mta.hop
        both.set(f'{asked} also deliver to "a" remember "y" for 1 day')
        both.site  # noqa: B018  # the key of the site is there
        both.close()

        def spoil() -> bool:
            for file in both.root.glob("state/state.sqlite*"):
                file.unlink()
            (both.root / "state/state.sqlite").mkdir()
            close(both.site)
            return True

        if when == "before":
            spoil()
            status = both.send()
        else:
            envelope = Envelope(ANN, BOB)
            status = pipeline.deliver_message(both.site, Message(RAW), envelope, spoil)
    assert status.ok
    assert both.folders == {"a": 1, "INBOX": 1}
    assert mta.taken == []
    assert "traceback" not in str(both.log)


# what comes back


def test_loop(here: Here) -> None:
    """What was here for this recipient is refused, once and for all; for another one it is not."""
    with FakeMTA() as mta:
        here.hop = mta.hop
        here.set('forward to "x@example.com"')
        here.send()
        back = b"Received: from x by y; now\n" + on_the_wire(mta)
        (here.home.parent / "eve").mkdir()
        assert here.send(back, to="eve@example.org").ok
        assert str(here.send(back)) == "554 5.4.6 Mail loop detected"
    assert (here.entry["status"], here.entry["reason"]) == ("rejected", "Mail loop detected")
    assert len(mta.taken) == 1
    assert here.folders == {}


def test_too_many_hops(here: Here) -> None:
    """More than 50 Received fields are a loop, whoever made it."""
    for count, code in ((50, 250), (51, 554)):
        assert here.send(b"Received: from x by y; now\n" * count + RAW).code == code
    assert here.folders == {"INBOX": 1}


def test_forged_proof(here: Here) -> None:
    """A proof that somebody made up, or has seen in another mail, changes nothing, and is not
    stored."""
    here.set()
    guessed = (loop.proof(key, BOB, Message(RAW)) for key in (b"another key", b""))
    copied = loop.proof(here.site.key, BOB, Message(RAW + b"of another mail\n"))
    for forged in ("0" * 32, *guessed, copied):
        assert here.send(f"X-mdaflow-Loop: {forged}\n".encode() + RAW).ok
    assert here.folders == {"INBOX": 4}
    assert not [raw for raw in here.mails() if b"Loop" in raw]


def test_proof_of_another_process(here: Here) -> None:
    """All processes of a site have one key, over restarts."""
    keys = {here.site.key}
    for _ in range(2):
        here.close()
        keys.add(here.site.key)
    [key] = keys
    assert len(key) == 32
    assert (here.root / "state/key").stat().st_mode & 0o777 == 0o600


def test_key_is_made_once(tmp_path: Path) -> None:
    """Processes that start at the same time agree on one key, and leave nothing else."""
    start = threading.Barrier(8)

    def key(_: int) -> bytes:
        start.wait(30)
        return build._key(str(tmp_path / "state"))

    with ThreadPoolExecutor(8) as pool:
        [found] = set(pool.map(key, range(8)))
    assert len(found) == 32
    assert os.listdir(tmp_path / "state") == ["key"]


def test_no_key(here: Here) -> None:
    """Without a key mail flows, the log says so, and only the hops are counted."""
    (here.root / "state/key").mkdir(parents=True)
    with FakeMTA() as mta:
        here.hop = mta.hop
        here.set('also forward to "x@example.com"')
        assert here.send().ok
    assert b"Loop" not in on_the_wire(mta)
    assert any("mail loops are found by their length only" in said for said in here.said)
    assert here.send(b"Received: from x by y; now\n" * 51 + RAW).code == 554


# quarantine


def test_quarantine(both: Here) -> None:
    """The message and its envelope are in the quarantine, and nowhere else."""
    both.set('rule "Odd" { quarantine "it is odd" }')
    assert both.send().ok
    place = both.root / "quarantine" / BOB
    [message] = place.glob("new/*")
    [note] = place.glob("envelopes/*.json")
    assert message.read_bytes().endswith(b"\n" + RAW)
    about = json.loads(note.read_bytes())
    assert (about["sender"], about["recipient"], about["why"]) == (ANN, BOB, "it is odd")
    assert both.folders == {}


def test_no_quarantine(both: Here) -> None:
    """When the quarantine is not there, perhaps not mounted, the mail can wait."""
    (both.root / "quarantine").rmdir()
    both.set('also deliver to "a" quarantine')
    assert both.send().code == 451
    assert both.folders == {}
    (both.root / "quarantine").mkdir()
    assert both.send().ok
    assert both.folders == {"a": 1}


# powers


DENIED = {
    "forward": 'forward to "x@example.com"',
    "reply": 'reply "x"',
    "notify": 'notify "x@example.com" "x"',
    "quarantine": "quarantine",
    "discard": "discard",
    "remember": 'remember "x" for 1 day',
    "log": 'log "x"',
}
NOT_GRANTED = {
    "reject": 'reject "x"',
    "defer": 'defer "x"',
    "pipe": 'pipe to ["/bin/cat"]',
    "filter": 'filter through ["/bin/cat"]',
    "command": 'if command ["/bin/true"] succeeds { discard }',
    "learn": "learn ham",
    "files": 'deliver to "mbox:/x/y"',
}


@pytest.mark.parametrize("power", [*DENIED, *NOT_GRANTED])
def test_powers_of_users(power: str, here: Here) -> None:
    """What a user may not do is an error at its place, and the mail is in the inbox."""
    here.deny = (power,) if power in DENIED else ()
    here.set(f"\n  {(DENIED | NOT_GRANTED)[power]}")
    assert here.send().ok
    assert here.folders == {"INBOX": 1, "notices": 1}
    [said] = [text for text in here.said if "is not allowed in these rules" in text]
    column = 6 if power == "command" else 14 if power == "files" else 3
    assert f"rules:2:{column}: '" in said
    assert f"rules:2:{column}: '" in (here.home / ".mdaflow/log").read_text()
