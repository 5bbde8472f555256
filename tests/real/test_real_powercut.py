"""Power cuts under mail: nothing that was acknowledged is lost (P3)."""

from __future__ import annotations

import os
import random

import pytest
from powercut import Cuts, NoLoopDevice, power_cuts

SEED = random.randrange(2**32)
CUTS = 5


def cut(synced: bool) -> Cuts:
    """What power cuts do."""
    if os.geteuid() != 0:
        pytest.skip("needs root: a disk is mounted")
    print("seed", SEED)
    try:
        return power_cuts(CUTS, SEED, synced=synced)
    except NoLoopDevice as error:
        pytest.skip(f"needs a loop device: {error}")


def test_nothing_is_lost() -> None:
    """What was acknowledged before the power failed is there afterwards, whole."""
    found = cut(synced=True)
    assert found.acknowledged
    assert (found.lost, found.broken) == (0, 0)


def test_without_fsync() -> None:
    """A server that syncs nothing loses messages: these power cuts are some."""
    assert cut(synced=False).lost
