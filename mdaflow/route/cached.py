"""A memory in front of a source of users that is slow to answer.

Who was found, and who was not, is known for a few seconds; that a source could not tell never is.
When many want to know the same, one asks, and what becomes of it is for all of them. One memory is
of one process.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

from mdaflow.errors import INTERNAL, TempFail

from .users import User, Users

KEEP = 3.0
"""Seconds for which an answer is known."""
MOST = 10_000
"""Answers that are known at once."""
WAIT = 15.0
"""Seconds to wait for what another thread asks: a source has answered or given up by then."""

Key = tuple[str, str]


@dataclass(frozen=True, slots=True, eq=False)
class CachedUsers:
    """A source, asked once for what many want to know."""

    source: Users
    _known: OrderedDict[Key, tuple[float, Any]] = field(default_factory=OrderedDict)
    """Until when, and what; the oldest answer is first."""
    _asked: dict[Key, Future[Any]] = field(default_factory=dict)
    _lock: Any = field(default_factory=Lock)

    def find(self, address: str) -> User | None:
        """As the source. Raises TempFail."""
        return self._ask("find", address, self.source.find)  # type: ignore[no-any-return]

    def by_login(self, login: str) -> User | None:
        """As the source. Raises TempFail."""
        return self._ask("login", login, self.source.by_login)  # type: ignore[no-any-return]

    def has_domain(self, domain: str) -> bool:
        """As the source. Raises TempFail."""
        return self._ask("domain", domain, self.source.has_domain)  # type: ignore[no-any-return]

    def all(self) -> Iterator[User]:
        """As the source. Raises TempFail."""
        return self.source.all()

    def __str__(self) -> str:
        return str(self.source)

    def _ask(self, kind: str, word: str, ask: Callable[[str], Any]) -> Any:
        key = kind, word
        with self._lock:
            until, answer = self._known.get(key, (0.0, None))
            if time.monotonic() < until:
                return answer
            waiting = self._asked.get(key)
            if waiting is None:
                mine = self._asked[key] = Future()
        if waiting is not None:
            return _result(waiting, word)
        return self._answer(key, ask, mine)

    def _answer(self, key: Key, ask: Callable[[str], Any], mine: Future[Any]) -> Any:
        try:
            answer = ask(key[1])
        except BaseException as error:
            with self._lock:
                del self._asked[key]
            mine.set_exception(error)
            raise
        with self._lock:
            del self._asked[key]
            self._known.pop(key, None)
            self._known[key] = time.monotonic() + KEEP, answer
            while len(self._known) > MOST:
                self._known.popitem(last=False)
        mine.set_result(answer)
        return answer


def _result(waiting: Future[Any], word: str) -> Any:
    try:
        return waiting.result(WAIT)
    except TimeoutError as error:
        raise TempFail(INTERNAL, f"{word}: another thread asks for it for too long") from error
