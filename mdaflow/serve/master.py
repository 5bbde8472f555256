"""The master process: it binds the sockets, forks the workers, and keeps them running.

It has no threads and no event loop, and never touches mail. It may be root; the workers never
are. SIGTERM and SIGINT drain and end all, SIGHUP brings a new configuration: new workers
first, and only when they serve are the old ones drained. A worker that dies is replaced, one
that dies young after a pause. When the master is killed, the workers notice and drain.

Exit codes: 0, 78 (configuration), 70 (a worker cannot start for any other reason).
"""

from __future__ import annotations

import logging
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterable

from ..app import privileges
from ..app.config import Config
from ..errors import ConfigError
from . import sockets, worker
from .courier import Courier

log = logging.getLogger("mdaflow")

EX_SOFTWARE = 70
EX_CONFIG = 78
DRAIN = 30.0
"""Seconds that a worker may take to end (P12)."""
START = 30.0
"""Seconds that a worker may take to begin."""
PAUSE = 1.0
"""A worker that lived shorter than this died young; the next one waits as long."""

MakeCourier = Callable[[Config], Courier]
_SIGNALS = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD}


def serve(config: Config, make_courier: MakeCourier, reload: Callable[[], Config]) -> int:
    """Serve until SIGTERM; the exit code. `make_courier` is called in each worker, when it
    has dropped its rights; `reload` at SIGHUP, it may raise ConfigError."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        return _Master(config, make_courier, reload, mask).run()
    except ConfigError as error:
        _report(error)
        return EX_CONFIG
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


class _StartFailed(Exception):
    """A new worker ended before it served; its exit code."""

    def __init__(self, code: int) -> None:
        super().__init__(f"a worker ended with {code} before it served")
        self.code = code


class _Master:
    def __init__(
        self,
        config: Config,
        make_courier: MakeCourier,
        reload: Callable[[], Config],
        mask: Iterable[int],
    ) -> None:
        self._config = config
        self._make_courier = make_courier
        self._reload = reload
        self._mask = mask
        self._passed = sockets.from_systemd()
        self._listeners: sockets.Listeners = {}
        self._workers: dict[int, float] = {}
        """Process id and time of birth."""
        self._leaving: dict[int, float] = {}
        """Process id, and when patience ends."""
        self._cores: dict[int, int | None] = {}
        """Process id, and the core that it is bound to."""
        self._not_before = 0.0
        self._stopping = False
        # Workers hold the reading end: it ends when we do, however that happens.
        self._life, self._our_life = os.pipe()

    def run(self) -> int:
        privileges.check(self._config.user)
        self._listeners = self._open(self._config)
        try:
            self._workers = self._start(self._config, _count(self._config), self._listeners)
        except _StartFailed as error:
            return error.code
        else:
            log.info("serving on %s, %d workers", ", ".join(self._listeners), len(self._workers))
            _notify("READY=1")
            self._watch()
            return 0
        finally:
            sockets.close_all(self._listeners, but={})
            os.close(self._life)
            os.close(self._our_life)

    def _watch(self) -> None:
        acts: dict[int, Callable[[], None]] = {
            signal.SIGTERM: self._stop,
            signal.SIGINT: self._stop,
            signal.SIGHUP: self._renew,
            signal.SIGCHLD: self._reap,
        }
        while self._workers or self._leaving or not self._stopping:
            came = signal.sigtimedwait(_SIGNALS, self._patience())
            if came is not None:
                acts[came.si_signo]()
            self._kill_overdue()
            self._refill()

    def _patience(self) -> float:
        """Seconds until there is something to do without a signal."""
        due = list(self._leaving.values())
        if len(self._workers) < _count(self._config) and not self._stopping:
            due.append(self._not_before)
        return max(min(due, default=time.monotonic() + 60) - time.monotonic(), 0.0)

    # --- signals ---------------------------------------------------------------------------

    def _stop(self) -> None:
        if not self._stopping:
            self._stopping = True
            log.info("stopping")
            _notify("STOPPING=1")
            sockets.close_all(self._listeners, but={})
            self._listeners = {}
            self._drain(self._workers)
            self._workers = {}

    def _renew(self) -> None:
        """The new configuration, if it can be used, else the one we have (P51)."""
        if self._stopping:
            return
        _notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
        try:
            self._take(self._reload())
            log.info("configuration reloaded")
        except ConfigError as error:
            _report(error)
            log.error("the new configuration is not used")
        except (_StartFailed, OSError) as error:
            log.error("the new configuration is not used: %s", error)
        except Exception:
            log.exception("the new configuration is not used")
        _notify("READY=1")

    def _take(self, config: Config) -> None:
        privileges.check(config.user)
        listeners = self._open(config)
        try:
            workers = self._start(config, _count(config), listeners)
        except BaseException:
            sockets.close_all(listeners, but=self._listeners)
            raise
        old, self._workers = self._workers, workers
        sockets.close_all(self._listeners, but=listeners)
        self._listeners = listeners
        self._config = config
        self._drain(old)

    def _reap(self) -> None:
        for pid in (*self._workers, *self._leaving):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                self._leaving.pop(pid, None)
                self._mourn(pid, os.waitstatus_to_exitcode(status))

    def _mourn(self, pid: int, code: int) -> None:
        self._cores.pop(pid, None)
        born = self._workers.pop(pid, None)
        if born is not None:
            log.error("worker %d ended with %d, it is replaced", pid, code)
            now = time.monotonic()
            self._not_before = now + PAUSE if now - born < PAUSE else now

    # --- workers ---------------------------------------------------------------------------

    def _drain(self, pids: Iterable[int]) -> None:
        for pid in pids:
            os.kill(pid, signal.SIGTERM)
            self._leaving[pid] = time.monotonic() + DRAIN

    def _kill_overdue(self) -> None:
        for pid, until in self._leaving.items():
            if time.monotonic() >= until:
                log.error("worker %d does not end, it is killed", pid)
                os.kill(pid, signal.SIGKILL)
                self._leaving[pid] = until + DRAIN

    def _refill(self) -> None:
        missing = _count(self._config) - len(self._workers)
        if self._stopping or missing <= 0 or time.monotonic() < self._not_before:
            return
        try:
            self._workers |= self._start(self._config, missing, self._listeners)
        except (_StartFailed, OSError) as error:
            log.error("no new worker: %s", error)
            self._not_before = time.monotonic() + PAUSE

    def _open(self, config: Config) -> sockets.Listeners:
        return self._passed or sockets.open_all(config.lmtp, self._listeners)

    def _start(self, config: Config, count: int, listeners: sockets.Listeners) -> dict[int, float]:
        """Workers that serve, all or none. Raises _StartFailed."""
        born: dict[int, int] = {}
        try:
            for _ in range(count):
                taken = [self._cores.get(pid) for pid in (*self._workers, *born)]
                core = _free_core(config, taken)
                pid, ready = self._fork(config, listeners, core)
                born[pid] = ready
                self._cores[pid] = core
            failed = [pid for pid, ready in born.items() if not _serves(ready)]
            if failed:
                raise _StartFailed(_end(failed[0], born))
        except BaseException:
            for pid in tuple(born):
                _end(pid, born)
            raise
        for ready in born.values():
            os.close(ready)
        return dict.fromkeys(born, time.monotonic())

    def _fork(
        self, config: Config, listeners: sockets.Listeners, core: int | None
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
                if core is not None:
                    os.sched_setaffinity(0, {core})
                os._exit(self._child(config, listeners, writing))
            finally:
                os._exit(EX_SOFTWARE)
        os.close(writing)
        return pid, reading

    def _child(self, config: Config, listeners: sockets.Listeners, ready: int) -> int:
        """Be a worker, to the end; the exit code. Nothing may leave this function."""
        try:
            os.close(self._our_life)
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
            signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)
            privileges.drop(config.user)
            os.umask(0o077)
            for listener in sockets.flat(self._listeners) - sockets.flat(listeners):
                listener.socket.close()  # the old configuration's; the file is the master's
            listening = [listener.socket for listener in sockets.flat(listeners)]
            courier = self._make_courier(config)
            worker.run(listening, config, courier, self._life, lambda: _tell(ready))
            return 0
        except ConfigError as error:
            _report(error)
            return EX_CONFIG
        except BaseException:
            log.exception("worker failed")
            return EX_SOFTWARE
        finally:
            logging.shutdown()
            sys.stdout.flush()
            sys.stderr.flush()


def _tell(ready: int) -> None:
    os.write(ready, b"!")
    os.close(ready)


def _serves(ready: int) -> bool:
    """Wait for the byte of a new worker."""
    return bool(select.select([ready], [], [], START)[0] and os.read(ready, 1))


def _end(pid: int, born: dict[int, int]) -> int:
    """Strike a worker that serves nobody yet off the list; its exit code."""
    os.close(born.pop(pid))
    os.kill(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _free_core(config: Config, taken: list[int | None]) -> int | None:
    """The core for one more worker, when each can have its own.

    The threads of a process run one at a time (the interpreter's lock). Spread over two cores
    they wait for each other across them: bound to one, the same work goes a third faster.
    """
    cores = sorted(os.sched_getaffinity(0))
    return min(cores, key=taken.count) if _count(config) <= len(cores) else None


def _count(config: Config) -> int:
    return config.lmtp.workers or len(os.sched_getaffinity(0))


def _report(error: ConfigError) -> None:
    for problem in error.problems:
        log.error("%s", problem)


def _notify(state: str) -> None:
    """Tell systemd (sd_notify)."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            try:
                sock.sendto(state.encode(), "\0" + address[1:] if address[0] == "@" else address)
            except OSError as error:
                log.warning("systemd does not listen: %s", error)
