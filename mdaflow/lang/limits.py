"""What a program may be and do: bounds that a site can set."""

from __future__ import annotations

from typing import NamedTuple


class Limits(NamedTuple):
    """The bounds of one program and of one run of it."""

    file: int = 2 << 20
    """Bytes of all files of a program together."""
    rules: int = 10_000
    """Rules in one file."""
    nesting: int = 32
    """Levels of blocks and conditions, one in another."""
    imports: int = 10
    """Levels of imports."""
    actions: int = 64
    """Actions that one message may meet."""
    forwards: int = 10
    """Addresses that one message is sent on to, replies and notices counted."""
    cpu: float = 1.0
    """Seconds of CPU that one stage of a run may take (P31)."""


DEFAULTS = Limits()
