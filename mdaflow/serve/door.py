"""A listening socket of a worker: it lets clients in, one in each turn of the event loop.

One at a time and then for a moment nobody, so that the workers which share the socket share the
clients, too, and a crowd at the door does not stop who is in. Who has left again is not let in at
all. When the system has no more descriptors or memory, the door stays shut for a second: it does
not spin.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Callable

from .sockets import BACKLOG

log = logging.getLogger("mdaflow")

MOMENT = 0.0005
"""Seconds between two clients. Each costs about a fifth of that."""
SHUT = 1.0
"""Seconds for which nobody comes in when the system cannot take more."""
_CANNOT = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


class Door:
    """Lets clients in, as soon as it is made."""

    def __init__(self, sock: socket.socket, make: Callable[[], asyncio.BaseProtocol]) -> None:
        self._loop = asyncio.get_running_loop()
        self._sock, self._make = sock, make
        self._coming: set[asyncio.Task[object]] = set()
        self._shut: asyncio.TimerHandle | None = None
        sock.setblocking(False)
        sock.listen(BACKLOG)
        self._open()

    async def close(self) -> None:
        """Nobody comes in any more; who was at the door is in. The socket is closed."""
        if self._shut is not None:
            self._shut.cancel()
        self._loop.remove_reader(self._sock)
        self._sock.close()
        while self._coming:
            await asyncio.wait(self._coming)
        await asyncio.sleep(0)  # so that the last of them is counted

    def _open(self) -> None:
        self._shut = None
        self._loop.add_reader(self._sock, self._let_in)

    def _let_in(self) -> None:
        try:
            client, _ = self._sock.accept()
        except OSError as error:  # also: another worker was faster, or the client is gone again
            if error.errno in _CANNOT:
                log.error("nobody is let in for %g s: %s", SHUT, error.strerror)
                self._shut_for(SHUT)
            return
        self._shut_for(MOMENT)
        client.setblocking(False)
        if _has_left(client):
            client.close()
            return
        task = self._loop.create_task(self._receive(client))
        self._coming.add(task)
        task.add_done_callback(self._coming.discard)

    def _shut_for(self, seconds: float) -> None:
        self._loop.remove_reader(self._sock)
        self._shut = self._loop.call_later(seconds, self._open)

    async def _receive(self, client: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._make, client)
        except OSError as error:
            log.warning("a client was lost at the door: %s", error)
            client.close()


def _has_left(client: socket.socket) -> bool:
    try:
        return client.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True
