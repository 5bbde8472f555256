"""Tables of aliases: what a line says, and what is wrong with it."""

from __future__ import annotations

import pytest
from tables import aliases, router, way

from mdaflow.errors import ConfigError


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
