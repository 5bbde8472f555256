"""mdaflow where fsync does nothing: what a power cut does to it shows that power cuts are real."""

from __future__ import annotations

import os

from mdaflow.cli import main


def nothing(fd: int) -> None:
    """Promise nothing."""


os.fsync = os.fdatasync = nothing  # type: ignore[assignment]

if __name__ == "__main__":
    main()
