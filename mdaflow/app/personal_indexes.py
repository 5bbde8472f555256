"""What is known from a user's own mail: whom the user has written to, and what the user calls spam.

Both are indexes beside the user's rules that follow folders of the mailbox, and are read and
written by whoever delivers the user's mail, with the user's rights. A dry run looks and changes
nothing. A home that belongs to somebody else tells nothing.

Known limit: folders of an mbox or a Maildir below the home are followed, no others.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from mdaflow.errors import PermFail
from mdaflow.route.users import User

from .homes import is_foreign
from .personal_lists import JUNK

if TYPE_CHECKING:  # most mail asks for neither
    from mdaflow.scan.index import Index
    from mdaflow.scan.letters import Folder

SENT = ("Sent", "Sent Items", "Sent Messages")
"""The folders of sent mail, as mail programs call them."""
MAX_OPEN = 64
"""Indexes that one process has open."""


class PersonalIndexes:
    """The indexes of all users; `rules` is the path of a user's rules below the user's folder.

    `sent` and `junk` are names of folders, as rules write them.
    """

    def __init__(
        self, rules: str, sent: Sequence[str] = SENT, junk: Sequence[str] = (JUNK,)
    ) -> None:
        self._folder = os.path.dirname(rules)
        self._names = {"known-senders": tuple(sent), "known-spam": tuple(junk)}
        self._open: OrderedDict[tuple[str, str], Index] = OrderedDict()
        self._lock = threading.Lock()

    def senders(self, user: User, *, really: bool) -> Index | None:
        """To whom a user has written; None when nothing can be known. `really`: it is brought up
        to date, for some milliseconds. Raises OSError."""
        from mdaflow.scan.senders import sent_index

        return self._get(user, "known-senders", sent_index, really)

    def spam(self, user: User, *, really: bool) -> Index | None:
        """What a user calls spam; the same otherwise."""
        from mdaflow.scan.known import spam_index

        return self._get(user, "known-spam", spam_index, really)

    def _get(
        self, user: User, name: str, make: Callable[[str, list[Folder]], Index], really: bool
    ) -> Index | None:
        if is_foreign(user):
            return None
        key, gone = (user.home, name), []
        with self._lock:
            if key not in self._open:
                path = os.path.join(user.home, self._folder, name)
                self._open[key] = make(path, _folders(user, self._names[name]))
            self._open.move_to_end(key)
            found = self._open[key]
            while len(self._open) > MAX_OPEN:
                gone.append(self._open.popitem(last=False)[1])
        for index in gone:
            index.close()
        if really:
            found.refresh()
        return found


def _folders(user: User, names: Sequence[str]) -> list[Folder]:
    """Where the folders are; those that cannot be in this mailbox are left out."""
    from mdaflow.deliver.mailbox import locate, parse_mailbox
    from mdaflow.scan.letters import Folder

    mailbox, found = parse_mailbox(user.mailbox, user.home), list[Folder]()
    for name in names:
        with suppress(PermFail):
            found.append(Folder(user.home, locate(mailbox, name)))
    return found
