"""Programs that tests talk to: a test without its program is skipped for all to see.

With CI=true it fails instead, so that nothing goes untested unnoticed.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

UNPACKED = Path(__file__).parents[1] / ".cache" / "debian"
"""What `contrib/dev test` has unpacked and not installed."""
ELSEWHERE = (
    *("/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/lib/dovecot", "/usr/libexec/dovecot"),
    f"{UNPACKED}/usr/sbin",
)


def need(program: str) -> str:
    """The path of `program`, also of one that is not in a user's PATH; else the test ends here."""
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), *ELSEWHERE))
    found = shutil.which(program, path=path)
    if found is None:
        reason = f"needs the program {program} (contrib/dev test installs it as root)"
        if os.environ.get("CI") == "true":
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    return found
