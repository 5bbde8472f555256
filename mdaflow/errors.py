"""The replies of the field, and the exceptions of mdaflow.

A `Status` is an SMTP reply with an enhanced code (RFC 5321 section 4.2, RFC 3463). A leaf
that fails raises `TempFail` or `PermFail` made from one; only the pipeline catches them,
once per recipient. The text of a Status leaves the machine: it is short and names no path.
The cause goes to the log.
"""

from __future__ import annotations

import errno
import sys
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Status:
    """One reply: `code` (RFC 5321), `enhanced` (RFC 3463) and a short text."""

    code: int
    enhanced: str
    text: str

    @property
    def ok(self) -> bool:
        """The message is in our care (2xx)."""
        return self.code < 300

    @property
    def temporary(self) -> bool:
        """The peer shall try again (4xx)."""
        return 400 <= self.code < 500

    def __str__(self) -> str:
        return f"{self.code} {self.enhanced} {self.text}"


SAVED = Status(250, "2.0.0", "Saved")
RECIPIENT_OK = Status(250, "2.1.5", "Recipient ok")
LOCKED = Status(451, "4.2.0", "Mailbox locked, try again later")
NO_ANSWER = Status(451, "4.2.0", "Mailbox does not answer, try again later")
INTERNAL = Status(451, "4.3.0", "Internal error, try again later")
UNDERWAY = Status(451, "4.3.0", "This message is being delivered, try again later")
TOO_SLOW = Status(451, "4.3.0", "Delivery took too long, try again later")
DEFERRED = Status(451, "4.7.1", "Deferred by rule")
UNSCANNED = Status(451, "4.7.1", "Content cannot be checked now, try again later")
OVER_QUOTA = Status(452, "4.2.2", "Over quota, try again later")
DISK_FULL = Status(452, "4.3.1", "Insufficient storage, try again later")
SHUTTING_DOWN = Status(421, "4.3.2", "Shutting down, try again later")
UNKNOWN_USER = Status(550, "5.1.1", "No such user here")
REJECTED = Status(550, "5.7.1", "Rejected by rule")
LOOP = Status(554, "5.4.6", "Mail loop detected")
MAILBOX_FULL = Status(552, "5.2.2", "Mailbox is full")
TOO_BIG = Status(552, "5.3.4", "Message too big")


class MdaflowError(Exception):
    """The root of what mdaflow raises."""


class MailError(MdaflowError):
    """A delivery that did not happen: `status` is the reply, the message is for our log.

    `done` are those of several targets who have the mail all the same.
    """

    def __init__(self, status: Status, cause: str = "", done: tuple[str, ...] = ()) -> None:
        super().__init__(cause or status.text)
        self.status = status
        self.done = done


class TempFail(MailError):
    """The same delivery may work later: a 4xx reply, exit code 75."""


class PermFail(MailError):
    """The same delivery can never work: a 5xx reply."""


class ConfigError(MdaflowError):
    """The configuration cannot be used; each problem is one line for its author."""

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def install(extra: str) -> str:
    """How to install what an extra of ours needs, beside this program."""
    return f"{sys.prefix}/bin/pip install 'mdaflow[{extra}]'"


# P4: whatever the system says, the message can come again. What is not here is INTERNAL.
_BY_ERRNO: dict[int, Status] = {
    errno.ENOSPC: DISK_FULL,
    errno.EFBIG: DISK_FULL,
    errno.EDQUOT: OVER_QUOTA,
    errno.EAGAIN: LOCKED,
    errno.EDEADLK: LOCKED,
    errno.ENOLCK: LOCKED,
}


def from_oserror(error: OSError) -> TempFail:
    """The temporary failure that a system call's error stands for (P4)."""
    status = _BY_ERRNO.get(error.errno or 0, INTERNAL)
    return TempFail(status, f"{error.strerror or error}: {error.filename or ''}".rstrip(": "))
