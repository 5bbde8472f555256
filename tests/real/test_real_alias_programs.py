"""Programs that aliases and `.forward` files name: what they are given, and what they may do."""

from __future__ import annotations

import json
import pwd
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shlex import join
from typing import Any

from accounts import CAPABILITIES, System, status_of, system
from children import until
from letters import note
from mdaflow_server import NOBODY, Lmtp, Mdaflow, give_away

PROBE = (sys.executable, str(Path(__file__).with_name("probe.py")))
OURS = {"PATH": "/usr/local/bin:/usr/bin:/bin", "SHELL": "/bin/sh", "LANG": "C.UTF-8"}
"""What is the same for everybody; TZ, too, if the server has it."""
FROM = {"SENDER": "a@example.com", "CLIENT_ADDRESS": "", "CLIENT_HOSTNAME": "", "CLIENT_HELO": ""}
LIMITS = {"RLIMIT_CORE": [0, 0], "RLIMIT_NOFILE": [256, 256], "RLIMIT_AS": [4 << 30] * 2,
          "RLIMIT_CPU": [60, 60]}  # fmt: skip


@contextmanager
def serving(aliases: str) -> Iterator[System]:
    """A server for accounts with a table of aliases; `{}` in it is a folder for its programs."""
    with system() as server:
        server.config.write_text(
            server.config.read_text()
            + f"aliases: [{server.root}/etc/aliases]\nforward:\n  file: .forward\n"
        )
        out = server.root / "out"
        out.mkdir()
        give_away(out)
        (server.root / "etc/aliases").write_text(aliases.replace("{}", str(out)))
        server.start()
        yield server


def deliver(server: Mdaflow, address: str, content: bytes = b"") -> str:
    """The reply to a message."""
    with Lmtp(server.socket) as client:
        return client.deliver(address, content or note(address))


def probed(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """What a probe has written, and its environment."""
    until(path.exists, "the end of the program")
    found = json.loads(path.read_text())
    words = (word.partition("=") for word in found["environment"])
    return found, {name: value for name, _, value in words if name not in ("TZ", "LC_CTYPE")}


def check(found: dict[str, Any], uid: int, groups: set[int]) -> None:
    """It has what it is promised, and no more (P25)."""
    about = status_of(found["status"])
    assert found["descriptors"] == [0, 1, 2]
    assert (found["umask"], found["leads"]) == (0o077, True)
    assert found["limits"] == LIMITS
    assert about["Uid"] == [uid] * 4
    assert about["Gid"] == [about["Gid"][0]] * 4
    assert set(about["Groups"]) <= groups
    assert {name: about[name] for name in CAPABILITIES} == {key: [0] for key in CAPABILITIES}


def test_program_of_an_alias() -> None:
    """It runs as the server does, with the alias as its user, and a home without anything."""
    with serving(f'ticket: "|{join(PROBE)} {{}}/x"\n') as server:
        reply = deliver(server, "Ticket+a.b@Example.org")
        assert reply.startswith("250 "), reply
        found, environment = probed(server.root / "out/x.json")
        mine = pwd.getpwnam("nobody")
        check(found, NOBODY.pw_uid, {mine.pw_gid})
        assert found["folder"] == "/"
        assert environment == OURS | FROM | {
            "HOME": "/", "USER": "Ticket", "LOGNAME": "Ticket", "LOCAL": "Ticket+a.b",
            "EXTENSION": "a.b", "DOMAIN": "Example.org", "RECIPIENT": "Ticket+a.b@Example.org",
            "ORIGINAL_RECIPIENT": "Ticket+a.b@Example.org",
        }  # fmt: skip


def test_program_of_a_user() -> None:
    """That of a `.forward` runs as its account, in its home."""
    with serving("") as server:
        bob = server.account("bob")
        bob.write(".forward", f'"|{join(PROBE)} x"\n')
        reply = deliver(server, "BOB+a.b@example.org")
        assert reply.startswith("250 "), reply
        found, environment = probed(bob.home / "x.json")
        check(found, bob.uid, {bob.uid, 20_900})
        assert found["folder"] == str(bob.home)
        assert environment == OURS | FROM | {
            "HOME": str(bob.home), "USER": "bob", "LOGNAME": "bob", "LOCAL": "BOB+a.b",
            "EXTENSION": "a.b", "DOMAIN": "example.org", "RECIPIENT": "BOB+a.b@example.org",
            "ORIGINAL_RECIPIENT": "BOB+a.b@example.org",
        }  # fmt: skip


FLOOD = "head -c 10000000 /dev/zero & head -c 10000000 /dev/zero >&2; wait; echo >>{}/done"
FLOODS = {"nothing": "", "all": "cat >/dev/null; ", "no-more": "exec 0<&-; "}


def test_floods() -> None:
    """Ten million bytes on each of its outputs and as many on its input hold nothing up, whether
    it reads nothing or all of the message, or closes its input."""
    lines = (f'{name}: "|{first}{FLOOD}"\n' for name, first in FLOODS.items())
    with serving("".join(lines)) as server:
        big = b"Subject: x\r\n\r\n" + b"%s\r\n" % (b"x" * 998) * 10_000
        for count, name in enumerate(FLOODS, 1):
            reply = deliver(server, f"{name}@example.org", big)
            assert reply.startswith("250 "), reply
            assert (server.root / "out/done").read_text() == "\n" * count
