"""Giving up root for good (P22, P23, P24).

A process that was started as root serves nobody before it has become the configured user, and
has made sure that there is no way back. Otherwise nothing runs.
"""

from __future__ import annotations

import os
import pwd

from mdaflow.errors import ConfigError


def check(user: str) -> None:
    """Raise ConfigError when `drop(user)` could not work."""
    ours = os.geteuid()
    if user:
        uid = _entry(user).pw_uid
        if uid == 0:
            raise ConfigError((f"user: {user} is root: name the unprivileged user of the mail",))
        if ours not in (0, uid):
            raise ConfigError((f"user: cannot become {user}: start as root, or leave out user:",))
    elif ours == 0:
        raise ConfigError(("user: started as root: name the unprivileged user of the mail",))


def drop(user: str) -> None:
    """Become `user`, with its groups, if we are root. Raises when anything of root is left."""
    check(user)
    if os.geteuid() != 0:
        return
    entry = _entry(user)
    uid, gid = entry.pw_uid, entry.pw_gid
    os.initgroups(user, gid)
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    if os.getresuid() != (uid, uid, uid) or os.getresgid() != (gid, gid, gid):
        raise PermissionError("the user or group did not change")
    if not set(os.getgroups()) <= set(os.getgrouplist(user, gid)):
        raise PermissionError("foreign groups are left")
    try:
        os.setuid(0)
    except PermissionError:
        return
    raise PermissionError("root can be had back")


def _entry(user: str) -> pwd.struct_passwd:
    try:
        return pwd.getpwnam(user)
    except KeyError:
        raise ConfigError((f"user: there is no user {user}: create it",)) from None
