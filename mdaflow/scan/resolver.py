"""Questions to a resolver, all at once: which IPv4 addresses do some names have (RFC 1035)?

One UDP socket for each round carries all questions; what is not answered, or with a failure, is
asked again of the next resolver, or of the same one. The socket takes answers of the one it asks
only, and an answer counts if its number and question are right. A truncated one is asked for by
TCP. All together takes no longer than it may, whatever the other side does.

Answers are kept for as long as they say, but between `SHORTEST` and `LONGEST`, in this process.
dnspython writes and reads the messages: `pip install 'mdaflow[dns]'`.

Known limits: DNSSEC is left to the resolver, which should be on this machine.
"""

from __future__ import annotations

import socket
import time
from collections import OrderedDict
from collections.abc import Collection, Iterator, Sequence
from secrets import randbelow
from threading import Lock
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dns.message import Message as DnsMessage

SHORTEST, LONGEST = 60.0, 3600.0
"""Seconds for which an answer is kept."""
NOTHING = 300.0
"""Seconds at most, if there is no address."""
MAX_KEPT = 20_000
"""Answers that are kept."""
MAX_ADDRESSES = 16
"""Addresses of a name."""
MAX_PACKETS = 1_000
"""Packets that are looked at in a round."""
PORT = 53

Addresses = tuple[str, ...]
Server = tuple[str, int]


class Resolver:
    """Asks `nameservers`, each an address or `ADDRESS:PORT`; without any those of the system."""

    def __init__(self, nameservers: Sequence[str] = ()) -> None:
        """Raises ImportError without dnspython, ValueError for what is no address of a server,
        OSError when the system has none."""
        import dns.message  # now, and not when the first message comes
        import dns.query  # noqa: F401

        self._servers = [_server(text) for text in nameservers] or _of_the_system()
        self._kept: OrderedDict[str, tuple[float, Addresses]] = OrderedDict()
        self._lock = Lock()

    def addresses(self, names: Collection[str], seconds: float) -> dict[str, Addresses]:
        """The addresses of names, none for a name that does not exist.

        A name is missing when nobody has told within so many seconds. Never raises.
        """
        now = time.monotonic()
        found = {name: kept for name in names if (kept := self._known(name, now)) is not None}
        asked = [name for name in dict.fromkeys(names) if name not in found]
        for name, addresses, ttl in self._ask(asked, now + seconds):
            found[name] = addresses
            self._keep(name, addresses, now + min(max(ttl, SHORTEST), LONGEST))
        return found

    def _known(self, name: str, now: float) -> Addresses | None:
        until, addresses = self._kept.get(name, (0.0, ()))
        return addresses if now < until else None

    def _keep(self, name: str, addresses: Addresses, until: float) -> None:
        with self._lock:
            self._kept.pop(name, None)
            self._kept[name] = until, addresses
            while len(self._kept) > MAX_KEPT:
                self._kept.popitem(last=False)

    def _ask(self, names: Sequence[str], until: float) -> Iterator[tuple[str, Addresses, float]]:
        waiting: dict[int, tuple[str, DnsMessage]] = {}
        for name in names:
            query = _query(name, waiting)
            if query is None:
                yield name, (), LONGEST  # no name at all
            else:
                waiting[query.id] = name, query
        rounds = (self._servers * 2)[: max(2, len(self._servers))]
        for number, server in enumerate(rounds):
            now = time.monotonic()
            end = now + (until - now) / (len(rounds) - number)
            if waiting:
                yield from _round(server, waiting, end)


def _round(
    server: Server, waiting: dict[int, tuple[str, DnsMessage]], end: float
) -> Iterator[tuple[str, Addresses, float]]:
    """Ask for all that is waiting, and take it out as it is answered."""
    open_ones = dict(waiting)
    family = socket.AF_INET6 if ":" in server[0] else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        try:
            sock.settimeout(max(end - time.monotonic(), 0.001))
            sock.connect(server)
            for _, query in open_ones.values():
                sock.send(query.to_wire())
            for _ in range(MAX_PACKETS):
                left = end - time.monotonic()
                if not open_ones or left <= 0:
                    return
                sock.settimeout(left)
                wire = sock.recv(4096)
                number = int.from_bytes(wire[:2], "big")
                if number not in open_ones or not (answer := _parsed(wire, open_ones[number][1])):
                    continue
                name, query = open_ones.pop(number)
                if found := _read(answer, query, server, end):
                    del waiting[number]
                    yield name, *found
        except OSError:  # it is too late, or nobody is there
            return


def _query(name: str, others: Collection[int]) -> DnsMessage | None:
    from dns.exception import DNSException
    from dns.message import make_query

    try:
        query = make_query(name, "A")
        query.to_wire()
    except (DNSException, ValueError):
        return None
    while query.id in others:
        query.id = randbelow(1 << 16)
    return query


def _parsed(wire: bytes, query: DnsMessage) -> DnsMessage | None:
    """The answer to a question; None for anything else."""
    from dns.message import from_wire

    try:
        answer = from_wire(wire, ignore_trailing=True)
        return answer if query.is_response(answer) else None
    except Exception:  # hostile bytes: a library may stumble over them in its own way
        return None


def _read(
    answer: DnsMessage, query: DnsMessage, server: Server, end: float
) -> tuple[Addresses, float] | None:
    """Addresses and their time to live in seconds; None for a failure."""
    from dns.flags import TC
    from dns.message import QueryMessage
    from dns.query import tcp
    from dns.rcode import NOERROR, NXDOMAIN

    try:
        if answer.flags & TC:
            left = end - time.monotonic()
            answer = tcp(query, server[0], timeout=max(left, 0.001), port=server[1])
        if answer.rcode() not in (NOERROR, NXDOMAIN) or not isinstance(answer, QueryMessage):
            return None
        chain = answer.resolve_chaining()
        found = [data.to_text() for data in chain.answer or ()]
        ttl = chain.minimum_ttl if found else min(chain.minimum_ttl, NOTHING)
        return tuple(found[:MAX_ADDRESSES]), float(ttl)
    except Exception:  # a loop of aliases, a server that hangs up, hostile bytes
        return None


def _server(text: str) -> Server:
    from ipaddress import ip_address

    host, colon, port = text.rpartition(":")
    if not colon or (":" in host and not host.endswith("]")):  # IPv6 without a port
        host, port = text, str(PORT)
    host = host.removeprefix("[").removesuffix("]")
    if not port.isascii() or not port.isdigit() or not 0 < int(port) < 1 << 16:
        raise ValueError(f"{text!r} is no address of a name server")
    return str(ip_address(host)), int(port)


def _of_the_system() -> list[Server]:
    import dns.resolver

    try:
        return [_server(str(address)) for address in dns.resolver.Resolver().nameservers]
    except dns.resolver.NoResolverConfiguration as error:
        raise OSError(f"no name server: {error}") from error
