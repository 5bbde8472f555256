"""What the commands that take a message share."""

from __future__ import annotations

import errno
import os
import stat
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import click

from mdaflow import Config, Envelope, Message, Site, User, find_user, open_site
from mdaflow.app.build import myself

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
        with open(path, "rb") as file:
            return Message.from_wire(file.read())
    except OSError as error:
        raise click.ClickException(f"{path}: {error.strerror}") from error


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


def with_state(settings: Config) -> Config:
    """State in a folder of one's own, for whoever may not write to that of the site."""
    with suppress(OSError):
        os.makedirs(settings.state, mode=0o700, exist_ok=True)
    if os.access(settings.state, os.W_OK | os.X_OK):
        return settings
    own = os.path.join(myself("localhost").home, ".mdaflow", "state")
    return replace(settings, state=own)


def step_down(settings: Config) -> None:
    """As root: become the user that delivers, before anything that users wrote is read (P22)."""
    if os.geteuid() == 0:
        from mdaflow.app import privileges
        from mdaflow.app.rehearse import rehearse

        rehearse()
        privileges.drop(settings)


def user_of(site: Site, address: str | None) -> User:
    """The user of an address; without one, or for one's own login, whoever calls."""
    me = myself(site.hostname)
    if address is None or address == me.address.partition("@")[0]:
        return me
    return find_user(site, address)


def envelope(sender: str, recipient: str, original: str = "") -> Envelope:
    """The envelope of a message that was handed over on this machine."""
    return Envelope(sender, recipient, original, protocol="local", received=time.time())
