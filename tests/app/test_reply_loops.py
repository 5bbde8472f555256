"""Two sites whose users forward to each other, answer each other and write to lists, for an hour.

The time is a simulated one. Between the sites is an MTA, which hands on, bounces what is refused,
tries again what is put off, and has the lists. Each test says what the worst is that may happen.
"""

from __future__ import annotations

import heapq
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest
from fake_mta import FakeMTA

from mdaflow.app import pipeline
from mdaflow.app.build import Site, open_site
from mdaflow.app.config import Config, Folders, Rules
from mdaflow.mail.envelope import Envelope
from mdaflow.mail.message import Message
from mdaflow.store import clock
from mdaflow.store.sqlite import SqliteStore

ANN, BOB, CARL, DEV = "ann@a.example", "bob@b.example", "carl@c.example", "dev@lists.example"
MEMBERS = (ANN, BOB, CARL)
HOUR, YEAR = 3600.0, 365 * 86400.0
MARKS = ("Auto-Submitted", "X-mdaflow-Notice", "Precedence", "List-Id")
OURS = re.compile(rb"^Auto-Submitted: auto-\w+ \(mdaflow\)$", re.MULTILINE)
"""What replies and notices have in their header."""

Gateway = Callable[[str, str, bytes], tuple[str, bytes]]
"""What an MTA makes of the sender and of a message: (sender, target, message) -> both."""


def honest(sender: str, to: str, raw: bytes) -> tuple[str, bytes]:
    """It changes nothing."""
    return sender, raw


def broken(sender: str, to: str, raw: bytes) -> tuple[str, bytes]:
    """It takes all marks of automatic mail away, and takes From for the sender."""
    for mark in MARKS:
        raw = re.sub(rb"(?im)^%s:.*\n(?:[ \t].*\n)*" % mark.encode(), b"", raw, count=1)
    return sender or Message(raw).addresses("From")[0].address, raw


class World:
    """Two sites, the MTA between them, and whoever is outside."""

    def __init__(self, root: Path, mta: FakeMTA, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root
        self.mta = mta
        self.start = self.now = 1.8e9
        self.jump = 0.0
        """How wrong the clocks are."""
        self.gateway: Gateway = honest
        self.list_marks = b""
        self.sites: dict[str, Site] = {}
        self.waiting: list[tuple[float, int, str, str, bytes]] = []
        self.outside: list[tuple[str, bytes]] = []
        """Mail for people of no site."""
        self.sent: Counter[tuple[str, str]] = Counter()
        """Replies and notices that left a site: (from, to) -> how many."""
        self.bounces: Counter[str] = Counter()
        self.deliveries = 0
        self._seen = 0
        self._number = count()
        monkeypatch.setattr(time, "time", lambda: self.now + self.jump)
        monkeypatch.setattr(clock, "uptime", lambda: self.now - self.start)

    def site(self, address: str, rules: str) -> None:
        """A site with one user."""
        user, _, domain = address.partition("@")
        home = self.root / domain / "mail" / domain / user
        (home / ".mdaflow").mkdir(parents=True)
        (home / ".mdaflow/rules").write_text(rules)
        (home / ".mdaflow/rules").chmod(0o600)
        base = f"{self.root}/{domain}"
        config = Config(
            hostname=f"mx.{domain}",
            users=(Folders(f"{base}/mail"),),
            rules=Rules(before=f"{base}/none", after=f"{base}/none"),
            state=f"{base}/state",
            next_hop=self.mta.hop,
        )
        self.sites[domain] = open_site(config)

    def post(self, sender: str, to: str, raw: bytes, after: float = 1.0) -> None:
        """Hand a message to the MTA."""
        due = self.now + after
        heapq.heappush(self.waiting, (due, next(self._number), sender, to, raw))

    def write(self, sender: str, to: str, every: float = 60.0) -> None:
        """Somebody writes to somebody for an hour."""
        for number in range(int(HOUR / every)):
            ident = f"<{number}.{next(self._number)}@{sender.partition('@')[2]}>"
            header = f"From: {sender}\nTo: {to}\nSubject: {number}\nMessage-ID: {ident}\n"
            self.post(sender, to, f"{header}\nHello\n".encode(), after=number * every)

    def run(self, most: int) -> None:
        """Let time go by until nothing is on its way; `most` deliveries are made in it."""
        until = self.now + 2 * HOUR
        while self.waiting:
            self.now, _, sender, to, raw = heapq.heappop(self.waiting)
            self._arrive(sender, to, raw)
            assert self.deliveries <= most, "it goes on for ever"
        assert self.now < until

    def _arrive(self, sender: str, to: str, raw: bytes) -> None:
        if to == DEV:
            self._explode(sender, raw)
            return
        site = self.sites.get(to.rpartition("@")[2])
        if site is None:
            self.outside.append((to, raw))
            return
        self.deliveries += 1
        envelope = Envelope(sender, to, received=time.time())
        status = pipeline.deliver_message(site, Message(raw), envelope)
        self._collect(to)
        if status.temporary:
            self.post(sender, to, raw, after=600)
        elif not status.ok and sender:
            self.bounces[sender] += 1
            report = f"From: MAILER-DAEMON@mx.example\nTo: {sender}\nSubject: Undelivered\n\n"
            self.post("", sender, report.encode())

    def _collect(self, by: str) -> None:
        """What the site of a user has handed on."""
        new, self._seen = self.mta.sessions[self._seen :], len(self.mta.sessions)
        for session in (one for one in new if one.taken):
            said = b"\n".join(session.commands).decode()
            (sender,), targets = (
                re.findall("MAIL FROM:<(.*?)>", said),
                re.findall("TO:<(.*?)>", said),
            )
            raw = session.data.removesuffix(b".\r\n").replace(b"\r\n", b"\n")
            for target in targets:
                if OURS.search(raw.partition(b"\n\n")[0]):
                    self.sent[by, target] += 1
                passed, changed = self.gateway(sender, target, raw)
                self.post(passed, target, b"Received: by mx.example\n" + changed)

    def _explode(self, sender: str, raw: bytes) -> None:
        for member in MEMBERS:
            if member != sender:
                self.post(DEV, member, self.list_marks + raw.replace(DEV.encode(), member.encode()))


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    with FakeMTA() as mta:
        found = World(tmp_path, mta, monkeypatch)
        yield found
        for site in found.sites.values():
            assert isinstance(site.answers.store, SqliteStore)
            site.answers.store.close()


ME = f'list me = ["{ANN}", "{BOB}"]\n'
AWAY = 'reply "I am away." every 1 day\n'


@pytest.mark.parametrize("also", ["", "also "])
def test_users_who_forward_to_each_other(world: World, also: str) -> None:
    """Each message of somebody else brings one bounce at most, and he gets a reply from each."""
    world.site(ANN, f'{ME}{AWAY}{also}forward to "{BOB}"')
    world.site(BOB, f'{ME}{AWAY}{also}forward to "{ANN}"')
    world.write(CARL, ANN, every=300)
    world.run(most=50)
    assert world.sent == {(ANN, CARL): 1, (BOB, CARL): 1}
    assert 0 < world.bounces.total() <= 12


@pytest.mark.parametrize(("gateway", "most"), [(honest, 60), (broken, 60)])
def test_two_who_are_away(world: World, gateway: Gateway, most: int) -> None:
    """Who writes while he is away himself gets one reply; broken MTAs make it one each."""
    world.gateway = gateway
    world.site(ANN, AWAY)
    world.site(BOB, AWAY)
    world.write(ANN, BOB)
    world.run(most=most + 5)
    answered = {(ANN, BOB): 1} if gateway is broken else {}
    assert world.sent == {(BOB, ANN): 1, **answered}
    assert not world.bounces


@pytest.mark.parametrize("marks", [b"List-Id: <dev.lists.example>\nPrecedence: list\n", b""])
@pytest.mark.parametrize("gateway", [honest, broken])
def test_lists(world: World, marks: bytes, gateway: Gateway) -> None:
    """A list gets no reply; one that looks like a person gets one from each member."""
    world.gateway, world.list_marks = gateway, marks
    world.site(ANN, f"{ME}{AWAY.replace('away', 'at sea')}")
    world.site(BOB, f"{ME}{AWAY}")
    world.write(CARL, DEV)
    world.run(most=300)
    assert set(world.sent) <= {(ANN, DEV), (BOB, DEV)}
    assert all(number == 1 for number in world.sent.values())
    assert bool(world.sent) == (not marks)
    assert not world.bounces


@pytest.mark.parametrize("gateway", [honest, broken])
def test_notices(world: World, gateway: Gateway) -> None:
    """Two who tell each other of all their mail: ten notices an hour, however marks get lost."""
    world.gateway = gateway
    world.site(ANN, f'notify "{BOB}" "New mail"')
    world.site(BOB, f'notify "{ANN}" "New mail"')
    world.write(CARL, ANN)
    world.run(most=200)
    assert all(number <= 20 for number in world.sent.values())  # two hours begin in it
    assert world.sent[ANN, BOB] in range(10, 13)


@pytest.mark.parametrize("jump", [YEAR, -YEAR])
def test_clocks_that_jump(world: World, jump: float) -> None:
    """A clock that is set by a year, at both sites and forth and back, brings no other reply."""
    world.site(ANN, AWAY)
    world.site(BOB, AWAY)
    for jumped in (0.0, jump, 0.0, -jump):
        world.jump = jumped
        world.write(CARL, ANN, every=600)
        world.write(ANN, BOB, every=600)
        world.run(most=100)
    assert world.sent == {(ANN, CARL): 1, (BOB, ANN): 1}


def test_sites_that_begin_again_after_a_jump(world: World) -> None:
    """Nor does one for processes that begin only then."""
    world.site(ANN, AWAY)
    world.write(CARL, ANN, every=600)
    world.run(most=10)
    world.jump = YEAR
    store = world.sites["a.example"].answers.store
    assert isinstance(store, SqliteStore)
    store.close()
    world.write(CARL, ANN, every=1800)
    world.run(most=20)
    assert world.sent == {(ANN, CARL): 1}
