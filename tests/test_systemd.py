"""The units for systemd: what systemd itself says of them, as systemd is not here to run them."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from need import need

UNITS = Path(__file__).resolve().parent.parent / "contrib" / "systemd"
ACCOUNTS = "accounts.conf"


def exposure(folder: Path, unit: str, *, accounts: bool) -> float:
    """What `systemd-analyze security` makes of a unit, from 0, the best, to 10."""
    shutil.copy(UNITS / unit, folder)
    if accounts:
        shutil.copytree(UNITS / f"{unit}.d", folder / f"{unit}.d")
    command = (need("systemd-analyze"), "security", "--offline=true", "--no-pager", folder / unit)
    said = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert said.returncode == 0, said.stderr
    [found] = re.findall(r"Overall exposure level for \S+: ([0-9.]+)", said.stdout)
    return float(found)


@pytest.mark.parametrize(
    ("unit", "accounts", "most"),
    [
        ("mdaflow.service", False, 1.5),
        ("mdaflow.service", True, 3.5),
        ("mdaflow-expire.service", False, 1.5),
        ("mdaflow-expire.service", True, 3.5),
        ("mdaflow-quarantine.service", False, 1.5),
    ],
)
def test_exposure(tmp_path: Path, unit: str, accounts: bool, most: float) -> None:
    """The units are shut as tight as was promised (P53), for accounts as well."""
    assert exposure(tmp_path, unit, accounts=accounts) <= most


@pytest.mark.parametrize("accounts", [False, True])
def test_units(tmp_path: Path, accounts: bool) -> None:
    """systemd finds no mistake in the units."""
    folder = Path(shutil.copytree(UNITS, tmp_path / "units"))
    if not accounts:
        for more in folder.glob("*.d"):
            shutil.rmtree(more)
    program = tmp_path / "mdaflow"
    program.touch(0o755)
    units = [path for path in folder.iterdir() if path.is_file()]
    for path in units:
        path.write_text(path.read_text().replace("/opt/mdaflow/bin/mdaflow", str(program)))
    command = (need("systemd-analyze"), "verify", "--man=no", *units)
    said = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (said.returncode, said.stderr) == (0, "")
