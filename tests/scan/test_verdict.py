"""What scanners together say, and how it is kept."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdaflow.scan import Hit, Report
from mdaflow.scan.verdict import (
    MAX_NAME,
    MAX_STATUS,
    Verdict,
    combined,
    dumps,
    loads,
    spam_status,
    total,
)

A, B = Hit("A", 3.0, "a"), Hit("B", -4.25, "b")


def test_combined() -> None:
    """All that scanners have found counts, and who could not say is named."""
    found = combined(
        [
            ("one", Report(("X", "Y\r\n Z"), (A,))),
            ("two", Report(("X",), (B,), unscanned="larger\nthan 5")),
            ("three", Report(unscanned="\0")),
        ]
    )
    assert found == Verdict(("X", "Y Z"), (A, B), ("two: larger than 5", "three: ?"))
    assert combined([]) == Verdict()


@pytest.mark.parametrize(
    ("verdict", "status"),
    [
        (Verdict(), "Clean"),
        (Verdict(("X", "Y")), "Infected (X, Y)"),
        (Verdict(("X",), (), ("clamd: down",)), "Infected (X)"),
        (Verdict((), (A,), ("clamd: down", "b: slow")), "Not scanned (clamd, b)"),
    ],
)
def test_virus_status(verdict: Verdict, status: str) -> None:
    """What nobody looked at is not clean."""
    assert verdict.virus_status == status


def test_spam_status() -> None:
    """A status is read as that of SpamAssassin, the weightiest tests first."""
    assert spam_status((A, B), -1.5) == "Yes, score=-1.2 required=-1.5 tests=B,A"
    assert spam_status((), 5.0) == "No, score=0.0 required=5.0 tests=none"
    assert spam_status((A,), 3.0, ["spamd: down"]) == (
        "Yes, score=3.0 required=3.0 tests=A (not scanned: spamd)"
    )


def test_lengths() -> None:
    """However much scanners say, a status is one header field of no great length."""
    many = [Hit(f"TEST_{n}", 1.0) for n in range(1000)]
    long = combined([("x", Report(("v" * 999,) * 2, unscanned="w" * 999))] * 9)
    assert [len(virus) for virus in long.viruses] == [MAX_NAME]
    assert len(spam_status(many, 5.0, long.unscanned)) == MAX_STATUS
    assert len(Verdict(tuple(map(str, range(9999)))).virus_status) == MAX_STATUS


def test_total() -> None:
    """A sum is no -0.0, and not a tenth off by its parts."""
    assert str(total([Hit("A", 0.1)] * 10 + [Hit("B", -1.0)])) == "0.0"
    assert str(total([Hit("A", -0.001)])) == "0.0"


_TEXT = st.text()
_HITS = st.builds(Hit, _TEXT, st.floats(allow_nan=False, allow_infinity=False), _TEXT)


@given(
    st.builds(
        Report,
        st.lists(_TEXT).map(tuple),
        st.lists(_HITS).map(tuple),
        st.dictionaries(_TEXT, st.lists(_TEXT).map(tuple)),
        _TEXT,
    )
)
def test_kept(report: Report) -> None:
    """A report that was kept is the same report."""
    assert loads(dumps(report)) == report


@pytest.mark.parametrize(
    "text",
    [
        "", "x", "[]", "null", "[[], [], {}]", "[[1], [], {}, \"\"]", "[[], [[1]], {}, \"\"]",
        "[[], [[\"A\", NaN, \"\"]], {}, \"\"]", "[[], [[\"A\", \"1\", \"\"]], {}, \"\"]",
        "[[], [], [], \"\"]", "[[], [], {\"a\": [1]}, \"\"]", "[[], [], {}, null]", "[" * 100_000,
    ],
)  # fmt: skip
def test_what_is_no_report(text: str) -> None:
    """Whatever a store holds, it is a report or nothing."""
    assert loads(text) is None
