"""What the tests of spam look at: a message read once, each view made when a test asks for it.

Everything is capped: so much text, so many parts, links, addresses and hops. What lies behind a
cap is not looked at, so that hostile mail costs no more than other mail. No I/O.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Container
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from math import sqrt
from typing import TYPE_CHECKING

from mdaflow.mail import header
from mdaflow.mail.address import Address
from mdaflow.mail.authres import results
from mdaflow.mail.date import parse_date
from mdaflow.mail.envelope import NOBODY, Client, Envelope
from mdaflow.mail.html import text_of_html
from mdaflow.mail.message import Message

from .hops import first_outside, is_private
from .links import Url, site, urls_in
from .markup import Markup, read_markup
from .phrases import heard

if TYPE_CHECKING:
    from mdaflow.mail.mime import Part

MAX_PARTS = 100
MAX_PART = 128 << 10
"""Bytes of a part, as they are in the message."""
MAX_TEXT = 64 << 10
"""Characters of text, and of HTML."""
MAX_FIELD = 1000
"""Characters of a header field."""
MAX_URLS = 500
MANY_WORDS = 400
"""A longer text has phrases of everything."""

_WORD = re.compile(r"[^\W\d_]{2,}")


@dataclass(frozen=True, slots=True)
class Site:
    """What a site has told about itself."""

    trusted: Collection[str] = ()
    """The authserv-ids of our own MTA: see mail/authres.py."""
    domains: Collection[str] = ()
    """Our own domains and host names, in lower case."""
    bad_senders: Container[str] = ()
    """Addresses, and domains, in lower case."""
    bad_hosts: Container[str] = ()
    """Names and IP addresses of SMTP clients, and domains of them."""
    bad_links: Container[str] = ()
    """Hosts and domains in links."""


class Clues:
    """One message with its envelope."""

    def __init__(self, message: Message, envelope: Envelope, our: Site) -> None:
        self.message = message
        self.envelope = envelope
        self.our = our

    # the header

    def has(self, *names: str) -> bool:
        """Whether one of these fields is there."""
        return any(name.lower().encode() in self.message.fields for name in names)

    def count(self, name: str) -> int:
        return len(self.message.fields.get(name.lower().encode(), ()))

    def raw(self, name: str) -> str:
        """The first field called `name`, as it was sent, on one line; empty when there is none."""
        value = next(iter(self.message.fields.get(name.lower().encode(), ())), b"")
        return header.undecoded(value[:MAX_FIELD])

    def field(self, name: str) -> str:
        """The same, decoded."""
        value = next(iter(self.message.fields.get(name.lower().encode(), ())), b"")
        return header.decoded(value[: header.MAX_FIELD])[:MAX_FIELD]

    @cached_property
    def subject(self) -> str:
        return self.field("Subject")

    def _first(self, name: str) -> Address:
        """The first that is an address; what is forged may begin with a name and a comma."""
        found = self.message.addresses(name)
        return next((a for a in found[:5] if a.domain), next(iter(found), Address("", "")))

    @cached_property
    def author(self) -> Address:
        """Who the message says it is from."""
        return self._first("From")

    @cached_property
    def author_site(self) -> str:
        return site(self.author.domain.lower())

    @cached_property
    def reply_to(self) -> Address:
        return self._first("Reply-To")

    @cached_property
    def recipients(self) -> list[Address]:
        """To and Cc."""
        return [a for name in ("To", "Cc") for a in self.message.addresses(name)]

    @cached_property
    def mailer(self) -> str:
        """The program that the author says he writes with."""
        return self.raw("X-Mailer") or self.raw("User-Agent")

    @cached_property
    def reply(self) -> bool:
        """It says that it answers a message."""
        return self.has("In-Reply-To", "References")

    @cached_property
    def listed(self) -> bool:
        """It says that it was sent by a list or to many who can leave."""
        return self.has("List-Id", "List-Unsubscribe", "List-Post", "Mailing-List")

    @cached_property
    def sent(self) -> tuple[float, int | None] | None:
        """The Date, as mail/date.py reads it."""
        return parse_date(self.raw("Date"))

    @cached_property
    def arrived(self) -> float | None:
        """When the topmost Received field says that it came; seconds since the epoch."""
        found = parse_date(self.raw("Received").rpartition(";")[2].strip())
        return found and found[0]

    @cached_property
    def hops(self) -> list[str]:
        """The Received fields, the newest first, each on one line."""
        fields = islice(self.message.fields.get(b"received", ()), 20)
        return [" ".join(header.undecoded(value[:MAX_FIELD]).split()) for value in fields]

    @cached_property
    def client(self) -> Client:
        """Who gave the message to our side, or to whoever forwards to us.

        A client with a private address is one of our own machines, which say in HELO what they
        like: a filter, a relay, a program that sends mail.
        """
        given = self.envelope.client
        if given.ip and not is_private(given.ip):
            return given
        return first_outside(self.hops) or NOBODY

    @cached_property
    def auth(self) -> dict[str, tuple[str, ...]]:
        return results(self.message, self.our.trusted)

    # parts and texts

    @cached_property
    def parts(self) -> list[Part]:
        return self.message.parts[:MAX_PARTS]

    @cached_property
    def attachments(self) -> list[Part]:
        return [part for part in self.parts if part.attached]

    @cached_property
    def dangers(self) -> frozenset[str]:
        """What is dangerous about any attachment: words of scan/dangers.py, by its limits."""
        if not self.attachments:
            return frozenset()
        from ..dangers import dangers  # most mail has no attachments

        return frozenset(word for words in dangers(self.message) for word in words)

    def _texts(self, html: bool) -> str:
        found: list[str] = []
        left = MAX_TEXT
        for part in self.parts:
            if left <= 0:
                break
            if part.type.startswith("text/") and not part.attached and html is _html(part):
                raw = part.content(MAX_PART)
                text = header.text_of(raw, part.charset or "utf-8", cut=len(raw) >= MAX_TEXT)
                found.append(text[:left])
                left -= len(found[-1])
        return "\n".join(found)

    @cached_property
    def plain(self) -> str:
        """The text parts that are no HTML."""
        return self._texts(html=False)

    @cached_property
    def html(self) -> str:
        """The HTML parts, as they are."""
        return self._texts(html=True)

    @cached_property
    def markup(self) -> Markup:
        return read_markup(self.html)

    @cached_property
    def shown(self) -> str:
        """What a person sees: HTML as text if there is any, else the plain text."""
        return text_of_html(self.html) if self.html else self.plain

    @cached_property
    def quotes(self) -> bool:
        """Lines of another message are quoted."""
        return "\n>" in "\n" + self.plain or "blockquote" in self.markup.tags

    @cached_property
    def words(self) -> list[str]:
        return _WORD.findall(self.shown)

    @cached_property
    def said(self) -> Counter[str]:
        """How many different phrases of each group are in the subject and the texts."""
        texts = [self.subject, self.author.name, self.shown]
        if self.html and self.plain:
            texts.append(self.plain)
        return heard("\n".join(texts))

    @cached_property
    def density(self) -> float:
        """1 for a text of some hundred words, less for longer ones."""
        return min(1.0, sqrt(MANY_WORDS / (len(self.words) + 1)))

    @cached_property
    def urls(self) -> list[Url]:
        """Links, of the HTML and written out in texts, each once."""
        found = dict.fromkeys([*(link.url for link in self.markup.links), *urls_in(self.plain)])
        return list(islice(found, MAX_URLS))


Tests = dict[str, Callable[[Clues], float]]
"""Tests by name: how far a message meets each, from 0 (not at all) to 1."""


def _html(part: Part) -> bool:
    return part.type == "text/html"
