"""Paths of MAIL and RCPT."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mdaflow.mail.path import CONTROL, parse_parameters, parse_path

TAKEN = {
    b"<>": "",
    b"<bob@example.org>": "bob@example.org",
    b"<Bob+Lists@EXAMPLE.org>": "Bob+Lists@EXAMPLE.org",
    b"<postmaster>": "postmaster",
    b"<PostMaster>": "PostMaster",
    b"<a.b@c_d.example>": "a.b@c_d.example",
    b'<"a b"@x>': '"a b"@x',
    b'<"../../etc/x"@x>': '"../../etc/x"@x',
    b'<"a\\"b>"@x>': '"a\\"b>"@x',
    b'<""@x>': '""@x',
    b"<a@[192.0.2.1]>": "a@[192.0.2.1]",
    b"<a@[IPv6:2001:db8::1]>": "a@[IPv6:2001:db8::1]",
    b"<@relay.example,@[192.0.2.1]:a@b>": "a@b",
    b"<=?utf-8?q?root?=@x>": "=?utf-8?q?root?=@x",
    "<jürgen@bücher.example>".encode(): "jürgen@bücher.example",
    b"<" + b"a" * 255 + b"@example.org>": "a" * 255 + "@example.org",
}


@pytest.mark.parametrize("argument", TAKEN)
def test_literal(argument: bytes) -> None:
    """An address comes out exactly as it was sent; only a source route is dropped."""
    assert parse_path(argument) == (TAKEN[argument], b"")


REFUSED = {
    b"": "no < before the address",
    b"bob@example.org": "no < before the address",
    b" <bob@example.org>": "no < before the address",
    b"<bob@example.org": "malformed address",
    b"<bob@example.org>x": "malformed address",
    b"<bob@example.org>>": "malformed address",
    b"<<bob@example.org>>": "malformed address",
    b"<bob>": "malformed address",
    b"<bob@>": "malformed address",
    b"<@example.org>": "malformed address",
    b"<a@b@c>": "malformed address",
    b"<a b@c>": "malformed address",
    b"<a@b c>": "malformed address",
    b"<.a@b>": "malformed address",
    b"<a.@b>": "malformed address",
    b"<a..b@c>": "malformed address",
    b"<a@b..c>": "malformed address",
    b"<a@b.>": "malformed address",
    b"<a@[b>": "malformed address",
    b"<a@[]>": "malformed address",
    b"<a(comment)@b>": "malformed address",
    b'<"a@b>': "malformed address",
    b'<"a"b@c>': "malformed address",
    b'<"a\\">': "malformed address",
    b"<@relay:>": "malformed address",
    b"<@relay:postmaster>": "malformed address",
    b"<a@b\0>": "control character in the address",
    b"<a\r@b>": "control character in the address",
    b"<a\n@b>": "control character in the address",
    b'<"a\r\nb"@c>': "control character in the address",
    b'<"a\x7f"@c>': "control character in the address",
    b"<a@b> \0": "control character in the address",
    b"<j\xfcrgen@b>": "address is not UTF-8",
    b"<\xed\xa0\x80@b>": "address is not UTF-8",
    b"<\xc0\xae@b>": "address is not UTF-8",
    "<a\u0085@b>".encode(): "control character in the address",
    "<a\u2028@b>".encode(): "control character in the address",
    "<a\u202egro@b>".encode(): "control character in the address",
    "<a@b\u2067>".encode(): "control character in the address",
    b"<" + b"a" * 256 + b"@b>": "address too long",
    b"<a@" + b"b" * 319 + b">": "address too long",
}


@pytest.mark.parametrize("argument", REFUSED)
def test_refused(argument: bytes) -> None:
    """What is not exactly a path is refused, with a reason."""
    with pytest.raises(ValueError, match=f"^{REFUSED[argument]}$"):
        parse_path(argument)


def test_rest() -> None:
    """What stands behind the path is handed back."""
    assert parse_path(b"<a@b>  SIZE=1 BODY=8BITMIME ") == ("a@b", b"SIZE=1 BODY=8BITMIME ")


@given(st.binary(max_size=40) | st.text(max_size=20).map(lambda text: f"<{text}@b>".encode()))
@example(b'<"' + b"\\" * 30 + b'"@x>')
def test_any_bytes(argument: bytes) -> None:
    """Any bytes give an address that stands in them literally, without controls, or ValueError."""
    try:
        address, rest = parse_path(argument)
    except ValueError:
        return
    assert not CONTROL.search(address)
    assert argument.startswith(b"<")
    assert argument.rstrip(b" ").endswith((address.encode() + b">", rest.rstrip(b" ")))
    assert address.encode() in argument


@pytest.mark.parametrize(
    "argument",
    [b"<" + b"a." * 2000, b"<" + b"@a," * 1300, b'<"' + b"\\a" * 2000, b"<a@" + b"b." * 2000],
)
def test_long_lines(argument: bytes) -> None:
    """The longest command line is refused without backtracking for ever."""
    with pytest.raises(ValueError, match="malformed"):
        parse_path(argument)


def test_parameters() -> None:
    """Keywords are found in any case, values stay as they are."""
    found = parse_parameters(b"size=10  X-y=+2Bz SMTPUTF8")
    assert found == {"SIZE": "10", "X-Y": "+2Bz", "SMTPUTF8": ""}
    assert parse_parameters(b" ") == {}
    assert parse_parameters("A=ü".encode()) == {"A": "ü"}


@pytest.mark.parametrize(
    "rest",
    [
        *(b"=1", b"SIZE=", b"SIZE=1=2", b"-A=1", b"A_B=1", b"A=\xfc", b"\xfc"),
        *(
            b"A=\xc2\x85",
            b"A=\xe2\x80\xae",
            b"A=\xed\xa0\x80",
            b"\xc3\xbc=1",
            b"A=\0",
            b"A=\xef\xbf\xbd",
        ),
    ],
)
def test_bad_parameters(rest: bytes) -> None:
    """What RFC 5321 and RFC 6531 do not allow as a parameter is refused."""
    with pytest.raises(ValueError, match="malformed parameter"):
        parse_parameters(rest)


def test_parameter_twice() -> None:
    """A parameter that is given twice is refused."""
    with pytest.raises(ValueError, match="SIZE given twice"):
        parse_parameters(b"SIZE=1 size=2")
