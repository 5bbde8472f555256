"""The classifier: what was learned decides, and how surely."""

from __future__ import annotations

from math import exp, isfinite, log

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdaflow.mail.message import Message
from mdaflow.scan.bayes import (
    ENOUGH,
    Classifier,
    MemoryCounts,
    judgement,
    name_of,
    rarity,
    share,
)
from mdaflow.scan.tokens import keys

SPAM = "Subject: Cheap pills\n\nBuy our cheap pills now, offer {n} ends soon\n"
HAM = "Subject: The meeting\n\nSee you at the meeting in room {n}, regards\n"


def mail(text: str, n: int = 0) -> Message:
    return Message(text.format(n=n).encode())


def learned(spam: int, ham: int) -> MemoryCounts:
    counts = MemoryCounts()
    for text, number, is_spam in ((SPAM, spam, True), (HAM, ham, False)):
        for n in range(number):
            counts.learn([(b"%d %d" % (is_spam, n), is_spam, keys(mail(text, n)))])
    return counts


def test_judges() -> None:
    """What is like the spam is spam, what is like the ham is ham."""
    classifier = Classifier(learned(30, 30))
    spam, ham = classifier.judge(mail(SPAM, 77)), classifier.judge(mail(HAM, 77))
    assert spam is not None
    assert ham is not None
    assert spam.probability > 0.99 > 0.01 > ham.probability
    assert spam.evidence > 0 > ham.evidence
    assert spam.spam > spam.ham
    assert ham.ham > ham.spam


@pytest.mark.parametrize(("spam", "ham"), [(0, 0), (ENOUGH - 1, ENOUGH), (ENOUGH, ENOUGH - 1)])
def test_too_little(spam: int, ham: int) -> None:
    """Nothing is said while too little of a class was learned."""
    assert Classifier(learned(spam, ham)).judge(mail(SPAM)) is None


def test_nothing_known() -> None:
    """A message of which no token is known is neither."""
    said = judgement([], (100, 100))
    assert said.probability == 0.5
    assert said.told == 0


def test_share() -> None:
    """Classes of different size weigh the same; what is rare is drawn to one half."""
    assert share(0, 0, 10, 10) == 0.5
    assert share(10, 100, 100, 1000) == pytest.approx(0.5)
    assert 0.5 < share(1, 0, 100, 100) < share(20, 0, 100, 100) < 1


@pytest.mark.parametrize("half", [0.5, 3.0, 40.0])
@pytest.mark.parametrize("n", [1, 2, 30])
def test_rarity(half: float, n: int) -> None:
    """The tail of chi squared is that of its series."""
    term = total = exp(-half)
    for i in range(1, n):
        term *= half / i
        total += term
    assert rarity(half, n) == pytest.approx(min(0.0, log(total)), abs=1e-9)


pairs = st.tuples(st.integers(0, 10**6), st.integers(0, 10**6))


@given(st.lists(pairs, max_size=300), st.integers(1, 10**6), st.integers(1, 10**6))
def test_always_finite(counts: list[tuple[int, int]], spam: int, ham: int) -> None:
    """Any counts give numbers, and a probability between 0 and 1."""
    said = judgement(counts, (spam, ham))
    assert all(map(isfinite, said))
    assert 0 <= said.probability <= 1
    assert min(said.spam, said.ham) >= 0


@given(st.lists(st.tuples(st.integers(0, 4), st.sampled_from([True, False, None])), max_size=30))
def test_learning_can_be_undone(steps: list[tuple[int, bool | None]]) -> None:
    """However often it is learned, a message counts once, and what is forgotten leaves nothing."""
    counts, straight = MemoryCounts(), MemoryCounts()
    tokens = {n: [n, n + 1, 7] for n in range(5)}
    for n, spam in steps:
        counts.learn([(b"%d" % n, spam, tokens[n])])
    for n, spam in dict(steps).items():
        straight.learn([(b"%d" % n, spam, tokens[n])])
    assert counts.totals() == straight.totals()
    assert counts.get(range(9)) == straight.get(range(9))
    for n in tokens:
        counts.learn([(b"%d" % n, None, tokens[n])])
    assert counts.totals() == (0, 0)
    assert counts.get(range(9)) == {}


def test_name() -> None:
    """Copies of a message have one name, whatever was added on the way; others have others."""
    text = b"From: a@b\nSubject: x\nMessage-ID: <1>\n\nHi\nFrom here\n"
    copy = b"Return-Path: <a>\nReceived: by x\nX-Mozilla-Status: 0001\n" + text
    quoted = text.replace(b"\nFrom here", b"\n>From here") + b"\n"
    names = {name_of(Message(raw)) for raw in (text, copy, quoted)}
    assert len(names) == 1
    assert name_of(Message(text.replace(b"Hi", b"Ho"))) not in names
    assert name_of(Message(text.replace(b": x", b": y"))) not in names
