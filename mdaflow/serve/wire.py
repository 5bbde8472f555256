"""The lines of one LMTP connection: reading commands, gathering replies, timers, the end.

`Wire` stands on aiosmtpd's protocol: its transport and stream plumbing. What differs, because
a store of other people's mail must not be talked into anything:

- a command ends at CRLF only; a line with a CR, LF or NUL in it is no command;
- a long line is skipped to its end, and refused once;
- a client that closes its half of the connection still gets its replies;
- the timer runs whenever the client has the word, and never while we work;
- replies are gathered while commands are at hand, and sent before anything waits (RFC 2920).
"""

from __future__ import annotations

import asyncio
import math
import re

from aiosmtpd.lmtp import LMTP

from ..errors import PermFail, Status
from . import reply

MAX_LINE = 4096
CHUNK = 128 << 10
"""Bytes read at once; the stream buffer pauses the socket at twice as much."""
LINGER = 10.0
"""Seconds for a client to take our last words."""

_STRAY = re.compile(rb"[\r\n\0]")


class Wire(LMTP):
    """One client. `transport` is None before the connection and after it."""

    transport: asyncio.Transport | None

    def __init__(self, idle: float) -> None:
        # Not SMTP.__init__: it looks through class and handler again for each connection, 0.5 ms,
        # to fill tables that only its own command loop reads. What the parts that we use need
        # (connection_made, connection_lost, push, the timer) is set here.
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=CHUNK, loop=loop)
        asyncio.StreamReaderProtocol.__init__(self, reader, self._cb_client_connected, loop)
        self.loop = loop
        self.transport = None
        self.session = None
        self._original_transport = None
        self._handler_coroutine = None
        self._timeout_handle = None

        self._idle = idle
        self._until = math.inf
        self._input = bytearray()
        self._replies: list[bytes] = []
        self._waiting = False

    async def _converse(self) -> None:
        """The conversation; it may raise EOFError or OSError when the client goes away."""
        raise NotImplementedError

    @property
    def closing(self) -> bool:
        """Nothing more will be said."""
        return self.transport is None or self.transport.is_closing()

    # --- what aiosmtpd calls ---------------------------------------------------------------

    def _set_rset_state(self) -> None:
        """A connection begins."""

    def eof_received(self) -> bool | None:
        """The client has said all. It shall still get its replies (aiosmtpd would cancel)."""
        return asyncio.StreamReaderProtocol.eof_received(self)

    async def _handle_client(self) -> None:
        try:
            await self._converse()
        except (EOFError, OSError):
            pass
        finally:
            self._close()

    def _reset_timeout(self, duration: float | None = None) -> None:
        """Give the client so many seconds.

        A timer that is set already stays when it goes off before them: it looks by itself
        whether the time is really over. Setting one anew for each line would cost a tenth of
        all that a message takes.
        """
        now = self.loop.time()
        self._until = now + (duration or self._idle)
        armed = self._timeout_handle
        if armed is None or armed.cancelled() or not now < armed.when() <= self._until:
            if armed is not None:
                armed.cancel()
            self._timeout_handle = self.loop.call_at(self._until, self._timeout_cb)

    def _timeout_cb(self) -> None:
        now = self.loop.time()
        if now < self._until:
            again = min(self._until, now + self._idle)
            self._timeout_handle = self.loop.call_at(again, self._timeout_cb)
        elif self.transport is not None and self.transport.is_closing():
            self.transport.abort()
        else:
            self._farewell(reply.IDLE)

    # --- reading and writing ---------------------------------------------------------------

    async def _line(self) -> bytes:
        """The next command without its CRLF. PermFail: it was none."""
        until = self.loop.time() + self._idle
        too_long = False
        while (end := self._input.find(b"\r\n")) < 0:
            if len(self._input) >= MAX_LINE:
                too_long = True
                del self._input[:-1]  # the last byte may be the CR of the line's end
            self._input += await self._more(until)
        line = bytes(self._input[:end])
        del self._input[: end + 2]
        if too_long or end > MAX_LINE - 2:
            raise PermFail(reply.LINE_TOO_LONG)
        if _STRAY.search(line):
            raise PermFail(reply.BAD_LINE)
        return line

    async def _more(self, until: float) -> bytes:
        """What the client sends next, if it does so in time (in the loop's seconds)."""
        await self._flush()
        self._reset_timeout(max(until - self.loop.time(), 0.001))
        self._waiting = True
        chunk = await self._reader.read(CHUNK)
        self._waiting = False
        self._stop_timer()
        if not chunk or self.closing:
            raise EOFError
        return chunk

    async def _flush(self) -> None:
        if self._replies:
            lines = b"\r\n".join(self._replies)
            self._replies.clear()
            self._writer.write(lines + b"\r\n")
            if self.transport is not None and self.transport.get_write_buffer_size():
                self._reset_timeout(self._idle)  # the client does not take it all
                await self._writer.drain()
                self._stop_timer()

    def _stop_timer(self) -> None:
        self._until = math.inf

    def _farewell(self, status: Status) -> None:
        """Say this last, and close."""
        if self.transport is not None and not self.transport.is_closing():
            lines = [*self._replies, reply.line(status), b""]
            self._replies.clear()
            self.transport.write(b"\r\n".join(lines))
            self._close()

    def _close(self) -> None:
        """Close when all is sent, or when the client does not take it."""
        if self.transport is not None and not self.transport.is_closing():
            self.transport.close()
            self._reset_timeout(LINGER)
