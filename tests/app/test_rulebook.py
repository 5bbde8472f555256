"""The rules of users: which file counts, and which version of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mdaflow.app.rulebook import UserRules, site_program
from mdaflow.engine.run import Stage, run
from mdaflow.errors import ConfigError, TempFail
from mdaflow.mail.message import Message
from mdaflow.store.memory import MemoryStore
from mdaflow.store.sqlite import SqliteStore


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = tmp_path / "rules"
    write(found, 'deliver to "One"')
    return found


def write(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o600)


def folder(stage: Stage | None) -> str:
    assert stage is not None
    return run(stage, Message(b"")).deciding.folder


def test_new_version(path: Path) -> None:
    """A changed file is in force with the next message; an unchanged one is not read again."""
    rules = UserRules(MemoryStore())
    first = rules.stage(str(path))
    assert rules.stage(str(path)) is first
    write(path, 'deliver to "Number two"')
    assert folder(rules.stage(str(path))) == "Number two"


def test_no_file(tmp_path: Path) -> None:
    """A user without a file has no rules."""
    assert UserRules(MemoryStore()).stage(str(tmp_path / "none")) is None


def test_last_good_version(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A file that does not compile any more leaves its last good version in force."""
    rules = UserRules(MemoryStore())
    rules.stage(str(path))
    write(path, "deliver nowhere")
    assert folder(rules.stage(str(path))) == "One"
    assert f"{path}:1:9: unexpected 'nowhere'" in caplog.text
    assert "its last good version stays in force" in caplog.text


def test_last_good_version_of_another_process(path: Path, tmp_path: Path) -> None:
    """Also for who never saw it, over restarts: it is kept in the store."""
    stores = [SqliteStore(str(tmp_path / "state" / "s.sqlite")) for _ in range(2)]
    UserRules(stores[0]).stage(str(path))
    write(path, "deliver nowhere")
    assert folder(UserRules(stores[1]).stage(str(path))) == "One"
    for store in stores:
        store.close()


def test_never_good(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A file that never compiled is as none: the mail goes to the inbox."""
    write(path, "deliver nowhere")
    assert UserRules(MemoryStore()).stage(str(path)) is None
    assert "mail goes to the inbox" in caplog.text


def test_store_away(path: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Without the store rules work as ever, but for the last good version."""
    (tmp_path / "file").touch()
    rules = UserRules(SqliteStore(str(tmp_path / "file" / "s.sqlite")))
    assert folder(rules.stage(str(path))) == "One"
    assert "cannot be kept" in caplog.text


def make_symlink(path: Path) -> None:
    path.rename(path.with_name("other"))
    path.symlink_to("other")


def make_hard_link(path: Path) -> None:
    os.link(path, path.with_name("other"))


def make_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    "spoil",
    [
        make_symlink,
        make_hard_link,
        make_fifo,
        make_folder,
        lambda path: path.chmod(0o620),
        lambda path: path.chmod(0o602),
        lambda path: path.parent.chmod(0o777),
    ],
)
def test_unsafe_file(path: Path, spoil: object, caplog: pytest.LogCaptureFixture) -> None:
    """A file that somebody else could have written is ignored, with a line in the log (P27)."""
    spoil(path)  # type: ignore[operator]
    assert UserRules(MemoryStore()).stage(str(path)) is None
    assert "so its rules are ignored" in caplog.text


def test_foreign_owner(path: Path) -> None:
    """So is a file that belongs to somebody else."""
    if os.geteuid() != 0:
        pytest.skip("needs root to give a file away")
    os.chown(path, 12345, 12345)
    assert UserRules(MemoryStore()).stage(str(path)) is None


def test_unreadable_for_now(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that cannot be read now is never taken for none: the mail can wait."""

    def refuse(*_: object, **__: object) -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(TempFail):
        UserRules(MemoryStore()).stage(str(path))


def test_granted_actions(path: Path) -> None:
    """Users may do more when the site grants it."""
    write(path, 'reject "no"')
    stage = UserRules(MemoryStore(), ("reject",)).stage(str(path))
    assert stage is not None
    assert run(stage, Message(b"")).outcome == "rejected"


def test_files_of_the_site(tmp_path: Path) -> None:
    """A stage of the site is its files in the order of their names; others do not count."""
    (tmp_path / "20-b.rules").write_text('deliver to "B"')
    (tmp_path / "10-a.rules").write_text('list l = ["x"] also deliver to "A"')
    (tmp_path / "30-c.rules.old").write_text("nonsense")
    (tmp_path / ".#20-b.rules").symlink_to("ann@host.1:2")  # an editor's lock
    program = site_program(str(tmp_path))
    assert program is not None
    assert [a.folder for a in run(program, Message(b"")).actions] == ["A", "B"]


def test_no_files_of_the_site(tmp_path: Path) -> None:
    """No folder, or an empty one, is no stage."""
    assert site_program(str(tmp_path)) is None
    assert site_program(str(tmp_path / "none")) is None


def test_all_problems_of_the_site(tmp_path: Path) -> None:
    """All files are checked before the start is refused."""
    (tmp_path / "a.rules").write_text("deliver nowhere")
    (tmp_path / "b.rules").write_bytes(b"\xff")
    with pytest.raises(ConfigError) as caught:
        site_program(str(tmp_path))
    assert [text.splitlines()[0].rpartition("/")[2][:13] for text in caught.value.problems] == [
        "a.rules:1:9: ",
        "b.rules:1:1: ",
    ]
