"""The trace header fields that a final delivery adds (RFC 5321 section 4.4), as bytes.

`stored` gives a message as it is stored: our fields on top, fields of our own namespace and
any older Return-Path taken out, every other byte as it came (P14, P15). Known limit: what looks
like such a field behind the first MiB of header is text to us: not removed, and not believed.
"""

from __future__ import annotations

import re
import time

from .envelope import Envelope
from .message import Message

_UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_OURS = re.compile(
    rb"^(?:return-path|x-mdaflow-[!-9;-~]*)[ \t]*+:[^\n]*+(?:\n[ \t][^\n]*+)*+\n?",
    re.I | re.M,
)


def date(seconds: float) -> str:
    """A point in time as RFC 5322 section 3.3 writes it, in UTC, whatever the locale."""
    t = time.gmtime(seconds)
    return (
        f"{_DAYS[t.tm_wday]}, {t.tm_mday} {_MONTHS[t.tm_mon - 1]} {t.tm_year} "
        f"{t.tm_hour:02}:{t.tm_min:02}:{t.tm_sec:02} +0000"
    )


def trace_fields(envelope: Envelope, hostname: str, ident: str) -> bytes:
    """Return-Path, Delivered-To, X-Original-To and Received for one copy.

    `ident` is our id of this delivery. What came from outside is cleaned of control
    characters, so that it can never begin a line of its own.
    """
    e = envelope
    sender, recipient, original = _clean(e.sender), _clean(e.recipient), _clean(e.original)
    lines = [f"Return-Path: <{sender}>", f"Delivered-To: {recipient}"]
    if original not in ("", recipient):
        lines.append(f"X-Original-To: {original}")
    us = f"{hostname} (mdaflow{', released' * e.released})"
    lines.append(f"Received: {_from(e)}by {us} with {e.protocol} id {ident}")
    lines.append(f"\tfor <{recipient}>; {date(e.received)}\n")
    return "\n".join(lines).encode()


def _from(envelope: Envelope) -> str:
    client = envelope.client
    if client.ip:
        helo = _word(client.helo or client.name or "unknown")
        return f"from {helo} ({_word(client.name or 'unknown')} [{_word(client.ip)}]) "
    return f"from {_word(envelope.peer)} " if envelope.peer else ""


def _word(text: str) -> str:
    """Text as one word that can stand in a comment."""
    return re.sub(r"[\s()\\]+", "_", _clean(text))


def _clean(text: str) -> str:
    return _UNSAFE.sub(" ", text)


def stored(message: Message, prefix: bytes) -> list[bytes | memoryview]:
    """The chunks of a stored message: `prefix`, then what came without fields of ours."""
    return message.under(prefix, _OURS.sub(b"", message.head))
