"""The memory in front of a slow source."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from mdaflow.errors import INTERNAL, TempFail
from mdaflow.route import cached
from mdaflow.route.cached import CachedUsers
from mdaflow.route.users import User


class Slow:
    """A source that counts, and answers when it may."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.go = threading.Event()
        self.go.set()
        self.broken = False

    def find(self, address: str) -> User | None:
        self.asked.append(address)
        assert self.go.wait(30)
        if self.broken:
            raise TempFail(INTERNAL, "away")
        return None if address.startswith("no") else User(address, "/", "maildir:.")

    by_login = find

    def has_domain(self, domain: str) -> bool:
        return self.find(domain) is not None

    def all(self) -> Iterator[User]:
        yield User("a@x", "/", "maildir:.")

    def __str__(self) -> str:
        return "slow"


def test_known_for_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Found and not found are known for some seconds, each kind of question for itself."""
    slow = Slow()
    users = CachedUsers(slow)
    for _ in range(3):
        assert users.find("bob@x")
        assert users.find("nobody@x") is None
        assert users.has_domain("x")
        assert users.by_login("bob@x")
    assert slow.asked == ["bob@x", "nobody@x", "x", "bob@x"]
    monkeypatch.setattr(cached, "KEEP", 0.0)
    users.find("new@x")
    users.find("new@x")
    assert slow.asked[4:] == ["new@x", "new@x"]
    assert str(users) == "slow"
    assert len(list(users.all())) == 1


def test_errors_are_not_known() -> None:
    """That a source could not tell is asked again."""
    slow = Slow()
    slow.broken = True
    users = CachedUsers(slow)
    for _ in range(2):
        with pytest.raises(TempFail):
            users.find("bob@x")
    slow.broken = False
    assert users.find("bob@x")
    assert len(slow.asked) == 3


@pytest.mark.parametrize("broken", [False, True])
def test_one_asks(broken: bool) -> None:
    """Of many who want the same at once one asks; what becomes of it is for all."""
    slow = Slow()
    slow.broken = broken
    slow.go.clear()
    users = CachedUsers(slow)
    with ThreadPoolExecutor(8) as pool:
        found = [pool.submit(users.find, "bob@x") for _ in range(8)]
        while not slow.asked:
            pass
        slow.go.set()
        ended = [one.exception(30) for one in found]
    if broken:
        assert all(isinstance(error, TempFail) for error in ended)
    else:
        assert slow.asked == ["bob@x"]
        assert all(one.result() for one in found)


def test_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest answers go when there are too many."""
    monkeypatch.setattr(cached, "MOST", 10)
    slow = Slow()
    users = CachedUsers(slow)
    for number in range(30):
        users.find(f"{number}@x")
    users.find("29@x")
    users.find("0@x")
    assert len(slow.asked) == 31
    assert len(users._known) == 10
