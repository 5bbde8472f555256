"""Dovecot reads by IMAP while mail is delivered."""

from __future__ import annotations

import os
import shutil

import pytest
from mdaflow_server import new_root
from need import need
from reading import read_while_delivered

COUNT = 250
"""Messages to each user; `contrib/dev torture reading` sends thousands."""


def test_read_while_delivered() -> None:
    """Each message is seen once, with its flags, and Dovecot counts what our quota says."""
    if os.geteuid() != 0:
        pytest.skip("needs root: Dovecot does")
    for program in ("dovecot", "imap", "pop3", "doveadm"):
        need(program)
    root = new_root()
    try:
        assert read_while_delivered(root, COUNT, 4711) == []
    finally:
        shutil.rmtree(root)
