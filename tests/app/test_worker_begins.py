"""A worker that comes later begins with what there is."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest

from mdaflow.app.build import open_site
from mdaflow.app.config import Config, Folders
from mdaflow.app.directory import check
from mdaflow.app.inflight import InFlight
from mdaflow.app.pipeline import Courier
from mdaflow.errors import ConfigError


def test_broken_table(tmp_path: Path) -> None:
    """The master refuses to begin with a broken table; a worker that has to be replaced meanwhile
    begins, and puts off the mail for which it would have to ask that table."""
    tmp_path.chmod(0o755)
    (tmp_path / "mail/example.org/bob").mkdir(parents=True)
    (tmp_path / "aliases").write_text("sales bob\n")
    (tmp_path / "aliases").chmod(0o644)
    config = Config(
        "mx",
        users=(Folders(f"{tmp_path}/mail"),),
        aliases=(f"aliases:{tmp_path}/aliases",),
        state=f"{tmp_path}/state",
    )
    with pytest.raises(ConfigError, match="aliases:1"):
        check(config)
    with pytest.raises(ConfigError, match="aliases:1"):
        open_site(config)
    watched = cast(InFlight, object())  # nothing is delivered
    courier = Courier(open_site(config, inflight=watched))
    assert courier.check("bob@example.org").code == 451
    (tmp_path / "aliases").write_text("sales: bob\n")
    courier = Courier(open_site(config, inflight=watched))
    assert courier.check("sales@example.org").code == 250
