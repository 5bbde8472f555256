"""Everybody in a domain is a user."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from mdaflow.route.static import StaticUsers
from mdaflow.route.users import User


def static(template: str) -> StaticUsers:
    def make(address: str, values: Mapping[str, object]) -> User:
        local, _, domain = address.partition("@")
        path = template.replace("%u", address).replace("%n", local).replace("%d", domain)
        return User(address, path, "maildir:Maildir")

    return StaticUsers(("example.org", "x"), template, make)


FOUND = {
    "any@example.org": "any@example.org",
    "Any+Detail@EXAMPLE.org": "any@example.org",
    "a@x": "a@x",
    "a@y": None,
    "../x@example.org": None,
    "a/b@example.org": None,
    '"a b"@example.org': None,
    "@x": None,
}


@pytest.mark.parametrize(("address", "user"), FOUND.items())
def test_find(address: str, user: str | None) -> None:
    """Every plain name in its domains is a user, in lower case and without its detail."""
    found = static("/mail/%d/%n").find(address)
    assert (found and found.address) == user


def test_has_domain() -> None:
    """Its domains are those that were named."""
    assert [static("/%n").has_domain(domain) for domain in ("x", "y")] == [True, False]
    assert str(static("/%n")) == "static example.org, x"


@pytest.mark.parametrize("template", ["%d/%n", "%u", "%n/%d/mail", "u-%n-%d", "%d/%u/a"])
def test_all(tmp_path: Path, template: str) -> None:
    """Who has a home is listed, by whatever template it was made."""
    source = static(f"{tmp_path}/{template}")
    (tmp_path / "else").mkdir()
    for address in ("a@x", "b.c@example.org"):
        user = source.find(address)
        assert user is not None
        Path(user.home).mkdir(parents=True)
    assert {user.address for user in source.all()} == {"a@x", "b.c@example.org"}
