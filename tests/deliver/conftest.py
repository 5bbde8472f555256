"""Fixtures for tests of storage."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from need import need


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = [need("mount"), "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    done = subprocess.run(mount, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        report = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        report(f"cannot mount: {done.stderr.strip()}")
    yield disk
    subprocess.run([need("umount"), str(disk)], check=True)
