"""What a worker cannot reach where accounts of this machine have mail: their homes, and their
inboxes in the spool (P29).

The modes of homes may let everybody in. So the worker, which talks to the network, gives up all of
the file system but what is not theirs, by Landlock (https://docs.kernel.org/userspace-api/landlock.html).
Landlock knows only what is allowed, so that is found by walking from the root: a directory without
any home in it is allowed as a whole, one on the way to a home by what is in it now.

Known limits: Linux 5.19 or later with Landlock; without it modes alone protect homes, and the log
says so. Homes of accounts that the name service does not list are hidden below /home only.
"""

from __future__ import annotations

import ctypes
import logging
import os
import re
import stat
import sys
from collections.abc import Collection, Iterator
from contextlib import suppress

from mdaflow.deliver.mailbox import elsewhere
from mdaflow.errors import MailError

from .build import Site, accounts_of
from .sources import places

log = logging.getLogger("mdaflow")

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same on all architectures
_VERSION = 1  # LANDLOCK_CREATE_RULESET_VERSION
_LEAST = 2
"""The first version that lets files be moved between directories."""
_PATH_BENEATH = 1
_WRITE_FILE, _READ_FILE, _READ_DIR, _REFER = 1 << 1, 1 << 2, 1 << 3, 1 << 13
_FILE = _WRITE_FILE | _READ_FILE
_ALL = _FILE | _READ_DIR | _REFER
_PR_SET_NO_NEW_PRIVS = 38
_PLACE = os.O_PATH | os.O_CLOEXEC
_REMOTE = re.compile(r"nfs|cifs|smb|fuse|9p|ceph|afs|autofs|lustre|gfs|glusterfs")
"""Types of file systems that others have to answer for."""


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32))


def hide_homes(site: Site) -> None:
    """Give up the homes of accounts, for good, before there are threads. Never raises."""
    try:
        _restrict(tuple(_allowed("/", _hidden(site))) + tuple(_needed(site)))
    except (OSError, MailError) as error:
        log.warning("homes of users are protected by their modes only: %s", error)


def _hidden(site: Site) -> frozenset[str]:
    """The directories that a worker has no use for."""
    accounts = accounts_of(site)
    homes = {user.home for source in accounts for user in source.all()}
    spools = {_spool(source.mailbox) for source in accounts}
    tree = _Tree()
    return frozenset(tree.real(path) for path in {"/home", *homes, *spools} if path.strip("/"))


class _Tree:
    """Where paths lead. What is on another machine is not looked at: it may not answer."""

    def __init__(self) -> None:
        self._links: dict[str, frozenset[str]] = {}
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as mounts:
            lines = [line.split() for line in mounts]
        self._remote = {
            words[4] for words in lines if _REMOTE.match(words[words.index("-") + 1])
        }  # fmt: skip

    def real(self, path: str) -> str:
        """A path without the symbolic links on its way."""
        at, rest, follow = "/", path.split("/"), 40
        while rest:
            name = rest.pop(0)
            if name in ("", "."):
                continue
            if follow and name in self.links(at):
                follow -= 1
                target = os.readlink(os.path.join(at, name))
                rest = target.split("/") + rest
                at = "/" if target.startswith("/") else at
            else:
                at = os.path.dirname(at) if name == ".." else os.path.join(at, name)
        return at

    def links(self, directory: str) -> frozenset[str]:
        """The names of symbolic links in a directory, as it says itself."""
        if directory not in self._links:
            found: frozenset[str] = frozenset()
            if not self._is_remote(directory):
                with suppress(OSError), os.scandir(directory) as entries:
                    found = frozenset(entry.name for entry in entries if entry.is_symlink())
            self._links[directory] = found
        return self._links[directory]

    def _is_remote(self, directory: str) -> bool:
        return any(f"{directory}/".startswith(f"{mount}/") for mount in self._remote)


def _spool(mailbox: str) -> str:
    _, _, inbox = mailbox.partition(":INBOX=/")
    return f"/{os.path.dirname(inbox.partition(':')[0])}" if inbox else ""


def _needed(site: Site) -> Iterator[str]:
    """What is allowed even if it is below a home."""
    c = site.config
    yield from (c.state, c.quarantine, c.lmtp.spool, c.log.to, c.forward.srs.secrets)
    yield from filter(None, (table.path for table in site.directory.tables))
    yield from (place for source in c.users for place in places(source))
    for _, folder in site.says:
        if found := elsewhere(folder):
            yield found[0].home
    yield from {sys.prefix, sys.base_prefix, os.path.dirname(os.path.dirname(__file__))}


def _allowed(path: str, hidden: Collection[str]) -> Iterator[str]:
    """The largest places below a path that have nothing hidden in them."""
    if path in hidden:
        return
    below = path.rstrip("/") + "/"
    if not any(place.startswith(below) for place in hidden):
        yield path
        return
    with suppress(OSError), os.scandir(path) as entries:
        for entry in entries:  # what is hidden is not even looked at
            if not entry.is_symlink():  # what it leads to is asked for its own name
                yield from _allowed(entry.path, hidden)


def _restrict(allowed: Collection[str]) -> None:
    """Have only what is allowed. Raises OSError."""
    version = _call(_CREATE_RULESET, None, 0, _VERSION)
    if version < _LEAST:
        raise OSError(f"Landlock of this kernel is too old ({version})")
    handled = ctypes.c_uint64(_ALL)
    rules = _call(_CREATE_RULESET, ctypes.byref(handled), ctypes.sizeof(handled), 0)
    try:
        for path in allowed:
            _allow(rules, path)
        if _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        _call(_RESTRICT_SELF, rules, 0)
    finally:
        os.close(rules)


def _allow(rules: int, path: str) -> None:
    try:
        place = os.open(path, _PLACE)
    except OSError:  # it is not there, or not for us
        return
    try:
        directory = stat.S_ISDIR(os.fstat(place).st_mode)
        beneath = _Beneath(_ALL if directory else _FILE, place)
        with suppress(OSError):  # nothing that Landlock knows, such as a file of /proc
            _call(_ADD_RULE, rules, _PATH_BENEATH, ctypes.byref(beneath), 0)
    finally:
        os.close(place)


def _call(number: int, *arguments: object) -> int:
    result: int = _libc.syscall(ctypes.c_long(number), *arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


_libc = ctypes.CDLL(None, use_errno=True)
