"""From an address to a user: what is found, what is nobody, and what cannot be told."""

from __future__ import annotations

from pathlib import Path

import pytest

from mdaflow.errors import TempFail
from mdaflow.route.resolve import Router, Tables
from mdaflow.route.users import FolderUsers, User

USERS = ["example.org/bob", "example.org/Ann", "example.org/a+b", "example.org/jörg", "x/bob"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for user in USERS:
        (tmp_path / "mail" / user).mkdir(parents=True)
    (tmp_path / "mail/example.org/file").write_text("no folder")
    (tmp_path / "mail/example.org/link").symlink_to("bob")
    (tmp_path / "outside").mkdir()
    return tmp_path / "mail"


FOUND = {
    "bob@example.org": "bob@example.org",
    "bob@EXAMPLE.org": "bob@example.org",
    "BOB@example.org": "bob@example.org",
    "bob+shop@example.org": "bob@example.org",
    "Bob+Shop+x@example.org": "bob@example.org",
    "bob+@example.org": "bob@example.org",
    "bob+../../x@example.org": None,
    "Ann@example.org": "Ann@example.org",
    "ann@example.org": None,
    "a+b@example.org": "a+b@example.org",
    "a+c@example.org": None,
    "jörg@example.org": "jörg@example.org",
    "JÖRG@example.org": "jörg@example.org",
    "bob@x": "bob@x",
    "bob": None,
    "@example.org": None,
    "bob@": None,
    "": None,
    "carl@example.org": None,
    "bob@example.com": None,
    "bob@example.org.": None,
    "bob@.": None,
    "bob@..": None,
    "bob@../mail/example.org": None,
    "bob@/": None,
    "..@example.org": None,
    ".@example.org": None,
    "../../outside@example.org": None,
    "../bob@example.org/bob": None,
    "bob/@example.org": None,
    '"bob"@example.org': None,
    '"../bob"@example.org': None,
    "bob\0@example.org": None,
    "bob\n@example.org": None,
    " bob@example.org": None,
    "bob@example.org@x": None,
    "file@example.org": None,
    "link@example.org": None,
    "bob@[127.0.0.1]": None,
    f"{'x' * 200}@example.org": None,
    f"{'ü' * 128}@example.org": None,
    f"bob@{'x' * 60}.{'y.' * 200}z": None,
}


@pytest.mark.parametrize(("address", "user"), FOUND.items())
def test_find(root: Path, address: str, user: str | None) -> None:
    """Only a plain name becomes a path: as it is written, in lower case, without its detail."""
    found = FolderUsers(str(root), "maildir:Maildir").find(address)
    if user is None:
        assert found is None
    else:
        name, _, domain = user.partition("@")
        assert found == User(user, str(root / domain / name), "maildir:Maildir")


def test_all(root: Path, tmp_path: Path) -> None:
    """All users are those that are found by their address, each once; links are none."""
    for folder in ("Example.com/bob", "example.org/.hidden", "a b/bob", "empty"):
        (root / folder).mkdir(parents=True)
    (root / "alias").symlink_to("example.org")
    source = FolderUsers(str(root), "maildir:Maildir")
    listed = list(source.all())
    assert sorted(user.address for user in listed) == sorted(
        f"{name}@{domain}" for domain, _, name in (user.partition("/") for user in USERS)
    )
    assert [source.find(user.address) for user in listed] == listed
    with pytest.raises(TempFail, match="No such file"):
        list(FolderUsers(str(tmp_path / "away"), "x").all())


def test_delimiters(root: Path) -> None:
    """What divides user and detail is configured; nothing does without delimiters."""
    assert FolderUsers(str(root), "x", "-_").find("bob_a-b@example.org")
    assert FolderUsers(str(root), "x", "-").find("bob+a@example.org") is None
    assert FolderUsers(str(root), "x", "").find("bob+a@example.org") is None


def test_first_source(root: Path, tmp_path: Path) -> None:
    """Of several sources the first that knows the address counts."""
    (tmp_path / "other/example.org/bob").mkdir(parents=True)
    (tmp_path / "other/example.org/carl").mkdir()
    sources = [FolderUsers(str(root), "a:"), FolderUsers(str(tmp_path / "other"), "b:")]
    router = Router(Tables(sources))
    found = [router.find_user(f"{name}@example.org") for name in ("bob", "carl", "dora")]
    assert [user and user.mailbox for user in found] == ["a:", "b:", None]


def test_tree_away(root: Path, tmp_path: Path) -> None:
    """When the tree is not there, or empty, nobody is unknown, also not to a later source."""
    away = FolderUsers(str(tmp_path / "away"), "a:")
    with pytest.raises(TempFail, match="not mounted"):
        away.find("bob@example.org")
    (tmp_path / "away").mkdir()
    with pytest.raises(TempFail, match="not mounted"):
        away.find("bob@example.org")
    with pytest.raises(TempFail):
        Router(Tables([away, FolderUsers(str(root), "b:")])).find_user("bob@example.org")
    assert away.find("../bob@example.org") is None


def test_trouble(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the system says about a folder, but that it is none, is temporary."""

    def fail(path: str) -> None:
        raise OSError(5, "Input/output error", path)

    monkeypatch.setattr("os.lstat", fail)
    with pytest.raises(TempFail, match="Input/output"):
        FolderUsers(str(root), "x").find("bob@example.org")
