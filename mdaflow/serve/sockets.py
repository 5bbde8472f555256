"""Listening sockets: `unix:/path`, `host:port`, or those that systemd hands over.

A unix socket appears with no rights for others and gets its owner and mode before anybody can
connect. One that a dead server left is replaced; one that answers is in use. Whatever does not
work is a ConfigError that says what it was and what to do.
"""

from __future__ import annotations

import errno
import grp
import os
import pwd
import socket
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..app import config
from ..errors import ConfigError
from . import systemd

BACKLOG = 1024
_MAX_PATH = 107

_WHY: dict[int, str] = {
    errno.EADDRINUSE: "in use by another program: stop that one, or choose another",
    errno.EADDRNOTAVAIL: "no interface of this machine has that address",
    errno.EACCES: "not allowed: start as root, or choose a folder or port that is yours",
    errno.EPERM: "not allowed: start as root, or leave out lmtp.owner",
    errno.ENOENT: "the folder does not exist: create it",
    errno.ENOTDIR: "a part of the path is not a folder",
    errno.EROFS: "the file system is read-only",
}
_NOT_HERE = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


@dataclass(frozen=True, slots=True)
class Listener:
    """A bound socket. `file` is device and inode of a unix socket that we made, else None."""

    address: str
    socket: socket.socket
    file: tuple[int, int] | None = None

    @property
    def ours(self) -> bool:
        """Clients still find it: nobody removed or replaced the file."""
        return self.file is None or _file(self.address.removeprefix("unix:")) == self.file

    def close(self) -> None:
        """Stop listening; a unix socket that is still ours goes away."""
        self.socket.close()
        if self.file is not None and self.ours:
            os.unlink(self.address.removeprefix("unix:"))


Listeners = dict[str, list[Listener]]


def open_all(wanted: config.Lmtp, had: Mapping[str, list[Listener]]) -> Listeners:
    """All sockets to listen on, by address; those in `had` are taken from there.

    Raises ConfigError; then nothing new stays open.
    """
    found: Listeners = {}
    try:
        for address in wanted.listen:
            kept = [listener for listener in had.get(address, ()) if listener.ours]
            found[address] = kept or _open(address)
            if address.startswith("unix:"):
                _give(address[5:], wanted.mode, wanted.owner)
            for listener in found[address]:
                listener.socket.listen(BACKLOG)
    except OSError as error:
        close_all(found, but=had)
        why = _WHY.get(error.errno or 0, error.strerror or str(error))
        raise ConfigError((f"lmtp.listen: {address}: {why}",)) from error
    except ConfigError:
        close_all(found, but=had)
        raise
    return found


def close_all(listeners: Mapping[str, list[Listener]], but: Mapping[str, list[Listener]]) -> None:
    """Close all that are not in `but`, too."""
    for listener in flat(listeners) - flat(but):
        listener.close()


def flat(listeners: Mapping[str, list[Listener]]) -> set[Listener]:
    """All listeners, whatever their address."""
    return {listener for group in listeners.values() for listener in group}


def from_systemd() -> Listeners:
    """The sockets that systemd opened for us; empty when it did not."""
    return {name: [Listener("", sock)] for name, sock in systemd.passed_sockets().items()}


def _open(address: str) -> list[Listener]:
    return [_unix(address)] if address.startswith("unix:") else _tcp(address)


def _tcp(address: str) -> list[Listener]:
    host, colon, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not (colon and port.isdigit()):
        raise ConfigError((f"lmtp.listen: {address}: write host:port or unix:/path",))
    try:
        places = socket.getaddrinfo(
            None if host in ("", "*") else host,
            port,
            type=socket.SOCK_STREAM,
            flags=socket.AI_PASSIVE,
        )
    except socket.gaierror as error:
        raise ConfigError((f"lmtp.listen: {address}: no such host: {error.strerror}",)) from error
    bound: list[Listener] = []
    missing: OSError | None = None
    for family, _, _, _, place in places:
        try:
            bound.append(Listener(address, _bound(family, place)))
        except OSError as error:
            # `localhost` and `*` mean what there is: a machine may have no IPv6.
            if error.errno not in _NOT_HERE:
                close_all({address: bound}, but={})
                raise
            missing = error
    if missing is not None and not bound:
        raise missing
    return bound


def _bound(family: int, place: Any) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(place)
    except OSError:
        sock.close()
        raise
    return sock


def _unix(address: str) -> Listener:
    path = address.removeprefix("unix:")
    if not path.startswith("/") or len(os.fsencode(path)) > _MAX_PATH:
        problem = f"a socket needs an absolute path of at most {_MAX_PATH} bytes"
        raise ConfigError((f"lmtp.listen: {address}: {problem}",))
    _remove_stale(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        sock.bind(path)
    except OSError:
        sock.close()
        raise
    finally:
        os.umask(before)
    return Listener(address, sock, _file(path))


def _remove_stale(path: str) -> None:
    """Remove a socket that nobody listens on. Raises OSError EADDRINUSE when somebody does."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise ConfigError((f"lmtp.listen: unix:{path}: there is a file of that name: remove it",))
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)  # a full backlog is somebody, too
        found = probe.connect_ex(path)
    if found == errno.ECONNREFUSED:
        os.unlink(path)
    else:
        code = errno.EADDRINUSE if found in (0, errno.EAGAIN) else found
        raise OSError(code, os.strerror(code))


def _give(path: str, mode: str, owner: str) -> None:
    """Set owner and mode of the socket itself, even if others may write to its folder."""
    fd = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if not stat.S_ISSOCK(os.fstat(fd).st_mode):
            raise FileExistsError(errno.EADDRINUSE, "not our socket")
        pinned = f"/proc/self/fd/{fd}"
        if owner:
            os.chown(pinned, *ids(owner))
        os.chmod(pinned, int(mode, 8))
    finally:
        os.close(fd)


def ids(owner: str) -> tuple[int, int]:
    """The uid and gid of `lmtp.owner`. Raises ConfigError."""
    user, colon, group = owner.partition(":")
    try:
        entry = pwd.getpwnam(user)
        return entry.pw_uid, grp.getgrnam(group).gr_gid if colon else entry.pw_gid
    except KeyError:
        raise ConfigError((f"lmtp.owner: {owner}: no such user or group",)) from None


def uids(wanted: config.Lmtp) -> set[int]:
    """The users of `lmtp.peers`. Raises ConfigError."""
    found = set()
    for name in wanted.peers:
        try:
            found.add(pwd.getpwnam(name).pw_uid)
        except KeyError:
            raise ConfigError((f"lmtp.peers: {name}: no such user",)) from None
    return found


def login(uid: int) -> str:
    """The name of a user, for the log."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return "no name"


def _file(path: str) -> tuple[int, int] | None:
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino
