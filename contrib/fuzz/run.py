"""Fuzz a target with atheris, which looks for inputs that reach new code.

    python run.py [--keep] [seconds]

It begins with corpus/lmtp. An input that breaks the target is written to a file here, whose
name is printed, and ends the run with an exit status that is not 0; `python run.py FILE` plays
it again. With `--keep` what was found is merged into the corpus, as few files as cover the same.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import atheris

HERE = Path(__file__).resolve().parent
CORPUS = HERE / "corpus" / "lmtp"
MOST = 300
"""Files of the corpus."""


def fuzz(arguments: Sequence[str | Path]) -> None:
    """Become libFuzzer with these arguments."""
    with atheris.instrument_imports(include=["mdaflow"]):
        import lmtp
    atheris.enabled_hooks.add("RegEx")
    options = [f"-max_len={lmtp.MAX_INPUT}", "-timeout=20", f"-dict={HERE / 'lmtp.dict'}"]
    again = f"{sys.executable} {__file__} --"  # a merge runs this, by way of a shell
    atheris.Setup([again, *options, *map(str, arguments)], lmtp.check)
    atheris.Fuzz()


def run(*arguments: str | Path) -> int:
    memory = {"TMPDIR": "/dev/shm"} if os.access("/dev/shm", os.W_OK) else {}
    command = [sys.executable, __file__, "--", *arguments]
    return subprocess.run(command, cwd=HERE, env=os.environ | memory).returncode


def keep(found: Path, folder: Path) -> int:
    """Make the corpus anew from what it has and what was found."""
    merged = folder / "merged"
    merged.mkdir()
    failed = run("-merge=1", merged, CORPUS, found)
    kept = sorted(merged.iterdir(), key=lambda path: path.stat().st_size)[:MOST]
    if failed or not kept:
        return failed or 1
    for path in CORPUS.iterdir():
        path.unlink()
    for path in kept:
        shutil.copy(path, CORPUS / path.name[:12])
    return 0


def main() -> int:
    if sys.argv[1:2] == ["--"]:
        fuzz(sys.argv[2:])
    parser = argparse.ArgumentParser(description="fuzz the LMTP server")
    parser.add_argument("what", nargs="?", default="60", metavar="SECONDS|FILE")
    parser.add_argument("--keep", action="store_true", help="merge what is found into the corpus")
    arguments = parser.parse_args()
    if not arguments.what.isdigit():
        return run(Path(arguments.what).resolve())
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder) / "found"
        found.mkdir()
        status = run(f"-max_total_time={arguments.what}", "-print_final_stats=1", found, CORPUS)
        return status or (keep(found, Path(folder)) if arguments.keep else 0)


if __name__ == "__main__":
    sys.exit(main())
