"""A store in this process: for tests, and where nothing may be written."""

from __future__ import annotations

from threading import Lock

from . import clock


class MemoryStore:
    """See `Store`."""

    def __init__(self) -> None:
        self._values: dict[str, tuple[str, float | None]] = {}
        self._adding = Lock()

    def get(self, key: str) -> str | None:
        """The value, unless there is none or its time is over."""
        value, until = self._values.get(key, (None, None))
        return None if until is not None and clock.uptime() >= until else value

    def put(self, key: str, value: str, seconds: float | None = None) -> None:
        """Keep a value, for so many seconds or for good."""
        self._values[key] = value, None if seconds is None else clock.uptime() + seconds

    def add(self, key: str, value: str, seconds: float | None = None) -> bool:
        """Keep a value if there is none; whether it was kept. Of many at once, one does."""
        with self._adding:
            if self.get(key) is not None:
                return False
            self.put(key, value, seconds)
            return True
