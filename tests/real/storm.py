"""A storm: numbered messages from many clients at once, and what must be true afterwards.

A seed and a number say what a message is, so what is stored is compared with what was sent, byte
for byte, without a copy. A client sends a message until somebody has taken it, as an MTA does.
What comes twice must be explained: a peer has to have lost a connection after the final dot.
"""

from __future__ import annotations

import math
import os
import random
import re
import signal
import smtplib
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import mailboxes
from children import PATIENCE
from letters import numbered
from mdaflow_server import MAILDIRS, Mdaflow, User
from postfix import Postfix

SHORTEST, LONGEST = 200, 20_000
"""Bytes of a message."""
ODD = """\
rule "Odd" when header "X-Number" matches /[13579]$/ { deliver to "Odd" }
"""
"""Rules of the users: half of the mail goes to a folder."""
WORKERS = 4
FASTEST, SLOWEST = 0.05, 0.4
"""Seconds between two kills."""
CYCLE = 0.1, 1.2
"""Seconds from the start of a server to its end."""
ALONE = 0.2
"""How likely a worker is killed when no other is there: then nothing happens for a second."""

_NUMBER = re.compile(rb"^X-Number: (\d+)$", re.M)
_ID = re.compile(r": (\w+): message-id=<(\d+)\.\d+@storm\.example>")
_DOUBTFUL = re.compile(r": (\w+): to=<.* message may be sent more than once\)")
_OF_PROCESS = re.compile(r"\d+\.M\d+P(\d+)Q")

Note = Callable[[str, int], None]
Connect = Callable[[], smtplib.SMTP]


class Mails(NamedTuple):
    """Messages to some users, of a sender who gets the bounces."""

    seed: int
    users: list[User]
    sender: User

    def user(self, number: int) -> User:
        """Whom a message is for."""
        return self.users[number % len(self.users)]

    def moved(self, before: Path, after: Path) -> Mails:
        """The same, where a folder with all of the users has another name."""
        users = [u._replace(home=after / u.home.relative_to(before)) for u in self.users]
        return self._replace(users=users)

    def raw(self, number: int) -> bytes:
        """A message, with CRLF line ends."""
        return numbered(number, self.seed, self.user(number).address, SHORTEST, LONGEST)


def new_mails(mdaflow: Mdaflow, seed: int, domains: Iterable[str] = (MAILDIRS,) * 4) -> Mails:
    """Mails for a new user in each of these domains."""
    users = [mdaflow.user(ODD, domain=domain) for domain in domains]
    return Mails(seed, users, mdaflow.user())


def in_the_storm(root: Path) -> tuple[Mdaflow, Postfix]:
    """An mdaflow behind a Postfix, not started. Postfix goes on when some deliveries fail, and
    names each message but once."""
    (root / "postfix").mkdir()
    postfix = Postfix(
        root / "postfix",
        "virtual_transport",
        enable_long_queue_ids="yes",
        lmtp_destination_concurrency_failed_cohort_limit="0",
    )
    return Mdaflow(root, postfix.socket, WORKERS), postfix


# --- clients -----------------------------------------------------------------------------------


class Clients:
    """Sessions that send messages, each until it is taken. `note` is told "sent" before each
    attempt, and "taken" after the reply."""

    def __init__(self, mails: Mails, connect: Connect, note: Note = lambda word, number: None):
        self.taken = 0
        self._mails, self._connect, self._note = mails, connect, note
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._given_up = threading.Event()
        self._sessions: list[Future[None]] = []

    @contextmanager
    def sending(self, numbers: Iterable[int], sessions: int) -> Iterator[None]:
        """Send these in the background. At the end of the block nothing new is begun, and what is
        begun is sent, unless the block failed; raises what went wrong."""
        waiting = iter(numbers)
        with ThreadPoolExecutor(sessions) as pool:
            self._sessions = [pool.submit(self._session, waiting) for _ in range(sessions)]
            try:
                yield
            except BaseException:
                self._given_up.set()
                raise
            finally:
                self._stopped.set()
        for session in self._sessions:
            session.result()

    @property
    def done(self) -> bool:
        """All is sent."""
        return all(session.done() for session in self._sessions)

    def _session(self, waiting: Iterator[int]) -> None:
        smtp: smtplib.SMTP | None = None
        while (number := self._next(waiting)) is not None:
            smtp = self._send(smtp, number)
            with self._lock:
                self.taken += 1
        if smtp is not None:
            with suppress(OSError, smtplib.SMTPException):
                smtp.quit()

    def _next(self, waiting: Iterator[int]) -> int | None:
        with self._lock:
            return None if self._stopped.is_set() else next(waiting, None)

    def _send(self, smtp: smtplib.SMTP | None, number: int) -> smtplib.SMTP:
        """Send a message until it is taken; the connection for the next."""
        to, raw = self._mails.user(number).address, self._mails.raw(number)
        end = time.monotonic() + PATIENCE
        while True:
            try:
                smtp = smtp or self._connect()
                self._note("sent", number)
                smtp.sendmail(self._mails.sender.address, to, raw)
                self._note("taken", number)
                return smtp
            except (OSError, smtplib.SMTPException) as error:  # the server is killed, or drains
                why = repr(error)
            if smtp is not None:
                smtp.close()
                smtp = None
            assert time.monotonic() < end, f"message {number} is not taken: {why}"
            assert not self._given_up.is_set()
            time.sleep(0.02)


def by_smtp(port: int) -> Connect:
    """Connects to an MTA of this machine."""
    return lambda: smtplib.SMTP("127.0.0.1", port, "client.example", timeout=PATIENCE)


def by_lmtp(path: Path) -> Connect:
    """Connects to a server at a unix socket."""

    def connect() -> smtplib.LMTP:
        lmtp = smtplib.LMTP(os.fspath(path), local_hostname="client.example", timeout=PATIENCE)
        lmtp.ehlo_or_helo_if_needed()
        return lmtp

    return connect


# --- kills -------------------------------------------------------------------------------------


def kill_workers(
    mdaflow: Mdaflow, dice: random.Random, go_on: Callable[[], object], most: float = math.inf
) -> int:
    """Kill one worker after the other, at random, for as long as `go_on` says, but at `most` so
    many; how many were killed."""
    killed = 0
    while go_on():
        time.sleep(dice.uniform(FASTEST, SLOWEST))
        workers = mdaflow.workers()
        if killed < most and (len(workers) > 1 or (workers and dice.random() < ALONE)):
            with suppress(ProcessLookupError):  # it is gone already
                os.kill(dice.choice(workers), signal.SIGKILL)
                killed += 1
    return killed


def cycles(
    mdaflow: Mdaflow, dice: random.Random, count: int, end: Callable[[Mdaflow], None]
) -> Iterator[int]:
    """Start a server, and `end` it after a while, so often; the number of each cycle. Then start
    it for what was begun."""
    for number in range(1, count + 1):
        mdaflow.start()
        time.sleep(dice.uniform(*CYCLE))
        end(mdaflow)
        yield number
    mdaflow.start()


# --- what is there afterwards ------------------------------------------------------------------


class Found(NamedTuple):
    """What is in the mailboxes."""

    copies: Counter[int]
    """Of each message that is there as it was sent."""
    broken: list[str]
    """Messages that nobody sent, or that are somebody else's, or not whole."""
    torn: list[str]
    """The last of an mbox, if it is not whole: whoever was to have it gets it again."""
    leftovers: list[Path]
    """What lies in `tmp/`."""

    @property
    def doubled(self) -> Counter[int]:
        """How often each message is there once more."""
        return self.copies - Counter(self.copies.keys())

    def lost(self, numbers: Iterable[int]) -> set[int]:
        """Which of these are not there."""
        return set(numbers) - self.copies.keys()

    @property
    def writers(self) -> set[int]:
        """The processes whose files lie in `tmp/`."""
        matches = [_OF_PROCESS.match(path.name) for path in self.leftovers]
        return {int(match[1]) if match else 0 for match in matches}


_TWICE = re.compile(rb"this\s+message\s+has\s+stopped\s+mdaflow\s+twice")


def look(mails: Mails) -> Found:
    """Read all mailboxes, and compare what is there with what was sent."""
    found = Found(Counter(), [], [], [])
    for user in mails.users:
        found.leftovers.extend(mailboxes.leftovers(user.home))
        for folder in mailboxes.folders(user.home):
            for mail in folder:
                number = _which(mails, user, mail)
                if number is not None:
                    found.copies[number] += 1
                elif not _TWICE.search(mail.raw):  # what users are told where two workers died
                    torn = mail is folder[-1] and mail.in_mbox
                    (found.torn if torn else found.broken).append(mail.place)
    return found


def stored(mails: Mails) -> int:
    """How many messages are in the mailboxes."""
    return sum(len(user.files()) + len(user.files(".Odd")) for user in mails.users)


def _which(mails: Mails, user: User, mail: mailboxes.Mail) -> int | None:
    """The number of a message that is there as it was sent: below what was added, whole."""
    match = _NUMBER.search(mail.raw)
    if match is None:
        return None
    number = int(match[1])
    whole = mail.raw[match.start() :] == mails.raw(number).replace(b"\r\n", b"\n")
    return number if whole and mail.named and user == mails.user(number) else None


def refusals(mdaflow: Mdaflow, mails: Mails, postfix: Postfix | None = None) -> list[str]:
    """Whatever says that mail was not delivered: bounces, lines of logs."""
    found = [path.read_text() for path in mails.sender.files()]
    if postfix is not None:
        lines = postfix.log.read_text().splitlines()
        found += [line for line in lines if "status=bounced" in line]
    entries = mdaflow.entries(*(user.address for user in mails.users))
    return found + [str(e) for e in entries if e["status"] not in ("delivered", "deferred")]


def sent_in_doubt(log: str) -> Counter[int]:
    """How often Postfix did not learn whether a message had been taken, by its log."""
    numbers = {queue_id: int(number) for queue_id, number in _ID.findall(log)}
    return Counter(numbers[queue_id] for queue_id in _DOUBTFUL.findall(log))
