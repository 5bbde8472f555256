"""What all connections of one worker share: limits, announcements, and who may come in (P33).

A worker that is full makes room for who comes by dismissing who has the word and brings nothing:
who has no transaction open and has said nothing for a second, else who has brought no message, and
no part of one, for ten. So idle and slow connections, however many, keep nobody out.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import struct
from ipaddress import IPv6Address, ip_address, ip_network
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NamedTuple

from ..app.config import Config
from ..errors import SHUTTING_DOWN, Status
from . import reply, sockets, wire, xforward
from .courier import Crew
from .spool import Spool

if TYPE_CHECKING:
    from .lmtp import Connection

log = logging.getLogger("mdaflow")

MAX_PER_ADDRESS = 50
"""Connections of one TCP address that is not trusted."""
IDLE, FRUITLESS = 1.0, 10.0
"""Seconds that a client of a full worker keeps its place: saying nothing outside a transaction,
and saying what brings no mail."""


class Peer(NamedTuple):
    """Who is at the other end of a connection."""

    address: str = ""
    """Of TCP; empty for a unix socket."""
    trusted: bool = False
    """XFORWARD is believed, and only all connections together are limited."""
    proxied: bool = False
    """A PROXY header comes first."""
    uid: int = -1
    """Of the process at the other end of a unix socket."""

    def __str__(self) -> str:
        return self.address or f"uid {self.uid} ({sockets.login(self.uid)})"


class Service:
    """The LMTP service of one worker."""

    def __init__(self, config: Config, crew: Crew, tls: ssl.SSLContext | None = None) -> None:
        limits = config.lmtp
        self.limits = limits
        self.crew = crew
        self.tls = tls
        self.spool = Spool(limits.spool or config.state, limits.max_size, limits.reserve)
        self.buffer = memoryview(bytearray(wire.CHUNK))
        self.connections: set[Connection] = set()
        self.draining = False
        """A connection that had its transaction is over."""
        self.dismissing = False
        """So is one that has not begun any."""
        self.hostname = config.hostname or socket.gethostname()
        self._trusted = [ip_network(network) for network in limits.trusted]
        self._proxies = [ip_network(network) for network in limits.proxies]
        self._uids = sockets.uids(limits)
        self.spool.check()

    def extensions(self, *, trusted: bool, secure: bool) -> bytes:
        """The reply to LHLO."""
        words = [self.hostname, "PIPELINING", "ENHANCEDSTATUSCODES", f"SIZE {self.limits.max_size}"]
        words += ["8BITMIME", "SMTPUTF8", "DSN"]
        if self.tls is not None and not secure:
            words.append("STARTTLS")
        if trusted:
            words.append("XFORWARD " + " ".join(xforward.ATTRIBUTES))
        lines = [f"250-{word}" for word in words[:-1]] + [f"250 {words[-1]}"]
        return "\r\n".join(lines).encode()

    # --- who comes -------------------------------------------------------------------------

    def look_at(self, sock: socket.socket, peername: tuple[str, int]) -> Peer:
        """Who is at the other end."""
        if sock.family == socket.AF_UNIX:
            found = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
            pid, uid, _ = _CREDENTIALS.unpack(found)
            log.info("connect from a local process (pid=%d, uid=%d)", pid, uid)
            return Peer(trusted=True, uid=uid)
        address = peername[0].partition("%")[0]
        log.info("connect from %s", address)
        return self.behind(address, proxied=_in(address, self._proxies))

    def behind(self, address: str, *, proxied: bool = False) -> Peer:
        """A TCP client with this address."""
        return Peer(address, _in(address, self._trusted), proxied)

    def admit(self, connection: Connection) -> Status | None:
        """Take a connection in, or say why not."""
        peer = connection.peer
        if self.dismissing:
            return SHUTTING_DOWN
        if self._uids and not peer.address and peer.uid not in self._uids:
            log.warning("%s is not in lmtp.peers, refused", peer)
            return reply.NOT_FOR_YOU
        if self.crowded(peer) or not self._has_place():
            return reply.BUSY
        self.connections.add(connection)
        return None

    def crowded(self, peer: Peer) -> bool:
        """Has a TCP client too many connections?"""
        if peer.trusted or peer.proxied:
            return False
        return sum(c.peer.address == peer.address for c in self.connections) >= MAX_PER_ADDRESS

    def _has_place(self) -> bool:
        if len(self.connections) < self.limits.max_connections:
            return True
        now = asyncio.get_running_loop().time()
        waiting = [c for c in self.connections if c.has_word and not c.closing]
        idle = [c for c in waiting if not c.open and now - c.since > IDLE]
        slow = [c for c in waiting if now - c.progress > FRUITLESS]
        for found, at in ((idle, "since"), (slow, "progress")):
            if found:
                min(found, key=attrgetter(at)).give_place()
                return True
        return False

    def sweep(self) -> None:
        """To be called now and then."""
        now = asyncio.get_running_loop().time()
        for connection in tuple(self.connections):
            connection.sweep(now)

    # --- the end ---------------------------------------------------------------------------

    def drain(self) -> None:
        """Let running transactions end, and who has just come begin one."""
        self.draining = True
        self._dismiss()

    def dismiss(self) -> None:
        """Let running transactions end; nobody begins one."""
        self.dismissing = True
        self._dismiss()

    def abandon(self) -> None:
        """Answer 451 or 421 to all that still runs."""
        self.crew.abandon()
        self._dismiss(open_too=True)

    def _dismiss(self, *, open_too: bool = False) -> None:
        for connection in tuple(self.connections):
            connection.dismiss(open_too=open_too)


_CREDENTIALS = struct.Struct("3i")  # struct ucred of unix(7)


def _in(address: str, networks: list[Any]) -> bool:
    found = ip_address(address)
    if isinstance(found, IPv6Address) and found.ipv4_mapped:  # a socket for both, from systemd
        found = found.ipv4_mapped
    return any(found in network for network in networks)
