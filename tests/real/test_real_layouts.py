"""Mailboxes as Dovecot sees them with the same words in its `mail_location`: no server, doveadm."""

from __future__ import annotations

import os
import pwd
import queue
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from need import need

from mdaflow import deliver
from mdaflow.deliver.mailbox import Mailbox, parse_mailbox

SPECS = (
    *("maildir:Mail", "maildir:Mail:UTF-8", "maildir:Mail:LAYOUT=fs"),
    *("maildir:Mail:LAYOUT=fs:UTF-8", "mbox:mail", "mbox:mail:UTF-8"),
)
FOLDERS = ("lists/dev", "Entwürfe/台北", "R&D", "a~b/c d")
SEPARATED = (
    *(("maildir:Mail", "."), ("maildir:Mail", "/"), ("maildir:Mail:LAYOUT=fs", ".")),
    *(("mbox:mail", "."), ("mbox:mail:UTF-8", "^"), ("maildir:Mail", "|")),
)
NOBODY = "nobody" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name


@pytest.fixture
def home() -> Iterator[Path]:
    """A home directory that belongs to somebody who is not root, as Dovecot wants it."""
    path = Path(tempfile.mkdtemp(prefix="mdaflow-"))
    (path / "run").mkdir()
    try:
        yield path
    finally:
        shutil.rmtree(path)


def give_away(home: Path) -> None:
    """Let everything below belong to somebody: Dovecot reads no mail as root."""
    for folder, _, files in os.walk(home):
        for name in (".", *files) if os.geteuid() == 0 else ():
            shutil.chown(os.path.join(folder, name), NOBODY)


def doveadm(home: Path, spec: str, *words: str, more: str = "") -> str:
    """What doveadm says, with `more` lines of configuration."""
    kind, path = spec.split(":", 1)
    (home / "conf").write_text(
        f"log_path = {home}/log\nbase_dir = {home}/run\nstate_dir = {home}/run\nssl = no\n"
        f"first_valid_uid = 1\nmail_location = {kind}:~/{path}\n{more}"
    )
    command = [need("doveadm"), "-c", str(home / "conf"), *words]
    if os.geteuid() == 0:
        group = pwd.getpwnam(NOBODY).pw_gid
        identity = (f"--reuid={NOBODY}", f"--regid={group}", "--clear-groups")
        command = [need("setpriv"), *identity, *command]
    environment = {**os.environ, "HOME": str(home), "USER": NOBODY}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)
    log = home / "log"
    assert done.returncode == 0, done.stderr + (log.read_text() if log.exists() else "")
    return done.stdout


def put(box: Mailbox, folder: str, number: int = 0) -> None:
    raw = b"Subject: %d\nFrom: a@example.org\n\nText\n" % number
    deliver.prepare(box, folder, [raw], (), "a@example.org", 1.7e9).commit()


@pytest.mark.parametrize("spec", SPECS)
def test_folders_and_subscriptions(home: Path, spec: str) -> None:
    """Dovecot finds every folder under its name, with its message, and is subscribed to it."""
    box = parse_mailbox(f"{spec}:SUBSCRIBE", str(home))
    plain = spec.startswith("maildir") and "fs" not in spec
    names = [name.replace("/", ".") if plain else name for name in FOLDERS]
    for folder in ("", *FOLDERS):
        put(box, folder)
    deliver.prepare(box, "R&D", [b"A: b\n\n"], (), "", 1.7e9, 60.0).commit()  # with its record
    give_away(home)
    above = {name.partition("." if plain else "/")[0] for name in names}
    assert set(doveadm(home, spec, "mailbox", "list").splitlines()) == {"INBOX", *names, *above}
    assert set(doveadm(home, spec, "mailbox", "list", "-s").splitlines()) == set(names)
    for name in names:
        found = doveadm(home, spec, "mailbox", "status", "messages", name)
        assert found.endswith(f"messages={2 if name == 'R&D' else 1}\n")


@pytest.mark.parametrize(("spec", "separator"), SEPARATED)
def test_separator(home: Path, spec: str, separator: str) -> None:
    """A folder is called alike by rules and by Dovecot, whose namespace has the same separator."""
    box = parse_mailbox(f"{spec}:SUBSCRIBE:SEPARATOR={separator}", str(home))
    names = {separator.join(name.split("/")) for name in FOLDERS}
    for folder in ("", *names):
        put(box, folder)
    give_away(home)
    more = f"namespace inbox {{\n  inbox = yes\n  separator = {separator}\n}}\n"
    above = {name.partition(separator)[0] for name in names}
    listed = doveadm(home, spec, "mailbox", "list", more=more)
    assert set(listed.splitlines()) == {"INBOX", *names, *above}
    assert set(doveadm(home, spec, "mailbox", "list", "-s", more=more).splitlines()) == names
    for name in names:
        found = doveadm(home, spec, "mailbox", "status", "messages", name, more=more)
        assert found.endswith("messages=1\n")


@pytest.mark.parametrize("locks", ["dotlock fcntl", "fcntl dotlock"])
def test_mbox_that_dovecot_writes(home: Path, locks: str) -> None:
    """Dovecot changes flags in an mbox all the time while four threads deliver 200 messages: all
    are there, once, none is torn, and nobody waits for ever."""
    box = parse_mailbox("mbox:mail", str(home))
    put(box, "")
    give_away(home)
    numbers = queue.SimpleQueue[int]()
    for number in range(1, 201):
        numbers.put(number)

    def deliver_some() -> None:
        for _ in range(50):
            put(box, "", numbers.get())
            time.sleep(0.03)  # for Dovecot to do something meanwhile

    with ThreadPoolExecutor(4) as pool:
        running = [pool.submit(deliver_some) for _ in range(4)]
        changes = 0
        while not all(future.done() for future in running):
            change = (("remove", "add")[changes % 2], "\\Flagged", "mailbox", "INBOX", "all")
            doveadm(home, "mbox:mail", "-o", f"mbox_write_locks={locks}", "flags", *change)
            changes += 1
        for future in running:
            future.result()
    assert changes > 3
    found = doveadm(home, "mbox:mail", "fetch", "hdr.subject", "mailbox", "INBOX", "all")
    subjects = [line.rpartition(" ")[2] for line in found.splitlines() if line.startswith("hdr")]
    assert sorted(map(int, subjects)) == list(range(201))
