"""The commands where accounts of this machine have mail: who reads and writes as whom."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from accounts import MAIL, Account, System, system
from letters import note

from mdaflow import deliver
from mdaflow.deliver.mailbox import Mailbox

RULES = 'rule "A" when subject is "hello" { deliver to "a" }\n'
INBOX = "mbox:mail:INBOX={spool}/%u"


@pytest.fixture(scope="module")
def machine() -> Iterator[System]:
    """A machine whose accounts have Maildirs; no server runs."""
    with system() as found:
        found.log.chmod(0o666)
        yield found


def mail(account: Account) -> bytes:
    return note(account.address)


def ids(path: Path) -> tuple[int, int]:
    about = path.stat()
    return about.st_uid, about.st_gid


def deliver_to(
    machine: System, user: Account, *arguments: str, by: Account | None = None
) -> CompletedProcess[str]:
    return machine.call("deliver", *arguments, by=by, stdin=mail(user))


# --- deliver -----------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["root", "root by address", "itself", "itself by name"])
def test_deliver(machine: System, how: str) -> None:
    """Root delivers as the account, and the account itself: by its rules, with its state."""
    bob = machine.account(rules=RULES)
    said = {"itself": (), "root by address": ("-d", f"{bob.name}+x@example.org")}
    by = bob if how.startswith("itself") else None
    done = deliver_to(machine, bob, *said.get(how, ("-d", bob.name)), by=by)
    assert done.returncode == 0, done.stderr
    [file] = bob.files(".a")
    assert ids(file) == (bob.uid, bob.uid)
    assert ids(bob.home / ".mdaflow/state/state.sqlite") == (bob.uid, bob.uid)


def test_deliver_for_somebody_else(machine: System) -> None:
    """An account that is not root delivers nothing for another one (77), also nothing to itself."""
    bob, ann = machine.account(), machine.account()
    done = deliver_to(machine, ann, "-d", ann.name, by=bob)
    assert (done.returncode, ann.files(), bob.files()) == (77, [], [])
    assert "is not you: call as that user, or as root" in done.stderr


@pytest.mark.parametrize("name", ["", "root", "root@example.org", "daemon"])
def test_deliver_to_nobody(machine: System, name: str) -> None:
    """Root and the accounts of services have no mail (67); what to do instead is said."""
    done = machine.call("deliver", *(("-d", name) if name else ()), stdin=b"A: b\n\n")
    assert done.returncode == 67
    assert "has no mail of its own: make an alias" in done.stderr


def test_deliver_without_a_home(machine: System) -> None:
    """A home that is missing or sticky puts mail off (75), whoever calls, and nothing is made."""
    bob, ann = machine.account(), machine.account()
    bob.home.rmdir()
    ann.home.chmod(0o1700)
    for user, why in ((bob, "not mounted?"), (ann, "is sticky")):
        for by in (None, user):
            done = deliver_to(machine, user, "-d", user.name, by=by)
            assert done.returncode == 75
            assert why in done.stderr
    assert not bob.home.exists()
    assert list(ann.home.iterdir()) == []


@pytest.mark.parametrize(("mode", "group", "code"), [(0o1777, 0, 0), (0o2775, MAIL, 75)])
def test_deliver_to_the_spool(mode: int, group: int, code: int) -> None:
    """Into the spool of the system root delivers in any mode that works, an account itself only
    where everybody may make files: else its mail waits, and nothing is written elsewhere."""
    with system(INBOX, spool=(mode, group)) as machine:
        machine.log.chmod(0o666)
        bob, ann = machine.account(), machine.account()
        done = deliver_to(machine, bob, "-d", bob.name)
        assert done.returncode == 0, done.stderr
        assert (machine.spool / bob.name).stat().st_uid == bob.uid
        done = deliver_to(machine, ann, by=ann)
        assert done.returncode == code, done.stderr
        assert (machine.spool / ann.name).exists() is (code == 0)
        assert not (ann.home / "Maildir").exists()
        assert ("out of reach" in done.stderr) is (code != 0)


# --- test --------------------------------------------------------------------------------------


def message_for(machine: System, account: Account) -> Path:
    path = machine.root / f"{account.name}.eml"
    path.write_bytes(mail(account))
    path.chmod(0o600)
    return path


def test_test(machine: System) -> None:
    """Root tries a message for several accounts, each by its own rules and as itself: what only
    root could read is not read."""
    bob, ann = machine.account(rules=RULES), machine.account(rules=RULES)
    os.chown(ann.home / ".mdaflow/rules", 0, 0)
    path = message_for(machine, bob)
    done = machine.call("test", "-r", bob.address, "-r", ann.address, "--json", path)
    assert done.returncode == 65
    assert "Permission denied, so its rules are ignored" in done.stderr
    first, second = map(json.loads, done.stdout.splitlines())
    assert [first["recipient"], second["recipient"]] == [bob.address, ann.address]
    folders = [found["actions"][0]["folder"] for found in (first, second)]
    assert folders == ["a", "INBOX"]


@pytest.mark.parametrize("arguments", [("-u",), ("-r",)])
def test_test_that_delivers(machine: System, arguments: tuple[str, ...]) -> None:
    """With -e the message is delivered as the account."""
    bob = machine.account(rules=RULES)
    done = machine.call("test", "-e", *arguments, bob.name, message_for(machine, bob))
    assert done.returncode == 0, done.stderr
    assert "250 2.0.0 " in done.stderr
    [file] = bob.files(".a")
    assert ids(file) == (bob.uid, bob.uid)


def test_test_by_an_account(machine: System) -> None:
    """An account tries its own rules; those of others it is refused."""
    bob, ann = machine.account(rules=RULES), machine.account(rules=RULES)
    path = bob.write("m.eml", mail(bob).decode())
    for arguments in ((), ("-u", bob.name), ("-r", bob.address)):
        done = machine.call("test", *arguments, path, by=bob)
        assert (done.returncode, '=> deliver to "a"' in done.stdout) == (0, True), done.stderr
    for arguments in (("-u", ann.name), ("-r", ann.address), ("-r", ann.address, "-e")):
        done = machine.call("test", *arguments, path, by=bob)
        assert (done.returncode, done.stdout) == (77, "")
        assert f"{ann.address} is not you" in done.stderr.replace("store.example", "example.org")
    assert ann.files() == []


# --- files of others ---------------------------------------------------------------------------


@pytest.mark.parametrize("command", [("test", "-u", "{}", "-e"), ("check",), ("fmt", "--diff")])
def test_links_of_others(machine: System, command: tuple[str, ...]) -> None:
    """What root names in the home of an account is read as that account: its links lead to nothing
    that it may not read."""
    bob = machine.account()
    secret = machine.root / f"{bob.name}.secret"
    secret.write_text("deliver to 'secret'\n")
    secret.chmod(0o600)
    link = bob.home / "link"
    link.symlink_to(secret)
    bob.give(link)
    done = machine.call(*(word.format(bob.name) for word in command), link)
    assert done.returncode == 66
    assert "secret'" not in done.stdout + done.stderr
    assert bob.files() == []
    own = bob.write("own", RULES)
    assert machine.call(*(word.format(bob.name) for word in command), own).returncode in (0, 1)


def test_fmt_of_others(machine: System) -> None:
    """Root lays out the file of an account as that account."""
    bob = machine.account(rules='deliver   to "a"\n')
    done = machine.call("fmt", bob.home / ".mdaflow/rules")
    assert done.returncode == 0, done.stderr
    assert (bob.home / ".mdaflow/rules").read_text() == 'deliver to "a"\n'
    assert ids(bob.home / ".mdaflow/rules") == (bob.uid, bob.uid)


def test_files_of_several(machine: System) -> None:
    """Root reads no file that several others could have put there."""
    bob, ann = machine.account(), machine.account(rules=RULES)
    (bob.home / "link").symlink_to(ann.home / ".mdaflow")
    bob.give(bob.home / "link")
    done = machine.call("check", bob.home / "link/rules")
    assert done.returncode == 66
    assert "several users could have put it there" in done.stderr


# --- expire ------------------------------------------------------------------------------------


def put(account: Account) -> Account:
    """Store a message whose time is over."""
    box = Mailbox("maildir", str(account.home), "Maildir")
    deliver.prepare(box, "", [b"A: b\n\n"], (), "", time.time() - 2, 1.0).commit()
    account.give(*account.home.rglob("*"))
    return account


def test_expire() -> None:
    """Root goes through the mailboxes of all accounts as each of them; one that cannot be gone
    through is told, and stops no other (75)."""
    with system() as machine:
        ann, bob, carl = (put(machine.account()) for _ in range(3))
        machine.account()  # without mail
        os.chown(bob.home / "Maildir", 0, 0)
        (bob.home / "Maildir").chmod(0o700)
        done = machine.call("expire", "--all")
        assert done.returncode == 75
        [trouble] = done.stderr.splitlines()
        assert f"{bob.name}@" in trouble
        assert len(done.stdout.splitlines()) == 2
        assert [len(user.files()) for user in (ann, bob, carl)] == [0, 1, 0]


def test_expire_of_one(machine: System) -> None:
    """Root goes through the mailbox of one account, that account through its own, and nobody
    through another's."""
    ann, bob = put(machine.account()), put(machine.account())
    assert machine.call("expire", "--dry-run", "-u", ann.address).returncode == 0
    for arguments in (("-u", ann.name), ("--all",)):
        assert machine.call("expire", *arguments, by=bob).returncode == 77
    assert machine.call("expire").returncode == 67
    assert len(ann.files()) == 1
    assert machine.call("expire", "-u", ann.name).returncode == 0
    assert machine.call("expire", by=bob).returncode == 0
    assert (ann.files(), bob.files()) == ([], [])


# --- learn -------------------------------------------------------------------------------------


def learned(machine: System, *arguments: object, by: Account | None = None) -> tuple[int, str]:
    done = machine.call("learn", *arguments, by=by)
    return done.returncode, done.stdout + done.stderr


def test_learn(machine: System) -> None:
    """Root learns for an account as that account, which itself does the same; no other may."""
    ann, bob = machine.account(), machine.account()
    file = ann.home / "spam"
    file.write_bytes(mail(ann))
    file.chmod(0o600)
    ann.give(file)
    assert learned(machine, "spam", "-u", ann.name, file)[0] == 0
    assert ids(ann.home / ".mdaflow/bayes.sqlite") == (ann.uid, ann.uid)
    assert "0 learned as spam, 1 known" in learned(machine, "spam", file, by=ann)[1]
    assert learned(machine, "spam", "-u", ann.name, file, by=bob)[0] == 77
    code, said = learned(machine, "spam", "-u", bob.name, file)
    assert (code, "Permission denied" in said) == (66, True)
    code, said = learned(machine, "spam", "--site", file, by=bob)
    assert (code, "Permission denied" in said) == (66, True)


def test_learn_for_the_site(machine: System) -> None:
    """Without a user, root learns for the site, as the user of the mail."""
    file = machine.root / "spam.eml"
    file.write_bytes(b"From: a@b\nSubject: x\n\nhello\n")
    file.chmod(0o600)
    assert learned(machine, "spam", file) == (0, "site: 1 learned as spam, 0 known already\n")
    ann, bob = machine.account(), machine.account()
    for user in (ann, bob):
        junk = user.home / "Maildir/cur"
        junk.mkdir(parents=True)
        (junk / "1").write_bytes(mail(user))
        (junk / "2").symlink_to(file)
        user.give(*user.home.rglob("*"))
    code, said = learned(machine, "ham", ann.home / "Maildir")
    assert (code, said.startswith("site: 1 learned as ham")) == (66, True)
    code, said = learned(machine, "ham", ann.home / "Maildir", bob.home / "Maildir")
    assert (code, "several users could have put it there" in said) == (66, True)
    code, said = learned(machine, "ham", machine.root / "home")
    assert (code, "site: 0 learned as ham" in said) == (66, True)
    [kept] = {*machine.root.rglob("bayes.sqlite")} - {*(machine.root / "home").rglob("*")}
    assert ids(kept)[0] != 0


def test_learn_moved() -> None:
    """Root learns from what all accounts have moved, as each of them."""
    with system() as machine:
        ann, bob = machine.account(), machine.account()
        for user in (ann, bob):
            junk = user.home / "Maildir/.Junk/cur"
            junk.mkdir(parents=True)
            (junk / "1:2,S").write_bytes(mail(user))
            user.give(*user.home.rglob("*"))
        (bob.home / ".mdaflow").symlink_to(ann.home)
        code, said = learned(machine, "--moved", "--all")
        assert (code, "no folder of ours" in said) == (75, True)
        assert f"{ann.name}@localhost: 1 learned as spam, 0 as ham" in said
        assert ids(ann.home / ".mdaflow/bayes.sqlite") == (ann.uid, ann.uid)
        assert learned(machine, "--moved", "--all", by=ann)[0] == 77
        assert learned(machine, "--moved", by=ann) == (0, "")


# --- config check ------------------------------------------------------------------------------

SPOOLS = {
    "2775 mail": (0o2775, MAIL, ""),
    "3775 mail": (0o3775, MAIL, ""),
    "1777": (0o1777, 0, ""),
    "missing": (None, 0, "No such file or directory: make it (install -d -m 2775 -g mail "),
    "777": (0o777, MAIL, "anybody can remove what is in it: chmod 2775 or 1777"),
    "755": (0o755, MAIL, "nobody can make a lock in it: chgrp mail and chmod 2775"),
    "775 root": (0o775, 0, "is for the group root: chgrp mail"),
}


@pytest.mark.parametrize("name", SPOOLS)
def test_check_of_the_spool(name: str) -> None:
    """A directory of inboxes that will not do is told, and what to do."""
    mode, group, told = SPOOLS[name]
    with system(INBOX, spool=None if mode is None else (mode, group)) as machine:
        done = machine.call("config", "check")
        assert done.returncode == (78 if told else 0), done.stderr
        assert (f"users[0].mailbox: {machine.spool}: {told}" in done.stderr) is bool(told)


def test_check_of_names(machine: System) -> None:
    """Who shall own the mail of others and the socket has to be there."""
    known = machine.config.read_text()
    try:
        for user, told in (("", "name the unprivileged user"), ("root", "is root"), ("nemo", "no")):
            text = known.replace("user: nobody", f'user: "{user}"')
            machine.config.write_text(text.replace("lmtp:\n", "lmtp:\n  owner: nemo\n"))
            done = machine.call("config", "check")
            assert done.returncode == 78
            first, second = done.stderr.splitlines()
            assert told in first
            assert second == "lmtp.owner: nemo: no such user or group"
    finally:
        machine.config.write_text(known)
    assert machine.call("config", "check").returncode == 0


def test_detail_of_local(machine: System) -> None:
    """What local(8) tells as the recipient before aliases has the user's detail, for the rules; an
    alias is one in the user's domain."""
    bob = machine.account(
        rules='if envelope.to.detail is "lists" { deliver to "lists" }\n'
        'if envelope.original starts with "sales@" { deliver to "sales" }\n'
    )
    for told in (f"{bob.name}+lists", "sales", bob.name):
        mail = note(bob.address)
        assert machine.call("deliver", "-a", told, by=bob, stdin=mail).returncode == 0
    for folder in (".lists", ".sales", ""):
        assert len(bob.files(folder)) == 1, folder
