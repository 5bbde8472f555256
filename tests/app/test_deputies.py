"""Processes of root for what is done as others."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from mdaflow.app.deputies import KILLED, Task, run_all


def wait_for(path: Path) -> int:
    while not path.exists():
        time.sleep(0.01)
    return 0


def test_codes() -> None:
    """Each task tells its exit code, or the signal that ended it."""

    def die() -> int:
        os.kill(os.getpid(), signal.SIGTERM)
        return 0

    tasks = [Task("a", lambda: 0), Task("b", lambda: 75), Task("c", die)]
    assert list(run_all(tasks)) == [("a", 0), ("b", 75), ("c", -signal.SIGTERM)]


def test_one_that_hangs() -> None:
    """Who takes too long is killed, and the others are done meanwhile."""
    hangs = Task("a", lambda: signal.pause() or 0, 0.2)
    found = dict(run_all([hangs, *(Task(name, lambda: 0, 60.0) for name in "bcd")], most=2))
    assert found == {"a": KILLED, "b": 0, "c": 0, "d": 0}


def test_number(tmp_path: Path) -> None:
    """No more are begun than may run at once."""
    first, last = tmp_path / "first", tmp_path / "last"
    begun: list[str] = []

    def tasks() -> Iterator[Task]:
        acts = (partial(wait_for, last), partial(wait_for, first), lambda: 0)
        for name, act in zip("abc", acts, strict=True):
            begun.append(name)
            yield Task(name, act)

    running = run_all(tasks(), most=2)
    first.touch()
    assert next(running) == ("b", 0)
    assert begun == ["a", "b"]
    last.touch()
    assert dict(running) == {"a": 0, "c": 0}


def test_one_that_cannot_be_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who does not end when killed is forgotten; with nobody left to do it, the rest is told."""
    monkeypatch.setattr("mdaflow.app.deputies.LAST", 0.05)
    monkeypatch.setattr(signal, "pidfd_send_signal", lambda *_: None)
    pids = tuple[int, ...]()
    fork = os.fork

    def noted() -> int:
        nonlocal pids
        pid = fork()
        pids += (pid,)
        return pid

    monkeypatch.setattr(os, "fork", noted)
    stuck = Task("a", lambda: signal.pause() or 0, 0.05)
    try:
        assert list(run_all([stuck, Task("b", lambda: 0)])) == [("a", KILLED), ("b", KILLED)]
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
