"""Mail that no standard allows: stored as it came, by LMTP and by `mdaflow deliver` (P14, P16)."""

from __future__ import annotations

import pytest
from mdaflow_server import Lmtp, Mdaflow, User

HEADER = b"From: a@example.com\r\nSubject: x\r\n"
BAD: dict[str, bytes] = {
    "empty": b"",
    "only line ends": b"\r\n\r\n\r\n",
    "no header": b"nothing but text\r\nand more: of it\r\n",
    "no body": HEADER,
    "colons without names": b": x\r\n:\r\n\r\nbody\r\n",
    "8-bit header": b"From: J\xfcrgen <a@b>\r\nSubject: \xff\xfe \xc3\xa9\r\n\r\n\x80\x81\r\n",
    "NUL": b"Subject: a\0b\r\n\0\r\n\r\n\0\0\0\r\nx\0\r\n",
    "bare CR and LF": HEADER + b"X: a\rb\nc\r\n\r\na\rb\nc\n.\nd\n\n\r\r\n.\r.\r\n",
    "long line": HEADER + b"\r\n" + b"x" * (1 << 20) + b"\r\nend\r\n",
    "long field": b"Subject: " + b"=?utf-8?q?=41?= " * 65_536 + b"\r\n\r\nbody\r\n",
    "many fields": b"".join(b"X-%d: %d\r\n" % (n, n) for n in range(10_000)) + b"\r\nbody\r\n",
    "truncated MIME": HEADER
    + b"MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n"
    + b"--b\r\nContent-Type: multipart/alternative; boundary=\r\n\r\n--\r\n"
    + b"--b\r\nContent-Transfer-Encoding: base64\r\nContent-Disposition: attachment\r\n\r\nAAA\r\n",
    "nested MIME": b"".join(
        b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (n, n) for n in range(500)
    ),
    "dots": HEADER + b"\r\n.\r\n..\r\n...\r\n.x\r\n",
}
RULES = 'rule when body contains "nowhere" or attachment.extension is "exe" { discard }\n'
"""They make mdaflow look at all of a message."""


def stored(user: User) -> bytes:
    """The only message of a user, behind the fields that mdaflow has put on top."""
    [file] = user.files()
    assert file.stat().st_uid == user.home.stat().st_uid
    raw = file.read_bytes()
    head, by, rest = raw.partition(b" by store.example (mdaflow) ")
    assert by
    assert head.startswith(b"Return-Path: <a@example.com>\nDelivered-To: user")
    return rest.partition(b" +0000\n")[2]


def expected(wire: bytes) -> bytes:
    """With LF line ends; what has no header is kept apart from our fields by an empty line."""
    raw = wire.replace(b"\r\n", b"\n")
    headless = wire in (BAD["no header"], BAD["colons without names"], BAD["long field"])
    return b"\n" + raw if headless else raw


@pytest.mark.parametrize("name", BAD)
def test_lmtp(mdaflow: Mdaflow, name: str) -> None:
    """Any bytes are accepted with 250, and stored as they came."""
    user = mdaflow.user(RULES)
    with Lmtp(mdaflow.socket) as client:
        reply = client.deliver(user.address, BAD[name])
        assert reply.startswith(f"250 2.0.0 <{user.address}> ")
        assert client.say("QUIT").startswith("221 ")
    assert stored(user) == expected(BAD[name])
    assert mdaflow.outcomes(user.address) == ["delivered"]


@pytest.mark.parametrize("name", BAD)
def test_deliver(mdaflow: Mdaflow, name: str) -> None:
    """`mdaflow deliver` takes the same on standard input: exit code 0, and the same is stored."""
    user = mdaflow.user(RULES)
    assert mdaflow.deliver(user, BAD[name]) == 0
    assert stored(user) == expected(BAD[name])
