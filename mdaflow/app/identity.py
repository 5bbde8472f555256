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
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import asdict, replace
from typing import Any

from mdaflow.deliver import quota
from mdaflow.deliver.job import Job
from mdaflow.engine.context import Fact
from mdaflow.engine.plan import Action
from mdaflow.errors import INTERNAL, MailError, Status, TempFail, from_oserror
from mdaflow.mail.envelope import Client, Envelope
from mdaflow.mail.message import Message
from mdaflow.mail.receipt import Relay
from mdaflow.route.accounts import SystemUsers, account
from mdaflow.route.users import User

from . import mailspool, privileges
from .answers import Answer
from .build import Site, open_site
from .carry import Carried, carry_out
from .config import Config
from .failure import failed
from .frames import MAX_RAW, Frame, Frames, answer_of, received_raw, result, sealed_file

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
    log.handlers[:] = [_FarLog(frames)]
    _only(frames, site)
    frames.send(["ok", True])
    while _serve(site, frames, user):
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
    close_all(keep)
    zone = {name: os.environ[name] for name in ("TZ",) if name in os.environ}
    os.environ.clear()
    os.environ.update(zone)
    os.chdir("/")


def close_all(keep: set[int]) -> None:
    """Close every descriptor but these; 0, 1 and 2 lead nowhere."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        if standard not in keep:
            os.dup2(nowhere, standard)
    last = 3
    for kept in sorted(fd for fd in keep if fd > 2):
        os.closerange(last, kept)
        last = kept + 1
    os.closerange(last, 1 << 20)


def _serve(site: Site, frames: Frames, user: User) -> bool:
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
        answer = _DOES[name](site, frames, user, frame, *arguments)
    except OSError:  # the worker is gone: there is nobody to tell
        return False
    finally:
        for file in frame.files:
            os.close(file)
    with suppress(OSError):
        frames.send(answer)
        return True
    return False


def _room(site: Site, frames: Frames, user: User, frame: Frame) -> list[object]:
    def check() -> None:
        check_home(user)
        quota.check(site.mailbox(user))

    return answer_of(check)


def _deliver(
    site: Site,
    frames: Frames,
    user: User,
    frame: Frame,
    said: dict[str, Any],
    address: str,
    ident: str,
    spare: bool,
) -> list[object]:
    envelope = Envelope(
        **said | {"client": Client(**said["client"]), "notify": tuple(said["notify"])}
    )
    message = Message(received_raw(frame, sealed=False))
    far = site.steward
    assert isinstance(far, Far)
    try:
        check_home(user)
    except TempFail as error:
        return told(Carried(failed(error, envelope.recipient)))
    site = replace(site, inflight=_Told(spare))
    whose = replace(user, address=address)
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


def told(carried: Carried) -> list[object]:
    """What became of a message, in words that `steward` understands."""
    done = carried.done
    status = [done.status.code, done.status.enhanced, done.status.text]
    relay = None if done.relay is None else _words(done.relay)
    return [
        "done", status, done.outcome, list(done.places), done.trouble,
        carried.rule, carried.where, relay,
    ]  # fmt: skip


def _words(relay: Relay) -> list[object]:
    return [relay.host, relay.answer, relay.dsn, list(relay.targets)]


def words_of(envelope: Envelope) -> dict[str, Any]:
    """An envelope as `_deliver` takes it."""
    return asdict(envelope)


class _Told:
    """Whether rules may run is not for us to know."""

    def __init__(self, spare: bool) -> None:
        self._spare = spare

    def noted(self, message: Message, envelope: Envelope) -> AbstractContextManager[bool]:
        return nullcontext(self._spare)


class _FarLog(logging.Handler):
    """The log is the worker's."""

    def __init__(self, frames: Frames) -> None:
        super().__init__()
        self._frames = frames

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.exc_info:
            text += "\n" + "".join(traceback.format_exception(*record.exc_info))
        with suppress(OSError):
            self._frames.send(["log", record.levelno, text[:MAX_RAW]])
            self._frames.receive()


class Far:
    """What is done by the worker: the site's store, its facts, actions that take its rights."""

    def __init__(self) -> None:
        self.frames: Frames | None = None

    def call(self, *words: object, raw: bytes = b"", files: tuple[int, ...] = ()) -> Any:
        """Have something done; what it returns. Raises what it raises, and OSError."""
        if self.frames is None:
            raise OSError("nobody is there to ask")
        self.frames.send(words, raw, files)
        return result(self.frames.receive().value)

    def fence(self) -> bool:
        """Is it not too late? Never raises."""
        try:
            return bool(self.call("fence"))
        except (OSError, MailError):  # nobody waits for it any more
            return False

    def fact(self, fact: Fact) -> Answer:
        """The answer to a fact about the message that is being delivered."""
        found = self.call("fact", fact.name, fact.arguments, fact.owner, fact.within)
        return None if found is None else list(found)

    def seen(self) -> None:
        """The message is known from now on."""
        self.call("seen")

    def get(self, key: str) -> str | None:
        """As of a Store."""
        found: str | None = self.call("get", key)
        return found

    def put(self, key: str, value: str, seconds: float | None = None) -> None:
        """As of a Store."""
        self.call("put", key, value, seconds)

    def add(self, key: str, value: str, seconds: float | None = None) -> bool:
        """As of a Store."""
        return bool(self.call("add", key, value, seconds))

    def prepare(self, job: Job, action: Action) -> Step:
        """An action that is carried out there. Raises TempFail, PermFail."""
        a, how, raw, file = action, "same", b"", -1
        edited = action.message
        if edited is not None and edited is not job.message:
            if edited.raw is job.message.raw:
                how, raw = "head", edited.head
            else:
                how, file = "whole", sealed_file(edited.under(edited.head))
        words = (
            a.verb, a.folder, a.text, sorted(a.flags), a.also, a.owner, a.rule, a.span or (),
            a.targets, a.options,
        )  # fmt: skip
        try:
            files = (file,) if file >= 0 else ()
            answer = self.call("prepare", job.ident, job.own, words, how, raw=raw, files=files)
        finally:
            if file >= 0:
                os.close(file)
        number, where = answer
        return Step(self, number, where)


class Step:
    """An action that waits at the worker's."""

    relay: Relay | None = None

    def __init__(self, far: Far, number: int, where: str) -> None:
        self.where = where
        self._far = far
        self._number = number

    def commit(self) -> None:
        """Have it carried out. Raises TempFail, PermFail."""
        try:
            self.where, relay = self._far.call("commit", self._number)
        except OSError as error:
            raise from_oserror(error) from error
        if relay is not None:
            host, answer, dsn, targets = relay
            self.relay = Relay(host, answer, dsn, tuple(targets))

    def abort(self) -> None:
        """Have it taken back."""
        with suppress(OSError, MailError):
            self._far.call("abort", self._number)
