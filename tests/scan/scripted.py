"""A server for tests of scanners: it reads one request, keeps it, and does what it is told.

Its answer is bytes that are sent as they are, `HANG` (take the request, and say nothing), `DEAF`
(not even take it), `DROP` (close at once), or `Endless` bytes. A request ends as its
`Content-length` says, which SPAMC and HTTP have in common.
"""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import time
from types import TracebackType
from typing import NamedTuple

HANG, DEAF, DROP = b"<hang>", b"<deaf>", b"<drop>"

_LENGTH = re.compile(rb"\r\ncontent-length: ([0-9]+)\r\n", re.IGNORECASE)


class Endless(NamedTuple):
    """Say `first`, then `again` for as long as somebody is there."""

    first: bytes
    again: bytes
    pause: float = 0.0
    """Seconds between one `again` and the next."""


class Scripted:
    """`with Scripted(b"...") as server:` and `server.address` is where it is."""

    def __init__(self, answer: bytes | Endless, *, path: str = "", host: str = "127.0.0.1") -> None:
        self.answer = answer
        self.requests: list[bytes] = []
        """What came, whole requests and others."""
        if path:
            self._listener = socket.socket(socket.AF_UNIX)
            self._listener.bind(path)
            self._listener.listen()
            self.address = f"unix:{path}"
        else:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            self._listener = socket.create_server((host, 0), family=family)
            port = self._listener.getsockname()[1]
            self.address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._ended = threading.Event()
        self._open: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]

    def __enter__(self) -> Scripted:
        self._threads[0].start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ended.set()
        for sock in (self._listener, *self._open):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                conn, _ = self._listener.accept()
            except OSError:
                return
            self._open.append(conn)
            thread = threading.Thread(target=self._serve, args=(conn,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, conn: socket.socket) -> None:
        with conn, contextlib.suppress(OSError):
            if self.answer == DROP:
                return
            if self.answer == DEAF:
                self._ended.wait()
            self.requests.append(_request(conn))
            self._say(conn)

    def _say(self, conn: socket.socket) -> None:
        answer = self.answer
        if isinstance(answer, Endless):
            conn.sendall(answer.first)
            while True:
                conn.sendall(answer.again)
                time.sleep(answer.pause)
        elif answer == HANG:
            self._ended.wait()
        else:
            conn.sendall(answer)


def _request(conn: socket.socket) -> bytes:
    """What comes, to the end of the request or of the connection."""
    got = b""
    while True:
        head, empty, body = got.partition(b"\r\n\r\n")
        length = _LENGTH.search(head + b"\r\n")
        if empty and length and len(body) >= int(length[1]):
            return got
        chunk = conn.recv(65536)
        if not chunk:
            return got
        got += chunk


def nobody() -> str:
    """An address where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"
