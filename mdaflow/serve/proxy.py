"""The PROXY header (HAProxy, versions 1 and 2), by which a proxy tells whose connection it is.

aiosmtpd reads it; here it gets its bytes from a `Wire`. Only peers that the configuration
names are believed, and they must send one.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from ipaddress import IPv4Address, IPv6Address

Read = Callable[[int], Awaitable[bytes]]
"""The next bytes: at least one, at most so many."""


class _Reader:
    """What aiosmtpd wants to read from."""

    def __init__(self, read: Read) -> None:
        self._read = read

    async def read(self, n: int = 1) -> bytes:
        """At least one byte, at most so many."""
        return await self._read(n)

    async def readexactly(self, n: int = 1) -> bytes:
        """So many bytes."""
        found = b""
        while len(found) < n:
            found += await self.read(n - len(found))
        return found

    async def readuntil(self, separator: bytes = b"\n") -> bytes:
        """Up to the separator, and with it; more than 107 bytes are no header."""
        found = b""
        while not found.endswith(separator) and len(found) < 108:
            found += await self.read(1)
        return found


async def source(read: Read) -> str:
    """The address of the client behind the proxy; empty when the proxy speaks for itself.

    Raises ValueError for what is no PROXY header, and what `read` raises.
    """
    from aiosmtpd.proxy_protocol import get_proxy  # 80 ms, and only where it is wanted

    logging.getLogger("mail.debug").disabled = True  # what is wrong is for us to tell
    found = await get_proxy(_Reader(read))
    if not found.valid:
        raise ValueError(found.error)
    address = found.src_addr
    local = found.version == 2 and found.command == 0
    return str(address) if isinstance(address, IPv4Address | IPv6Address) and not local else ""
