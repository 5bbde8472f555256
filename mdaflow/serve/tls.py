"""TLS for STARTTLS (RFC 3207): TLS 1.2 or later, with the certificate of the configuration.

The master makes the context, before it drops its rights: the key is for its eyes only. A new
certificate counts from the next SIGHUP on.
"""

from __future__ import annotations

import os
import ssl
from asyncio import sslproto

from ..app.config import Lmtp
from ..errors import ConfigError

sslproto.SSLProtocol.max_size = 32 << 10  # of a buffer that each connection gets; was 256 KiB


def context(limits: Lmtp) -> ssl.SSLContext | None:
    """What connections need for TLS; None without a certificate. Raises ConfigError."""
    if not limits.certificate:
        if limits.key:
            raise ConfigError(("lmtp.key: without lmtp.certificate it is of no use",))
        return None
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    for name, path in (("certificate", limits.certificate), ("key", limits.key)):
        _readable(name, path)
    try:
        # an empty password, so that nobody is asked for one
        made.load_cert_chain(limits.certificate, limits.key or None, password=b"")
    except (OSError, ValueError) as error:
        wanted = f"{limits.certificate}: no certificate with its key, in PEM, without password"
        why = getattr(error, "reason", None) or "cannot be read as such"
        raise ConfigError((f"lmtp.certificate: {wanted} ({why})",)) from error
    return made


def _readable(name: str, path: str) -> None:
    try:
        if path:
            os.close(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
    except OSError as error:
        raise ConfigError((f"lmtp.{name}: {path}: {error.strerror}",)) from error
