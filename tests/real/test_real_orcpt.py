"""Aliases and delivery notices of a real Postfix: ORCPT and NOTIFY come through (RFC 3461).

ORCPT is the address as it was before all aliases: cleanup(8) makes it when the mail comes, for
virtual aliases and also for those that local(8) expands afterwards. NOTIFY=SUCCESS ends at an
alias: Postfix tells the sender that it was expanded, and asks NOTIFY=NEVER of us.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from email import message_from_string
from typing import NamedTuple

import pytest
from letters import note
from mdaflow_server import Mdaflow, User, new_root
from need import need
from postfix import MODES, Postfix

ALIASES = {
    "mailbox_transport": ["sales@example.org", "team@example.org"],
    "virtual_transport": ["sales@example.org"],
}
MAPS = {
    "virtual_alias_maps": "inline:{{ sales@example.org=bob@example.org }}",
    "alias_maps": "inline:{{ team=bob }}",
}
RULES = """\
rule "Sales" when envelope.original is "sales@example.org" { deliver to "Sales" }
rule "Team" when envelope.original is "team@example.org" { deliver to "Team" }
rule "Refused" when subject is "no" { reject "No" }
"""


class Site(NamedTuple):
    """Who talks, and who is talked to."""

    mdaflow: Mdaflow
    postfix: Postfix
    bob: User
    aliases: list[str]
    """Addresses that are bob's."""


@pytest.fixture(scope="module", params=MODES)
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    """A Postfix with aliases, which takes the mail of mdaflow, too."""
    if os.geteuid() != 0:
        pytest.skip("needs root: Postfix does")
    need("postfix")
    root = new_root()
    with ExitStack() as stack:
        (root / "postfix").mkdir()
        postfix = Postfix(root / "postfix", request.param, **MAPS)
        hop = f"next_hop: 127.0.0.1:{postfix.port}\n"
        mdaflow = Mdaflow(root, postfix.socket, more=hop)
        stack.callback(mdaflow.close)
        for server in (mdaflow, postfix):
            stack.callback(server.stop)
            server.start()
        bob = mdaflow.user(RULES, name="bob")
        yield Site(mdaflow, postfix, bob, ALIASES[request.param])


def test_alias(site: Site) -> None:
    """A rule decides by the address before the alias, which is in the mail and in the log."""
    for alias in site.aliases:
        name = alias.partition("@")[0]
        site.postfix.sendmail(note(alias), "frieda@example.com", alias)
        site.postfix.settle()
        [file] = site.bob.files(f".{name.capitalize()}")
        head = file.read_bytes().partition(b"\n\n")[0]
        assert f"\nX-Original-To: {alias}\n".encode() in head
        assert b"\nDelivered-To: bob@example.org\n" in head
        entry = site.mdaflow.entries(site.bob.address)[-1]
        assert (entry["orig_to"], entry["rule"]) == (alias, name.capitalize())


def reports(site: Site, notify: str, to: str, subject: str = "hello") -> list[str]:
    """All that comes back to the sender of a message to bob: reports."""
    sender = site.mdaflow.user()
    before = len(site.mdaflow.entries(site.bob.address))
    site.postfix.sendmail(note(to, subject=subject), sender.address, to, notify=notify)
    site.postfix.settle()
    assert len(site.mdaflow.entries(site.bob.address)) == before + 1
    if "success" in notify:
        site.mdaflow.wait(sender.address)
        site.postfix.settle()
    found = [file.read_text() for file in sender.files()]
    for text in found:
        report = message_from_string(text)
        assert report["Return-Path"] == "<>"
        assert report.get_content_type() == "multipart/report"
    return found


def test_success(site: Site) -> None:
    """Who wants to know of success hears it once, of us: Postfix has nothing to say."""
    [report] = reports(site, "success", site.bob.address)
    assert "\nReporting-MTA: dns; store.example\n" in report
    assert "\nOriginal-Recipient: rfc822; bob@example.org\n" in report
    assert "\nFinal-Recipient: rfc822; bob@example.org\n" in report
    assert "\nAction: delivered\n" in report


def test_success_of_alias(site: Site) -> None:
    """Of mail to an alias the sender hears once, of Postfix, and of us nothing besides."""
    for alias in site.aliases:
        [report] = reports(site, "success", alias)
        assert "\nReporting-MTA: dns; mx.example.org\n" in report
        assert f"\nOriginal-Recipient: rfc822;{alias}\n" in report
        assert "\nAction: expanded\n" in report


@pytest.mark.parametrize(("subject", "outcome"), [("hello", "delivered"), ("no", "rejected")])
def test_never(site: Site, subject: str, outcome: str) -> None:
    """Who wants to hear nothing hears nothing, whatever becomes of the mail."""
    assert reports(site, "never", site.bob.address, subject) == []
    assert site.mdaflow.outcomes(site.bob.address)[-1] == outcome


def test_refused(site: Site) -> None:
    """Of a refusal the sender hears once, of Postfix."""
    [report] = reports(site, "success,failure", site.bob.address, "no")
    assert "\nReporting-MTA: dns; mx.example.org\n" in report
    assert "\nAction: failed\n" in report
