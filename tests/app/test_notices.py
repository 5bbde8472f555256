"""What users are told of their rules: a line each time, and a mail now and then."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from here import BOB, Here, close

from mdaflow.app import notices
from mdaflow.app.notices import Notices
from mdaflow.route.users import User
from mdaflow.store import clock

BROKEN = "deliver nowhere"
FAILING = 'list l from "l" rule when from in l { discard }'


def lines(here: Here) -> list[str]:
    """What a user finds in the log, without the times."""
    return [line[26:] for line in (here.home / ".mdaflow/log").read_text().splitlines()]


def notice(here: Here) -> Notices:
    return Notices(here.site, User(BOB, str(here.home), here.site.config.users[0].mailbox))


def test_rules_that_do_not_compile(both: Here) -> None:
    """A file that does not compile is told once: in the log, in ours, and by a mail."""
    both.set(BROKEN)
    for _ in range(3):
        both.send()
    [line] = lines(both)
    path = "~/.mdaflow/rules"
    assert line.startswith(f"{path}:1:9: unexpected 'nowhere'")
    assert line.endswith("; mail goes to the inbox")
    assert f"<{BOB}>: {line.replace('~', str(both.home), 1)}" in both.said
    assert both.folders == {"INBOX": 3, "notices": 1}
    [mail] = [raw for raw in both.mails() if b"(mail rules)" in raw]
    assert b"\nTo: bob@example.org\n" in mail
    assert b"Return-Path: <>\n" in mail
    assert b"unexpected 'nowhere'" in mail


def test_rules_that_fail(both: Here) -> None:
    """Rules that fail say so for each message in the log, and once a day by mail."""
    (both.home / ".mdaflow/l").write_text("")
    both.set(FAILING)
    both.send()
    (both.home / ".mdaflow/l").unlink()
    for _ in range(3):
        both.send()
    path = "~/.mdaflow"
    said = f"{path}/rules:1:27: the list {path}/l: No such file or directory; kept in the inbox"
    assert lines(both) == [said] * 3
    assert both.folders == {"INBOX": 4, "notices": 1}


def test_once_a_day(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mail comes once a day, from all processes together."""
    other = here.open()
    user = User(BOB, str(here.home), "maildir:Maildir")
    both = [Notices(site, user) for site in (here.site, other)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: both[n % 2].tell(f"{n}"), range(20)))
    assert here.folders == {"notices": 1}
    assert sorted(lines(here), key=int) == [str(n) for n in range(20)]
    later = clock.uptime() + notices.DAY + 1
    monkeypatch.setattr(clock, "uptime", lambda: later)
    both[1].tell("again")
    assert here.folders == {"notices": 2}
    close(other)


def test_other_users(here: Here) -> None:
    """One user's mistakes cost no other one his notice."""
    notice(here).tell("x")
    eve = here.home.with_name("eve")
    eve.mkdir()
    Notices(here.site, User("eve@example.org", str(eve), "maildir:Maildir")).tell("x")
    assert here.folders == {"notices": 1}
    assert len(list(eve.glob("Maildir/new/*"))) == 1  # though there is no folder for a log


def test_line(here: Here) -> None:
    """What is told is one line, with the time, of printable characters, and not too long."""
    notice(here).tell("a\nb\x1b[2J\u2028" + "x" * 5000)
    text = (here.home / ".mdaflow/log").read_text()
    assert text.count("\n") == 1
    stamp, said = text[:25], text[26:-1]
    assert time.strptime(stamp, "%Y-%m-%d %H:%M:%S %z")
    assert said.startswith("a b [2J xxx")
    assert len(said) == 1000
    assert said.isprintable()


def test_mode_of_the_log(here: Here) -> None:
    """The log is the user's alone."""
    notice(here).tell("x")
    about = (here.home / ".mdaflow/log").stat()
    assert stat.S_IMODE(about.st_mode) == 0o600


def test_full_log(here: Here) -> None:
    """A log that is full begins anew; one old one is kept."""
    log, old = here.home / ".mdaflow/log", here.home / ".mdaflow/log.old"
    log.write_bytes(b"x" * notices.MAX_LOG)
    old.write_text("older")
    notice(here).tell("first")
    assert lines(here) == ["first"]
    assert old.stat().st_size == notices.MAX_LOG


def test_full_log_that_stays(here: Here) -> None:
    """A log that cannot be moved away does not grow without end."""
    (here.home / ".mdaflow/log.old/x").mkdir(parents=True)
    log = here.home / ".mdaflow/log"
    log.write_bytes(b"x" * notices.MAX_LOG)
    notice(here).tell("first")
    assert log.stat().st_size == notices.MAX_LOG
    assert here.folders == {"notices": 1}


def hard_link(log: Path) -> None:
    (log.parent / "precious").write_text("precious")
    os.link(log.parent / "precious", log)


def symbolic_link(log: Path) -> None:
    (log.parent / "precious").write_text("precious")
    log.symlink_to("precious")


def fifo_with_a_reader(log: Path) -> None:
    os.mkfifo(log)
    READERS.append(os.open(log, os.O_RDONLY | os.O_NONBLOCK))


def linked_folder(log: Path) -> None:
    log.parent.rename(log.parent.with_name("precious"))
    log.parent.symlink_to("precious")


READERS: list[int] = []
ODD: list[Callable[[Path], object]] = [
    hard_link,
    symbolic_link,
    lambda log: log.symlink_to("/dev/full"),
    lambda log: log.symlink_to(log.name),
    os.mkfifo,
    fifo_with_a_reader,
    os.mkdir,
    lambda log: log.parent.rename(log.parent.with_name("gone")),
    linked_folder,
]


@pytest.mark.parametrize("make", ODD)
def test_odd_log(make: Callable[[Path], object], here: Here) -> None:
    """What is no plain file is not written to, and not waited for; the mail comes all the same."""
    make(here.home / ".mdaflow/log")
    notice(here).tell("x")
    while READERS:
        reader = READERS.pop()
        assert os.read(reader, 1) == b""
        os.close(reader)
    assert here.folders == {"notices": 1}
    assert [p.read_text() for p in here.home.rglob("precious") if p.is_file()] in (
        [],
        ["precious"],
    )
    assert not (here.home / "precious/log").exists()
    assert any("could not be told" in said for said in here.said)


@pytest.mark.parametrize("error", [OSError(28, "No space left"), ValueError("x"), TypeError("x")])
def test_nothing_fails(error: Exception, here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever goes wrong, a message that was delivered stays delivered."""
    here.set('list me = [] set x = "' + "a/" * 20 + '" deliver to "{x}"')
    here.send()

    def fail(*_: Any, **__: Any) -> Any:
        raise error

    monkeypatch.setattr(notices, "_open_log", fail)
    monkeypatch.setattr(notices, "prepare", fail)
    monkeypatch.setattr(here.site.answers.store, "add", lambda *_: True)
    before = here.folders["INBOX"]
    assert here.send().ok
    assert here.folders["INBOX"] == before + 1
    assert sum("could not be told" in said for said in here.said) == 2


def test_no_notice_without_the_store(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the store there is a line, and no mail: fewer, never more."""
    here.site.answers.store.get("x")

    def fail(*_: Any) -> bool:
        raise OSError("down")

    monkeypatch.setattr(here.site.answers.store, "add", fail)
    notice(here).tell("x")
    assert lines(here) == ["x"]
    assert here.folders == {}
