"""The processes of the workers: born all or none, and known to serve before they count.

A worker is forked from the master, drops its rights, and serves what the master has bound. It
holds the reading end of a pipe that ends when the master does, however that happens. Exit codes:
0, 78 (configuration), 70 (anything else).
"""

from __future__ import annotations

import logging
import math
import os
import resource
import select
import signal
import socket
import ssl
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from ..app import privileges
from ..app.config import Config
from ..app.inflight import InFlight, Strikes
from ..app.log import report
from ..errors import ConfigError
from . import slots, sockets, worker
from .courier import Courier

if TYPE_CHECKING:  # only for accounts of this machine
    from ..app.identities import Identities
    from .broker import Broker

log = logging.getLogger("mdaflow")

EX_SOFTWARE = 70
EX_CONFIG = 78
START = 30.0
"""Seconds that workers who are started together may take to begin."""
GLANCE = 0.1
"""Seconds between two glances at whether we shall stop, while they do."""

MakeCourier = Callable[[Config, InFlight, "Identities | None"], Courier]


class StartFailed(Exception):
    """There are no new workers: why, and the exit code when this was the first start."""

    def __init__(self, why: str, code: int = EX_SOFTWARE) -> None:
        super().__init__(why)
        self.code = code


class Setup(NamedTuple):
    """What workers are made from."""

    config: Config
    listeners: sockets.Listeners
    tls: ssl.SSLContext | None
    broker: Broker | None = None
    """Makes processes that are users; None when no account of this machine has mail here."""

    @property
    def sockets(self) -> set[socket.socket]:
        """All that a worker has no use for when it is made from something else."""
        found = {listener.socket for listener in sockets.flat(self.listeners)}
        return found | (self.broker.sockets if self.broker is not None else set())

    @property
    def wanted(self) -> int:
        """How many workers there should be."""
        return self.config.lmtp.workers or len(os.sched_getaffinity(0))


@dataclass(slots=True, eq=False)
class Worker:
    """A process that serves, and what the master knows of it. Times are monotonic."""

    core: int | None
    """The core that it is bound to."""
    inflight: InFlight
    born: float = 0.0
    """When it began to serve."""
    size: int = 0
    """Bytes of its memory then."""
    beats: int = 0
    """Of its event loop, at our last look."""
    missed: int = 0
    """Looks since these have changed."""
    until: float = math.inf
    """When patience with its end ends."""


class Forks:
    """Makes workers. `mask` are the signals that the master blocked before it blocked its own."""

    def __init__(self, make_courier: MakeCourier, mask: Iterable[int]) -> None:
        """Raises OSError."""
        self.strikes = Strikes()
        self._make_courier = make_courier
        self.mask = mask
        self._slots = slots.open_file()
        self._life, self._our_life = os.pipe()

    def close(self) -> None:
        """No more workers; those that there are notice."""
        for fd in (self._slots, self._life, self._our_life):
            os.close(fd)

    def start(
        self,
        setup: Setup,
        count: int,
        others: Collection[Worker],
        unwanted: Collection[socket.socket] = (),
    ) -> dict[int, Worker]:
        """Workers that serve, all or none, by process id, beside `others`. They do not keep what
        is `unwanted`. Raises StartFailed, OSError."""
        born: dict[int, int] = {}
        workers: dict[int, Worker] = {}
        try:
            for _ in range(count):
                core = _free_core(setup, [*others, *workers.values()])
                made = Worker(core, InFlight(setup.config.lmtp.threads, self.strikes))
                pid, ready = self._fork(setup, made, unwanted)
                born[pid] = ready
                workers[pid] = made
            _wait_for(born)
        except BaseException:
            for pid in tuple(born):
                _end(pid, born)
            raise
        for pid, ready in born.items():
            os.close(ready)
            workers[pid].born = time.monotonic()
            workers[pid].size = memory(pid)
        return workers

    def start_broker(self, setup: Setup) -> None:
        """Start the broker of a setup that has one, ready for work. Raises StartFailed, OSError."""
        if setup.broker is None:
            return
        ready = setup.broker.start()
        try:
            if not os.read(next(_ready([ready], "broker")), 1):
                code = setup.broker.kill()
                raise StartFailed(f"the broker ended with {code} before it was ready", code)
        finally:
            os.close(ready)

    def _fork(
        self, setup: Setup, made: Worker, unwanted: Collection[socket.socket]
    ) -> tuple[int, int]:
        """The process id, and a descriptor that gets a byte when the worker serves."""
        reading, writing = os.pipe()
        try:
            pid = os.fork()
        except OSError:
            os.close(reading)
            os.close(writing)
            raise
        if pid == 0:
            try:
                for sock in unwanted:
                    sock.close()  # the file is the master's
                os._exit(self._live(setup, made, writing))
            finally:
                os._exit(EX_SOFTWARE)
        os.close(writing)
        return pid, reading

    def _live(self, setup: Setup, made: Worker, ready: int) -> int:
        """Be a worker, to the end; the exit code. Nothing may leave this function."""
        try:
            os.close(self._our_life)
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
            signal.pthread_sigmask(signal.SIG_SETMASK, self.mask)
            if made.core is not None:
                with suppress(OSError):  # it is only faster; systemd's filters may refuse
                    os.sched_setaffinity(0, {made.core})
            privileges.drop(setup.config)
            os.umask(0o077)
            courier = self._make_courier(setup.config, made.inflight, _identities(setup))
            listening = [listener.socket for listener in sockets.flat(setup.listeners)]
            tell, beat = partial(_tell, ready), made.inflight.beat
            ties = worker.Ties(self._life, tell, beat, self._slots, setup.tls)
            worker.run(listening, setup.config, courier, ties)
            return 0
        except ConfigError as error:
            report(error)
            return EX_CONFIG
        except BaseException:
            log.exception("worker failed")
            return EX_SOFTWARE
        finally:
            logging.shutdown()
            sys.stdout.flush()
            sys.stderr.flush()


def _identities(setup: Setup) -> Identities | None:
    if setup.broker is None:
        return None
    from ..app.identities import Identities

    return Identities(setup.broker.of_worker())


def memory(pid: int) -> int:
    """Bytes that a process has for itself, mapped files not counted; 0 when nobody can tell."""
    try:
        with open(f"/proc/{pid}/statm", encoding="ascii") as file:
            _, resident, shared, *_ = map(int, file.read().split())
    except OSError:
        return 0
    return (resident - shared) * resource.getpagesize()


def _tell(ready: int) -> None:
    os.write(ready, b"!")
    os.close(ready)


def _wait_for(born: dict[int, int]) -> None:
    """Wait for the byte of each new worker. A signal that stops us is pending all that time: it
    ends the waiting, and is left to whoever waits for signals. Raises StartFailed."""
    waiting = {ready: pid for pid, ready in born.items()}
    for ready in _ready(waiting, "workers"):
        if not os.read(ready, 1):
            code = _end(waiting[ready], born)
            raise StartFailed(f"a worker ended with {code} before it served", code)


def _ready(waiting: Collection[int], who: str) -> Iterator[int]:
    """Those of some descriptors that can be read, each when it can. Raises StartFailed."""
    poll, left = select.poll(), len(waiting)  # descriptors may be more than select(2) knows
    for ready in waiting:
        poll.register(ready, select.POLLIN)
    end = time.monotonic() + START
    while left:
        if signal.sigpending() & {signal.SIGTERM, signal.SIGINT}:
            raise StartFailed(f"told to stop before the {who} served")
        if time.monotonic() >= end:
            raise StartFailed(f"{left} {who} did not serve after {START:.0f} seconds")
        for ready, _ in poll.poll(GLANCE * 1000):
            poll.unregister(ready)
            left -= 1
            yield ready


def _end(pid: int, born: dict[int, int]) -> int:
    """Strike a worker that serves nobody yet off the list; its exit code."""
    os.close(born.pop(pid))
    os.kill(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _free_core(setup: Setup, others: Iterable[Worker]) -> int | None:
    """The core for one more worker, when each can have its own.

    The threads of a process run one at a time (the interpreter's lock). Spread over two cores
    they wait for each other across them: bound to one, the same work goes a third faster.
    """
    cores = sorted(os.sched_getaffinity(0))
    taken = [other.core for other in others]
    return min(cores, key=taken.count) if setup.wanted <= len(cores) else None
