"""A message to send: with all that mail has in it, or nothing but a line."""

from __future__ import annotations

import base64
import itertools
import random

PDF = b"%PDF-1.4\n" + bytes(range(256)) * 20

_numbers = itertools.count(1)


def note(to: str, *fields: str, subject: str = "hello") -> bytes:
    """A message of one line, with CRLF line ends."""
    return _message(to, subject, *fields, "", "How are you?")


def letter(to: str, *fields: str, subject: str = "hello") -> bytes:
    """A message with 8-bit text, long lines and an attachment, with CRLF line ends."""
    return _message(
        to,
        subject,
        *fields,
        "MIME-Version: 1.0",
        'Content-Type: multipart/mixed; boundary="=-b"',
        "",
        "--=-b",
        "Content-Type: text/plain; charset=utf-8",
        "Content-Transfer-Encoding: 8bit",
        "",
        "Grüße, with a line",
        ".",
        ".that begins with a dot, and one of 900:",
        "x" * 900,
        " \t",
        "--=-b",
        'Content-Type: application/pdf; name="rechnung.pdf"',
        "Content-Transfer-Encoding: base64",
        "Content-Disposition: attachment; filename*=utf-8''rechnung%20f%C3%BCr%20mai.pdf",
        "",
        *base64.encodebytes(PDF).decode().splitlines(),
        "--=-b--",
    )


def numbered(number: int, seed: int, to: str, shortest: int, longest: int) -> bytes:
    """A message of random length and content, the same for the same arguments, with CRLF line
    ends. Its first field is X-Number."""
    dice = random.Random(f"{seed}/{number}")
    length = dice.randint(shortest, longest)
    head = "\n".join(
        [
            f"X-Number: {number}",
            "From: Frieda <frieda@example.com>",
            f"To: <{to}>",
            "Date: Fri, 20 Nov 2026 10:00:00 +0100",
            f"Message-ID: <{number}.{seed}@storm.example>",
            "",
            ".",
            "",
        ]
    ).encode()
    body = base64.encodebytes(dice.randbytes(length))[: max(length - len(head), 0)]
    return (head + body.rstrip(b"\n") + b"\n").replace(b"\n", b"\r\n")


def _message(to: str, subject: str, *rest: str) -> bytes:
    lines = [
        "From: Frieda <frieda@example.com>",
        f"To: <{to}>",
        f"Subject: {subject}",
        "Date: Fri, 20 Nov 2026 10:00:00 +0100",
        f"Message-ID: <{next(_numbers)}@letters.example.com>",
        *rest,
        "",
    ]
    return "\r\n".join(lines).encode()
