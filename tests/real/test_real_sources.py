"""`mdaflow serve` with users of a passwd-file, each with a uid of their own (P22, P24)."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from accounts import status_of
from children import PATIENCE, until
from letters import note
from mdaflow_server import MDAFLOW, NOBODY, Lmtp, Mdaflow, new_root

from mdaflow.deliver import prepare
from mdaflow.deliver.mailbox import Mailbox

FIRST = 21_000
DAY = 86_400.0
PROBE = [sys.executable, "-I", str(Path(__file__).with_name("probe.py"))]
SOURCES = """\
users:
  - passwd: {root}/etc/users
    home: {root}/homes/%d/%n
  - static: [all.example]
    home: {root}/homes/%d/%n
    uid: {static}
    gid: {static}
  - static: [ours.example]
    home: {root}/ours/%d/%n
"""


class Server(Mdaflow):
    """A server whose users are in a passwd-file, and in two domains that take everybody."""

    def __init__(self, root: Path) -> None:
        super().__init__(root, root / "lmtp", more="forward: {file: .forward}\n")
        text = self.config.read_text().replace("grant: [", "grant: [pipe, ")
        before, after = text.index("users:\n"), text.index("lmtp:\n")
        sources = SOURCES.format(root=root, static=FIRST + 900)
        self.config.write_text(text[:before] + sources + text[after:])
        self.passwd = root / "etc/users"
        self.passwd.touch()
        (root / "homes").mkdir()
        (root / "ours").mkdir()
        (root / "ours/there").touch()
        os.chown(root / "ours", NOBODY.pw_uid, NOBODY.pw_gid)

    def home(self, address: str, uid: int) -> Path:
        """Make a home of a uid."""
        local, _, domain = address.partition("@")
        home = self.root / "homes" / domain / local
        home.mkdir(parents=True)
        os.chown(home, uid, uid)
        home.chmod(0o700)
        return home

    def add(self, line: str) -> None:
        """A line of the passwd-file, as an editor writes it; it counts within a second."""
        fresh = self.passwd.with_name("users~")
        fresh.write_text(f"{self.passwd.read_text()}{line}\n")
        fresh.chmod(0o644)
        fresh.rename(self.passwd)

    def deliver(self, recipient: str) -> str:  # type: ignore[override]
        """The reply to RCPT, or to the message."""
        with Lmtp(self.socket) as client:
            client.say("MAIL FROM:<a@example.com>")
            reply = client.say(f"RCPT TO:<{recipient}>")
            if not reply.startswith("250"):
                return reply
            client.say("RSET")
            return client.deliver(recipient, note(recipient))

    def takes(self, recipient: str) -> bool:
        """A message was delivered."""
        return self.deliver(recipient).startswith("250 ")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    if os.geteuid() != 0:
        pytest.skip("needs root, to become other users")
    root = new_root()
    server = Server(root)
    server.add("start@example.org:x")
    try:
        server.start()
        yield server
        server.stop()
        server.check_log()
    finally:
        server.stop()
        shutil.rmtree(root)


def owners(home: Path) -> set[tuple[int, int]]:
    """Of all that is in a home."""
    return {(about.st_uid, about.st_gid) for about in map(os.lstat, home.rglob("*"))}


def test_uids(server: Server) -> None:
    """Each user's mail is written as the uid and gid of the line."""
    for number in range(3):
        uid, address = FIRST + number, f"user{number}@example.org"
        home = server.home(address, uid)
        server.add(f"{address}:x:{uid}:{uid}::{home}::userdb_mail=maildir:~/Mail")
    for number in range(3):
        address = f"user{number}@example.org"
        until(partial(server.takes, address), "a delivery")
        home = server.root / "homes/example.org" / f"user{number}"
        assert len(list((home / "Mail/new").iterdir())) == 1
        assert owners(home) == {(FIRST + number, FIRST + number)}


def test_program(server: Server) -> None:
    """What rules run has the uid and gid of the user, and no other groups."""
    uid, address = FIRST + 10, "runs@example.org"
    home = server.home(address, uid)
    rules = home / "my.rules"
    rules.write_text(f"pipe to {json.dumps([*PROBE, 'x'])}\n")
    rules.chmod(0o600)
    os.chown(rules, uid, uid)
    server.add(f"{address}:x:{uid}:{uid}::::userdb_mdaflow_rules=my.rules")
    until(lambda: server.takes(address), "a delivery")
    about = status_of(json.loads((home / "x.json").read_text())["status"])
    assert set(about["Uid"]) == {uid}
    assert set(about["Gid"]) == {uid}
    assert about["Groups"] == []
    assert about["CapEff"] == [0]


LINES = {
    "root@example.org": "0:0",
    "low@example.org": "999:21000",
    "high@example.org": "70000:70000",
    "mail@example.org": "21000:8",
    "alone@example.org": "21000:",
}


@pytest.mark.parametrize(("address", "ids"), LINES.items())
def test_never(server: Server, address: str, ids: str) -> None:
    """Root, a uid out of the range, and a low gid are never a user's: mail waits."""
    home = server.home(address, FIRST)
    server.add(f"{address}:x:{ids}::{home}")
    until(lambda: server.deliver(address).startswith("451 4.3.0 "), "mail that waits")
    assert list(home.iterdir()) == []


def test_no_home(server: Server) -> None:
    """A home that is missing is not made for another uid: mail waits."""
    server.add(f"gone@example.org:x:{FIRST}:{FIRST}")
    until(lambda: server.deliver("gone@example.org").startswith("451 "), "mail that waits")
    assert not (server.root / "homes/example.org/gone").exists()


def test_changed(server: Server) -> None:
    """What the file says of a user counts for the next message, also while mail comes in."""
    uid, address = FIRST + 50, "moves@example.org"
    home = server.home(address, uid)
    server.add(f"{address}:x:{uid}:{uid}::::userdb_mail=maildir:~/old")
    until(lambda: server.takes(address), "a delivery")
    text = server.passwd.read_text()
    server.passwd.write_text(text.replace("maildir:~/old", "maildir:~/fresh"))
    until(lambda: server.takes(address) and (home / "fresh").exists(), "mail in the new place")
    assert owners(home) == {(uid, uid)}


def test_static(server: Server) -> None:
    """Everybody in a domain has mail, as the uid of the source, or as the server in a home that is
    made."""
    home = server.home("any@all.example", FIRST + 900)
    assert server.deliver("Any+x@ALL.example").startswith("250 ")
    assert owners(home) == {(FIRST + 900, FIRST + 900)}
    assert server.deliver("new@ours.example").startswith("250 ")
    made = server.root / "ours/ours.example/new"
    assert stat.S_IMODE(made.stat().st_mode) == 0o700
    assert owners(made) == {(NOBODY.pw_uid, NOBODY.pw_gid)}


def test_commands(server: Server) -> None:
    """A command of root goes as whose mail it is; `expire` finds who has a home."""
    uid, address = FIRST + 20, "command@example.org"
    home = server.home(address, uid)
    server.add(f"{address}:x:{uid}:{uid}")
    user = server.user()._replace(address=address, home=home)
    assert Mdaflow.deliver(server, user, note(address)) == 0
    assert owners(home) == {(uid, uid)}


def test_expire(server: Server) -> None:
    """`expire --all` of root finds the users of all sources, and goes as each of them."""
    address, uid = "expire@example.org", FIRST + 30
    homes = {server.home(address, uid): uid, server.home("x@all.example", FIRST + 900): FIRST + 900}
    server.add(f"{address}:x:{uid}:{uid}")
    for home, owner in homes.items():
        box, then = Mailbox("maildir", str(home), "Maildir"), time.time() - 9 * DAY
        prepare(box, "", [b"A: b\n\n"], (), "", then, DAY).commit()
        for path in home.rglob("*"):
            os.chown(path, owner, owner)
    command = (MDAFLOW, "expire", "--all", "--config", server.config)
    done = subprocess.run(command, capture_output=True, text=True, cwd="/", timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    for name in (address, "x@all.example"):
        assert f"{name}  INBOX: 1 deleted" in done.stdout
    assert [file for home in homes for file in (home / "Maildir/new").iterdir()] == []


def test_route(server: Server) -> None:
    """`mdaflow route` of root reads the `.forward` of a user as that user."""
    address, uid = "route@example.org", FIRST + 40
    forward = server.home(address, uid) / ".forward"
    forward.write_text("\\route, friend@example.net\n")
    forward.chmod(0o600)
    os.chown(forward, uid, uid)
    server.add(f"{address}:x:{uid}:{uid}")
    command = (MDAFLOW, "route", address, "--config", server.config)
    done = subprocess.run(command, capture_output=True, text=True, cwd="/", timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    assert "passwd-file" in done.stdout
    assert "friend@example.net" in done.stdout
