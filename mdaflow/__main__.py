"""`python -m mdaflow`: the same as the program `mdaflow`."""

from __future__ import annotations

from mdaflow.cli import main

if __name__ == "__main__":
    main()
