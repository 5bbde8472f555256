"""Hostile messages by dice: every byte that came is stored, in a Maildir and in an mbox (P14)."""

from __future__ import annotations

import os
import random

import pytest
from dovecot import Dovecot
from fidelity import Sent, by_dovecot, in_maildir, in_mbox, send
from mdaflow_server import Mdaflow
from need import need

SEED = random.randrange(2**32)
MESSAGES = 10_000


@pytest.fixture(scope="module")
def sent(mdaflow: Mdaflow) -> Sent:
    """The messages, delivered."""
    return send(mdaflow, MESSAGES, SEED)


def test_maildir(sent: Sent) -> None:
    """What is in the Maildir is what came, below our fields and without forged ones."""
    assert in_maildir(sent) == []


def test_mbox(sent: Sent) -> None:
    """Python splits the mbox into the messages that came, the quotes taken away."""
    assert in_mbox(sent) == []


def test_dovecot(sent: Sent, mdaflow: Mdaflow) -> None:
    """Dovecot splits the mbox into the same messages."""
    if os.geteuid() != 0:
        pytest.skip("needs root: Dovecot does")
    need("dovecot")
    dovecot = Dovecot(mdaflow.root)
    try:
        dovecot.start()
        assert by_dovecot(sent, dovecot) == []
    finally:
        dovecot.stop()
