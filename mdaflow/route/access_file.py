"""The file of the access table, as sendmail's: what its keys and values are.

A line is `KEY VALUE`; `#` begins a line that says nothing. A key may be tagged `Connect:`, `From:`
or `To:`; without a tag it counts for all three. Case is of no account.

    user@example.org   user@   example.org   .example.org   <>   [192.0.2.1]
    192.0.2.1   192.0.2   192.0.2.0/24   IPv6:2001:db8   2001:db8::/32

A domain stands for its subdomains, too, `.example.org` for these alone. `[192.0.2.1]` is the name
of a client that has none, and the domain of an address. `<>` is the null sender.

    OK   RELAY   REJECT   REJECT text   DISCARD   SKIP
    ERROR:550 text   ERROR:5.7.1:550 text   ERROR:550:text   550 5.7.1 text   "550 text"

Everything else is a problem: a key that stands there twice, and sendmail's other tags and values
(`Spam:`, `QUARANTINE:`), too. No I/O.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from ipaddress import IPv6Address, ip_network
from socket import AF_INET, AF_INET6, inet_ntop, inet_pton
from typing import NamedTuple

from mdaflow.errors import ConfigError, Status

from .aliases import bare
from .tables import MAX_PROBLEMS

MAX_TEXT = 400
"""Characters of a text: a reply is one line of at most 512 bytes (RFC 5321 section 4.5.3.1.5)."""
DENIED = "Access denied"
"""The text of a refusal that has none, as sendmail's."""


class Answer(NamedTuple):
    """What a value says."""

    action: str
    status: Status | None = None

    def __str__(self) -> str:
        return f"{self.action} {self.status}" if self.status else self.action


Entry = tuple[Answer, int]
"""An answer, and the line on which it stands."""
Network = tuple[int, int, int]
"""Bytes of an address, the length in bits, and these bits."""
Key = str | Network


class Keys(NamedTuple):
    """The keys of one file."""

    path: str
    entries: dict[str, dict[Key, Entry]]
    """By tag; empty for none."""
    lengths: dict[int, frozenset[int]]
    """The lengths of the networks that there are, by the bytes of an address."""


CONNECT, FROM, TO = TAGS = ("Connect", "From", "To")
V4, V6 = 4, 16
"""Bytes of an address."""
_MAPPED = bytes(10) + b"\xff\xff"


def parse_access(content: bytes, path: str) -> Keys:
    """The keys of a file. Raises ConfigError with what is wrong, each with its line."""
    entries: dict[str, dict[Key, Entry]] = {tag: {} for tag in ("", *TAGS)}
    answers: dict[bytes, Answer] = {}  # there are few of them, on many lines
    problems: list[str] = []
    for number, line in enumerate(content.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        word, value = (*line.split(None, 1), b"", b"")[:2]
        if not word or word.startswith(b"#"):
            continue
        try:
            if value not in answers:
                answers[value] = parse_value(_text(value.strip()))
            tag, key = parse_key(_text(word))
            before = entries[tag].setdefault(key, (answers[value], number))
            if before[1] != number:
                raise ValueError(f"{_text(word)} stands in line {before[1]} already")
        except ValueError as error:
            problems.append(f"{path}:{number}: {error}")
    if problems:
        raise ConfigError(tuple(problems[:MAX_PROBLEMS]))
    lengths = {(k[0], k[1]) for keys in entries.values() for k in keys if isinstance(k, tuple)}
    by_size = {size: frozenset(n for s, n in lengths if s == size) for size in (V4, V6)}
    return Keys(path, entries, by_size)


def parse_key(text: str) -> tuple[str, Key]:
    """Tag and key of a line; no tag is "". Raises ValueError with what is wrong."""
    text = text.casefold()
    tag, _, key = text.partition(":")
    tag = tag.capitalize()
    if tag not in TAGS:
        tag, key = "", text
    for form, tags, make in _KEYS:
        found = form.fullmatch(key)
        if found:
            if tag not in tags:
                raise ValueError(f"{key} cannot stand behind {tag}:")
            return tag, make(key)
    raise ValueError(f"'{text}' is no address, domain or network")


def literal(domain: str) -> str:
    """A domain as it is kept: an IP address in brackets in its usual spelling."""
    address = packed(domain[1:-1].removeprefix("ipv6:")) if domain[:1] == "[" else None
    return domain if address is None else f"[{spelled(address)}]"


def packed(ip: str) -> bytes | None:
    """The bytes of an IP address, an IPv4-mapped one as IPv4; None of what is none."""
    try:
        raw = inet_pton(AF_INET6 if ":" in ip else AF_INET, ip)
    except (OSError, ValueError):
        return None
    return raw.removeprefix(_MAPPED)


def spelled(address: bytes) -> str:
    """An IP address as it is usually written."""
    return inet_ntop(AF_INET if len(address) == 4 else AF_INET6, address)


def _address(key: str) -> Key:
    local, _, domain = key.rpartition("@")
    return f"{bare(local)}@{literal(domain)}"


def _octets(key: str) -> Key:
    numbers = bytes(map(int, key.split(".")))
    return V4, 8 * len(numbers), int.from_bytes(numbers, "big")


def _groups(key: str) -> Key:
    groups = key.removeprefix("ipv6:").split(":")
    return V6, 16 * len(groups), int("".join(group.zfill(4) for group in groups), 16)


def _network(key: str) -> Key:
    network = ip_network(key.removeprefix("ipv6:"))
    address, bits = network.network_address, network.prefixlen
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        raise ValueError(f"{key} has to be written as an IPv4 address")
    return len(address.packed), bits, int(address) >> network.max_prefixlen - bits


_NAME = r"[\w-]+(?:\.[\w-]+)*"
_LITERAL = r"\[[!-Z^-~]+\]"
_BYTE = "(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_HEX = "[0-9a-f]{1,4}"
_MAIL, _ADDR, _ANY = ("", FROM, TO), ("", CONNECT), ("", *TAGS)
_KEYS: tuple[tuple[re.Pattern[str], Sequence[str], Callable[[str], Key]], ...] = (
    (re.compile(rf"(?:[^<>:@]+|\".+\")@(?:{_NAME}|{_LITERAL})?"), _MAIL, _address),
    (re.compile(rf"(?![0-9.]+$)\.?{_NAME}|{_LITERAL}"), _ANY, literal),
    (re.compile(rf"{_BYTE}(?:\.{_BYTE}){{0,3}}"), _ADDR, _octets),
    (re.compile(rf"(?:ipv6:)?{_HEX}(?::{_HEX}){{0,7}}"), _ADDR, _groups),
    (re.compile(r"(?:ipv6:)?[0-9a-f:.]+(?:/[0-9]+)?"), _ADDR, _network),
    (re.compile("<>"), ("", FROM), str),
)
"""The form of a key, the tags that it can have, and what it is kept as."""

_WORDS = ("OK", "RELAY", "DISCARD", "SKIP")
_CODE = r"[45]\.(?:0|[1-9]\d{0,2})\.(?:0|[1-9]\d{0,2})"
_REPLY = re.compile(
    rf"(?:error:(?:(?P<first>{_CODE}):)?)?(?P<quote>\"?)"
    rf"(?P<code>[45][0-5]\d)(?:[: ] ?(?:(?P<second>{_CODE})(?: |(?=\"?$)))?(?P<text>.*?))?"
    r"(?P=quote)",
    re.ASCII | re.IGNORECASE,
)
_WANTED = "OK, RELAY, REJECT, DISCARD, SKIP, ERROR:4yz or 5yz text, ERROR:D.S.N:4yz or 5yz text"


def parse_value(text: str) -> Answer:
    """What a value says. Raises ValueError with what is wrong."""
    text = " ".join(text.split())
    word, _, rest = text.partition(" ")
    action = word.upper()
    rest = "" if rest.startswith("#") else rest
    if action == "REJECT":
        return Answer(action, _status("550", "", rest))
    if action in _WORDS:
        if rest:
            raise ValueError(f"nothing can stand behind {action}")
        return Answer(action)
    found = _REPLY.fullmatch(text)
    if found is None:
        raise ValueError(f"'{text}' is none of {_WANTED}")
    enhanced = found["first"] or found["second"] or ""
    return Answer("REJECT", _status(found["code"], enhanced, found["text"] or ""))


def _status(code: str, enhanced: str, text: str) -> Status:
    enhanced = enhanced or f"{code[0]}.7.1"
    if code == "421":
        raise ValueError("421 would end the session; write 450")
    if enhanced[0] != code[0]:
        raise ValueError(f"{enhanced} does not fit {code}")
    if not (text.isascii() and text.isprintable()) or len(text) > MAX_TEXT:
        raise ValueError(f"the text has to be ASCII, and of at most {MAX_TEXT} characters")
    return Status(int(code), enhanced, text or DENIED)


def _text(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise ValueError("no UTF-8") from None
