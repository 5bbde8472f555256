"""The mailbox of a user: where its folders are, and the way into them.

`parse_mailbox` reads a mailbox from text like Dovecot's `mail_location`. `locate` is the one place
that maps a folder name to a path. The rest is what the formats share: directories are entered
one by one and never through a symbolic link, so that no path leads out of the home directory
(P28); what is missing is made with mode 0700, what exists keeps its mode (P21).

A folder name has `/` between its components, or what `SEPARATOR=` says, as a namespace of Dovecot's
does: `lists.dev`. No component has a `/` or that character in it. Maildir++ keeps `lists/dev` in
the directory `.lists.dev`, a Maildir with `LAYOUT=fs` in the directory `lists/dev`, mbox in the
file `lists/dev`. On disk they use modified UTF-7 (RFC 3501 section 5.1.3), or with `UTF-8` that, as
Dovecot does. `INBOX`, in any case, or the empty name is the inbox.

What an administrator names by an absolute path, `mbox:/path/file` or `maildir:/path`, is a mailbox
of its own: `elsewhere`. Its parents are trusted, and followed; the last component is no link. So is
an inbox in the spool of the system, `mbox:mail:INBOX=/var/mail/bob`: `in_spool`. As everybody may
have put a file there, it has to be owned by whom we are.

Known limits: a `.` inside a component cannot exist in Maildir++ and is stored as `-`. An mbox
that is a file has no folders below it.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from typing import Any, NamedTuple, NoReturn, Protocol

from mdaflow.deliver.spelling import modified_utf7
from mdaflow.errors import OVER_QUOTA, PermFail, Status, from_oserror
from mdaflow.mail.raw import PIECE, pieces

Chunk = bytes | memoryview
Chunks = Sequence[Chunk]

BAD_FOLDER = Status(554, "5.3.0", "Bad folder name")
DEEPEST = 16
"""Components of a folder name."""

_LONGEST = 255  # bytes of a file name
_LONGEST_PATH = 1024  # bytes of a path below the mailbox: readers open whole paths (PATH_MAX)
_CONTROLS = r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]"
_UNSAFE = re.compile(_CONTROLS)
_UNSAFE_COMPONENT = re.compile(_CONTROLS + r"|[\\/]|\A(?:\.|\Z)")
_ELSEWHERE = re.compile(r"(mbox|maildir):(/.*)", re.DOTALL)
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_NEVER = (errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG)
_BATCH = 64  # chunks of one system call


class Prepared(Protocol):
    """A message that is written and waits: `commit` or `abort`, once.

    A commit that fails has cleaned up as abort does. Abort never raises, and does nothing
    where there is nothing to take back.
    """

    @property
    def where(self) -> str:
        """Format and folder for the log: `maildir INBOX`."""

    def commit(self) -> None:
        """Make the message visible; when this returns, it is on the disk. Raises TempFail."""

    def abort(self) -> None:
        """Take everything back."""


class Quota(NamedTuple):
    """How much mail a Maildir may hold (see quota.py); 0 is no limit."""

    bytes: int = 0
    messages: int = 0
    over: Status | None = OVER_QUOTA
    """The reply to a message that has no room; None: mail is only counted."""

    @property
    def limits(self) -> tuple[int, int]:
        """Bytes and messages."""
        return self.bytes, self.messages


Spooler = Callable[["Mailbox", Chunks, Collection[str], str, float], Prepared]
"""Prepares a message in the inbox of a mailbox in the spool: flags, sender and arrival are those of
`mdaflow.deliver.prepare`, and so is what it raises."""


@dataclass(frozen=True, slots=True)
class Mailbox:
    """The mailbox of one user. Paths are relative to `home`, which has to exist."""

    format: str
    """`maildir` or `mbox`."""
    home: str
    path: str
    """The Maildir, or the directory of the mbox files."""
    inbox: str = ""
    """mbox: the file that is the inbox, perhaps an absolute path; empty for `inbox` in `path`."""
    name: str = "INBOX"
    """What the inbox is called in the log and the reply."""
    layout: str = ""
    """Maildir: `fs` for a directory in another, as mbox has it; empty for Maildir++."""
    utf8: bool = False
    """Folders have their names in UTF-8 on the disk."""
    separator: str = "/"
    """What is between the components of a folder name."""
    subscribe: bool = False
    """New folders are added to Dovecot's list of subscriptions."""
    quota: Quota | None = None
    owned: bool = False
    """mbox: a file has to be owned by whom we are."""
    spooler: Spooler | None = None
    """Who writes to the inbox in the spool of the system, where we may not; None: we do."""


@lru_cache(1024)
def parse_mailbox(spec: str, home: str, quota: Quota | None = None) -> Mailbox:
    """The mailbox that `maildir:PATH`, `mbox:PATH` or `mbox:PATH:INBOX=FILE` describes, with the
    options of `_OPTIONS` behind it, each after a `:`.

    A `quota` is for a Maildir only. Raises ValueError with a text for the one who wrote it.
    """
    kind, _, rest = spec.partition(":")
    if kind not in _FORMATS:
        raise ValueError(f"unknown mailbox {spec!r}: it is maildir:PATH or mbox:PATH")
    if quota is not None and kind != "maildir":
        raise ValueError(f"the mailbox {spec!r} can have no quota: only a Maildir can")
    path, *options = rest.split(":")
    said: dict[str, Any] = {}
    for option in options:
        key, _, inbox = option.partition("=")
        if (kind, key) == ("mbox", "INBOX"):
            said["inbox"] = _spool_path(inbox) or "/".join(_parts(inbox))
            if not said["inbox"]:
                raise ValueError(f"{inbox!r} is not a file")
        elif kind in _OPTIONS.get(option, ((), {}))[0]:
            said |= _OPTIONS[option][1]
        else:
            raise ValueError(f"unknown option {option!r} in mailbox {spec!r}")
    if quota is not None and said.get("layout"):
        raise ValueError(f"the mailbox {spec!r} can have no quota: only Maildir++ can")
    return Mailbox(kind, home, "/".join(_parts(path)) or ".", quota=quota, **said)


_FORMATS = ("maildir", "mbox")
_OPTIONS: dict[str, tuple[Sequence[str], dict[str, Any]]] = {
    "LAYOUT=maildir++": (("maildir",), {"layout": ""}),
    "LAYOUT=fs": (_FORMATS, {"layout": "fs"}),
    "UTF-8": (_FORMATS, {"utf8": True}),
    "SUBSCRIBE": (_FORMATS, {"subscribe": True}),
    **{f"SEPARATOR={char}": (_FORMATS, {"separator": char}) for char in "/.^|~"},
}
"""What a mailbox may be besides: the formats that know it, and what it sets. The first three are
words of Dovecot's `mail_location`."""


def elsewhere(folder: str) -> tuple[Mailbox, str] | None:
    """The mailbox that `mbox:/path/file` or `maildir:/path` is, and the folder in it; None for
    any other name. Only for what an administrator wrote: no text of a message may be in it.

    Raises PermFail for a path that cannot be one.
    """
    found = _ELSEWHERE.fullmatch(folder)
    if found is None:
        return None
    kind, path = found.groups()
    *above, name = [part for part in path.split("/") if part not in ("", ".")] or [""]
    if _UNSAFE.search(path) or ".." in (*above, name) or not _fits(name):
        _refuse(folder)
    path, inbox = (".", name) if kind == "mbox" else (name, "")
    return Mailbox(kind, "/" + "/".join(above), path, inbox, name), ""


def in_spool(mailbox: Mailbox, folder: str) -> tuple[Mailbox, str] | None:
    """The mailbox that the inbox is in the spool of the system, and the folder in it; None for any
    other folder."""
    if not (mailbox.inbox.startswith("/") and is_inbox(folder)):
        return None
    home, _, name = mailbox.inbox.rpartition("/")
    spooler = mailbox.spooler
    return Mailbox("mbox", home, ".", name, owned=True, spooler=spooler), ""


def _spool_path(inbox: str) -> str:
    """An inbox at an absolute path; empty for one below the home directory."""
    parts = [part for part in inbox.split("/") if part not in ("", ".")]
    if not inbox.startswith("/"):
        return ""
    if len(parts) < 2 or ".." in parts or _UNSAFE.search(inbox) or not _fits(parts[-1]):
        raise ValueError(f"{inbox!r} is not a file in the spool of the system")
    return "/" + "/".join(parts)


def _fits(name: str) -> bool:
    """It can be a file with a dotlock beside it."""
    return 0 < len(name.encode()) <= _LONGEST - len(".lock") and not (
        name.startswith("~") or name.endswith(".lock")
    )


def is_inbox(folder: str) -> bool:
    """It is the name of the inbox."""
    return folder.lower() in ("", "inbox")


def components(mailbox: Mailbox, folder: str) -> tuple[str, ...]:
    """The components of a folder name; none for the inbox. Raises PermFail for a bad name."""
    if is_inbox(folder):
        return ()
    names = tuple(folder.split(mailbox.separator))
    if folder[0] == "~" or any(map(_UNSAFE_COMPONENT.search, names)) or len(names) > DEEPEST:
        _refuse(folder)
    return names


def describe(mailbox: Mailbox, folder: str) -> str:
    """Format and folder for the log and the reply: `mbox lists/dev`."""
    return f"{mailbox.format} {mailbox.separator.join(components(mailbox, folder)) or mailbox.name}"


def locate(mailbox: Mailbox, folder: str) -> tuple[str, ...]:
    """The path of a folder below the home directory: a Maildir, or the file of an mbox.

    Raises PermFail for a name that cannot be a folder here.
    """
    names = spelt(mailbox, folder)
    if not names:
        return _parts(mailbox.inbox or _INBOX[mailbox.format].format(mailbox.path))
    below = _LAYOUTS[mailbox.format, mailbox.layout](names)
    if not below:
        _refuse(folder)
    return (*_parts(mailbox.path), *below)


def spelt(mailbox: Mailbox, folder: str) -> list[str]:
    """The components of a folder name as the disk spells them; none for the inbox.

    Raises PermFail for a bad name.
    """
    names: Iterable[str] = components(mailbox, folder)
    if (mailbox.format, mailbox.layout) == ("maildir", ""):
        names = (name.replace(".", "-") for name in names)
    return list(names) if mailbox.utf8 else list(map(modified_utf7, names))


def _one_directory(names: Sequence[str]) -> tuple[str, ...]:
    """Maildir++; nothing if that can be no directory."""
    below = "".join(f".{name}" for name in names)
    return (below,) if len(below.encode()) <= _LONGEST else ()


def _directories(taken: re.Pattern[str], names: Sequence[str]) -> tuple[str, ...]:
    """A directory for each component; nothing if that can be no path."""
    room = _LONGEST - len(".lock")
    fits = all(len(name.encode()) <= room and not taken.fullmatch(name) for name in names)
    return tuple(names) if fits and len("/".join(names).encode()) <= _LONGEST_PATH else ()


# What else may be in the same directory: a lock file, or a part of the Maildir above.
_LOCK_FILES = re.compile(r".*\.lock")
_PARTS = re.compile(
    r"cur|new|tmp|subscriptions|maildirsize|maildirfolder|.*\.lock|courier(?:imap|pop).*"
    r"|dovecot-(?:uid|keywords|acl|attributes).*|dovecot\.(?:index|list|mailbox).*"
)
_INBOX = {"maildir": "{}", "mbox": "{}/inbox"}
_LAYOUTS: dict[tuple[str, str], Callable[[Sequence[str]], tuple[str, ...]]] = {
    ("maildir", ""): _one_directory,
    ("maildir", "fs"): partial(_directories, _PARTS),
    ("mbox", ""): partial(_directories, _LOCK_FILES),
    ("mbox", "fs"): partial(_directories, _LOCK_FILES),
}


def _refuse(folder: str) -> NoReturn:
    raise PermFail(BAD_FOLDER, f"bad folder name {folder[:100]!r}")


def _parts(path: str) -> tuple[str, ...]:
    """The components of a configured path; none for the home directory itself (`.`)."""
    below = path.removeprefix("~/")
    names = below.split("/")
    if not below or below[0] in "/~" or ".." in names or _UNSAFE.search(below):
        raise ValueError(f"{path!r} is not a path below the home directory")
    return tuple(name for name in names if name not in ("", "."))


@contextmanager
def temporary_failures(folder: str = "") -> Iterator[None]:
    """Whatever the system refuses may work later (P4), but for a folder that no wait will make,
    since something else has its name: that is a PermFail, as for a name that can be none."""
    try:
        yield
    except OSError as error:
        if error.errno in _NEVER and not is_inbox(folder):
            why = f"{error.strerror}: {error.filename or ''}".rstrip(": ")
            raise PermFail(BAD_FOLDER, f"no folder {folder[:100]!r}: {why}") from error
        raise from_oserror(error) from error


@cache  # once for each process
def warn_of_no_expiry(kind: str) -> None:
    """Say in the log that there is nothing in such a mailbox to note when a message expires."""
    import logging  # only here: most mail needs none

    logging.getLogger("mdaflow").warning("%s: a message with `expire` is kept for good", kind)


def open_directory(home: str, names: Iterable[str], *, make: bool = True) -> int:
    """A descriptor of a directory below `home`, made where it is missing. Raises OSError.

    The home directory is never made: when it is missing, its disk may not be mounted.
    """
    here = os.open(home, _DIRECTORY)
    for name in names:
        try:
            below = enter(here, name) if make else open_existing(here, name)
        finally:
            os.close(here)
        here = below
    return here


def enter(parent: int, name: str) -> int:
    """A descriptor of a directory in an open one, made where it is missing. Raises OSError."""
    try:
        return open_existing(parent, name)
    except FileNotFoundError:
        with suppress(FileExistsError):  # another delivery was faster
            os.mkdir(name, 0o700, dir_fd=parent)
    made = open_existing(parent, name)
    try:
        os.fsync(made)
        os.fsync(parent)
    except BaseException:
        os.close(made)
        with suppress(OSError):  # the next delivery shall make it again, and sync it
            os.rmdir(name, dir_fd=parent)
        raise
    return made


def open_existing(parent: int, name: str) -> int:
    """A descriptor of a directory in an open one; not through a link. Raises OSError."""
    try:
        return os.open(name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)
    except NotADirectoryError:  # so it says of a link, too
        if stat.S_ISLNK(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
            text = "It is a symbolic link, and these are not followed"
            raise OSError(errno.ELOOP, text, name) from None
        raise


def write(fd: int, chunks: Iterable[Chunk]) -> int:
    """Write all chunks; the number of bytes. Raises OSError."""
    size = 0
    for batch in _batches(chunks):
        while batch:
            done = os.writev(fd, batch)
            size += done
            rest = _after(batch, done)
            if rest and not done:
                raise OSError(errno.EIO, "The disk takes no bytes")
            batch = rest
    return size


def _batches(chunks: Iterable[Chunk]) -> Iterator[list[memoryview]]:
    """What is written at once: not much more than 1 MiB, so that pages can be let go."""
    batch: list[memoryview] = []
    size = 0
    for piece in pieces(chunks):
        batch.append(piece)
        size += len(piece)
        if size >= PIECE or len(batch) == _BATCH:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _after(views: list[memoryview], done: int) -> list[memoryview]:
    """What is left of some views when the first `done` bytes are written."""
    rest = []
    for view in views:
        if done < len(view):
            rest.append(view[done:])
        done = max(0, done - len(view))
    return rest
