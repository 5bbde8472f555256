"""Hostile messages through a running server into a Maildir and an mbox, and how they come back.

What is behind the fields that mdaflow puts on top is compared by its hash. The mbox is split by
Python's `mailbox`, which takes every line that begins with `From ` for a new message, and by
Dovecot.
"""

from __future__ import annotations

import mailbox
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from dovecot import Dovecot
from hostile import Hostile, hostile, quoted
from mailboxes import maildir
from mdaflow_server import MBOXES, Lmtp, Mdaflow, User

_QUOTED = re.compile(rb"^>(>*From )", re.MULTILINE)
_OURS = b" by store.example (mdaflow) "


class Sent(NamedTuple):
    """Messages that two users have got, in the same order."""

    numbers: range
    seed: int
    maildir: User
    mbox: User

    def messages(self) -> Iterator[Hostile]:
        """What they have got."""
        return (hostile(number, self.seed) for number in self.numbers)


def send(
    mdaflow: Mdaflow, count: int, seed: int, shown: Callable[[int], object] = lambda number: None
) -> Sent:
    """Send so many messages to two new users; `shown` is told how far we are."""
    sent = Sent(range(count), seed, mdaflow.user(), mdaflow.user(domain=MBOXES))

    def send_to(user: User) -> None:
        with Lmtp(mdaflow.socket) as client:
            for number, message in enumerate(sent.messages()):
                reply = client.deliver(user.address, message.wire)
                assert reply.startswith("250 "), f"message {number} of seed {seed}: {reply}"
                shown(number)

    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(send_to, user) for user in (sent.maildir, sent.mbox)]:
            done.result()
    return sent


def in_maildir(sent: Sent) -> list[str]:
    """What is not in the Maildir as it should be, or should not be there."""
    found = (mail.raw for mail in maildir(sent.maildir.maildir))
    return _differences(sent, (m.maildir for m in sent.messages()), map(_below_ours, found))


def in_mbox(sent: Sent) -> list[str]:
    """The same for the mbox, split by Python."""
    split = by_python(sent.mbox.mbox / "inbox")
    found = (_below_ours(_QUOTED.sub(rb"\1", raw)) for raw in split)
    return _differences(sent, (m.mbox for m in sent.messages()), found)


def by_dovecot(sent: Sent, dovecot: Dovecot) -> list[str]:
    """The same by IMAP, where a NUL cannot be (RFC 3501 section 9) and lines end in CRLF."""
    found = (_below_ours(_for_imap(mail.raw)) for mail in dovecot.fetch(sent.mbox.address))
    return _differences(sent, (_for_imap(quoted(m.mbox)) for m in sent.messages()), found)


def by_python(file: Path) -> Iterator[bytes]:
    """The messages of an mbox as the standard library reads them."""
    box = mailbox.mbox(file, create=False)
    try:
        yield from map(box.get_bytes, box.keys())
    finally:
        box.close()


def _below_ours(raw: bytes) -> bytes:
    """Behind the fields that mdaflow has put on top."""
    return raw.partition(_OURS)[2].partition(b" +0000\n")[2]


def _for_imap(raw: bytes) -> bytes:
    return raw.replace(b"\r\n", b"\n").replace(b"\0", b"\x80")


def _differences(sent: Sent, wanted: Iterable[bytes], found: Iterable[bytes]) -> list[str]:
    numbers = {sha256(raw).digest(): number for number, raw in enumerate(wanted)}
    hashes = Counter(sha256(raw).digest() for raw in found)
    missing = [
        f"message {n} of seed {sent.seed} is not there" for h, n in numbers.items() if not hashes[h]
    ]
    strange = [f"{count} of something else" for h, count in hashes.items() if h not in numbers]
    return missing + strange
