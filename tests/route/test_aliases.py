"""Whom an alias stands for."""

from __future__ import annotations

import pytest

from mdaflow.errors import TempFail
from mdaflow.route.aliases import MAX_DEPTH, MAX_TARGETS, Aliases

TABLE = {
    "sales": ["ann", "bob@example.org"],
    "Info@example.org": ["sales", "carl"],
    "postmaster": ["root"],
    "ann": ["ann", "archive"],
    "loop": ["pool"],
    "pool": ["loop"],
    "list+detail": ["dora"],
}


@pytest.mark.parametrize(
    ("recipient", "targets"),
    [
        ("nobody@example.org", ["nobody@example.org"]),
        ("postmaster@example.net", ["root@example.net"]),
        ("PostMaster@example.net", ["root@example.net"]),
        ("sales@d", ["ann@d", "archive@d", "bob@example.org"]),
        ("sales+eu@d", ["ann@d", "archive@d", "bob@example.org"]),
        ("list@d", ["list@d"]),
        ("list+detail@d", ["dora@d"]),
        ("info@EXAMPLE.org", ["ann@EXAMPLE.org", "archive@EXAMPLE.org", "bob@example.org",
                              "carl@EXAMPLE.org"]),
        ("info@example.net", ["info@example.net"]),
        ("ann@d", ["ann@d", "archive@d"]),
        ("postmaster", ["root"]),
    ],
)  # fmt: skip
def test_expand(recipient: str, targets: list[str]) -> None:
    """A recipient stands for its targets, theirs, and so on; each once, itself if it is none."""
    found = Aliases(TABLE).expand(recipient)
    assert sorted(found) == sorted(targets)


def test_too_deep() -> None:
    """Aliases of aliases have an end, which is no reason to refuse the mail for good."""
    with pytest.raises(TempFail, match="loop"):
        Aliases(TABLE).expand("loop@d")
    chain = {f"a{n}": [f"a{n + 1}"] for n in range(MAX_DEPTH + 1)}
    assert Aliases(chain).expand("a1@d") == (f"a{MAX_DEPTH + 1}@d",)
    with pytest.raises(TempFail, match="deep"):
        Aliases(chain).expand("a0@d")


def test_too_many() -> None:
    """So has their number, however they multiply."""
    wide = {f"a{n}": [f"a{m}" for m in range(300)] for n in range(300)}
    assert set(Aliases(wide).expand("a0@d")) == {f"a{n}@d" for n in range(300)}
    many = {"all": [f"u{n}" for n in range(MAX_TARGETS + 1)]}
    with pytest.raises(TempFail, match="stands for more"):
        Aliases(many).expand("all@d")
