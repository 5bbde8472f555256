"""A program that delivers in a fork of its own each time, with everything imported already.

`deliveries.py` starts it and tells it what to do, a line on standard input for each step: `warm
MESSAGE RECIPIENT...` or `fork MESSAGE RECIPIENT...`, and, once a fork may begin, `go`. On
standard output are `pid N` when the fork is ready, a line `reply RECIPIENT STATUS` for each
recipient as soon as it is done, and `end CODE`. The code is 1 when the fork has more files open
than before.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from mdaflow import Courier, Envelope, Message, Site, open_site, read_config
from mdaflow.app import log


def descriptors() -> list[int]:
    """The files that are open, found out by no system call in which there may be a fault."""
    return [fd for fd in range(100) if is_open(fd)]


def is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def deliver(site: Site, raw: bytes, recipients: list[str], reply: Callable[[str], object]) -> None:
    """Deliver as the server does, to one recipient after the other."""
    content = Message.from_wire(raw)
    courier = Courier(site)
    for recipient in recipients:
        envelope = Envelope("a@example.com", recipient, received=1_800_000_000.0)
        reply(f"reply {recipient} {courier.deliver(content, envelope, lambda: True)}\n")


def close(site: Site) -> None:
    """Close what stays open from one delivery to the next."""
    site.answers.store.close()  # type: ignore[attr-defined]  # it is SqliteStore


def say(line: str) -> None:
    """Answer, in a single system call; whoever should read it may be gone."""
    with suppress(OSError):
        os.write(1, line.encode())


def in_a_fork(site: Site, raw: bytes, recipients: list[str]) -> int:
    """Deliver when we are told to go; the exit code."""
    before = descriptors()
    say(f"pid {os.getpid()}\n")
    os.read(0, 100)
    deliver(site, raw, recipients, say)
    close(site)
    return int(descriptors() != before)


def main(config: str) -> None:
    settings = read_config(config)
    log.set_up(settings.log)
    site = open_site(settings)
    while words := os.read(0, 4096).decode().split():
        what, file, *recipients = words
        raw = Path(file).read_bytes()
        if what == "warm":
            deliver(site, raw, recipients, lambda line: None)
            close(site)
            say("end 0\n")
            continue
        pid = os.fork()
        if pid == 0:
            code = 2
            try:
                code = in_a_fork(site, raw, recipients)
            finally:
                os._exit(code)
        say(f"end {os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])}\n")


if __name__ == "__main__":
    main(sys.argv[1])
