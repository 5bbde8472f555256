"""A passwd-file as we read it, and as Dovecot does."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from children import PATIENCE, Child
from mdaflow_server import new_root
from need import need

from mdaflow.app.config import Config, Passwd
from mdaflow.app.sources import open_source
from mdaflow.route.users import User

CONFIG = """\
base_dir = {root}/dovecot
log_path = {root}/dovecot.log
protocols =
first_valid_uid = 1
mail_location = maildir:~/Maildir
passdb {{
  driver = passwd-file
  args = {root}/users
}}
userdb {{
  driver = passwd-file
  args = {root}/users
  default_fields = uid=7000 gid=7000 home=/mail/%d/%n
}}
"""
FILE = """\
# a comment
plain@example.org:{PLAIN}x:1001:1002::/home/plain::
home@example.org:{PLAIN}x:1001:1002:Some, One:/home/x:/bin/sh
mail@example.org:{PLAIN}x:1001:1002::/home/mail::userdb_mail=maildir:~/Mail nopassword
old@example.org:{PLAIN}x:1001:1002::/home/old:::maildir:/home/old/M
quota@example.org:{PLAIN}x:1001:1002::/home/q::userdb_quota_rule=*:storage=2G
ids@example.org:{PLAIN}x:::::: userdb_uid=1005 userdb_gid=1006 userdb_home=/srv/ids
none@example.org:{PLAIN}x::::::
half@example.org:{PLAIN}x:1003:1004
template@example.org:{PLAIN}x::::::userdb_mail=maildir:~/%n/%d
inbox@example.org:{PLAIN}x:1:1::/home/i::userdb_mail=mbox:~/mail:INBOX=~/mail/in
bare:{PLAIN}x:1007:1008::/home/bare::
"""
ADDRESSES = [line.partition(":")[0] for line in FILE.splitlines()[1:]]


@pytest.fixture(scope="module")
def root() -> Iterator[Path]:
    """A folder with the file, and a Dovecot that has it."""
    if os.geteuid() != 0:
        pytest.skip("needs root: Dovecot does")
    dovecot, root = need("dovecot"), new_root()
    (root / "users").write_text(FILE)
    (root / "dovecot.conf").write_text(CONFIG.format(root=root))
    child = Child((dovecot, "-F", "-c", root / "dovecot.conf"), root / "dovecot.out")
    try:
        child.wait_for((root / "dovecot/auth-userdb").exists, "Dovecot serves")
        yield root
    finally:
        child.stop()
        shutil.rmtree(root)


def theirs(root: Path, address: str) -> dict[str, str]:
    """What Dovecot says of a user."""
    command = (need("doveadm"), "-c", root / "dovecot.conf", "user", address)
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    return dict(line.split("\t", 1) for line in done.stdout.splitlines()[1:])


def place(mail: str, user: User, name: str) -> str:
    """Where the inbox is, by Dovecot's words."""
    local, _, domain = name.partition("@")
    for letters, part in (("%n", local), ("%d", domain), ("~", user.home)):
        mail = mail.replace(letters, part)
    return mail


def ours(user: User) -> str:
    """The same, by ours."""
    kind, path, *options = user.mailbox.split(":")
    options = [option.replace("INBOX=", f"INBOX={user.home}/") for option in options]
    return ":".join((kind, f"{user.home}/{path}", *options))


@pytest.mark.parametrize("name", ADDRESSES)
def test_as_dovecot(root: Path, name: str) -> None:
    """Home, uid, gid, mailbox and quota are those that Dovecot tells."""
    source = Passwd(
        str(root / "users"), home="/mail/%d/%n", uid=7000, gid=7000, min_uid=1,
    )  # fmt: skip
    user = open_source(0, Config(users=(source,))).find(name if "@" in name else f"{name}@x")
    assert user
    assert user.account
    said = theirs(root, name)
    assert (user.home, str(user.account.uid), str(user.account.gid)) == (
        said["home"], said["uid"], said["gid"],
    )  # fmt: skip
    assert ours(user) == place(said.get("mail", "maildir:~/Maildir"), user, name)
    rule = said.get("quota_rule", "")
    assert f"*:storage={user.quota >> 30}G" == rule or (not rule and not user.quota)
