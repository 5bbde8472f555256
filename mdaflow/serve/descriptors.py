"""Descriptors (RLIMIT_NOFILE): as many as we may have, and no more connections than they allow."""

from __future__ import annotations

import logging
import resource
from contextlib import suppress
from dataclasses import replace

from ..app.config import Config

log = logging.getLogger("mdaflow")

ENOUGH = 65_536
"""No process of ours needs more; what walks through all of them does not take for ever."""
CONNECTION = 2
"""Of each connection: its socket and the file that its message is spooled to."""
THREAD = 10
"""Of each delivering thread: mailboxes, locks, the store, programs, the next MTA."""
REST = 64
"""Of a worker: the event loop, what it listens on, logs, libraries."""


def raise_limit() -> None:
    """Let this process and its children have as many as it may give itself."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = ENOUGH if hard == resource.RLIM_INFINITY else min(hard, ENOUGH)
    if soft != resource.RLIM_INFINITY and soft < most:
        with suppress(OSError, ValueError):  # then there are fewer connections
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def fitted(config: Config) -> Config:
    """The configuration with no more connections than a worker has descriptors for."""
    limit, lmtp = resource.getrlimit(resource.RLIMIT_NOFILE)[0], config.lmtp
    room = max(1, (limit - REST - THREAD * lmtp.threads) // CONNECTION)
    if limit == resource.RLIM_INFINITY or room >= lmtp.max_connections:
        return config
    log.warning(
        "%d descriptors (LimitNOFILE=) are not enough for %d connections, a worker takes %d",
        *(limit, lmtp.max_connections, room),
    )
    return replace(config, lmtp=replace(lmtp, max_connections=room))
