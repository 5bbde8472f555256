"""Two thousand messages from twenty clients at once."""

from __future__ import annotations

import subprocess
from collections import Counter
from pathlib import Path

from children import PATIENCE
from mdaflow_server import Mdaflow
from need import need

MESSAGES, SESSIONS, LENGTH = 2000, 20, 4000


def test_two_thousand(mdaflow: Mdaflow) -> None:
    """All messages are stored whole, under names of their own, with one line of log each."""
    source = (need("smtp-source"), "-L", "-s", str(SESSIONS), "-m", str(MESSAGES))
    user = mdaflow.user()
    mail = ("-l", str(LENGTH), "-f", "a@example.com", "-t", user.address)
    subprocess.run(
        [*source, *mail, f"unix:{mdaflow.socket}"], check=True, timeout=PATIENCE, cwd="/"
    )
    files = user.files()
    assert len(files) == len({file.name for file in files}) == MESSAGES
    assert all(file.name.endswith(f",S={file.stat().st_size}") for file in files)
    [(body, count)] = Counter(map(body_of, files)).items()
    assert count == MESSAGES
    assert len(body.replace(b"\n", b"\r\n")) == LENGTH + len(b"\r\n")  # of the last line
    assert mdaflow.outcomes(user.address) == ["delivered"] * MESSAGES
    assert list(user.maildir.rglob("tmp/*")) == []


def body_of(file: Path) -> bytes:
    """Everything behind the header."""
    return file.read_bytes().partition(b"\n\n")[2]
