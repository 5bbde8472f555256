"""Was this message here before? A proof that only we can write, and a count of hops.

What leaves a recipient carries `X-mdaflow-Loop`, an HMAC under the site's key. A message that comes
back with it, or with more than 50 Received fields (RFC 5321 section 6.3), is in a loop (P37).

Nobody else can write a proof, and it is good for one recipient and one message only: whoever
copies it into another mail has nothing. Which message it is say its Message-ID, its Date, and the
first address in From; MTAs leave these alone, and add those that are missing. So the first digit
of a proof says which of them there were, and where one was missing, the text counts, too, as far
as `MAX_TEXT` and without blanks and line ends.

The local part is taken literally (P49), the domain in lower case. No I/O.

Known limits: where a hop changes one of them, or the text of a mail that has not all, the loop is
found one round later, and if it does so anew each time, by its length. A proof goes with a copy of
the very message.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from itertools import islice

from .date import parse_date
from .header import MAX_FIELD, unfold
from .message import Message
from .raw import cut

FIELD = "X-mdaflow-Loop"
MAX_RECEIVED = 50
MAX_PROOFS = 50
"""Proofs of other recipients that a message keeps when it is sent on."""
MAX_TEXT = 64 << 10
"""Bytes of the text that count."""

_PROOF = re.compile(rb"[0-9a-f]{32}")
_BLANK = b" \t\r\n\0"


def proof(key: bytes, recipient: str, message: Message, which: int | None = None) -> str:
    """What shows that a message was here for `recipient`: 32 hexadecimal digits.

    `which` of MARKS it speaks of, a bit each; by default of those that there are.
    """
    import hmac  # not when there is nothing to prove: most messages never leave

    which = _marked(message) if which is None else which
    local, at, domain = recipient.rpartition("@")
    whose = f"{which:x} {local}{at}{domain.lower()}".encode("utf-8", "surrogateescape")
    marks = (mark(message) for n, mark in enumerate(MARKS) if which >> n & 1)
    said = b"\0".join((b"loop of one message", whose, *marks))
    return f"{which:x}{hmac.digest(key, said, 'sha256').hex()[:31]}"


def came_back(message: Message, recipient: str, key: bytes) -> bool:
    """The message was here for this recipient, or made too many hops. No key: only the count."""
    if len(message.fields.get(b"received", ())) > MAX_RECEIVED:
        return True
    shown = _shown(message)
    if not key or not shown:
        return False
    import hmac

    @cache
    def expected(which: int) -> bytes:
        return proof(key, recipient, message, which).encode()

    return any(hmac.compare_digest(value, expected(int(value[:1], 16))) for value in shown)


def loop_fields(
    message: Message, recipient: str, key: bytes, leaving: Message | None = None
) -> bytes:
    """The X-mdaflow-Loop fields of a message that leaves `recipient`: ours, and those it had.

    `leaving` is what rules have made of it. Without the others a loop through two recipients would
    not be seen. No key: no fields.
    """
    if not key:
        return b""
    others = islice(_shown(message), MAX_PROOFS)
    proofs = dict.fromkeys([proof(key, recipient, leaving or message).encode(), *others])
    return b"".join(b"%b: %b\n" % (FIELD.encode(), value) for value in proofs)


def _shown(message: Message) -> list[bytes]:
    """What looks like a proof."""
    values = map(unfold, message.fields.get(FIELD.lower().encode(), ()))
    return list(filter(_PROOF.fullmatch, values))


def _message_id(message: Message) -> bytes:
    return _first(message, b"message-id")


def _date(message: Message) -> bytes:
    text = _first(message, b"date")
    found = parse_date(text.decode("latin-1"))  # however it is written
    return str(found[0]).encode() if found else text


def _author(message: Message) -> bytes:
    address = next((a.address for a in message.addresses("From")), "")
    # one without a domain gets that of the next MTA
    return address.lower().encode("utf-8", "surrogateescape") if "@" in address else b""


def _text(message: Message) -> bytes:
    start = message.header_end
    return cut(message.raw, start, start + MAX_TEXT).translate(None, _BLANK)


MARKS: tuple[Callable[[Message], bytes], ...] = (_message_id, _date, _author, _text)
"""What makes a message this one and no other."""
_ALL = 0b0111
_TEXT = 0b1000


def _marked(message: Message) -> int:
    """The marks that a message has; with its text if it lacks another."""
    found = sum(1 << n for n, mark in enumerate(MARKS[:3]) if mark(message))
    return found if found == _ALL else found | _TEXT


def _first(message: Message, name: bytes) -> bytes:
    values = message.fields.get(name, [b""])
    return b" ".join(values[0][:MAX_FIELD].split())
