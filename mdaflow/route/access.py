"""The access table: what is known of clients, senders and recipients. Its file is access_file.py.

There are three questions: the client (by name; when that has no answer, by address), the sender,
the recipient. For each the keys are asked from the most specific to the least: whole addresses,
then `user@`, then domains; each with its detail, as `user+*`, and without. Of one key the tagged
spelling comes first. The first that is found answers: SKIP says that there is no answer, and
nothing else is asked. Of several files the first with an answer counts. This order is sendmail's.

What a verdict means for a recipient:

    REJECT    refused at RCPT with `status`, 4yz or 5yz, before aliases and rules.
    DISCARD   accepted and dropped: no rule runs, nobody gets a copy, the log says so.
    OK        rules see no spam (`Envelope.allowed`): `spam` is false, `spam.score` 0.
              Viruses, quotas, loops and unknown users are what they were.
    RELAY     by a key `To:` a recipient in a domain that none of our tables names goes on to
              the next MTA; else nothing: what clients and senders may is the MTA's matter. It keeps
              broader keys from answering.

The first question that is refused or discarded decides. So an OK is never more than the answer to
its own question: `To:abuse@ OK` takes that recipient out of `To:example.org REJECT`, and no spam
filter stands in its way, but a client or a sender that is refused cannot write to it either.

Nothing is decoded or merged (P49) but case, quotes that a local part need not have, as for aliases,
and the spelling of an IP address in brackets: a domain is spelled as in the envelope (U-labels or
A-labels).
No I/O but that of tables.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from mdaflow.errors import Status
from mdaflow.mail.address import split_local
from mdaflow.mail.envelope import Client

from .access_file import (
    CONNECT,
    FROM,
    TO,
    V6,
    Entry,
    Key,
    Keys,
    literal,
    packed,
    parse_access,
    spelled,
)
from .aliases import bare
from .tables import Table

MAX_LABELS = 128
"""Labels of a domain that are looked at: it has no more (RFC 1035 section 2.3.4)."""


class Verdict(NamedTuple):
    """What the table says of a message to a recipient."""

    action: str
    """OK, RELAY, REJECT or DISCARD."""
    status: Status | None
    """The reply of REJECT."""
    key: str
    """The key that was found, as `From:example.org`."""
    where: str
    """`file:line` of the key."""
    allowed: bool = False
    """It is no spam, whatever scanners would say: some question was answered by OK."""

    @property
    def stops(self) -> bool:
        """Is the message not delivered?"""
        return self.action in ("REJECT", "DISCARD")

    @property
    def relays(self) -> bool:
        """Does the message go on, if the recipient is none of ours?"""
        return self.action == "RELAY" and self.key.startswith(f"{TO}:")


class Asked(NamedTuple):
    """A key that was asked: first with its tag, then without."""

    key: str
    answer: str
    """As it is written in the table; empty for none."""
    where: str
    """`file:line` of the key that was found, else the file."""


class Access:
    """The access tables of a site; `delimiters` divide user and detail of its recipients."""

    def __init__(self, paths: Iterable[str], delimiters: str = "+") -> None:
        self.tables = [Table(path, parse_access) for path in paths]
        self._delimiters = delimiters

    def judge(
        self, client: Client, sender: str, recipient: str, asked: list[Asked] | None = None
    ) -> Verdict | None:
        """What is known of a message; None when that is nothing. Takes any text for an address.

        `asked` gets every key that was asked, in order. Raises TempFail when one of `tables` could
        never be read.
        """
        files = [table.get() for table in self.tables]
        found: list[Verdict] = []
        for verdict in self._questions(files, client, sender, recipient, asked):
            if verdict is not None and verdict.stops:
                return verdict
            found += [verdict] if verdict is not None else []
        best = min(found, key=lambda v: (not v.relays, v.action != "OK"), default=None)
        return best and best._replace(allowed=any(v.action == "OK" for v in found))

    def _questions(
        self,
        files: Sequence[Keys],
        client: Client,
        sender: str,
        recipient: str,
        asked: list[Asked] | None,
    ) -> Iterator[Verdict | None]:
        by_name = _find(files, CONNECT, domain_keys(_name(client)), asked)
        yield by_name or _find(files, CONNECT, network_keys(client.ip, files), asked)
        keys = address_keys(sender, "+") if sender else ["<>"]  # whose detail is not ours to divide
        yield _find(files, FROM, keys, asked)
        yield _find(files, TO, address_keys(recipient, self._delimiters), asked)


def _find(
    files: Sequence[Keys], tag: str, keys: Sequence[Key], asked: list[Asked] | None
) -> Verdict | None:
    """What the first of the keys that is found says, in the first file that has one."""
    for file in files:
        tagged, untagged = file.entries[tag], file.entries[""]
        for key in keys:
            entry = tagged.get(key) or untagged.get(key)
            if asked is not None:
                asked.append(_asked(file, tag, key, entry))
            if entry is not None:
                action, status = entry[0]
                found = _asked(file, tag, key, entry)
                if action == "SKIP":
                    return None
                return Verdict(action, status, found.key, found.where)
    return None


def _asked(file: Keys, tag: str, key: Key, entry: Entry | None) -> Asked:
    if entry is None:
        return Asked(f"{tag}:{_spelled(key)}", "", file.path)
    tag = f"{tag}:" if key in file.entries[tag] else ""
    return Asked(f"{tag}{_spelled(key)}", str(entry[0]), f"{file.path}:{entry[1]}")


# what is looked up


def address_keys(address: str, delimiters: str) -> list[Key]:
    """All that can stand in a table for an address, the most specific first."""
    local, at, domain = address.casefold().rpartition("@")
    local = bare(local)
    if not at:  # <postmaster>
        local, domain = domain, ""
    user, _ = split_local(local, delimiters)
    names = (local,) if user == local else (local, f"{user}{local[len(user)]}*", user)
    domains = domain_keys(domain)
    whole = [f"{name}@{domains[0]}" for name in names] if domains else []
    return [*whole, *(f"{name}@" for name in names), *domains]


def domain_keys(domain: str) -> list[Key]:
    """The same of a domain: itself, what is below the next one, that one, and so on."""
    domain = literal(domain.casefold())
    if not domain or domain[0] == "[":
        return [domain] if domain else []
    labels = domain.split(".")[-MAX_LABELS:]
    above = [".".join(labels[n:]) for n in range(1, len(labels))]
    return [domain, *(key for name in above for key in (f".{name}", name))]


def network_keys(ip: str, files: Iterable[Keys]) -> list[Key]:
    """The networks in the files that an address can be in, the smallest first; none of what is
    no address."""
    address = packed(ip)
    if address is None:
        return []
    size, number = len(address), int.from_bytes(address, "big")
    lengths = frozenset[int]().union(*(file.lengths[size] for file in files))
    return [(size, n, number >> 8 * size - n) for n in sorted(lengths, reverse=True)]


def _name(client: Client) -> str:
    name = client.name.removesuffix(".")
    if name and name != "unknown":
        return name
    return f"[{client.ip}]" if client.ip else ""


def _spelled(key: Key) -> str:
    if isinstance(key, str):
        return key
    size, bits, high = key
    address = spelled((high << 8 * size - bits).to_bytes(size, "big"))
    return f"{'IPv6:' * (size == V6)}{address}{f'/{bits}' * (bits < 8 * size)}"
