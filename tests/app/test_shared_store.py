"""Two machines of one site, each with its own disk, and one Redis."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fake_mta import FakeMTA
from here import ANN, BOB, RAW, Here, close_log
from redis_server import RedisServer

from mdaflow.app import pipeline
from mdaflow.app.build import STAYS, open_site
from mdaflow.app.config import Config
from mdaflow.errors import ConfigError
from mdaflow.mail.envelope import Envelope
from mdaflow.mail.message import Message
from mdaflow.store import redis

AWAY = 'reply "Away." every 7 days'


class Site(tuple[Here, Here]):
    """Two machines, the server and the next hop."""

    server: RedisServer
    mta: FakeMTA

    @property
    def reason(self) -> str:
        """What the log says of the last delivery: a process has one log."""
        return str(self[1].entry["reason"])


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setattr(redis, "REST", 0.0)
    with RedisServer() as server, FakeMTA() as mta:
        one = Here(tmp_path / "one")
        close_log()
        machines = Site((one, Here(tmp_path / "two")))
        machines.server, machines.mta = server, mta
        for machine in machines:
            machine.store, machine.hop = f"{server.address}?site=example", mta.hop
            machine.set(AWAY)
        yield machines
        for machine in machines:
            machine.close()
        close_log()


def test_one_reply(site: Site) -> None:
    """A sender gets one reply, whatever machine his mail comes to (P38)."""
    one, two = site
    one.send()
    for machine in (two, one, two):
        machine.send()
        assert site.reason == "maildir INBOX, no reply: had one"
    assert len(site.mta.taken) == 1
    assert [len(machine.mails()) for machine in site] == [2, 2]


def test_at_the_same_instant(site: Site) -> None:
    """Of two machines that are about to reply to one sender, one does."""
    start = threading.Barrier(2)

    def fence() -> bool:  # both have looked whether there was a reply
        start.wait(30)
        return True

    def deliver(machine: Here) -> None:
        pipeline.deliver_message(machine.site, Message(RAW), Envelope(ANN, BOB), fence)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(deliver, site))
    assert len(site.mta.taken) == 1
    assert [len(machine.mails()) for machine in site] == [1, 1]


def test_server_is_down(site: Site) -> None:
    """Mail is delivered, and nobody gets a reply until the server is back."""
    one, two = site
    site.server.stop()
    for machine in site:
        machine.send()
        assert site.reason == "maildir INBOX, no reply: no memory"
        assert len(machine.mails()) == 1
    assert site.mta.taken == []
    site.server.start()
    two.send()
    one.send()
    assert len(site.mta.taken) == 1


def test_server_is_frozen(site: Site) -> None:
    """The same when it takes connections and says nothing."""
    site.server.freeze()
    for machine in site:
        machine.send()
        assert site.reason == "maildir INBOX, no reply: no memory"
    assert site.mta.taken == []


def test_server_forgets(site: Site) -> None:
    """The machine that has replied still knows that."""
    one, _ = site
    one.send()
    site.server.say("FLUSHALL")
    one.send()
    assert site.reason == "maildir INBOX, no reply: had one"
    assert len(site.mta.taken) == 1


def test_server_is_full(site: Site) -> None:
    """Without room nobody gets a reply, and mail is delivered."""
    site.server.say("CONFIG", "SET", "maxmemory", "1")
    for machine in site:
        machine.send()
        assert site.reason == "maildir INBOX, no reply: no memory"
    assert site.mta.taken == []


def test_one_machine_cannot_reach_it(site: Site) -> None:
    """Whoever is cut off sends no reply, the other one sends one."""
    one, two = site
    two.store = "unix:///nowhere/redis.sock"
    two.close()
    cut_off = (two, "no reply: no memory")
    for machine, said in (cut_off, (one, f"reply {ANN}"), cut_off, (one, "no reply: had one")):
        machine.send()
        assert site.reason == f"maildir INBOX, {said}"
    assert len(site.mta.taken) == 1


def test_what_was_seen_elsewhere_is_stored(site: Site) -> None:
    """Rules that discard duplicates lose no message because a server says it was seen (P43)."""
    one, two = site
    for machine in site:
        machine.set("if duplicate { discard }")
    one.send()
    one.send()
    for key in site.server.say("KEYS", "*"):  # all that one machine has told it
        assert not key.startswith(tuple(f"example:{begins}".encode() for begins in STAYS))
    two.send()
    assert [len(machine.mails()) for machine in site] == [1, 1]


def test_what_rules_remember(site: Site) -> None:
    """What rules of a user remember is known on all machines."""
    one, two = site
    one.set('remember "x" for 1 day')
    two.set('if remembered "x" { deliver to "Known" }')
    one.send()
    two.send()
    assert len(two.mails("Known")) == 1


def test_notices(site: Site) -> None:
    """A flood over two machines is one flood of notices."""
    for machine in site:
        machine.set('notify "phone@x.org" "New mail"')
    for _ in range(8):
        for machine in site:
            machine.send()
    assert len(site.mta.taken) == 10


def test_values_that_are_none(site: Site) -> None:
    """Whatever others have put there under our names, mail is delivered."""
    one, two = site
    one.send()
    (key,) = [key for key in site.server.say("KEYS", "*") if b"reply" in key]
    site.server.say("DEL", key)
    site.server.say("LPUSH", key, "x")
    two.send()
    assert site.reason == "maildir INBOX, no reply: had one"
    site.server.say("SET", key, "junk")
    two.send()
    assert site.reason == "maildir INBOX, no reply: had one"
    assert len(two.mails()) == 2


def test_no_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without redis-py the configuration is refused, and says what is to be done."""
    monkeypatch.setitem(sys.modules, "redis", None)
    monkeypatch.delitem(sys.modules, "mdaflow.store.redis", raising=False)
    config = Config(state=f"{tmp_path}/state", store="redis://127.0.0.1:1")
    with pytest.raises(ConfigError, match=r"pip install 'mdaflow\[redis\]'"):
        open_site(config)
