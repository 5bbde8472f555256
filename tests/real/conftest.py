"""The servers of these tests: each is started once for all tests of a pytest process."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from mailsystem import MailSystem, mail_system
from mdaflow_server import Mdaflow, new_root
from need import need
from postfix import MODES


@pytest.fixture(scope="session", params=MODES)
def site(request: pytest.FixtureRequest) -> Iterator[MailSystem]:
    """A mail system, once for each way from Postfix to mdaflow."""
    if os.geteuid() != 0:
        pytest.skip("needs root: Postfix and Dovecot do")
    for program in ("postfix", "dovecot", "imap", "pop3", "swaks", "smtp-source"):
        need(program)
    with mail_system(request.param) as servers:
        yield servers


@pytest.fixture(scope="session")
def mdaflow() -> Iterator[Mdaflow]:
    """An mdaflow without the others; it needs no root."""
    root = new_root()
    server = Mdaflow(root, root / "lmtp")
    try:
        server.start()
        yield server
    finally:
        server.close()
