"""Learning from what a user moves: into the folder for spam, and out of it again.

A pass goes through the folders of a Maildir and looks at the messages that came to them since the
pass before:

- in the folder for spam, a message is learned as spam, unless a field of it says that a filter had
  found it to be spam (`X-Spam-Flag`, `X-Spam-Status`): then nobody has moved it. Either way it is
  remembered for 90 days that it was there;
- in any other folder, a message of which that is remembered is learned as ham, and no longer
  remembered. Folders for what is deleted, written or sent do not count, nor does the folder in
  which it was remembered: with another setting that one is no longer for spam, and nobody has
  moved what is in it.

The first pass only looks into the folder for spam. A folder in which nothing changed is not read.
What a user has moved is learned for that user.

Known limits: a message that comes and goes between two passes is not seen; only Maildir++ has
folders that are looked at; where no filter marks spam, what rules put into the folder is learned.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterator
from contextlib import ExitStack, suppress

from mdaflow.deliver.census import folders
from mdaflow.deliver.mailbox import Mailbox, locate, open_directory, open_existing
from mdaflow.mail.message import Message
from mdaflow.scan.bayes import Counts, lesson, name_of
from mdaflow.store import Store

from .collection import MAX_MESSAGE
from .learn import Learned

REMEMBERED = 90 * 86_400.0
"""Seconds for which a message is known to have been in the folder for spam."""
SLACK = 60.0
"""Seconds by which the clock of a file server may be behind."""

_LAST = "moved pass"
_NEITHER = ("Drafts", "Sent", "Sent Items", "Outbox")
_OPEN = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY | os.O_NOFOLLOW


def learn_moved(
    mailbox: Mailbox,
    counts: Counts,
    store: Store,
    junk: str,
    now: float,
    trash: Collection[str] = (),
) -> Iterator[tuple[bool, Learned]]:
    """Learn from what was moved until `now`, in seconds since the epoch, since the last pass: as
    spam (True) or as ham. `trash` are the folders for what is deleted. Raises OSError, and PermFail
    for a folder that can be none."""
    last = float(store.get(_LAST) or "0")
    last = last if last <= now else 0.0  # a clock was set: all is looked at once more
    if mailbox.format != "maildir" or mailbox.layout:
        return
    spam = locate(mailbox, junk)[-1]
    nothing = (spam, *(locate(mailbox, name)[-1] for name in (*trash, *_NEITHER)))
    with ExitStack() as stack:
        try:
            root = open_directory(mailbox.home, locate(mailbox, ""), make=False)
        except FileNotFoundError:  # nothing was delivered yet
            return
        stack.callback(os.close, root)
        yield from _in_junk(_came(root, spam, last - SLACK), spam, counts, store)
        for folder in folders(root) if last else ():
            if not any(f"{folder}.".startswith(f"{name}.") for name in nothing):
                yield from _elsewhere(_came(root, folder, last - SLACK), folder, counts, store)
    store.put(_LAST, str(now))


def _in_junk(
    messages: Iterator[tuple[str, Message]], spam: str, counts: Counts, store: Store
) -> Iterator[tuple[bool, Learned]]:
    for path, message in messages:
        key = _key(message)
        if store.get(key) is None:
            if not _marked(message) or counts.class_of(name_of(message)) is False:
                [new] = counts.learn([lesson(message, True)])
                yield True, Learned(path, message.size, new)
            store.put(key, spam, REMEMBERED)


def _elsewhere(
    messages: Iterator[tuple[str, Message]], folder: str, counts: Counts, store: Store
) -> Iterator[tuple[bool, Learned]]:
    for path, message in messages:
        key = _key(message)
        if store.get(key) not in (None, folder):
            [new] = counts.learn([lesson(message, False)])
            yield False, Learned(path, message.size, new)
            store.put(key, "", 0.0)


def _key(message: Message) -> str:
    return f"junk {name_of(message).hex()}"


def _marked(message: Message) -> bool:
    """A filter has found it to be spam."""
    said = (*message.header("X-Spam-Flag")[:1], *message.header("X-Spam-Status")[:1])
    return any(value.casefold().startswith("yes") for value in said)


def _came(root: int, folder: str, since: float) -> Iterator[tuple[str, Message]]:
    """The messages that came to a folder since then, or were given other flags."""
    for part in ("new", "cur"):
        with ExitStack() as stack, suppress(FileNotFoundError):
            maildir = open_existing(root, folder)
            stack.callback(os.close, maildir)
            directory = open_existing(maildir, part)
            stack.callback(os.close, directory)
            if os.fstat(directory).st_mtime >= since:
                for name in sorted(_changed(directory, since)):
                    with suppress(OSError):  # it has another name by now, or is none of the user's
                        yield f"{folder}/{part}/{name}", _read(directory, name)


def _changed(directory: int, since: float) -> Iterator[str]:
    with os.scandir(directory) as entries:
        for entry in entries:
            with suppress(FileNotFoundError):
                about = entry.stat(follow_symlinks=False)
                if stat.S_ISREG(about.st_mode) and about.st_ctime >= since:
                    yield entry.name


def _read(directory: int, name: str) -> Message:
    with open(os.open(name, _OPEN, dir_fd=directory), "rb") as file:
        return Message.from_wire(file.read(MAX_MESSAGE))
