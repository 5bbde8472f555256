"""Mail for accounts of this machine: who runs what, and with what (P01, P11)."""

from __future__ import annotations

import json
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from accounts import CAPABILITIES, SHARED, Account, System, status_of, system
from children import until
from letters import note
from mdaflow_server import Lmtp

PROBE = [sys.executable, "-I", str(Path(__file__).with_name("probe.py"))]
SITE = """\
if subject is "asked by the site" {{
    also pipe to {pipe}
    filter through {filter}
    if command {command} succeeds {{ also deliver to "asked" }}
}}
if subject is "67" {{ pipe to {sixty_seven} }}
if subject is "77" {{ pipe to {seventy_seven} }}
if subject is "75" {{ pipe to {seventy_five} }}
"""
BIG = b"y" * 75 + b"\r\n"


def probe(*words: str) -> str:
    """The program with its arguments, as rules have it."""
    return json.dumps([*PROBE, *words])


@pytest.fixture(scope="module")
def server() -> Iterator[System]:
    """A server whose accounts have Maildirs."""
    with system() as found:
        programs = {
            "pipe": probe("site pipe"),
            "filter": probe("site filter", "filter"),
            "command": probe("site command"),
            "sixty_seven": probe("x", "exit", "67"),
            "seventy_seven": probe("x", "exit", "77"),
            "seventy_five": probe("x", "exit", "75"),
        }
        found.site_file("asks", SITE.format(**programs))
        found.start()
        yield found


def deliver(server: System, recipient: str, subject: str = "hello") -> str:
    """The reply to a message."""
    with Lmtp(server.socket) as client:
        return client.deliver(recipient, note(recipient, subject=subject))


def test_maildir(server: System) -> None:
    """Mail of an account is written as that account, by its rules, and the log says by which."""
    bob = server.account(rules='rule "A" when subject is "hello" { deliver to "a/b" }\n')
    reply = deliver(server, bob.address)
    assert reply.startswith("250 2.0.0 "), reply
    [file] = bob.files(".a.b")
    about = file.stat()
    assert (about.st_uid, about.st_gid) == (bob.uid, bob.uid)
    assert stat.S_IMODE(about.st_mode) == 0o600
    entry = server.wait(bob.address)
    assert (entry["rule"], entry["where"]) == ("A", "rules:1")


# --- programs ----------------------------------------------------------------------------------


def said(account: Account, name: str) -> dict[str, Any]:
    """What a program has said of itself, in a file that is the account's alone."""
    path = account.home / f"{name}.json"
    about = path.stat()
    assert (about.st_uid, stat.S_IMODE(about.st_mode)) == (account.uid, 0o600)
    found: dict[str, Any] = json.loads(path.read_text())
    return found


USERS = """\
also pipe to {pipe}
filter through {filter}
if command {command} succeeds {{ also deliver to "asked" }}
"""


@pytest.mark.parametrize("whose", ["site", "user"])
def test_programs(server: System, whose: str) -> None:
    """A program of the site's rules, or of the user's, is the user and nothing else: its ids,
    groups and capabilities, descriptors, folder, mode of new files, environment, session, limits.
    """
    names = ("pipe", "filter", "command")
    bob = server.account()
    if whose == "user":
        programs = {"pipe": probe("user pipe"), "command": probe("user command")}
        programs["filter"] = probe("user filter", "filter")
        bob.write_rules(USERS.format(**programs))
    recipient = f"{bob.name.capitalize()}+detail@Example.ORG"
    reply = deliver(server, recipient, "asked by the site" if whose == "site" else "hello")
    assert reply.startswith("250 "), reply
    assert len(bob.files()) == 1
    assert len({said(bob, f"{whose} {name}")["parent"] for name in names}) == 1
    for name in names:
        found = said(bob, f"{whose} {name}")
        assert status_of(found["status"]) == {
            "Uid": [bob.uid] * 4,
            "Gid": [bob.uid] * 4,
            "Groups": [bob.uid, SHARED],
            **{name: [0] for name in CAPABILITIES},
        }
        assert found["descriptors"] == [0, 1, 2]
        assert found["folder"] == str(bob.home)
        assert found["umask"] == 0o077
        assert found["leads"]
        assert found["limits"]["RLIMIT_CORE"] == [0, 0]
        assert found["limits"]["RLIMIT_NOFILE"] == [256, 256]
        assert found["limits"]["RLIMIT_AS"] == [4 << 30, 4 << 30]
        assert found["limits"]["RLIMIT_CPU"] == [30 if name != "pipe" else 60] * 2
        assert sorted(found["environment"]) == sorted(
            [
                *(["TZ=" + os.environ["TZ"]] if "TZ" in os.environ else []),
                "CLIENT_ADDRESS=",
                "CLIENT_HELO=",
                "CLIENT_HOSTNAME=",
                "DOMAIN=Example.ORG",
                "EXTENSION=detail",
                f"HOME={bob.home}",
                "LANG=C.UTF-8",
                f"LOCAL={bob.name.capitalize()}+detail",
                f"LOGNAME={bob.name}",
                f"ORIGINAL_RECIPIENT={recipient}",
                "PATH=/usr/local/bin:/usr/bin:/bin",
                f"RECIPIENT={recipient}",
                "SENDER=a@example.com",
                "SHELL=/bin/sh",
                f"USER={bob.name}",
            ]
        )


def test_flood_of_a_program(server: System) -> None:
    """A program that takes and says 10 MB at once is heard to its end."""
    bob = server.account(rules=f"filter through {probe('flood', 'flood')}\n")
    content = note(bob.address) + BIG * 140_000
    with Lmtp(server.socket) as client:
        reply = client.deliver(bob.address, content)
    assert reply.startswith("250 "), reply
    assert said(bob, "flood")["size"] > 10_000_000
    [file] = bob.files()
    assert file.stat().st_size > 10_000_000
    assert file.read_bytes().endswith(b"xxx\n")


def test_time_of_a_program(server: System) -> None:
    """At the time limit all processes of a program are killed, and the mail is put off."""
    bob = server.account(rules=f"pipe to {probe('slow', 'sleep')} within 2 seconds\n")
    reply = deliver(server, bob.address)
    assert reply.startswith("451 4.3.0 "), reply
    programs = [said(bob, "slow")["pid"], int((bob.home / "child").read_text())]
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in programs), "their end")
    assert "longer than 2 seconds" in server.wait(bob.address, "deferred")["reason"]


CODES = {
    "exit 0": "250 2.0.0 ",
    "exit 67": "451 4.3.0 ",
    "exit 77": "451 4.3.0 ",
    "exit 75": "451 4.3.0 ",
    "exit 1": "451 4.3.0 ",
    "kill self": "451 4.3.0 ",
}


@pytest.mark.parametrize("end", CODES)
def test_end_of_a_program(server: System, end: str) -> None:
    """Whatever the program of a user says, mail is not refused."""
    bob = server.account(rules=f"pipe to {probe('end', *end.split())}\n")
    reply = deliver(server, bob.address)
    assert reply.startswith(CODES[end]), reply
    assert said(bob, "end")["size"] > 100


@pytest.mark.parametrize(
    ("code", "expected"), [("67", "550 5.1.1 "), ("77", "550 5.7.1 "), ("75", "451 4.3.0 ")]
)
def test_program_of_the_site_refuses(server: System, code: str, expected: str) -> None:
    """The program of the site may say that there is no such user, or that it must not be."""
    bob = server.account()
    reply = deliver(server, bob.address, code)
    assert reply.startswith(expected), reply
    assert bob.files() == []


# --- who has mail ------------------------------------------------------------------------------


def test_uids_out_of_range(server: System) -> None:
    """Root, an account of a service and one above the highest uid have no mail."""
    for number, uid in enumerate((999, 60_001)):
        server.account(f"out{number}", uid=uid)
    with Lmtp(server.socket) as client:
        client.say("MAIL FROM:<a@example.com>")
        for name in ("root", "daemon", "out0", "out1"):
            reply = client.say(f"RCPT TO:<{name}@example.org>")
            assert reply.startswith("550 5.1.1 "), (name, reply)


def test_unknown_name(server: System) -> None:
    """Who is unknown to the name service of this machine has no mail for good; whoever it does
    not want to tell of may have some later."""
    unknown = "RCPT TO:<nobody-such@example.org>"
    with Lmtp(server.socket) as client:  # nss_wrapper says ENOENT, as an LDAP client that is away
        client.say("MAIL FROM:<a@example.com>")
        assert client.say(unknown).startswith("451 4.3.0 ")
    with system() as plain:
        plain.program = plain.mdaflow
        plain.start()
        with Lmtp(plain.socket) as client:
            client.say("MAIL FROM:<a@example.com>")
            for name in ("nobody-such", "root", "daemon", "nobody", "a/b", '"a b"'):
                reply = client.say(f"RCPT TO:<{name}@example.org>")
                assert reply.startswith("550 5.1.1 "), (name, reply)


def test_workers_have_walls(server: System) -> None:
    """A worker gives up the homes of accounts: Landlock asks for no_new_privs first."""
    for pid in server.workers():
        status = Path(f"/proc/{pid}/status").read_text()
        hidden = "NoNewPrivs:\t1" in status
        assert hidden or any("protected by their modes only" in m for m in server.messages())
