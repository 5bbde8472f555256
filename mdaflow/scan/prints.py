"""Prints of a message: numbers by which it is known again, as it was or slightly changed.

Its words are made lower case; digits, random strings, addresses and all of a URL but its host are
left out, as they are what differs between copies of a mass mailing. Words of at least 20 have two
prints: one that only the same words have, and one that similar words nearly have (a simhash,
Charikar 2002, over triples of words: texts that share most triples differ in few of its 64 bits).
Of an attachment the bytes count. What many messages share that have nothing else in common has no
print: short texts, signatures, and pictures beside a text (logos, pixels that count readers).

Two prints that differ in no more than `DISTANCE` bits have one of four bands of 16 bits in common,
but for a few of those that differ in all four: so nobody compares with all there are. This file
does no I/O and never raises, whatever the bytes.

Known limits: what is behind the first 64 KiB of text does not count, a message above 1 MiB has no
prints, and what a picture shows is not read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from hashlib import blake2b
from weakref import WeakKeyDictionary

from mdaflow.mail.html import text_of_html
from mdaflow.mail.message import Message
from mdaflow.mail.mime import Part

WORDS = 20
"""Words that a text must have to be compared."""
DIFFERENT = 10
"""How many of them must be different ones: a table of `ok` says nothing."""
DISTANCE = 6
"""Bits in which similar texts may differ."""
MAX_MESSAGE = 1 << 20
"""Bytes of a message that is compared."""
MAX_TEXT = 64 << 10
"""Characters of all texts of a message that are looked at; of markup twice as many."""
MAX_PARTS = 20
SMALLEST = 1 << 10
"""Bytes of an attachment that is compared."""

Print = tuple[int, int]
"""What is looked up, and what is compared with what is found there: 0 when they are the same."""

_SIZE = 8  # bytes of a hash
_BITS, _BANDS = 8 * _SIZE, 4
_WIDTH = _BITS // _BANDS
_CJK = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7a3"  # a word a character: there are no spaces
_WORD = re.compile(rf"[{_CJK}]|[^\W{_CJK}]+")
_LONGEST = 20
_RANDOM = re.compile(r"[\d_]|[bcdfghjklmnpqrstvwxz]{6}")
"""No word of a language: it has digits, or in Latin letters no vowel for long."""
_URL = re.compile(r"https?://(?:www\.)?([^/?#:\s]+)")
_SIGNATURES = ("application/pgp-", "application/pkcs7-", "application/x-pkcs7-", "text/x-vcard")


_prints: WeakKeyDictionary[Message, list[Print]] = WeakKeyDictionary()  # a site's, and users'


def prints(message: Message) -> list[Print]:
    """The prints of a message, each once; none if it has nothing to compare."""
    found = _prints.get(message)
    if found is None:
        found = _prints[message] = _made(message)
    return found


def _made(message: Message) -> list[Print]:
    if message.size > MAX_MESSAGE:
        return []
    parts = message.parts[:MAX_PARTS]
    texts = [words(text) for text in _texts(parts)]
    long = [b"".join(t) for t in texts if len(t) >= WORDS and len(set(t)) >= DIFFERENT]
    found = [p for text in long for p in (exact(text), *bands(similar(text)))]
    for part in parts:
        if part.attached and _counts(part, beside=bool(long)):
            content = part.content()
            found += [exact(content)] if len(content) >= SMALLEST else []
    return list(dict.fromkeys(found))


def _texts(parts: Iterable[Part]) -> Iterator[str]:
    """What a person reads of parts, as long as there is not too much of it."""
    left = MAX_TEXT
    for part in parts:
        if left > 0 and not part.attached:
            text, html = part.text, part.type == "text/html"
            yield (text_of_html(text[: 2 * left]) if html else text)[:left]
            left -= len(text) // 2 if html else len(text)


def _counts(part: Part, *, beside: bool) -> bool:
    """Would the same attachment in another message say something? `beside`: it has a text."""
    return not part.type.startswith(_SIGNATURES) and not (beside and part.type.startswith("image/"))


def words(text: str) -> list[bytes]:
    """The words that copies of a mailing share, as 8 bytes each; hosts come last."""
    pieces = text.lower().split()
    plain = " ".join(piece for piece in pieces if "@" not in piece and "://" not in piece)
    urls = " ".join(piece for piece in pieces if "://" in piece and "@" not in piece)
    found = map(_hash_of_word, _WORD.findall(plain))
    return [*filter(None, found), *map(_hash, _URL.findall(urls))]


@lru_cache(1 << 14)
def _hash_of_word(word: str) -> bytes:
    """Nothing for what is no word."""
    return b"" if len(word) > _LONGEST or _RANDOM.search(word) else _hash(word)


def _hash(word: str) -> bytes:
    return blake2b(word.encode("utf-8", "surrogatepass"), digest_size=_SIZE).digest()


def exact(content: bytes) -> Print:
    """The print that only the same content has: far above those of the bands."""
    digest = blake2b(content, digest_size=_SIZE).digest()
    return int.from_bytes(digest, "big") >> 2 | 1 << 61, 0


def similar(text: bytes) -> int:
    """The simhash of words, of which there are three or more: 64 bits.

    All triples are made at once, as one long number: in it each word has 64 bits, and is combined
    with the next two, which are shifted by their place and some bytes more, so that their order
    counts. A bit is set if it is in most triples.
    """
    count = len(text) // _SIZE - 2
    whole = int.from_bytes(text, "little")
    for shift in (_SIZE + 3, 2 * _SIZE + 6):
        whole ^= int.from_bytes(text[shift:] + text[:shift], "little")
    whole &= (1 << 8 * _SIZE * count) - 1
    lowest = int.from_bytes(b"\x01" * _SIZE * count, "little")
    found = 0
    for bit in range(8):
        flags = (whole >> bit & lowest).to_bytes(_SIZE * count, "little")
        for byte in range(_SIZE):
            if 2 * flags[byte::_SIZE].count(1) > count:
                found |= 1 << 8 * byte + bit
    return found


def bands(similar: int) -> list[Print]:
    """A simhash under each of its four bands, as SQLite can hold it."""
    held = similar - (1 << _BITS) if similar >> (_BITS - 1) else similar
    mask = (1 << _WIDTH) - 1
    return [(n << _WIDTH | similar >> n * _WIDTH & mask, held) for n in range(_BANDS)]


def distance(one: int, other: int) -> int:
    """The bits in which two simhashes differ."""
    return ((one ^ other) & ((1 << _BITS) - 1)).bit_count()
