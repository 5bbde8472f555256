"""The bytes behind DATA, read in chunks of any size (RFC 5321 sections 4.1.1.4 and 4.5.2).

Only CRLF . CRLF ends a message, or . CRLF as the very first thing. Nothing else does: bare CR,
bare LF, NUL and lines of any length are content and come out as they went in, so that no two
servers can see different ends (SMTP smuggling). A dot that begins a line behind CRLF is
removed, and then each CRLF becomes LF. In that order: a dot behind a bare LF stays.

Theory: the stream is taken as if a CRLF stood before it, which makes both ends one. What
could be the beginning of an end is held back until the next chunk. Everything else is
converted at once and handed on, so a message costs as much as where it is handed to.

This file does no I/O.
"""

from __future__ import annotations

import re
from collections.abc import Callable

_END = b"\r\n.\r\n"
_DOT = re.compile(rb"\r\n\.")  # `re` looks for a literal three times as fast as `in` does


class DataReader:
    """Takes chunks until the end of the message, and gives `store` what it says."""

    def __init__(self, store: Callable[[bytes], None]) -> None:
        self._store = store
        self._held = b"\r\n"
        self._started = False
        self.size = 0
        """Bytes so far, with CRLF, without stuffed dots (RFC 1870)."""

    def feed(self, chunk: bytes | memoryview) -> bytes | None:
        """Take the next bytes. None: more, please. Else the end was seen: what follows it."""
        window = self._held + chunk
        dot = _DOT.search(window)
        end = window.find(_END, dot.start()) if dot else -1
        cut = end + 2 if end >= 0 else len(window) - _beginning_of_end(window)
        block = window[:cut]
        self._give(block.replace(b"\r\n.", b"\r\n") if dot else block)
        self._held = window[cut:]
        return None if end < 0 else self._held[3:]

    def _give(self, block: bytes) -> None:
        if not self._started and block:
            self._started = True
            block = block[2:]  # the CRLF that was not sent
        self.size += len(block)
        self._store(block.replace(b"\r\n", b"\n"))


def _beginning_of_end(window: bytes) -> int:
    """How many of the last bytes may be the beginning of an end: 0 to 4."""
    tail = window[-4:]
    return next((n for n in range(len(tail), 0, -1) if _END.startswith(tail[-n:])), 0)
