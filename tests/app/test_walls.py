"""What a worker cannot reach."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from mdaflow.app import walls
from mdaflow.app.build import Site, open_site
from mdaflow.app.config import Config, Lmtp, Log, Rules, System
from mdaflow.app.directory import open_directory
from mdaflow.store.memory import MemoryStore


@pytest.fixture(autouse=True)
def _landlock() -> None:
    try:
        version = walls._call(walls._CREATE_RULESET, None, 0, walls._VERSION)
    except OSError:
        version = 0
    if version < walls._LEAST:
        pytest.skip(f"this kernel has no Landlock that will do (version {version})")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    """A site with state and a log, and a home that everybody can read."""
    for name in ("home/bob/Maildir/new", "state", "etc", "logs"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "home/bob/rules").write_text("secret")
    (tmp_path / "logs/log").touch()
    rules = Rules(str(tmp_path / "etc"), "rules", str(tmp_path / "etc"))
    config = Config(
        users=(System(),),
        state=str(tmp_path / "state"),
        quarantine=str(tmp_path / "state"),
        lmtp=Lmtp(spool=str(tmp_path / "state")),
        rules=rules,
        log=Log(str(tmp_path / "logs/log")),
    )
    homes = frozenset({str(tmp_path / "home/bob"), "/home"})
    monkeypatch.setattr(walls, "_hidden", lambda site: homes)
    return open_site(config, MemoryStore())


@contextmanager
def _fork(result: Callable[[], str]) -> Iterator[str]:
    """What a child says that has hidden the homes: nothing takes that back."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(writing, result().encode())
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading) as said:
        text = said.read()
    os.waitpid(pid, 0)
    yield text


def tried(act: Callable[[], object]) -> str:
    try:
        return str(act())
    except OSError as error:
        return type(error).__name__


def test_homes_are_out_of_reach(site: Site, tmp_path: Path) -> None:
    """No file of a home can be read, written or listed, whatever its mode; all else can be."""
    home = tmp_path / "home/bob"

    def look() -> str:
        walls.hide_homes(site)
        return " ".join(
            [
                tried((home / "rules").read_text),
                tried(lambda: (home / "new").write_text("x")),
                tried(lambda: os.listdir(home)),
                tried(lambda: os.listdir(home / "Maildir/new")),
                tried(lambda: (tmp_path / "state/x").write_text("four")),
                tried(lambda: (tmp_path / "logs/log").open("a").write("four")),
                tried(lambda: bool(Path("/etc/passwd").read_text())),
            ]
        )

    with _fork(look) as said:
        assert said == " ".join(["PermissionError"] * 4 + ["4", "4", "True"])


def test_files_can_be_moved(site: Site, tmp_path: Path) -> None:
    """A file can be moved from one directory to another, as deliveries do."""

    def move() -> str:
        walls.hide_homes(site)
        (tmp_path / "state/tmp").mkdir()
        (tmp_path / "state/tmp/x").write_text("x")
        return str((tmp_path / "state/tmp/x").rename(tmp_path / "state/x"))

    with _fork(move) as said:
        assert said == str(tmp_path / "state/x")


def test_without_landlock(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where the kernel cannot do that, the log says so, and mail goes on."""
    monkeypatch.setattr(walls, "_LEAST", 1000)
    walls.hide_homes(site)
    assert "protected by their modes only: Landlock of this kernel is too old" in caplog.text


def test_what_is_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Homes and the spool of the system are hidden, and what is beside them is not."""
    for name in ("a/b/home", "a/c", "d"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "link").symlink_to("a/b")
    found = set(walls._allowed(str(tmp_path), {str(tmp_path / "a/b/home")}))
    assert found == {str(tmp_path / "a/c"), str(tmp_path / "d")}
    assert walls._spool("mbox:mail:INBOX=/var/mail/%u:UTF-8") == "/var/mail"
    assert walls._spool("mbox:mail:INBOX=inbox") == walls._spool("maildir:Maildir") == ""


def test_links_to_homes(tmp_path: Path) -> None:
    """Where a link leads is hidden, not the link."""
    (tmp_path / "data/home/bob").mkdir(parents=True)
    (tmp_path / "home").symlink_to("data/./home")
    (tmp_path / "loop").symlink_to("loop")
    tree = walls._Tree()
    assert tree.real(f"{tmp_path}/home/bob") == f"{tmp_path}/data/home/bob"
    assert tree.real(f"{tmp_path}/home/../x") == f"{tmp_path}/data/x"
    assert tree.real(f"{tmp_path}/loop/x") == f"{tmp_path}/loop/x"


def test_remote_homes_are_not_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A home on a server that does not answer keeps nobody from starting."""
    (tmp_path / "home/bob").mkdir(parents=True)
    looked: list[str] = []
    scan = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: (looked.append(str(path)), scan(path))[1])
    tree = walls._Tree()
    tree._remote = {str(tmp_path / "home")}
    assert tree.real(f"{tmp_path}/home/bob") == f"{tmp_path}/home/bob"
    assert str(tmp_path) in looked
    assert str(tmp_path / "home") not in looked


def test_tables_below_homes(site: Site) -> None:
    """A file of the site's is within reach where the site has put it."""
    config = replace(site.config, aliases=("aliases:/home/x/aliases",), access=("/home/x/access",))
    here = replace(site, directory=open_directory(config, "mx", ()))
    assert {"/home/x/aliases", "/home/x/access"} <= set(walls._needed(here))
