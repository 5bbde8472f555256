"""Media types of attachments by their content, from libmagic.

libmagic is C code that reads hostile bytes, and one cookie must not be used by two threads
(T15): each thread has its own and sees the first 64 KiB. Without libmagic, or when it fails,
the types are unknown.
"""

from __future__ import annotations

import logging
import threading
from functools import cache
from typing import Any

from mdaflow.engine.context import Fact

LOOK_AT = 64 << 10
"""Bytes of an attachment that are looked at."""
MAX_ATTACHMENTS = 100

log = logging.getLogger("mdaflow")
_thread = threading.local()


@cache
def available() -> bool:
    """Is libmagic there? Says once what to do when it is not."""
    try:
        import magic  # noqa: F401
    except ImportError:
        log.warning(
            "libmagic is missing, so attachment.type is unknown; "
            "install it: apt-get install libmagic1"
        )
        return False
    return True


def attachment_types(fact: Fact) -> list[str] | None:
    """The type of each attachment, e.g. `application/pdf`; None when it cannot be told.

    Those beyond `MAX_ATTACHMENTS` have an empty one (P48).
    """
    if not available():
        return None
    attachments = fact.message.attachments
    parts, unseen = attachments[:MAX_ATTACHMENTS], len(attachments[MAX_ATTACHMENTS:])
    try:
        # base64 takes a third more, and lines: twice as much is enough
        seen = [_cookie().from_buffer(p.content(2 * LOOK_AT)[:LOOK_AT]) for p in parts]
        return seen + [""] * unseen  # so that `every` does not hold for what nobody looked at
    except Exception as error:  # python-magic has its own, known only once it is imported
        log.warning("libmagic failed: %s", error)
        return None


def _cookie() -> Any:
    if not hasattr(_thread, "magic"):
        import magic

        _thread.magic = magic.Magic(mime=True)
    return _thread.magic
