"""What is held in the quarantine: to be looked at, and taken out.

The name of a message is that of its envelope (see quarantine.py), which it has in its first line;
nowhere else does the field count. One without that line has the name of its file.

Nothing in there is believed. What is no plain file is not seen, links are not followed, an envelope
is read up to `MAX_NOTE`, and one that is broken is as good as none. Whoever takes a message out, or
deletes it, has it locked (flock(2)): so of two who release it at once one does. It goes first, then
its envelope; a crash between leaves an envelope without a message (see retention.py).
"""

from __future__ import annotations

import fcntl
import json
import logging
import math
import os
import re
import stat
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, NamedTuple

from mdaflow.errors import LOCKED, MdaflowError, TempFail
from mdaflow.mail.envelope import Client, Envelope
from mdaflow.mail.message import Message
from mdaflow.mail.trace import stored

from .mailbox import open_directory, temporary_failures
from .quarantine import ENVELOPES, FIELD

MAX_NOTE = 64 << 10
"""Bytes of an envelope."""
MAX_MESSAGE = 1 << 30
"""Bytes of a message."""
GLANCE = 64 << 10
"""Bytes of a message that are enough to say what it is."""
SHORTEST = 4
"""Characters of a name by which a message can be called."""
PARTS = ("new", "cur")
"""Where messages are, in this order: they move only from the first to the second."""
NOTE = re.compile(r"([0-9a-f]{24})\.json")
"""The file of an envelope."""

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_LOCK = _READ | os.O_RDWR  # for NFS, which locks only what may be written
_FIRST = re.compile(rb"%b: ([0-9a-f]{24})\n" % FIELD.encode())
_OURS = re.compile(r"[0-9a-f]{24}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_TEXTS = ("sender", "recipient", "original", "queue_id", "why", "rule", "where")

log = logging.getLogger("mdaflow")


class NotHeld(MdaflowError):
    """There is no such message, or not one alone."""


class Held(NamedTuple):
    """A message in the quarantine, as its directory shows it."""

    folder: str
    """Whose it is: `quarantine.component` of an address."""
    part: str
    """`new` or `cur`."""
    file: str
    put: float
    """When it was written, in seconds since the epoch."""
    changed: float
    """When anything of it was changed last, its flags counted."""
    size: int
    """Bytes, with what we have put before it."""


class Note(NamedTuple):
    """An envelope, and why its message is here."""

    envelope: Envelope
    why: str
    rule: str
    where: str
    """File, line and column of the rule."""


class Entry(NamedTuple):
    """What is known of a message."""

    name: str
    held: Held
    note: Note | None
    trouble: str
    """Why there is no note; empty when there is."""
    message: Message
    """Its beginning, or all of it, without what we have put before it."""

    @property
    def short(self) -> str:
        """Enough of the name to call it by."""
        return self.name[:12] if _OURS.fullmatch(self.name) else self.name

    @property
    def since(self) -> float:
        """When it came: by the envelope, else by the file."""
        return self.note.envelope.received if self.note else self.held.put


def held(root: str, folder: str = "") -> list[Held]:
    """All messages in the quarantine, or in one folder of it, those that came last first.

    What is no folder has none. Raises TempFail when the quarantine cannot be read.
    """
    names = [folder] if folder else folders(root)
    found = [each for name in names for each in messages(root, name)]
    found.sort(key=lambda each: (each.put, each.file), reverse=True)
    return found


def folders(root: str) -> list[str]:
    """The folders of the quarantine. Raises TempFail."""
    with temporary_failures(), os.scandir(root) as entries:
        return sorted(e.name for e in entries if e.is_dir(follow_symlinks=False))


def messages(root: str, folder: str) -> Iterator[Held]:
    """The messages in one folder."""
    for part in PARTS:
        try:
            with directory(root, folder, part) as here, os.scandir(here) as entries:
                for entry in entries:
                    about = entry.stat(follow_symlinks=False)
                    if stat.S_ISREG(about.st_mode) and not entry.name.startswith("."):
                        times = about.st_mtime, max(about.st_mtime, about.st_ctime)
                        yield Held(folder, part, entry.name, *times, about.st_size)
        except FileNotFoundError:
            continue
        except OSError as error:  # it is none of ours, and the others are
            log.warning("%s/%s/%s: %s", root, folder, part, error.strerror)


@contextmanager
def directory(root: str, *names: str) -> Iterator[int]:
    """A descriptor of a folder below the quarantine. Raises OSError."""
    here = open_directory(root, names, make=False)
    try:
        yield here
    finally:
        os.close(here)


# --- one message -------------------------------------------------------------------------------


def named(root: str, all_held: Sequence[Held]) -> Iterator[tuple[str, Held]]:
    """The names of messages; of those that are still there."""
    for each in all_held:
        with suppress(OSError), _opened(root, each) as file:
            yield _name(os.pread(file, 100, 0), each), each


def chosen(names: Collection[tuple[str, Held]], said: str) -> Held:
    """The only message whose name begins so. Raises NotHeld."""
    found = [(name, each) for name, each in names if name.startswith(said)]
    exact = [each for name, each in found if name == said]
    if len(exact) == 1:
        return exact[0]
    if len(said) < SHORTEST and said:
        raise NotHeld(f"{said!r} is too short: say {SHORTEST} characters of the name or more")
    if not said or not found:
        raise NotHeld(f"{said!r}: no message in quarantine is called so")
    if len(found) > 1:
        several = ", ".join(sorted(name for name, _ in found)[:10])
        raise NotHeld(f"{said!r} is the beginning of {len(found)} names: {several}")
    return found[0][1]


def look(root: str, each: Held, most: int = GLANCE) -> Entry:
    """What there is to know of a message, `most` bytes of it. Raises NotHeld, TempFail."""
    with _there(root, each), _opened(root, each) as file:
        return _entry(root, each, _content(file, most))


@contextmanager
def _there(root: str, each: Held) -> Iterator[None]:
    try:
        with temporary_failures():
            yield
    except TempFail as error:
        if isinstance(error.__cause__, FileNotFoundError):
            raise NotHeld(f"{each.folder}/{each.part}/{each.file} is not there any more") from error
        raise


@contextmanager
def _opened(root: str, each: Held, flags: int = _READ) -> Iterator[int]:
    with directory(root, each.folder, each.part) as here:
        file = os.open(each.file, flags, dir_fd=here)
    try:
        about = os.fstat(file)
        if not stat.S_ISREG(about.st_mode) or about.st_size > MAX_MESSAGE:
            raise OSError(f"{each.file} is no message")
        yield file
    finally:
        os.close(file)


def _content(file: int, most: int) -> bytes:
    with open(file, "rb", closefd=False) as content:
        return content.read(most)


def _name(raw: bytes, each: Held) -> str:
    first = _FIRST.match(raw)
    return first[1].decode() if first else each.file.partition(":")[0].partition(",")[0]


def _entry(root: str, each: Held, raw: bytes) -> Entry:
    name = _name(raw, each)
    note, trouble = None, "it has no envelope"
    if _FIRST.match(raw):
        try:
            note, trouble = read_note(root, each.folder, name), ""
        except OSError as error:
            trouble = f"the envelope cannot be read: {error.strerror or error}"
        except (ValueError, RecursionError):
            trouble = "the envelope is broken"
    return Entry(name, each, note, trouble, Message(b"".join(stored(Message(raw), b""))))


def read_note(root: str, folder: str, name: str) -> Note:
    """The envelope of a name. Raises OSError; ValueError and RecursionError for what is none."""
    with directory(root, folder, ENVELOPES) as here:
        file = os.open(f"{name}.json", _READ, dir_fd=here)
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise OSError("no plain file")
        return _parsed(_content(file, MAX_NOTE + 1))
    finally:
        os.close(file)


def _parsed(raw: bytes) -> Note:
    said: Any = json.loads(raw) if len(raw) <= MAX_NOTE else None
    if not isinstance(said, dict):
        raise ValueError("no note")
    texts = {name: _text(said.get(name, "")) for name in _TEXTS}
    client = said.get("client")
    client = client if isinstance(client, dict) else {}
    received = said.get("received")
    if not isinstance(received, int | float) or not 0 <= received < math.inf:
        raise ValueError("no time")
    sender, recipient, original, queue_id, why, rule, where = texts.values()
    if not recipient or any(map(_CONTROL.search, (sender, recipient, original, queue_id))):
        raise ValueError("no address")
    who = Client(*(_text(client.get(name, "")) for name in ("ip", "name", "helo")))
    envelope = Envelope(sender, recipient, original, who, queue_id, received=float(received))
    return Note(envelope, why, rule, where)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("no text")
    return value


# --- taking it out -----------------------------------------------------------------------------


class Taken:
    """A message that is ours alone until it is let go."""

    def __init__(self, root: str, each: Held, file: int) -> None:
        self._root = root
        self._each = each
        self._file = file

    def entry(self) -> Entry:
        """All of it. Raises TempFail."""
        with temporary_failures():
            return _entry(self._root, self._each, _content(self._file, MAX_MESSAGE))

    def remove(self, name: str) -> None:
        """Delete the message, and then its envelope, which has its name; that may stay, and is
        found later. Raises TempFail."""
        each = self._each
        with temporary_failures(), directory(self._root, each.folder, each.part) as part:
            os.unlink(each.file, dir_fd=part)
            with suppress(OSError):
                os.fsync(part)  # or after a crash it might be there without its envelope
                if _OURS.fullmatch(name):
                    with directory(self._root, each.folder, ENVELOPES) as envelopes:
                        os.unlink(f"{name}.json", dir_fd=envelopes)


@contextmanager
def taken(root: str, each: Held) -> Iterator[Taken]:
    """A message that nobody else can take meanwhile.

    Raises NotHeld when it is not there any more; TempFail when somebody else has it.
    """
    with ExitStack() as stack:
        with _there(root, each):
            file = stack.enter_context(_opened(root, each, _LOCK))
            _lock(root, each, file)
        yield Taken(root, each, file)


def _lock(root: str, each: Held, file: int) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise TempFail(LOCKED, f"{each.file}: somebody else is at this message") from None
    with directory(root, each.folder, each.part) as here:
        now = os.stat(each.file, dir_fd=here, follow_symlinks=False)
    if not os.path.samestat(now, os.fstat(file)):
        raise FileNotFoundError(each.file)
