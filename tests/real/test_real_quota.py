"""Quota beside Dovecot and Courier, which keep the same `maildirsize`. Needs root."""

from __future__ import annotations

import imaplib
import math
import os
import random
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from children import PATIENCE
from dovecot import Dovecot
from mdaflow_server import MAILDIRS, NOBODY, Lmtp, Mdaflow, give_away, new_root, nobody
from need import need

from mdaflow import deliver
from mdaflow.deliver.mailbox import Mailbox, Quota, parse_mailbox
from mdaflow.errors import TempFail

LIMIT = 10 << 20
PLUGIN = """\
mail_plugins = quota
protocol imap {{
  mail_plugins = quota imap_quota
}}
plugin {{
  quota = maildir:User quota
  {rule}
}}
"""
RULES = {"its rule": f"quota_rule = *:bytes={LIMIT}", "the file's limit": ""}


@pytest.fixture(scope="module", params=RULES.values(), ids=RULES.keys())
def server(request: pytest.FixtureRequest) -> Iterator[Dovecot]:
    """A Dovecot that enforces a quota: by its own rule, or by the limit in the file."""
    if os.geteuid() != 0:
        pytest.skip("needs root: Dovecot does")
    for program in ("dovecot", "imap", "pop3", "doveadm"):
        need(program)
    root = new_root()
    dovecot = Dovecot(root, PLUGIN.format(rule=request.param))
    try:
        dovecot.start()
        yield dovecot
    finally:
        dovecot.stop()
        said = (root / "dovecot.log").read_text()
        shutil.rmtree(root)
    assert "Error" not in said


class Home:
    """A user with a quota, as we see it and as Dovecot does."""

    def __init__(self, server: Dovecot, quota: Quota) -> None:
        name = f"user{len(list(server.root.glob('*/*/*')))}"
        self.address = f"{name}@{MAILDIRS}"
        self.server = server
        self.path = server.root / MAILDIRS / MAILDIRS / name
        self.path.mkdir(parents=True)
        give_away(self.path)
        self.box: Mailbox = parse_mailbox("maildir:Maildir", str(self.path), quota)

    def store(self, size: int, folder: str = "") -> None:
        with nobody():
            deliver.prepare(self.box, folder, [letter(size)], (), "", time.time()).commit()

    @property
    def file(self) -> Path:
        return self.path / "Maildir/maildirsize"

    def said(self) -> tuple[int, int]:
        """What the file says."""
        lines = [line.split() for line in self.file.read_text().splitlines()[1:]]
        return sum(int(n) for n, _ in lines), sum(int(n) for _, n in lines)

    def truth(self) -> tuple[int, int]:
        """What is on the disk."""
        found = [p for part in ("new", "cur") for p in (self.path / "Maildir").rglob(f"{part}/*")]
        return sum(p.stat().st_size for p in found), len(found)

    def doveadm(self, *words: str) -> str:
        command = [need("doveadm"), "-c", str(self.server.root / "dovecot.conf"), "-f", "tab"]
        done = subprocess.run(
            [*command, *words], capture_output=True, text=True, timeout=PATIENCE, cwd="/"
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def dovecots(self) -> tuple[int, int]:
        """Kilobytes and messages, as Dovecot tells."""
        rows = [
            line.split("\t")
            for line in self.doveadm("quota", "get", "-u", self.address).splitlines()
        ]
        values = {row[1]: int(row[2]) for row in rows[1:]}
        return values["STORAGE"], values["MESSAGE"]

    def agree(self) -> None:
        """File, disk and Dovecot say the same."""
        size, messages = self.truth()
        assert self.said() == (size, messages)
        assert self.dovecots() == (math.ceil(size / 1024), messages)


def letter(size: int) -> bytes:
    head = b"Subject: x\n\n"
    return head + b"y" * (size - len(head) - 1) + b"\n"


def append(client: imaplib.IMAP4, size: int, folder: str = "INBOX") -> str:
    """Have Dovecot store a message that has so many bytes on the disk; its answer."""
    code, answer = client.append(folder, "", "", letter(size).replace(b"\n", b"\r\n"))
    return f"{code} {answer[0]!r}"


def test_in_turns(server: Dovecot) -> None:
    """Of 700 deliveries of both sides in turns, with mail deleted and moved by Dovecot meanwhile,
    all count the same."""
    home = Home(server, Quota(LIMIT))
    chance = random.Random(5)
    for folder in ("Trash", "Junk"):  # a session of Dovecot's counts the folders that it knows
        home.store(100, folder)
    with server.session(home.address) as client:
        client.create("Kept")
        for turn in range(700):
            size = chance.randint(20, 9000)
            if turn % 2:
                assert append(client, size, chance.choice(("INBOX", "Kept"))).startswith("OK")
            else:
                home.store(size, chance.choice(("", "Junk", "Trash")))
            if turn % 10 == 9:
                client.select()
                client.store("1", "+FLAGS", "(\\Deleted)")
                client.expunge()
                client.uid("MOVE", "2:4", "Trash")
                client.uid("COPY", "5", "Kept")
                client.unselect()
            if turn % 50 == 49:
                home.agree()
        assert home.truth()[1] > 500
    assert home.file.read_text().count("\n") < 500  # it was made anew when it was too long
    home.doveadm("quota", "recalc", "-u", home.address)
    home.store(1)
    home.agree()
    assert not list((home.path / "Maildir").rglob("tmp/*"))


def test_refused_alike(server: Dovecot) -> None:
    """Who is over quota for us is so for Dovecot; what is deleted there makes room here."""
    home = Home(server, Quota(LIMIT))
    for _ in range(10):
        home.store(LIMIT // 10)
    home.agree()
    with server.session(home.address) as client:
        assert "OVERQUOTA" in append(client, 100)
        with pytest.raises(TempFail, match="over quota"):
            home.store(100)
        client.select()
        client.store("3", "+FLAGS", "(\\Deleted)")
        client.expunge()
        home.store(LIMIT // 10)
        home.agree()
        assert "OVERQUOTA" in append(client, 100)


def test_other_limit(server: Dovecot) -> None:
    """Another limit of ours is what Dovecot reads from the file, unless it has its own."""
    home = Home(server, Quota(LIMIT))
    home.store(100)
    home.box = parse_mailbox("maildir:Maildir", str(home.path), Quota(2 * LIMIT, 1000))
    home.store(100)
    assert home.file.read_text() == f"{2 * LIMIT}S,1000C\n100 1\n100 1\n"
    size, messages = home.truth()
    assert home.dovecots() == (math.ceil(size / 1024), messages)
    assert home.said() == (size, messages)


# --- Courier ---------------------------------------------------------------------------------


@pytest.fixture
def courier(tmp_path: Path) -> Path:
    """A Maildir of Courier's with a quota of 100,000 bytes and 1,000 messages."""
    maildir, make = tmp_path / "Maildir", need("maildirmake")
    subprocess.run([make, maildir], check=True)
    subprocess.run([make, "-q", "100000S,1000C", maildir], check=True)
    return maildir


def deliverquota(maildir: Path, size: int) -> int:
    """Have Courier deliver a message; the exit code."""
    command = [need("deliverquota"), str(maildir)]
    return subprocess.run(command, input=letter(size), timeout=PATIENCE).returncode


def test_courier(courier: Path) -> None:
    """Courier and we add to the same file in turns, and refuse alike."""
    box = parse_mailbox("maildir:Maildir", str(courier.parent), Quota(100_000, 1000))

    def store(size: int) -> None:
        deliver.prepare(box, "", [letter(size)], (), "", time.time()).commit()

    for size in range(100, 700, 20):
        store(size)
        assert deliverquota(courier, size + 7) == 0
    there = [path.stat().st_size for path in courier.glob("new/*")]
    head, *lines = (courier / "maildirsize").read_text().splitlines()
    assert head == "100000S,1000C"
    numbers = [line.split() for line in lines]
    assert sum(int(n) for n, _ in numbers) == sum(there)
    assert sum(int(n) for _, n in numbers) == len(there) == 60
    store(100_000 - sum(there) - 50)
    assert deliverquota(courier, 100) == 77
    with pytest.raises(TempFail):
        store(100)
    assert deliverquota(courier, 20) == 0
    store(20)


# --- the server --------------------------------------------------------------------------------


def test_server() -> None:
    """Over LMTP: stored while there is room, a warning at 90 %, put off after DATA and at RCPT."""
    root = new_root()
    server = Mdaflow(root, root / "lmtp", quota="10K")
    try:
        server.start()
        user, mail = server.user(), letter(4500).replace(b"\n", b"\r\n")
        with Lmtp(server.socket) as client:
            for _ in range(2):
                assert client.deliver(user.address, mail).startswith("250 ")
            assert client.deliver(user.address, mail).startswith("452 4.2.2 ")
            warnings = [p for p in user.files() if b"nearly full" in p.read_bytes()]
            assert len(warnings) == 1
        left = 10 * 1024 - sum(p.stat().st_size for p in user.files())
        (user.maildir / f"new/1.x.y,S={left}").write_bytes(b"x" * left)
        (user.maildir / "maildirsize").unlink()
        server.stop()  # it has taken the user for good a moment ago
        server.start()
        with Lmtp(server.socket) as client:
            client.say("MAIL FROM:<>")
            assert client.say(f"RCPT TO:<{user.address}>").startswith("452 4.2.2 ")
        assert os.stat(user.maildir / "maildirsize").st_uid in (os.geteuid(), NOBODY.pw_uid)
    finally:
        server.close()
