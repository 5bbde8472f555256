"""The actions of a Plan made real, one file each: prepare, then commit or abort.

A mailbox has one of the `FORMATS`. `prepare` writes a message beside it or at its end, safe on
the disk and not yet visible; `commit` of what it returns makes the message visible, `abort`
takes it back.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from mdaflow.deliver import maildir, mbox
from mdaflow.deliver.mailbox import Chunks, Mailbox, Prepared


def _maildir(
    mailbox: Mailbox,
    folder: str,
    chunks: Chunks,
    flags: Collection[str],
    _sender: str,
    _received: float,
) -> Prepared:
    # A Maildir keeps sender and arrival nowhere but in the trace header fields.
    return maildir.prepare(mailbox, folder, chunks, flags)


FORMATS: dict[str, Callable[[Mailbox, str, Chunks, Collection[str], str, float], Prepared]] = {
    "maildir": _maildir,
    "mbox": mbox.prepare,
}


def prepare(
    mailbox: Mailbox,
    folder: str,
    chunks: Chunks,
    flags: Collection[str],
    sender: str,
    received: float,
) -> Prepared:
    """A message that waits to be stored in a folder; the caller commits or aborts it.

    `chunks` together are the message with LF line ends, `flags` names from `FLAGS`, `sender`
    the reverse-path ("" for the null sender), `received` seconds since the epoch.

    Raises TempFail for whatever the system refuses, PermFail for a folder name that cannot be
    one, ValueError for an unknown flag. Then nothing is left behind.
    """
    return FORMATS[mailbox.format](mailbox, folder, chunks, flags, sender, received)
