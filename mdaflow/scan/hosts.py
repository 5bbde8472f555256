"""The hosts that the URLs of a message lead to, and the domains that somebody has registered.

URLs are looked for in the text of all text parts, markup and all. A host is read as browsers read
it: without user and port, in lower case, international ones as A-labels (RFC 5890, UTS 46). Nothing
here does I/O or raises; what is no host is passed over.

Known limits: a URL that is written in character references is not seen. Without the list of public
suffixes (`pip install 'mdaflow[dns]'`) a registered domain is guessed by its length.
"""

from __future__ import annotations

import re
from functools import cache
from itertools import islice
from typing import Any
from urllib.parse import unquote

from mdaflow.mail.message import Message

MAX_TEXT = 256 << 10
"""Characters of a part in which URLs are looked for."""
MAX_PARTS = 20
MAX_URLS = 5_000
MAX_HOSTS = 200
"""Of a message: an international one can take half a millisecond."""
LONGEST = 253
"""Characters of a host."""

_URL = re.compile(
    r"(?:(?:https?|ftp):[/\\]{2}|(?<![\w.@-])(?=www\.))([^\s/\\?#\"'<>]{1,300})", re.IGNORECASE
)
_HOST = re.compile(r"(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)+[a-z][a-z0-9-]{1,62}")
_IPV4 = re.compile(r"(?:\d{1,3}\.){3}\d{1,3}", re.ASCII)


def url_hosts(message: Message) -> list[str]:
    """The hosts of URLs, each once, in their order."""
    texts = (part.text[:MAX_TEXT] for part in message.parts[:MAX_PARTS] if not part.attached)
    urls = islice((url[1] for text in texts for url in _URL.finditer(text)), MAX_URLS)
    some = islice(dict.fromkeys(urls), MAX_HOSTS)
    return list(dict.fromkeys(filter(None, map(host_of, some))))


def host_of(authority: str) -> str:
    """The host of a URL's authority as it is asked for in the DNS; empty for what is none."""
    host = authority.rpartition("@")[2].partition(":")[0]
    if len(host) > LONGEST:
        return ""
    return ascii_host(unquote(host) if "%" in host else host)


def ascii_host(host: str) -> str:
    """A domain or an IPv4 address in its only spelling; empty for what is neither."""
    host = host.rstrip(".").lower()
    if not host.isascii():
        host = _a_labels(host)
    return host if len(host) <= LONGEST and (_HOST.fullmatch(host) or is_ipv4(host)) else ""


def is_ipv4(host: str) -> bool:
    """Is it an address in dotted decimals?"""
    return bool(_IPV4.fullmatch(host)) and all(int(part) < 256 for part in host.split("."))


def _a_labels(host: str) -> str:
    if len(host) > LONGEST:
        return ""
    try:
        import idna

        return idna.encode(host, uts46=True).decode()
    except (ImportError, UnicodeError):  # idna.IDNAError is one
        return ""


def registered(host: str) -> str:
    """The domain that somebody has registered, of a host as `ascii_host` gives it; an address as
    it is."""
    if is_ipv4(host):
        return host
    suffixes = _suffixes()
    if suffixes is not None:
        return suffixes.privatesuffix(host) or host
    *_, third, second, top = ("", "", *host.split("."))
    wide = len(top) == 2 and len(second) <= 3 and third
    return f"{third}.{second}.{top}" if wide else f"{second}.{top}".strip(".")


@cache
def _suffixes() -> Any:
    try:
        from publicsuffixlist import PublicSuffixList
    except ImportError:
        return None
    return PublicSuffixList()
