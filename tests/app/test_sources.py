"""Sources of users from the configuration to the mail: order, homes, what each user has."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from mdaflow.app import decide as deciding
from mdaflow.app import load
from mdaflow.app.build import Site, open_site
from mdaflow.app.config import Config, Folders, Passwd, Rules, Sql, Static
from mdaflow.app.expire import listed
from mdaflow.app.homes import make_home
from mdaflow.app.pipeline import deliver_message
from mdaflow.app.sources import open_source
from mdaflow.cli.config import command
from mdaflow.errors import ConfigError, PermFail, Status, TempFail
from mdaflow.mail.envelope import Envelope
from mdaflow.mail.message import Message
from mdaflow.store.memory import MemoryStore

RAW = b"From: Ann <ann@example.com>\nTo: robert@example.org\nSubject: hello\n\nbody\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder in which files can be trusted, with homes below `mail`."""
    tmp_path.chmod(0o755)
    (tmp_path / "mail/example.org").mkdir(parents=True)
    return tmp_path


def passwd(root: Path, text: str, **settings: Any) -> Passwd:
    file = root / "users"
    file.write_text(text)
    file.chmod(0o600)
    return Passwd(str(file), **({"home": f"{root}/mail/%d/%n"} | settings))


def site(root: Path, *sources: Any, **settings: Any) -> Site:
    rules = Rules(before=f"{root}/before", after=f"{root}/after")
    config = Config(hostname="x", users=sources, rules=rules, state=f"{root}/state", **settings)
    return open_site(config, MemoryStore())


def send(site: Site, to: str, raw: bytes = RAW) -> Status:
    return deliver_message(site, Message(raw), Envelope("ann@example.com", to, received=1.8e9))


# --- order -----------------------------------------------------------------------------------


def test_order(root: Path) -> None:
    """The first source that knows an address has it."""
    (root / "mail/example.org/bob").mkdir()
    first = passwd(root, f"bob@example.org:::::{root}/else\n")
    here = site(root, first, Folders(f"{root}/mail"))
    assert deciding.find_user(here, "bob@example.org").home == f"{root}/else"
    (root / "mail/example.org/carl").mkdir()
    assert deciding.find_user(here, "carl@example.org").home == f"{root}/mail/example.org/carl"
    with pytest.raises(PermFail):
        deciding.find_user(here, "nobody@example.org")


@pytest.mark.parametrize("away", ["passwd", "sql", "folders"])
def test_unreachable(root: Path, away: str) -> None:
    """A source that cannot tell puts mail off, whatever a later one knows."""
    broken = {
        "passwd": Passwd(f"{root}/none"),
        "sql": Sql(f"sqlite:///{root}/none", "SELECT 1 AS home"),
        "folders": Folders(f"{root}/none"),
    }
    here = site(root, broken[away], Static(static=("example.org",), home=f"{root}/mail/%d/%n"))
    with pytest.raises(TempFail):
        deciding.find_user(here, "bob@example.org")
    assert list((root / "mail/example.org").iterdir()) == []


def test_domains(root: Path) -> None:
    """A source says which domains are its own; one for any domain names none."""
    sources = (
        Folders(f"{root}/mail"),
        passwd(root, "bob\nann@a.org\n"),
        Static(static=("S.org",), home="/x"),
    )
    here = site(root, *sources)
    domains = ("example.org", "a.org", "s.org", "b.org")
    assert [[source.has_domain(domain) for domain in domains] for source in here.users] == [
        [True, False, False, False],
        [False, True, False, False],
        [False, False, True, False],
    ]
    assert [str(source) for source in here.users] == [
        f"folders {root}/mail", f"passwd-file {root}/users", "static s.org",
    ]  # fmt: skip


# --- what a user has -------------------------------------------------------------------------


def test_homes_are_made(root: Path) -> None:
    """A home is made when the first mail comes, below a folder in which there is something."""
    here = site(root, Static(static=("new.org",), home=f"{root}/mail/%d/%n/home"))
    assert send(here, "Bob+x@new.org").ok
    home = root / "mail/new.org/bob/home"
    assert len(list((home / "Maildir/new").iterdir())) == 1
    assert [(home.stat().st_mode & 0o777), (home.parent.stat().st_mode & 0o777)] == [0o700, 0o700]
    (root / "empty").mkdir()
    here = site(root, Static(static=("new.org",), home=f"{root}/empty/%d/%n"))
    assert send(here, "bob@new.org").temporary
    assert list((root / "empty").iterdir()) == []


def test_named_homes_are_made(root: Path) -> None:
    """So is one that a line names itself, but not in an empty folder, where a disk may be away."""
    (root / "disk").mkdir()
    here = site(root, passwd(root, f"bob@example.org:::::{root}/disk/org/bob::\n"))
    assert send(here, "bob@example.org").temporary
    assert list((root / "disk").iterdir()) == []
    with pytest.raises(TempFail, match=r"not mounted\? if it is new, make a folder in it"):
        make_home(deciding.find_user(here, "bob@example.org"))
    (root / "disk/lost+found").mkdir()
    assert send(here, "bob@example.org").ok
    assert len(list((root / "disk/org/bob/Maildir/new").iterdir())) == 1


def test_profile(root: Path) -> None:
    """A user's own rules, addresses and clock count for the user's mail."""
    home = root / "mail/example.org/bob"
    (home / "my").mkdir(parents=True)
    rules = home / "my/rules"
    rules.write_text('if personal { deliver to "mine" }\n')
    for path in (home, home / "my"):
        path.chmod(0o700)
    rules.chmod(0o600)
    extra = "userdb_mdaflow_rules=my/rules userdb_mdaflow_own=robert@example.org"
    here = site(root, passwd(root, f"bob@example.org:::::::{extra}\nann@example.org\n"))
    assert send(here, "bob@example.org").ok
    assert len(list((home / "Maildir/.mine/new").iterdir())) == 1
    bob = deciding.find_user(here, "bob@example.org")
    assert deciding._settings(here, bob).own == ("robert@example.org",)
    zone = passwd(
        root, "bob@example.org:::::::userdb_mdaflow_timezone=Asia/Tokyo\n", timezone="UTC"
    )
    here = site(root, zone, timezone="Europe/Vienna")
    assert (
        str(deciding._settings(here, deciding.find_user(here, "bob@example.org")).zone)
        == "Asia/Tokyo"
    )


def test_another_uid_without_root(root: Path) -> None:
    """Who has another uid is not written to by a process that is not that user: mail waits."""
    uid = os.geteuid() + 5000
    ids = f"{uid}:{uid}"
    here = site(root, passwd(root, f"bob@example.org::{ids}\n", min_uid=1, max_uid=100_000))
    (root / "mail/example.org/bob").mkdir()
    assert send(here, "bob@example.org").temporary
    assert list((root / "mail/example.org/bob").iterdir()) == []


def test_listed(root: Path) -> None:
    """All users of all sources are listed; one that cannot stops no other, and is told."""
    with closing(sqlite3.connect(root / "db")) as db:
        db.execute("CREATE TABLE t (a)")
    sources = (
        Sql(f"sqlite:///{root}/db", "SELECT 1 AS home"),
        passwd(root, "bob@example.org\nevil@example.org::0:0\n"),
    )
    here, found = site(root, *sources), []
    with pytest.raises(TempFail, match="no `users:` query"):
        found.extend(user.address for user in listed(here.users))
    source = listed(here.users)
    assert next(source).address == "bob@example.org"


# --- what is wrong with them -----------------------------------------------------------------


def check(root: Path, text: str) -> Result:
    path = root / "mdaflow.yaml"
    path.write_text(text)
    path.chmod(0o600)
    return CliRunner().invoke(command, ["check", "--config", str(path)])


SQL = "users:\n  - sql: sqlite:///{root}/db\n    user: {user}\n    users: {users}\n"
QUERIES = {
    ("SELECT a AS home FROM t", "SELECT a AS address FROM t"): "",
    ("SELECT a FROM t", "SELECT a AS home FROM t"): (
        "users[0].user: unknown column a\nusers[0].user: has no column home\n"
        "users[0].users: has no column address\n"
    ),
    ("SELECT a AS home FROM none", ""): (
        "users[0].user: sqlite:///{root}/db: no such table: none\n"
    ),
    ("SELECT :who AS home", ""): (
        "users[0].user: unknown parameter :who (known: :address, :local, :domain, :user, :detail; "
        "a colon is \\:)\n"
    ),
}  # fmt: skip


@pytest.mark.parametrize(("queries", "problems"), QUERIES.items())
def test_check_of_queries(root: Path, queries: tuple[str, str], problems: str) -> None:
    """`config check` asks the queries for nobody, and tells what is wrong with them."""
    with closing(sqlite3.connect(root / "db")) as db:
        db.execute("CREATE TABLE t (a)")
    user, users = queries
    result = check(root, SQL.format(root=root, user=f"'{user}'", users=f"'{users}'"))
    assert result.stderr == problems.format(root=root)
    assert result.exit_code == (78 if problems else 0)


def test_check_of_a_database_that_is_away(root: Path) -> None:
    """A database that cannot be reached is a warning."""
    result = check(root, SQL.format(root=root, user="SELECT 1 AS home", users='""'))
    assert result.exit_code == 0
    assert (
        result.stderr == f"warning: users[0]: sqlite:///{root}/db: unable to open database file\n"
    )


def test_check_of_a_password(root: Path) -> None:
    """A file with a password that everybody can read is a problem."""
    (root / "secret").write_text("x")
    (root / "secret").chmod(0o644)
    text = SQL.format(root=root, user="SELECT 1 AS home", users='""')
    result = check(root, f"{text}    password: {root}/secret\n")
    assert result.exit_code == 78
    assert result.stderr == (
        f"users[0].password: {root}/secret: everybody can read it: chmod o-rwx\n"
    )


def test_check_of_a_file(root: Path) -> None:
    """A passwd-file that is missing or has bad lines is a problem; so is a home nobody says."""
    result = check(root, f"users: [{{passwd: {root}/none}}, {{static: [x]}}]\n")
    assert result.exit_code == 78
    assert result.stderr.splitlines() == [
        f"{root}/none: No such file or directory",
        "users[1].home: is required with static",
    ]
    (root / "users").write_text("a b\nbob:x:y\n")
    result = check(root, f"users: [{{passwd: {root}/users}}]\n")
    assert result.stderr.splitlines() == [
        f"{root}/users:1: the user is no plain name",
        f"{root}/users:2: uid and gid must be numbers",
    ]


def test_missing_library(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the library of a database the configuration is refused, with what to install."""
    import sys

    monkeypatch.setitem(sys.modules, "sqlalchemy", None)
    with pytest.raises(
        ConfigError, match=r"users\[0\].sql: needs SQLAlchemy: \S+/pip install 'mdaflow"
    ):
        open_source(0, Config(users=(Sql("sqlite:////x", "SELECT 1"),)))
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(ConfigError, match=r"users\[0\].sql: needs psycopg: \S+pip install"):
        open_source(0, Config(users=(Sql("postgresql://h/d", "SELECT 1"),)))


KEYS = {
    "{passwd: /x, home: '%d/%n'}": "must be an absolute path without '..', in which %u, %n and %d",
    "{passwd: /x, home: /mail/%x}": "must be an absolute path without '..'",
    "{passwd: /x, home: /mail/../%n}": "must be an absolute path without '..'",
    "{passwd: /x, uid: -1}": "must be a whole number from 0 to 4294967294",
    "{passwd: /x, min_uid: 0}": "must be a whole number from 1 to 4294967294",
    "{sql: 'sqlite:////x'}": "users[0].user: is required",
    "{static: []}": "must be a list of one or more",
    "{passwd: /x, quota: 1G, mailbox: 'mbox:mail'}": "must be left out where mail is in mbox files",
    "{passwd: /x, user: x}": "users[0].user: unknown key",
}


@pytest.mark.parametrize(("text", "problem"), KEYS.items())
def test_settings(text: str, problem: str) -> None:
    """What cannot be right in the settings of a source is told with its place."""
    with pytest.raises(ConfigError) as error:
        load.loads(f"users:\n  - {text}\n", "/etc/mdaflow/mdaflow.yaml")
    assert problem in str(error.value)
