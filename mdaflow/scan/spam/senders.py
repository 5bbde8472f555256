"""Tests of who sends: names, addresses, HELO, the way here, what our own MTA found out.

A test gives how far it is met, from 0 (not at all) to 1.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Container

from .clues import Clues, Tests
from .links import site
from .names import names, owners

FREEMAIL = names("freemail")
CHEAP = names("cheap")
BRANDS = owners()

_BRAND = re.compile(r"(?<![\w.@])(" + "|".join(map(re.escape, BRANDS)) + r")(?!\w|@)")
_APART = re.compile(r"[-_\d]+|<[^<>]*>")
_ALIKE = str.maketrans("0135", "oles")
"""Digits that look like letters in a name of a domain."""
_LONG_NUMBER = re.compile(r"\d{5,}")
_ADDRESS = re.compile(r"[\w.+-]{1,64}@((?:[\w-]{1,63}\.){1,5}[a-z]{2,})", re.IGNORECASE)
_CONSONANTS = re.compile(r"[bcdfghjklmnpqrstvwxz]{6,}")
_TURNS = re.compile(r"[a-z]\d|\d[a-z]")
_IP = re.compile(r"\[?\d{1,3}(?:\.\d{1,3}){3}\]?")
_DYNAMIC = re.compile(
    r"\b(?:a?dsl|cable|dial(?:in|up)?|dyn(?:amic)?|dhcp|ppp(?:oe)?|pool|modem|client|cust(?:omer)?"
    r"|broadband|catv|fiber|ftth|host|ip|user|wireless|mobile)(?:[-_.]|\d|\b)"
)
_NUMBERS = re.compile(r"\d{1,3}[-._x]\d{1,3}[-._x]\d{1,3}")
_BUSINESS = ("seo", "trade", "loans", "fee", "lists", "crypto", "papers", "threat", "stocks")
_HOSTS = {
    "amazonses.com": ("amazon",),
    "gmail.com": ("gmail", "google"),
    "outlook.com": ("outlook", "hotmail", "office365"),
    "yahoo.com": ("yahoo",),
}
"""Large hosts, by their Message-IDs, and what names them in the other fields."""
_LOCALS = frozenset(("localhost", "localhost.localdomain", "user", "friend", "mail", "smtp"))


def _random(local: str) -> bool:
    """A name that nobody would choose: consonants in a row, or letters and digits in turns."""
    name = local.lower()
    if "=" in name or "+" in name or len(name) > 32:  # made by lists and for returned mail
        return False
    return bool(_CONSONANTS.search(name)) or (len(name) > 6 and len(_TURNS.findall(name)) >= 3)


def _names_address(c: Clues) -> bool:
    found = _ADDRESS.search(c.author.name)
    return found is not None and site(found[1].lower()) != c.author_site and not c.listed


def owned(label: str, brand: str) -> bool:
    """Whether the first label of a domain is of a brand's owner: `paypal`, not `paypal-safe`."""
    begins = (begin for begin in BRANDS[brand] if label.startswith(begin))
    return any(label[len(begin) : len(begin) + 1] != "-" for begin in begins)


def _borrows_brand(c: Clues) -> bool:
    """By the whole of From: some forge it so that the name is no name."""
    owner = c.author_site.partition(".")[0]
    found = _BRAND.search(_APART.sub(" ", c.field("From").lower()))
    return bool(found and owner and not owned(owner, found[1]))


def _looks_like_brand(c: Clues) -> bool:
    """`paypa1.com`, `paypal-safe.com`, `paypal.safe.com`; a free mail host's own brand is none."""
    owner = c.author_site.partition(".")[0]
    if c.author_site in FREEMAIL:
        return False
    labels = [label for label in re.split(r"[.-]", c.author.domain.lower()) if len(label) > 3]
    names = {label.translate(_ALIKE).replace("rn", "m") for label in labels} | set(labels)
    return any(name in BRANDS and not owned(owner, name) for name in names)


def _speaks_of_brand(c: Clues) -> bool:
    """A subject that speaks for a brand, of somebody whose address or links are not its own."""
    if c.reply or c.listed:
        return False
    owner = c.author_site.partition(".")[0]
    found = _BRAND.search(c.subject.lower())
    return bool(found and owner and c.urls and not owned(owner, found[1]))


def _reply_elsewhere(c: Clues) -> bool:
    where = site(c.reply_to.domain.lower())
    return bool(where and c.author_site and where != c.author_site and not c.listed)


def _reply_to_freemail(c: Clues) -> bool:
    """Answers go to another address, at a host where anybody gets one: of those who beg."""
    reply = c.reply_to.address.lower()
    return (
        c.reply_to.domain.lower() in FREEMAIL
        and reply != c.author.address.lower()
        and not c.listed
        and not c.reply
    )


def _offers_from_freemail(c: Clues) -> bool:
    """Business of those who have no domain of their own."""
    if c.author.domain.lower() not in FREEMAIL or c.reply or c.listed or c.quotes:
        return False
    return any(c.said[group] >= 2 for group in _BUSINESS)


def _forged_id(c: Clues) -> bool:
    """The Message-ID is of a large host that has left no other trace in the message."""
    host = site(c.raw("Message-ID").rpartition("@")[2].strip("<> ").lower())
    if host not in _HOSTS or not c.hops or c.listed or c.reply:
        return False
    trace = [*c.hops, c.raw("DKIM-Signature"), c.author.domain]
    return not any(name in text.lower() for text in trace for name in _HOSTS[host])


def _brand_helo(c: Clues) -> bool:
    """HELO names a freemail host, DNS something else."""
    helo = site(c.client.helo.lower())
    return bool(helo in FREEMAIL and c.client.name and site(c.client.name.lower()) != helo)


def _freemail_without_trace(c: Clues) -> bool:
    """From a freemail host that no Received field and no signature knows."""
    if c.author.domain.lower() not in FREEMAIL or not c.hops or c.listed or c.reply:
        return False
    brand = c.author_site.partition(".")[0]
    trace = [*c.hops, c.raw("DKIM-Signature"), c.raw("Message-ID"), c.raw("X-Originating-IP")]
    return not any(brand in text.lower() for text in trace)


def _dynamic(c: Clues) -> bool:
    name = c.client.name.lower()
    return bool(_NUMBERS.search(name) or _DYNAMIC.search(name)) and "mail" not in name


def within(bad: Container[str], host: str) -> bool:
    """Whether a host or a domain above it is listed."""
    labels = host.lower().split(".")[-10:]
    return any(".".join(labels[at:]) in bad for at in range(len(labels)))


def _bad_sender(c: Clues) -> bool:
    bad = c.our.bad_senders
    found = {c.envelope.sender, c.author.address, c.reply_to.address}
    return any(a.lower() in bad or within(bad, a.rpartition("@")[2]) for a in found if a)


def _bad_host(c: Clues) -> bool:
    bad = c.our.bad_hosts
    for client in (c.client, c.envelope.client):  # the second may be one of our own machines
        called = (client.name, client.helo)
        if client.ip in bad or any(within(bad, name) for name in called if name):
            return True
    return False


def _forged_self(c: Clues) -> bool:
    """The author's address is the one and only recipient's."""
    author = c.author.address.lower()
    return bool(author) and {a.address.lower() for a in c.recipients} == {author}


def _result(method: str, *words: str) -> Callable[[Clues], bool]:
    return lambda c: not set(words).isdisjoint(c.auth[method])


def _own_helo(c: Clues) -> bool:
    return bool(c.client.helo) and c.client.helo.lower().strip("[]") in c.our.domains


TESTS: Tests = {
    "LISTED_SENDER": _bad_sender,
    "LISTED_HOST": _bad_host,
    "FROM_MISSING": lambda c: not c.author.address,
    "FROM_NO_DOMAIN": lambda c: bool(c.author.address) and "." not in c.author.domain,
    "FROM_SEVERAL": lambda c: c.count("From") > 1,
    "FROM_NAMES_ADDRESS": _names_address,
    "FROM_NAME_EMPTY": lambda c: bool(c.author.address) and not c.author.name,
    "FROM_NAME_SHOUTS": lambda c: len(c.author.name) > 8 and c.author.name.isupper(),
    "FROM_NAME_DECORATED": lambda c: bool(re.search(r"[!$*|★☆✅✔⭐🔥💰🎁]", c.author.name)),
    "FROM_NAME_NUMBER": lambda c: bool(_LONG_NUMBER.search(c.author.name)),
    "FROM_RANDOM": lambda c: _random(c.author.local),
    "FROM_NUMBER": lambda c: bool(re.search(r"[a-z]\d{3,}$", c.author.local.lower())),
    "FROM_CHEAP_DOMAIN": lambda c: c.author_site.rpartition(".")[2] in CHEAP,
    "FROM_IS_TO": _forged_self,
    "BRAND_IN_NAME": _borrows_brand,
    "BRAND_ALIKE": _looks_like_brand,
    "BRAND_IN_SUBJECT": _speaks_of_brand,
    "REPLY_ELSEWHERE": _reply_elsewhere,
    "REPLY_TO_FREEMAIL": _reply_to_freemail,
    "FREEMAIL_OFFER": _offers_from_freemail,
    "FREEMAIL_FORGED": _freemail_without_trace,
    "MESSAGE_ID_FORGED": _forged_id,
    "HELO_IP": lambda c: bool(_IP.fullmatch(c.client.helo)),
    "HELO_NO_DOMAIN": lambda c: bool(c.client.helo) and "." not in c.client.helo.strip("."),
    "HELO_LOCAL": lambda c: c.client.helo.lower() in _LOCALS,
    "HELO_USER": lambda c: any(hop.lower().startswith("from user (") for hop in c.hops),
    "HELO_FREEMAIL": _brand_helo,
    "HELO_OURS": _own_helo,
    "CLIENT_NO_NAME": lambda c: bool(c.client.ip) and not c.client.name,
    "CLIENT_DYNAMIC": _dynamic,
    "SPF_FAIL": _result("spf", "fail"),
    "SPF_SOFTFAIL": _result("spf", "softfail"),
    "DKIM_FAIL": lambda c: "fail" in c.auth["dkim"] and "pass" not in c.auth["dkim"],
    "DMARC_FAIL": _result("dmarc", "fail"),
    "DMARC_PASS": _result("dmarc", "pass"),
    "DKIM_PASS": _result("dkim", "pass"),
}
