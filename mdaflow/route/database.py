"""A database that is asked by the queries of the site: SQLite, PostgreSQL or MariaDB, by SQLAlchemy
(https://docs.sqlalchemy.org).

Nobody waits for long: a connection, an answer and a turn have `SECONDS` each, and a server that was
that slow is left alone for a moment. A connection that was lost is made anew once. Connections are
of one process, made when first needed. What comes from outside is a bound parameter, never a part
of a query. Neither password nor parameters get into a message.

Known limits: SQLite is opened for reading only, so a database in WAL mode needs its `-shm` file.
PostgreSQL and MySQL go on with a query that was given up, until it has an answer.
"""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from threading import Lock
from typing import TYPE_CHECKING, Any

from mdaflow.errors import INTERNAL, ConfigError, TempFail, install
from mdaflow.files import Reading

if TYPE_CHECKING:
    from sqlalchemy import URL, Engine

SECONDS = 3
"""For a connection, for an answer, and for a turn to ask."""
SLOW = 1.0
"""Seconds after which a failure is no mishap of a moment: it is not tried again."""
REST = 2.0
"""Seconds for which a server that was slow is not asked."""
CONNECTIONS = 4
"""Of one process."""
RECYCLE = 300
"""Seconds after which a connection is made anew."""
MAX_PASSWORD = 4096
MAX_REASON = 300

_DRIVERS = {
    "sqlite": "sqlite",
    "postgresql": "postgresql+psycopg",
    "postgres": "postgresql+psycopg",
    "mysql": "mysql+pymysql",
    "mariadb": "mariadb+pymysql",
}
_NO_LONG_QUERY = "SET @mdaflow = 1 /*M!100101 , SESSION max_statement_time = {} */"
"""MariaDB ends a query by itself, too; to MySQL it is a comment."""

Rows = list[dict[str, object]]
Guard = Callable[[], AbstractContextManager[None]]


class Query:
    """A query of the site, with the names of its parameters."""

    def __init__(self, text: str, names: Sequence[str]) -> None:
        """Raises ConfigError when it has others than these."""
        from sqlalchemy import text as statement

        self.statement = statement(text)
        self.parameters = tuple(self.statement.compile().params)
        unknown = sorted({*self.parameters} - {*names})
        if unknown:
            known = ", ".join(f":{name}" for name in names) or "none"
            raise ConfigError(
                (f"unknown parameter :{unknown[0]} (known: {known}; a colon is \\:)",)
            )


class Database:
    """One database."""

    def __init__(self, url: str, password: str = "", guard: Guard = nullcontext) -> None:
        """`password` is a file; what is asked is asked within `guard`. Raises ConfigError for a URL
        that is none, and when a library is missing."""
        self._url = _url(url)
        self._file = password
        self._guard = guard
        self._engine: Engine | None = None
        self._pid = 0
        self._lock = Lock()
        self._rests_until = 0.0
        _create(self._url, self.password)

    def ask(
        self, query: Query, told: Mapping[str, str], most: int = 0
    ) -> tuple[Sequence[str], Rows]:
        """The columns of an answer and its rows: `most` of them, or all. Raises TempFail."""
        if time.monotonic() < self._rests_until:
            raise TempFail(INTERNAL, f"{self}: was too slow a moment ago")
        begun = time.monotonic()
        try:
            with self._guard(), self._failures():
                return self._twice(query, told, most)
        except TempFail:
            if time.monotonic() - begun > SLOW:
                self._rests_until = time.monotonic() + REST
            raise

    def password(self) -> str:
        """The content of its file; empty without one. Raises TempFail."""
        with self._guard():
            return _password(self._file) if self._file else ""

    def connect(self) -> None:
        """See if it is there. Raises TempFail."""
        with self._guard(), self._failures(), self._connected().connect():
            pass

    def close(self) -> None:
        """End its connections."""
        with self._lock:
            if self._engine is not None and self._pid == os.getpid():
                self._engine.dispose()
            self._engine = None

    def __str__(self) -> str:
        u = self._url
        port = f":{u.port}" if u.port else ""
        return f"{u.get_backend_name()}://{u.host or ''}{port}/{u.database or ''}"

    def _twice(
        self, query: Query, told: Mapping[str, str], most: int
    ) -> tuple[Sequence[str], Rows]:
        from sqlalchemy.exc import DBAPIError

        begun = time.monotonic()
        try:
            return self._once(query, told, most)
        except DBAPIError as error:
            if not error.connection_invalidated or time.monotonic() - begun > SLOW:
                raise
        return self._once(query, told, most)

    def _once(self, query: Query, told: Mapping[str, str], most: int) -> tuple[Sequence[str], Rows]:
        used = {name: told[name] for name in query.parameters}
        with self._connected().connect() as connection:
            result = connection.execute(query.statement, used)
            columns = [str(key).lower() for key in tuple(result.keys())]
            rows = result.fetchmany(most) if most else result.fetchall()
        return columns, [dict(zip(columns, row, strict=True)) for row in rows]

    def _connected(self) -> Engine:
        """The engine of this process."""
        with self._lock:
            if self._engine is None or self._pid != os.getpid():
                self._engine, self._pid = _create(self._url, self.password), os.getpid()
            return self._engine

    @contextmanager
    def _failures(self) -> Iterator[None]:
        """Whatever goes wrong may work later: a TempFail with the reason, without secrets."""
        try:
            yield
        except TempFail:
            raise
        except Exception as error:
            reason = " ".join(str(getattr(error, "orig", None) or error).split())
            raise TempFail(INTERNAL, f"{self}: {reason[:MAX_REASON]}") from None


def _url(text: str) -> URL:
    try:
        from sqlalchemy import make_url
        from sqlalchemy.exc import ArgumentError
    except ImportError:
        raise _missing("SQLAlchemy") from None
    try:
        url = make_url(text)
        backend = url.get_backend_name()
    except (ArgumentError, ValueError):  # whose text may have the password
        raise ConfigError(("is no URL such as postgresql://user@host/database",)) from None
    if backend not in _DRIVERS:
        raise ConfigError((f"{backend}: must be sqlite, postgresql, mysql or mariadb",))
    if backend == "sqlite" and not os.path.isabs(url.database or ""):
        raise ConfigError(("the path must be absolute: sqlite:////path",))
    return url.set(drivername=_DRIVERS[backend])


def _create(url: URL, secret: Callable[[], str]) -> Engine:
    """An engine that has not connected yet. Raises ConfigError when the driver is missing."""
    from sqlalchemy import create_engine, event
    from sqlalchemy.pool import QueuePool

    try:
        engine = create_engine(
            url,
            poolclass=QueuePool,
            pool_size=CONNECTIONS,
            max_overflow=0,
            pool_timeout=SECONDS,
            pool_recycle=RECYCLE,
            pool_use_lifo=True,
            pool_reset_on_return=None,  # there is no transaction
            isolation_level="AUTOCOMMIT",
            hide_parameters=True,
        )
    except ImportError as error:
        raise _missing(re.sub(r"\W.*", "", error.name or "the driver")) from None
    connect = _CONNECT[url.get_backend_name()]

    @event.listens_for(engine, "do_connect")
    def made(dialect: Any, record: Any, place: list[Any], options: dict[str, Any]) -> Any:
        if password := secret():
            options["password"] = password
        return connect(*place, **options)

    return engine


def _missing(library: str) -> ConfigError:
    return ConfigError((f"needs {library}: {install('sql')}",))


def _password(path: str) -> str:
    """The content of a file that is not for everybody. Raises TempFail."""
    try:
        if os.stat(path).st_mode & stat.S_IRWXO:
            raise TempFail(INTERNAL, f"{path}: everybody can read it: chmod o-rwx")
        return Reading(MAX_PASSWORD)(path).decode().rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "is no text"
        raise TempFail(INTERNAL, f"{path}: {reason}") from None


# --- drivers ---------------------------------------------------------------------------------


def _sqlite(path: str, **_: Any) -> Any:
    import sqlite3
    from urllib.parse import quote

    place = f"file:{quote(path)}?mode=ro"
    return sqlite3.connect(place, uri=True, timeout=SECONDS, check_same_thread=False)


def _postgresql(**options: Any) -> Any:
    import psycopg

    class Patient(psycopg.Connection[Any]):
        """A connection that does not wait for ever: psycopg's own has no limit."""

        def wait(self, gen: Any, *_: Any, **__: Any) -> Any:
            try:
                return super().wait(_until(gen, time.monotonic() + SECONDS), interval=0.1)
            except TimeoutError:
                self.close()
                raise psycopg.OperationalError("the server does not answer") from None

        def __del__(self, *_: Any, **__: Any) -> None:
            """It is closed by libpq, in the process that has made it."""

    limits = {"connect_timeout": SECONDS, "prepare_threshold": None}  # there may be a pgbouncer
    return Patient.connect(**options | limits)


def _until(steps: Any, end: float) -> Any:
    """The steps of an exchange until a time on the monotonic clock; then TimeoutError."""
    try:
        wanted = next(steps)
        while True:
            ready = yield wanted
            if time.monotonic() > end:
                raise TimeoutError
            wanted = steps.send(ready)
    except StopIteration as done:
        return done.value


def _mysql(**options: Any) -> Any:
    import pymysql

    limits = dict.fromkeys(("connect_timeout", "read_timeout", "write_timeout"), SECONDS)
    return pymysql.connect(**options | limits, init_command=_NO_LONG_QUERY.format(SECONDS))


_CONNECT: dict[str, Callable[..., Any]] = {
    "sqlite": _sqlite, "postgresql": _postgresql, "mysql": _mysql, "mariadb": _mysql,
}  # fmt: skip
