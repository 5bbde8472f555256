"""Known senders: those to whom a user has written before.

The addresses are those of To, Cc and Bcc in the user's Sent folders, followed by an index (see
index.py), which has no addresses in it, only numbers made of them. Once written to is known for
good, but of at most the last 50,000 messages; what was sent to more than 100 addresses is no
correspondence.

Anybody can write any address into From. So a sender is known only if all authors are, and none
of them is the user: nobody is forged more often. And not when our own MTA says that the message
fails DMARC. Spellings that differ in case only are one address here.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from hashlib import blake2b

from mdaflow.mail.authres import results
from mdaflow.mail.message import Message

from .index import PAUSE, Index
from .letters import Folder

MOST = 50_000
"""Messages whose addresses are known."""
MAX_ADDRESSES = 100
"""Of one message."""
MAX_AUTHORS = 10
HEAD = 64 << 10
"""Bytes of a message in which its header is."""


def sent_index(
    path: str, folders: Sequence[Folder], *, most: int = MOST, pause: float = PAUSE
) -> Index:
    """The index of folders of sent mail in the file `path`."""
    return Index(path, folders, _written_to, most=most, head=HEAD, keep=True, pause=pause)


def is_known(
    message: Message, index: Index, own: Collection[str] = (), trusted: Collection[str] = ()
) -> bool:
    """Has the user written to all authors of a message?

    `own` are the user's addresses, `trusted` the authserv-ids that are believed. Raises OSError
    when the index cannot be read.
    """
    authors = {a.address.casefold() for a in message.addresses("From") if a.address}
    if not 0 < len(authors) <= MAX_AUTHORS or authors & {o.casefold() for o in own}:
        return False
    if "fail" in results(message, trusted)["dmarc"]:
        return False
    return all(index.has([_print(author)]) for author in authors)


def _written_to(raw: bytes) -> list[tuple[int, int]]:
    message = Message.from_wire(raw)
    found = {a.address.casefold() for n in ("To", "Cc", "Bcc") for a in message.addresses(n)}
    return [_print(address) for address in found if "@" in address and len(found) <= MAX_ADDRESSES]


def _print(address: str) -> tuple[int, int]:
    raw = address.encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(raw, digest_size=8).digest(), "big") >> 1, 0
