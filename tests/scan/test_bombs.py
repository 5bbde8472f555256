"""Bombs: a process that looks at one has 256 MiB and 10 s of computing, and survives."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from bombs import BOMBS

LOOK = """
import resource, sys
from mdaflow.mail.contents import contents
from mdaflow.mail.message import Message
from mdaflow.mail.names import names
from mdaflow.app.weights import read_weights
from mdaflow.mail.envelope import Envelope
from mdaflow.scan.dangers import dangers, unopened
from mdaflow.scan.spam import own_hits
from mdaflow.scan.spam.clues import Site
from mdaflow.scan.tokens import tokens

with open(sys.argv[1], "rb") as file:
    message = Message(file.read())
for part in message.attachments[:100]:
    names(part)
list(contents(message)), dangers(message), message.body
own_hits(message, Envelope(), Site(), read_weights()), tokens(message)
said = unopened(message) or ", ".join(message.readings.doubts)
with open("/proc/self/status") as file:  # ru_maxrss begins with that of the parent
    memory = next(line.split()[1] for line in file if line.startswith("VmHWM"))
usage = resource.getrusage(resource.RUSAGE_SELF)
print(memory, usage.ru_utime + usage.ru_stime, said, sep="|")
"""


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS)
def test_bombs(bomb: Callable[[], bytes], tmp_path: Path) -> None:
    """No message makes who looks at it take more than 256 MiB or 10 s (P30, P31)."""
    file = tmp_path / "bomb"
    file.write_bytes(bomb())
    command = [sys.executable, "-c", LOOK, str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    memory, seconds, said = done.stdout.strip().split("|")
    print(f"{int(memory) >> 10} MiB, {float(seconds):.1f} s: {said}")  # shown by pytest -s
    assert int(memory) << 10 < 256 << 20
    assert float(seconds) < 10
