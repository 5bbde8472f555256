"""`mdaflow fmt`, as a user calls it."""

from __future__ import annotations

import os
import resource
import stat
import subprocess
import sys
from pathlib import Path
from threading import Thread

import pytest
from click.testing import CliRunner

from mdaflow.cli.fmt import command

PROGRAM = Path(sys.executable).with_name("mdaflow")
UGLY = b'if a exists {deliver   to "x"}  # why\n\n\n\n'
LAID_OUT = b'if a exists { deliver to "x" }  # why\n'
WRONG = b"deliver nowhere\n"


def fmt(*arguments: str | Path, stdin: bytes = b"") -> tuple[int, str, str]:
    """Exit code, standard output and standard error of a call."""
    result = CliRunner().invoke(
        command, [str(word) for word in arguments], input=stdin, standalone_mode=False
    )
    assert result.exception is None
    return result.return_value, result.stdout, result.stderr


def call(*arguments: str | Path, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """The program itself, which can write no file of more than 4 KiB."""
    return subprocess.run(
        [PROGRAM, "fmt", *arguments],
        input=stdin,
        capture_output=True,
        timeout=60,
        env={**os.environ, "LANG": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)),
    )


@pytest.fixture
def ugly(tmp_path: Path) -> Path:
    path = tmp_path / "my.rules"
    path.write_bytes(UGLY)
    path.chmod(0o640)
    return path


def test_standard_input() -> None:
    """Without files a text goes from standard input to standard output."""
    done = call(stdin=UGLY)
    assert (done.returncode, done.stdout, done.stderr) == (0, LAID_OUT, b"")
    assert fmt("-", stdin=UGLY) == (0, LAID_OUT.decode(), "")


def test_standard_input_with_errors() -> None:
    """An error is shown with its line, exit code 65; there is no output then."""
    done = call(stdin=b"keep\n" + WRONG)
    assert (done.returncode, done.stdout) == (65, b"")
    assert done.stderr.startswith(b"<stdin>:2:9: ")
    assert done.stderr.endswith(b"\n    deliver nowhere\n            ^^^^^^^\n")


def test_files(ugly: Path) -> None:
    """A file is laid out in place, and said; one that is laid out already is not touched."""
    assert fmt(ugly) == (0, f"{ugly}: laid out\n", "")
    assert ugly.read_bytes() == LAID_OUT
    before = ugly.stat()
    assert fmt(ugly) == (0, "", "")
    after = ugly.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert os.listdir(ugly.parent) == [ugly.name]


def test_mode_and_owner(ugly: Path) -> None:
    """The new file has the mode, the owner and the group of the old one."""
    if os.geteuid() == 0:
        os.chown(ugly, 0, 54321)
    before = ugly.stat()
    assert fmt(ugly)[0] == 0
    after = ugly.stat()
    assert stat.S_IMODE(after.st_mode) == 0o640
    assert (after.st_uid, after.st_gid) == (before.st_uid, before.st_gid)


def test_links(ugly: Path) -> None:
    """A symbolic link stays one; what it points to is laid out."""
    (ugly.parent / "links").mkdir()
    link = ugly.parent / "links/rules"
    link.symlink_to("../my.rules")
    assert fmt(link) == (0, f"{link}: laid out\n", "")
    assert link.is_symlink()
    assert ugly.read_bytes() == LAID_OUT


def test_windows(tmp_path: Path) -> None:
    """A mark of byte order and Windows line ends go."""
    path = tmp_path / "my.rules"
    path.write_bytes(b"\xef\xbb\xbfkeep\r\n")
    assert fmt(path)[0] == 0
    assert path.read_bytes() == b"keep\n"


def test_check(ugly: Path) -> None:
    """--check names what would change, changes nothing, and exits with 1."""
    good = ugly.parent / "good.rules"
    good.write_bytes(LAID_OUT)
    done = call("--check", ugly, good)
    assert (done.returncode, done.stderr) == (1, b"")
    assert done.stdout.decode() == f"{ugly}: would be laid out\n"
    assert ugly.read_bytes() == UGLY
    assert fmt("--check", good) == (0, "", "")
    assert fmt("--check", stdin=UGLY) == (1, "<stdin>: would be laid out\n", "")


def test_diff(ugly: Path) -> None:
    """--diff shows what would change, and changes nothing."""
    ugly.write_bytes(b"keep\n  stop")
    code, shown, _ = fmt("--diff", ugly)
    assert code == 1
    assert shown == (
        f"--- {ugly}\n+++ {ugly} (laid out)\n"
        "@@ -1,2 +1,2 @@\n keep\n-  stop\n\\ No newline at end of file\n+stop\n"
    )
    assert ugly.read_bytes() == b"keep\n  stop"
    assert fmt("--check", "--diff", ugly)[1] == f"{ugly}: would be laid out\n{shown}"
    assert fmt("--diff", stdin=LAID_OUT) == (0, "", "")


@pytest.mark.parametrize("raw", [WRONG, b"keep \xff", b"keep\x00"])
def test_errors(ugly: Path, raw: bytes) -> None:
    """A file with errors stays as it is, exit code 65; the others are laid out."""
    bad = ugly.parent / "bad.rules"
    bad.write_bytes(raw)
    code, said, errors = fmt(bad, ugly)
    assert (code, said) == (65, f"{ugly}: laid out\n")
    assert errors.startswith(f"{bad}:1:")
    assert bad.read_bytes() == raw
    assert fmt("--check", bad)[0] == 65


def test_missing(ugly: Path) -> None:
    """A file that cannot be read: 66; the others are laid out."""
    missing = ugly.parent / "missing.rules"
    code, said, errors = fmt(missing, ugly)
    assert (code, said) == (66, f"{ugly}: laid out\n")
    assert errors == f"mdaflow: cannot read {missing}: No such file or directory\n"
    assert fmt(ugly.parent)[0] == 66
    assert call(missing).returncode == 66


def test_read_only_file(ugly: Path) -> None:
    """What nobody may write is not replaced, even by root: 73."""
    ugly.chmod(0o444)
    code, said, errors = fmt(ugly)
    assert (code, said) == (73, "")
    assert errors == f"mdaflow: cannot write {ugly}: Permission denied\n"
    assert ugly.read_bytes() == UGLY


def test_read_only_folder(ugly: Path) -> None:
    """Where no file can be made the old one stays: 73."""
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    ugly.parent.chmod(0o555)
    try:
        assert fmt(ugly)[0] == 73
        assert ugly.read_bytes() == UGLY
    finally:
        ugly.parent.chmod(0o755)


def test_full_disk(ugly: Path) -> None:
    """When the new text cannot be written the old one stays, and nothing else: 73."""
    text = b"keep   stop\n" * 1000
    ugly.write_bytes(text)
    done = call(ugly)
    assert (done.returncode, done.stdout) == (73, b"")
    assert done.stderr.decode() == f"mdaflow: cannot write {ugly}: File too large\n"
    assert ugly.read_bytes() == text
    assert os.listdir(ugly.parent) == [ugly.name]


def test_pipe(tmp_path: Path) -> None:
    """What is no regular file is not replaced: 73."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    readers = []

    def write() -> None:
        with open(pipe, "wb") as writer:  # it waits for who reads
            readers.append(os.open(pipe, os.O_RDONLY | os.O_NONBLOCK))
            writer.write(UGLY)

    thread = Thread(target=write)
    thread.start()
    try:
        code, _, errors = fmt(pipe)
    finally:
        thread.join()
        os.close(readers[0])
    assert (code, errors) == (73, f"mdaflow: cannot write {pipe}: not a regular file\n")
    assert stat.S_ISFIFO(pipe.stat().st_mode)
