"""The log."""

from __future__ import annotations

from mdaflow.app import log


def test_bracketed() -> None:
    """An address from outside cannot end its brackets, nor begin a field."""
    assert log.bracketed("bob@example.org") == "<bob@example.org>"
    dressed = log.bracketed('"x>: 4XyZ: to=<b@x>, status=delivered\\r\\n"@y')
    assert dressed.count(">") == 1
    assert not set(" ,\r\n") & set(dressed)
