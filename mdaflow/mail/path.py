"""The paths and parameters of MAIL and RCPT (RFC 5321 sections 4.1.1.11 and 4.1.2, RFC 6531).

A path is taken as it stands: nothing in it is decoded, folded or unquoted, so that two
spellings which the MTA keeps apart are never merged (P49). What is not exactly a path is
refused; so is every control character, and every character that changes the direction of a
line, because addresses end up in logs and header fields. A source route is read and dropped,
as RFC 5321 appendix C asks.

Wider than the RFC on purpose, because an MTA has already accepted the mail: underscores in
domains, 255 bytes in the local part. No I/O.
"""

from __future__ import annotations

import re

MAX_ADDRESS = 320
MAX_LOCAL = 255

_ATOM = rb"[A-Za-z0-9!#$%&'*+\-/=?^_`{|}~\x80-\xff]+"
_QUOTED = rb'"(?:[ !#-\[\]-~\x80-\xff]|\\[ -~])*"'
_LOCAL = rb"(?:%b(?:\.%b)*|%b)" % (_ATOM, _ATOM, _QUOTED)
_LABEL = rb"[A-Za-z0-9_\-\x80-\xff]+"
_NAME = rb"%b(?:\.%b)*" % (_LABEL, _LABEL)
_DOMAIN = rb"(?:%b|\[[!-Z^-~]+\])" % _NAME
_ROUTE = rb"(?:@%b(?:,@%b)*:)?" % (_DOMAIN, _DOMAIN)
_PATH = re.compile(
    rb"<(?:%b(?P<mailbox>(?P<local>%b)@%b)|(?P<alone>(?i:postmaster))?)>(?: +(?P<rest>.*))?"
    % (_ROUTE, _LOCAL, _DOMAIN)
)
_CONTROL = re.compile(rb"[\0-\x1f\x7f]")

CONTROL = re.compile("[\0-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""Controls, line and paragraph separators, and all that sets the direction of text."""

# Negated, because a set up to U+10FFFF takes milliseconds to compile. U+FFFD is what is no UTF-8.
_PARAMETER = re.compile(r"([A-Za-z0-9][A-Za-z0-9-]*)(?:=([^\0- =\x7f\ufffd]+))?")


def parse_path(argument: bytes) -> tuple[str, bytes]:
    """The address between the brackets as it was sent, and the parameters behind them.

    `<>` gives "". `<postmaster>` is the one address without a domain. Raises ValueError with
    a short reason.
    """
    if not argument.startswith(b"<"):
        raise ValueError("no < before the address")
    if _CONTROL.search(argument):
        raise ValueError("control character in the address")
    match = _PATH.fullmatch(argument)
    if match is None:
        raise ValueError("malformed address")
    address: bytes = match["mailbox"] or match["alone"] or b""
    if len(address) > MAX_ADDRESS or len(match["local"] or b"") > MAX_LOCAL:
        raise ValueError("address too long")
    return _text(address), match["rest"] or b""


def parse_parameters(rest: bytes) -> dict[str, str]:
    """ESMTP parameters by keyword, in upper case; one without a value has "".

    Values are literal, and may be UTF-8 (RFC 6531 section 3.3). Raises ValueError with a short
    reason.
    """
    found: dict[str, str] = {}
    for word in rest.split():
        text = word.decode("utf-8", "replace")
        match = _PARAMETER.fullmatch(text)
        if match is None or CONTROL.search(text):
            raise ValueError("malformed parameter")
        keyword = match[1].upper()
        if keyword in found:
            raise ValueError(f"{keyword} given twice")
        found[keyword] = match[2] or ""
    return found


def _text(address: bytes) -> str:
    if address.isascii():
        return address.decode("ascii")
    try:
        text = address.decode()
    except UnicodeDecodeError:
        raise ValueError("address is not UTF-8") from None
    if CONTROL.search(text):
        raise ValueError("control character in the address")
    return text
