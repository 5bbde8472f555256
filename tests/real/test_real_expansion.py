"""Aliases of ours between two Postfixes: what comes in by one way or another, goes on to users,
programs and the world outside, through loops, and through the death of either side."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from children import until
from letters import note
from mdaflow_server import Mdaflow, User, give_away, new_root
from need import need
from postfix import Postfix

from mdaflow.app.expand import AT_ONCE

HERE = "example.org"
OUTSIDE = "elsewhere.example"
MEMBERS, FEWER = 10_000, 3_000

WAYS: dict[str, tuple[str, dict[str, str]]] = {
    "mailbox_transport": ("mailbox_transport", {}),
    "local_transport": (
        "mailbox_transport",
        {
            "local_transport": "lmtp:unix:{root}/queue/private/mdaflow-lmtp",
            "local_recipient_maps": "",
            "mailbox_transport": "",
        },
    ),
    "virtual_transport": ("virtual_transport", {}),
}
"""How Postfix hands mail to us: the mode of the fixture, and what is set besides."""
MORE = {
    "virtual_alias_maps": "inline:{{ @loop.example=circle@example.org }}",
    "virtual_alias_domains": "loop.example",
    "smtpd_recipient_restrictions": "check_recipient_access inline:{{ refused.example=REJECT }}, "
    "permit_mynetworks, reject",
    "transport_maps": "inline:{{ elsewhere.example=discard: }}",
    "smtpd_client_connection_count_limit": "0",
}
ALIASES = """\
sales:   ann, carl+x@example.org, eve@elsewhere.example, "|cat >>{out}/prog"
all:     sales, \\bob
list:    :include:{out}/members
staff:   ann, eve@elsewhere.example, gone@refused.example
owner-staff: bob
circle:  circle@loop.example
round:   bob@elsewhere.example, circle
"""
_TO = re.compile(r"to=<([^>]*)>.* status=(\w+)")


class Between:
    """A Postfix in front, mdaflow, and a Postfix behind, which may be the same."""

    def __init__(self, root: Path, stack: ExitStack, way: str, two: bool, members: int) -> None:
        mode, ways = WAYS[way]
        self.front = self._postfix(root / "front", mode, ways)
        self.back = self._postfix(root / "back", mode, ways) if two else self.front
        more = "forward:\n  file: .forward\n"
        more += f"next_hop: 127.0.0.1:{self.back.port}\naliases: [{root}/etc/aliases]\n"
        self.mdaflow = Mdaflow(root, self.front.socket, more=more)
        stack.callback(self.mdaflow.close)
        self.out = root / "out"
        self.out.mkdir()
        give_away(self.out)
        (root / "etc/aliases").write_text(ALIASES.format(out=self.out))
        members = (f"m{number}@{OUTSIDE}\n" for number in range(members))
        (self.out / "members").write_text("".join(members))
        for server in dict.fromkeys((self.mdaflow, self.front, self.back)):
            stack.callback(server.stop)
            server.start()
        self.ann, self.bob, self.carl = (self.mdaflow.user(name=n) for n in ("ann", "bob", "carl"))

    def _postfix(self, root: Path, mode: str, more: dict[str, str]) -> Postfix:
        root.mkdir()
        found = Postfix(root, mode, **MORE | more)
        with (root / "etc/master.cf").open("a") as master:
            master.write("discard unix - - n - - discard\n")
        return found

    def send(self, address: str, sender: str = f"ann@{HERE}") -> None:
        said = self.front.swaks(note(address), sender, address)
        assert "queued as" in said, said

    def settle(self) -> None:
        for server in (self.front, self.back, self.front):
            server.settle()

    def sent(self) -> Counter[str]:
        """The addresses outside that have got a message, and how often."""
        log = self.back.log.read_text(errors="replace")
        found = (_TO.search(line) for line in log.splitlines() if "relay=none, delay" in line)
        return Counter(m[1] for m in found if m and m[2] == "sent" and OUTSIDE in m[1])


@contextmanager
def between(way: str, *, two: bool = False, members: int = MEMBERS) -> Iterator[Between]:
    if os.geteuid() != 0:
        pytest.skip("needs root: Postfix does")
    need("postfix")
    root = new_root()
    with ExitStack() as stack:
        yield Between(root, stack, way, two, members)


def subjects(user: User) -> list[str]:
    found = (re.search(r"^Subject: (.*)$", file.read_text(), re.M) for file in user.files())
    return sorted(match[1] for match in found if match)


@pytest.mark.parametrize("way", WAYS)
def test_ways(way: str) -> None:
    """By each way in, an alias leads to users, to the world outside, to programs and to lists; who
    can never have a message is told to the owner; a loop ends after one bounce."""
    with between(way) as system:
        system.send(f"all@{HERE}", f"ann@{HERE}")
        system.settle()
        assert subjects(system.ann) == subjects(system.bob) == subjects(system.carl) == ["hello"]
        assert (system.out / "prog").read_text().count("\nSubject: hello") == 1
        assert system.sent() == {f"eve@{OUTSIDE}": 1}
        [carls] = [file.read_text() for file in system.carl.files()]
        assert f"Delivered-To: carl+x@{HERE}\nX-Original-To: all@{HERE}\n" in carls

        system.send(f"staff@{HERE}", f"carl@{HERE}")
        system.settle()
        assert system.sent() == {f"eve@{OUTSIDE}": 2}
        assert system.back.logged(f"from=<owner-staff@{HERE}>")
        assert subjects(system.bob) == [f"Could not be delivered: staff@{HERE}", "hello"]
        assert subjects(system.carl) == ["hello"]

        system.send(f"round@{HERE}", f"carl@{HERE}")
        system.settle()
        assert system.sent() == {f"eve@{OUTSIDE}": 2, f"bob@{OUTSIDE}": 1}
        assert subjects(system.carl) == ["Undelivered Mail Returned to Sender", "hello"]


def test_forward_to_each_other() -> None:
    """Two users who send all mail on to each other: one bounce, and who keeps a copy has one."""
    with between("virtual_transport") as system:
        for name, text in (("dora", f"emil@{HERE}\n"), ("emil", f"\\emil, dora@{HERE}\n")):
            user = system.mdaflow.user(name=name)
            (user.home / ".forward").write_text(text)
            give_away(user.home / ".forward")
        system.send(f"dora@{HERE}", f"carl@{HERE}")
        system.settle()
        assert subjects(system.carl) == ["Undelivered Mail Returned to Sender"]
        assert subjects(user) == ["hello"]


def test_large_list() -> None:
    """A list of ten thousand leaves in transactions of a hundred, and everybody has it once."""
    with between("virtual_transport") as system:
        system.send(f"list@{HERE}")
        system.settle()
        assert system.sent() == {f"m{number}@{OUTSIDE}": 1 for number in range(MEMBERS)}
        log = system.back.log.read_text()
        sizes = [int(size) for size in re.findall(r"nrcpt=(\d+) \(queue active\)", log)]
        assert max(sizes) == AT_ONCE
        assert sum(size == AT_ONCE for size in sizes) == MEMBERS // AT_ONCE


@pytest.mark.parametrize("who", ["front", "back"])
def test_kill(who: str) -> None:
    """When a Postfix is killed in the middle of a large list, the message comes again, and goes to
    those who have not got it: only of the one transaction whose reply was lost a copy may be
    double."""
    with between("virtual_transport", two=True, members=FEWER) as system:
        system.send(f"list@{HERE}")
        until(lambda: len(system.sent()) > AT_ONCE, "the first of many")
        kill(getattr(system, who))
        assert len(system.sent()) < FEWER
        system.settle()
        found = system.sent()
        assert set(found) == {f"m{number}@{OUTSIDE}" for number in range(FEWER)}
        assert set(found.values()) <= {1, 2}
        double = sum(found.values()) - len(found)
        assert double <= (AT_ONCE if who == "back" else 0)


def kill(server: Postfix) -> None:
    """Kill all of a Postfix at once, and start it again."""
    assert server._child is not None
    child, server._child = server._child, None
    child.kill()
    server.start()


ASKS = {
    "smtpd_recipient_restrictions": "reject_unverified_recipient, permit_mynetworks, reject",
    "unverified_recipient_reject_code": "550",
    "address_verify_map": "",
    "address_verify_poll_count": "20",
    "transport_maps": "inline:{{ elsewhere.example=discard: }}",
}
"""What README has Postfix ask mdaflow."""


@pytest.mark.parametrize("way", ["local_transport", "virtual_transport"])
def test_postfix_asks(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Postfix takes mail for aliases of ours, and none for who is nobody, because it asks first."""
    mode, settings = WAYS[way]
    all_of_them = {"virtual_mailbox_maps": "static:all"} if way == "virtual_transport" else {}
    monkeypatch.setitem(WAYS, way, (mode, settings | ASKS | all_of_them))
    monkeypatch.setattr(Between, "_postfix", _with_verify)
    with between(way) as system:
        system.send(f"sales@{HERE}", f"ann@{HERE}")
        said = system.front.swaks(note("nobody"), f"ann@{HERE}", f"nobody@{HERE}")
        assert re.search(r"<\*\* 550 5\.1\.1 ", said), said
        system.settle()
        assert subjects(system.ann) == ["hello"]


def _with_verify(self: Between, root: Path, mode: str, more: dict[str, str]) -> Postfix:
    root.mkdir()
    found = Postfix(root, mode, **MORE | more)
    with (root / "etc/master.cf").open("a") as master:
        master.write("discard unix - - n - - discard\nverify unix - - n - 1 verify\n")
    return found
