"""Mail systems for tests of whole deliveries."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from here import Here, close_log

from mdaflow import deliver
from mdaflow.deliver import mbox


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Here]:
    """A mail system whose mailboxes are Maildirs."""
    yield from _here(tmp_path, "maildir", monkeypatch)


@pytest.fixture(params=["maildir", "mbox"])
def both(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Here]:
    """A mail system, once with Maildirs and once with mbox files."""
    yield from _here(tmp_path, request.param, monkeypatch)


def _here(root: Path, format: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Here]:
    # a delivery that waits for its own lock fails at once
    monkeypatch.setitem(deliver.FORMATS, "mbox", partial(mbox.prepare, lock_wait=0.0))
    here = Here(root, format)
    here.set()
    yield here
    here.close()
    close_log()
