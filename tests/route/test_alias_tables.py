"""Tables of aliases: what a line says, and what is wrong with it."""

from __future__ import annotations

import pytest
from tables import aliases, regexp, router, virtual, way

from mdaflow.errors import ConfigError
from mdaflow.route.aliases import of_rules
from mdaflow.route.tables import Table


@pytest.mark.parametrize(
    "target", ["a..b", ".a", "a.", "a@b..c", "a@.b", "a@b.", f"{'a' * 256}", f"a@{'b.' * 200}c"]
)
def test_no_address(target: str) -> None:
    """What is no address is told when the table is read, though it has only plain characters."""
    with pytest.raises(ConfigError, match=r"/etc/aliases:2: .* is no address"):
        aliases(f"x: bob\ny: carl, {target}")


def test_plain_targets() -> None:
    """Blanks around a comma are no part of an address."""
    made = router(aliases("x: ann,bob ,\tcarl,  a.b=c+d@e-f.g_h.example , "))
    users = [f"user {name}@example.org" for name in ("ann", "bob", "carl")]
    assert way(made, "x") == [*users, "address a.b=c+d@e-f.g_h.example"]


@pytest.mark.parametrize(
    "other", ["/other/ carl", r"/\Qother/ carl", "/(?P<one>other)/ carl", f"/{'x{900}' * 30}/ carl"]
)
def test_expressions_together(other: str) -> None:
    """The first of several expressions answers, each with its case, whatever the others are."""
    lines = "/^One@/ ann", "/^(?P<one>TWO)@/i bob", "/^two|three@/ carl", r"/E\)/ bob", other
    made = router(regexp("\n".join(lines)))
    ways = {name: way(made, name)[0] for name in ("one", "TWO", "two", "THREE", "four")}
    assert {name: found.split()[1] for name, found in ways.items()} == {
        "one": "ann@example.org",
        "TWO": "bob@example.org",
        "two": "carl@example.org",
        "THREE": "carl@example.org",
        "four": "5.1.1",
    }


def test_expressions_match_addresses_only() -> None:
    """An expression that matches nothing at all neither owns a list nor catches a domain."""
    made = router(virtual("list@example.org ann, eve@elsewhere.example"), regexp("/^$/ carl"))
    assert way(made, "list") == ["user ann@example.org", "address eve@elsewhere.example"]
    assert way(made, "nobody")[0].startswith("550 5.1.1")


def test_aliases_of_rules() -> None:
    """A name that rules have twice stands for the targets of both, and where it stood first."""
    said = [("Sales", ("ann",), "a.rules:1"), ("sales", ("bob", "carl"), "b.rules:2")]
    made = router(Table.fixed(of_rules(said)))
    assert way(made, "sales") == [f"user {name}@example.org" for name in ("ann", "bob", "carl")]
    assert {found.where for found in made.resolve("sales@example.org")} == {"a.rules:1"}


def test_where() -> None:
    """A destination knows the line that named it, though comments stand in between."""
    table = "# first\n\nx: ann,\n# second\n  bob\ny: carl\n"
    assert router(aliases(table)).resolve("y@example.org")[0].where == "/etc/aliases:6"
    with pytest.raises(ConfigError, match=r"^/etc/aliases:5: .* is no address"):
        aliases(table.replace("bob", "b..b"))
