"""Users in a database: what is asked, and what an answer means. Here it is SQLite."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import pytest

from mdaflow.errors import ConfigError, TempFail
from mdaflow.route import database
from mdaflow.route.database import Database, Query
from mdaflow.route.sql import PARAMETERS, SqlUsers
from mdaflow.route.users import User

SCHEMA = """\
CREATE TABLE users (name TEXT, domain TEXT, home TEXT, quota INTEGER);
CREATE TABLE domains (domain TEXT);
INSERT INTO users VALUES ('bob', 'example.org', '/mail/bob', 100);
INSERT INTO users VALUES ('Ann', 'example.org', '/mail/ann', NULL);
INSERT INTO users VALUES ('twin', 'example.org', '/mail/1', 0), ('twin', 'example.org', '/2', 0);
INSERT INTO domains VALUES ('example.org');
"""
QUERIES = {
    "user": "SELECT home, quota FROM users WHERE name = :local AND domain = :domain",
    "domains": "SELECT 1 FROM domains WHERE domain = :domain",
    "users": "SELECT name || '@' || domain AS address, home FROM users",
}


def make(address: str, values: Mapping[str, object]) -> User:
    quota = values.get("quota")
    return User(address, str(values["home"]), "maildir:.", quota if isinstance(quota, int) else 0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with closing(sqlite3.connect(tmp_path / "db")) as db:
        db.executescript(SCHEMA)
    return tmp_path / "db"


def users(path: Path, **queries: str) -> SqlUsers:
    found = {name: Query(text, PARAMETERS[name]) for name, text in (QUERIES | queries).items()}
    return SqlUsers(Database(f"sqlite:///{path}"), found, make)


ADDRESSES = {
    "bob@example.org": "/mail/bob",
    "BOB@EXAMPLE.org": "/mail/bob",
    "Bob+x@example.org": "/mail/bob",
    "Ann@example.org": "/mail/ann",
    "ann@example.org": None,
    "bob@example.com": None,
    "'or'1'='1@example.org": None,
    "bob'--@example.org": None,
    "%@example.org": None,
    "*@example.org": None,
    "bob@example.org'--": None,
    "bob\\@example.org": None,
    '"x\' OR 1=1 --"@example.org': None,
    "bob\0@example.org": None,
    "bób@example.org": None,
    ":domain@example.org": None,
    "$1@example.org": None,
    "": None,
}


@pytest.mark.parametrize(("address", "home"), ADDRESSES.items())
def test_find(path: Path, address: str, home: str | None) -> None:
    """An address is a value and nothing else, asked for in its spellings."""
    found = users(path).find(address)
    assert (found and found.home) == home


def test_parameters(path: Path) -> None:
    """A query gets the address, its parts, and the user and detail of the local part."""
    query = (
        "SELECT '/' || :address || '/' || :local || '/' || :domain || '/' || :user || '/' ||"
        " :detail AS home"
    )
    found = users(path, user=query).find("Bob+Shop@Example.org")
    assert found
    assert found.home == "/Bob+Shop@example.org/Bob+Shop/example.org/Bob/Shop"


def test_mistakes(path: Path) -> None:
    """Several rows, or a column that nobody knows, are no answer."""
    with pytest.raises(TempFail, match="several rows for twin@example"):
        users(path).find("twin@example.org")
    with pytest.raises(TempFail, match="unknown column name"):
        users(path, user="SELECT * FROM users WHERE name = :local").find("bob@example.org")
    with pytest.raises(TempFail, match="no such table"):
        users(path, user="SELECT * FROM none").find("bob@example.org")


def test_domains(path: Path) -> None:
    """A domain is ours when the query for it has a row; without a query none is."""
    assert users(path).has_domain("example.org")
    assert not users(path).has_domain("x' OR 1=1 --")
    assert not SqlUsers(Database(f"sqlite:///{path}"), {}, make).has_domain("example.org")


def test_all(path: Path) -> None:
    """The query for all users lists them; without one that cannot be told."""
    assert [user.address for user in users(path).all()][:2] == [
        "bob@example.org", "Ann@example.org",
    ]  # fmt: skip
    source = SqlUsers(Database(f"sqlite:///{path}"), {}, make)
    with pytest.raises(TempFail, match="no `users:` query"):
        list(source.all())


def test_nothing_is_made(tmp_path: Path) -> None:
    """A database that is not there is not made: nobody can tell who its users are."""
    with pytest.raises(TempFail, match="unable to open"):
        users(tmp_path / "none").find("bob@example.org")
    assert not (tmp_path / "none").exists()


def test_not_written(path: Path) -> None:
    """The queries cannot change anything."""
    with pytest.raises(TempFail, match="readonly"):
        users(path, user="DELETE FROM users").find("bob@example.org")


def test_threads(path: Path) -> None:
    """Many threads may ask at once."""
    source, found = users(path), []

    def ask() -> None:
        found.extend(source.find("bob@example.org") for _ in range(20))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len([user for user in found if user is not None]) == 160


URLS = {
    "": "is no URL",
    "postgresql:secret": "is no URL",
    "oracle://u:secret@h/d": "oracle: must be sqlite, postgresql, mysql or mariadb",
    "postgresql://u:secret@h:port/d": "is no URL",
    "sqlite://": "the path must be absolute",
    "sqlite:///relative": "the path must be absolute",
}


@pytest.mark.parametrize(("url", "problem"), URLS.items())
def test_wrong_urls(url: str, problem: str) -> None:
    """What is no URL of a database is told, without what may be a password in it."""
    with pytest.raises(ConfigError, match=problem) as error:
        Database(url)
    assert "secret" not in str(error.value)


NAMES = {
    "postgresql://u:secret@h:5/d": "postgresql://h:5/d",
    "mariadb://u:secret@h/d?password=secret": "mariadb://h/d",
    "postgresql:///d?password=secret": "postgresql:///d",
    "sqlite:////var/db": "sqlite:////var/db",
}


@pytest.mark.parametrize(("url", "name"), NAMES.items())
def test_names(url: str, name: str) -> None:
    """A source is called by its place, without user and password."""
    assert str(SqlUsers(Database(url), {}, make)) == f"sql {name}"


def test_parameters_nobody_knows() -> None:
    """A parameter that a query is not given is told when the configuration is read."""
    with pytest.raises(ConfigError, match="unknown parameter :adress"):
        Query("SELECT :adress", PARAMETERS["user"])
    Query("SELECT '12\\:30', :address::text", PARAMETERS["user"])


@pytest.mark.parametrize("mode", [0o604, 0o666, 0o622, 0])
def test_password_for_everybody(tmp_path: Path, mode: int) -> None:
    """A password that everybody can read or write is not used, nor is one that is not there."""
    tmp_path.chmod(0o755)
    file = tmp_path / "password"
    if mode:
        file.write_text("secret")
        file.chmod(mode)
    with pytest.raises(TempFail, match=f"{file}: ") as error:
        Database("postgresql://u@h.invalid/d", str(file)).connect()
    assert "secret" not in str(error.value)


def test_rest(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A database that was slow to fail is left alone for a moment, then asked again."""
    monkeypatch.setattr(database, "SLOW", 0.0)
    monkeypatch.setattr(database, "REST", 1000.0)
    db = Database(f"sqlite:///{path}")
    wrong, right = Query("SELECT x", ()), Query("SELECT 1 AS home", ())
    with pytest.raises(TempFail, match="no such column"):
        db.ask(wrong, {})
    with pytest.raises(TempFail, match="too slow a moment ago"):
        db.ask(right, {})
    db._rests_until = 0.0
    assert db.ask(right, {}) == (["home"], [{"home": 1}])
