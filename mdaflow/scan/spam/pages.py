"""Tests of HTML, links and attachments.

A test gives how far it is met, from 0 (not at all) to 1.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import chain

from .clues import Clues, Tests
from .links import Url, site
from .names import names
from .senders import BRANDS, CHEAP, FREEMAIL, owned, within

_SHORTENERS = names("short")
_ANYBODYS = names("anybody")
_ARCHIVES = names("archives")
_IP = re.compile(r"\d{1,3}(?:\.\d{1,3}){3}|0x[0-9a-f]+|\d{8,10}|\[?[0-9a-f]*:[0-9a-f:]+\]?")
_SHOWN_HOST = re.compile(
    r"^(?:https?://)?((?:[a-z0-9-]{1,63}\.){1,6}[a-z]{2,10})(?:[/?:]\S*)?$", re.IGNORECASE
)
_DOWNLOAD = re.compile(
    r"\.(?:exe|scr|pif|bat|cmd|vbs|js|jse|hta|msi|jar|apk|iso|img|lnk)(?:$|[?#])", re.IGNORECASE
)
_LEAVE = re.compile(r"remov|unsub|opt-?out|opt_out|takeoff|leave", re.IGNORECASE)
_LEAVE_TEXT = re.compile(
    r"unsubscribe|opt[ -]?out|(?:manage|update|email) (?:your )?(?:preferences|subscription)"
    r"|abmelden|abbestellen|austragen|désabonner|désinscri|darse de baja|cancelar|descadastr"
    r"|cancellat?i|disiscri|uitschrijven|afmelden|avregistr|avsluta|frameld|afmeld|wypisa|rezygn|odjav"
    r"|отписат|配信停止|退订",
    re.IGNORECASE,
)
_INNER = re.compile(r"https?(?:://|%3a%2f%2f)", re.IGNORECASE)
_HIDDEN = re.compile(
    r"font-size\s?:\s?[01](?:px|pt|%|em)?\s?[;\"'}]|visibility\s?:\s?hidden|color\s?[:=]\s?[\"']?#?f{6}\b"
    r"|size\s?=\s?[\"']?(?:-[4-9]|[01]px)|opacity\s?:\s?0\s?[;\"']", re.IGNORECASE
)  # fmt: skip
_SPLIT_WORD = re.compile(
    r"[a-z]{2}<!--[^<>]{0,200}-->[a-z]{2}|[a-z]{2}<([a-z]{4,20})>[a-z]{2}|[a-z]</[a-z]{6,20}>[a-z]",
    re.IGNORECASE,
)
_REFERENCE = re.compile(r"&#(?:x[46-7][0-9a-f]|6[5-9]|[7-9]\d|1[01]\d|12[0-2]);", re.IGNORECASE)
_BIG_FONT = re.compile(
    r"size\s?=\s?[\"']?\+?[4-7]\b|font-size\s?:\s?(?:[3-9]\d)(?:px|pt)", re.IGNORECASE
)
_LOUD = re.compile(
    r"color\s?[:=]\s?[\"']?(?:#?ff0000|#?f00\b|red\b|#?ffff00|yellow|#?0000ff|#?00ff00|lime)",
    re.IGNORECASE,
)
_LONG_WORD = re.compile(r"[^\W\d_]{4,}")


def _any(test: Callable[[Url], object]) -> Callable[[Clues], bool]:
    """Whether one of the links is so."""
    return lambda c: any(test(url) for url in c.urls)


def _web(c: Clues) -> list[Url]:
    return [url for url in c.urls if url.scheme in ("http", "https")]


def _link_lies(c: Clues) -> bool:
    """A link shows the address of one host and leads to another's."""
    for link in c.markup.links:
        shown = _SHOWN_HOST.match(link.text)
        if shown and link.url.host and site(shown[1].lower()) != site(link.url.host):
            return True
    return False


def _link_brand(c: Clues) -> bool:
    """A host with a borrowed name in it that is not the owner's."""
    for url in _web(c):
        labels = re.split(r"[.-]", url.host)
        owner = site(url.host).partition(".")[0]
        for name in labels:
            if name in BRANDS and len(name) > 3 and not owned(owner, name):
                return True
    return False


def _links_elsewhere(c: Clues) -> bool:
    """No link leads to where the author is from, nor to another domain of his."""
    author = c.author_site.partition(".")[0]
    owners = {site(url.host).partition(".")[0] for url in _web(c)}
    brands = [brand for brand in BRANDS if owned(author, brand)] if author else []
    akin = any(owned(owner, brand) for owner in owners for brand in brands)
    return bool(owners) and author not in owners and not akin and not c.listed


def _links_home(c: Clues) -> bool:
    """Most links lead to where the author is from, and that is no place for everybody."""
    sites = [site(url.host) for url in _web(c)]
    own = c.author_site.rpartition(".")[2] not in CHEAP and c.author.domain.lower() not in FREEMAIL
    return own and sites.count(c.author_site) > len(sites) / 2


def _link_names_you(c: Clues) -> bool:
    known = [a.address.lower() for a in c.recipients[:3] if "@" in a.address]
    return any(a in url.path.lower().replace("%40", "@") for url in _web(c)[:50] for a in known)


def _names_you_behind(c: Clues) -> bool:
    """A page shall know the reader, and the server shall not: to fill in a form that steals."""
    known = [a.address.lower() for a in c.recipients[:3] if "@" in a.address]
    found = (url.path.lower().partition("#")[2].replace("%40", "@") for url in _web(c)[:50])
    return any(address in fragment for fragment in found if fragment for address in known)


def _mails_freemail(c: Clues) -> bool:
    """A link to write a given text to a free mail host, to somebody who is not the author."""
    found = (url for url in c.urls if url.scheme == "mailto" and url.path and url.host in FREEMAIL)
    return any(f"{url.user}@{url.host}".lower() != c.author.address.lower() for url in found)


def _shared(url: Url) -> bool:
    if url.path.startswith("/ipfs/"):
        return True
    labels = url.host.split(".")
    return any(
        ".".join(labels[at:]) in _ANYBODYS for at in range(max(0, len(labels) - 5), len(labels))
    )


def _long_host(url: Url) -> bool:
    return url.host.count("-") >= 3 or url.host.count(".") >= 5 or len(url.host) > 50


def _leaves_elsewhere(c: Clues) -> bool:
    """A link by which to leave a list leads to somebody else, and the header names none."""
    if c.listed:
        return False
    found = (url for url in c.urls if _LEAVE.search(url.host + url.path))
    return any(url.scheme == "mailto" or site(url.host) != c.author_site for url in found)


def _leaves_home(c: Clues) -> bool:
    """A link by which to leave leads to where the author is from, as most links do."""
    if not c.author.name or not _links_home(c):
        return False
    told = (link.url for link in c.markup.links if _LEAVE_TEXT.search(link.text))
    found = (url for url in c.urls if _LEAVE.search(url.host + url.path))
    return any(site(url.host) == c.author_site for url in chain(told, found))


def _threat_elsewhere(c: Clues) -> bool:
    """Speaks of an account in danger, and the links do not lead to where the author is from."""
    return c.said["threat"] * c.density >= 2 and _links_elsewhere(c)


def _signed_list(c: Clues) -> bool:
    """One can leave, and the author's own domain signs; good or not."""
    signer = re.search(r"\bd=([\w.-]+)", c.raw("DKIM-Signature"))
    return (
        c.has("List-Unsubscribe")
        and signer is not None
        and site(signer[1].lower()) == c.author_site
        and c.author_site.rpartition(".")[2] not in CHEAP
    )


def _bare_link(c: Clues) -> bool:
    """Hardly more than a link, and that leads elsewhere."""
    return len(c.words) < 30 and not c.reply and _links_elsewhere(c)


def _only_image(c: Clues) -> float:
    """Images, linked or attached, and next to no text."""
    seen = bool(c.markup.images) or any(p.type.startswith("image/") for p in c.parts)
    return float(seen and len(c.words) < 25 and bool(c.html)) * (1.0 if len(c.words) < 10 else 0.5)


def _html_only(c: Clues) -> bool:
    return bool(c.html) and not c.plain.strip()


def _shared_words(c: Clues) -> float | None:
    """Which share of the words that the HTML shows the plain text has; None for a few words."""
    if not c.html or len(c.plain) < 40:
        return None
    plain = set(_LONG_WORD.findall(c.plain.lower()))
    shown = {word.lower() for word in c.words if len(word) > 3}
    return len(plain & shown) / len(shown) if len(shown) > 10 else None


def _plain_differs(c: Clues) -> bool:
    shared = _shared_words(c)
    return shared is not None and shared < 0.1


def _plain_same(c: Clues) -> bool:
    return (_shared_words(c) or 0) > 0.7


def _broken_html(c: Clues) -> bool:
    """Tags that no HTML has, in number."""
    return c.markup.unknown >= 3 and c.markup.unknown > 0.1 * c.markup.tags.total()


def _tiny_image(c: Clues) -> bool:
    return any(0 <= image.width <= 1 and 0 <= image.height <= 1 for image in c.markup.images)


def _danger(*words: str) -> Callable[[Clues], bool]:
    """Whether an attachment, or what is in it, has one of the dangers of scan/dangers.py."""
    return lambda c: not c.dangers.isdisjoint(words)


def _archive(c: Clues) -> bool:
    return any(part.name.lower().rpartition(".")[2] in _ARCHIVES for part in c.attachments)


def _html_attached(c: Clues) -> bool:
    names = (p.name.lower() for p in c.attachments)
    return any(name.endswith((".html", ".htm", ".shtml", ".xhtml", ".svg")) for name in names)


def _source(pattern: re.Pattern[str], least: int = 1) -> Callable[[Clues], bool]:
    """Whether the HTML as it was sent has a pattern so often."""

    def test(c: Clues) -> bool:
        found = pattern.finditer(c.html)
        return sum(1 for _, _ in zip(range(least), found, strict=False)) >= least

    return test


def _tag(*names: str) -> Callable[[Clues], bool]:
    return lambda c: any(name in c.markup.tags for name in names)


TESTS: Tests = {
    # the HTML
    "HTML_ONLY": _html_only,
    "HTML_IMAGE_ONLY": _only_image,
    "HTML_PLAIN_DIFFERS": _plain_differs,
    "HTML_PLAIN_SAME": _plain_same,
    "HTML_HIDDEN": _source(_HIDDEN, 2),
    "HTML_SPLIT_WORD": _source(_SPLIT_WORD, 2),
    "HTML_REFERENCES": _source(_REFERENCE, 10),
    "HTML_BROKEN": _broken_html,
    "HTML_BIG_FONT": _source(_BIG_FONT),
    "HTML_LOUD": _source(_LOUD, 2),
    "HTML_FORM": _tag("form", "input"),
    "HTML_SCRIPT": _tag("script"),
    "HTML_FRAME": _tag("iframe", "frame", "object", "embed", "applet"),
    "HTML_TINY_IMAGE": _tiny_image,
    "HTML_CENTERED": lambda c: c.markup.tags["center"] >= 2,
    # links
    "LISTED_LINK": lambda c: any(within(c.our.bad_links, url.host) for url in c.urls if url.host),
    "LINK_IP": _any(lambda url: bool(_IP.fullmatch(url.host))),
    "LINK_PORT": _any(lambda url: url.port.isdigit() and url.port not in ("80", "443")),
    "LINK_USER": _any(lambda url: url.user and url.scheme in ("http", "https")),
    "LINK_ESCAPED": _any(lambda url: "%" in url.host or "&#" in url.host),
    "LINK_SHORT": _any(lambda url: url.host.removeprefix("www.") in _SHORTENERS),
    "LINK_CHEAP_DOMAIN": _any(lambda url: url.host.rpartition(".")[2] in CHEAP),
    "LINK_LONG_HOST": _any(_long_host),
    "LINK_PUNYCODE": _any(lambda url: "xn--" in url.host),
    "LINK_ANYBODYS": _any(_shared),
    "LINK_REDIRECT": _any(lambda url: bool(_INNER.search(url.path))),
    "LINK_DOWNLOAD": _any(lambda url: bool(_DOWNLOAD.search(url.path.partition("?")[0]))),
    "LINK_LEAVE": _leaves_elsewhere,
    "LINK_LEAVE_HOME": _leaves_home,
    "LINK_THREAT": _threat_elsewhere,
    "LISTED_SIGNED": _signed_list,
    "LINK_BRAND": _link_brand,
    "LINK_LIES": _link_lies,
    "LINK_NAMES_YOU": _link_names_you,
    "LINK_NAMES_YOU_BEHIND": _names_you_behind,
    "LINK_MAILS_FREEMAIL": _mails_freemail,
    "LINK_BARE": _bare_link,
    "LINKS_HOME": _links_home,
    # attachments
    "FILE_PROGRAM": _danger("program"),
    "FILE_MACRO": _danger("macros"),
    "FILE_ARCHIVE": _archive,
    "FILE_DOUBLE_NAME": _danger("double extension", "reversed name"),
    "FILE_OTHER_TYPE": _danger("other type"),
    "FILE_HTML": _html_attached,
    "FILE_LOCKED": lambda c: _danger("encrypted")(c) and bool(c.said["password"]),
}
