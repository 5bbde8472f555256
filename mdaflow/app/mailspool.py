"""The writer of one inbox in the spool of the system, `/var/mail/USER`.

That directory belongs to a group, `mail`: only its members can make a lock there. A user's own
process is no member, and what it runs must not become one. So the writer is a second process of
the user, with that group alone, which reads nothing that the user has chosen and touches only this
one file and its lock. It is told what to write by the user's process (identity.py). Where everybody
may write to the directory (mode 1777), it has the group of the user instead.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import stat
from collections.abc import Collection
from contextlib import suppress

from mdaflow.deliver import mbox
from mdaflow.deliver.mailbox import Chunks, Mailbox, Prepared, parse_mailbox
from mdaflow.errors import INTERNAL, ConfigError, MailError, TempFail, from_oserror
from mdaflow.route.users import Account

from . import privileges
from .config import Config
from .frames import Frame, Frames, Nonsense, answer_of, fits, received_raw, result, sealed_file

log = logging.getLogger("mdaflow")

_MAKE = "install -d -m 2775 -g mail"
_FORMS = {"prepare": ([str], str, float | int), "commit": (), "abort": ()}


class Spooler:
    """The user's side: writes by the writer. `frames` lead to it."""

    def __init__(self, frames: Frames) -> None:
        self.frames = frames

    @property
    def gone(self) -> bool:
        """The writer has ended, so the process of the user has to, too."""
        return self.frames.gone

    def __call__(
        self,
        mailbox: Mailbox,
        chunks: Chunks,
        flags: Collection[str],
        sender: str,
        received: float,
    ) -> Prepared:
        """A message at the end of the inbox, as `mbox.prepare` has it."""
        file = -1
        try:
            file = sealed_file(chunks)
            where = self.call("prepare", sorted(flags), sender, received, file=file)
        finally:
            if file >= 0:
                os.close(file)
        return _Waiting(self, where)

    def call(self, *words: object, file: int = -1) -> str:
        """Have something done. Raises TempFail, and what the writer raises."""
        try:
            self.frames.send(words, files=(file,) if file >= 0 else ())
            answer = self.frames.receive().value
        except OSError as error:
            raise from_oserror(error) from error
        return str(result(answer))


class _Waiting:
    """A message that the writer has prepared."""

    def __init__(self, spooler: Spooler, where: str) -> None:
        self.where = where
        self._spooler = spooler

    def commit(self) -> None:
        """Make it visible. Raises TempFail."""
        self._spooler.call("commit")

    def abort(self) -> None:
        """Take it back."""
        with suppress(MailError):
            self._spooler.call("abort")


def start(inbox: str, account: Account) -> Spooler:
    """The writer of an account's inbox, as a process that ends with us. We have to be root.

    Raises TempFail and OSError.
    """
    ours, theirs = socket.socketpair()
    if os.fork() == 0:
        try:
            ours.close()
            live(theirs, inbox, account)
        except (OSError, TempFail) as error:
            log.error("no writer of %s: %s", ascii(inbox), error)
        finally:
            os._exit(0)
    theirs.close()
    return Spooler(Frames(ours))


def _group(directory: str, account: Account) -> int:
    """The group that may make a file there."""
    about = os.stat(directory)
    everybody = about.st_mode & stat.S_IWOTH
    group = account.gid if everybody or not about.st_mode & stat.S_IWGRP else about.st_gid
    if group == 0:
        raise TempFail(INTERNAL, f"{directory} is for the group root: make it mail's (2775)")
    return group


def check(config: Config) -> None:
    """Raise ConfigError for a directory of inboxes in which accounts could have none."""
    problems = []
    for number, source in enumerate(config.users):
        directory = os.path.dirname(parse_mailbox(source.mailbox, "/").inbox)
        wrong = unfit(directory) if directory.startswith("/") else ""
        if wrong:
            problems.append(f"users[{number}].mailbox: {directory}: {wrong}")
    if problems:
        raise ConfigError(tuple(problems))


def unfit(directory: str) -> str:
    """Why it can be no directory of inboxes, and what to do; empty when it can."""
    try:
        about = os.stat(directory)
    except OSError as error:
        return f"{error.strerror}: make it ({_MAKE} {directory})"
    mode = about.st_mode
    if not stat.S_ISDIR(mode):
        return "is no folder"
    if mode & stat.S_IWOTH:
        return "" if mode & stat.S_ISVTX else "anybody can remove what is in it: chmod 2775 or 1777"
    if not mode & stat.S_IWGRP:
        return "nobody can make a lock in it: chgrp mail and chmod 2775"
    return "" if about.st_gid else "is for the group root: chgrp mail"


def live(sock: socket.socket, inbox: str, account: Account) -> None:
    """Be the writer of an inbox, until the user's process is gone. Raises TempFail, OSError."""
    directory, _, name = inbox.rpartition("/")
    frames, mailbox = Frames(sock), Mailbox("mbox", directory, ".", name, owned=True)
    group = _group(directory, account)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    privileges.become(account, group)
    privileges.wake_when_orphaned()
    privileges.close_all({frames.socket.fileno()})
    os.umask(0o077)
    os.chdir("/")
    writer = _Writer(mailbox)
    try:
        while True:
            frame = frames.receive()
            frames.send(_answer(writer, frame))
    except OSError:
        return
    finally:
        writer.abort()


def _answer(writer: _Writer, frame: Frame) -> list[object]:
    try:
        return answer_of(lambda: writer.act(frame))
    finally:
        for file in frame.files:
            os.close(file)


class _Writer:
    """One message after the other for one file."""

    def __init__(self, mailbox: Mailbox) -> None:
        self._mailbox = mailbox
        self._step: Prepared | None = None

    def act(self, frame: Frame) -> str:
        """Do what a frame says; what is to be answered. Raises MailError, OSError."""
        value = frame.value
        word = value[0] if isinstance(value, list) and value else ""
        if word not in _FORMS or not fits(value[1:], _FORMS[word]):
            raise Nonsense("no words of ours")
        if word == "prepare":
            return self.prepare(frame, *value[1:])
        step, self._step = self._step, None
        if step is None:
            raise Nonsense("nothing was prepared")
        step.commit() if word == "commit" else step.abort()
        return step.where

    def prepare(self, frame: Frame, flags: list[str], sender: str, received: float) -> str:
        """A message at the end of the file."""
        self.abort()
        raw = received_raw(frame, sealed=True)
        self._step = mbox.prepare(self._mailbox, "", [memoryview(raw)], flags, sender, received)
        return self._step.where

    def abort(self) -> None:
        """Take back what is not committed."""
        if self._step is not None:
            self._step.abort()
            self._step = None
