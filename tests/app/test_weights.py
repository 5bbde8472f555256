"""The weights of spam tests: what a site may say, and what is wrong with what it says."""

from __future__ import annotations

import pytest

from mdaflow.app.weights import read_weights
from mdaflow.errors import ConfigError

SHIPPED = read_weights()


def problems(text: str) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        read_weights(text.encode(), "/etc/w.yaml")
    return caught.value.problems


def test_a_site_changes_some_weights() -> None:
    """What the site says replaces the shipped weight; the rest, and what it means, stays."""
    table = read_weights(b"HTML_ONLY: 2\nREPLY: {weight: -3.5}\nLISTED: 0\n", "w")
    assert table["HTML_ONLY"] == SHIPPED["HTML_ONLY"]._replace(weight=2.0)
    assert table["REPLY"].weight == -3.5
    assert table["LISTED"].weight == 0
    assert {n: w for n, w in table.items() if n not in ("HTML_ONLY", "REPLY", "LISTED")} == {
        n: w for n, w in SHIPPED.items() if n not in ("HTML_ONLY", "REPLY", "LISTED")
    }


def test_a_site_may_say_what_a_test_means() -> None:
    """The line of explanation can be replaced, too."""
    table = read_weights(b'REPLY: {weight: -1, about: "Eine Antwort"}', "w")
    assert table["REPLY"].about == "Eine Antwort"


@pytest.mark.parametrize("text", ["", "# nothing\n", "~\n"])
def test_an_empty_file_changes_nothing(text: str) -> None:
    """A file with nothing in it leaves the shipped weights."""
    assert read_weights(text.encode(), "w") == SHIPPED


def test_lists_of_the_dns_have_a_weight() -> None:
    """A list that the shipped table does not know is worth what others of its kind are."""
    table = read_weights(b"DNSBL_OURS: 1.5", "w", ["DNSBL_OURS", "DNSBL_OTHER", "URIBL_X"])
    assert table["DNSBL_OURS"].weight == 1.5
    assert table["DNSBL_OTHER"] == SHIPPED["DNSBL_CLIENT"]
    assert table["URIBL_X"] == SHIPPED["URIBL_LINK"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("REPLY: 1\nHTML_ONLI: 2", "2:1: HTML_ONLI: no such test; did you mean 'HTML_ONLY'?"),
        ("html_only: 2", "1:1: html_only: no such test; did you mean 'HTML_ONLY'?"),
        ("XYZZY: 2", "1:1: XYZZY: no such test"),
        ("REPLY: true", "1:1: REPLY: its weight must be a number"),
        ("REPLY: much", "1:1: REPLY: its weight must be a number"),
        ("REPLY:", "1:1: REPLY: its weight must be a number"),
        ("REPLY: {about: x}", "1:1: REPLY: its weight must be a number"),
        ("REPLY: 1e999", "1:1: REPLY: its weight must be a number"),
        ("REPLY: 1001", "1:1: REPLY: its weight must be from -1000 to 1000"),
        ("REPLY: {weight: 1, wait: 2}", "1:1: REPLY: must be a number, or {weight: NUMBER,"),
        ("REPLY: {weight: 1, about: 2}", "1:1: REPLY: must be a number, or {weight: NUMBER,"),
        ("- REPLY", "1:1: must be lines of NAME: WEIGHT"),
        ("REPLY: 1\nREPLY: 2", "2:1: REPLY: given twice, first at 1:1"),
        ("REPLY: &a 1", "1:8: REPLY: anchors and aliases are not allowed"),
        ("REPLY: [", "not YAML"),
        ("\x00", "the character U+0000 is not allowed"),
    ],
)
def test_a_mistake_is_told_with_its_place(text: str, problem: str) -> None:
    """Each mistake gives file, line, column, name, and the nearest name there is."""
    (found,) = problems(text)
    assert found.startswith("/etc/w.yaml:")
    assert problem in found


def test_all_mistakes_are_told_at_once() -> None:
    """A file with several mistakes tells all of them, in their order."""
    assert [p.split(":")[1] for p in problems("A: 1\nREPLY: x\nB: 2\n")] == ["1", "2", "3"]
