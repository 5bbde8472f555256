"""Rewrite the sender of what is forwarded (SRS), and lead what comes back to whom it is for.

A receiver that checks SPF wants the sender's domain to allow the host that sends. So a forwarder
sends `ann@x.org` as `SRS0=HASH=TT=x.org=ann@DOMAIN`, a DOMAIN of its own, and hands on what comes
there. The next forwarder makes `SRS1=HASH=DOMAIN==HASH=TT=x.org=ann@OTHER` of it, and so does each
one behind it, so that an address does not grow with every hop.

The format and the hash are those of srslib, which are those of libsrs2 and postsrsd. What it leaves
out is done here: a hash must have its full length (srslib compares as many characters as come, and
one is soon guessed), local parts may be quoted strings, and what comes out is a strict path. The
hash is compared without case, and an old key still opens what it has closed. No I/O.

Known limits: SRS1 has no date, so it is good for as long as its key. A sender whose address would
become too long stays as it is. The hash, as everywhere, is of the fields in one piece: whoever sees
what he has had forwarded can cut it into other fields (what was `mx@t.co` may become `x@t.com`), so
only bounces are led back.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from .letter import is_address

HASH = 4
"""Characters of a hash, as everywhere."""
DAYS = 21
"""For which an address can be answered, as everywhere."""

_TAG = re.compile(r"SRS[01][-+=]([^=]*)", re.IGNORECASE)
_ATOM = r'[^\0- "(),.:;<>@\[\\\]\x7f]+'
_ATOMS = re.compile(rf"{_ATOM}(?:\.{_ATOM})*")
_PAIR = re.compile(r"\\(.)")
_SPECIAL = re.compile(r'(["\\])')


class Srs:
    """The addresses of one domain. Raises ImportError when srslib is missing, ValueError when
    there is no key."""

    def __init__(self, domain: str, keys: Sequence[bytes], own: Callable[[str], bool]) -> None:
        """`keys`: the newest first, with which is written. `own(domain)`, in lower case: mail
        from there may leave us as it is."""
        import srslib  # not when nothing is rewritten

        if not keys:
            raise ValueError("no key")
        self.domain = domain
        self._own = own
        self._srslib = srslib
        self._srs = srslib.SRS(keys[0], list(keys[1:]), DAYS, HASH)

    def forward(self, sender: str) -> str:
        """The sender of what is forwarded; the null one, and those of own domains, stay."""
        local, at, domain = sender.rpartition("@")
        if not at or "=" in domain or self._is_here(domain) or self._own(domain.lower()):
            return sender
        rewritten = _written(self._srs.forward(f"{_meant(local)}@{domain}", self.domain))
        return rewritten if is_address(rewritten) else sender

    def reverse(self, address: str) -> str | None:
        """Whom mail to an address is for; None when it is no rewritten one of our domain.

        Raises ValueError with a reason when it is one that we never made, or too old.
        """
        local, _, domain = address.rpartition("@")
        meant = _meant(local)
        tag = _TAG.match(meant)
        if tag is None or not self._is_here(domain):
            return None
        if len(tag[1]) < HASH:
            raise ValueError("an SRS address without its hash")
        found = _written(self._opened(f"{meant}@{domain}"))
        if not is_address(found):
            raise ValueError("an SRS address of what is no address")
        return found

    def _is_here(self, domain: str) -> bool:
        return domain.lower() == self.domain.lower()

    def _opened(self, address: str) -> str:
        srslib = self._srslib
        try:
            found: str = self._srs.reverse(address)
        except srslib.InvalidHashError:
            raise ValueError("an SRS address that was not made here") from None
        except srslib.InvalidTimestampError:
            raise ValueError("an SRS address that is too old") from None
        except srslib.Error:
            raise ValueError("a malformed SRS address") from None
        return found


def is_tagged(address: str, domain: str) -> bool:
    """Whether an address looks like a rewritten one of a domain."""
    local, _, here = address.rpartition("@")
    return here.lower() == domain.lower() and bool(_TAG.match(_meant(local)))


def keys_of(content: bytes) -> tuple[bytes, ...]:
    """The keys in a file, one a line, as postsrsd has them."""
    return tuple(line for line in map(bytes.strip, content.splitlines()) if line)


def _meant(local: str) -> str:
    """A local part without the quotes that its characters need (RFC 5321 section 4.1.2)."""
    return _PAIR.sub(r"\1", local[1:-1]) if local.startswith('"') else local


def _written(address: str) -> str:
    """An address with the quotes that it needs."""
    local, _, domain = address.rpartition("@")
    if not _ATOMS.fullmatch(local):
        local = '"' + _SPECIAL.sub(r"\\\1", local) + '"'
    return f"{local}@{domain}"
