"""Authentication-Results."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mdaflow.mail.authres import METHODS, results
from mdaflow.mail.message import Message

NONE = ("none",)

# a field | results other than none
FIELDS: dict[str, dict[str, tuple[str, ...]]] = {
    "mx.example; spf=pass smtp.mailfrom=a@b": {"spf": ("pass",)},
    "mx.example 1; spf=fail": {"spf": ("fail",)},
    "MX.Example;SPF = SoftFail;dkim=Pass header.d=b": {"spf": ("softfail",), "dkim": ("pass",)},
    "mx.example;\n\tdkim=pass (2048-bit key; spf=pass)\n header.d=a;\n\tdkim=fail header.d=b;"
    "\n\tdmarc=pass (p=none) header.from=a": {"dkim": ("pass", "fail"), "dmarc": ("pass",)},
    "(a (b) c) mx.example (d) 1 ; (e) spf (f) / (g) 1 (h) = (i) pass (j)": {"spf": ("pass",)},
    '"mx.example"; spf=pass': {"spf": ("pass",)},
    'mx.example; dkim=fail reason="no; spf=pass"; spf=neutral': {
        "dkim": ("fail",), "spf": ("neutral",),
    },
    r'mx.example; dkim=fail reason="\"; spf=pass"': {"dkim": ("fail",)},
    r"mx.example; dkim=fail (\); spf=pass)": {"dkim": ("fail",)},
    "mx.example; none": {},
    "mx.example": {},
    "mx.example;": {},
    "mx.example; arc=pass; iprev=permerror": {"arc": ("pass",), "iprev": ("permerror",)},
    "mx.example; spf=hardfail": {"spf": ("fail",)},
    "mx.example; spf=great; dkim=pass.; dmarc=": {},
    "mx.example; smtp.spf=pass; x spf=pass; =pass; spf": {},
    'mx.example; dkim=none ("; spf=pass); dmarc=fail': {"dmarc": ("fail",)},
    "mx.example; dkim=fail; spf=pass (open": {"dkim": ("fail",)},
    'mx.example; dkim=fail; spf=pass "open; dmarc=pass': {"dkim": ("fail",)},
    "mx.example.evil; spf=pass": {},
    "evil (mx.example); spf=pass": {},
    "; spf=pass": {},
    "=?utf-8?q?mx.example?=; spf=pass": {},
    "": {},
}  # fmt: skip


@pytest.mark.parametrize(("field", "found"), FIELDS.items())
def test_fields(field: str, found: dict[str, tuple[str, ...]]) -> None:
    """The results of a field of ours, without what comments and quotes pretend."""
    message = Message(f"Authentication-Results: {field}\n\n".encode())
    assert results(message, ["mx.example"]) == {**dict.fromkeys(METHODS, NONE), **found}


def test_topmost() -> None:
    """The topmost field of ours counts, whatever stands above and below."""
    message = Message(
        b"Authentication-Results: other; spf=pass; dkim=pass\n"
        b"Authentication-Results: mx.example; spf=fail\n"
        b"Authentication-Results: mx.example; spf=pass; dkim=pass\n\n"
    )
    assert results(message, {"mx.example"}) == {"spf": ("fail",), "dkim": NONE, "dmarc": NONE}
    assert results(message, {"x", "OTHER"})["dkim"] == ("pass",)


@pytest.mark.parametrize("trusted", [[], ["other"], ["mx"]])
def test_nobody_is_trusted(trusted: list[str]) -> None:
    """Without a field that is trusted there are no results."""
    message = Message(b"Authentication-Results: mx.example; spf=pass\n\n")
    assert results(message, trusted) == dict.fromkeys(METHODS, NONE)
    assert results(Message(b""), trusted) == dict.fromkeys(METHODS, NONE)


SIGNS = [
    b"mx",
    b";",
    b"spf",
    b"=",
    b"pass",
    b"(",
    b")",
    b'"',
    b"\\",
    b" ",
    b"/",
    b"1",
    b"\n ",
    b".",
]


@given(st.one_of(st.binary(), st.lists(st.sampled_from(SIGNS), max_size=40).map(b"".join)))
@example(b"mx; " + b"(" * 300_000)
@example(b"mx; " + b"\\" * 300_000)
@example(b"mx" + b"; spf=pass" * 30_000)
@example(b"mx; spf" + b" / 1" * 50_000)
def test_any_bytes(field: bytes) -> None:
    """Any bytes have results of known words."""
    found = results(Message(b"Authentication-Results: " + field + b"\n\n"), ["mx"])
    assert set(METHODS) <= set(found)
    assert all(words and all(word.isalpha() for word in words) for words in found.values())
