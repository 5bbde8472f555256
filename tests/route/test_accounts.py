"""The accounts of this machine as users, and a name service that cannot tell."""

from __future__ import annotations

import errno
import pwd
from collections.abc import Callable
from typing import Any

import pytest

from mdaflow.errors import TempFail
from mdaflow.route import accounts
from mdaflow.route.accounts import SystemUsers, account
from mdaflow.route.users import Account

KNOWN = {
    "bob": (1000, 1000, "/home/bob"),
    "mary-ann": (1001, 100, "/home/mary"),
    "Carl": (1002, 1002, "/home/carl"),
    "root": (0, 0, "/root"),
    "daemon": (1, 1, "/"),
    "nobody": (65534, 65534, "/"),
}


def answers(monkeypatch: pytest.MonkeyPatch, codes: dict[str, int]) -> list[str]:
    """A name service that has these codes for names, else what is known; who it was asked for."""
    asked: list[str] = []

    def getpwnam_r(name: bytes, entry: Any, texts: Any, size: int, found: Any) -> int:
        login = name.decode()
        asked.append(login)
        if login in KNOWN:
            entry.name = name
            entry.uid, entry.gid, home = KNOWN[login]
            entry.home = home.encode()
            found.contents = entry
        return codes.get(login, 0)

    monkeypatch.setattr(accounts, "_getpwnam_r", getpwnam_r)
    return asked


USERS = SystemUsers(3, "mbox:mail:INBOX=/var/mail/%u", range(1000, 60_001), delimiters="+-")

FOUND: dict[str, str | None] = {
    "bob@example.org": "bob",
    "BOB@Example.ORG": "bob",
    "Bob+x-y@example.org": "bob",
    "mary-ann@example.org": "mary-ann",
    "Mary-Ann+x@example.org": None,
    "Carl@example.org": "Carl",
    "carl@example.org": None,
    "root@example.org": None,
    "daemon@example.org": None,
    "nobody@example.org": None,
    "unknown@example.org": None,
    "../bob@example.org": None,
    "bob\0@example.org": None,
    "bob\n@example.org": None,
    "+bob@example.org": None,
    "-bob@example.org": None,
    "böb@example.org": None,
    f"{'x' * 65}@example.org": None,
    "@example.org": None,
}


@pytest.mark.parametrize("address", FOUND)
def test_find(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An account is found as it is written, in lower case, without its detail; who is out of range
    or has no plain name is nobody."""
    answers(monkeypatch, {})
    found = USERS.find(address)
    assert (found and found.account and found.account.name) == FOUND[address]


def test_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user has the account's name and home, and the source that knows it."""
    answers(monkeypatch, {})
    found = USERS.find("Bob+x@Example.org")
    assert found is not None
    assert found.account == Account("bob", 1000, 1000, "/home/bob")
    assert (found.address, found.home, found.source) == ("bob@example.org", "/home/bob", 3)
    assert found.mailbox == "mbox:mail:INBOX=/var/mail/bob"


def test_domains(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where domains are named, accounts have mail in no other; nobody is asked for that."""
    asked = answers(monkeypatch, {})
    users = SystemUsers(0, "maildir:Maildir", range(1000, 2000), ("example.org",))
    assert users.find("bob@EXAMPLE.org") is not None
    asked.clear()
    assert users.find("bob@example.com") is None
    assert asked == []


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOENT, errno.EMFILE, errno.EPERM, errno.ESRCH])
def test_name_service_that_cannot_tell(code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every answer that is not a clear no puts mail off (E14)."""
    answers(monkeypatch, {"unknown": code})
    with pytest.raises(TempFail):
        account("unknown")
    with pytest.raises(TempFail):
        USERS.find("unknown@example.org")


def test_one_spelling_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is known by another spelling is found, though one could not be asked for."""
    answers(monkeypatch, {"Bob": errno.EIO})
    found = USERS.find("Bob@example.org")
    assert found is not None
    assert found.address == "bob@example.org"


def test_long_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    """An entry that needs more room gets it, but not without end."""
    sizes: list[int] = []

    def needs(room: int) -> Callable[..., int]:
        def getpwnam_r(name: bytes, entry: Any, texts: Any, size: int, found: Any) -> int:
            sizes.append(size)
            return errno.ERANGE if size < room else 0

        return getpwnam_r

    monkeypatch.setattr(accounts, "_getpwnam_r", needs(100_000))
    assert account("bob") is None
    assert 100_000 <= sizes[-1] < 1 << 20
    monkeypatch.setattr(accounts, "_getpwnam_r", needs(1 << 30))
    with pytest.raises(TempFail):
        account("bob")
    assert max(sizes) <= 1 << 20


def test_of_this_machine() -> None:
    """The name service of this machine is asked."""
    entry = pwd.getpwnam("root")
    assert account("root") == Account("root", 0, entry.pw_gid, entry.pw_dir)
    assert "root" not in [user.account and user.account.name for user in USERS.all()]
