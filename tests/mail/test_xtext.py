"""xtext and the two encodings of UTF-8 addresses."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdaflow.mail import xtext
from mdaflow.mail.path import CONTROL

VISIBLE = {chr(n) for n in range(33, 127)} - set("+=")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("", ""),
        ("a@b", "a@b"),
        ("a+2Bb+3Dc+20d", "a+b=c d"),
        ("a+2bb", "a+b"),
        ("+C3+BC", "ü"),
        (r"a\x{41}", r"a\x{41}"),
    ],
)
def test_decode(value: str, text: str) -> None:
    """Escapes are bytes of UTF-8, all else is literal."""
    assert xtext.decode(value) == text


@pytest.mark.parametrize(
    "value",
    ["a b", "a=b", "+", "+4", "+GG", "ü", "+00", "+0A", "+0D", "+7F", "+C2+85", "+E2+80+AE", "+FF"],
)
def test_not_xtext(value: str) -> None:
    """What is not xtext, not UTF-8 or holds controls is refused."""
    with pytest.raises(ValueError, match=r"^(not xtext|not UTF-8|control character)$"):
        xtext.decode(value)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a@b", "a@b"),
        (r"j\x{FC}rgen@b", "jürgen@b"),
        ("jürgen@b", "jürgen@b"),
        ("j+C3+BCrgen@b", "jürgen@b"),
        (r"a\x{2B}41\x{3D}\x{5C}b@\x{1F600}", "a+41=\\b@\U0001f600"),
    ],
)
def test_decode_address(value: str, text: str) -> None:
    """Both forms of RFC 6533 are read, and xtext; a character that is decoded escapes nothing."""
    assert xtext.decode_address(value) == text


@pytest.mark.parametrize(
    "value",
    [
        *("a=b", "a b", "a\\b", r"\x{}", r"\x{A}", r"\x{110000}", r"\x{0A}", r"\x{202E}", "a+b"),
        *(r"\x{D800}", "+FF", "\u2028", "\ud800"),
    ],
)
def test_not_an_address(value: str) -> None:
    """Half characters, controls and bare specials are refused."""
    with pytest.raises(
        ValueError, match=r"^(not utf-8-addr-xtext|not UTF-8|control character|not a character)$"
    ):
        xtext.decode_address(value)


@given(st.text())
def test_any_value(value: str) -> None:
    """Any value gives text without controls, or ValueError."""
    for decode in (xtext.decode, xtext.decode_address):
        try:
            assert not CONTROL.search(decode(value))
        except ValueError:
            continue


TEXT = st.text(st.characters(exclude_categories=("Cs", "Cc"))).filter(
    lambda t: not CONTROL.search(t)
)


@given(TEXT)
def test_there_and_back(text: str) -> None:
    """What is encoded is ASCII without specials, and can be had back."""
    assert set(xtext.encode(text)) <= VISIBLE | {"+"}
    assert xtext.decode(xtext.encode(text)) == text
    assert set(xtext.encode_address(text)) <= VISIBLE
    assert xtext.decode_address(xtext.encode_address(text)) == text


@given(TEXT)
def test_in_ascii(text: str) -> None:
    """The ASCII form of a value means the same."""
    value = xtext.encode_address(text).replace(r"\x{FC}", "ü")
    assert xtext.in_ascii(value).isascii()
    assert xtext.decode_address(xtext.in_ascii(value)) == text
    assert xtext.in_ascii(xtext.encode(text)) == xtext.encode(text)
