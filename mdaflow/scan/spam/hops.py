"""The SMTP client that brought a message in, found in its Received fields.

The first client from the top whose address is not private. It is a guess: fields below those of
our own MTA can be forged. So what is read here may speak against a message, never for it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from mdaflow.mail.envelope import Client

_PRIVATE = re.compile(
    r"(?:0|10|127|169\.254|192\.168|172\.(?:1[6-9]|2\d|3[01])|100\.(?:6[4-9]|[7-9]\d|1[01]\d|12[0-7]))"
    r"\.|(?:::1$|f[cd]|fe80)",
    re.IGNORECASE,
)
_FROM = re.compile(r"from (\S{1,255}) \(([^()]{0,500}(?:\([^()]{0,200}\)[^()]{0,300})?)\)")
_ADDRESS = re.compile(r"(?:IPv6:)?(\d{1,3}(?:\.\d{1,3}){3}|[0-9a-f:]*:[0-9a-f:.]+)", re.IGNORECASE)
_HELO = re.compile(r"helo[= ](\S{1,255})", re.IGNORECASE)
_NAME = re.compile(r"[\w-]{1,63}(?:\.[\w-]{1,63})+\.?(?![\w.])")


def is_private(address: str) -> bool:
    """Nobody outside has this IP address."""
    return _PRIVATE.match(address) is not None


def first_outside(hops: Sequence[str]) -> Client | None:
    """The client of the topmost hop that came from outside; None when none can be read."""
    found = (client_of(hop) for hop in hops[:6])
    return next((client for client in found if client and not is_private(client.ip)), None)


def client_of(hop: str) -> Client | None:
    """Who gave a message, of a Received field on one line; the forms of all common MTAs."""
    parts = _FROM.match(hop)
    if parts is None:
        return None
    word, rest = parts.groups()
    helo = _HELO.search(rest)
    rest = rest.replace(helo[0], " ") if helo else rest
    address = _ADDRESS.search(rest) or _ADDRESS.fullmatch(word.strip("[]"))
    if address is None:
        return None
    name = _NAME.match(rest)
    known = name[0] if name and not _ADDRESS.fullmatch(name[0]) else ""
    if helo:  # qmail and Exim: the word is what the DNS says
        return Client(
            address[1], known or ("" if word == "unknown" else word), helo[1].strip("[]()")
        )
    return Client(address[1], known, word)
