"""Files that root is told to read."""

from __future__ import annotations

from pathlib import Path

from mdaflow.app import aside


def test_links_on_the_way(tmp_path: Path) -> None:
    """Who owns a link in the middle of the way has a say, too; a loop has an end."""
    (tmp_path / "file").write_text("x")
    (tmp_path / "second").symlink_to("file")
    (tmp_path / "first").symlink_to(tmp_path / "second")
    (tmp_path / "loop").symlink_to("loop")
    seen = {about.st_ino for about in aside._on_the_way(str(tmp_path / "first"))}
    for name in ("first", "second", "file", "."):
        assert (tmp_path / name).lstat().st_ino in seen
    assert len(list(aside._on_the_way(str(tmp_path / "loop")))) < 100


def test_group_of_an_owner() -> None:
    """Who reads instead has the group of the account, not that of a file."""
    assert aside._account(0).gid == 0
    unknown = aside._account(4_000_000)
    assert (unknown.name, unknown.gid) == ("4000000", 4_000_000)
