"""Our own tests of spam, with all that a site and its users know."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import Any

import pytest
from here import ANN, BOB, RAW, Here

from mdaflow.app.config import Dns, Spam
from mdaflow.app.learn import own_counts, site_counts
from mdaflow.app.lists import ListFiles
from mdaflow.app.spam import Entries
from mdaflow.engine.context import Fact
from mdaflow.errors import ConfigError
from mdaflow.mail.envelope import Client, Envelope
from mdaflow.mail.message import Message
from mdaflow.route.users import User
from mdaflow.scan.bayes import ENOUGH, lesson

WORDS = (
    "the quick brown fox jumps over the lazy dog while seven wise owls watch from an old oak tree "
    "and somebody counts leaves"
)
_count = count()
LETTER = Message(RAW + f"{WORDS}\n".encode())
CLIENT = Envelope(ANN, BOB, client=Client("192.0.2.1", "mail.example.com", "mail.example.com"))


def ask(here: Here, name: str, message: Message = LETTER) -> Any:
    """The answer to a fact about bob's mail, which nobody has scanned before."""
    message = Message(b"X-Count: %d\n%s" % (next(_count), message.raw))
    user = User(BOB, str(here.home), "maildir:Maildir")
    asking = here.site.answers.about(user, really=True, message=message)
    return asking(Fact(name, message, CLIENT))


def hits(here: Here, message: Message = LETTER) -> list[str]:
    """The tests that bob's mail meets."""
    return [str(name) for name in ask(here, "spam.symbols", message)]


def told(here: Here, **spam: Any) -> None:
    """A configuration that says this of spam."""
    here.more = {"spam": Spam(**spam)}
    here.close()


def teach(counts: Any, spam: str, ham: str) -> None:
    """Enough messages of each class."""
    for n in range(ENOUGH):
        for text, is_spam in ((spam, True), (ham, False)):
            raw = f"From: x{n}@x\nSubject: {text} {n}\n\n{text} {n}\n"
            counts.learn([lesson(Message(raw.encode()), is_spam)])
    counts.close()


def test_lists(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of the site name bad senders and bad hosts, and are read again when they change."""
    monkeypatch.setattr("mdaflow.app.spam.LOOK", 0.0)
    names = ("LISTED_SENDER", "LISTED_HOST", "LISTED_LINK")
    listed = here.root / "listed"
    listed.write_text("nobody.example\n")
    told(here, bad_senders=(str(listed),), bad_hosts=(str(listed),), bad_links=(str(listed),))
    letter = Message(LETTER.raw[:] + b"https://www.shop.example/x\n")
    assert not set(names) & set(hits(here, letter))
    listed.write_text("Example.COM\nshop.example # bad\n")
    assert set(names) <= set(hits(here, letter))


def test_list_that_is_missing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What cannot be read has nothing in it, and the log says so."""
    assert "x" not in Entries([f"{tmp_path}/none"], ListFiles())
    assert f"{tmp_path}/none: No such file" in caplog.text


def test_weights(here: Here) -> None:
    """A site's file says what tests are worth; one that is wrong stops the start."""
    weights = here.root / "weights"
    weights.write_text("TO_MISSING: 7.5\n")
    told(here, tests=str(weights))
    nobody = Message(LETTER.raw.replace(f"To: {BOB}\n".encode(), b""))
    assert ask(here, "spam.score", nobody)[0] >= 7.5
    weights.write_text("TO_MISSING: 0\n")
    told(here, tests=str(weights))
    assert "TO_MISSING" not in hits(here, nobody)
    weights.write_text("TO_MISING: 0\n")
    told(here, tests=str(weights))
    with pytest.raises(ConfigError, match="did you mean 'TO_MISSING'"):
        _ = here.site


def test_learned(here: Here) -> None:
    """What the site has learned counts; what the user has learned counts instead, for that user."""
    assert ask(here, "spam.bayes") is None
    teach(site_counts(here.site.config), WORDS, "invoices of the tax office and other letters")
    told(here)
    assert ask(here, "spam.bayes")[0] > 0.9
    assert "BAYES_SPAM" in hits(here)
    teach(own_counts(str(here.home)), "invoices of the tax office and other letters", WORDS)
    told(here)
    assert ask(here, "spam.bayes")[0] < 0.1
    assert "BAYES_HAM" in hits(here)
    assert "BAYES_SPAM" not in hits(here)


def test_known_spam(here: Here) -> None:
    """What lies in a folder of known spam, or in the user's Junk, is known again, once."""
    known = here.root / "known"
    known.mkdir()
    assert "KNOWN_SPAM_EXACT" not in hits(here)
    (known / "1").write_bytes(LETTER.raw[:])
    told(here, known=(str(known),))
    assert hits(here).count("KNOWN_SPAM_EXACT") == 1
    told(here)
    here.set(user='deliver to "Junk"')
    assert "KNOWN_SPAM_EXACT" not in hits(here)
    assert here.send(LETTER.raw[:]).ok
    told(here)
    assert hits(here).count("KNOWN_SPAM_EXACT") == 1


def test_known_sender(here: Here) -> None:
    """To whom the user has written speaks against spam."""
    before = ask(here, "spam.score")[0]
    sent = here.home / "Maildir/.Sent/cur"
    sent.mkdir(parents=True)
    (sent / "1:2,S").write_text(f"From: {BOB}\nTo: {ANN}\n\nhello\n")
    told(here)
    assert ask(here, "known_sender") == [True]
    assert "KNOWN_SENDER" in hits(here)
    assert ask(here, "spam.score")[0] < before


def test_dns_is_off(here: Here) -> None:
    """Nobody is asked in the DNS unless the configuration names somebody."""
    assert here.site.answers.dns is None
    told(here, dns=Dns(clients={"zen.example.org": "CLIENT"}, nameservers=("127.0.0.1:1",)))
    assert here.site.answers.dns is not None
    assert not any(name.startswith("DNSBL") for name in hits(here))  # it does not answer


def test_no_home(here: Here) -> None:
    """What a home that is not there could tell is not known, and all else counts."""
    user = User(BOB, f"{here.root}/none", "maildir:Maildir")
    asking = here.site.answers.about(user, really=True, message=LETTER)
    assert asking(Fact("spam.score", LETTER, CLIENT)) == ask(here, "spam.score")
    assert not (here.root / "none").exists()
