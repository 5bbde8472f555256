"""Giving up root for good (P22, P23, P24).

A process that was started as root serves nobody before it has become the configured user, and one
that delivers to an account of this machine nobody before it has become that account; and each has
made sure that there is no way back. Otherwise nothing runs.
"""

from __future__ import annotations

import ctypes
import os
import pwd
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from mdaflow.errors import ConfigError
from mdaflow.route.users import Account

from .config import Config

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE = 1, 4  # prctl(2)


def check(config: Config, ours: int | None = None) -> None:
    """Raise ConfigError when a server could not give up root as the configuration wants it.

    `ours` is the uid with which it starts; None: ours.
    """
    user, ours = config.user, os.geteuid() if ours is None else ours
    if user:
        uid = _entry(user).uid
        if uid == 0:
            raise ConfigError((f"user: {user} is root: name the unprivileged user of the mail",))
        if ours not in (0, uid):
            raise ConfigError((f"user: cannot become {user}: start as root, or leave out user:",))
    elif ours == 0:
        raise ConfigError(("user: started as root: name the unprivileged user of the mail",))
    if ours != 0 and config.has_accounts:
        raise ConfigError(("users: system: start as root: mail is delivered as each user",))


def uid_of(config: Config) -> int:
    """The uid that the server has, or will have when it has given up root."""
    try:
        return _entry(config.user).uid if config.user else os.geteuid()
    except ConfigError:
        return os.geteuid()  # `check` tells that


def not_of_user(config: Config, folder: str) -> str:
    """Why the configured user may not write to a folder, and what to do; empty when it may."""
    try:
        uid = _entry(config.user).uid
        about = os.stat(folder)
    except ConfigError:
        return ""  # `check` tells that
    except OSError as error:
        return f"{error.strerror}: make it (install -d -m 0700 -o {config.user} {folder})"
    return "" if about.st_uid == uid or not uid else f"is not that of {config.user}: chown it"


def drop(config: Config) -> None:
    """Become the configured user, if we are root. Raises when anything of root is left."""
    check(config)
    if os.geteuid() == 0:
        become(_entry(config.user))


@contextmanager
def as_mail_user(config: Config) -> Iterator[None]:
    """Ask others as the configured user would, while we are root: who may ask a database says its
    peer's uid, and a file may be the user's alone. For a process of one thread."""
    if os.geteuid() != 0 or not config.user:
        yield
        return
    account, groups = _entry(config.user), os.getgroups()
    os.initgroups(account.name, account.gid)
    os.setegid(account.gid)
    os.seteuid(account.uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)


def become(account: Account, group: int | None = None) -> None:
    """Be this account and nobody else, for good: with its groups, if the system knows it, or with
    one `group` alone.

    Raises OSError when that does not work, or anything of what we were is left: then the process
    has to end. Others of the account cannot look into it (ptrace(2)).
    """
    if account.uid == 0:
        raise PermissionError("root is no identity for mail")
    gid = account.gid if group is None else group
    if group is None and account.listed:
        os.initgroups(account.name, gid)
        groups = set(os.getgrouplist(account.name, gid))
    else:
        os.setgroups([])
        groups = set()
    os.setresgid(gid, gid, gid)
    os.setresuid(account.uid, account.uid, account.uid)
    _make_sure(account.uid, gid, groups)
    _hide()


def _hide() -> None:
    """Let no other process of the account look into this one, as the kernel does by default."""
    _prctl(_PR_SET_DUMPABLE, 0)


def wake_when_orphaned() -> None:
    """Go on when the parent ends, even if somebody has stopped this process. Raises OSError."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGCONT)


def _prctl(option: int, value: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0):
        code = ctypes.get_errno()
        raise PermissionError(code, os.strerror(code), f"prctl({option})")


def close_all(keep: set[int]) -> None:
    """Close every descriptor but these; 0, 1 and 2 lead nowhere."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        if standard not in keep:
            os.dup2(nowhere, standard)
    last = 3
    for kept in sorted(fd for fd in keep if fd > 2):
        os.closerange(last, kept)
        last = kept + 1
    os.closerange(last, 1 << 20)


def _make_sure(uid: int, gid: int, groups: set[int]) -> None:
    if os.getresuid() != (uid, uid, uid) or os.getresgid() != (gid, gid, gid):
        raise PermissionError("the user or group did not change")
    if set(os.getgroups()) != groups:
        raise PermissionError("the groups are not those of the account")
    if _capabilities():
        raise PermissionError("capabilities are left")
    for back in (os.setuid, os.setgid):
        try:
            back(0)
        except PermissionError:
            continue
        raise PermissionError("root can be had back")


def _capabilities() -> int:
    """Those that we have or could have without another program (capabilities(7))."""
    with open("/proc/self/status", encoding="ascii", errors="replace") as status:
        found = dict(line.split(":", 1) for line in status if line.startswith("Cap"))
    return int(found["CapPrm"], 16) | int(found["CapEff"], 16) | int(found["CapAmb"], 16)


def _entry(user: str) -> Account:
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        raise ConfigError((f"user: there is no user {user}: create it",)) from None
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid, entry.pw_dir)
