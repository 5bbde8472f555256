"""The scanner of our own tests of spam: the sum, what others tell, and mail of any bytes."""

from __future__ import annotations

import math
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdaflow.app.weights import read_weights
from mdaflow.mail.envelope import Envelope
from mdaflow.mail.message import Message
from mdaflow.scan import Hit
from mdaflow.scan.spam import Spam, bayes_hits, for_recipient, own_hits
from mdaflow.scan.spam.clues import MAX_TEXT, MAX_URLS, Clues, Site
from mdaflow.scan.verdict import total

TABLE = read_weights()
ENVELOPE = Envelope("ann@example.com", "bob@example.org")
LETTER = Message(b"From: Ann <ann@example.com>\nTo: bob@example.org\nSubject: Lunch\n\nAt noon?\n")
FEE = Message(
    b"From: Barr. John <john@example.com>\nReply-To: john77@gmail.com\nTo: bob@example.org\n"
    b"Subject: URGENT PROPOSAL\n\nDear friend,\nmy late client left $12,500,000. You are next of"
    b" kin; the beneficiary of this fund. This is strictly confidential. I am barrister John.\n"
)


def names(hits: Iterable[Hit]) -> set[str]:
    return {hit.name for hit in hits}


def test_score_is_the_sum_of_what_is_met() -> None:
    """Each hit tells its part of the score, the largest first, and what it means."""
    hits = Spam(TABLE).scan(FEE, ENVELOPE, 1).hits
    assert total(hits) == pytest.approx(sum(hit.score for hit in hits))
    assert total(hits) > 5
    assert hits[0].name == "SAYS_FEE"
    assert [abs(hit.score) for hit in hits] == sorted((abs(h.score) for h in hits), reverse=True)
    assert all(hit.why.startswith(TABLE[hit.name].about) for hit in hits)


def test_a_test_of_degree_gives_a_part_of_its_weight() -> None:
    """One phrase of many gives less than all of them."""
    raw = b"From: Ann <ann@example.com>\n\nThe lottery is on Monday.\n"
    (hit,) = own_hits(Message(raw), ENVELOPE, Site(), {"SAYS_LOTTERY": TABLE["SAYS_LOTTERY"]})
    assert 0 < hit.score < TABLE["SAYS_LOTTERY"].weight


def test_what_was_learned_counts_both_ways() -> None:
    """Evidence for spam gives points, for ham it takes some, and never more than its weight."""
    for evidence, name in ((8.0, "BAYES_SPAM"), (-8.0, "BAYES_HAM")):
        (hit,) = bayes_hits(evidence, TABLE)
        assert hit.name == name
        assert math.copysign(1, hit.score) == math.copysign(1, evidence)
        (most,) = bayes_hits(evidence * 1e9, TABLE)
        assert most.score == TABLE[name].weight
        assert abs(hit.score) < abs(most.score)


@pytest.mark.parametrize("evidence", [None, math.nan, math.inf])
def test_nothing_learned_says_nothing(evidence: float | None) -> None:
    """Without evidence there is no hit."""
    assert bayes_hits(evidence, TABLE) == []


def test_others_tell_names_of_the_table() -> None:
    """Lists in the DNS and known spam count by the table; a name that it does not have is none."""
    seen = []

    def other(message: Message, envelope: Envelope, seconds: float) -> list[Hit | str]:
        seen.append((message, envelope, seconds))
        return ["KNOWN_SPAM_EXACT", Hit("DNSBL_CLIENT", 99, "192.0.2.1"), "NEVER_HEARD"]

    hits = {h.name: h for h in Spam(TABLE, others=[other]).scan(LETTER, ENVELOPE, 2).hits}
    assert hits["KNOWN_SPAM_EXACT"].score == TABLE["KNOWN_SPAM_EXACT"].weight
    assert hits["DNSBL_CLIENT"].score == TABLE["DNSBL_CLIENT"].weight
    assert hits["DNSBL_CLIENT"].why.endswith(": 192.0.2.1")
    assert "NEVER_HEARD" not in hits
    assert seen == [(LETTER, ENVELOPE, 2)]


def test_who_cannot_tell_is_neutral(caplog: pytest.LogCaptureFixture) -> None:
    """When counts or another test are out of reach, the rest of the score stands, and the log
    says so."""

    def broken(*_: object) -> float:
        raise OSError("database is locked")

    whole = Spam(TABLE).scan(FEE, ENVELOPE, 1)
    scanner = Spam(TABLE, bayes=broken, others=[broken])  # type: ignore[list-item]
    assert scanner.scan(FEE, ENVELOPE, 1) == whole
    assert caplog.text.count("database is locked") == 2


def test_own_evidence_replaces_that_of_the_site() -> None:
    """What a user has learned counts instead of what the site has."""
    hits = Spam(TABLE, bayes=lambda _: 9.0).scan(FEE, ENVELOPE, 1).hits
    assert "BAYES_SPAM" in names(hits)
    own = for_recipient(hits, known=False, evidence=-9.0, table=TABLE)
    assert names(own) == names(hits) - {"BAYES_SPAM"} | {"BAYES_HAM"}
    assert for_recipient(hits, known=False, evidence=None, table=TABLE) == hits


def test_known_senders_count_against_spam() -> None:
    """To know the sender takes points from a message, for this recipient."""
    hits = Spam(TABLE).scan(FEE, ENVELOPE, 1).hits
    own = for_recipient(hits, known=True, evidence=None, table=TABLE)
    assert names(own) - names(hits) == {"KNOWN_SENDER"}
    assert total(own) == pytest.approx(total(hits) + TABLE["KNOWN_SENDER"].weight)


def test_weights_of_zero_are_no_hits() -> None:
    """What a site has switched off is not shown."""
    table = TABLE | {name: worth._replace(weight=0) for name, worth in TABLE.items()}
    hits = Spam(table, bayes=lambda _: 5.0, others=[lambda *_: ["DNSBL_CLIENT"]]).scan(
        FEE, ENVELOPE, 1
    )
    assert hits.hits == ()
    assert for_recipient((), known=True, evidence=5.0, table=table) == ()


@given(st.binary(max_size=2000))
def test_any_bytes_have_a_score(raw: bytes) -> None:
    """Any bytes as mail give hits and a finite score."""
    hits = Spam(TABLE).scan(Message(raw), ENVELOPE, 1).hits
    assert math.isfinite(total(hits))
    assert names(hits) <= set(TABLE)


WORDS = st.sampled_from(
    ["<a href=", "http://", "<!--", "-->", "@", "&#", "color:", "=?utf-8?B?", "--b\n", "\n", "a.b",
     "<b", ">", '"', "Re: ", "dear ", "виагра", "\u200b", "%41", "[::1]", "(", ";", "Content-Type:",
     "text/html", "Received: from x (y [1.2.3.4]) by z; ", "From: ", "To: ", "Date: ", "9" * 30]
)  # fmt: skip


@given(st.lists(WORDS, max_size=60).map("".join), st.sampled_from(["html", "plain"]))
def test_whatever_stands_there_has_a_score(text: str, kind: str) -> None:
    """Pieces of markup, addresses and fields in any order give a finite score."""
    raw = f"Content-Type: text/{kind}\nSubject: {text[:50]!r}\n{text}\n\n{text}".encode()
    assert math.isfinite(total(Spam(TABLE).scan(Message(raw), ENVELOPE, 1).hits))


@pytest.mark.parametrize(
    "unit", ["<a href='http://x.example/'>y</a>", "<", "a.", "http://x.example "]
)
def test_no_more_is_looked_at_than_the_caps_allow(unit: str) -> None:
    """Of a message of megabytes, only so much text and so many links are taken."""
    raw = b"Content-Type: text/html\n\n" + unit.encode() * ((2 << 20) // len(unit))
    clues = Clues(Message(raw), ENVELOPE, Site())
    assert len(clues.html) <= MAX_TEXT
    assert len(clues.urls) <= MAX_URLS
    assert len(clues.markup.links) <= MAX_URLS
    assert math.isfinite(total(own_hits(Message(raw), ENVELOPE, Site(), TABLE)))
