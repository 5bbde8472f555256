"""The SMTP client that gave a message to our own MTA, read from the topmost Received field.

For an MTA that does not tell it by XFORWARD. The forms are those of Postfix and Sendmail
(`from HELO (NAME [1.2.3.4])`) and of Exim (`from NAME ([1.2.3.4] helo=HELO)`, `from [1.2.3.4]
(helo=HELO)`). Every other form, and a message that was not sent by SMTP, has no client: it is
better to know none than one that the sender made up. Fields below the topmost that mdaflow did
not write are never looked at, because anybody can write them.
"""

from __future__ import annotations

import re

from .envelope import Client
from .message import Message

MAX_LENGTH = 2 << 10
"""Bytes of a field that are looked at."""

_OURS = re.compile(
    r"(?:from [^\s()]+ (?:\([^()]*\) )?)?by [^\s()]+ \(mdaflow(?:, released)?\) with "
)
_IP = r"\[(?:IPv6:)?(?P<ip>[0-9A-Fa-f:.]+)\](?::\d+)?"
_NAME = r"(?:(?P<name>[^\s()\[\]=]+) |[^\s()\[\]=]*@)?"
"""Sendmail puts the answer of an ident server before the name, or before the address."""
_FORMS = tuple(
    re.compile(form, re.IGNORECASE)
    for form in (
        # Postfix and Sendmail, and Exim when the client has a name
        rf"from (?P<word>[^\s()]+) \({_NAME}{_IP}(?P<rest>(?: [^()]*)?)[()]",
        # Exim when it has none
        rf"from {_IP}(?: \((?P<rest>[a-z]+=[^()]*)\))? by ",
    )
)
_HELO = re.compile(r"(?:^| )helo=(\S+)")
_EXIM = re.compile(r"[^;]{0,500}? \(Exim ")
_BYTE = re.compile(r"0|[1-9]\d{0,2}", re.ASCII)


def client(message: Message) -> Client | None:
    """The client, with an IP address in its usual spelling; None when there is none to be seen.

    `name` is what the MTA found in the DNS, empty when it found nothing.
    """
    for value in message.fields.get(b"received", ()):
        text = b" ".join(value[:MAX_LENGTH].split()).decode("utf-8", "replace")
        if not _OURS.match(text):
            return _client(text)
    return None


def _client(text: str) -> Client | None:
    found = next((m for form in _FORMS if (m := form.match(text))), None)
    ip = _ip(found["ip"]) if found else ""
    if not found or not ip:
        return None
    groups = found.groupdict("")
    helo = _HELO.search(groups["rest"])
    word, name = groups.get("word", ""), groups.get("name", "")
    if helo:
        return Client(ip, word, helo[1])
    if word and not name and _EXIM.match(text, found.end()):
        name = word  # it is said once when HELO and DNS say the same
    name = name.rpartition("@")[2]
    return Client(ip, "" if name == "unknown" else name, word)


def _ip(text: str) -> str:
    """An IP address as it is usually spelled; empty for what is none."""
    if ":" not in text:
        numbers = text.split(".")
        valid = len(numbers) == 4 and all(_BYTE.fullmatch(n) and int(n) < 256 for n in numbers)
        return text if valid else ""
    from ipaddress import AddressValueError, IPv6Address  # rarely needed

    try:
        ip = IPv6Address(text)
    except AddressValueError:
        return ""
    return str(ip.ipv4_mapped or ip)
