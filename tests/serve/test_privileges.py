"""Giving up root."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys

import pytest

from mdaflow.app import privileges
from mdaflow.app.config import Config, System
from mdaflow.errors import ConfigError
from mdaflow.route.users import Account

DROP = """
import os
from mdaflow.app import privileges
from mdaflow.app.config import Config
privileges.drop(Config(user="nobody"))
print(os.getresuid(), os.getresgid(), sorted(os.getgroups()))
for name in ("setuid", "setgid", "seteuid"):
    try:
        getattr(os, name)(0)
        print("root again by", name)
    except PermissionError:
        pass
status = open("/proc/self/status").read()
print([line.split()[1] for line in status.splitlines() if line.startswith(("CapEff", "CapPrm"))])
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has something to give up")
def test_drop() -> None:
    """All user ids, group ids, groups and capabilities of root are gone, and do not come back."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", DROP]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    entry = pwd.getpwnam("nobody")
    groups = sorted(os.getgrouplist("nobody", entry.pw_gid))
    assert done.stdout.splitlines() == [
        f"{(entry.pw_uid,) * 3} {(entry.pw_gid,) * 3} {groups}",
        str(["0" * 16] * 2),
    ]


NOBODY = Config(user="nobody")
STEPS = ("initgroups", "setresgid", "setresuid")


def test_drop_that_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the system says yes and does nothing, nothing runs."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(os, "getresuid", lambda: (0, 0, 0))
    for name in STEPS:
        monkeypatch.setattr(os, name, lambda *_: None)
    with pytest.raises(PermissionError, match="did not change"):
        privileges.drop(NOBODY)


def dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything looks as after a drop to nobody."""
    entry = pwd.getpwnam("nobody")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    for name in STEPS:
        monkeypatch.setattr(os, name, lambda *_: None)
    monkeypatch.setattr(os, "getresuid", lambda: (entry.pw_uid,) * 3)
    monkeypatch.setattr(os, "getresgid", lambda: (entry.pw_gid,) * 3)
    monkeypatch.setattr(os, "getgroups", lambda: [entry.pw_gid])
    for name in ("setuid", "setgid"):
        monkeypatch.setattr(os, name, refuse)
    monkeypatch.setattr(privileges, "_capabilities", lambda: 0)
    monkeypatch.setattr(privileges, "_hide", lambda: None)


def refuse(*_: int) -> None:
    raise PermissionError


def test_foreign_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """A group of root that stays ends the process."""
    dropped(monkeypatch)
    privileges.drop(NOBODY)
    monkeypatch.setattr(os, "getgroups", lambda: [0])
    with pytest.raises(PermissionError, match="the groups are not"):
        privileges.drop(NOBODY)


def test_way_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """A way back to root ends the process."""
    dropped(monkeypatch)
    monkeypatch.setattr(os, "setuid", lambda _: None)
    with pytest.raises(PermissionError, match="root can be had back"):
        privileges.drop(NOBODY)


@pytest.mark.parametrize("step", STEPS)
def test_step_fails(monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """A step that fails ends the process."""
    dropped(monkeypatch)
    monkeypatch.setattr(os, step, refuse)
    with pytest.raises(PermissionError):
        privileges.drop(NOBODY)


@pytest.mark.parametrize(
    ("uid", "user", "told"),
    [
        (0, "", "user: started as root: name the unprivileged user of the mail"),
        (0, "root", "user: root is root: name the unprivileged user of the mail"),
        (0, "nobody-such", "user: there is no user nobody-such: create it"),
        (4711, "nobody", "user: cannot become nobody: start as root, or leave out user:"),
    ],
)
def test_check(monkeypatch: pytest.MonkeyPatch, uid: int, user: str, told: str) -> None:
    """A user that cannot or must not be become is a problem of the configuration."""
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    with pytest.raises(ConfigError) as raised:
        privileges.check(Config(user=user))
    assert raised.value.problems == (told,)


def test_capabilities_are_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """A capability that stays ends the process."""
    dropped(monkeypatch)
    monkeypatch.setattr(privileges, "_capabilities", lambda: 1)
    with pytest.raises(PermissionError, match="capabilities are left"):
        privileges.drop(NOBODY)


def test_accounts_take_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who cannot become other users does not serve accounts."""
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    with pytest.raises(ConfigError, match="users: system: start as root"):
        privileges.check(Config(users=(System(),)))


def test_root_is_no_identity() -> None:
    """Nobody becomes root to deliver mail."""
    with pytest.raises(PermissionError, match="root is no identity"):
        privileges.become(Account("toor", 0, 1000, "/"))


def test_nothing_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is not root stays who he is, with or without his name in the configuration."""
    monkeypatch.setattr(os, "geteuid", lambda: pwd.getpwnam("nobody").pw_uid)
    privileges.drop(Config())
    privileges.drop(NOBODY)
