"""The broker: the one process with root while mail is taken. It makes processes that are users.

It has one thread, no secret, and no socket that a client could reach: the master starts it as a
program of its own, so that it inherits nothing. Workers ask it by datagrams: `fork NAME LOGIN
SOURCE` with one end of a conversation, at which a process of that login shall be (see
app/identity.py), and `kill NAME` for one that hangs. Who the login is, and whether it may have mail
here, the new process finds out itself, as root; a worker can ask for nobody else. Children are
watched by descriptors (pidfd_open(2)), so that no pid is ever mistaken.

The master makes the pair of sockets and keeps both ends: a broker that dies is replaced, and what
was asked meanwhile waits in the socket. When the last worker and the master are gone, it ends.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import pickle
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import NamedTuple

from ..app import identity
from ..app import log as logs
from ..app.build import Site
from ..app.config import Config
from ..app.frames import Frames
from ..app.identities import WARM
from ..app.rehearse import rehearse
from ..errors import ConfigError, TempFail
from .courier import CHECKERS

log = logging.getLogger("mdaflow")

EX_OK, EX_SOFTWARE, EX_CONFIG = 0, 70, 78
LONGEST = 4096
"""Bytes of a request."""
LAST = 3.0
"""Seconds that children get to end when we do."""


class Broker:
    """The broker as the master knows it. `mask` are the signals that it shall block."""

    def __init__(self, config: Config, workers: int, mask: Iterable[int]) -> None:
        """Raises OSError."""
        self._config = config
        of_one = config.lmtp.threads + CHECKERS + 2 * WARM  # some are about to end
        self._most = workers * of_one
        self._mask = sorted(mask)
        self._ours, self.requests = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        """`requests` is for the workers."""
        self._process: subprocess.Popen[bytes] | None = None
        self.born = 0.0

    def start(self) -> int:
        """Start it; a descriptor that gets a byte when it is ready. Raises OSError."""
        reading, writing = os.pipe()
        try:
            files = self._ours.fileno(), writing
            self._process = subprocess.Popen(  # noqa: S603 - ourselves
                (sys.executable, "-m", __name__, *map(str, files)),
                stdin=subprocess.PIPE,
                pass_fds=files,
                cwd="/",
            )
            self.born = time.monotonic()
            assert self._process.stdin is not None
            with suppress(BrokenPipeError), self._process.stdin as told:
                pickle.dump((self._config, self._most, self._mask), told)
        except BaseException:
            os.close(reading)
            raise
        finally:
            os.close(writing)
        return reading

    def ended(self) -> int | None:
        """Its exit code, once; None when it runs, or there is none."""
        code = None if self._process is None else self._process.poll()
        if code is not None:
            self._process = None
        return code

    @property
    def running(self) -> bool:
        """It was started, and has not ended."""
        return self._process is not None and self._process.poll() is None

    def kill(self) -> int:
        """End it at once; its exit code."""
        if self._process is None:
            return EX_OK
        self._process.kill()
        return self._process.wait()

    @property
    def sockets(self) -> set[socket.socket]:
        """Both ends of the pair."""
        return {self._ours, self.requests}

    def of_worker(self) -> socket.socket:
        """The end for workers, in a worker: it has no use for the other."""
        self._ours.close()
        return self.requests

    def leave(self) -> None:
        """Be no more in the way of its end: it ends when the last worker has."""
        for sock in self.sockets:
            sock.close()


def main(requests: int, ready: int) -> int:
    """Be the broker; the exit code. The descriptors are those of `Broker.start`."""
    config, most, mask = pickle.load(sys.stdin.buffer)  # noqa: S301 - from our own master
    with open(os.devnull, "r+b", buffering=0) as nowhere:
        for standard in (0, 1):
            os.dup2(nowhere.fileno(), standard)
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    try:
        logs.set_up(config.log)
        rehearse()
        broker = _Broker(identity.far_site(config), socket.socket(fileno=requests), most)
    except ConfigError as error:
        logs.report(error)
        return EX_CONFIG
    gc.collect()
    gc.freeze()  # what is here now is shared with all children
    os.write(ready, b"!")
    os.close(ready)
    broker.run()
    return EX_OK


class _Child(NamedTuple):
    """A process that is a user."""

    pid: int
    watched: int
    """A descriptor of it."""


class _Broker:
    """The broker itself."""

    def __init__(self, site: Site, requests: socket.socket, most: int) -> None:
        self._site = site
        self._requests = requests
        self._most = most
        self._children: dict[str, _Child] = {}
        """By name."""
        self._waiting = selectors.DefaultSelector()

    def run(self) -> None:
        """Serve until nobody is left to ask."""
        self._waiting.register(self._requests, selectors.EVENT_READ)
        while self._requests.fileno() >= 0:
            for key, _ in self._waiting.select():
                if key.fileobj is self._requests:
                    self._take()
                else:
                    self._bury(key.data)
        end = time.monotonic() + LAST
        while self._children and time.monotonic() < end:
            for key, _ in self._waiting.select(0.1):
                self._bury(key.data)
        for name in self._children:
            self._kill(name)

    def _take(self) -> None:
        """One request."""
        flags = socket.MSG_CMSG_CLOEXEC
        words, files, _, _ = socket.recv_fds(self._requests, LONGEST, 4, flags)
        try:
            if not words:
                self._waiting.unregister(self._requests)
                self._requests.close()
                return
            match _words(words), files:
                case ["fork", str(name), str(login), int(source)], [file]:
                    self._fork(name, login, source, file)
                case ["kill", str(name)], []:
                    self._kill(name)
                case _:
                    log.error("a worker asked for something strange")
        finally:
            for file in files:
                os.close(file)

    def _kill(self, name: str) -> None:
        """End a child, if it has not ended by itself."""
        if name in self._children:
            signal.pidfd_send_signal(self._children[name].watched, signal.SIGKILL)

    def _fork(self, name: str, login: str, source: int, file: int) -> None:
        """Make a process, with a writer if its inbox is in the spool, or say why not."""
        with socket.socket(fileno=os.dup(file)) as sock:
            try:
                self._make_both(name, login, source, sock)
            except OSError as error:
                self._kill(_writer(name))
                log.error("no process for %s: %s", ascii(login), error)
                sock.setblocking(False)
                with suppress(OSError):
                    Frames(sock).send(["os", error.errno or 0, error.strerror or str(error)])

    def _make_both(self, name: str, login: str, source: int, sock: socket.socket) -> None:
        if len(self._children) >= 2 * self._most or name in self._children:
            raise OSError(f"{len(self._children)} are running already")
        identity.refresh(self._site, source)
        if not identity.has_writer(self._site, source):
            self._make(name, lambda: identity.live(self._site, sock, login, source, None))
            return
        ours, theirs = socket.socketpair()
        with ours, theirs:
            as_writer = identity.live_as_writer
            self._make(_writer(name), lambda: as_writer(self._site, theirs, login, source))
            self._make(name, lambda: identity.live(self._site, sock, login, source, ours))

    def _make(self, name: str, live: Callable[[], None]) -> None:
        pid = os.fork()
        if pid == 0:
            _be(name, live)
        try:
            child = _Child(pid, os.pidfd_open(pid))
        except BaseException:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise
        self._children[name] = child
        self._waiting.register(child.watched, selectors.EVENT_READ, name)

    def _bury(self, name: str) -> None:
        """A child has ended; so has its writer, or who has stopped that would keep it."""
        child = self._children.pop(name)
        self._waiting.unregister(child.watched)
        os.close(child.watched)
        _, status = os.waitpid(child.pid, 0)
        code = os.waitstatus_to_exitcode(status)
        if code not in (0, -signal.SIGKILL):
            log.error("the process of a user ended with %d", code)
        self._kill(_writer(name))


def _writer(name: str) -> str:
    return f"{name} writes"


def _be(name: str, live: Callable[[], None]) -> None:
    """Be the process of a login. Never returns."""
    try:
        os.setsid()
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        live()
        os._exit(EX_OK)
    except (OSError, TempFail) as error:  # mostly the worker is gone
        log.info("process %s: %s", ascii(name), error)
        os._exit(EX_OK)
    except BaseException:
        log.exception("process %s failed", ascii(name))
    finally:
        os._exit(EX_SOFTWARE)


def _words(raw: bytes) -> object:
    with suppress(ValueError, RecursionError):
        return json.loads(raw)
    return None


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
