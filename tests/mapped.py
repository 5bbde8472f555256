"""Messages that wait in a file without a name, as a server has them."""

from __future__ import annotations

import mmap
import tempfile
from collections.abc import Iterable

from mdaflow.mail.raw import Raw


def mapped(*chunks: bytes) -> Raw:
    """A mapping of a file that has these bytes; `bytes` if there are none."""
    return mapped_from(chunks)


def mapped_from(chunks: Iterable[bytes]) -> Raw:
    """The same of many chunks, which are not in memory together."""
    with tempfile.TemporaryFile() as file:
        size = sum(map(file.write, chunks))
        file.flush()
        return mmap.mmap(file.fileno(), size, prot=mmap.PROT_READ) if size else b""
