"""The arguments of MAIL and RCPT: keyword, path and parameters, or the reply that refuses them.

Parameters are those of RFC 1870, RFC 6152, RFC 6531 and RFC 3461. What they say is literal:
decoded, but never folded or merged (P49). No I/O. Everything here raises PermFail.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from ..errors import TOO_BIG, PermFail, Status
from ..mail import xtext
from ..mail.letter import is_address
from ..mail.path import parse_parameters, parse_path
from . import reply

MAX_ENVID = 100
MAX_ORCPT = 500
"""Characters of the values as they are sent (RFC 3461 section 5.4)."""
MAX_NOTIFY = 28

_ORCPT = re.compile(r"([A-Za-z0-9!#$%&'*+/?^_`{|}~-]+);(.+)")


class Sender(NamedTuple):
    """What MAIL says."""

    address: str
    """Empty for the null sender."""
    utf8: bool = False
    """SMTPUTF8 was said."""
    size: int = 0
    """Bytes of the message; 0 when that was not said."""
    ret: str = ""
    """What of the message a report shall bring back: FULL, HDRS, or nothing was said."""
    envid: str = ""
    """The sender's name for this transaction, decoded."""


class Recipient(NamedTuple):
    """What RCPT says."""

    address: str
    original: str = ""
    """The address of ORCPT, decoded, if it is one."""
    notify: tuple[str, ...] = ()
    """NEVER, or some of SUCCESS, FAILURE, DELAY, in the order of the command."""
    orcpt: str = ""
    """The value of ORCPT as it was sent."""


def merged(recipients: Iterable[Recipient]) -> list[Recipient]:
    """Each address once. Of those that were named more than once the first alias counts, and all
    that is asked for; NEVER only when all say so."""
    found: dict[str, Recipient] = {}
    for new in recipients:
        had = found.setdefault(new.address, new)
        if had is not new:
            found[new.address] = _merge(had, new)
    return list(found.values())


def _merge(had: Recipient, new: Recipient) -> Recipient:
    by = had if had.original not in ("", had.address) or not new.original else new
    wanted = dict.fromkeys((*had.notify, *new.notify))
    notify = tuple(wanted) if set(wanted) == {"NEVER"} else tuple(wanted.keys() - {"NEVER"})
    return Recipient(had.address, by.original, tuple(sorted(notify)), by.orcpt)


def sender(argument: bytes, limit: int) -> Sender:
    """What MAIL says. `limit`: of the message, in bytes."""
    address, rest = _path(argument, b"FROM:", "5.1.7")
    said = Sender(address, **_parameters(rest, _MAIL))
    if said.size > limit:
        raise PermFail(TOO_BIG)
    return said


def recipient(argument: bytes, utf8: bool = False) -> Recipient:
    """What RCPT says. `utf8`: MAIL said SMTPUTF8, so that ORCPT may be more than ASCII."""
    address, rest = _path(argument, b"TO:", "5.1.3")
    said = _parameters(rest, _RCPT)
    if not address:
        raise PermFail(Status(553, "5.1.3", "No address"))
    if not (utf8 or said.get("orcpt", "").isascii()):  # RFC 6533 section 3
        raise PermFail(reply.syntax("ORCPT is not ASCII, and there was no SMTPUTF8"))
    return Recipient(address, **said)


def _path(argument: bytes, keyword: bytes, enhanced: str) -> tuple[str, bytes]:
    if argument[: len(keyword)].upper() != keyword:
        raise PermFail(reply.syntax(f"{keyword.decode()}<address>"))
    try:
        return parse_path(argument[len(keyword) :].lstrip(b" "))
    except ValueError as reason:
        raise PermFail(Status(553, enhanced, str(reason))) from None


def _parameters(rest: bytes, readers: Mapping[str, Reader]) -> dict[str, Any]:
    """What the parameters say, by the names of the fields."""
    found: dict[str, Any] = {}
    try:
        for keyword, value in parse_parameters(rest).items():
            if keyword not in readers:
                raise PermFail(reply.BAD_PARAMETER)
            found |= readers[keyword](value)
    except ValueError as reason:
        raise PermFail(reply.syntax(str(reason))) from None
    return found


Reader = Callable[[str], dict[str, Any]]
"""Reads the value of a parameter. Raises ValueError with a short text for the peer."""


def _size(value: str) -> dict[str, Any]:
    if not (value.isascii() and value.isdigit() and len(value) <= 20):  # RFC 1870 section 4
        raise ValueError("SIZE=number")
    return {"size": int(value)}


def _body(value: str) -> dict[str, Any]:
    if value.upper() not in ("7BIT", "8BITMIME"):
        raise ValueError("BODY=7BIT or BODY=8BITMIME")
    return {}


def _smtputf8(value: str) -> dict[str, Any]:
    if value:
        raise ValueError("SMTPUTF8 takes no value")
    return {"utf8": True}


def _ret(value: str) -> dict[str, Any]:
    if value.upper() not in ("FULL", "HDRS"):  # RFC 3461 section 4.3
        raise ValueError("RET=FULL or RET=HDRS")
    return {"ret": value.upper()}


def _envid(value: str) -> dict[str, Any]:
    """RFC 3461 section 4.4: xtext of printable ASCII."""
    text = _decoded(xtext.decode, value) if 0 < len(value) <= MAX_ENVID else ""
    if not (text and text.isascii()):
        raise ValueError("ENVID=xtext")
    return {"envid": text}


def _notify(value: str) -> dict[str, Any]:
    """RFC 3461 section 4.1: NEVER stands alone."""
    words = tuple(dict.fromkeys(value.upper().split(",")))
    known = words == ("NEVER",) or {"SUCCESS", "FAILURE", "DELAY"}.issuperset(words)
    if not known or len(value) > MAX_NOTIFY:
        raise ValueError("NOTIFY=NEVER, or of SUCCESS,FAILURE,DELAY")
    return {"notify": words}


def _orcpt(value: str) -> dict[str, Any]:
    """RFC 3461 section 4.2: what is no address of ours is passed on, and says nothing to us."""
    match = _ORCPT.fullmatch(value) if len(value) <= MAX_ORCPT else None
    if match is None:
        raise ValueError(_BAD_ORCPT)
    kind = match[1].lower()
    decode = xtext.decode_address if kind == "utf-8" else xtext.decode
    text = _decoded(decode, match[2])
    if not text:
        raise ValueError(_BAD_ORCPT)
    known = kind in ("rfc822", "utf-8") and is_address(text)
    return {"orcpt": value, "original": text if known else ""}


_BAD_ORCPT = "ORCPT=type;xtext"


def _decoded(decode: Callable[[str], str], value: str) -> str:
    """The text; empty for what is none."""
    try:
        return decode(value)
    except ValueError:
        return ""


_MAIL: dict[str, Reader] = {
    "SIZE": _size,
    "BODY": _body,
    "SMTPUTF8": _smtputf8,
    "RET": _ret,
    "ENVID": _envid,
}
_RCPT: dict[str, Reader] = {"NOTIFY": _notify, "ORCPT": _orcpt}
