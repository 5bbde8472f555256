"""`.forward` files of accounts and of virtual users: what they do, as whom, and which count."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from accounts import System, system
from children import Child
from fake_mta import FakeMTA
from letters import note
from mdaflow_server import Lmtp, Mdaflow, give_away, new_root
from need import need
from test_real_accounts_files import HOMES, SAFE, SPOILS

GRANTS = {"grant: [reject, defer": "grant: [reject, defer, files"}
FILE = "forward:\n  file: .forward\n"
ALL = """\
# everybody
\\{name}, ann@elsewhere.example
{home}/box, "{home}/dir/"
"|/bin/sh -c 'id -u >>{home}/uid; umask >>{home}/umask; cat >>{home}/piped'"
:include:{home}/friends
"""
FRIENDS = "carl@elsewhere.example\n# and once more\nann@elsewhere.example\n"
AWAY = ("folder of another", "home of another")
"""Homes in which nothing can be written either, or of which the log says something else."""


@pytest.fixture(scope="module")
def mta() -> Iterator[FakeMTA]:
    with FakeMTA() as found:
        yield found


@contextmanager
def serving(mta: FakeMTA) -> Iterator[System]:
    """A server whose accounts may do all of it."""
    with system(more=f"next_hop: {mta.hop}\n{FILE}") as found:
        grant(found)
        found.start()
        yield found


def grant(server: Mdaflow) -> None:
    text = server.config.read_text()
    for old, new in GRANTS.items():
        assert old in text
        text = text.replace(old, new)
    server.config.write_text(text)


@pytest.fixture(scope="module")
def server(mta: FakeMTA) -> Iterator[System]:
    with serving(mta) as found:
        yield found


def deliver(server: Mdaflow, address: str, content: bytes = b"") -> str:
    """The reply to a message."""
    with Lmtp(server.socket) as client:
        return client.deliver(address, content or note(address))


def recipients(mta: FakeMTA, first: int = 0) -> list[str]:
    """To whom messages were sent on, from a session on."""
    return [
        command.decode().partition("<")[2].partition(">")[0]
        for session in mta.sessions[first:]
        for command in session.commands
        if command.startswith(b"RCPT") and session.taken
    ]


def texts(home: Path) -> dict[str, list[str]]:
    """What is in each of the places that ALL names."""
    found = {
        name: [path] for name in ("box", "piped", "uid", "umask") if (path := home / name).exists()
    }
    found |= {name: [*(home / name).glob("new/*")] for name in ("dir", "Maildir")}
    return {name: [path.read_text() for path in paths] for name, paths in found.items()}


def check_all(home: Path, uid: int, name: str, sent: list[str]) -> None:
    """Everything of ALL was done, once, by its owner."""
    found = texts(home)
    assert sorted(sent) == ["ann@elsewhere.example", "carl@elsewhere.example"]
    assert {place: len(files) for place, files in found.items()} == dict.fromkeys(
        ("box", "dir", "Maildir", "piped", "uid", "umask"), 1
    )
    assert found["uid"] == [f"{uid}\n"]
    assert found["umask"] == ["0077\n"]
    for place in ("box", "dir", "Maildir", "piped"):
        assert f"Delivered-To: {name}@example.org" in found[place][0]
    assert found["piped"][0].startswith("From a@example.com ")
    assert (home / "box").stat().st_uid == (home / "dir").stat().st_uid == uid


def test_account(server: System, mta: FakeMTA) -> None:
    """The mail of an account goes to all that its file names, by its own rights, each once."""
    bob, first = server.account(), len(mta.sessions)
    bob.write("friends", FRIENDS)
    bob.write(".forward", ALL.format(name=bob.name, home=bob.home))
    reply = deliver(server, bob.address)
    assert reply.startswith("250 "), reply
    check_all(bob.home, bob.uid, bob.name, recipients(mta, first))


def test_virtual_user(mta: FakeMTA) -> None:
    """So does the mail of a virtual user, by the rights of the one who has all their mail."""
    root, first = new_root(), len(mta.sessions)
    server = Mdaflow(root, root / "lmtp", more=f"next_hop: {mta.hop}\n{FILE}")
    text = server.config.read_text()
    server.config.write_text(text.replace("defer]", "defer, pipe, files]"))
    try:
        server.start()
        bob = server.user(name="bob")
        for name, said in (
            ("friends", FRIENDS),
            (".forward", ALL.format(name="bob", home=bob.home)),
        ):
            (bob.home / name).write_text(said)
            give_away(bob.home / name)
        reply = deliver(server, bob.address)
        assert reply.startswith("250 "), reply
        check_all(bob.home, bob.home.stat().st_uid, "bob", recipients(mta, first))
    finally:
        server.close()


def test_detail(server: System, mta: FakeMTA) -> None:
    """A detail has a file of its own; others have the one of the user, also such that are paths."""
    bob, first = server.account(), len(mta.sessions)
    bob.write(".forward", "ann@elsewhere.example\n")
    bob.write(".forward+lists", f"{bob.home}/lists\n")
    bob.write("x", "carl@elsewhere.example\n")
    local = bob.name
    for detail in ("lists", "other", "../x", "%2e%2e", "lists/../../x", "LISTS"):
        quoted = f'"{local}+{detail}"' if ".." in detail else f"{local}+{detail}"
        with Lmtp(server.socket) as client:
            assert client.say("MAIL FROM:<a@example.com>").startswith("250 ")
            if client.say(f"RCPT TO:<{quoted}@example.org>").startswith("250 "):
                client.say("DATA")
                reply = client.say(note(bob.address).decode() + ".")
                assert reply.startswith("250 "), reply
    assert (bob.home / "lists").read_text().count("\nDelivered-To: ") == 1
    assert set(recipients(mta, first)) == {"ann@elsewhere.example"}
    assert bob.files() == []


@pytest.mark.parametrize("name", [name for name in SPOILS if name not in AWAY])
def test_unsafe(server: System, mta: FakeMTA, name: str) -> None:
    """A file that somebody else could have written, or that is none, does not count: the mail is
    in the inbox, and the log says why (P07, P08)."""
    spoil, why = SPOILS[name]
    bob, first = server.account(), len(mta.sessions)
    spoil(bob, bob.write(".forward", "ann@elsewhere.example\n"))
    reply = deliver(server, bob.address)
    assert reply.startswith("250 "), reply
    assert recipients(mta, first) == []
    assert sum("\nSubject: hello\n" in file.read_text() for file in bob.files()) == 1
    assert len(bob.files()) == 2  # and a letter
    told = [message for message in server.messages() if str(bob.home) in message]
    assert any(why in message for message in told), told


@pytest.mark.parametrize("name", SAFE)
def test_safe(server: System, mta: FakeMTA, name: str) -> None:
    """What only the account and root can write to counts."""
    bob, first = server.account(), len(mta.sessions)
    SAFE[name](bob, bob.write(".forward", "ann@elsewhere.example\n"))
    reply = deliver(server, bob.address)
    assert reply.startswith("250 "), reply
    assert recipients(mta, first) == ["ann@elsewhere.example"]
    assert bob.files() == []


@pytest.mark.parametrize("what", [".forward", "friends"])
@pytest.mark.parametrize("code", ["EIO", "EMFILE", "ESTALE"])
def test_cannot_be_read_now(server: System, mta: FakeMTA, code: str, what: str) -> None:
    """What keeps us from reading it for now puts mail off: that is never "no .forward"."""
    bob, first = server.account(), len(mta.sessions)
    bob.write("friends", FRIENDS)
    bob.write(".forward", f":include:{bob.home}/friends\n")
    said = server.root / f"{code}.{what}.out"
    options = ("-P", what, "-e", f"inject=openat:error={code}")
    strace = Child((need("strace"), "-f", *options, "-p", str(server.broker)), said)
    try:
        strace.wait_for(lambda: "attached" in said.read_text(), "strace is attached")
        reply = deliver(server, bob.address)
    finally:
        strace.stop()
    assert "(INJECTED)" in said.read_text()
    assert reply.startswith("451 4.3.0 "), reply
    assert bob.files() == []
    assert recipients(mta, first) == []


@pytest.mark.parametrize("name", ["sticky", "closed"])
def test_home(server: System, mta: FakeMTA, name: str) -> None:
    """While a home is out of service or closed, mail waits, whatever the file in it says."""
    spoil, expected = HOMES[name]
    bob, first = server.account(), len(mta.sessions)
    bob.write(".forward", "ann@elsewhere.example\n")
    spoil(bob.home)
    reply = deliver(server, bob.address)
    assert reply.startswith(expected), reply
    assert recipients(mta, first) == []


@pytest.mark.parametrize("text", ["ann smith\n", '"|/bin/x\n', "\0", ":include:/etc/passwd"])
def test_wrong(server: System, mta: FakeMTA, text: str) -> None:
    """A file that cannot be read as one changes nothing: the mail is in the inbox, and a mail says
    what is wrong."""
    bob, first = server.account(), len(mta.sessions)
    bob.write(".forward", text)
    reply = deliver(server, bob.address)
    assert reply.startswith("250 "), reply
    assert recipients(mta, first) == []
    found = [file.read_text() for file in bob.files()]
    assert len(found) == 2
    assert any(".forward:1:" in text for text in found)


def test_one_that_waits() -> None:
    """When one of several cannot be reached, all is put off; what was done is not done again."""
    later = [b"451 4.7.1 later\r\n", *[b"250 2.1.5 Ok\r\n"] * 9]
    with FakeMTA({"rcpt": later}) as mta, serving(mta) as server:
        bob = server.account()
        bob.write("friends", FRIENDS)
        bob.write(".forward", ALL.format(name=bob.name, home=bob.home))
        content = note(bob.address)
        reply = deliver(server, bob.address, content)
        assert reply.startswith("451 "), reply
        reply = deliver(server, bob.address, content)
        assert reply.startswith("250 "), reply
        check_all(bob.home, bob.uid, bob.name, recipients(mta))
