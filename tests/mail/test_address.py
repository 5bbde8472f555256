"""Addresses of header fields, as mail programs write them and as they should not."""

from __future__ import annotations

import pytest

from mdaflow.mail.address import MAX_ADDRESSES, Address, parse_addresses, split_local
from mdaflow.mail.message import Message

# field body | name, address; name, address ...
ADDRESSES = {
    b"bob@example.org": [("", "bob@example.org")],
    b"Bob <bob@example.org>": [("Bob", "bob@example.org")],
    b"<bob@example.org>": [("", "bob@example.org")],
    b"a@b, c@d": [("", "a@b"), ("", "c@d")],
    b",,a@b,,": [("", "a@b")],
    b"bob@example.org (Bob)": [("Bob", "bob@example.org")],
    b"(Bob) bob@example.org": [("Bob", "bob@example.org")],
    b"bob (a (nested) comment) @example.org": [("a nested comment", "bob@example.org")],
    b'"Bob, the \\"Builder\\"" <bob@example.org>': [('Bob, the "Builder"', "bob@example.org")],
    b'"a b"@example.org': [("", '"a b"@example.org')],
    b'"a@b" <c@d>': [("a@b", "c@d")],
    b"=?utf-8?q?B=C3=B6b?= <b@x>": [("Böb", "b@x")],
    b'"=?utf-8?q?B=C3=B6b?=" <b@x>': [("Böb", "b@x")],
    b"=?utf-8?q?a=2C_b?= <b@x>, c@y": [("a, b", "b@x"), ("", "c@y")],
    b"B\xc3\xb6b <b\xc3\xb6b@x>": [("Böb", "böb@x")],
    b"friends: a@b, Bob <c@d>;": [("", "a@b"), ("Bob", "c@d")],
    b"a: b@c;, d@e": [("", "b@c"), ("", "d@e")],
    b"undisclosed-recipients:;": [],
    b"<@a.example,@b.example:c@d>": [("", "c@d")],
    b"Bob < bob @ example.org >": [("Bob", "bob@example.org")],
    b"bob @ example.org": [("", "bob@example.org")],
    b"Bob bob@example.org": [("Bob", "bob@example.org")],
    b"Bob\n bob@example.org": [("Bob", "bob@example.org")],
    b"<>": [("", "")],
    b"": [],
    b"   ": [],
    b"bob": [("", "bob")],
    b"Bob Builder": [("Bob Builder", "")],
    b"Bob <bob@example.org": [("Bob", "bob@example.org")],
    b"<a@b, c <d@e>": [("", "a@b"), ("c", "d@e")],
    b"a@b (never closed": [("never closed", "a@b")],
    b'"never closed <a@b>, c@d': [("never closed", "a@b"), ("", "c@d")],
    b'"a" "b" <c@d>': [("a b", "c@d")],
    b"a@b@c": [("", "a@b@c")],
    b"a <b@c> <d@e>": [("a <d@e>", "b@c")],
    b"a@b\0c": [("", "a@b\0c")],
}


@pytest.mark.parametrize(("value", "found"), ADDRESSES.items())
def test_addresses(value: bytes, found: list[tuple[str, str]]) -> None:
    """Names are decoded, addresses are as written; what is broken is read as well as can be."""
    assert [(a.name, a.address) for a in parse_addresses(value)] == found


def test_parts_of_an_address() -> None:
    """The last @ divides an address; without one all of it is local."""
    address = Address("", "a@b@c")
    assert (address.local, address.domain) == ("a@b", "c")
    assert (Address("", "a").local, Address("", "a").domain) == ("a", "")


@pytest.mark.parametrize(
    ("local", "delimiters", "user", "detail"),
    [
        ("bob+a+b", "+", "bob", "a+b"),
        ("bob-a+b", "+-", "bob", "a+b"),
        ("bob-a", "+", "bob-a", ""),
        ("+a", "+", "+a", ""),
        ("++a", "+", "+", "a"),
        ("bob+", "+", "bob", ""),
        ("bob+a", "", "bob+a", ""),
    ],
)
def test_user_and_detail(local: str, delimiters: str, user: str, detail: str) -> None:
    """The first delimiter behind the first character divides a local part (RFC 5233)."""
    assert split_local(local, delimiters) == (user, detail)


def test_so_many_addresses() -> None:
    """At most 1,000 addresses are read, of one field or of many."""
    assert len(parse_addresses(b"a@b," * 2000)) == MAX_ADDRESSES
    assert len(Message(b"To: a@b, c@d, e@f\n" * 2000 + b"\n").addresses("To")) == MAX_ADDRESSES


def test_address_without_detail() -> None:
    """A subaddress is the user's, whatever the detail is; what has none stays as it is."""
    from mdaflow.mail.address import without_detail

    found = [without_detail(a, "+") for a in ("bob+0+0@d", "bob@d", "+x@d", "bob", "")]
    assert found == ["bob@d", "bob@d", "+x@d", "bob", ""]
