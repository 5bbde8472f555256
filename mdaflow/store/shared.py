"""One store for all machines of a site, and one of each machine's own for when that is away.

What is written goes to both. What is read comes from the shared one, and from our own when that
knows nothing or is away: what a server has forgotten, each machine still knows of itself.

`add` decides who may do something that must happen once. Then both have to agree, and while the
shared store is away nobody is told yes: a reply that is not sent is better than two.

For some keys only our own store counts (`stays`): what another machine says, or a server that
holds anything, must not keep us from storing a message (P43).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

from . import Store

T = TypeVar("T")

log = logging.getLogger("mdaflow")


class Shared:
    """See `Store`."""

    def __init__(self, far: Store, near: Store, stays: Callable[[str], bool]) -> None:
        self._far = far
        self._near = near
        self._stays = stays
        self._away = False

    def get(self, key: str) -> str | None:
        """The value, unless there is none or its time is over."""
        found = None
        if not self._stays(key):
            try:
                found = self._ask(lambda: self._far.get(key))
            except OSError:
                found = None  # what we know ourselves is still true
        return self._near.get(key) if found is None else found

    def put(self, key: str, value: str, seconds: float | None = None) -> None:
        """Keep a value, for so many seconds or for good; one of the two stores is enough."""
        if self._stays(key):
            self._near.put(key, value, seconds)
            return
        failed = None
        try:
            self._near.put(key, value, seconds)
        except OSError as error:
            failed = error
        try:
            self._ask(lambda: self._far.put(key, value, seconds))
        except OSError as error:
            if failed:
                raise failed from error

    def add(self, key: str, value: str, seconds: float | None = None) -> bool:
        """Keep a value if there is none; whether it was kept. Of many at once, one does."""
        if not self._stays(key) and not self._ask(lambda: self._far.add(key, value, seconds)):
            return False
        return self._near.add(key, value, seconds)

    def _ask(self, what: Callable[[], T]) -> T:
        """What the shared store answers; the log tells when it goes and when it is back."""
        try:
            found = what()
        except OSError as error:
            if not self._away:
                log.warning("the shared store is away: %s", error)
            self._away = True
            raise
        if self._away:
            log.info("the shared store is back")
        self._away = False
        return found
