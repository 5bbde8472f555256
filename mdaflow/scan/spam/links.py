"""Links: what a URL points at, and whose domain a host belongs to."""

from __future__ import annotations

import re
from functools import lru_cache
from itertools import islice
from typing import NamedTuple

from ..hosts import LONGEST, registered

MAX_URL = 2000
_MAX_URLS = 500

_URL = re.compile(r"(?:https?://|\bwww\d?\.)[^\s<>\"'\\|]{1,2000}", re.IGNORECASE)
_SPLIT = re.compile(
    r"(?:([a-z][a-z0-9+.-]{0,20}):)?(?://)?([^/?#\\]*)(.*)", re.IGNORECASE | re.DOTALL
)


class Url(NamedTuple):
    """A link in its pieces; those that are missing are empty."""

    scheme: str
    user: str
    host: str
    """In lower case."""
    port: str
    path: str
    """With query and fragment."""


def read_url(text: str) -> Url:
    """Any text as a link; nothing is decoded."""
    found = _SPLIT.match(text[:MAX_URL].strip())
    assert found is not None  # every piece may be empty
    scheme, authority, path = found.groups("")
    user, _, place = authority.rpartition("@")
    host, _, port = place.partition(":")
    return Url(scheme.lower(), user, host.lower().rstrip("."), port, path)


def urls_in(text: str) -> list[Url]:
    """The links that are written out in a text."""
    found = islice(_URL.finditer(text), _MAX_URLS)
    return [
        read_url(f"{'' if '://' in m[0] else 'http://'}{m[0].rstrip('.,;:!?)]>*_')}") for m in found
    ]


@lru_cache(4096)
def site(host: str) -> str:
    """The domain that somebody has registered, of a host in lower case; an IP address as it is."""
    return registered(host[:LONGEST].strip("."))
