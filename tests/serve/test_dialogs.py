"""LMTP conversations as text: tests/dialogs/*.lmtp.

# a comment
set NAME NUMBER     a limit of the server, as in the configuration's `lmtp`
C: text             the client sends a line, with CRLF
C| text             the client sends bytes as in a Python string (`\\0`, `\\n`), without CRLF
S: text             the server answers with exactly this line
S~ regex            the server answers with a line that matches as a whole
S.                  the server closes the connection
D: SENDER RECIPIENT text    at the end this was delivered, in any order; bytes as in `C|`
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from lmtpd import Client, running

from mdaflow.serve import wire

DIALOGS = sorted((Path(__file__).parent.parent / "dialogs").glob("*.lmtp"))
Steps = list[tuple[str, str]]


def read(path: Path) -> Steps:
    """The lines as (mark, text)."""
    steps = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        mark, _, text = line.partition(" ")
        known = mark in ("set", "C:", "C|", "S:", "S~", "S.", "D:", "#", "")
        assert known, f"{path.name}:{number}: {line}"
        steps.append((mark, text))
    return [step for step in steps if step[0] not in ("#", "")]


def raw(text: str) -> bytes:
    return text.encode().decode("unicode_escape").encode("latin-1")


def sent(mark: str, text: str) -> bytes:
    return {"C:": text.encode() + b"\r\n", "C|": raw(text) if mark == "C|" else b""}.get(mark, b"")


def expect(client: Client, mark: str, text: str) -> None:
    line = client.line()
    if mark == "S.":
        assert line == ""
    elif mark == "S~":
        assert re.fullmatch(text, line), (text, line)
    else:
        assert line == text


def play(client: Client, steps: Steps, *, at_once: bool) -> None:
    if at_once:
        client.send(b"".join(sent(*step) for step in steps))
    for mark, text in steps:
        if mark[0] == "C" and not at_once:
            client.send(sent(mark, text))
        elif mark[0] == "S":
            expect(client, mark, text)


@pytest.mark.parametrize("way", ["stepwise", "at once", "bytewise"])
@pytest.mark.parametrize("path", DIALOGS, ids=lambda path: path.stem)
def test_dialog(path: Path, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A conversation goes the same way whatever pieces the bytes come in."""
    if way == "bytewise":
        monkeypatch.setattr(wire, "CHUNK", 1)
    steps = read(path)
    limits = dict(text.split() for mark, text in steps if mark == "set")
    expected = [text.split(" ", 2) for mark, text in steps if mark == "D:"]
    with running(**{name: int(value) for name, value in limits.items()}) as server:
        with server.client() as client:
            play(client, steps, at_once=way != "stepwise")
        delivered = [(e.sender, e.recipient, body) for e, body in server.courier.delivered]
        assert sorted(delivered) == sorted(
            (sender.strip("<>"), recipient, raw(text)) for sender, recipient, text in expected
        )
