"""Tables in files: read again when they change, never worse than they were."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from mdaflow.errors import ConfigError, TempFail
from mdaflow.route import tables
from mdaflow.route.aliases import parse_members, parse_table
from mdaflow.route.tables import Table, Tables


def words(text: bytes, path: str) -> list[str]:
    """The words of a file in which there may be no `?`."""
    if b"?" in text:
        raise ConfigError((f"{path}:1: a question", f"{path}:2: another one"))
    return text.decode().split()


@pytest.fixture(autouse=True)
def always_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "LOOK", 0.0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "folder/table"
    file.parent.mkdir(mode=0o755)
    file.write_text("a b")
    return file


def test_read_again(path: Path) -> None:
    """A changed file counts at the next look; one that is as it was is the same object."""
    table = Table(str(path), words)
    assert table.get() == ["a", "b"]
    assert table.get() is table.get()
    path.write_text("c")
    assert table.get() == ["c"]


def test_look_now_and_then(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two looks nobody asks the file system."""
    monkeypatch.setattr(tables, "LOOK", 1000.0)
    table = Table(str(path), words)
    table.get()
    path.write_text("c")
    assert table.get() == ["a", "b"]


@pytest.mark.parametrize("spoil", ["wrong", "gone", "writable"])
def test_last_good_version(path: Path, spoil: str, caplog: pytest.LogCaptureFixture) -> None:
    """What is wrong with a new version is told once, and leaves the old one in force."""
    table = Table(str(path), words)
    table.get()
    if spoil == "wrong":
        path.write_text("?")
    elif spoil == "gone":
        path.unlink()
    else:
        path.chmod(0o666)
    with caplog.at_level(logging.ERROR, "mdaflow"):
        assert table.get() == table.get() == ["a", "b"]
    told = [record.getMessage() for record in caplog.records]
    assert told[-1] == f"{path}: its last good version stays in force"
    assert len(told) == (3 if spoil == "wrong" else 2)
    if spoil != "gone":
        path.chmod(0o644)
        path.write_text("d")
        assert table.get() == ["d"]


def test_problem_of_several_lines(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What stands in a file makes no record of its own: a problem is one, also with line breaks."""
    path.write_text("")
    table = Table(str(path), lambda text, path: parse_table("regexp", text, path))
    assert list(table.get().all()) == []
    path.write_text("/(\n error: forged\n again (/ x\n")
    with caplog.at_level(logging.ERROR, "mdaflow"):
        table.get()
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 2
    assert told[0].startswith(f"{path}:1: /(\nerror: forged\nagain (/: ")
    with pytest.raises(ConfigError) as caught:
        Table(str(path), lambda text, path: parse_table("regexp", text, path)).load()
    assert caught.value.problems == (told[0],)


def test_no_good_version(path: Path) -> None:
    """Without any good version nobody can tell what is in the table; to begin with, all is said."""
    path.write_text("?")
    table = Table(str(path), words)
    with pytest.raises(TempFail, match=r"a question\n.*another one"):
        table.get()
    with pytest.raises(ConfigError) as caught:
        table.load()
    assert len(caught.value.problems) == 2
    path.write_text("a")
    assert table.load() == ["a"]


def test_disk_error_is_tried_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that could not be read for now is tried again, though it has not changed."""
    table = Table(str(path), words)
    real = os.open

    def broken(name: object, *more: object, **options: object) -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "open", broken)
    with pytest.raises(TempFail, match="Input/output error"):
        table.get()
    monkeypatch.setattr(os, "open", real)
    assert table.get() == ["a", "b"]


def test_too_large(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is larger than tables may be is not taken."""
    monkeypatch.setattr(tables, "MAX_TABLE", 2)
    with pytest.raises(ConfigError, match="larger than"):
        Table(str(path), words).load()


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give a file away")


@pytest.fixture
def club(tmp_path: Path) -> Path:
    """A list in a folder of somebody else's."""
    folder = tmp_path / "alice"
    folder.mkdir(mode=0o755)
    (folder / "club").write_text("bob\n")
    (folder / "club").chmod(0o644)
    for path in (folder, folder / "club"):
        os.chown(path, 4711, 4711)
    return folder / "club"


@needs_root
@pytest.mark.parametrize("spoil", ["symbolic", "hard", "include", "everybody"])
def test_list_of_somebody_else(club: Path, tmp_path: Path, spoil: str) -> None:
    """Who may write a list may not by that have us read what is not his."""
    (tmp_path / "secret").write_text("geheim\n")
    lists = Tables(parse_members, shared=True)
    assert [target.value for target in lists.get(str(club))] == ["bob"]
    if spoil == "include":
        club.write_text(f":include:{tmp_path}/secret\n")
    elif spoil == "everybody":
        club.chmod(0o666)
    else:
        club.unlink()
        if spoil == "symbolic":
            club.symlink_to(tmp_path / "secret")
        else:
            os.link(tmp_path / "secret", club)
    with pytest.raises(TempFail) as caught:
        Tables(parse_members, shared=True).get(str(club))
    assert "geheim" not in str(caught.value)
    assert [target.value for target in lists.get(str(club))] == ["bob"]


def test_list_of_ours(tmp_path: Path) -> None:
    """A list that nobody else writes may name others."""
    tmp_path.chmod(0o755)
    (tmp_path / "all").write_text(f":include:{tmp_path}/club\n")
    (tmp_path / "all").chmod(0o644)
    [target] = Tables(parse_members, shared=True).get(f"{tmp_path}/all")
    assert target.kind == "include"


def test_file_that_is_being_written(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that has just changed does not count yet: it may be the first half of one."""
    monkeypatch.setattr(tables, "LOOK", 0.5)
    monkeypatch.setattr(tables, "SETTLE", 1000.0)
    table = Table(str(path), words)
    table.get()
    path.write_text("c")
    table._look_at = 0.0
    assert table.get() == ["a", "b"]
    os.utime(path, (1, 1))
    table._look_at = 0.0
    assert table.get() == ["c"]


def test_many_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many lists only so much is kept, those that were asked for last."""
    monkeypatch.setattr(tables, "MAX_ITEMS", 5)
    monkeypatch.setattr(tables, "LOOK", 1000.0)
    tmp_path.chmod(0o755)
    for name in "abc":
        (tmp_path / name).write_text("x y z")
        (tmp_path / name).chmod(0o644)
    lists = Tables(lambda text, path, foreign: words(text, path), shared=True)
    first = [lists.get(f"{tmp_path}/{name}") for name in "abc"]
    again = [lists.get(f"{tmp_path}/{name}") for name in "cba"]
    assert again[0] is first[2]
    assert again[2] == first[0]
    assert again[2] is not first[0]
