"""Which `.forward` of a user counts, and what is kept of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from mdaflow.app import decide
from mdaflow.app.build import Site, open_site
from mdaflow.app.config import Config, Folders, Forward
from mdaflow.engine.run import Stage, run
from mdaflow.errors import TempFail
from mdaflow.mail.message import Message
from mdaflow.route.users import User
from mdaflow.store.memory import MemoryStore


class Bob:
    """A user whose files are read."""

    def __init__(self, root: Path) -> None:
        self.home = root / "mail/example.org/bob"
        self.home.mkdir(parents=True)
        self.home.chmod(0o700)
        self.store = MemoryStore()
        users = (Folders(f"{root}/mail"),)
        config = Config(
            hostname="x", users=users, state=f"{root}/state", forward=Forward(file=".forward")
        )
        self.site: Site = open_site(config, self.store)
        self.told: list[str] = []

    def write(self, name: str, text: str) -> None:
        new = self.home / "new~"
        new.write_text(text)
        new.chmod(0o600)
        new.replace(self.home / name)

    def stage(self, detail: str = "") -> Stage | None:
        user = User("bob@example.org", str(self.home), "maildir:Maildir")
        to = f"bob{detail}@example.org"
        return decide.forward_stage(self.site, user, self.told.append, to)

    def goes(self, detail: str = "") -> str:
        """To whom mail goes."""
        stage = self.stage(detail)
        return str(run(stage, Message(b"")).actions[0]) if stage else ""

    def kept(self, name: str) -> str | None:
        return self.store.get(f"rules {self.home}/{name}")


@pytest.fixture
def bob(tmp_path: Path) -> Bob:
    tmp_path.chmod(0o755)
    return Bob(tmp_path)


def test_detail(bob: Bob) -> None:
    """Where there is a file for a detail only that counts, also when it is broken or unsafe."""
    bob.write(".forward", "ann@x.example\n")
    bob.write(".forward+x", "carl@x.example\n")
    assert bob.goes() == bob.goes("+y") == "forward to ann@x.example"
    assert bob.goes("+x") == "forward to carl@x.example"
    bob.write(".forward+x", "ann smith\n")
    assert bob.stage("+x") is None
    assert len(bob.told) == 1
    assert bob.told[0].endswith("; mail goes to the inbox")
    (bob.home / ".forward+x").unlink()
    assert bob.goes("+x") == "forward to ann@x.example"
    (bob.home / ".forward+x").symlink_to("none")
    assert bob.stage("+x") is None
    assert bob.goes("+" + "\u00fc" * 100) == "forward to ann@x.example"  # no name of a file


def test_detail_that_cannot_be_told(bob: Bob, monkeypatch: pytest.MonkeyPatch) -> None:
    """While nobody can tell whether there is one, mail waits."""
    bob.write(".forward", "ann@x.example\n")

    def broken(path: object) -> object:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(decide.os, "lstat", broken)
    with pytest.raises(TempFail, match="Input/output error"):
        bob.stage("+x")


def test_what_is_kept(bob: Bob) -> None:
    """Of a file for a detail nothing is kept: there may be any number of them."""
    bob.write(".forward", "ann@x.example\n")
    bob.write(".forward+x", "carl@x.example\n")
    assert bob.goes()
    assert bob.goes("+x")
    assert bob.kept(".forward")
    assert bob.kept(".forward+x") is None
    bob.write(".forward", f"ann@x.example\n#{chr(1) * 60_000}\n")
    assert bob.goes() == "forward to ann@x.example"
    assert not bob.kept(".forward")  # as it would be written there it is too large


def test_too_large(bob: Bob) -> None:
    """A file of more than 64 KiB does not count, which is told."""
    bob.write(".forward", f"ann@x.example\n#{'x' * (64 << 10)}\n")
    assert bob.stage() is None
    assert "larger than 64 KiB" in bob.told[0]
    assert not bob.kept(".forward")
