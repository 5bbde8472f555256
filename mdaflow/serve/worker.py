"""One worker process: an event loop with the connections, and a crew of threads.

It stops on SIGTERM or SIGINT, or when its master is gone: it takes no more connections,
dismisses idle clients, and lets transactions end (P12). A client that has just come has
`BEGIN` seconds to begin one: an MTA that is greeted with 421 would keep its mail for minutes.
What has not ended after `FINISH` seconds gets 451, unless it is past its fence; that has
`LAST` seconds more.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import socket
from collections.abc import Callable, Iterable

from ..app.config import Config
from .courier import Courier, Crew
from .lmtp import Connection, Service
from .sockets import BACKLOG

BEGIN = 1.0
FINISH = 20.0
LAST = 5.0


def run(
    sockets: Iterable[socket.socket],
    config: Config,
    courier: Courier,
    master: int,
    ready: Callable[[], None],
) -> None:
    """Serve until told to stop. `master` is a descriptor that ends when the master does;
    `ready` is called when clients are served."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)

        def orphaned() -> None:
            loop.remove_reader(master)
            stop.set()

        loop.add_reader(master, orphaned)
        await serve(sockets, config, courier, stop, ready)

    asyncio.run(main())


async def serve(
    sockets: Iterable[socket.socket],
    config: Config,
    courier: Courier,
    stop: asyncio.Event,
    ready: Callable[[], None],
) -> None:
    """Serve until `stop` is set, then drain. The sockets are closed."""
    logging.getLogger("mail.log").setLevel(logging.WARNING)  # aiosmtpd, a line for each command
    crew = Crew(courier, config.lmtp.threads, config.lmtp.deadline)
    service = Service(config.lmtp, config.hostname or socket.gethostname(), crew)
    listening = [(sock, await _listen(sock, service)) for sock in sockets]
    gc.collect()
    gc.freeze()  # what is here now stays: the collector need not look at it again
    ready()
    await stop.wait()
    await _close(listening)
    service.drain()
    await _ended(service, BEGIN)
    service.dismiss()
    await _ended(service, FINISH)
    service.abandon()
    await _ended(service, LAST)
    crew.close()


async def _listen(sock: socket.socket, service: Service) -> asyncio.Server:
    # create_server, for unix sockets too: create_unix_server would remove the file at the end.
    # It accepts up to `backlog` connections at once, and leaves the other workers none: so one.
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(service), sock=sock, backlog=1)
    sock.listen(BACKLOG)
    return server


async def _close(listening: list[tuple[socket.socket, asyncio.Server]]) -> None:
    # A server that is closed loses, without a word, what it accepted in the same turn of the
    # loop. So no more is accepted first, and then what was accepted becomes a connection.
    for sock, _ in listening:
        asyncio.get_running_loop().remove_reader(sock)
    for _ in range(10):
        await asyncio.sleep(0)
    for _, server in listening:
        server.close()


async def _ended(service: Service, seconds: float) -> None:
    """Wait until the last connection and the last job ended, or the time is over."""
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    while (service.connections or service.crew.busy) and loop.time() < until:
        await asyncio.sleep(0.02)
