"""How many deliveries an account may have at once, and what becomes of the others."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from mdaflow.app import identities
from mdaflow.app.identities import AT_ONCE, _Turns
from mdaflow.errors import NO_ANSWER, TempFail
from mdaflow.route.users import Account, User


def user(name: str) -> User:
    return User(f"{name}@x", "/", "maildir:Maildir", account=Account(name, 1, 1, "/"))


class Crowd:
    """Threads that deliver."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self.turns = _Turns()
        self._pool = pool
        self._lock = threading.Lock()
        self.running = self.most = self.done = 0

    def deliver(self, name: str, work: Callable[[], Any]) -> Future[None]:
        return self._pool.submit(self._deliver, name, work)

    def _deliver(self, name: str, work: Callable[[], Any]) -> None:
        with self.turns.of(user(name)):
            with self._lock:
                self.running += 1
                self.most = max(self.most, self.running)
            work()
            with self._lock:
                self.running -= 1
                self.done += 1


def test_few_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where as many as may be hang, the next is put off, and other accounts have their mail."""
    monkeypatch.setattr(identities, "TURN", 0.1)
    go_on = threading.Event()
    with ThreadPoolExecutor(16) as pool:
        crowd = Crowd(pool)
        try:
            hang = [crowd.deliver("alice", lambda: go_on.wait(30)) for _ in range(AT_ONCE)]
            while crowd.running < AT_ONCE:
                time.sleep(0.001)
            for _ in range(2):
                with pytest.raises(TempFail) as raised:
                    crowd.deliver("alice", lambda: None).result()
                assert raised.value.status == NO_ANSWER
            crowd.deliver("bob", lambda: None).result()
        finally:
            go_on.set()
        for one in hang:
            one.result()
        crowd.deliver("alice", lambda: None).result()
    assert not crowd.turns._running


def test_burst() -> None:
    """However many come at once: when they end, each has its turn."""
    with ThreadPoolExecutor(16) as pool:
        crowd = Crowd(pool)
        for one in [crowd.deliver("alice", lambda: time.sleep(0.005)) for _ in range(100)]:
            one.result()
    assert (crowd.done, crowd.most) == (100, AT_ONCE)
    assert not crowd.turns._running


def test_who_fails_gives_its_turn_back() -> None:
    """A delivery that raises has ended, too."""
    turns = _Turns()
    for _ in range(AT_ONCE + 1):
        with pytest.raises(ZeroDivisionError), turns.of(user("alice")):
            raise ZeroDivisionError
    assert not turns._running
