"""Lists in the DNS: of the addresses of bad clients, and of domains that spam leads to (RFC 5782).

Of a message the client that gave it to our MTA is looked up in lists of addresses; the domains of
its senders, and those that its URLs lead to, in lists of domains. All questions go out at once.
Only what a list means to say counts: an address in 127.0.0.0/8 that is no error code. Everything
else is neutral: no answer, a failure, a list that has closed or refuses us. A list that is silent
is left in peace for `REST`, so that it does not delay all mail (P42).

Nothing is asked about addresses that are not public, and at most `MAX_DOMAINS` of a message, the
first and the last ones. Who asks lists tells them from whom mail comes: nothing is asked unless it
is configured.

Users may ask lists of their choice. So the time for these is apart: it is not taken from that for
the site, and no list has to rest because it had only what was left of it.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from weakref import WeakKeyDictionary

from mdaflow.mail.envelope import Envelope
from mdaflow.mail.message import Message
from mdaflow.mail.received import client

from . import Hit
from .hosts import ascii_host, is_ipv4, registered, url_hosts
from .resolver import Addresses, Resolver

SECONDS = 2.0
MAX_SECONDS = 5.0
"""Seconds that all questions of the site about a message may take, whoever says more (P42); and all
of users."""
REST = 30.0
"""Seconds for which nobody asks a list that did not answer."""
MAX_RESTING = 1_000
MAX_DOMAINS = 10
"""Domains of a message that are looked up."""

log = logging.getLogger("mdaflow")

_ERRORS = ("127.255.255.", "127.0.0.1", "127.0.1.255")
"""What lists answer to whom they refuse: Spamhaus, URIBL, Spamhaus DBL to an address."""


class Dns:
    """Lists of client addresses and of domains: zone -> what it is called in the name of a test.

    `nameservers` as in resolver.py; `seconds` for all questions about a message.
    """

    def __init__(
        self,
        dnsbl: Mapping[str, str],
        uribl: Mapping[str, str],
        nameservers: Sequence[str] = (),
        seconds: float = SECONDS,
    ) -> None:
        """Raises what Resolver raises."""
        self._dnsbl, self._uribl = dict(dnsbl), dict(uribl)
        self._seconds = min(seconds, MAX_SECONDS)
        self._resolver = Resolver(nameservers)
        self._resting: OrderedDict[str, float] = OrderedDict()
        self._spent = {owner: WeakKeyDictionary[Message, float]() for owner in ("site", "user")}

    def hits(
        self, message: Message, envelope: Envelope, seconds: float = MAX_SECONDS
    ) -> tuple[Hit, ...]:
        """The lists that say something, as tests `DNSBL_NAME` and `URIBL_NAME`, each once. How much
        they count is not said here. Never raises."""
        ip = _client_ip(message, envelope) if self._dnsbl else ""
        domains = _domains(message, envelope) if self._uribl else []
        asked = {
            (_reversed(what) or what, zone): (f"{kind}_{name.upper()}", what)
            for kind, lists, whats in (
                ("DNSBL", self._dnsbl, [ip] if _reversed(ip) else []),
                ("URIBL", self._uribl, domains),
            )
            for zone, name in lists.items()
            for what in whats
        }
        codes = self._ask(message, list(asked), seconds)
        found = dict[str, Hit]()
        for (name, zone), (test, what) in asked.items():
            if code := codes.get((name, zone)):
                found.setdefault(test, Hit(test, 0.0, f"{zone} lists {what} ({code})"))
        return tuple(found.values())

    def listed(
        self,
        zone: str,
        message: Message,
        envelope: Envelope,
        seconds: float = MAX_SECONDS,
        *,
        owner: str = "site",
    ) -> bool | None:
        """Is the client in a list of addresses? None when nobody can tell. `owner` is whose rules
        ask. Never raises."""
        ip, zone = _reversed(_client_ip(message, envelope)), ascii_host(zone)
        if not zone:
            return None
        if not ip:  # nobody lists what is not public
            return False
        found = self._ask(message, [(ip, zone)], seconds, owner)
        return bool(found[ip, zone]) if found else None

    def _ask(
        self,
        message: Message,
        asked: list[tuple[str, str]],
        seconds: float,
        owner: str = "site",
    ) -> dict[tuple[str, str], str]:
        """What the lists say of names in zones: a code, or empty for nothing."""
        of_owner = self._spent["site" if owner == "site" else "user"]
        now, spent = time.monotonic(), of_owner.get(message, 0.0)
        seconds = min(seconds, self._seconds, MAX_SECONDS - spent)
        names = {
            f"{what}.{zone}": (what, zone)
            for what, zone in asked
            if now >= self._resting.get(zone, 0.0)
        }
        if not names or seconds <= 0:
            return {}
        found = self._resolver.addresses(list(names), seconds)
        silent = {zone for name, (_, zone) in names.items() if name not in found}
        answered = {zone for name, (_, zone) in names.items() if name in found} - silent
        self._note(answered, silent if seconds >= self._seconds else set())
        of_owner[message] = spent + time.monotonic() - now
        return {names[name]: _code(addresses) for name, addresses in found.items()}

    def _note(self, answered: set[str], silent: set[str]) -> None:
        """Let lists rest that were silent; the log tells once of each, and when it is back."""
        for zone in answered:
            if self._resting.pop(zone, None) is not None:
                log.info("the list %s answers again", zone)
        for zone in silent:
            if zone not in self._resting:
                log.warning("the list %s does not answer, and counts for nothing", zone)
            self._resting[zone] = time.monotonic() + REST
        while len(self._resting) > MAX_RESTING:
            self._resting.popitem(last=False)


def _client_ip(message: Message, envelope: Envelope) -> str:
    return str(envelope.client.ip or getattr(client(message), "ip", ""))


def _domains(message: Message, envelope: Envelope) -> list[str]:
    """The registered domains of senders and URLs that are looked up."""
    senders = (envelope.sender, *(author.address for author in message.addresses("From")[:2]))
    hosts = (*(ascii_host(s.rpartition("@")[2]) for s in senders), *url_hosts(message))
    domains = dict.fromkeys(registered(host) for host in hosts if host)
    known = [domain for domain in domains if not is_ipv4(domain) or _reversed(domain)]
    half = MAX_DOMAINS // 2
    return known if len(known) <= MAX_DOMAINS else [*known[:half], *known[-half:]]


def _reversed(ip: str) -> str:
    """An address as lists spell it; empty for what is none, or not public."""
    try:
        address = ip_address(ip)
    except ValueError:
        return ""
    address = getattr(address, "ipv4_mapped", None) or address
    if not address.is_global or address.is_multicast:
        return ""
    return address.reverse_pointer.removesuffix(".in-addr.arpa").removesuffix(".ip6.arpa")


def _code(addresses: Addresses) -> str:
    """The first address with which a list says that it lists something."""
    said = (a for a in addresses if a.startswith("127.") and not _is_error(a))
    return next(said, "")


def _is_error(address: str) -> bool:
    return address in _ERRORS or address.startswith(_ERRORS[0])
