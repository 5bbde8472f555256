"""Known senders: to whom has a user written?"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from spams import maildir, put

from mdaflow.mail.message import Message
from mdaflow.scan import index as indexes
from mdaflow.scan.index import Index
from mdaflow.scan.letters import Folder
from mdaflow.scan.senders import MAX_ADDRESSES, is_known, sent_index

SENT = b"From: bob@example.org\nTo: Ann <ann@example.com>\nCc: Carol@Example.NET\n\nhello\n"
HEADER = "Authentication-Results: mx.example.org; dmarc={}\n"


@pytest.fixture(autouse=True)
def _settled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexes, "FRESH", 0.0)


def open_index(tmp_path: Path, most: int = 1000) -> Index:
    folder = Folder(str(tmp_path), ("Sent",))
    index = sent_index(f"{tmp_path}/state/senders", [folder], most=most, pause=0.0)
    while not index.refresh(10.0):
        pass
    return index


def known(index: Index, *authors: str, result: str = "", own: str = "bob@example.org") -> bool:
    header = HEADER.format(result) if result else ""
    message = Message(f"{header}From: {', '.join(authors)}\n\nhi\n".encode())
    return is_known(message, index, [own], ["mx.example.org"])


def test_who_was_written_to(tmp_path: Path) -> None:
    """Who stands in To, Cc or Bcc of what the user sent is known, and nobody else."""
    sent = maildir(tmp_path / "Sent", SENT)
    index = open_index(tmp_path)
    assert known(index, "Ann Other <ANN@example.com>")
    assert known(index, "carol@example.net")
    assert not known(index, "dave@example.com")
    put(sent, b"Bcc: =?utf-8?q?D=C3=A4ve?= <dave@example.com>\n\n")
    assert known(open_index(tmp_path), "dave@example.com")


def test_mbox(tmp_path: Path) -> None:
    """Sent mail may be in an mbox."""
    date = b"From x Thu Jan  1 00:00:00 2026\n"
    (tmp_path / "Sent").write_bytes(date + SENT + b"\n" + date + b"To: eve@example.com\n\n\n")
    index = open_index(tmp_path)
    assert known(index, "ann@example.com")
    assert known(index, "eve@example.com")


def test_for_good(tmp_path: Path) -> None:
    """Who was written to stays known when the message is deleted."""
    sent = maildir(tmp_path / "Sent", SENT)
    open_index(tmp_path).close()
    next((sent / "new").iterdir()).unlink()
    assert known(open_index(tmp_path), "ann@example.com")


def test_at_most(tmp_path: Path) -> None:
    """Of too many messages the last ones count."""
    sent = maildir(tmp_path / "Sent")
    for number in range(6):
        path = put(sent, f"To: a{number}@example.com\n\n".encode())
        os.utime(path, (number, number))
    index = open_index(tmp_path, most=3)
    found = [known(index, f"a{number}@example.com") for number in range(6)]
    assert found == [False] * 3 + [True] * 3


def test_mass_mailing(tmp_path: Path) -> None:
    """Whom the user has sent to with a hundred others is not known for that."""
    many = ", ".join(f"a{n}@example.com" for n in range(MAX_ADDRESSES + 1))
    maildir(tmp_path / "Sent", f"To: {many}\n\n".encode())
    assert not known(open_index(tmp_path), "a1@example.com")


@pytest.mark.parametrize(
    ("result", "expected"), [("pass", True), ("none", True), ("fail", False), ("fail (x)", False)]
)
def test_dmarc(result: str, expected: bool, tmp_path: Path) -> None:
    """Who fails DMARC at our own MTA is not who he says."""
    maildir(tmp_path / "Sent", SENT)
    assert known(open_index(tmp_path), "ann@example.com", result=result) is expected


def test_forged(tmp_path: Path) -> None:
    """Neither one's own address nor a friend beside a stranger makes a sender known."""
    maildir(tmp_path / "Sent", SENT, b"To: bob@example.org\n\n")
    index = open_index(tmp_path)
    assert known(index, "ann@example.com", "carol@example.net")
    assert not known(index, "ann@example.com", "mallory@example.com")
    assert not known(index, "BOB@example.org")
    assert not known(index)
    assert not known(index, "Ann")


def test_no_address_is_kept(tmp_path: Path) -> None:
    """Nobody can read from the index to whom a user has written."""
    maildir(tmp_path / "Sent", SENT)
    open_index(tmp_path).close()
    assert b"example" not in (tmp_path / "state/senders").read_bytes()


@given(st.binary(max_size=500))
def test_any_bytes(raw: bytes) -> None:
    """Any bytes are a message from somebody who is known or not."""
    index = sent_index("/nowhere/senders", [])
    assert not is_known(Message(b"From: " + raw), index)
    assert not is_known(Message(raw), index, ["x"], ["x"])
