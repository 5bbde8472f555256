"""Files and homes of accounts that are not what they should be (P07, P08, P27)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import crowd
import pytest
import races
from accounts import MAIL, SHARED, Account, System, system
from children import Child
from letters import note
from mdaflow_server import Lmtp
from need import need

RULES = 'deliver to "ruled"\n'
SEED, CROWD = 1, 180
"""Of the messages for many accounts, and how many there are."""
OTHER = 20_950
"""The uid of somebody else."""


@pytest.fixture(scope="module")
def server() -> Iterator[System]:
    """A server whose accounts have Maildirs."""
    with system() as found:
        found.start()
        yield found


def deliver(server: System, account: Account) -> str:
    """The reply to a message."""
    with Lmtp(server.socket) as client:
        return client.deliver(account.address, note(account.address))


Spoil = Callable[[Account, Path], object]


def remade(make: Callable[[Path], object]) -> Spoil:
    """Put something else in the place of the rules."""

    def spoil(account: Account, rules: Path) -> None:
        rules.unlink()
        make(rules)
        account.give(rules)

    return spoil


def moved(link: Callable[[Path, Path], object]) -> Spoil:
    """Have the rules elsewhere, and a link to them in their place."""

    def spoil(account: Account, rules: Path) -> None:
        link(rules, rules.rename(rules.with_name("elsewhere")))
        account.give(rules)

    return spoil


def of_a_group(account: Account, rules: Path) -> None:
    os.chown(rules, account.uid, SHARED)
    rules.chmod(0o660)


def home_of_another(account: Account, rules: Path) -> None:
    os.chown(account.home, OTHER, account.uid)
    account.home.chmod(0o770)


def sparse(path: Path) -> None:
    with path.open("w") as file:
        file.truncate(10 << 30)


TYPE = "not a regular file"
SPOILS: dict[str, tuple[Spoil, str]] = {
    "all may write": (lambda a, path: path.chmod(0o602), "writable by others"),
    "a group may write": (of_a_group, "writable by others"),
    "owned by another": (lambda a, path: os.chown(path, OTHER, OTHER), ""),
    "readable, owned by another": (
        lambda a, path: (os.chown(path, OTHER, OTHER), path.chmod(0o644)),
        "owned by somebody else",
    ),
    "link": (moved(Path.symlink_to), TYPE),
    "link to another's": (remade(lambda path: path.symlink_to("/etc/passwd")), TYPE),
    "link into /proc": (remade(lambda path: path.symlink_to("/proc/self/environ")), TYPE),
    "hard link": (moved(Path.hardlink_to), "has more than one link"),
    "FIFO": (remade(os.mkfifo), TYPE),
    "device": (remade(lambda path: os.mknod(path, 0o020600, os.makedev(1, 5))), TYPE),
    "folder": (remade(os.mkdir), TYPE),
    "10 GB": (remade(sparse), "larger than"),
    "all may write to the folder": (lambda a, path: path.parent.chmod(0o707), "in a folder that"),
    "folder of another": (
        lambda a, path: (os.chown(path.parent, OTHER, OTHER), path.parent.chmod(0o755)),
        "in a folder of somebody else",
    ),
    "all may write to the home": (lambda a, path: a.home.chmod(0o707), "in a folder that"),
    "home of another": (home_of_another, "the home belongs to somebody else"),
}


@pytest.mark.parametrize("name", SPOILS)
def test_unsafe_rules(server: System, name: str) -> None:
    """Rules that somebody else could have written, or that are none, do not count: the mail is in
    the inbox, and the log says why."""
    spoil, why = SPOILS[name]
    bob = server.account(rules=RULES)
    spoil(bob, bob.home / ".mdaflow/rules")
    reply = deliver(server, bob)
    assert reply.startswith("250 "), reply
    assert not (bob.home / "Maildir/.ruled").exists()
    assert bob.files()
    told = [message for message in server.messages() if bob.name in message]
    assert any(why in message for message in told), told


SAFE: dict[str, Spoil] = {
    "its own group may write": (lambda a, path: path.chmod(0o664)),
    "of root": (lambda a, path: (os.chown(path, 0, 0), path.chmod(0o644))),
    "home of root": (lambda a, path: (os.chown(a.home, 0, a.uid), a.home.chmod(0o770))),
    "others may look": (lambda a, path: (path.chmod(0o644), a.home.chmod(0o755))),
}


@pytest.mark.parametrize("name", SAFE)
def test_safe_rules(server: System, name: str) -> None:
    """What only the account and root can write to counts."""
    bob = server.account(rules=RULES)
    SAFE[name](bob, bob.home / ".mdaflow/rules")
    reply = deliver(server, bob)
    assert reply.startswith("250 "), reply
    assert len(bob.files(".ruled")) == 1
    assert bob.files() == []


@pytest.mark.parametrize("code", ["EIO", "ESTALE", "EMFILE", "ENOMEM"])
def test_rules_that_cannot_be_read_now(server: System, code: str) -> None:
    """What keeps us from reading rules for now puts mail off: that is never "no rules"."""
    bob = server.account(rules=RULES)
    said = server.root / f"{code}.out"
    options = ("-P", "rules", "-e", f"inject=openat:error={code}")
    strace = Child((need("strace"), "-f", *options, "-p", str(server.broker)), said)
    try:
        strace.wait_for(lambda: "attached" in said.read_text(), "strace is attached")
        reply = deliver(server, bob)
    finally:
        strace.stop()
    assert "(INJECTED)" in said.read_text()
    assert reply.startswith("451 4.3.0 "), reply
    assert bob.files() == []


# --- homes -------------------------------------------------------------------------------------


def as_a_file(home: Path) -> None:
    home.rmdir()
    home.write_text("")


HOMES: dict[str, tuple[Callable[[Path], object], str]] = {
    "sticky": (lambda home: home.chmod(0o1700), "451 4.2.1 "),
    "missing": (Path.rmdir, "451 4.3.0 "),
    "a file": (as_a_file, "451 4.3.0 "),
    "closed": (lambda home: home.chmod(0), "451 4.3.0 "),
}


@pytest.mark.parametrize("name", HOMES)
def test_home(server: System, name: str) -> None:
    """While a home is missing, out of service or closed, mail waits, and nothing is made."""
    spoil, expected = HOMES[name]
    bob = server.account()
    spoil(bob.home)
    reply = deliver(server, bob)
    assert reply.startswith(expected), reply
    assert not list(bob.home.rglob("*"))
    assert bob.home.exists() == (name != "missing")


def test_home_comes_back(server: System) -> None:
    """Mail flows again to a home that was not there, by the same process."""
    bob = server.account()
    bob.home.rmdir()
    assert deliver(server, bob).startswith("451 ")
    bob.home.mkdir(mode=0o700)
    bob.give(bob.home)
    assert deliver(server, bob).startswith("250 ")


@pytest.mark.parametrize("name", [name for name, swap in races.SWAPS.items() if not swap.in_spool])
def test_races(server: System, name: str) -> None:
    """With a link in the place of a file and back all the time, nothing gets out, and none of
    what was taken is lost."""
    found = races.race(server, races.SWAPS[name], 100)
    assert not found.escaped
    assert found.lost == 0
    assert found.taken
    assert found.taken + found.put_off == 100


def test_crowd() -> None:
    """Of mail for many accounts at once, in all kinds of mailboxes, all is there once, whole, and
    owned as it should be."""
    with system(spool=(0o2775, MAIL), domains=crowd.DOMAINS) as server:
        many = crowd.Crowd(server, accounts=9, seed=SEED)
        server.start()
        assert many.send(CROWD, clients=8) == []
        assert many.wrong(CROWD) == []


def test_owners(server: System) -> None:
    """All that was made in a home is the account's, and nobody else's to look at."""
    bob = server.account(rules='also deliver to "a/b" expire 1 day\nremember "x" for 1 hour\n')
    for _ in range(2):
        assert deliver(server, bob).startswith("250 ")
    assert len(bob.files()) == 2
    made = list(races.owners(bob.home))
    assert len(made) > 10
    assert {(about.st_uid, about.st_gid) for _, about in made} == {(bob.uid, bob.uid)}
    assert {about.st_mode & 0o777 for path, about in made if path.is_file()} == {0o600}
    folders = {path.name: about.st_mode & 0o777 for path, about in made if path.is_dir()}
    assert set(folders.values()) <= {0o700, 0o755}
    assert {name for name, mode in folders.items() if mode == 0o755} <= {".mdaflow"}
