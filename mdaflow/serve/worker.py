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
import signal
import socket
import ssl
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

from ..app import receipts
from ..app.config import Config
from .courier import Courier, Crew
from .door import Door
from .lmtp import Connection
from .service import Service
from .slots import Slots

BEAT = 1.0
"""Seconds between two signs of life."""
BEGIN = 1.0
FINISH = 20.0
LAST = 5.0
END = 28.0
"""Seconds until the end of all this; what is left of them is for receipts on their way."""


class Ties(NamedTuple):
    """What a worker has of its master."""

    life: int
    """A descriptor that ends when the master does."""
    ready: Callable[[], None]
    """Called when clients are served."""
    beat: Callable[[], None]
    """Called for as long as the event loop moves."""
    slots: int
    """The file of slots.py."""
    tls: ssl.SSLContext | None


def run(sockets: Iterable[socket.socket], config: Config, courier: Courier, ties: Ties) -> None:
    """Serve until told to stop."""
    slots = Slots(ties.slots)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)

        def orphaned() -> None:
            loop.remove_reader(ties.life)
            stop.set()

        def live() -> None:
            ties.beat()
            loop.call_later(BEAT, live)

        live()
        loop.add_reader(ties.life, orphaned)
        await serve(sockets, config, courier, stop, ties.ready, ties.tls, slots)

    asyncio.run(main())


async def serve(
    sockets: Iterable[socket.socket],
    config: Config,
    courier: Courier,
    stop: asyncio.Event,
    ready: Callable[[], None],
    tls: ssl.SSLContext | None = None,
    slots: Slots | None = None,
) -> None:
    """Serve until `stop` is set, then drain. The sockets are closed."""
    crew = Crew(courier, config.lmtp.threads, config.lmtp.deadline, slots)
    service = Service(config, crew, tls)
    doors = [Door(sock, lambda: Connection(service)) for sock in sockets]
    gc.collect()
    gc.freeze()  # what is here now stays: the collector need not look at it again
    ready()
    sweeping = asyncio.create_task(_sweep(service))
    await stop.wait()
    end = time.monotonic() + END
    sweeping.cancel()
    for door in doors:
        await door.close()
    service.drain()
    await _ended(service, BEGIN)
    service.dismiss()
    await _ended(service, FINISH)
    service.abandon()
    await _ended(service, LAST)
    crew.close()
    receipts.finish(max(0.0, end - time.monotonic()))


async def _sweep(service: Service) -> None:
    while True:
        await asyncio.sleep(BEAT)
        service.sweep()


async def _ended(service: Service, seconds: float) -> None:
    """Wait until the last connection and the last job ended, or the time is over."""
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    while (service.connections or service.crew.busy) and loop.time() < until:
        await asyncio.sleep(0.02)
