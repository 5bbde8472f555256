"""Senders that the site rewrites, with the keys in its file."""

from __future__ import annotations

import builtins
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_mta import FakeMTA
from here import ANN, BOB, RAW, Here

from mdaflow.app.build import Site, open_site
from mdaflow.app.config import Config, Folders, Forward, Srs
from mdaflow.app.identity import far_site
from mdaflow.app.inflight import InFlight, Strikes
from mdaflow.app.pipeline import Courier, deliver_message
from mdaflow.app.senders import SiteSenders
from mdaflow.errors import ConfigError, TempFail
from mdaflow.mail.envelope import Envelope
from mdaflow.mail.message import Message
from mdaflow.route import tables

KEY, NEW = "an old key of the site", "a new key of the site"
DOMAIN = "srs.example.org"


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """The file of keys."""
    path = tmp_path / "keys"
    path.write_text(f"{KEY}\n")
    path.chmod(0o640)
    return path


def rewriting(site: Site, keys: Path) -> Site:
    """The site, with senders rewritten."""
    srs = Srs(DOMAIN, str(keys))
    return open_site(replace(site.config, forward=Forward(srs=srs)), site.answers.store)


def senders(keys: Path) -> SiteSenders:
    return SiteSenders(DOMAIN, str(keys), {"example.org"}.__contains__)


@pytest.mark.parametrize(("sender", "stays"), [(ANN, False), ("", True), ("eve@example.org", True)])
def test_forward(here: Here, keys: Path, sender: str, stays: bool) -> None:
    """What rules forward has a sender of ours, but for the null one and those of own domains."""
    with FakeMTA() as mta:
        here.hop = mta.hop
        here.set('forward to "x@example.com"')
        site = rewriting(here.site, keys)
        assert deliver_message(site, Message(RAW), Envelope(sender, BOB)).ok
    said = mta.taken[0].commands[1].partition(b"<")[2].partition(b">")[0].decode()
    assert (said == sender) is stays
    assert site.directory.senders is not None
    assert site.means.srs is site.directory.senders
    assert stays or site.directory.senders.reverse(said) == sender


def test_the_way_back(here: Here, keys: Path) -> None:
    """What comes back to a rewritten sender goes to the sender, whatever case it has by then; a
    forged or old address is refused."""
    with FakeMTA() as mta:
        here.hop = mta.hop
        site = rewriting(here.site, keys)
        assert site.directory.senders is not None
        back = site.directory.senders.forward(ANN)
        courier = Courier(site)
        for address in (back, back.lower()):
            assert courier.check(address).ok
            assert courier.deliver(Message(RAW), Envelope("", address), lambda: True).ok
        forged = courier.check(back.replace("=ann@", "=eve@"))
        assert (forged.code, forged.enhanced[0]) == (550, "5")
        assert courier.check(f"nobody@{DOMAIN}").code == 550
        # an MTA that asks who can have mail has a sender of its own; mail from there goes nowhere
        assert courier.check(back, "double-bounce@mx.example.org").ok
        status = courier.deliver(Message(RAW), Envelope("eve@x.org", back), lambda: True)
        assert str(status).startswith("550 5.7.1 Only bounces")
    asked = [one.commands[1:3] for one in mta.taken]
    assert [rcpt for _, rcpt in asked] == [f"RCPT TO:<{ANN}>".encode()] * 2
    assert all(mail.startswith(b"MAIL FROM:<> ") for mail, _ in asked)


def test_replies_and_notices(here: Here, keys: Path) -> None:
    """What we write ourselves has the null sender still (P39)."""
    with FakeMTA() as mta:
        here.hop = mta.hop
        here.set('notify "x@example.com" "News" reply "Gone"')
        site = rewriting(here.site, keys)
        assert deliver_message(site, Message(RAW), Envelope(ANN, BOB)).ok
    assert len(mta.taken) == 2
    assert all(one.commands[1].startswith(b"MAIL FROM:<> ") for one in mta.taken)


def test_off(here: Here) -> None:
    """Without a domain nothing is rewritten, and no file is read."""
    here.set()
    assert here.site.directory.senders is here.site.means.srs is None


def test_rotation(keys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new key on top counts at once, and the old one opens what it has closed."""
    monkeypatch.setattr(tables, "LOOK", 0)
    site = senders(keys)
    before = site.forward(ANN)
    keys.write_text(f"{NEW}\n{KEY}\n")
    after = site.forward(ANN)
    assert before != after
    assert site.reverse(before) == site.reverse(after) == ANN
    keys.write_text(f"{NEW}\n")
    with pytest.raises(ValueError, match="not made here"):
        site.reverse(before)
    keys.write_text("")  # the last good version stays in force
    assert site.forward(ANN) == after


def missing(keys: Path) -> None:
    keys.unlink()


UNUSABLE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "missing": (missing, "No such file"),
    "empty": (lambda keys: keys.write_text("\n \n"), "no key in it"),
    "short": (lambda keys: keys.write_text(f"{KEY}\nsecret\n"), "less than 16"),
    "for all": (lambda keys: keys.chmod(0o644), "everybody can read it; chmod o-r it"),
    "of others": (lambda keys: keys.chmod(0o660), "chmod go-w"),
    "folder": (lambda keys: keys.parent.chmod(0o777), "in a folder that others can write to"),
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_unusable_keys(name: str, keys: Path) -> None:
    """A server does not begin with keys that cannot be used, and says why; others put mail off."""
    spoil, reason = UNUSABLE[name]
    spoil(keys)
    with pytest.raises(ConfigError, match=reason):
        senders(keys).load()
    with pytest.raises(TempFail) as failure:
        senders(keys).forward(ANN)
    assert str(keys) not in str(failure.value.status)


def test_other_mail_needs_no_keys(here: Here, keys: Path) -> None:
    """Without its keys a site puts off what would be forwarded, and nothing else."""
    keys.unlink()
    with FakeMTA() as mta:
        here.hop = mta.hop
        here.set('forward to "x@example.com"')
        site = rewriting(here.site, keys)
        assert deliver_message(site, Message(RAW), Envelope(ANN, BOB)).code == 451
        assert deliver_message(site, Message(RAW), Envelope("", BOB)).ok
        here.set("keep")
        assert deliver_message(site, Message(RAW), Envelope(ANN, BOB)).ok
    assert site.directory.senders is not None
    assert (
        site.directory.senders.reverse(BOB)
        is site.directory.senders.reverse(f"bob@{DOMAIN}")
        is None
    )
    with pytest.raises(TempFail):
        site.directory.senders.reverse(f"SRS0=abcd=ef=x.org=ann@{DOMAIN}")


def test_server(tmp_path: Path, keys: Path) -> None:
    """A server reads the keys when it begins (P51), the process of an account never does."""
    config = Config(users=(Folders(f"{tmp_path}"),), state=f"{tmp_path}/state",
                    forward=Forward(srs=Srs(DOMAIN, f"{tmp_path}/nowhere")))  # fmt: skip
    with pytest.raises(ConfigError, match="nowhere"):
        open_site(config, None, InFlight(1, Strikes()))
    assert far_site(config).directory.senders is not None


def test_no_srslib(keys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without srslib the message says how to get it."""
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name == "srslib":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigError, match=r"pip install 'mdaflow\[srs\]'"):
        senders(keys).load()


@pytest.mark.parametrize(("relay", "resent"), [("", False), ("lmtp:unix:/run/x", True)])
def test_means(here: Here, relay: str, resent: bool) -> None:
    """The other settings of what leaves us reach who sends it."""
    here.set()
    config = replace(here.site.config, relay=relay, forward=Forward(resent=resent))
    means = open_site(config, here.site.answers.store).means
    assert (means.relay, means.resent) == (relay, resent)
    assert os.fspath(means.next_hop) == here.hop
