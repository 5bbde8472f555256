"""The tokens of a message: what a classifier counts.

A token is a short text, such as `mortgage`, `click here`, `subject:free`, `url:example.net` or
`part:text/html;utf-8`. Counters know it by a key of 64 bits.

- Words of the header have their field before them: a word of the subject is not that of a text.
- Words are in lower case and NFKC; letters that are written apart are joined. Pairs of words
  that follow each other are tokens too.
- The end of a text behind a line that parts it off, such as the signature or what a mailing list
  adds, is left out: it says nothing of who writes, and everything of where the mail came through.
- Scripts without spaces between words (Chinese, Japanese, Korean, Thai) give pairs of characters.
- Amounts of money give their currency and magnitude, other numbers how many digits they have.
- URLs and addresses give the domain that somebody has registered, and the one at the top.
- Of HTML only what hides something or acts counts. All else says that it is HTML, again and again,
  and what was learned from letters would condemn every newsletter.

What names only a mailbox, a time or a collection of mail is no token: dates, ids, the hosts of
Received, fields of lists and of other filters, recipients. In a text the recipient's name is one
token, whatever it is.

Bounded: the first 64 KiB of text, 1,000 tokens. Nothing here does I/O or raises.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from hashlib import blake2b
from itertools import chain, islice, pairwise
from weakref import WeakKeyDictionary

from mdaflow.mail import header
from mdaflow.mail.address import Address
from mdaflow.mail.html import text_of_html
from mdaflow.mail.message import Message

MAX_TOKENS = 1000
MAX_TEXT = 64 << 10
"""Bytes of text parts, as they are in the message, that are read."""
MAX_FIELD = 1000
"""Characters of a header field."""
MAX_WORD = 24
MAX_TAGS = 1000
MAX_PARTS = 20
MAX_END = 1200
"""Characters at the end of a text that do not count."""
MAX_NAMES = 3
"""Addresses of a header field."""

Own = frozenset[str]
"""What the recipients are called."""

_NAMED = ("to", "cc", "delivered-to", "x-original-to", "envelope-to")
_TOLD = (
    *("autocrypt", "cc", "content-class", "content-disposition", "content-language"),
    *("content-transfer-encoding", "content-type", "date", "disposition-notification-to"),
    *("errors-to", "importance", "in-reply-to", "mail-followup-to", "message-id", "mime-version"),
    *("openpgp", "organization", "references", "reply-to", "return-receipt-to", "sender"),
    *("subject", "thread-index", "thread-topic", "to", "user-agent", "x-mailer", "x-mimeole"),
    *("x-msmail-priority", "x-originating-ip", "x-priority"),
)
"""Fields that tell something by being there: those that programs of authors write."""

_DENSE = "\u0e00-\u0eff\u1100-\u11ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af"
_LEXEME = re.compile(
    rf"""
      (?P<url>(?:https?|ftp)://[^\s<>"')\]]{{1,1000}}+ | www\.[^\s<>"')\]]{{1,1000}}+)
    | (?P<address>[a-z0-9_.+-]{{1,64}}+@[a-z0-9.-]{{1,200}}+)
    | (?P<money>[$£€¥]\s?[0-9][0-9.,]*+)
    | (?P<dense>[{_DENSE}]++)
    | (?P<apart>(?<!\S)[^\W\d_](?:[ .*_-][^\W\d_]){{3,30}}(?!\w))
    | (?P<word>[^\W\d_{_DENSE}][^\W{_DENSE}]*+(?:['’-][^\W\d_{_DENSE}]++)*)
    | (?P<number>[0-9][0-9.,:]*+%?)
    """,
    re.VERBOSE,
)
_PARTING = re.compile(r"^(?:-- ?|[_=*-]{20,})$", re.MULTILINE)
_UNSEEN = re.compile("[\u00ad\u034f\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff]+")
_PATH = re.compile(r"[/?#\\]")
_DIGITS = re.compile(r"[0-9]+")
_CENTS = re.compile(r"[.,][0-9]{2}\Z")
_PLAIN = re.compile(r"[a-z]{3,15}")
_CHARSET = re.compile(r"=\?([\w-]{1,30})\?[bqBQ]\?")
_SUBJECT = {
    "reply": re.compile(r"\s*(?:re|aw|sv|antw|odp|rif|res)\s*(?:\[\d+\])?:", re.IGNORECASE),
    "forward": re.compile(r"\s*(?:fwd?|wg|tr)\s*:", re.IGNORECASE),
    "shouted": re.compile(r"[^a-z]*[A-Z][^a-z]{7,}\Z"),
    "!": re.compile(r"[^!]*!"),
    "!!": re.compile(r"[^!]*!\s?!"),
    "?": re.compile(r"[^?]*\?"),
    "$": re.compile(r"[^$]*\$"),
    "gap": re.compile(r".*\s{5}", re.DOTALL),
}
_TAG = re.compile(r"<([a-z][a-z0-9]{0,15})\b([^>]{0,1000})")
_ATTRIBUTE = re.compile(r"\b([a-z]{2,12})\s{0,9}=\s{0,9}(?:\"([^\"]*+)|'([^']*+)|([^\s>\"']++))")
_LINKS = ("href", "src", "action", "background")
_ACTING = frozenset(
    ("applet", "area", "base", "button", "embed", "form", "frame", "iframe", "input", "map",
     "marquee", "object", "script", "select", "svg", "textarea")
)  # fmt: skip
_HIDING = re.compile(
    r"(?:display|visibility|font-size|opacity|line-height|max-height)\s{0,9}:[^;]{1,20}"
)


_keys: WeakKeyDictionary[Message, list[int]] = WeakKeyDictionary()  # for the site, and for users


def keys(message: Message) -> list[int]:
    """The keys of the tokens of a message, none twice."""
    found = _keys.get(message)
    if found is None:
        found = _keys[message] = [key(token) for token in tokens(message)]
    return found


@lru_cache(20_000)
def key(token: str) -> int:
    """How counters call a token: a signed number of 64 bits, the same everywhere."""
    raw = token.encode("utf-8", "replace")
    return int.from_bytes(blake2b(raw, digest_size=8).digest(), "big", signed=True)


def tokens(message: Message) -> list[str]:
    """The tokens of a message, those of the header first; none twice, at most 1,000."""
    own = frozenset(_names(message))
    found = chain(
        _senders(message, own),
        _subject(message, own),
        _mailer(message),
        _fields(message),
        _parts(message),
        *(_body(text, own, is_html=is_html) for text, is_html in _texts(message)),
    )
    return list(islice(dict.fromkeys(islice(found, 3 * MAX_TOKENS)), MAX_TOKENS))


def _names(message: Message) -> Iterator[str]:
    for name in _NAMED:
        yield from (a.local.casefold() for a in message.addresses(name)[:50] if len(a.local) > 2)


def _texts(message: Message) -> Iterator[tuple[str, bool]]:
    """The beginning of the text that a person reads, and whether it is HTML."""
    left = MAX_TEXT
    for part in message.parts:
        if left > 0 and not part.attached:
            text = header.text_of(part.content(left), part.charset or "utf-8", cut=True)
            left -= part.end - part.start
            yield text, part.type == "text/html"


def _senders(message: Message, own: Own) -> Iterator[str]:
    authors = message.addresses("from")[:MAX_NAMES]
    for author in authors:
        yield f"from:{author.address.casefold()[:MAX_FIELD]}"
        yield from _domains("from:", author.domain)
        yield from (f"name:{word}" for word in _words(author.name[:MAX_FIELD], own))
        if not author.name:
            yield "name:"
    for field in ("reply-to", "sender"):
        for other in message.addresses(field)[:MAX_NAMES]:
            yield f"{field}:{_relation(other, authors)}"
            yield from _domains(f"{field}:", other.domain)


def _relation(other: Address, authors: Iterable[Address]) -> str:
    domains = [author.domain.casefold() for author in authors]
    return "same" if other.domain.casefold() in domains else "other"


def _subject(message: Message, own: Own) -> Iterator[str]:
    for text in message.header("subject")[:1]:
        text = text[:MAX_FIELD]
        words = list(_words(text, own))
        yield from (f"subject:{word}" for word in words)
        yield from (f"subject:{a} {b}" for a, b in pairwise(words))
        yield from (f"subject-is:{name}" for name, form in _SUBJECT.items() if form.match(text))
    for raw in message.header("subject", raw=True)[:1]:
        yield from (f"subject-in:{m[1].casefold()}" for m in _CHARSET.finditer(raw[:MAX_FIELD]))


def _mailer(message: Message) -> Iterator[str]:
    """What the program of the author calls itself, whatever its version."""
    for field in ("x-mailer", "user-agent"):
        for value in message.header(field)[:1]:
            name = _DIGITS.sub("0", value[:200].casefold())
            yield f"mailer:{name}"
            yield from (f"mailer:{word}" for word in _PLAIN.findall(name))


def _fields(message: Message) -> Iterator[str]:
    """Which fields are there. Those that are not say nothing: who keeps mail may remove some."""
    for name in _TOLD:
        if found := message.fields.get(name.encode()):
            yield f"has:{name}:{min(len(found), 2)}"


def _parts(message: Message) -> Iterator[str]:
    for value in message.header("content-type")[:1]:
        yield f"type:{value[:80].partition(';')[0].strip().casefold()}"
    for part in message.parts[:MAX_PARTS]:
        charset = part.charset[:30].casefold()
        yield f"part:{part.type[:80]}"
        yield f"part:{part.type[:80]};{charset};{part.encoding[:20]}"
        yield f"charset:{charset}"
        if part.attached:
            yield f"attached:{part.name.rpartition('.')[2][:10].casefold()}"
    yield f"parts:{min(len(message.parts), 5)}"


def _body(text: str, own: Own, *, is_html: bool) -> Iterator[str]:
    if is_html:
        yield from _markup(text.casefold())
    text = text_of_html(text) if is_html else _without_end(text)
    yield from _scripts(text)
    last = ""
    for word in _words(text, own):
        yield word
        plain = "" if ":" in word else word
        if last and plain:
            yield f"{last} {plain}"
        last = plain


def _without_end(text: str) -> str:
    """A text up to the line that parts its end off, if that is short, and no more than half."""
    for line in _PARTING.finditer(text, max(len(text) // 2, len(text) - MAX_END)):
        return text[: line.start()]
    return text


def _scripts(text: str) -> Iterator[str]:
    """In which scripts a text is written, besides the Latin one."""
    if not text.isascii():
        letters = sorted(c for c in set(text) if c > "\u024f" and c.isalpha())[:100]
        yield from (f"script:{unicodedata.name(c, '?').partition(' ')[0]}" for c in letters)


def _markup(markup: str) -> Iterator[str]:
    for tag in islice(_TAG.finditer(markup), MAX_TAGS):
        if tag[1] in _ACTING:
            yield f"html:{tag[1]}"
        for name, *values in _ATTRIBUTE.findall(tag[2]):
            value = "".join(values)
            if name in _LINKS:
                yield from _url(value.strip())
            elif name == "style":
                yield from (f"style:{''.join(m[0].split())}" for m in _HIDING.finditer(value))


def _words(text: str, own: Own) -> Iterator[str]:
    """The words of a text, and what is like words, in their order."""
    text = _UNSEEN.sub("", text)
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    for found in _LEXEME.finditer(text.casefold()):
        kind, said = found.lastgroup or "", found[0]
        if kind == "word" and said.isalpha() and 1 < len(said) <= MAX_WORD and said not in own:
            yield said  # almost always, and quicker than below
        else:
            yield from _LEXEMES[kind](said, own)


def _word(text: str, own: Own) -> Iterator[str]:
    if text in own:
        yield "recipient:"
    elif len(text) > MAX_WORD:
        yield f"long:{text[0]}{len(text) // 10}"
    elif len(text) > 1:
        yield text if text.isalpha() else _DIGITS.sub("0", text)


def _dense(text: str, own: Own) -> Iterator[str]:
    return map("".join, pairwise(text)) if len(text) > 1 else iter(text)


def _apart(text: str, own: Own) -> Iterator[str]:
    yield "apart:" + "".join(filter(str.isalpha, text))


def _money(text: str, own: Own) -> Iterator[str]:
    yield f"money:{text[0]}{sum(map(str.isdigit, _CENTS.sub('', text[:20])))}"


def _number(text: str, own: Own) -> Iterator[str]:
    yield "number:" + _DIGITS.sub(lambda m: "0" * min(len(m[0]), 6), text[:20])


def _address(text: str, own: Own) -> Iterator[str]:
    local, _, domain = text.partition("@")
    if local not in own:
        yield from _registered("address:", domain)


def _url_of_text(text: str, own: Own) -> Iterator[str]:
    return _url(text if "://" in text else f"http://{text}")


def _url(text: str) -> Iterator[str]:
    scheme, _, rest = text.partition("://")
    if not rest:  # mailto:, cid:, or a path
        yield f"url:{text[:12].partition(':')[0] if ':' in text[:12] else ''}"
        return
    _, at, place = _PATH.split(rest, maxsplit=1)[0].rpartition("@")
    host, _, port = place.partition(":")
    yield f"url:{scheme[:12]}"
    if host.replace(".", "").isdecimal():
        yield "url-is:address"
    else:
        yield from _registered("url:", host)
    if at:
        yield "url-is:with-user"
    if port:
        yield f"url-is:port{port[:5]}"


def _domains(what: str, domain: str) -> Iterator[str]:
    """A domain and those above it: `www.example.org`, `.example.org`, `.org`."""
    labels = domain[:255].casefold().strip(".").split(".")[-5:]
    yield what + ".".join(labels)
    for n in range(1, len(labels)):
        yield f"{what}.{'.'.join(labels[n:])}"


def _registered(what: str, domain: str) -> Iterator[str]:
    """The domain below which a host is, as far as its looks tell, and the top one."""
    labels = domain[:255].casefold().strip(".").split(".")
    country = len(labels) > 2 and len(labels[-1]) == 2 and len(labels[-2]) <= 3
    yield what + ".".join(labels[-3 if country else -2 :])
    yield f"{what}.{labels[-1]}"


_LEXEMES: dict[str, Callable[[str, Own], Iterator[str]]] = {
    "url": _url_of_text,
    "address": _address,
    "money": _money,
    "dense": _dense,
    "apart": _apart,
    "word": _word,
    "number": _number,
}
