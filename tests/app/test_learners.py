"""Who learns what: the rules of the site, those of a user, and where it is kept."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from here import RAW, Here
from redis_server import RedisServer

from mdaflow.app.config import Config
from mdaflow.app.learn import learners, own_counts, own_marks, site_counts
from mdaflow.deliver.job import Job, Means
from mdaflow.deliver.mailbox import parse_mailbox
from mdaflow.mail.envelope import Envelope
from mdaflow.mail.message import Message
from mdaflow.scan.tokens import keys

MAIL = Message(b"From: a@b\nSubject: x\n\nhello\n")


def job(home: Path) -> Job:
    mailbox = parse_mailbox("maildir:Maildir", str(home))
    return Job(MAIL, Envelope("", "bob@example.org"), mailbox, "1", Means())


def test_rules(tmp_path: Path) -> None:
    """Rules of the site teach the site, those of a user that user; the last word counts."""
    config = Config(state=str(tmp_path / "state"))
    home = tmp_path / "home"
    home.mkdir()
    known = learners(config)
    known["spam"](job(home), MAIL, "site")
    known["spam"](job(home), MAIL, "user")
    known["ham"](job(home), MAIL, "user")
    assert site_counts(config).totals() == (1, 0)
    assert own_counts(str(home)).totals() == (0, 1)
    assert (home / ".mdaflow/bayes.sqlite").stat().st_mode & 0o777 == 0o600
    assert (home / ".mdaflow").stat().st_mode & 0o777 == 0o700


def test_to_ask_makes_nothing(tmp_path: Path) -> None:
    """Who only asks what a user has learned leaves nothing in the home."""
    assert own_counts(str(tmp_path)).totals() == (0, 0)
    assert own_counts(str(tmp_path)).get([1]) == {}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("open_own", [own_counts, own_marks])
def test_hostile_home(tmp_path: Path, open_own: object) -> None:
    """A home that is not there is not made; a folder that is a link or a file is not used."""
    assert callable(open_own)
    with pytest.raises(FileNotFoundError):
        open_own(str(tmp_path / "none"))
    link, plain = tmp_path / "link", tmp_path / "plain"
    for home in (link, plain):
        home.mkdir()
    (link / ".mdaflow").symlink_to(tmp_path)
    (plain / ".mdaflow").touch()
    for home in (link, plain):
        with pytest.raises(OSError, match="no folder of ours"):
            open_own(str(home))


def test_folder_of_somebody_else(tmp_path: Path) -> None:
    """What belongs to somebody else is not used."""
    if os.geteuid() != 0:
        pytest.skip("only root can give a folder away")
    (tmp_path / ".mdaflow").mkdir()
    os.chown(tmp_path / ".mdaflow", 65534, 65534)
    with pytest.raises(OSError, match="no folder of ours"):
        own_counts(str(tmp_path))


@pytest.mark.parametrize("spam", ["NULL", "-30", "0"])
def test_counts_that_are_none(here: Here, spam: str) -> None:
    """Counts of a user that cannot be say nothing, and stop no mail."""
    lessons = [(b"%d" % n, n % 2 == 0, keys(Message(RAW))) for n in range(60)]
    with closing(own_counts(str(here.home))) as counts:
        counts.learn(lessons)
    with closing(sqlite3.connect(here.home / ".mdaflow/bayes.sqlite")) as db:
        more = f"UPDATE tokens SET spam = {spam}, ham = -1"
        db.executescript(f"{more}; UPDATE state SET spam = {spam}" if spam == "NULL" else more)
    here.set('rule when spam.score > 3 { deliver to "spam" }')
    assert here.send().ok


def test_redis(tmp_path: Path) -> None:
    """Where there is a store for all machines, what the site learns is there."""
    with RedisServer() as server:
        config = Config(state=str(tmp_path / "state"), store=f"{server.address}?site=here")
        learners(config)["spam"](job(tmp_path), MAIL, "site")
        assert site_counts(config).totals() == (1, 0)
        assert sorted(server.say("KEYS", "*")) == [
            *(b"here:names site", b"here:tokens site", b"here:totals site"),
        ]
    assert not (tmp_path / "state").exists()
