"""Users of a passwd-file: whose line it is, and what it says."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from mdaflow.errors import ConfigError, TempFail
from mdaflow.route import tables
from mdaflow.route.passwd import PasswdUsers, lines
from mdaflow.route.tables import Table
from mdaflow.route.users import User

# As https://doc.dovecot.org shows them, and a Unix file.
FILE = """\
# users
user:{plain}pass:1000:1000::/home/user::userdb_mail=maildir:~/Maildir allow_nets=192.168.0.0/24
user2:{plain}pass2:1001:1001::/home/user2
bob@example.org:{SHA512-CRYPT}$6$x$y:::::
ann@Example.com
carl@example.org::5000::::/bin/false
:nobody

old:pass:1002:1002:gecos:/home/old:::/var/mail/old
quota:x::::::userdb_quota_rule=*:storage=1G:messages=10000 userdb_quota_rule2=Trash:storage=+9%
kilo:x::::::userdb_quota_rule=*:storage=100
bytes:x::::::userdb_quota_rule=*:bytes=100
extra:x:::Carl, C.:/x:/bin/sh:userdb_home=/y userdb_uid=7 userdb_gid=8 userdb_nologin=yes
ours:x::::::userdb_mdaflow_rules=r userdb_mdaflow_own=a@x,b@x userdb_mdaflow_timezone=UTC
"""
SAYS: dict[str, dict[str, object]] = {
    "user@x": {"uid": "1000", "gid": "1000", "home": "/home/user", "mailbox": "maildir:~/Maildir"},
    "user2@x": {"uid": "1001", "gid": "1001", "home": "/home/user2"},
    "bob@example.org": {},
    "ann@example.com": {},
    "carl@example.org": {"uid": "5000"},
    "old@x": {"uid": "1002", "gid": "1002", "home": "/home/old", "mailbox": "/var/mail/old"},
    "quota@x": {"quota": 1 << 30, "quota_messages": 10_000},
    "kilo@x": {"quota": 102_400},
    "bytes@x": {"quota": 100},
    "extra@x": {"home": "/y", "uid": "7", "gid": "8"},
    "ours@x": {"rules": "r", "own": "a@x,b@x", "timezone": "UTC"},
}


class Told:
    """Makes users, and keeps what was said of the last one."""

    def __init__(self) -> None:
        self.said: dict[str, object] = {}

    def __call__(self, address: str, values: Mapping[str, object]) -> User:
        self.said = {name: value for name, value in values.items() if value != ""}
        return User(address, "/home", "maildir:Maildir")


@pytest.fixture
def told() -> Told:
    return Told()


def users(folder: Path, told: Told, text: str = FILE, domains: tuple[str, ...] = ()) -> PasswdUsers:
    folder.chmod(0o755)
    file = folder / "users"
    file.write_text(text)
    file.chmod(0o600)
    return PasswdUsers(Table(str(file), lines), told, domains)


@pytest.mark.parametrize("address", SAYS)
def test_lines(tmp_path: Path, told: Told, address: str) -> None:
    """A line says what its fields say; an empty field, and one that nobody knows, says nothing."""
    assert users(tmp_path, told).find(address) == User(address, "/home", "maildir:Maildir")
    assert told.said == SAYS[address]


ADDRESSES = {
    "Bob@EXAMPLE.org": "bob@example.org",
    "bob+shop@example.org": "bob@example.org",
    "user2+x@any.where": "user2@any.where",
    "bob@example.com": None,
    "nobody@x": None,
    "#@x": None,
    "bob:{SHA512-CRYPT}$6$x$y@example.org": None,
    "bob": None,
    "": None,
}


@pytest.mark.parametrize(("address", "user"), ADDRESSES.items())
def test_find(tmp_path: Path, told: Told, address: str, user: str | None) -> None:
    """An address is looked up as it is written, in lower case, without its detail."""
    found = users(tmp_path, told).find(address)
    assert (found and found.address) == user


def test_domains(tmp_path: Path, told: Told) -> None:
    """Users without a domain have mail in those that are named; others in their own."""
    source = users(tmp_path, told, domains=("a.org", "b.org"))
    assert source.find("user@a.org")
    assert source.find("user@c.org") is None
    assert source.find("bob@example.org")
    known = [domain for domain in ("a.org", "b.org", "c.org", "example.org", "example.com")
             if source.has_domain(domain)]  # fmt: skip
    assert known == ["a.org", "b.org", "example.org", "example.com"]
    assert not users(tmp_path, told).has_domain("a.org")


def test_all(tmp_path: Path, told: Told) -> None:
    """All users are listed, those without a domain in the first that was named."""
    found = {user.address for user in users(tmp_path, told, domains=("a.org",)).all()}
    assert len(found) == len(SAYS)
    assert {"bob@example.org", "ann@example.com", "user@a.org"} <= found


WRONG = {
    "a b:x": "the user is no plain name",
    "../x:y": "the user is no plain name",
    "a@b@c:x": "the user is no plain name",
    "bob:x:vmail:1": "uid and gid must be numbers",
    "bob:x:1:-1": "uid and gid must be numbers",
    "bob:x:1:1::home": "the home must be an absolute path",
    "same:x\nsame:y": "this user stands above already",
    "Bob@X.org:x\nBob@x.ORG:y": "this user stands above already",
}


@pytest.mark.parametrize(("text", "problem"), WRONG.items())
def test_wrong_lines(tmp_path: Path, told: Told, text: str, problem: str) -> None:
    """A bad line is told with file and line, and without what may be a password in it."""
    source = users(tmp_path, told, f"good:x\n{text}\n")
    with pytest.raises(ConfigError) as error:
        source.table.load()
    number = 2 + text.count("\n")
    assert error.value.problems == (f"{tmp_path}/users:{number}: {problem}",)


def test_last_good_file(tmp_path: Path, told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that got worse leaves the last good one in force; one that never was good puts off."""
    monkeypatch.setattr(tables, "LOOK", 0.0)
    source = users(tmp_path, told, "bob:x\n")
    assert source.find("bob@x")
    (tmp_path / "users").write_text("carl:x\na b\n")
    assert source.find("bob@x")
    assert source.find("carl@x") is None
    (tmp_path / "users").write_text("carl:x\n")
    assert source.find("carl@x")
    with pytest.raises(TempFail):
        users(tmp_path, told, "a b\n").find("bob@x")


def test_no_passwords(tmp_path: Path, told: Told) -> None:
    """Nothing of a password stays in memory."""
    kept = users(tmp_path, told).table.get()
    shown = repr(kept)
    assert "SHA512" not in shown
    assert "pass" not in shown
    assert str(users(tmp_path, told)) == f"passwd-file {tmp_path}/users"
