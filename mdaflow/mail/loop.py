"""Was this message here before? A proof that only we can write, and a count of hops.

What leaves a recipient carries `X-mdaflow-Loop`, an HMAC of that recipient under the site's
key. A message that comes back with it, or with more than 50 Received fields (RFC 5321 section
6.3), is in a loop (P37). Nobody else can write the proof, so a forged field bounces no mail.

The local part is taken literally (P49), the domain in lower case. No I/O.
"""

from __future__ import annotations

import re
from itertools import islice

from .header import unfold
from .message import Message

FIELD = "X-mdaflow-Loop"
MAX_RECEIVED = 50
MAX_PROOFS = 50
"""Proofs of other recipients that a message keeps when it is sent on."""

_PROOF = re.compile(rb"[0-9a-f]{32}")


def proof(key: bytes, recipient: str) -> str:
    """What shows that a message was here for `recipient`: 32 hexadecimal digits."""
    import hmac  # not when there is nothing to prove: most messages never leave

    local, at, domain = recipient.rpartition("@")
    said = f"loop\0{local}{at}{domain.lower()}".encode("utf-8", "surrogateescape")
    return hmac.digest(key, said, "sha256").hex()[:32]


def came_back(message: Message, recipient: str, key: bytes) -> bool:
    """The message was here for this recipient, or made too many hops. No key: only the count."""
    if len(message.fields.get(b"received", ())) > MAX_RECEIVED:
        return True
    shown = message.fields.get(FIELD.lower().encode(), ())
    if not key or not shown:
        return False
    import hmac

    expected = proof(key, recipient).encode()
    return any(hmac.compare_digest(unfold(value), expected) for value in shown)


def loop_fields(message: Message, recipient: str, key: bytes) -> bytes:
    """The X-mdaflow-Loop fields of a message that leaves `recipient`: ours, and those it had.

    Without the others a loop through two recipients would not be seen. No key: no fields.
    """
    if not key:
        return b""
    shown = map(unfold, message.fields.get(FIELD.lower().encode(), ()))
    others = islice(filter(_PROOF.fullmatch, shown), MAX_PROOFS)
    proofs = dict.fromkeys([proof(key, recipient).encode(), *others])
    return b"".join(b"%b: %b\n" % (FIELD.encode(), value) for value in proofs)
