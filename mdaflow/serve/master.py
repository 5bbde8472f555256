"""The master process: it binds the sockets, forks the workers, and keeps them running.

It has no threads and no event loop, and never touches mail. It may be root; the workers never
are. SIGTERM and SIGINT drain and end all, SIGHUP brings a new configuration: new workers
first, and only when they serve are the old ones drained. A worker that dies is replaced, one
that dies young after a pause. When the master is killed, the workers notice and drain.

Messages that a worker was at when it died get a strike (inflight.py). A worker whose event loop
does not move for `HANG` seconds is killed. The time is counted in looks of the master: when all
of us were stopped for a while, a paused machine for example, nobody has missed more than one.
At a look, one worker that has grown by more than `lmtp.memory` is replaced as at a reload.

Exit codes: 0, 78 (configuration), 70 (a worker cannot start for any other reason).
"""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..app import directory, mailspool, privileges, scanners
from ..app.config import Config
from ..app.inflight import described
from ..app.log import report
from ..errors import ConfigError
from . import descriptors, sockets, systemd, tls
from .forks import EX_CONFIG, Forks, MakeCourier, Setup, StartFailed, Worker, memory

if TYPE_CHECKING:  # only for accounts of this machine
    from .broker import Broker

log = logging.getLogger("mdaflow")

DRAIN = 30.0
"""Seconds that a worker may take to end (P12)."""
PAUSE = 1.0
"""A worker that lived shorter than this died young; the next one waits as long."""
HANG = 120.0
"""Seconds without a beat of its event loop, after which a worker is killed."""
BROKERS = 5.0
"""Seconds that a broker may take to end when nobody is left to ask it."""
LOOKS = 8
"""So often in this time the master looks."""

_SIGNALS = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD, signal.SIGALRM}


def serve(config: Config, make_courier: MakeCourier, reload: Callable[[], Config]) -> int:
    """Serve until SIGTERM; the exit code. `make_courier` is called in each worker, when it
    has dropped its rights; `reload` at SIGHUP, it may raise ConfigError."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    descriptors.raise_limit()
    forks = Forks(make_courier, mask)
    try:
        return _Master(_set_up(config, sockets.from_systemd(), forks), forks, reload).run()
    except ConfigError as error:
        report(error)
        return EX_CONFIG
    finally:
        forks.close()
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.sigtimedwait({signal.SIGALRM}, 0)  # the last one would end us
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


class _Master:
    def __init__(self, setup: Setup, forks: Forks, reload: Callable[[], Config]) -> None:
        self._setup = setup
        self._forks = forks
        self._reload = reload
        self._workers: dict[int, Worker] = {}
        """By process id; those that drain are no more here."""
        self._leaving: dict[int, Worker] = {}
        self._brokers: list[Broker] = []
        """Those that end when the last of their workers has."""
        self._next_look = 0.0
        self._not_before = 0.0
        self._stopping = False

    def run(self) -> int:
        try:
            self._forks.start_broker(self._setup)
            self._workers = self._forks.start(self._setup, self._setup.wanted, ())
        except StartFailed as error:
            log.error("%s", error)
            return error.code
        else:
            names = ", ".join(self._setup.listeners)
            passed = " (of systemd, instead of lmtp.listen)" if "systemd:" in names else ""
            log.info("serving on %s%s, %d workers", names, passed, len(self._workers))
            systemd.notify("READY=1")
            self._watch()
            return 0
        finally:
            sockets.close_all(self._setup.listeners, but={})
            self._end_brokers()

    def _watch(self) -> None:
        acts: dict[int, Callable[[], None]] = {
            signal.SIGTERM: self._stop,
            signal.SIGINT: self._stop,
            signal.SIGHUP: self._renew,
            signal.SIGCHLD: self._reap,
        }
        while self._workers or self._leaving or not self._stopping:
            # Not sigtimedwait: if we were stopped until its time was over, it would tell of any
            # signal (CPython fills the answer from what is on its stack).
            signal.setitimer(signal.ITIMER_REAL, self._patience())
            came = signal.sigwaitinfo(_SIGNALS).si_signo
            if came in acts:
                acts[came]()
            self._kill_overdue()
            self._look()
            self._refill()

    def _patience(self) -> float:
        """Seconds until there is something to do without a signal; more than none."""
        due = [self._next_look, *(leaving.until for leaving in self._leaving.values())]
        if self._missing:
            due.append(self._not_before)
        return max(min(due) - time.monotonic(), 0.001)

    # --- signals ---------------------------------------------------------------------------

    def _stop(self) -> None:
        if not self._stopping:
            self._stopping = True
            log.info("stopping")
            systemd.notify("STOPPING=1")
            sockets.close_all(self._setup.listeners, but={})
            self._setup = self._setup._replace(listeners={})
            self._drain(self._workers)
            self._workers = {}

    def _renew(self) -> None:
        """The new configuration, if it can be used, else the one we have (P51)."""
        if self._stopping:
            return
        systemd.notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
        try:
            self._take(self._reload())
            log.info("configuration reloaded")
        except ConfigError as error:
            report(error)
            log.error("the new configuration is not used")
        except (StartFailed, OSError) as error:
            log.error("the new configuration is not used: %s", error)
        except Exception:
            log.exception("the new configuration is not used")
        systemd.notify("READY=1")

    def _take(self, config: Config) -> None:
        had = self._setup.listeners
        setup = _set_up(config, had, self._forks)
        unwanted = self._setup.sockets - setup.sockets
        try:
            self._forks.start_broker(setup)
            workers = self._forks.start(setup, setup.wanted, self._workers.values(), unwanted)
        except BaseException:
            sockets.close_all(setup.listeners, but=had)
            self._leave_broker(setup)
            raise
        old, self._workers = self._workers, workers
        sockets.close_all(had, but=setup.listeners)
        self._leave_broker(self._setup)
        self._setup = setup
        self._drain(old)

    def _reap(self) -> None:
        self._brokers = [broker for broker in self._brokers if broker.ended() is None]
        broker = self._setup.broker
        code = None if broker is None or self._stopping else broker.ended()
        if broker is not None and code is not None:
            log.error("the broker ended with %d, it is replaced", code)
            self._not_before = _again_at(broker.born)
        for pid in (*self._workers, *self._leaving):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                self._mourn(pid, os.waitstatus_to_exitcode(status))

    def _mourn(self, pid: int, code: int) -> None:
        serving = pid in self._workers
        dead = (self._workers if serving else self._leaving).pop(pid)
        marks = dead.inflight.marks if code else {}  # who drains may leave a slow thread behind
        self._forks.strikes.add(marks)
        if marks:
            log.error("worker %d was at %s when it died", pid, described(marks))
        if serving:
            log.error("worker %d ended with %d, it is replaced", pid, code)
            self._not_before = _again_at(dead.born)

    # --- workers ---------------------------------------------------------------------------

    def _drain(self, workers: dict[int, Worker]) -> None:
        for pid, leaving in workers.items():
            os.kill(pid, signal.SIGTERM)
            leaving.until = time.monotonic() + DRAIN
            self._leaving[pid] = leaving

    def _kill_overdue(self) -> None:
        # It ends by itself, whatever its threads are at. What holds all of it may be a message,
        # which gets its strike as with any other death.
        for pid, leaving in self._leaving.items():
            if time.monotonic() >= leaving.until:
                log.error("worker %d does not end, it is killed", pid)
                os.kill(pid, signal.SIGKILL)
                leaving.until += DRAIN

    def _look(self) -> None:
        """Kill whoever hangs. It is replaced when it has ended, so that there are no more of
        them. Who has grown too much is replaced before it ends."""
        now = time.monotonic()
        if now < self._next_look:
            return
        self._next_look = now + HANG / LOOKS
        for pid, watched in self._workers.items():
            beats = watched.inflight.beats
            watched.missed = watched.missed + 1 if beats == watched.beats else 0
            watched.beats = beats
            if watched.missed >= LOOKS:
                log.error("worker %d has not moved for %.0f seconds, it is killed", pid, HANG)
                os.kill(pid, signal.SIGKILL)
                watched.missed = 0
        self._relieve()

    def _relieve(self) -> None:
        """A successor for the worker that has grown most, if that is too much: caches of rules,
        and memory that malloc(3) does not give back, are gone with a process only."""
        grown = {pid: memory(pid) - worker.size for pid, worker in self._workers.items()}
        pid = max(grown, key=grown.__getitem__, default=0)
        if not pid or grown[pid] <= self._setup.config.lmtp.memory:
            return
        others = [worker for other, worker in self._workers.items() if other != pid]
        try:
            self._workers |= self._forks.start(self._setup, 1, others)
        except (StartFailed, OSError) as error:
            log.error("no new worker: %s", error)
            return
        log.warning("worker %d has grown by %d MiB, it is replaced", pid, grown[pid] >> 20)
        self._drain({pid: self._workers.pop(pid)})

    @property
    def _missing(self) -> bool:
        lacking = self._without_broker or len(self._workers) < self._setup.wanted
        return not self._stopping and lacking

    @property
    def _without_broker(self) -> bool:
        return self._setup.broker is not None and not self._setup.broker.running

    def _refill(self) -> None:
        # One by one: those that serve already do not go when the next one fails.
        try:
            while self._missing and time.monotonic() >= self._not_before:
                if self._without_broker:
                    self._forks.start_broker(self._setup)
                else:
                    self._workers |= self._forks.start(self._setup, 1, self._workers.values())
        except (StartFailed, OSError) as error:
            log.error("no new process: %s", error)
            self._not_before = time.monotonic() + PAUSE

    # --- the broker ------------------------------------------------------------------------

    def _leave_broker(self, setup: Setup) -> None:
        """It ends when the last of its workers has."""
        if setup.broker is not None:
            setup.broker.leave()
            self._brokers.append(setup.broker)

    def _end_brokers(self) -> None:
        """Wait for those that are left: no worker is."""
        self._leave_broker(self._setup)
        until = time.monotonic() + BROKERS
        while time.monotonic() < until and any(broker.running for broker in self._brokers):
            time.sleep(0.01)
        for broker in self._brokers:
            broker.kill()


def _again_at(born: float) -> float:
    """When the successor of a process may be made: not at once if that died young."""
    now = time.monotonic()
    return now + PAUSE if now - born < PAUSE else now


def _set_up(config: Config, had: sockets.Listeners, forks: Forks) -> Setup:
    """All that workers need besides their own rights. Raises ConfigError, OSError."""
    config = descriptors.fitted(config)
    privileges.check(config)
    sockets.uids(config.lmtp)
    context = tls.context(config.lmtp)
    if config.has_accounts:
        mailspool.check(config)
    directory.check(config)
    scanners.check(config)
    passed = {name: group for name, group in had.items() if name.startswith("systemd:")}
    setup = Setup(config, passed or sockets.open_all(config.lmtp, had), context)
    if not (config.has_accounts or (config.has_uids and os.geteuid() == 0)):
        return setup
    from .broker import Broker

    return setup._replace(broker=Broker(config, setup.wanted, forks.mask))
