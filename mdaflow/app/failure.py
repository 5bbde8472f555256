"""What became of a recipient for whom a delivery raised: never permanent by accident (P4)."""

from __future__ import annotations

import logging

from mdaflow.deliver.execute import Done
from mdaflow.errors import INTERNAL, MailError, from_oserror

log = logging.getLogger("mdaflow")


def failed(error: Exception, recipient: str) -> Done:
    """The outcome for a recipient. A bug of ours is logged with its traceback."""
    if isinstance(error, MailError):
        outcome = "deferred" if error.status.temporary else "rejected"
        return Done(error.status, outcome, trouble=str(error))
    if isinstance(error, OSError):
        return Done(from_oserror(error).status, "deferred", trouble=str(error))
    log.error("<%s>: internal error", recipient, exc_info=error)
    return Done(INTERNAL, "deferred", trouble="internal error")
