"""The arguments of MAIL and RCPT: keyword, path and parameters, or the reply that refuses them.

No I/O. Everything here raises PermFail.
"""

from __future__ import annotations

from collections.abc import Callable

from ..errors import TOO_BIG, PermFail, Status
from ..mail.path import parse_parameters, parse_path
from . import reply


def sender(argument: bytes, limit: int) -> tuple[str, bool]:
    """The address of MAIL, and whether SMTPUTF8 was said. `limit`: of the message, in bytes."""
    address, parameters = _arguments(argument, b"FROM:", "5.1.7")
    for keyword, value in parameters.items():
        refusal = _MAIL.get(keyword, _unknown)(value, limit)
        if refusal:
            raise PermFail(refusal)
    return address, "SMTPUTF8" in parameters


def recipient(argument: bytes) -> str:
    """The address of RCPT, which takes no parameters."""
    address, parameters = _arguments(argument, b"TO:", "5.1.3")
    if parameters:
        raise PermFail(reply.BAD_PARAMETER)
    if not address:
        raise PermFail(Status(553, "5.1.3", "No address"))
    return address


def _arguments(argument: bytes, keyword: bytes, enhanced: str) -> tuple[str, dict[str, str]]:
    if argument[: len(keyword)].upper() != keyword:
        raise PermFail(reply.syntax(f"{keyword.decode()}<address>"))
    try:
        address, rest = parse_path(argument[len(keyword) :].lstrip(b" "))
    except ValueError as reason:
        raise PermFail(Status(553, enhanced, str(reason))) from None
    try:
        return address, parse_parameters(rest)
    except ValueError as reason:
        raise PermFail(reply.syntax(str(reason))) from None


def _size(value: str, limit: int) -> Status | None:
    if not (value.isdigit() and len(value) <= 20):
        return reply.syntax("SIZE=number")
    return TOO_BIG if int(value) > limit else None


def _body(value: str, limit: int) -> Status | None:
    known = value.upper() in ("7BIT", "8BITMIME")
    return None if known else reply.syntax("BODY=7BIT or BODY=8BITMIME")


def _smtputf8(value: str, limit: int) -> Status | None:
    return reply.syntax("SMTPUTF8 takes no value") if value else None


def _unknown(value: str, limit: int) -> Status | None:
    return reply.BAD_PARAMETER


_MAIL: dict[str, Callable[[str, int], Status | None]] = {
    "SIZE": _size,
    "BODY": _body,
    "SMTPUTF8": _smtputf8,
}
