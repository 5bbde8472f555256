"""The envelope of one recipient: what the MTA said about a message, apart from its bytes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Client:
    """The SMTP client that gave the message to our MTA, as far as the MTA told us (XFORWARD)."""

    ip: str = ""
    name: str = ""
    helo: str = ""


NOBODY = Client()


@dataclass(frozen=True, slots=True)
class Envelope:
    """Sender, one recipient, and how the message came (RFC 5321 section 2.3.1).

    Addresses are literal: nothing in them was decoded, folded or merged (P49).
    """

    sender: str = ""
    """The reverse-path without brackets; empty for the null sender `<>`."""
    recipient: str = ""
    """The forward-path of this recipient."""
    original: str = ""
    """The recipient before the MTA's aliases (ORCPT); empty when the MTA did not say."""
    client: Client = NOBODY
    queue_id: str = ""
    """The MTA's queue id; empty when it did not say."""
    protocol: str = "LMTP"
    """The `with` word of our Received field (RFC 3848): LMTP, LMTPS, or local."""
    peer: str = ""
    """Who handed us the message: the HELO word of the LMTP client, or a login name."""
    received: float = 0.0
    """Arrival, in seconds since the epoch, UTC."""
    notify: tuple[str, ...] = ()
    """When the sender wants to be told (RFC 3461): NEVER, or of SUCCESS, FAILURE, DELAY."""
    ret: str = ""
    """What a report shall bring back: FULL, HDRS, or empty."""
    envid: str = ""
    """The sender's name for this transaction (ENVID), decoded."""
    orcpt: str = ""
    """The value of ORCPT as it was sent: `rfc822;xtext`."""
    allowed: bool = False
    """Our access table says OK: it is no spam, whatever scanners would say."""
    released: bool = False
    """Somebody has let it out of the quarantine: no rule puts it there again."""
