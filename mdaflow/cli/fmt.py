"""`mdaflow fmt`: rule files in the one layout.

A file is replaced as a whole or not at all: its new text is written beside it with the same
mode and owner, synced, and renamed. A link is followed; what may not be written is not replaced
either. Known limits: other hard links keep the old text, and extended attributes are lost.

All files are gone through; the highest of their exit codes is the one that is told: 0; 1 when
`--check` or `--diff` found something to change; 65 what has errors; 66 what cannot be read; 73
what cannot be written.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Sequence
from contextlib import suppress

import click

from mdaflow import SourceError, layout

from . import EX_DATAERR, EX_NOINPUT
from .common import step_aside

_MOST = 16 << 20
"""Bytes that are read of a file; layout() refuses far smaller ones."""


@click.command("fmt")
@click.argument("files", nargs=-1, metavar="[FILE]...")
@click.option("--check", is_flag=True, help="Change nothing; name the files that would change.")
@click.option("--diff", is_flag=True, help="Change nothing; show what would change.")
def command(files: Sequence[str], check: bool, diff: bool) -> int:
    """Lay out rule files in the one way.

    Without files, and for `-`, from standard input to standard output. Exit code 65 when a
    file has errors; with --check and --diff 1 when one would change.
    """
    step_aside(files)
    return max([_lay_out(path, check, diff) for path in files or ("-",)])


def _lay_out(path: str, check: bool, diff: bool) -> int:
    """Lay out one file; its exit code."""
    name = "<stdin>" if path == "-" else click.format_filename(path)
    try:
        old = _read(path)
        new = layout(old, name).encode()
    except OSError as error:
        return _cannot("read", name, error, EX_NOINPUT)
    except SourceError as error:
        click.echo(str(error), err=True)
        return EX_DATAERR
    if check or diff:
        return int(new != old and _report(name, old, new, check, diff))
    if path == "-":
        click.echo(new, nl=False)
    elif new != old:
        try:
            _replace(path, new)
        except OSError as error:
            return _cannot("write", name, error, os.EX_CANTCREAT)
        click.echo(f"{name}: laid out")
    return 0


def _cannot(do: str, name: str, error: OSError, code: int) -> int:
    click.echo(f"mdaflow: cannot {do} {name}: {error.strerror or error}", err=True)
    return code


def _read(path: str) -> bytes:
    if path == "-":
        return sys.stdin.buffer.read(_MOST)
    with open(path, "rb") as file:
        return file.read(_MOST)


def _report(name: str, old: bytes, new: bytes, check: bool, diff: bool) -> bool:
    """Say that a file would change; always True."""
    if check:
        click.echo(f"{name}: would be laid out")
    if diff:
        from difflib import unified_diff

        changes = unified_diff(_lines(old), _lines(new), name, f"{name} (laid out)")
        click.echo("".join(changes), nl=False)
    return True


def _lines(raw: bytes) -> list[str]:
    *lines, rest = raw.decode().split("\n")
    ended = [f"{line}\n" for line in lines]
    return [*ended, f"{rest}\n\\ No newline at end of file\n"] if rest else ended


def _replace(path: str, new: bytes) -> None:
    """Put a text in the place of a file's. Raises OSError, and then the old one is there."""
    from tempfile import mkstemp

    path = os.path.realpath(path)
    about = _writable(path)
    folder = os.path.dirname(path)
    fd, fresh = mkstemp(prefix=".mdaflow-", dir=folder)
    try:
        with open(fd, "wb") as file:
            file.write(new)
            file.flush()
            os.fchown(fd, about.st_uid, about.st_gid)
            os.fchmod(fd, stat.S_IMODE(about.st_mode))
            os.fsync(fd)
        os.rename(fresh, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(fresh)
        raise
    _sync(folder)


def _writable(path: str) -> os.stat_result:
    """What is known of a file that we may write; the bits of its mode bind root as well."""
    fd = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        about = os.fstat(fd)
    finally:
        os.close(fd)
    if not stat.S_ISREG(about.st_mode):
        raise OSError(errno.EINVAL, "not a regular file")
    if not about.st_mode & 0o222:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    return about


def _sync(folder: str) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
