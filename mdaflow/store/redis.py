"""A store in a Redis server (or Valkey), shared by the machines of a site.

A process has one connection, made at the first use, so after a fork. One thread talks over it, and
whoever has waited `WAIT` for an answer stops waiting, whatever keeps it: a name that is not
found, a server that is stopped, an answer that comes drop by drop. What was asked then counts as
not done, though the server may have done it. After that nobody asks for `REST`, as mail goes on
without.

Times to live are those of the server, by its clock. What it forgets is forgotten: it should
evict nothing (`maxmemory-policy noeviction`) and keep its data over a restart (`appendonly yes`).

Needs redis-py (`pip install 'mdaflow[redis]'`); knows nothing of ours.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from errno import EHOSTDOWN, EIO, ETIMEDOUT
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

WAIT = 0.2
"""Seconds that a call may take, in all (P43)."""
REST = 2.0
"""Seconds for which nobody asks again, when the server could not be reached."""
SITE = "mdaflow"
"""What keys begin with, unless the address says otherwise."""

_OURS = b"="  # how values begin: what others have put there is none


class Place(NamedTuple):
    """Where a server is, from `redis://user:password@host:port/db?site=NAME`, the same with
    `rediss:` and `&ca=FILE` (TLS, and whom it trusts), or `unix:///path?db=N`."""

    address: str
    """As redis-py takes it."""
    site: str
    ca: str
    shown: str
    """For messages: without user and password."""


def parse_place(text: str) -> Place:
    """The place that a configuration names."""
    url = urlsplit(text)
    said = {name: values[-1] for name, values in parse_qs(url.query).items()}
    address = text.partition("?")[0] + (f"?db={said['db']}" if "db" in said else "")
    where = url.netloc.rpartition("@")[2] or url.path
    return Place(address, said.get("site", SITE), said.get("ca", ""), f"{url.scheme}://{where}")


class RedisStore:
    """See `Store`."""

    def __init__(self, address: str) -> None:
        self._place = parse_place(address)
        self._line: _Line | None = None
        self._pid = 0
        self._starting = threading.Lock()
        self._rests_until = 0.0

    def get(self, key: str) -> str | None:
        """The value, unless there is none or its time is over."""
        found = self.ask("GET", self.named(key))
        if found is None:
            return None
        if not isinstance(found, bytes) or not found.startswith(_OURS):
            raise self.nonsense(found)
        try:
            return found[1:].decode()
        except UnicodeDecodeError as error:
            raise self.nonsense(found) from error

    def put(self, key: str, value: str, seconds: float | None = None) -> None:
        """Keep a value, for so many seconds or for good."""
        if seconds is not None and seconds <= 0:
            self.ask("DEL", self.named(key))
        else:
            self._set(key, value, *_lasting(seconds))

    def add(self, key: str, value: str, seconds: float | None = None) -> bool:
        """Keep a value if there is none; whether it was kept. Of many at once, one does."""
        return self._set(key, value, "NX", *_lasting(seconds))

    def close(self) -> None:
        """End the connection; the next use makes a new one."""
        with self._starting:
            if self._line is not None and self._pid == os.getpid():
                self._line.end()
            self._line = None

    def named(self, key: str) -> bytes:
        """A key as the server knows it."""
        return f"{self._place.site}:{key}".encode("utf-8", "surrogatepass")

    def _set(self, key: str, value: str, *how: object) -> bool:
        kept = _OURS + value.encode("utf-8", "surrogatepass")
        answer = self.ask("SET", self.named(key), kept, *how)
        if answer is not True and not (answer is None and "NX" in how):
            raise self.nonsense(answer)
        return answer is True

    def ask(self, *command: object) -> Any:
        """The answer to a command. Raises OSError."""
        if time.monotonic() < self._rests_until:
            raise OSError(EHOSTDOWN, "did not answer a moment ago", self._place.shown)
        call = _Call(command)
        self._talk().calls.put(call)
        try:
            done, found = call.answer.get(timeout=WAIT)
        except Empty:
            call.given_up = True
            self._rests_until = time.monotonic() + REST
            raise OSError(ETIMEDOUT, "does not answer", self._place.shown) from None
        if done:
            return found
        if not isinstance(found, redis.ResponseError):  # it has answered, and quickly
            self._rests_until = time.monotonic() + REST
        raise OSError(EIO, str(found) or type(found).__name__, self._place.shown) from found

    def nonsense(self, answer: object) -> OSError:
        """What to raise for an answer that can be none."""
        return OSError(EIO, f"answers {str(answer)[:60]!r}", self._place.shown)

    def _talk(self) -> _Line:
        with self._starting:
            if self._line is None or self._pid != os.getpid():  # a fork takes no threads along
                self._line, self._pid = _Line(lambda: _client(self._place)), os.getpid()
            return self._line


def _lasting(seconds: float | None) -> tuple[object, ...]:
    return () if seconds is None else ("PX", max(1, round(seconds * 1000)))


def _client(place: Place) -> redis.Redis:
    tls = {"ssl_ca_certs": place.ca} if place.ca else {}
    found: redis.Redis = redis.Redis.from_url(
        place.address,
        socket_timeout=WAIT,
        socket_connect_timeout=WAIT,
        retry=Retry(NoBackoff(), 0),
        protocol=2,
        **tls,
    )
    return found


class _Call:
    """A command that waits for its answer: (True, what it is) or (False, an exception)."""

    def __init__(self, command: tuple[object, ...]) -> None:
        self.command = command
        self.answer: SimpleQueue[tuple[bool, Any]] = SimpleQueue()
        self.given_up = False


class _Line:
    """A thread with a connection, that does one call after the other."""

    def __init__(self, connect: Callable[[], Any]) -> None:
        self.calls: SimpleQueue[_Call | None] = SimpleQueue()
        self._connect = connect
        threading.Thread(target=self._run, daemon=True).start()

    def end(self) -> None:
        """Do what waits, and no more."""
        self.calls.put(None)

    def _run(self) -> None:
        client = None
        while (call := self.calls.get()) is not None:
            if call.given_up:
                continue
            try:
                client = client or self._connect()
                call.answer.put((True, client.execute_command(*call.command)))
            except Exception as error:  # whatever it is, somebody waits for an answer
                call.answer.put((False, error))
        if client is not None:
            client.close()
