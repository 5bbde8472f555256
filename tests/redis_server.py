"""A real Redis server for tests: on a socket of its own, keeping nothing on the disk."""

from __future__ import annotations

import signal
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest
from need import need

CONFIG = """\
port 0
unixsocket {folder}/redis.sock
dir {folder}
save ""
appendonly no
daemonize no
logfile {folder}/log
"""
START = 20.0
"""Seconds in which it has to answer."""


class RedisServer:
    """`with RedisServer() as server:` and `server.address` is where it is."""

    def __init__(self) -> None:
        self._program = need("redis-server")
        self.redis = pytest.importorskip("redis", reason="needs redis-py (mdaflow[redis])")
        self._folder = tempfile.TemporaryDirectory(prefix="redis")  # a socket's path is short
        self.address = f"unix://{self._folder.name}/redis.sock"
        self._config = Path(self._folder.name, "redis.conf")
        self._config.write_text(CONFIG.format(folder=self._folder.name))
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> RedisServer:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()
        self._folder.cleanup()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self._process = subprocess.Popen([self._program, str(self._config)])
        until = time.monotonic() + START
        while True:
            try:
                self.say("PING")
            except self.redis.RedisError:
                assert self._process.poll() is None, "redis-server has ended"
                assert time.monotonic() < until, "redis-server does not answer"
                time.sleep(0.01)
            else:
                return

    def stop(self) -> None:
        """End it, as a crash would."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            self._process.kill()
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """It stands still."""
        assert self._process
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """It goes on."""
        assert self._process
        self._process.send_signal(signal.SIGCONT)

    def say(self, *command: object) -> Any:
        """Its answer to a command of ours."""
        client = self.redis.Redis.from_url(self.address, socket_timeout=10, protocol=2)
        try:
            return client.execute_command(*command)
        finally:
            client.close()
