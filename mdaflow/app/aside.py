"""Files that root is told to read, and somebody else could have put there.

Root reads no rules and no message of others (P22): a name on the way may be a link of theirs to
what they may not read. If all on the way is root's or of one other, that one reads instead. Folders
are not looked at for who else may write to them.
"""

from __future__ import annotations

import errno
import os
import pwd
import stat
from collections.abc import Callable, Iterable, Iterator

from mdaflow.route.users import Account

from . import privileges
from .deputies import Task, run_all

OWNERS = "several users could have put it there: run this as one of them"


def step_aside(paths: Iterable[str]) -> None:
    """As root: become the one to whom files belong, for good. Raises OSError, also when they are
    of several."""
    found = _owner(paths)
    if found is not None:
        from .rehearse import rehearse

        rehearse()
        privileges.become(found, found.gid)


def read_aside(path: str, read: Callable[[str], bytes]) -> bytes:
    """What `read` reads of a file; as root: in a process of the one to whom it belongs.

    Raises OSError.
    """
    found = _owner([path])
    if found is None:
        return read(path)
    file = os.memfd_create("mdaflow", os.MFD_CLOEXEC)
    try:
        [(_, code)] = run_all([Task(path, lambda: _read(found, path, read, file))])
        if code:
            raise OSError(max(code, 0), os.strerror(code) if code > 0 else "cannot be read")
        with open(file, "rb", closefd=False) as content:
            content.seek(0)
            return content.read()
    finally:
        os.close(file)


def _read(owner: Account, path: str, read: Callable[[str], bytes], file: int) -> int:
    """Read a file as its owner into another; 0, or what went wrong (errno)."""
    try:
        privileges.become(owner, owner.gid)
        content = read(path)
        with open(file, "wb", closefd=False) as copy:
            copy.write(content)
    except OSError as error:
        return error.errno or errno.EIO
    return 0


def _owner(paths: Iterable[str]) -> Account | None:
    """Who could have put files there, besides root; None for nobody, or if we are not root.

    Raises OSError when these are several.
    """
    if os.geteuid() != 0:
        return None
    found = {about.st_uid for path in paths for about in _on_the_way(path)} - {0}
    if not found:
        return None
    if len(found) > 1:
        raise PermissionError(errno.EPERM, OWNERS)
    [uid] = found
    return _account(uid)


def _on_the_way(path: str) -> Iterator[os.stat_result]:
    """All that leads to a file, and the file, through each link on the way."""
    at, rest, links = "/", os.path.join(os.getcwd(), path).split("/"), 40
    while rest:
        name = rest.pop(0)
        if name in ("", "."):
            continue
        if name == "..":
            at = os.path.dirname(at)
            continue
        try:
            about = os.lstat(os.path.join(at, name))
        except OSError:  # whoever opens it is told
            return
        yield about
        if stat.S_ISLNK(about.st_mode) and links:
            links -= 1
            target = os.readlink(os.path.join(at, name))
            rest = target.split("/") + rest
            at = "/" if target.startswith("/") else at
        else:
            at = os.path.join(at, name)


def _account(uid: int) -> Account:
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:  # it has no group that we know
        return Account(str(uid), uid, uid, "/")
    return Account(entry.pw_name, uid, entry.pw_gid, "/")
