"""The bytes of one LMTP connection: commands in, replies out, timers, TLS, the end.

One coroutine holds the conversation; what the client sends comes into a buffer that all
connections of a worker share, and goes on at once: while a message arrives, into a sink that
takes it as it comes, else into a short line buffer. So a connection costs a few KiB, whatever
is sent. When the line buffer is full, or the client does not take its replies, it is not read.

A store of other people's mail must not be talked into anything:

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
import ssl
from collections.abc import Callable

from ..errors import PermFail, Status
from . import reply

MAX_LINE = 4096
MAX_INPUT = 16 << 10
"""Bytes of commands that wait to be read."""
MAX_OUTPUT = 16 << 10
"""Bytes of replies that wait to be taken, before we wait for the client."""
CHUNK = 128 << 10
"""Bytes read at once."""
LINGER = 10.0
"""Seconds for a client to take our last words."""
HANDSHAKE = 30.0
"""Seconds for the TLS handshake."""
PROGRESS = 64 << 10
"""Who has sent so many bytes of a message has done something for its place."""

Sink = Callable[[bytes | memoryview], bytes | None]
"""Takes what comes next; None: more, please. Else it has its end, and this followed."""

_STRAY = re.compile(rb"[\r\n\0]")


class Wire(asyncio.BufferedProtocol):
    """One client. `transport` is None before the connection and after it."""

    def __init__(self, idle: float, buffer: memoryview) -> None:
        self._loop = asyncio.get_running_loop()
        self._idle = idle
        self._buffer = buffer  # of the worker: what is in it is used before the next read
        self._input = bytearray()
        self._sink: Sink | None = None
        self._sunk = 0
        self._failure: Exception | None = None
        """Of the sink."""
        self._last = math.inf
        """When a message must have its end, in seconds of the loop."""
        self._eof = False
        self._news = False
        """Something came, commands or the end of a message."""
        self._unread = False
        """Reading is paused."""
        self._choked = False
        """The client does not take what we write."""
        self._wakeup: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._until = math.inf
        self._replies: list[bytes] = []
        self._task: asyncio.Task[None] | None = None
        self.transport: asyncio.Transport | None = None
        self.secure = False
        """TLS has begun."""
        self._shaking = False
        """In its handshake nothing can be said."""
        self.lost = False
        """Something that we said went to nobody."""
        self.progress = self._loop.time()
        """When something last came of this connection, in seconds of the loop."""
        self.since = math.inf
        """When the client got the word, in seconds of the loop; infinite while we have it."""

    async def _converse(self) -> None:
        """The conversation; it may raise EOFError or OSError when the client goes away."""
        raise NotImplementedError

    @property
    def closing(self) -> bool:
        """Nothing more will be said."""
        return self.transport is None or self.transport.is_closing()

    @property
    def has_word(self) -> bool:
        """We wait for the client."""
        return self.since < math.inf

    # --- what asyncio calls ----------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client is here."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.set_write_buffer_limits(MAX_OUTPUT)
        self._task = self._loop.create_task(self._run())

    def connection_lost(self, error: Exception | None) -> None:
        """The client is gone."""
        self.transport = None
        self._eof = True
        if self._timer is not None:
            self._timer.cancel()
        self._wake()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the next bytes go."""
        return self._buffer[: CHUNK if self._sink else max(1, MAX_INPUT - len(self._input))]

    def buffer_updated(self, nbytes: int) -> None:
        """They are there."""
        if self._sink is None:
            self._take(self._buffer[:nbytes])
        else:
            self._pour(self._sink, nbytes)

    def eof_received(self) -> bool:
        """The client has said all. It shall still get its replies, which TLS cannot do."""
        self._eof = True
        self._wake()
        return not self.secure

    def pause_writing(self) -> None:
        """The client does not take what we write."""
        self._choked = True

    def resume_writing(self) -> None:
        """It has taken some."""
        self._choked = False
        self._wake()

    def _take(self, raw: bytes | memoryview) -> None:
        self._input += raw
        self._news = True
        if len(self._input) >= MAX_INPUT and self.transport is not None:
            self._unread = True
            self.transport.pause_reading()
        self._wake()

    def _pour(self, sink: Sink, nbytes: int) -> None:
        try:
            rest = sink(self._buffer[:nbytes])
        except Exception as error:  # a bug of ours: our place in the stream is lost
            self._failure = error
            self._sink, self._news = None, True
            self._wake()
            return
        self._sunk += nbytes
        if self._sunk >= PROGRESS:
            self._sunk, self.progress = 0, self._loop.time()
        self._until = min(self._last, self._loop.time() + self._idle)
        if rest is not None:
            self._sink = None
            self._take(rest)

    # --- the conversation ------------------------------------------------------------------

    async def _run(self) -> None:
        try:
            await self._converse()
        except (EOFError, OSError):
            pass
        finally:
            self._close()

    async def _line(self) -> bytes:
        """The next command without its CRLF. PermFail: it was none."""
        until = 0.0
        too_long = False
        while (end := self._input.find(b"\r\n")) < 0:
            until = until or self._loop.time() + self._idle
            if len(self._input) >= MAX_LINE:
                too_long = True
                del self._input[:-1]  # the last byte may be the CR of the line's end
            await self._more(until)
        line = bytes(self._input[:end])
        del self._input[: end + 2]
        if too_long or end > MAX_LINE - 2:
            raise PermFail(reply.LINE_TOO_LONG)
        if _STRAY.search(line):
            raise PermFail(reply.BAD_LINE)
        return line

    async def _content(self, sink: Sink, seconds: float) -> None:
        """Let a message flow into a sink up to its end, for so many seconds at most."""
        if self._input:
            waiting = bytes(self._input)
            self._input.clear()
            rest = sink(waiting)
            if rest is not None:
                self._input += rest
                return
        self._last = self._loop.time() + seconds
        self._sunk = 0
        self._sink = sink
        try:
            while self._sink is not None:
                await self._more(min(self._last, self._loop.time() + self._idle))
        finally:
            self._sink = None
        if self._failure is not None:
            raise self._failure

    async def _more(self, until: float) -> None:
        """Wait for what the client sends next, if it does so in time (in the loop's seconds)."""
        self._news = False
        await self._flush()
        if self._news:  # it came while the client was slow to take our replies
            return
        if self.closing or self._eof:
            raise EOFError
        if self._unread and len(self._input) < MAX_INPUT and self.transport is not None:
            self._unread = False
            self.transport.resume_reading()
        self._give_word(until)
        await self._sleep(until - self._idle)
        # what came together with the end is not lost
        if self.closing or (self._eof and not self._news):
            raise EOFError

    async def _flush(self) -> None:
        if self._replies and self.transport is not None:
            self._write(self.transport)
            while self._choked and not self.closing:
                now = self._loop.time()
                self._give_word(now + self._idle)
                await self._sleep(now)

    def _write(self, transport: asyncio.Transport) -> None:
        """Send the replies, and notice when nobody is there to have them."""
        lines = b"\r\n".join([*self._replies, b""])
        self._replies.clear()
        self.lost = self.lost or self._eof
        transport.write(lines)
        self.lost = self.lost or transport.is_closing()

    async def _sleep(self, since: float) -> None:
        """Until something happens; the client has had the word since then."""
        self.since = since
        self._wakeup = self._loop.create_future()
        try:
            await self._wakeup
        finally:
            self._wakeup = None
            self.since = math.inf
            if not self.closing:  # else the client has so much time to take our last words
                self._until = math.inf

    def _wake(self) -> None:
        if self._wakeup is not None and not self._wakeup.done():
            self._wakeup.set_result(None)

    async def _start_tls(self, context: ssl.SSLContext) -> None:
        """Say no more in the clear (RFC 3207). Raises OSError."""
        plain = self.transport
        assert plain is not None
        self.secure = True  # from the handshake on there is no half that could be closed
        self.since, self._shaking = self._loop.time(), True
        try:
            secure = await self._loop.start_tls(
                plain, self, context, server_side=True, ssl_handshake_timeout=HANDSHAKE
            )
        except BaseException:
            self.connection_lost(None)  # of a handshake that fails, asyncio does not tell us
            raise
        finally:
            self.since, self._shaking = math.inf, False
        assert secure is not None
        secure.set_write_buffer_limits(MAX_OUTPUT)
        self.transport = secure

    # --- time and the end ------------------------------------------------------------------

    def _give_word(self, until: float) -> None:
        """Give the client so much time.

        A timer that is set already stays when it goes off before that: it looks by itself
        whether the time is really over. Setting one anew for each line would cost a tenth of
        all that a message takes.
        """
        self._until = until
        if self._timer is None or self._timer.when() > until:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_at(until, self._look_at_clock)

    def _look_at_clock(self) -> None:
        now = self._loop.time()
        self._timer = None
        if now < self._until:
            until = min(self._until, now + self._idle)
            self._timer = self._loop.call_at(until, self._look_at_clock)
        elif self.closing:
            if self.transport is not None:
                self.transport.abort()
        else:
            self._farewell(reply.IDLE)

    def _farewell(self, status: Status) -> None:
        """Say this last, and close."""
        if self.transport is None or self.transport.is_closing():
            return
        if self._shaking:
            self.transport.abort()
        else:
            self._replies.append(reply.line(status))
            self._write(self.transport)
            self._close()

    def _close(self) -> None:
        """Close when all is sent, or when the client does not take it."""
        if self.transport is not None and not self.transport.is_closing():
            self.transport.close()
            self._give_word(self._loop.time() + LINGER)
        self._wake()
