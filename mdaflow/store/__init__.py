"""Keys with times to live: small state that outlives a process. Never mail."""

from __future__ import annotations

from typing import Protocol


class Store(Protocol):
    """Values by key, shared by all processes of a site. Losing all of it loses no mail.

    All calls raise OSError when the store cannot be used.
    """

    def get(self, key: str) -> str | None:
        """The value, unless there is none or its time is over."""

    def put(self, key: str, value: str, seconds: float | None = None) -> None:
        """Keep a value, for so many seconds or for good."""

    def add(self, key: str, value: str, seconds: float | None = None) -> bool:
        """Keep a value if there is none; whether it was kept. Of many at once, one does."""
