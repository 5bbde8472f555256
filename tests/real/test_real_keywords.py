"""Keywords and expiry beside Dovecot: what its users see, and what they do meanwhile."""

from __future__ import annotations

import imaplib
import os
import shutil
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from dovecot import Dovecot, Mail
from mdaflow_server import MAILDIRS, MBOXES, give_away, new_root, nobody
from need import need

from mdaflow import Mailbox, deliver, parse_mailbox
from mdaflow.deliver.expire import expire

SPECS = {MAILDIRS: "maildir:Maildir", MBOXES: "mbox:mail"}
DAY = 86400.0


@pytest.fixture(scope="module")
def server() -> Iterator[Dovecot]:
    """A Dovecot without the others."""
    if os.geteuid() != 0:
        pytest.skip("needs root: Dovecot does")
    for program in ("dovecot", "imap", "pop3"):
        need(program)
    root = new_root()
    dovecot = Dovecot(root)
    try:
        dovecot.start()
        yield dovecot
    finally:
        dovecot.stop()
        shutil.rmtree(root)


class Home:
    """A user, the mailbox as we see it and as Dovecot does."""

    def __init__(self, server: Dovecot, name: str, domain: str) -> None:
        self.address = f"{name}@{domain}"
        self.server = server
        path = server.root / domain / domain / name
        path.mkdir(parents=True)
        give_away(path)
        self.box: Mailbox = parse_mailbox(SPECS[domain], str(path))

    def store(self, flags: Collection[str], folder: str = "", expire: float | None = None) -> None:
        now = time.time()
        with nobody():
            raw = [b"Subject: x\n\nText\n"]
            deliver.prepare(self.box, folder, raw, flags, "", now, expire).commit()

    def fetch(self, folder: str = "INBOX") -> list[Mail]:
        return self.server.fetch(self.address, folder)

    def flags(self, folder: str = "INBOX") -> list[set[str]]:
        """The flags of all messages, as IMAP shows them."""
        return [mail.flags for mail in self.fetch(folder)]

    @contextmanager
    def session(self) -> Iterator[imaplib.IMAP4]:
        """A mail reader that has its inbox open."""
        with self.server.session(self.address) as client:
            assert client.select()[0] == "OK"
            yield client


@pytest.fixture(params=[MAILDIRS, MBOXES])
def home(server: Dovecot, request: pytest.FixtureRequest) -> Home:
    """A user nobody has met before."""
    return Home(server, f"user{len(list(server.root.glob('*/*/*')))}", request.param)


@pytest.fixture
def maildir(server: Dovecot) -> Home:
    """One with a Maildir."""
    return Home(server, f"user{len(list(server.root.glob('*/*/*')))}", MAILDIRS)


def kept_flags(client: imaplib.IMAP4) -> list[set[str]]:
    """The flags of all messages of the open folder."""
    client.noop()
    lines = client.fetch("1:*", "(FLAGS)")[1]
    return [
        {flag.decode() for flag in imaplib.ParseFlags(line)} - {"\\Recent"}
        for line in lines
        if isinstance(line, bytes)
    ]


def test_keyword_is_shown(home: Home) -> None:
    """Keywords and system flags of the first and of a later message are what IMAP shows."""
    home.store({"invoice", "\\Seen"})
    assert home.flags() == [{"invoice", "\\Seen"}]
    home.store({"$Forwarded", "Invoice"})
    home.store({"\\Flagged"})
    home.store({"a", "b"}, "Board")
    assert home.flags() == [{"invoice", "\\Seen"}, {"$Forwarded", "invoice"}, {"\\Flagged"}]
    assert home.flags("Board") == [{"a", "b"}]


def test_folder_without_keywords_gets_one(home: Home) -> None:
    """A keyword that a folder has not met is shown as soon as Dovecot has seen the folder."""
    home.store(())
    assert home.flags() == [set()]
    home.store({"invoice"})
    assert home.flags() == [set(), {"invoice"}]


def test_keywords_of_readers_stay(home: Home) -> None:
    """Keywords that readers and we add in turn, with the folder open, keep their messages."""
    home.store({"ours"})
    with home.session() as client:
        assert client.store("1", "+FLAGS", "(theirs)")[0] == "OK"
        home.store({"THEIRS", "second"})
        assert kept_flags(client) == [{"ours", "theirs"}, {"theirs", "second"}]
        assert client.store("2", "+FLAGS", "(third)")[0] == "OK"
        home.store({"fourth", "third"})
        expected = [{"ours", "theirs"}, {"theirs", "second", "third"}, {"third", "fourth"}]
        assert kept_flags(client) == expected
    assert home.flags() == expected
    assert [mail.raw for mail in home.fetch()] == [b"Subject: x\r\n\r\nText\r\n"] * 3


def test_all_letters(maildir: Home) -> None:
    """The 26 keywords of a Maildir are shown; one more is left out."""
    words = [f"word{n:02}" for n in range(26)]
    for word in (*words, "more"):
        maildir.store({word})
    assert maildir.flags() == [*({word} for word in words), set()]


def test_expiry(maildir: Home) -> None:
    """What is over is gone for readers as well; what they flagged or moved stays."""
    for _ in range(4):
        maildir.store({"\\Seen", "week"}, expire=7 * DAY)
    maildir.store((), expire=30 * DAY)
    with maildir.session() as client:
        assert client.create("Kept")[0] == "OK"
        assert client.store("1", "+FLAGS", "(\\Flagged)")[0] == "OK"
        assert client.store("2", "-FLAGS", "(\\Seen)")[0] == "OK"
        assert client.uid("MOVE", "3", "Kept")[0] == "OK"
    with nobody():
        [counts] = expire(maildir.box, time.time() + 8 * DAY)
    assert counts == ("INBOX", 2, 1, 1, 1)
    assert maildir.flags() == [{"\\Seen", "\\Flagged", "week"}, set()]
    assert maildir.flags("Kept") == [{"\\Seen", "week"}]
    assert not list(Path(maildir.box.home).rglob("*.lock"))
