"""How much a message is like the spam, and how much like the ham, that was learned.

The method is that of Gary Robinson ("A statistical approach to the spam problem", 2003): the share
of spam among what had a token, drawn to one half while the token is rare; then Fisher's test by
chi squared of all tokens that tell, once for each class.

Both results of the test are 0 or 1 for nearly every message, since the words of a text depend on
each other. So there is `evidence`, too: the mean of the tokens' log-odds times the root of their
number. It ranks what the test takes for the same.

Nothing here does I/O but by `Counts`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from itertools import accumulate
from math import exp, log, sqrt
from typing import NamedTuple, Protocol

from mdaflow.mail.message import Message

from .tokens import keys

ENOUGH = 20
"""Messages of each class that must have been learned before anything is said."""
STRENGTH = 0.3
"""How many messages the first guess of a token weighs."""
GUESS = 0.5
DEVIATION = 0.2
"""Tokens that are nearer than this to one half tell nothing."""
MAX_BODY = 1 << 20
"""Bytes of a body by which a message is known again."""


Lesson = tuple[bytes, bool | None, Sequence[int]]
"""The name of a message, whether it is spam (None: forget it), and the keys of its tokens."""


class Counts(Protocol):
    """In how many messages of each class a token was: (spam, ham).

    All calls raise OSError when there is no telling.
    """

    def totals(self) -> tuple[int, int]:
        """How many messages were learned."""

    def get(self, keys: Sequence[int]) -> Mapping[int, tuple[int, int]]:
        """The counts of those tokens that were ever learned."""

    def class_of(self, name: bytes) -> bool | None:
        """What the message of this name was learned as: whether as spam; None: not at all."""

    def learn(self, lessons: Sequence[Lesson]) -> Sequence[bool]:
        """Count messages by their names; of each, whether that is new.

        A message counts once, as what it was learned last.
        """

    def close(self) -> None:
        """Let go of what is open; the next use opens it again."""


class Judgement(NamedTuple):
    """What a classifier says of a message."""

    probability: float
    """Of spam, 0 to 1."""
    evidence: float
    """For spam if more than 0, else for ham; most are from -20 to 20."""
    spam: float
    """How unlike ham it is: the logarithm of how seldom ham has such tokens, 0 or more."""
    ham: float
    """How unlike spam it is."""
    told: int
    """Tokens that told something."""


def lesson(message: Message, spam: bool | None) -> Lesson:
    """What is learned from a message that is spam, ham, or (None) to be forgotten."""
    return name_of(message), spam, keys(message)


class Classifier:
    """Judges messages by what was learned."""

    def __init__(self, counts: Counts) -> None:
        self._counts = counts

    def judge(self, message: Message) -> Judgement | None:
        """What a message is like; None while too little was learned. Raises OSError."""
        totals = self._counts.totals()
        if min(totals) < ENOUGH:
            return None
        return judgement(self._counts.get(keys(message)).values(), totals)

    def close(self) -> None:
        """Let go of what is open; the next use opens it again."""
        self._counts.close()


def judgement(counts: Iterable[tuple[int, int]], totals: tuple[int, int]) -> Judgement:
    """What tokens with these counts say, if so many messages were learned."""
    told = [p for p in (share(*pair, *totals) for pair in counts) if abs(p - 0.5) >= DEVIATION]
    if not told:
        return Judgement(0.5, 0.0, 0.0, 0.0, 0)
    unlike_ham = -sum(log(1 - p) for p in told)
    unlike_spam = -sum(log(p) for p in told)
    spam, ham = (-rarity(m, len(told)) for m in (unlike_ham, unlike_spam))
    probability = (1 + exp(-ham) - exp(-spam)) / 2
    evidence = (unlike_ham - unlike_spam) / sqrt(len(told))
    return Judgement(probability, evidence, spam, ham, len(told))


def share(spam: int, ham: int, all_spam: int, all_ham: int) -> float:
    """How much a token tells of spam, between 0 and 1 but neither."""
    seen = spam + ham
    often = spam / all_spam
    part = often / (often + ham / all_ham) if seen else GUESS
    return (STRENGTH * GUESS + seen * part) / (STRENGTH + seen)


def rarity(half: float, n: int) -> float:
    """The logarithm of the probability that chi squared with 2n degrees of freedom is 2 * `half`
    or more: of exp(-half) * (1 + half + half**2/2! + ... + half**(n-1)/(n-1)!)."""
    if half <= 0:
        return 0.0
    step = log(half)
    logs = list(accumulate((step - log(i) for i in range(1, n)), initial=-half))
    most = max(logs)
    return min(0.0, most + log(sum(exp(value - most) for value in logs)))


_STAYS = ("from", "subject", "date", "message-id")
_QUOTED = re.compile(rb"^>+(?=From )", re.MULTILINE)


def name_of(message: Message) -> bytes:
    """By what a message is known again, in whatever folder or mailbox file a copy of it lies.

    It is made of what its author wrote; fields that were added on its way or by programs that keep
    it do not matter.
    """
    made = blake2b(digest_size=16)
    for field in _STAYS:
        for value in message.header(field, raw=True):
            made.update(f"{field}:{' '.join(value.split())}\n".encode("utf-8", "surrogateescape"))
    body = message.raw_body[:MAX_BODY].strip(b"\r\n")
    made.update(_QUOTED.sub(b"", body))
    return made.digest()


class MemoryCounts:
    """Counts for tests and benches, which last as long as the process."""

    def __init__(self) -> None:
        self._learned: dict[bytes, bool] = {}
        self._counts: dict[int, tuple[int, int]] = {}

    def totals(self) -> tuple[int, int]:
        """How many messages were learned."""
        spam = sum(self._learned.values())
        return spam, len(self._learned) - spam

    def get(self, keys: Sequence[int]) -> Mapping[int, tuple[int, int]]:
        """The counts of those tokens that were ever learned."""
        return {key: self._counts[key] for key in keys if key in self._counts}

    def class_of(self, name: bytes) -> bool | None:
        """What the message of this name was learned as: whether as spam; None: not at all."""
        return self._learned.get(name)

    def learn(self, lessons: Sequence[Lesson]) -> Sequence[bool]:
        """Count messages by their names; of each, whether that is new."""
        return [self._learn(*lesson) for lesson in lessons]

    def close(self) -> None:
        """Nothing is open."""

    def _learn(self, name: bytes, spam: bool | None, keys: Iterable[int]) -> bool:
        before = self._learned.pop(name, None)
        if spam is not None:
            self._learned[name] = spam
        if spam == before:
            return False
        for key in keys:
            counts = self._counts.get(key, (0, 0))
            s = counts[0] + (spam is True) - (before is True)
            h = counts[1] + (spam is False) - (before is False)
            self._counts[key] = (s, h)
            if s <= 0 and h <= 0:
                del self._counts[key]
        return True
