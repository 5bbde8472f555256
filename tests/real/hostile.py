"""Messages that no program should send, made by dice, and what has to be stored of each.

Bare CR and LF, NUL, lines that look like the end of the data, like the beginning of a message in an
mbox, or like a field by which mail readers find its end; header blocks that are forged, broken,
or not there; 8-bit, long lines, MIME that leads nowhere.
"""

from __future__ import annotations

import random
import re
from typing import NamedTuple

FORGED = (
    b"Return-Path: <root@example.org>",
    b"X-mdaflow-Loop: 0123456789abcdef",
    b"x-MDAFLOW-x: one\r\n\ttwo\r\n  three",
)
"""Fields that are ours alone: never stored."""
STATE = (
    b"Status: RO",
    b"X-Status: D",
    b"X-UID: 7",
    b"X-IMAPbase: 1 0000000001",
    b"X-Keywords: a\r\n b",
    b"Content-Length: 10",
    b"content-length  : 99999999",
)
"""Fields that mail readers believe in an mbox: not stored there."""
FIELDS = (
    b"Subject: =?utf-8?q?=00=0D=0A?= =?x?b?=?=",
    b"Subject: \xff\xfe \xc3\xa9",
    b'From: "a\0b" <<>>,,@,(((',
    b"To: " + b"a@b, " * 300,
    b"X-Long: " + b"x" * 5000,
    b"X-Folded: a\r\n b\r\n\tc",
    b"X-CR: a\rb\r",
    b"Received: from x by y; never",
    b"Content-Type: multipart/mixed; boundary=b",
    b"Content-Type: text/plain; charset=\"\0\"; name*0*=a'b'%zz",
    b"Content-Transfer-Encoding: base64",
    b"Delivered-To: root@example.org",
)
BROKEN = (b"no field at all", b": no name", b"A B: c", b"X: a\nb: c\n\rd", b"\0\0\0", b"\r", b"--b")
"""Lines in a header block that end it, for some readers."""
LINES = (
    b"",
    b"",
    b".",
    b"..",
    b"...x",
    b"From ",
    b"From bob@example.org Sat Nov  1 09:05:00 2025",
    b">From x",
    b">>>>From x",
    b" From x",
    b"\n\nFrom a@b Sat Nov  1 09:05:00 2025\nSubject: y\n\nz\n",
    b"\rFrom x",
    b"\r",
    b"\r\r\r",
    b"\n",
    b"\n.\n",
    b"\r.\r",
    b"\n.\r",
    b".\n",
    b"\0",
    b"\0\0\n\0.\0",
    b"\x1a\x04\x7f\x80\xff",
    b"Status: RO",
    b"Content-Length: 1",
    b"--b",
    b"--b--",
    b"QUIT",
    b"MAIL FROM:<>",
    b"=\r\n=0D=0A=",
    b"\xe2\x80\xa8\xed\xa0\x80\xf0\x9f",
    b"x" * 998,
    b" \t",
)


class Hostile(NamedTuple):
    """A message."""

    wire: bytes
    """As a client sends it, before dots are stuffed; it ends in CRLF."""
    maildir: bytes
    """What is stored in a Maildir, below our fields."""
    mbox: bytes
    """What a reader of mboxrd sees in an mbox, below our fields."""


def hostile(number: int, seed: int) -> Hostile:
    """The same message for the same arguments."""
    dice = random.Random(f"{seed}/{number}")
    body = _body(dice)
    if dice.random() < 0.1:
        first = dice.choice((b"no header", b": x", b"a b: c", b"\xff"))
        wire = first + b"\r\n" + body
        return Hostile(wire, b"\n" + _stored(wire), b"\n" + _stored(wire))
    pool = [(f, True, True) for f in FIELDS] * 2
    pool += [(f, False, False) for f in FORGED] + [(f, True, False) for f in STATE]
    chosen = [(b"X-Number: %d" % number, True, True), *dice.choices(pool, k=dice.randint(0, 12))]
    dice.shuffle(chosen)
    broken = b"".join(line + b"\r\n" for line in dice.choices(BROKEN, k=dice.choice((0, 0, 1, 3))))
    rest = broken + b"\r\n" + body

    def with_fields(place: int) -> bytes:
        return b"".join(field[0] + b"\r\n" for field in chosen if field[place]) + rest

    whole = b"".join(field[0] + b"\r\n" for field in chosen) + rest
    return Hostile(whole, _stored(with_fields(1)), _stored(with_fields(2)))


def _body(dice: random.Random) -> bytes:
    """Lines, most of them with CRLF behind each."""
    ends = (b"\r\n", b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r", b"")
    lines = dice.choices(LINES, k=dice.randint(0, 60))
    body = b"".join(line + dice.choice(ends) for line in lines)
    if dice.random() < 0.01:
        body += dice.choice((b"x", b"\0", b"\r", b"From ", b">", b"\n")) * dice.randint(1, 1 << 20)
    return body + dice.randbytes(dice.choice((0, 0, 0, 20, 300))) + b"\r\n"


def _stored(wire: bytes) -> bytes:
    return wire.replace(b"\r\n", b"\n")


_FROM = re.compile(rb"^(>*From )", re.MULTILINE)


def quoted(raw: bytes) -> bytes:
    """A message as it stands in an mboxrd file, for a reader that takes no quotes away."""
    return _FROM.sub(rb">\1", raw)
