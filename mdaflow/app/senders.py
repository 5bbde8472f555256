"""Rewriting senders with the keys that stand in a file of the site (SRS, see mail/srs.py).

Nobody but the server and root can read the file, and it is read when it is first needed: who works
for one account never needs it, or cannot read it, and puts off what would be forwarded. A new key
counts within a second.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable

from mdaflow.errors import ConfigError, install
from mdaflow.mail.srs import Srs, is_tagged, keys_of
from mdaflow.route.tables import Table

SHORTEST = 16
"""Bytes of a key."""


class SiteSenders:
    """As Senders in deliver/job.py, for one domain."""

    def __init__(self, domain: str, path: str, own: Callable[[str], bool]) -> None:
        self.domain = domain
        self._table = Table(path, lambda content, path: _srs(domain, content, path, own))

    def load(self) -> None:
        """Read the keys, to begin with. Raises ConfigError."""
        self._table.load()

    def forward(self, sender: str) -> str:
        """The sender with which a message goes on. Raises TempFail."""
        return self._table.get().forward(sender) if sender else ""

    def reverse(self, address: str) -> str | None:
        """Whom mail to a rewritten address is for; None when it is none of ours. Raises TempFail,
        ValueError with a reason for one that we never made, or that is too old."""
        return self._table.get().reverse(address) if is_tagged(address, self.domain) else None


def _srs(domain: str, content: bytes, path: str, own: Callable[[str], bool]) -> Srs:
    keys = keys_of(content)
    problem = _problem(path, keys)
    if problem:
        raise ConfigError((f"{path}: {problem}",))
    try:
        return Srs(domain, keys, own)
    except ImportError:
        raise ConfigError((f"forward.srs needs srslib: {install('srs')}",)) from None


def _problem(path: str, keys: tuple[bytes, ...]) -> str:
    if os.stat(path).st_mode & stat.S_IROTH:
        return "everybody can read it; chmod o-r it"
    if not keys:
        return "no key in it; one a line, such as `openssl rand -base64 18` makes"
    short = min(map(len, keys)) < SHORTEST
    return f"a key of less than {SHORTEST} characters" if short else ""
