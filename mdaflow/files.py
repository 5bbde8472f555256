"""Reading files that others could have written: rules, lists, tables. Only what is safe counts.

A file of a user counts only when nobody but its owner could have written it (P27): from the
user's folder on nothing on the way is a link, belongs to somebody else, or is a folder that others
can write to. A group may write to file and folders if only their owner is in it. A file of the
site counts only when it and its folder are root's or ours, and nobody else can write to them
(P52). What is no regular file is not even opened.

What was made of files is kept, with the versions of all of them, and made anew when one has
changed: by one thread, while the others go on with what there was.
"""

from __future__ import annotations

import errno
import grp
import os
import pwd
import stat
from collections import OrderedDict
from collections.abc import Callable, Collection
from contextlib import suppress
from threading import Event, Lock
from typing import Generic, NamedTuple, TypeVar

from mdaflow.errors import INTERNAL, TempFail, from_oserror

T = TypeVar("T")
WAIT = 30.0
"""Seconds to wait for what another thread makes."""

Version = tuple[int, ...]
Versions = dict[str, Version]
"""Files and folders by path."""

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
FOR_GOOD = frozenset((
    errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENAMETOOLONG,
    errno.ELOOP,
))  # fmt: skip
"""What the author of the file has to mend; all else may go away by itself."""


_trusted: set[int] = set()


def trust(uid: int) -> None:
    """What belongs to this user is the site's, too: root looks at files for who will serve."""
    _trusted.add(uid)


class Unsafe(OSError):
    """A file that could have been written by somebody else, or is none: it must not count."""

    def __init__(self, reason: str, path: str) -> None:
        super().__init__(errno.EPERM, reason, path)


class Reading:
    """The files of one program, as its compiler asks for them, with their versions.

    They are of the user whose folder is `home`; without one, of the site. `trusting`: of
    whoever calls, who knows what he does. `shared`: of anybody, but not everybody's, and no link:
    who can write there shall not have us read what he could not.
    """

    def __init__(
        self, limit: int, *, home: str = "", trusting: bool = False, shared: bool = False
    ) -> None:
        self._limit = limit
        self._home = home
        self._trusting = trusting
        self._shared = shared
        self.versions: Versions = {}
        """As they were before they were first read."""
        self.sizes: dict[str, int] = {}
        """Bytes of the files."""
        self.foreign = False
        """Others than root and we could have written a `shared` one."""

    def __call__(self, path: str) -> bytes:
        """The content of a file, at most a byte more than the limit.

        Raises OSError. What the author of a user's file has not to mend is a TempFail: then
        nobody can tell what the rules are.
        """
        try:
            self._note(path)
            text = self._read_of_user(path) if self._home else self._read_of_site(path)
        except OSError as error:
            if error.errno in FOR_GOOD or not self._home:
                raise
            raise from_oserror(error) from error
        self.sizes[path] = len(text)
        return text

    def _note(self, path: str) -> None:
        self.versions.setdefault(path, version_of(path))

    def _read_of_site(self, path: str) -> bytes:
        folder, owners = os.path.dirname(path) or ".", (0, os.geteuid(), *_trusted)
        if self._trusting:
            return self._content(path, None, lambda about: "")
        self._note(folder)
        about_folder = os.stat(folder)
        if not self._shared:
            _refuse(path, _foreign_folder(about_folder, owners, 0o022))
            return self._content(path, None, lambda about: _foreign(about, owners))
        _refuse(path, _foreign_folder(about_folder, None, 0o002))
        self.foreign = bool(_foreign_folder(about_folder, owners, 0o022))

        def unsafe(about: os.stat_result) -> str:
            self.foreign = self.foreign or bool(_foreign(about, owners))
            linked = self.foreign and about.st_nlink != 1
            return "has more than one link" if linked else _foreign(about, None, 0o002)

        return self._content(path, None, unsafe)

    def _read_of_user(self, path: str) -> bytes:
        folder, owners = self._enter(os.path.dirname(path))
        try:
            return self._content(path, folder, lambda about: _linked(about, owners))
        finally:
            os.close(folder)

    def _enter(self, path: str) -> tuple[int, Collection[int]]:
        """A descriptor of a folder, entered from the home on, and whose it may be."""
        at, here = self._home, os.open(self._home, _FOLDER)
        try:
            owners = (0, os.geteuid(), os.fstat(here).st_uid)
            for name in ("", *_below(at, path)):
                at = os.path.join(at, name) if name else at
                self._note(at)
                here = _step_into(here, name) if name else here
                about = os.fstat(here)
                _refuse(at, _foreign_folder(about, owners, _others(about)))
        except BaseException:
            os.close(here)
            raise
        return here, owners

    def _content(
        self, path: str, folder: int | None, unsafe: Callable[[os.stat_result], str]
    ) -> bytes:
        """A file's content, relative to a folder of a user where there is one."""
        name = path if folder is None else os.path.basename(path)
        follow = folder is None and not self._shared
        _refuse(path, _irregular(os.stat(name, dir_fd=folder, follow_symlinks=follow)))
        file = os.open(name, _FILE | (0 if follow else os.O_NOFOLLOW), dir_fd=folder)
        try:
            about = os.fstat(file)
            _refuse(path, _irregular(about) or unsafe(about))
            with open(file, "rb", closefd=False) as content:
                return content.read(self._limit + 1)
        finally:
            os.close(file)


def _below(home: str, path: str) -> list[str]:
    """The folders on the way from one to the other."""
    way = os.path.relpath(path or ".", home)
    return [] if way == "." else way.split("/")


def _step_into(parent: int, name: str) -> int:
    """A descriptor of a folder in an open one, which is closed; not through a link."""
    if stat.S_ISLNK(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
        raise Unsafe("in a folder that is a symbolic link", name)
    below = os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=parent)
    os.close(parent)
    return below


def _refuse(path: str, reason: str) -> None:
    if reason:
        raise Unsafe(reason, path)


def _irregular(about: os.stat_result) -> str:
    return "" if stat.S_ISREG(about.st_mode) else "not a regular file"


def _foreign(about: os.stat_result, owners: Collection[int] | None, others: int = 0o022) -> str:
    if owners is not None and about.st_uid not in owners:
        return "owned by somebody else"
    return "writable by others than its owner (chmod go-w)" if about.st_mode & others else ""


def _foreign_folder(about: os.stat_result, owners: Collection[int] | None, others: int) -> str:
    if owners is not None and about.st_uid not in owners:
        return "in a folder of somebody else"
    sticky = about.st_mode & stat.S_ISVTX  # there nobody replaces the file of another
    return "in a folder that others can write to" if about.st_mode & others and not sticky else ""


def _linked(about: os.stat_result, owners: Collection[int]) -> str:
    if about.st_nlink != 1:
        return "has more than one link"
    return _foreign(about, owners, _others(about))


def _others(about: os.stat_result) -> int:
    """The bits of a mode that let others than its owner write."""
    if about.st_mode & 0o020 and any(
        _is_private(about.st_gid, uid) for uid in {about.st_uid, os.geteuid()}
    ):
        return 0o002
    return 0o022


def _is_private(gid: int, uid: int) -> bool:
    """The group is the user's own: it has the user's name, and no other members."""
    try:
        user, group = pwd.getpwuid(uid), grp.getgrgid(gid)
    except (KeyError, OSError):
        return False
    own = (group.gr_name, user.pw_gid) == (user.pw_name, gid)
    return own and set(group.gr_mem) <= {user.pw_name}


def exists(path: str) -> bool:
    """Is there anything of this name? Raises OSError when that cannot be told."""
    try:
        os.lstat(path)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG):
            return False
        raise
    return True


def version_of(path: str) -> Version:
    """What changes with a file, and with how safe a file or folder is. Never raises."""
    try:
        about = os.lstat(path)
        if stat.S_ISLNK(about.st_mode):
            return about.st_ino, *_version(os.stat(path))
        return _version(about)
    except OSError as error:
        return (error.errno or 0,)


def _version(about: os.stat_result) -> Version:
    which = about.st_dev, about.st_ino, about.st_mode, about.st_uid
    if stat.S_ISDIR(about.st_mode):
        return which  # what else is in it is of no account
    return *which, about.st_nlink, about.st_mtime_ns, about.st_ctime_ns, about.st_size


class Made(NamedTuple, Generic[T]):
    """What was made of files."""

    value: T
    versions: Versions
    size: int
    """Bytes of the files."""

    @property
    def is_current(self) -> bool:
        """No file has changed since."""
        return all(version_of(path) == version for path, version in self.versions.items())


class Cache(Generic[T]):
    """What was made of files, by key: made anew when one of them has changed.

    One thread makes it; others wait if there was nothing before. `most` are kept, of `room`
    bytes together; the last one always is.
    """

    def __init__(self, most: int, room: int) -> None:
        self._most, self._room = most, room
        self._kept: OrderedDict[str, Made[T]] = OrderedDict()
        self._size = 0
        self._busy: dict[str, Event] = {}
        self._lock = Lock()

    def get(self, key: str, make: Callable[[], Made[T]]) -> T:
        """What is kept, or what `make` makes. Raises what `make` raises, and TempFail."""
        while True:
            kept = self._kept.get(key)
            if kept is not None and kept.is_current:  # files are looked at without a lock
                self._touch(key)
                return kept.value
            with self._lock:
                if self._kept.get(key) is not kept:
                    continue  # somebody has just made it
                busy = self._busy.get(key)
                if busy is None:
                    mine = self._busy[key] = Event()
            if busy is None:
                return self._make(key, make, mine).value
            if kept is not None:
                return kept.value
            if not busy.wait(WAIT):  # a disk that hangs
                raise TempFail(INTERNAL, f"{key}: another thread reads it for too long")

    def _make(self, key: str, make: Callable[[], Made[T]], mine: Event) -> Made[T]:
        try:
            made = make()
            with self._lock:
                self._keep(key, made)
            return made
        finally:
            with self._lock:
                del self._busy[key]
            mine.set()

    def _keep(self, key: str, made: Made[T]) -> None:
        old = self._kept.pop(key, None)
        self._kept[key] = made
        self._size += made.size - (old.size if old else 0)
        while len(self._kept) > 1 and (len(self._kept) > self._most or self._size > self._room):
            _, gone = self._kept.popitem(last=False)
            self._size -= gone.size

    def _touch(self, key: str) -> None:
        with self._lock, suppress(KeyError):  # it may have had to make room
            self._kept.move_to_end(key)
