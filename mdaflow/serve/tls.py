"""TLS for STARTTLS (RFC 3207): TLS 1.2 or later, with the certificate of the configuration.

The master makes the context, before it drops its rights: the key is for its eyes only. A new
certificate counts from the next SIGHUP on.
"""

from __future__ import annotations

import ssl
from asyncio import sslproto

from ..app.config import Lmtp
from ..errors import ConfigError

sslproto.SSLProtocol.max_size = 32 << 10  # of a buffer that each connection gets; was 256 KiB


def context(limits: Lmtp) -> ssl.SSLContext | None:
    """What connections need for TLS; None without a certificate. Raises ConfigError."""
    if not limits.certificate:
        return None
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        # an empty password, so that nobody is asked for one
        made.load_cert_chain(limits.certificate, limits.key or None, password=b"")
    except (OSError, ValueError) as error:
        named = limits.certificate + (f", {limits.key}" if limits.key else "")
        raise ConfigError((f"lmtp.certificate: {named}: {_why(error)}",)) from error
    return made


def _why(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return f"no certificate with its key, in PEM and without password ({error.reason})"
    return getattr(error, "strerror", None) or str(error)
