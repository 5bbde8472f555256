"""What the commands that take a message share."""

from __future__ import annotations

import errno
import os
import select
import stat
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import click

from mdaflow import Config, ConfigError, Envelope, Message, Site, TempFail, open_site
from mdaflow.errors import INTERNAL

from . import told

START = 20.0
"""Seconds in which a process of ours has to begin."""

Options = Callable[[Callable[..., Any]], Callable[..., Any]]

config_option: Options = click.option(
    "--config",
    metavar="FILE",
    help="The configuration; else $MDAFLOW_CONFIG or /etc/mdaflow/mdaflow.yaml.",
)
sender_option: Options = click.option(
    "-f", "sender", metavar="ADDRESS", help="The sender of the envelope; '' for a bounce."
)
original_option: Options = click.option(
    "-a", "original", default="", metavar="ADDRESS", help="The recipient before aliases."
)


def read_message(path: str) -> Message:
    """The message in a file, or on standard input for `-`."""
    try:
        if path == "-":
            return Message.from_wire(sys.stdin.buffer.read())
        return Message.from_wire(_of_others(path) if os.geteuid() == 0 else _whole(path))
    except OSError as error:
        raise click.ClickException(f"{path}: {error.strerror}") from error


def _of_others(path: str) -> bytes:
    from mdaflow.app.aside import read_aside

    return read_aside(path, _whole)


def _whole(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def step_aside(paths: Sequence[str]) -> None:
    """As root: become whoever these files belong to, before they are read (P22)."""
    if os.geteuid() == 0:
        from mdaflow.app import aside

        try:
            aside.step_aside(path for path in paths if path != "-")
        except OSError as error:
            raise click.ClickException(f"{', '.join(paths)}: {error.strerror}") from error


MAX_FILE = 16 << 20
"""Bytes that are read of a file with rules or with a list; compilers refuse far smaller ones."""


def read_file(path: str, most: int = MAX_FILE) -> bytes:
    """The content of a file that is neither folder nor device, without waiting for anybody.

    Raises OSError.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        with open(descriptor, "rb", closefd=False) as file:
            return _bounded(file.read(most + 1), most)
    finally:
        os.close(descriptor)


def read_input(most: int = MAX_FILE) -> bytes:
    """Standard input. Raises OSError."""
    return _bounded(sys.stdin.buffer.read(most + 1), most)


def _bounded(content: bytes, most: int) -> bytes:
    if len(content) > most:
        raise OSError(errno.EFBIG, f"larger than {most >> 20} MiB")
    return content


def say(text: str, *, err: bool = False) -> None:
    """Print a text, in which the name of a file may be no text."""
    click.echo(text.encode(errors="backslashreplace"), err=err)


def site_of(settings: Config, *, kept: bool) -> Site:
    """The site of a configuration. `kept`: with its store; else nothing is written."""
    from mdaflow import MemoryStore  # only tests of rules need one

    return open_site(settings, None if kept else MemoryStore())


def step_down(settings: Config) -> None:
    """As root: become the user that delivers, before anything that users wrote is read (P22)."""
    if os.geteuid() == 0:
        from mdaflow.app import privileges
        from mdaflow.app.rehearse import rehearse

        rehearse()
        privileges.drop(settings)


@contextmanager
def working(settings: Config) -> Iterator[Site]:
    """The site as a worker of the server has it: with its store, and as root with processes for
    accounts of the machine. We are the user that delivers from then on, and the log is open.

    Raises ConfigError, TempFail.
    """
    from mdaflow.app import log

    try:
        log.set_up(settings.log)
    except OSError as error:
        raise ConfigError((f"log: {settings.log.to}: {error.strerror}",)) from error
    if os.geteuid() != 0 or not (settings.has_accounts or settings.has_uids):
        step_down(settings)
        yield site_of(settings, kept=True)
        return
    from mdaflow.app import privileges
    from mdaflow.app.identities import Identities
    from mdaflow.serve.broker import Broker

    privileges.check(settings)
    broker = Broker(settings, 1, ())
    identities = Identities(broker.requests)
    try:
        _begun(broker.start())
        step_down(settings)
        yield open_site(settings, identities=identities)
    finally:
        identities.close()
        broker.leave()  # it ends when nobody is left to ask it


def _begun(ready: int) -> None:
    """Wait until a broker can be asked. Raises TempFail."""
    with open(ready, "rb", buffering=0) as pipe:
        if not select.select([pipe], [], [], START)[0] or not pipe.read(1):
            raise TempFail(INTERNAL, "the process that makes those of accounts does not start")


def as_each(settings: Config, *, named: bool) -> bool:
    """Is it done as whose mail it is: for accounts of this machine, and by root for users that are
    `named`, who may have uids of their own?"""
    return settings.has_accounts or (settings.has_uids and named and os.geteuid() == 0)


def as_deputy(act: Callable[[], int]) -> int:
    """The exit code of what a deputy does (app/deputies.py): all that it raises is told."""

    def guarded() -> int:
        try:
            return act()
        except OSError as error:
            raise TempFail(INTERNAL, str(error)) from error

    return told(guarded)


def envelope(sender: str, recipient: str, original: str = "") -> Envelope:
    """The envelope of a message that was handed over on this machine."""
    return Envelope(sender, recipient, original, protocol="local", received=time.time())
