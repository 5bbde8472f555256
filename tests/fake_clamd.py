"""A clamd for tests that does what it is told: the command INSTREAM of clamd(8), and all the ways
to get it wrong.

What it does to a connection is a function, or bytes: the answer to a whole stream.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from types import TracebackType

OK = b"stream: OK\n"
COMMAND = b"nINSTREAM\n"


class FakeClamd:
    """`with FakeClamd(path, OK) as clamd:` and `clamd.address` is where it is."""

    def __init__(self, where: object, act: bytes | Callable[[Connection], None]) -> None:
        """`where` is the path of a unix socket, or a host."""
        if str(where).startswith("/"):
            self._listener = socket.socket(socket.AF_UNIX)
            self._listener.bind(str(where))
            self._listener.listen(100)
            self.address = f"unix:{where}"
        else:
            family = socket.AF_INET6 if ":" in str(where) else socket.AF_INET
            self._listener = socket.create_server((str(where), 0), family=family)
            port = self._listener.getsockname()[1]
            self.address = f"[{where}]:{port}" if ":" in str(where) else f"{where}:{port}"
        self._act = act if callable(act) else lambda connection: connection.answer(act)
        self.connections: list[Connection] = []
        self._threads = [threading.Thread(target=self._accept)]

    def __enter__(self) -> FakeClamd:
        self._threads[0].start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for line in (self._listener, *(connection.line for connection in self.connections)):
            with contextlib.suppress(OSError):
                line.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._listener.close()

    @property
    def streams(self) -> list[bytes]:
        """What was sent by each connection that came."""
        return [connection.stream for connection in self.connections]

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection = Connection(self._listener.accept()[0])
                self.connections.append(connection)
                self._threads.append(threading.Thread(target=self._serve, args=(connection,)))
                self._threads[-1].start()

    def _serve(self, connection: Connection) -> None:
        with connection.line, contextlib.suppress(OSError):
            self._act(connection)


class Connection:
    """One connection, and what can be done to it. All of it raises OSError."""

    def __init__(self, line: socket.socket) -> None:
        self.line = line
        self.stream = b""

    def take(self, at_most: int = 1 << 40) -> bytes:
        """Read the stream to its end, or so many bytes."""
        assert self._read(len(COMMAND)) == COMMAND
        while len(self.stream) < at_most and (size := struct.unpack("!L", self._read(4))[0]):
            self.stream += self._read(size)
        return self.stream

    def answer(self, said: bytes) -> None:
        """Read the stream, and say that."""
        self.take()
        self.line.sendall(said)

    def hang(self) -> None:
        """Say nothing until the client has gone."""
        while self.line.recv(65536):
            pass

    def drip(self) -> None:
        """Say a byte now and then, without end."""
        self.take()
        self.line.settimeout(0.02)
        while True:
            self.line.sendall(b"s")
            with contextlib.suppress(TimeoutError):
                if not self.line.recv(1):
                    return

    def reset(self) -> None:
        """Be gone, as after a crash."""
        self.line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.line.close()

    def _read(self, size: int) -> bytes:
        got = b""
        while len(got) < size:
            chunk = self.line.recv(size - len(got))
            if not chunk:
                raise ConnectionResetError
            got += chunk
        return got
