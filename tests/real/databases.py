"""PostgreSQL and MariaDB for tests: each in a folder of its own, on a unix socket, with a user
`mail` who has a password and a database of the same name. They run as nobody, if we are root.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from accounts import everybody, runs
from children import PATIENCE, Child, until
from mdaflow_server import NOBODY, give_away, new_root
from need import need

PASSWORD = "s3cret'%\\ word"

Command = Sequence[str | Path]


class Database:
    """A database server below `root`."""

    def __init__(self, root: Path, url: str, command: Command, client: Command) -> None:
        self.root = root
        self.url = url
        """Without the password."""
        self.password = root / "password"
        self.password.write_text(PASSWORD + "\n")
        self.password.chmod(0o600)
        self._command = _as_nobody(command)
        self._client = client
        self._child: Child | None = None

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self._child = Child(self._command, self.root / "said")
        self._child.wait_for(lambda: self._call("SELECT 1").returncode == 0, "the database")

    def run(self, text: str) -> None:
        """Let its superuser run statements."""
        done = self._call(text)
        assert done.returncode == 0, done.stderr

    def _call(self, text: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            _as_nobody(self._client), input=text.encode(), capture_output=True, timeout=PATIENCE
        )

    def stop(self) -> None:
        """End it at once, with all its connections."""
        if self._child is not None:
            ended = self._send(signal.SIGKILL)
            child, self._child = self._child, None
            child.stop()
            until(lambda: not any(map(runs, ended)), "the end of the database")

    @contextmanager
    def halted(self) -> Iterator[None]:
        """Nothing of it moves."""
        self._send(signal.SIGSTOP)
        try:
            yield
        finally:
            self._send(signal.SIGCONT)

    def _send(self, number: int) -> list[tuple[int, str]]:
        """A signal to all its processes: those of PostgreSQL are in sessions of their own."""
        assert self._child is not None
        found = everybody(self._child.pid)
        for pid, _ in found:
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        return found


def _as_nobody(command: Command) -> Command:
    if os.geteuid() != 0:
        return command
    ids = f"--reuid={NOBODY.pw_uid}", f"--regid={NOBODY.pw_gid}"
    return ("setpriv", *ids, "--clear-groups", *command)


def _make(*command: str | Path) -> None:
    done = subprocess.run(_as_nobody(command), capture_output=True, timeout=PATIENCE, cwd="/")
    assert done.returncode == 0, done.stderr.decode()


def _postgresql(root: Path) -> Database:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    here = found[-1].parent if found else Path(need("postgres")).parent
    data = root / "run/data"
    _make(here / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "-N", "-E", "UTF8")
    (data / "pg_hba.conf").write_text("local all postgres trust\nlocal mail mail scram-sha-256\n")
    options = ("-k", data, "-c", "listen_addresses=", "-c", "fsync=off")
    client = (here / "psql", "-qX", "-h", data, "-U", "postgres", "-v", "ON_ERROR_STOP=1")
    server = Database(
        root, f"postgresql://mail@/mail?host={data}", (here / "postgres", "-D", data, *options),
        client,
    )  # fmt: skip
    server.start()
    quoted = PASSWORD.replace("'", "''")
    server.run(f"CREATE USER mail PASSWORD '{quoted}'; CREATE DATABASE mail OWNER mail")
    server._client = (*client, "-d", "mail")
    return server


def _mariadb(root: Path) -> Database:
    program, data, socket = need("mariadbd"), root / "run/data", root / "run/socket"
    _make(
        need("mariadb-install-db"), "--no-defaults", f"--datadir={data}", "--skip-test-db",
        "--auth-root-authentication-method=normal",
    )  # fmt: skip
    options = (f"--datadir={data}", f"--socket={socket}", f"--pid-file={root}/run/pid")
    fast = (
        "--skip-networking",
        "--innodb-use-native-aio=0",
        "--innodb-flush-log-at-trx-commit=0",
        "--skip-log-bin",
    )
    client = (need("mariadb"), "--no-defaults", "-u", "root", "-S", socket)
    command = (program, "--no-defaults", *options, *fast)
    server = Database(root, f"mariadb://mail@localhost/mail?unix_socket={socket}", command, client)
    server.start()
    quoted = PASSWORD.replace("\\", "\\\\").replace("'", "\\'")
    server.run(
        "CREATE DATABASE mail CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;"
        f"CREATE USER mail@localhost IDENTIFIED BY '{quoted}';"
        "GRANT SELECT ON mail.* TO mail@localhost"
    )
    server._client = (*client, "-D", "mail")
    return server


SERVERS = {"postgresql": _postgresql, "mariadb": _mariadb}


@contextmanager
def database(kind: str) -> Iterator[Database]:
    """A server of a kind."""
    if kind == "postgresql" and not any(Path("/usr/lib/postgresql").glob("*/bin/initdb")):
        pytest.importorskip("psycopg")
        need("initdb")
    root = new_root()
    (root / "run").mkdir(mode=0o755)
    give_away(root / "run")
    server: Database | None = None
    try:
        server = SERVERS[kind](root)
        yield server
    finally:
        if server is not None:
            server.stop()
        shutil.rmtree(root)
