"""XFORWARD attributes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdaflow.mail.envelope import NOBODY, Client
from mdaflow.mail.path import CONTROL
from mdaflow.serve.xforward import ATTRIBUTES, client, parse


def test_values() -> None:
    """Values are decoded, unknown ones are empty, IPv6 loses its mark."""
    assert parse(
        b"name=[UNAVAILABLE] ADDR=IPV6:2001:DB8::1 PORT=25 HELO=a+2Bb+3D+C3+BC SOURCE="
    ) == {
        "NAME": "",
        "ADDR": "2001:db8::1",
        "PORT": "25",
        "HELO": "a+b=ü",
        "SOURCE": "",
    }


@pytest.mark.parametrize(
    "argument",
    [
        b"",
        b"NAME",
        b"LOGIN=root",
        b"=x",
        b"NAME=a=b",
        b"NAME=a+2",
        b"NAME=a+GG",
        b"NAME=+0A",
        b"NAME=+00",
        b"NAME=+7F",
        b"NAME=+C2+85",
        b"NAME=+E2+80+AE",
        b"NAME=+FF",
        b"NAME=\xc3\xbc",
        b"NAME=" + b"a" * 256,
        b"ADDR=localhost",
        b"ADDR=1.2.3",
        b"ADDR=IPV6:1.2.3.4.5",
        b"PORT=65536",
        b"PORT=-1",
        b"PORT=+D9+A1",
        b"HELO=x ADDR=x",
    ],
)
def test_refused(argument: bytes) -> None:
    """What is unknown, not xtext, not UTF-8, or holds controls is refused."""
    with pytest.raises(ValueError):  # noqa: PT011  the reason goes nowhere
        parse(argument)


@given(st.dictionaries(st.sampled_from(["NAME", "HELO", "IDENT", "x"]), st.binary(max_size=20)))
def test_any_bytes(words: dict[str, bytes]) -> None:
    """Any bytes give values without control characters, or ValueError."""
    try:
        found = parse(b" ".join(name.encode() + b"=" + value for name, value in words.items()))
    except ValueError:
        return
    assert set(found) <= set(ATTRIBUTES)
    assert not any(CONTROL.search(value) for value in found.values())


def test_client() -> None:
    """The client is made of address, name and HELO; of nothing, nobody."""
    assert client({}) is NOBODY
    assert client({"ADDR": "::1", "HELO": "h", "IDENT": "q"}) == Client("::1", "", "h")
