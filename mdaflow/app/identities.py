"""The processes that deliver as the accounts of this machine, as a worker knows them.

There is one for each delivery that runs, and some of those that have ended are kept for a moment:
much mail comes for one user at a time. A new one is made by the broker (serve/broker.py), which is
sent one end of a conversation and the login that shall be at it. What is said is in steward.py.

When a message has killed the process twice before anything was delivered, no rule of the user is
run on it any more; but those of the site are: users can kill processes that are theirs. A process
that is silent until the deadline is killed; sooner, where others wait behind it. Known limit: one
that is past its fence may be at a program of its user, and has the time for that.

An account has few processes at once: mail comes to it by its address and by any number of lists,
and all that hang shall not have all threads. What finds no turn soon is put off.
"""

from __future__ import annotations

import itertools
import json
import logging
import math
import os
import socket
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

from mdaflow.errors import INTERNAL, NO_ANSWER, TOO_SLOW, TempFail
from mdaflow.mail.envelope import Envelope
from mdaflow.mail.message import Message
from mdaflow.route.users import User

from .build import Site
from .carry import Carried
from .far import words_of
from .frames import MAX_RAW, Frames, result, sealed_file
from .inflight import TWO
from .steward import Steward, hear

log = logging.getLogger("mdaflow")

WARM = 16
"""Processes of a worker that wait for more to do."""
START = 20.0
"""Seconds in which a process has to be ready: the name service may be slow."""
PATIENCE = 60.0
"""Seconds in which the other side has to take what we say."""
AT_ONCE = 4
"""Deliveries of a worker at once to one account."""
TURN = 1.0
"""Seconds in which one of them has to end, so that another may begin: most take some ms."""
ROOM = 2.0
"""Seconds in which it has to say whether there is room for mail."""


class _Process:
    """One process that is an account."""

    def __init__(self, user: User, frames: Frames, name: str) -> None:
        self.user = user
        """Without the address, which each message brings."""
        self.frames = frames
        self.name = name
        """What the broker knows it by: a pid may soon be another's."""


class Identities:
    """The processes of one worker. `requests` leads to the broker."""

    def __init__(self, requests: socket.socket) -> None:
        requests.settimeout(START)
        self._requests = requests
        self._warm: OrderedDict[str, _Process] = OrderedDict()
        """By name; who was used last is last."""
        self._count = itertools.count()
        self._lock = threading.Lock()
        self._turns = _Turns()

    def carry_out(
        self,
        site: Site,
        message: Message,
        envelope: Envelope,
        user: User,
        ident: str,
        fence: Callable[[], bool],
        patience: float = math.inf,
    ) -> Carried:
        """As `carry.carry_out`, by a process that is the user. Raises MailError: NO_ANSWER when it
        is not done, or at its fence, within so many seconds of `patience`, or has no turn."""
        with self._turns.of(user):
            return self._carry_out(site, message, envelope, user, ident, fence, patience)

    def _carry_out(
        self,
        site: Site,
        message: Message,
        envelope: Envelope,
        user: User,
        ident: str,
        fence: Callable[[], bool],
        patience: float,
    ) -> Carried:
        until = time.monotonic() + patience
        deaths = 0
        while True:
            process, fresh = self._process(user, min(START, _left(until)), fresh=deaths > 0)
            steward = Steward(site, process.frames, message, envelope, user, fence, until)
            try:
                process.frames.socket.settimeout(min(PATIENCE, _left(until)))
                words = words_of(envelope), user.address, ident, deaths >= TWO
                with _sendable(message) as (raw, files):
                    process.frames.send(["deliver", *words], raw, files)
                carried = steward.attend()
            except TimeoutError as error:
                self._kill(process)
                status = TOO_SLOW if patience == math.inf else NO_ANSWER
                raise TempFail(status, f"the process of {user.address} hangs") from error
            except OSError as error:
                self._kill(process)
                if steward.passed or deaths >= TWO:
                    why = f"the process of {user.address} has ended: {error}"
                    raise TempFail(INTERNAL, why) from error
                deaths += fresh
            except BaseException:  # it may still be at it
                self._kill(process)
                raise
            else:
                self._keep(process)
                return carried

    def check_room(self, site: Site, user: User) -> None:
        """Raise TempFail or PermFail when a quota of the user leaves no room.

        Who is silent has room: others wait behind this, and the delivery will see.
        """
        try:
            answer = self._ask(user, ROOM, ["room"])
        except TempFail as error:
            log.warning("<%s>: nobody says what room there is: %s", user.address, error)
        else:
            result(answer)

    def store_letter(self, user: User, letter: bytes) -> None:
        """As `notices.store_letter`, by a process that is the user. Raises TempFail."""
        with self._turns.of(user):
            result(self._ask(user, PATIENCE, ["letter", user.address], letter))

    def close(self) -> None:
        """Be done with all of them."""
        with self._lock:
            while self._warm:
                self._warm.popitem()[1].frames.close()

    def _ask(self, user: User, seconds: float, words: list[str], raw: bytes = b"") -> object:
        """What a process that is the user answers, in so many seconds. Raises TempFail."""
        process, _ = self._process(user, seconds)
        try:
            process.frames.socket.settimeout(seconds)
            process.frames.send(words, raw)
            answer = hear(process.frames, user, time.monotonic() + seconds)
        except OSError as error:
            self._kill(process)
            raise TempFail(INTERNAL, str(error)) from error
        self._keep(process)
        return answer.value

    # --- processes -------------------------------------------------------------------------

    def _process(
        self, user: User, seconds: float = START, *, fresh: bool = False
    ) -> tuple[_Process, bool]:
        """A process that is this user, for us alone; and whether it is a new one, which has so many
        seconds to be ready. Raises TempFail."""
        whose = replace(user, address="")  # one that knows another home or quota is no good
        while not fresh:
            with self._lock:
                found = next((p for p in reversed(self._warm.values()) if p.user == whose), None)
                if found is None:
                    break
                del self._warm[found.name]
            if not found.frames.gone:
                return found, False
            self._kill(found)
        return self._new(whose, seconds), True

    def _new(self, user: User, seconds: float) -> _Process:
        assert user.account is not None
        login = user.account.name
        ours, theirs = socket.socketpair()
        process = _Process(user, Frames(ours), f"{os.getpid()}.{next(self._count)}")
        try:
            with theirs:
                words = json.dumps(["fork", process.name, login, user.source]).encode()
                socket.send_fds(self._requests, [words], [theirs.fileno()])
            result(process.frames.receive(seconds).value)
        except OSError as error:
            self._kill(process)
            status = NO_ANSWER if isinstance(error, TimeoutError) else INTERNAL
            raise TempFail(status, f"no process for {login}: {error}") from error
        except BaseException:
            self._kill(process)
            raise
        return process

    def _keep(self, process: _Process) -> None:
        """It may be used again; others have to go, if there are too many."""
        with self._lock:
            self._warm[process.name] = process
            gone = [self._warm.popitem(last=False)[1] for _ in range(len(self._warm) - WARM)]
        for old in gone:
            self._kill(old)  # its user may have stopped it, so that it would stay

    def _kill(self, process: _Process) -> None:
        process.frames.close()
        with suppress(OSError):
            self._requests.send(json.dumps(["kill", process.name]).encode())


class _Turns:
    """Who delivers to which account, of the threads of a worker."""

    def __init__(self) -> None:
        self._running: Counter[str] = Counter()
        self._ended = threading.Condition()

    @contextmanager
    def of(self, user: User) -> Iterator[None]:
        """Open while a delivery to the account runs. Raises TempFail when it has too many."""
        assert user.account is not None
        whose, running = user.account.name, self._running
        with self._ended:
            if not self._ended.wait_for(lambda: running[whose] < AT_ONCE, TURN):
                raise TempFail(NO_ANSWER, f"{AT_ONCE} deliveries to {whose} do not end")
            running[whose] += 1
        try:
            yield
        finally:
            with self._ended:
                running[whose] -= 1
                if not running[whose]:
                    del running[whose]
                self._ended.notify_all()


def _left(until: float) -> float:
    """Seconds until then, more than none: a socket that has none does not wait at all."""
    return max(until - time.monotonic(), 0.001)


@contextmanager
def _sendable(message: Message) -> Iterator[tuple[bytes, tuple[int, ...]]]:
    """A message as it can be sent: its bytes, or a file with them."""
    raw = message.raw
    if hasattr(raw, "fileno"):  # the file in which it waits
        yield b"", (raw.fileno(),)
    elif len(raw) <= MAX_RAW:
        yield bytes(raw), ()
    else:
        file = sealed_file([memoryview(raw)])
        try:
            yield b"", (file,)
        finally:
            os.close(file)
