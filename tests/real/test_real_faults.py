"""A fault at every system call of a delivery into a Maildir (`contrib/dev torture`: of others)."""

from __future__ import annotations

import os
import random

import pytest
from deliveries import SCENES, staged
from need import need
from sweeps import crash_points, errors

SEED = random.randrange(2**32)
MAILDIRS = ["maildir, new", "maildir"]


@pytest.fixture(autouse=True)
def _root() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root: strace is attached to a process that is not its child")
    need("strace")


@pytest.mark.parametrize("name", MAILDIRS)
def test_killed_at_every_call(name: str) -> None:
    """Killed at any system call that changes something, what was acknowledged is there, whole;
    what comes again is there twice at most."""
    print("seed", SEED)
    with staged(SCENES[name], SEED) as stage:
        swept = crash_points(stage)
    assert swept.wrong == []
    assert swept.injected == swept.points >= 7
    # where the reply was all that was missing, or the directory was yet to be synced
    assert 1 <= swept.doubled <= 3


@pytest.mark.parametrize("name", MAILDIRS)
def test_every_call_fails(name: str) -> None:
    """Whatever a system call fails with, the message is stored or put off with the reply that is
    meant for that, and nothing is left behind."""
    print("seed", SEED)
    with staged(SCENES[name], SEED) as stage:
        swept = errors(stage, first=True)
    assert swept.wrong == []
    assert swept.injected == swept.points >= 40
    assert swept.refused
    assert swept.doubled == 0
