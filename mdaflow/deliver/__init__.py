"""The actions of a Plan made real, one file each: prepare, then commit or abort.

A mailbox has one of the `FORMATS`. `prepare` writes a message beside it or at its end, safe on
the disk and not yet visible; `commit` of what it returns makes the message visible, `abort`
takes it back.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from mdaflow.deliver import maildir, mbox
from mdaflow.deliver.mailbox import Chunks, Mailbox, Prepared, in_spool


def _maildir(
    mailbox: Mailbox,
    folder: str,
    chunks: Chunks,
    flags: Collection[str],
    _sender: str,
    received: float,
    expire: float | None,
) -> Prepared:
    # A Maildir keeps sender and arrival nowhere but in the trace header fields.
    deadline = None if expire is None else received + expire
    return maildir.prepare(mailbox, folder, chunks, flags, deadline)


FORMATS: dict[
    str,
    Callable[[Mailbox, str, Chunks, Collection[str], str, float, float | None], Prepared],
] = {
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
    expire: float | None = None,
) -> Prepared:
    """A message that waits to be stored in a folder; the caller commits or aborts it.

    `chunks` together are the message with LF line ends, `flags` names from `FLAGS` or keywords,
    `sender` the reverse-path ("" for the null sender), `received` seconds since the epoch,
    `expire` the seconds from then on after which the message may be deleted; None for never.

    Raises TempFail for whatever the system refuses, PermFail for a folder name that cannot be
    one, one of both for a quota, ValueError for a flag that is none. Then nothing is left behind,
    but perhaps the name of a keyword.
    """
    mailbox, folder = in_spool(mailbox, folder) or (mailbox, folder)
    if mailbox.spooler is not None and mailbox.owned:
        return mailbox.spooler(mailbox, chunks, flags, sender, received)
    return FORMATS[mailbox.format](mailbox, folder, chunks, flags, sender, received, expire)
