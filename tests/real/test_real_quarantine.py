"""Release from the quarantine where accounts of this machine have mail: what the server has put
aside, root lets go, and rules can do all that they can in a delivery."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from accounts import Account, System, system
from children import until
from fake_mta import FakeMTA
from letters import letter, note
from mdaflow_server import NOBODY, Lmtp

CAUGHT = 'rule "V" when header "X-Virus" is "yes" { quarantine "virus" }\n'


@pytest.fixture(scope="module")
def mta() -> Iterator[FakeMTA]:
    """Where mail is sent on to."""
    with FakeMTA() as found:
        yield found


@pytest.fixture(scope="module")
def server(mta: FakeMTA) -> Iterator[System]:
    """A server whose site puts aside what has a virus."""
    more = f"next_hop: {mta.hop}\nquarantine: QUARANTINE\n"
    inbox = "mbox:mail:INBOX={spool}/%u"
    with system(more=more, spool=(0o2775, 8), domains={"spool.example": inbox}) as found:
        text = found.config.read_text()
        found.config.write_text(text.replace("QUARANTINE", f"{found.root}/quarantine"))
        folder = found.root / "quarantine"
        folder.mkdir(mode=0o700)
        os.chown(folder, NOBODY.pw_uid, NOBODY.pw_gid)
        found.site_file("site", CAUGHT)
        found.start()
        yield found


def put(server: System, account: Account, to: str = "", raw: bytes = b"") -> str:
    """Have a message put aside; its name."""
    address = to or account.address
    folder = server.root / "quarantine" / address / "envelopes"
    before = {*folder.glob("*")}
    with Lmtp(server.socket) as client:
        said = client.deliver(address, b"X-Virus: yes\r\n" + (raw or note(address)))
    assert " Quarantined" in said
    [new] = {*folder.glob("*")} - before
    return new.stem


def release(server: System, *arguments: str, by: Account | None = None, code: int = 0) -> str:
    done = server.call("quarantine", "release", *arguments, by=by)
    assert done.returncode == code, done.stderr
    return done.stdout if code == 0 else done.stderr


def test_release(server: System) -> None:
    """Root releases mail of several accounts: each copy is the account's, by its rules."""
    bob, ann = server.account(rules='deliver to "a"'), server.account()
    names = [put(server, bob, raw=letter(bob.address)), put(server, ann)]
    said = release(server, *(name[:12] for name in names)).splitlines()
    assert [line.rpartition(" ")[2] for line in said] == ["a", "INBOX"]
    for account, folder in ((bob, ".a"), (ann, "")):
        [file] = account.files(folder)
        assert (file.stat().st_uid, file.stat().st_gid) == (account.uid, account.uid)
        assert b"(mdaflow, released) with local id " in file.read_bytes()
    assert json.loads(server.call("quarantine", "list", "--json").stdout or "{}") == {}


def test_release_into_the_spool(server: System) -> None:
    """An inbox in the spool of the system is written by who may."""
    bob = server.account()
    name = put(server, bob, f"{bob.name}@spool.example")
    release(server, name)
    inbox = server.spool / bob.name
    assert b"released" in inbox.read_bytes()
    assert inbox.stat().st_uid == bob.uid


def test_rules_with_the_rights_of_the_site(server: System, mta: FakeMTA) -> None:
    """Rules send it on as they do in a delivery, and what they ask of the store is known."""
    target = "far@example.net"
    bob = server.account(rules=f'if duplicate {{ discard }} also forward to "{target}"')
    name = put(server, bob)
    assert " Saved to INBOX" in release(server, name)
    sent = [s for s in mta.sessions if any(target.encode() in c for c in s.commands)]
    assert len(sent) == len(bob.files()) == 1


def test_release_by_others(server: System) -> None:
    """An account looks at no quarantine, not even at its own mail there, and releases nothing."""
    bob = server.account()
    name = put(server, bob)
    for arguments in (("list",), ("show", name), ("release", name), ("expire",)):
        done = server.call("quarantine", *arguments, by=bob)
        assert done.returncode != 0
        assert done.stdout == ""
        assert name[:12] not in done.stderr or "release" in arguments or "show" in arguments
    assert bob.files() == []
    release(server, name)
    assert len(bob.files()) == 1


def test_home_that_is_away(server: System) -> None:
    """What cannot be delivered stays (75)."""
    bob = server.account()
    name = put(server, bob)
    bob.home.rename(f"{bob.home}-away")
    assert "451 " in release(server, name, code=75)
    (bob.home.with_name(f"{bob.name}-away")).rename(bob.home)
    release(server, name)
    assert len(bob.files()) == 1


def left_over(server: System) -> list[str]:
    """The processes of commands that were called for this server; its own have no such thing."""
    found = []
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        with suppress(OSError):
            environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            found += [pid] * (f"MDAFLOW_CONFIG={server.config}".encode() in environment)
    return found


def test_nothing_stays(server: System) -> None:
    """No process stays when a release is over, neither of root's nor of the account's."""
    bob = server.account()
    release(server, put(server, bob))
    until(lambda: not left_over(server), "the end of the release")
    assert len(bob.files()) == 1


def test_digest(server: System) -> None:
    """Each account gets its mail in its inbox, as its own file; nobody else is told."""
    bob, ann = server.account(rules="discard"), server.account()
    name = put(server, bob)
    done = server.call("quarantine", "digest", "-u", bob.address, "-u", ann.address)
    assert (done.returncode, done.stdout) == (0, f"{bob.address}: told of 1\n"), done.stderr
    [mail] = bob.files()
    assert mail.stat().st_uid == bob.uid
    assert f"[{name[:12]}]".encode() in mail.read_bytes()
    assert ann.files() == []
    again = server.call("quarantine", "digest", "-u", bob.address)
    assert (again.returncode, again.stdout) == (0, "")


def test_digest_for_all(server: System) -> None:
    """All who have mail there are told, though the source of accounts names no domain."""
    bob = server.account(rules="discard")
    put(server, bob)
    done = server.call("quarantine", "digest", "--all")
    assert (done.returncode, done.stdout) == (0, f"{bob.address}: told of 1\n"), done.stderr
    assert len(bob.files()) == 1
