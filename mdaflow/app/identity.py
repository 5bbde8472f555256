"""A process that is one user with a uid of its own, and delivers its mail.

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
import resource
import socket
import stat
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

from mdaflow.deliver import quota
from mdaflow.errors import INTERNAL, MailError, Status, TempFail
from mdaflow.mail.message import Message
from mdaflow.route.users import User

from . import mailspool, privileges
from .build import Site, open_site
from .carry import Carried, carry_out
from .config import Config
from .failure import failed
from .far import Far, FarLog, envelope_of, told
from .frames import Frame, Frames, answer_of, received_raw
from .notices import store_letter

log = logging.getLogger("mdaflow")

IDLE = 10.0
"""Seconds without anything to do, after which it ends."""
MOST_KIB = 192 << 10
"""Memory that it may have had and still serve another message, in KiB."""
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


def live(
    site: Site, sock: socket.socket, login: str, source: int, writer: socket.socket | None
) -> None:
    """Be the identity of a login, to the end of its process, which is root's until here. `writer`
    leads to the writer of its inbox in /var/mail, if that is there."""
    frames = Frames(sock)
    try:
        user, site = settled(site, login, source, writer)
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


def settled(
    site: Site, login: str, source: int, writer: socket.socket | None = None
) -> tuple[User, Site]:
    """Become an account for good. The user that it is, and the site as it sees it.

    Without a `writer` one is made, if its inbox is in /var/mail. Raises TempFail and OSError; then
    the process has to end.
    """
    user = known(site, login, source)
    inbox, spooler = site.mailbox(user).inbox, None
    assert user.account is not None
    if writer is not None:
        spooler = mailspool.Spooler(Frames(writer))
    elif inbox.startswith("/"):
        spooler = mailspool.start(inbox, user.account)
    privileges.become(user.account)
    os.umask(0o077)
    own = replace(site.config, state=os.path.join(user.home, ".mdaflow", "state"))
    return user, replace(site, config=own, spooler=spooler)


def has_writer(site: Site, source: int) -> bool:
    """Have the users of a source their inboxes in /var/mail?"""
    said = site.config.users
    return 0 <= source < len(said) and ":INBOX=/" in said[source].mailbox


def refresh(site: Site, source: int) -> None:
    """Read the table of a source again, if it has one that has changed: once for all processes that
    will be made."""
    table = getattr(site.users[source], "table", None) if source < len(site.users) else None
    if table is not None:
        with suppress(TempFail):  # who is made says so
            table.get()


def live_as_writer(site: Site, sock: socket.socket, login: str, source: int) -> None:
    """Be the writer of an account's inbox, to the end of the process. Raises TempFail, OSError."""
    user = known(site, login, source)
    assert user.account is not None
    mailspool.live(sock, site.mailbox(user).inbox, user.account)


def known(site: Site, login: str, source: int) -> User:
    """The user of a login. Raises TempFail when that has no mail here, or nobody can tell."""
    user = site.users[source].by_login(login)
    if user is None or user.account is None:
        raise TempFail(INTERNAL, f"{login} is no account that has mail here")
    return user


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
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < MOST_KIB
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
    programs = None
    if spare:
        log.warning("<%s>: this message has ended two processes: the user's rules rest", address)
        programs = [*site.before, *site.after]
    return told(carry_out(site, message, envelope, whose, ident, far.fence, programs))


def _store(site: Site, far: Far, user: User, frame: Frame, address: str) -> list[object]:
    def store() -> None:
        check_home(user)
        store_letter(site, replace(user, address=address), frame.raw)

    return answer_of(store)


_DOES: dict[str, Callable[..., list[object]]] = {
    "room": _room,
    "deliver": _deliver,
    "letter": _store,
}


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
