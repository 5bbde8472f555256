"""XFORWARD: what the MTA tells of the client it had the message from (Postfix XFORWARD_README).

`XFORWARD NAME=value ADDR=value ...`, values in xtext (RFC 3461 section 4). Only the server
decides who may say it. Attributes we have no use for are checked all the same. No I/O.
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address

from ..mail import xtext
from ..mail.envelope import NOBODY, Client

_MAX = 255
_UNKNOWN = {"[UNAVAILABLE]", "[TEMPUNAVAIL]"}


def _address(value: str) -> str:
    bare = value[5:] if value[:5].upper() == "IPV6:" else value
    return str(ip_address(bare))


def _port(value: str) -> str:
    if not (value.isascii() and value.isdigit() and int(value) < 1 << 16):
        raise ValueError("bad port")
    return value


ATTRIBUTES: dict[str, Callable[[str], str]] = {
    "NAME": str,
    "ADDR": _address,
    "PORT": _port,
    "PROTO": str,
    "HELO": str,
    "IDENT": str,
    "SOURCE": str,
}


def parse(argument: bytes) -> dict[str, str]:
    """The attributes of one command. Raises ValueError with a short reason."""
    found: dict[str, str] = {}
    for word in argument.split():
        name, equals, value = word.partition(b"=")
        keyword = name.upper().decode("ascii", "replace")
        if keyword not in ATTRIBUTES or not equals:
            raise ValueError("unknown attribute")
        text = _decode(value)
        found[keyword] = ATTRIBUTES[keyword](text) if text else ""
    if not found:
        raise ValueError("no attribute")
    return found


def client(attributes: dict[str, str]) -> Client:
    """The client that the attributes tell of."""
    get = attributes.get
    return Client(get("ADDR", ""), get("NAME", ""), get("HELO", "")) if attributes else NOBODY


def _decode(value: bytes) -> str:
    """xtext as text; empty for what the MTA does not know."""
    if len(value) > 3 * _MAX:
        raise ValueError("too long")
    text = xtext.decode(value.decode("latin-1"))
    if len(text) > _MAX:
        raise ValueError("too long")
    return "" if text.upper() in _UNKNOWN else text
