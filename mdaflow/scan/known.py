"""Comparison with known spam: is this a message that somebody has called spam, or like one?

What is known are the messages of folders (a site's collection, a user's Junk), by their prints
(see prints.py), in an index that follows the folders (see index.py). It is no proof of anything:
whoever puts a message into Junk by mistake makes the next one of its kind known, until it is taken
out again.
"""

from __future__ import annotations

from collections.abc import Sequence

from mdaflow.mail.message import Message

from . import Hit
from .index import PAUSE, Index
from .letters import Folder
from .prints import DISTANCE, MAX_MESSAGE, Print, distance, prints

MOST = 200_000
"""Messages that are known."""
HITS = {
    "exact": Hit("KNOWN_SPAM_EXACT", 0.0, "a text or an attachment is that of known spam"),
    "alike": Hit("KNOWN_SPAM_ALIKE", 0.0, "a text is nearly that of known spam"),
}
"""What `known_spam` finds, as a test; how much it counts is not said here."""


def spam_index(
    path: str, folders: Sequence[Folder], *, most: int = MOST, pause: float = PAUSE
) -> Index:
    """The index of folders of spam in the file `path`."""
    return Index(path, folders, _prints, most=most, head=MAX_MESSAGE + 1, pause=pause)


def known_spam(message: Message, *indexes: Index) -> str:
    """`exact` or `alike`: what a message is to known spam; empty for neither.

    Raises OSError when an index cannot be read.
    """
    wanted = prints(message)
    same, similar = [p for p in wanted if not p[1]], [p for p in wanted if p[1]]
    if same and any(index.has(same) for index in indexes):
        return "exact"
    looks, values = {look for look, _ in similar}, {value for _, value in similar}
    found = {value for index in indexes for value in index.values(looks)} if looks else set()
    return "alike" if any(distance(a, b) <= DISTANCE for a in found for b in values) else ""


def _prints(raw: bytes) -> list[Print]:
    return prints(Message.from_wire(raw))
