"""What the configuration does about viruses and spam."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_clamd import OK, Connection, FakeClamd
from here import ANN, BOB, HEADER, RAW, Here

from mdaflow.app import scanners
from mdaflow.app.config import Clamd, Package, Rspamd, Spam, Virus
from mdaflow.app.decide import decide, stages_for
from mdaflow.app.guard import junk, tags, viruses
from mdaflow.app.inflight import TWO, InFlight, Strikes
from mdaflow.app.scanners import check
from mdaflow.app.scanning import Post
from mdaflow.app.spam import Own
from mdaflow.errors import ConfigError
from mdaflow.mail.envelope import Envelope
from mdaflow.mail.message import Message
from mdaflow.route.users import User
from mdaflow.scan import Hit, Report, Unscanned

FOUND = b"stream: Eicar-Test FOUND\n"


@pytest.fixture
def clamd(tmp_path: Path) -> Iterator[FakeClamd]:
    """A clamd that finds a virus in all that has the word EVIL."""

    def answer(connection: Connection) -> None:
        connection.line.sendall(FOUND if b"EVIL" in connection.take() else OK)

    with FakeClamd(tmp_path / "clamd", answer) as found:
        yield found


def scanned(here: Here, server: str, on_error: str = "defer", **virus: Any) -> None:
    """A configuration with clamd."""
    here.more = {
        "scanners": (Clamd((server,), timeout=5.0, on_error=on_error),),  # type: ignore[arg-type]
        "virus": Virus(**virus),
    }
    here.close()


def quarantined(here: Here) -> list[dict[str, Any]]:
    """The notes of what is in the quarantine."""
    notes = here.root.glob("quarantine/*/envelopes/*.json")
    assert len(list(here.root.glob("quarantine/*/new/*"))) == len(list(notes))
    return [json.loads(p.read_text()) for p in here.root.glob("quarantine/*/envelopes/*.json")]


def test_virus(here: Here, clamd: FakeClamd) -> None:
    """A virus goes to the quarantine and nowhere else, whatever rules say."""
    here.set(before='also deliver to "archive"', user='deliver to "mine"')
    scanned(here, clamd.address)
    status = here.send(RAW + b"EVIL\n")
    assert status.ok
    assert here.folders == {}
    [note] = quarantined(here)
    assert (note["why"], note["recipient"]) == ("virus Eicar-Test", BOB)
    assert here.entry["status"] == "quarantined"
    assert here.send().ok
    assert here.folders == {"archive": 1, "mine": 1}


def test_virus_is_left_to_rules(here: Here, clamd: FakeClamd) -> None:
    """With `found: nothing` rules say what becomes of a virus."""
    here.set(user='if virus.found { deliver to "{virus.name}" }')
    scanned(here, clamd.address, found="nothing")
    assert here.send(RAW + b"EVIL\n").ok
    assert here.folders == {"Eicar-Test": 1}


def test_clamd_is_down(here: Here) -> None:
    """By default mail waits for clamd, and nothing of it is stored."""
    here.set(before='also deliver to "archive"')
    scanned(here, f"unix:{here.root}/none")
    status = here.send()
    assert (status.code, status.enhanced) == (451, "4.7.1")
    assert str(here.root) not in status.text
    assert (here.folders, quarantined(here)) == ({}, [])
    assert any(line.startswith("clamd: not scanned after") for line in here.said)


def test_clamd_is_down_and_mail_is_delivered(here: Here) -> None:
    """It is delivered with a field that says so, and one that a sender has written is gone."""
    scanned(here, f"unix:{here.root}/none", "deliver-tagged")
    assert here.send(b"X-Virus-Status: Clean\nX-virus-status:\n clean\n" + RAW).ok
    [stored] = here.mails()
    fields = Message(stored).header("X-Virus-Status")
    assert len(fields) == 1
    assert fields == ["Not scanned (clamd)"]  # why is in the log: it names places of ours
    here.set(user='if virus.unscanned and not virus.found { deliver to "unscanned" }')
    assert here.send().ok
    assert here.folders == {"INBOX": 1, "unscanned": 1}


def test_clamd_is_down_and_mail_is_kept_back(here: Here) -> None:
    """It goes to the quarantine with a note of why."""
    scanned(here, f"unix:{here.root}/none", "quarantine")
    assert here.send().ok
    assert here.folders == {}
    [note] = quarantined(here)
    assert note["why"].startswith("not scanned: clamd: ")


@pytest.mark.parametrize(("body", "said"), [(b"x", "Clean"), (b"EVIL", "Infected (Eicar-Test)")])
def test_virus_tag(here: Here, clamd: FakeClamd, body: bytes, said: str) -> None:
    """On request each message says what was found, and what a sender has written is gone."""
    scanned(here, clamd.address, found="nothing", tag=True)
    assert here.send(b"X-Virus-Status: ours\n" + RAW + body).ok
    [stored] = here.mails()
    assert Message(stored).header("X-Virus-Status") == [said]
    assert Message(stored).raw_body == b"body\n" + body


def test_poison(here: Here, clamd: FakeClamd) -> None:
    """A message that has stopped two workers is still looked at by clamd, and kept back: what else
    readers could see in it nobody has looked at."""
    strikes = Strikes()
    scanned(here, clamd.address)
    for raw in (RAW, RAW + b"EVIL\n"):
        for _ in range(TWO):
            table = InFlight(1, Strikes())
            with table.noted(Message(raw), Envelope(ANN, BOB, received=1.8e9)):
                marks = table.marks
            strikes.add(marks)
    here._site = replace(here.site, inflight=InFlight(1, strikes))
    assert here.send().ok
    assert here.send(RAW + b"EVIL\n").ok
    assert set(here.folders) <= {"notices"}
    assert sorted(note["why"] for note in quarantined(here)) == [
        "not scanned: clamd: it has stopped mdaflow twice",
        "virus Eicar-Test",
    ]


class Spammy:
    """A scanner for spam, that says what it is told to."""

    def __init__(self, says: Report | Exception, name: str = "fake") -> None:
        self.says = says
        self.name = name

    def scan(self, message: Message, envelope: Envelope, seconds: float) -> Report:
        if isinstance(self.says, Exception):
            raise self.says
        return self.says


SPAM = Report(hits=(Hit("BAD", 7.5, "bad words"), Hit("GOOD", -1.0)), findings={"fake.x": ("7",)})


Spammed = Callable[..., None]


@pytest.fixture
def spammy(here: Here, monkeypatch: pytest.MonkeyPatch) -> Spammed:
    """Makes a configuration with a scanner for spam."""

    def configure(says: Report | Exception = SPAM, on_error: str = "defer", **spam: Any) -> None:
        said = Package("fake", looks_for=("spam",), on_error=on_error)  # type: ignore[arg-type]
        post = Post(Spammy(says), frozenset(("spam",)), 5.0, on_error)
        quiet = Post(Spammy(Report(), "spam"), frozenset(("spam",)), 5.0, "deliver-tagged")
        monkeypatch.setitem(scanners._OPEN, Package, lambda name, said, config: post)
        monkeypatch.setattr(Own, "post", lambda self: quiet)
        here.more = {"scanners": (said,), "spam": Spam(**spam)}
        here.close()

    return configure


def test_spam_folder(here: Here, spammy: Spammed) -> None:
    """Spam that rules have left to the inbox goes to its folder; what they have sorted does not."""
    here.set(user='if subject is "mine" { deliver to "mine" }')
    spammy(folder='Ju"nk{x}')
    assert here.send().ok
    assert here.send(RAW.replace(b"hello", b"mine")).ok
    assert here.folders == {'Ju"nk{x}': 1, "mine": 1}
    [stored] = here.mails('Ju"nk{x}')
    assert Message(stored).header("X-Spam-Flag") == ["YES"]  # learned from no more


def test_spam_of_who_is_allowed(here: Here, spammy: Spammed) -> None:
    """Who is on the list of the user is never spam."""
    spammy(folder="Junk")
    (here.home / ".mdaflow/allow").write_text(ANN)
    assert here.send().ok
    assert here.folders == {"INBOX": 1}


def test_spam_required(here: Here, spammy: Spammed) -> None:
    """How much is spam, the site says; and for each user, who may say it too."""
    spammy(folder="Junk", required=6.6)
    assert here.send().ok
    spammy(folder="Junk", required=6.5)
    assert here.send().ok
    assert here.folders == {"INBOX": 1, "Junk": 1}
    user = User(BOB, str(here.home), "maildir:Maildir", spam_required=7.0)
    here.set(user='if spam { deliver to "spam" } if spam.status contains "required=7.0" { stop }')
    programs = stages_for(here.site, user)
    plan = decide(here.site, programs, Message(RAW), Envelope(ANN, BOB), user=user, trace=True)
    assert plan.implicit_keep
    assert [event.result for event in plan.trace if event.kind == "test"] == [False, True, False]


def test_spam_tags(here: Here, spammy: Spammed) -> None:
    """Fields on request; those of their names that a sender has written are gone, others stay."""
    spammy(tags=("X-Spam-Flag", "X-Spam-Score", "X-Spam-Status"), subject="[SPAM]")
    forged = b"X-Spam-Score: -99\nX-Spam-Flag: NO\nX-Spam-Report: mine\n"
    assert here.send(forged + RAW.replace(b"hello", b"=?iso-8859-1?q?caf=E9?=")).ok
    [stored] = here.mails()
    message = Message(stored)
    assert message.header("X-Spam-Flag") == ["YES"]
    assert message.header("X-Spam-Score") == ["6.5"]
    assert message.header("X-Spam-Status") == ["Yes, score=6.5 required=5.0 tests=BAD,GOOD"]
    assert message.header("X-Spam-Report") == ["mine"]
    assert b"\nSubject: [SPAM] =?iso-8859-1?q?caf=E9?=\n" in stored


def test_tags_stand_on_top(here: Here, spammy: Spammed) -> None:
    """Fields are above those of the sender, who may have put a line there that ends a header."""
    spammy(tags=("X-Spam-Flag",))
    assert here.send(b"A: b\nno field\nX-Spam-Flag: NO\n" + RAW).ok
    [stored] = here.mails()
    assert stored.count(b"X-Spam-Flag") == 1
    assert stored.index(b"\nX-Spam-Flag: YES\n") < stored.index(b"\nA: b\n")


def test_no_spam_tags(here: Here, spammy: Spammed) -> None:
    """What is no spam has its subject as it was."""
    spammy(Report(), tags=("X-Spam-Flag",), subject="[SPAM]")
    assert here.send(b"X-Spam-Flag: YES\n" + RAW).ok
    [stored] = here.mails()
    assert Message(stored).header("X-Spam-Flag") == ["NO"]
    assert b"\nSubject: hello\n" in stored


def test_spam_is_not_known(here: Here, spammy: Spammed) -> None:
    """A scanner that is down puts mail off, is told of in a field, or sends to the quarantine."""
    spammy(Unscanned("slow"), folder="Junk")
    assert str(here.send()).startswith("451 4.7.1 ")
    spammy(Unscanned("slow"), "deliver-tagged", folder="Junk")
    assert here.send(b"X-Spam-Status: No\n" + RAW).ok
    [stored] = here.mails()
    assert Message(stored).header("X-Spam-Status") == [
        "No, score=0.0 required=5.0 tests=none (not scanned: fake)"
    ]
    spammy(Unscanned("slow"), "quarantine")
    assert here.send().ok
    assert [note["why"] for note in quarantined(here)] == ["not scanned: fake: slow"]


def test_finding(here: Here, spammy: Spammed) -> None:
    """What a scanner has found besides can be asked for by its name."""
    spammy()
    here.set(user='if finding "fake.x" > 6 and not finding "other.x" exists { deliver to "found" }')
    assert here.send().ok
    assert here.folders == {"found": 1}


def test_nothing_is_asked_that_nobody_needs(here: Here, spammy: Spammed) -> None:
    """Scanners look only if something depends on it."""
    spammy(Unscanned("down"))
    assert here.send().ok
    here.more = {}
    here.close()
    assert [viruses(here.site.config), tags(here.site.config), junk(here.site.config)] == [None] * 3


def test_traces_show_it(here: Here, clamd: FakeClamd) -> None:
    """What the configuration does stands in the trace like any rule."""
    scanned(here, clamd.address)
    user = User(BOB, str(here.home), "maildir:Maildir")
    message = Message(HEADER.encode() + b"\nEVIL\n")
    programs = stages_for(here.site, user)
    plan = decide(here.site, programs, message, Envelope(ANN, BOB), user=user, trace=True)
    assert [f"{event.span.short} {event.text}" for event in plan.trace] == [
        'mdaflow.yaml:1 rule "virus" when virus.found',
        "mdaflow.yaml:1 virus.found",
        'mdaflow.yaml:1 quarantine "virus Eicar-Test"',
    ]


def test_several_of_a_kind(here: Here, clamd: FakeClamd) -> None:
    """Each of several scanners is asked, and has a name of its own; one of a package has no other's
    name."""
    with FakeClamd(here.root / "second", OK) as second:
        both = (Clamd((second.address,)), Clamd((clamd.address,)))
        here.more = {"scanners": both}
        here.close()
        assert [post.name for post in here.site.answers.scanning.posts] == [
            *("spam", "clamd", "clamd2")
        ]
        assert here.send(RAW + b"EVIL\n").ok
        assert len(second.connections) == len(clamd.connections) == 1
        assert len(quarantined(here)) == 1
    for name in ("spam", "clamd"):
        here.more = {"scanners": (both[0], Package(name))}
        here.close()
        with pytest.raises(ConfigError, match=f"there is another scanner '{name}'"):
            _ = here.site


def test_scanner_that_cannot_be_had(here: Here) -> None:
    """A scanner whose password the caller may not read counts as one that cannot say; a server
    does not start with it."""
    said = Rspamd(("unix:/none",), password=f"{here.root}/none")
    here.more = {"scanners": (said,)}
    here.close()
    assert here.send().ok
    [stored] = here.mails()
    assert Message(stored).header("X-Spam-Status")[0].endswith(" (not scanned: rspamd)")
    assert any("password: " in line for line in here.said)
    with pytest.raises(ConfigError, match="No such file"):
        check(here.site.config)
