"""Users in real databases, with the schemas of Postfix's documents and of PostfixAdmin."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from databases import PASSWORD, Database, database
from letters import note
from mdaflow_server import Lmtp, Mdaflow, new_root

from mdaflow.app.config import Config, Sql
from mdaflow.app.sources import open_source
from mdaflow.errors import TempFail
from mdaflow.route import database as databases
from mdaflow.route.cached import CachedUsers
from mdaflow.route.sql import SqlUsers
from mdaflow.route.users import User

# PyMySQL leaves the socket of a connection that failed to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

# What of https://github.com/postfixadmin/postfixadmin is asked, and the table of pgsql_table(5).
SCHEMA = """\
CREATE TABLE domain (domain varchar(255) NOT NULL PRIMARY KEY, backupmx boolean NOT NULL,
    active boolean NOT NULL);
CREATE TABLE mailbox (username varchar(255) NOT NULL PRIMARY KEY, password varchar(255) NOT NULL,
    maildir varchar(255) NOT NULL, quota bigint NOT NULL DEFAULT 0,
    local_part varchar(255) NOT NULL, domain varchar(255) NOT NULL,
    active boolean NOT NULL DEFAULT true);
CREATE TABLE virtual_users (id int NOT NULL PRIMARY KEY, email varchar(100), home varchar(100),
    uid int, gid int);
INSERT INTO domain VALUES ('example.org', false, true), ('old.example', false, false);
INSERT INTO mailbox VALUES
    ('bob@example.org', '{CRYPT}x', 'example.org/bob/', 1073741824, 'bob', 'example.org', true),
    ('off@example.org', '{CRYPT}x', 'example.org/off/', 0, 'off', 'example.org', false);
INSERT INTO virtual_users VALUES (1, 'bob@example.net', '/srv/bob', 5000, 5000),
    (2, 'two@example.net', '/srv/1', NULL, NULL), (3, 'two@example.net', '/srv/2', NULL, NULL);
"""
USER = """\
SELECT mailbox.username AS address, CONCAT('/var/mail/', maildir) AS home, quota
FROM mailbox, domain WHERE mailbox.username = :address AND mailbox.active = true
AND domain.domain = mailbox.domain AND domain.active = true AND backupmx = false"""
DOMAINS = "SELECT domain FROM domain WHERE domain = :domain AND active = true"
USERS = "SELECT username AS address, CONCAT('/var/mail/', maildir) AS home FROM mailbox"
POSTFIX = "SELECT home, uid, gid FROM virtual_users WHERE email = :address"
BOB = User(
    "bob@example.org", "/var/mail/example.org/bob", "maildir:Maildir", 1 << 30, made_below="/"
)


@pytest.fixture(scope="module", params=["postgresql", "mariadb"])
def db(request: pytest.FixtureRequest) -> Iterator[Database]:
    with database(request.param) as found:
        found.run(SCHEMA)
        if request.param == "postgresql":
            found.run("GRANT SELECT ON ALL TABLES IN SCHEMA public TO mail")
        yield found


Open = Callable[..., CachedUsers]


@pytest.fixture
def users(db: Database, monkeypatch: pytest.MonkeyPatch) -> Iterator[Open]:
    """Opens a source, which knows nothing of what other tests have asked."""
    monkeypatch.setattr(databases, "SECONDS", 1)
    opened: list[CachedUsers] = []

    def users(user: str = USER, password: Path = db.password) -> CachedUsers:
        source = open_source(0, Config(users=(Sql(db.url, user, DOMAINS, USERS, str(password)),)))
        assert isinstance(source, CachedUsers)
        opened.append(source)
        return source

    yield users
    for source in opened:
        assert isinstance(source.source, SqlUsers)
        source.source.database.close()
    gc.collect()


def test_postfixadmin(users: Open) -> None:
    """Users, domains and their list as PostfixAdmin keeps them."""
    source = users()
    assert source.find("Bob+x@Example.org") == BOB
    assert source.find("off@example.org") is None
    assert source.find("nobody@example.org") is None
    assert [source.has_domain(d) for d in ("example.org", "old.example", "x")] == [
        True,
        False,
        False,
    ]
    assert {user.address for user in source.all()} == {"bob@example.org", "off@example.org"}


def test_postfix(users: Open) -> None:
    """A table of one's own, with the uid of each user; several rows are a mistake."""
    source = users(POSTFIX)
    found = source.find("bob@example.net")
    assert found
    assert found.account
    assert (found.home, found.account.uid, found.account.gid) == ("/srv/bob", 5000, 5000)
    with pytest.raises(TempFail, match="several rows"):
        source.find("two@example.net")


INJECTIONS = (
    "'or'1'='1",
    "'||'1'='1",
    "'#",
    "bob'--",
    "''",
    "'",
    "%",
    "_ob",
    "*",
    "$1",
    "$$",
    "%s",
    "%(address)s",
    "%%",
    "bob'/**/or/**/'1",
    "{bob}",
    "bób",
    "b\u2019ob",
    "\u02bcor\u02bc1\u02bc",
    "x'*1*'x",
    "~'~'",
    "x'=0='",
    "!'+'!",
)  # fmt: skip


@pytest.mark.parametrize("local", INJECTIONS)
def test_injection(users: Open, local: str) -> None:
    """A hostile address is nobody's, and changes nothing."""
    source = users()
    assert source.find(f"{local}@example.org") is None
    assert source.find(f"bob@{local}") is None
    assert not source.has_domain(f"{local}x")
    assert source.find("bob@example.org") == BOB


def test_hanging(db: Database, users: Open) -> None:
    """A database that says nothing any more puts mail off; when it is back, all is as before."""
    source = users()
    assert source.find("bob@example.org")
    with db.halted():
        for address in ("1@example.org", "2@example.org"):
            with pytest.raises(TempFail):
                source.find(address)
        with pytest.raises(TempFail):
            users().find("bob@example.org")
    assert users().find("bob@example.org") == BOB


def test_dying(db: Database, users: Open) -> None:
    """A lost connection is made anew without anybody noticing; without a server mail waits."""
    source = users()
    assert source.find("bob@example.org")
    db.stop()
    with pytest.raises(TempFail):
        source.find("1@example.org")
    db.start()
    assert source.find("2@example.org") is None
    db.stop()
    db.start()
    assert source.find("3@example.org") is None


def test_wrong_password(db: Database, users: Open) -> None:
    """A password that is refused puts mail off, and stands in no message."""
    wrong = db.root / "wrong"
    wrong.write_text(f"{PASSWORD}x")
    wrong.chmod(0o600)
    with pytest.raises(TempFail) as error:
        users(password=wrong).find("bob@example.org")
    assert PASSWORD not in str(error.value)
    assert PASSWORD not in str(error.value.status)


# --- a server --------------------------------------------------------------------------------

CONFIG = """\
users:
  - sql: {url}
    password: {password}
    user: >-
      SELECT home, uid, gid FROM virtual_users WHERE email = :address
    domains: {domains}
"""


@pytest.fixture
def server(db: Database) -> Iterator[Mdaflow]:
    """An mdaflow whose users are in the database."""
    root = new_root()
    server = Mdaflow(root, root / "lmtp", workers=1)
    if os.geteuid() == 0:
        os.chown(db.password, 65534, 65534)
    text = server.config.read_text()
    before, after = text.index("users:\n"), text.index("lmtp:\n")
    told = CONFIG.format(url=db.url, password=db.password, domains=DOMAINS)
    server.config.write_text(text[:before] + told + text[after:])
    try:
        server.start()
        yield server
    finally:
        server.close()
        if os.geteuid() == 0:
            os.chown(db.password, 0, 0)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become other users")
def test_server_with_uids(db: Database, server: Mdaflow) -> None:
    """A user whose row has a uid is written to as that; one whose row says root is not."""
    bob, eve = server.user(), server.user()
    os.chown(bob.home, 21_000, 21_000)
    db.run("DELETE FROM virtual_users WHERE id > 10")
    db.run(
        f"INSERT INTO virtual_users VALUES (12, '{bob.address}', '{bob.home}', 21000, 21000),"
        f" (13, '{eve.address}', '{eve.home}', 0, 0)"
    )
    with Lmtp(server.socket) as client:
        reply = client.deliver(bob.address, note(bob.address))
        assert reply.startswith("250 "), reply
        assert client.say("MAIL FROM:<a@example.com>").startswith("250 ")
        assert client.say(f"RCPT TO:<{eve.address}>").startswith("451 4.3.0 ")
    [file] = bob.files()
    assert (file.stat().st_uid, file.stat().st_gid) == (21_000, 21_000)
    assert eve.files() == []


def test_server(db: Database, server: Mdaflow) -> None:
    """Mail is delivered by what the database says; while that hangs it is put off, not refused."""
    ann = server.user()
    db.run("DELETE FROM virtual_users WHERE id > 10")
    db.run(f"INSERT INTO virtual_users VALUES (11, '{ann.address}', '{ann.home}', NULL, NULL)")
    with Lmtp(server.socket) as client:
        assert client.deliver(ann.address, note(ann.address)).startswith("250 ")
        assert client.say("MAIL FROM:<a@example.com>").startswith("250 ")
        assert client.say("RCPT TO:<nobody@example.org>").startswith("550 5.1.1 ")
        with db.halted():
            for number in range(3):
                reply = client.say(f"RCPT TO:<{number}@example.org>")
                assert reply.startswith("451 4.3.0 "), reply
        assert client.say("RSET").startswith("250 ")
    assert len(ann.files()) == 1
    assert PASSWORD not in server.log.read_text()
