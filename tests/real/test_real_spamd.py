"""SpamAssassin itself: spamd of Debian, on a socket of its own, asking no network."""

from __future__ import annotations

import os
import pwd
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest
from need import need
from scanner_daemon import CLEAN, SPAM, Daemon, running

from mdaflow import Envelope, Message, Unscanned
from mdaflow.scan.spamd import Spamd

ENVELOPE = Envelope("ann@example.com", "bob@example.org")
LONG, SHORT = 60.0, 0.5


class Server(NamedTuple):
    """A spamd of these tests."""

    daemon: Daemon
    address: str
    log: Path


@pytest.fixture(scope="module")
def spamd() -> Iterator[Server]:
    """A spamd where bob has a preference of his own."""
    with tempfile.TemporaryDirectory(prefix="spamd") as name:  # a socket's path is short
        folder = Path(name)
        bob = folder / "users" / "bob@example.org"
        bob.mkdir(parents=True)
        (bob / "user_prefs").write_text("required_score 2000\n")
        folder.chmod(0o777)  # root's spamd works as nobody
        command = [
            *(need("spamd"), "--local", "--nouser-config", "--max-children=2", "--cf=use_bayes 0"),
            *(f"--socketpath={folder}/s", f"--syslog={folder}/log", f"--pidfile={folder}/pid"),
            *(f"--virtual-config-dir={folder}/users/%u", f"--helper-home-dir={folder}"),
            f"--username={pwd.getpwuid(os.geteuid()).pw_name if os.geteuid() else 'nobody'}",
        ]
        with running(command, folder) as daemon:
            log = folder / "log"
            daemon.wait_for(lambda: log.exists() and "spawned child" in log.read_text())
            yield Server(daemon, f"unix:{folder}/s", log)


def test_spam(spamd: Server) -> None:
    """The test message of all spam filters is spam, by the tests that SpamAssassin names."""
    report = Spamd([spamd.address]).scan(SPAM, ENVELOPE, LONG)
    assert report.hits[0].score > 500
    assert "GTUBE" in report.findings["spamd.tests"]
    assert report.findings["spamd.required"] == ("5.0",)
    assert not report.unscanned


def test_clean(spamd: Server) -> None:
    """A letter is none."""
    report = Spamd([spamd.address]).scan(CLEAN, ENVELOPE, LONG)
    assert report.hits[0].score < 5
    assert "GTUBE" not in report.findings["spamd.tests"]


@pytest.mark.parametrize(
    "raw", [b"", b"\n", b"no header", b"\0\xff\r\n" * 1000, b"A: b\n\n.\n..\n"]
)
def test_odd_messages(spamd: Server, raw: bytes) -> None:
    """Any bytes are a message to SpamAssassin, too."""
    assert Spamd([spamd.address]).scan(Message(raw), Envelope(), LONG).hits


def test_sender(spamd: Server) -> None:
    """SpamAssassin takes the sender from where we write it."""
    listed = Message(CLEAN.raw.replace(b"ann@example.com", b"listed@example.net", 1))
    own = Spamd([spamd.address])
    found = [
        own.scan(listed, Envelope(sender), LONG) for sender in ("listed@example.net", "x@y.zz")
    ]
    tests = [set(report.findings["spamd.tests"]) for report in found]
    assert "HEADER_FROM_DIFFERENT_DOMAINS" in tests[1] - tests[0]


def test_user(spamd: Server) -> None:
    """The preferences are those of the recipient, or of nobody."""
    report = Spamd([spamd.address], user="recipient").scan(SPAM, ENVELOPE, LONG)
    assert report.findings["spamd.required"] == ("2000.0",)
    assert 2 < report.hits[0].score < 3
    assert "for bob@example.org:" in spamd.log.read_text()
    other = Envelope("", "eve@example.org")
    report = Spamd([spamd.address], user="recipient").scan(SPAM, other, LONG)
    assert report.findings["spamd.required"] == ("5.0",)


def test_many_at_once(spamd: Server) -> None:
    """Many threads ask one scanner, and each has the answer to its own message."""
    scanner = Spamd([spamd.address])
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda m: scanner.scan(m, ENVELOPE, LONG), [SPAM, CLEAN] * 12))
    assert [report.hits[0].score > 500 for report in found] == [True, False] * 12


def test_frozen(spamd: Server) -> None:
    """A spamd that stands still leaves a message unscanned, in the time there is."""
    scanner = Spamd([spamd.address])
    spamd.daemon.freeze()
    try:
        with pytest.raises(Unscanned, match="timed out"):
            scanner.scan(SPAM, ENVELOPE, SHORT)
    finally:
        spamd.daemon.thaw()
    assert scanner.scan(SPAM, ENVELOPE, LONG).hits[0].score > 500
