"""A process that is one account of this machine, and delivers its mail.

It is forked by the broker (serve/broker.py) while that is root, becomes the account for good, makes
sure of it, and only then reads what the user has written. It has no descriptors but its
conversation with a worker and one with the writer of /var/mail (mailspool.py). What takes the
rights of the site the worker does for it (steward.py). It serves one message after the other, and
ends when the worker leaves, or has nothing for it for a while.

Everything that the user or the sender chose is read and run here: rules, messages, programs; the
rules of the site, too, so their programs run as the user.
"""

from __future__ import annotations

import logging
import os
import socket
import stat
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import replace
from typing import Any

from mdaflow.deliver import quota
from mdaflow.errors import INTERNAL, MailError, Status, TempFail
from mdaflow.mail.envelope import Envelope
from mdaflow.mail.message import Message
from mdaflow.route.accounts import SystemUsers, account
from mdaflow.route.users import User

from . import mailspool, privileges
from .build import Site, open_site
from .carry import Carried, carry_out
from .config import Config
from .failure import failed
from .far import Far, FarLog, envelope_of, told
from .frames import Frame, Frames, answer_of, received_raw

log = logging.getLogger("mdaflow")

IDLE = 10.0
"""Seconds without anything to do, after which it ends."""
BROKEN_OFF = Status(451, "4.2.1", "Mailbox is out of service, try again later")
"""The reply to mail for who has set the sticky bit of the home, as qmail has it."""


def far_site(config: Config) -> Site:
    """The site as a process knows it that may not do what takes its rights.

    Raises ConfigError.
    """
    far = Far()
    site = open_site(config, far)
    site.answers.far = far
    return replace(site, steward=far)


def live(site: Site, sock: socket.socket, login: str, source: int) -> None:
    """Be the identity of a login, to the end of its process, which is root's until here."""
    frames = Frames(sock)
    try:
        user, site = settled(site, login, source)
    except (MailError, OSError) as error:
        why = error if isinstance(error, MailError) else TempFail(INTERNAL, str(error))
        frames.send(answer_of(lambda: _raise(why)))
        return
    far = site.steward
    assert isinstance(far, Far)
    far.frames = frames
    log.handlers[:] = [FarLog(frames)]
    _only(frames, site)
    frames.send(["ok", True])
    while _serve(site, far, frames, user):
        pass


def settled(site: Site, login: str, source: int) -> tuple[User, Site]:
    """Become an account for good. The user that it is, and the site as it sees it.

    Raises TempFail and OSError; then the process has to end.
    """
    users = site.users[source]
    found = account(login)
    if not isinstance(users, SystemUsers) or found is None or found.uid not in users.uids:
        raise TempFail(INTERNAL, f"{login} is no account that has mail here")
    user = users.user(found)
    mailbox = site.mailbox(user)
    spooler = mailspool.start(mailbox.inbox, found) if mailbox.inbox.startswith("/") else None
    privileges.become(found)
    os.umask(0o077)
    own = replace(site.config, state=os.path.join(found.home, ".mdaflow", "state"))
    return user, replace(site, config=own, spooler=spooler)


def _raise(error: Exception) -> None:
    raise error


def _only(frames: Frames, site: Site) -> None:
    """Have no descriptors but those for this, and nothing of the broker in the environment."""
    keep = {frames.socket.fileno()}
    if isinstance(site.spooler, mailspool.Spooler):
        keep.add(site.spooler.frames.socket.fileno())
    privileges.close_all(keep)
    zone = {name: os.environ[name] for name in ("TZ",) if name in os.environ}
    os.environ.clear()
    os.environ.update(zone)
    os.chdir("/")


def _serve(site: Site, far: Far, frames: Frames, user: User) -> bool:
    """Do one thing that is asked; False when there will be nothing more."""
    try:
        frame = frames.receive(IDLE)
    except OSError:
        return False
    frames.socket.settimeout(None)
    if isinstance(site.spooler, mailspool.Spooler) and site.spooler.gone:
        return False  # a fresh process has another
    name, *arguments = frame.value
    try:
        answer = _DOES[name](site, far, user, frame, *arguments)
    except OSError:  # the worker is gone: there is nobody to tell
        return False
    finally:
        for file in frame.files:
            os.close(file)
    with suppress(OSError):
        frames.send(answer)
        return True
    return False


def _room(site: Site, far: Far, user: User, frame: Frame) -> list[object]:
    def check() -> None:
        check_home(user)
        quota.check(site.mailbox(user))

    return answer_of(check)


def _deliver(
    site: Site,
    far: Far,
    user: User,
    frame: Frame,
    words: dict[str, Any],
    address: str,
    ident: str,
    spare: bool,
) -> list[object]:
    envelope, message = envelope_of(words), Message(received_raw(frame, sealed=False))
    whose = replace(user, address=address)
    try:
        check_home(whose)
    except TempFail as error:
        return told(Carried(failed(error, envelope.recipient)))
    site = replace(site, inflight=_Told(spare))
    return told(carry_out(site, message, envelope, whose, ident, far.fence))


_DOES: dict[str, Callable[..., list[object]]] = {"room": _room, "deliver": _deliver}


def check_home(user: User) -> None:
    """Raise TempFail unless the home of an account is there and in service."""
    try:
        about = os.stat(user.home)
    except OSError as error:
        raise TempFail(INTERNAL, f"{user.home}: {error.strerror} (not mounted?)") from error
    if not stat.S_ISDIR(about.st_mode):
        raise TempFail(INTERNAL, f"{user.home} is no folder")
    if about.st_mode & stat.S_ISVTX:
        raise TempFail(BROKEN_OFF, f"{user.home} is sticky: {user.address} is out of service")


class _Told:
    """Whether rules may run is not for us to know."""

    def __init__(self, spare: bool) -> None:
        self._spare = spare

    def noted(self, message: Message, envelope: Envelope) -> AbstractContextManager[bool]:
        return nullcontext(self._spare)
