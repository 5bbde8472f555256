"""The mail that tells a user what is in the quarantine."""

from __future__ import annotations

import os
import quopri
import time
from dataclasses import replace

import pytest
from here import BOB, RAW, Here
from test_release import CAUGHT, VIRUS, all_held, let_go, quarantined

from mdaflow.app.decide import find_user
from mdaflow.app.digest import HOUR, LATE, MOST, digest
from mdaflow.errors import PermFail
from mdaflow.route.users import Account

DAY = 86_400.0
CONTACT = "help@example.org"


def tell(here: Here, hours: float = 0.0, since: float = -DAY, again: bool = True) -> int:
    """Write a digest some hours from now; `again`: the hour of the last one is over."""
    if again:
        here.site.answers.store.put(f"digest to {BOB}", "", 0.0)
    now = time.time()
    user = find_user(here.site, BOB)
    return digest(here.site, user, CONTACT, now + since, now + hours * HOUR)


def text(here: Here) -> str:
    """The text of the only digest; it is removed."""
    [path] = (here.home / "Maildir/new").glob("*")
    mail = path.read_bytes()
    path.unlink()
    return quopri.decodestring(mail.partition(b"\n\n")[2]).decode()


@pytest.fixture
def caught(here: Here) -> Here:
    """A site with a message in quarantine."""
    here.set(CAUGHT)
    quarantined(here)
    return here


def test_digest(caught: Here) -> None:
    """It names what is new, and what to do; no rule sees it."""
    caught.set("discard", before=CAUGHT)
    assert tell(caught) == 1
    said = text(caught)
    assert "  ann@example.com  [" in said
    assert "\n        hello\n        virus\n" in said
    assert f"{CONTACT} can let it out" in said
    assert "30 days" in said


def test_nothing_new(caught: Here) -> None:
    """There is no mail about nothing, and none about the same twice, also not about what came just
    before the last one."""
    assert tell(caught) == 1
    text(caught)
    assert [tell(caught, hours) for hours in (0.01, 1, 2, 48)] == [0, 0, 0, 0]
    quarantined(caught)
    assert tell(caught, 1) == 1
    assert "2025" not in text(caught)
    assert list((caught.home / "Maildir/new").glob("*")) == []


def test_once_an_hour(caught: Here) -> None:
    """What comes within an hour of the last one is in the next."""
    assert tell(caught) == 1
    quarantined(caught)
    quarantined(caught)
    text(caught)
    assert tell(caught, again=False) == 0
    assert tell(caught, 1) == 2


def test_written_before_and_seen_after(caught: Here) -> None:
    """What was written before a digest, and came to be seen after it, is in the next one."""
    assert tell(caught) == 1
    text(caught)
    quarantined(caught)
    newest = all_held(caught)[0]
    path = caught.root / "quarantine" / newest.folder / newest.part / newest.file
    before = time.time() - LATE / 2
    os.utime(path, (before, before))
    assert tell(caught, 1) == 1


def test_flags(caught: Here) -> None:
    """What a mail program has marked as seen is not new for that."""
    assert tell(caught) == 1
    text(caught)
    [each] = all_held(caught)
    folder = caught.root / "quarantine" / each.folder
    (folder / "new" / each.file).rename(folder / "cur" / f"{each.file}:2,S")
    assert tell(caught, 0.1) == 0


def test_first(caught: Here) -> None:
    """The first one goes back as far as it shall."""
    assert tell(caught, since=60) == 0
    assert tell(caught) == 1


def test_released(caught: Here) -> None:
    """What was released is not told of."""
    let_go(caught, all_held(caught)[0])
    text(caught)
    assert tell(caught) == 0


def test_many(here: Here) -> None:
    """However many there are, a digest has less than 200 lines."""
    here.set(CAUGHT)
    for _ in range(MOST + 5):
        quarantined(here)
    assert tell(here) == MOST + 5
    said = text(here)
    assert "    and 5 more\n" in said
    assert said.count("\n") < 200


def test_hostile_words(here: Here) -> None:
    """Words of senders are cut, and neither begin a line nor do anything to a reader."""
    subject = b"=?utf-8?q?=1B]0;x=07=0Arm_=E2=80=AE?=" + b"x" * 5000
    here.set(CAUGHT)
    quarantined(here, VIRUS + RAW.replace(b"hello", subject))
    assert tell(here) == 1
    said = text(here)
    assert said.replace("\n", "").isprintable()
    assert max(map(len, said.splitlines())) < 120
    assert not any(line.lstrip().startswith("rm") for line in said.splitlines())


@pytest.mark.parametrize("kept", ["x", "[]", "[1e999, []]", '["a", 1]', "[99999999999, []]", "{}"])
def test_store_that_holds_anything(caught: Here, kept: str) -> None:
    """What the store has is not believed; a time to come is none (P43, P45)."""
    caught.site.answers.store.put(f"digest of {BOB}", kept)
    assert tell(caught) == 1


def test_full_mailbox(caught: Here) -> None:
    """It has room in a mailbox that is full."""
    caught.quota = 10
    caught.close()
    assert tell(caught) == 1


def test_accounts(caught: Here) -> None:
    """Nobody writes to an account that we cannot become."""
    user = find_user(caught.site, BOB)
    user = replace(user, account=Account("bob", 12345, 12345, user.home))
    with pytest.raises(PermFail, match="call as root"):
        digest(caught.site, user, CONTACT, 0.0)
