"""What a source may say of a user, and what it may not."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from mdaflow.app.config import Sql
from mdaflow.app.profile import Profiles
from mdaflow.errors import TempFail
from mdaflow.route.users import Account, User

BOB = "bob@example.org"
OURS = 150
USUAL = {"home": "/mail/%d/%n"}


def made(values: dict[str, object], address: str = BOB, **settings: Any) -> User:
    source = Sql("sqlite:////x", "SELECT", **USUAL | settings)
    return Profiles(3, source, OURS)(address, values)


def test_defaults() -> None:
    """What is not said has the value of the source, with the parts of the address."""
    user = made({"home": None, "quota": "", "mailbox": None}, mailbox="maildir:%n/%u/%d")
    assert user == User(
        BOB, "/mail/example.org/bob", "maildir:bob/bob@example.org/example.org",
        source=3, made_below="/mail",
    )  # fmt: skip
    named: dict[str, Any] = {
        "quota": 5,
        "quota_messages": 6,
        "rules": "r",
        "timezone": "Europe/Vienna",
    }
    named["spam_required"] = 7.5
    user = made({}, **named)
    assert {name: getattr(user, name) for name in named} == named


def test_values() -> None:
    """What is said counts before the defaults of the source."""
    user = made(
        {
            "address": "robert@example.org", "home": "/srv/bob/", "mailbox": "maildir:~/Mail",
            "quota": "2G", "quota_messages": Decimal(7), "rules": "my/rules",
            "own": "b@x, c@x d@x", "timezone": "Europe/Vienna", "spam_required": "4.5",
        },
        quota=1, rules="else",
    )  # fmt: skip
    assert user == User(
        "robert@example.org", "/srv/bob", "maildir:Mail", 2 << 30, 7, None, 3, "my/rules",
        ("b@x", "c@x", "d@x"), "Europe/Vienna", "/", 4.5,
    )  # fmt: skip


MAILBOXES = {
    "maildir:~/Maildir": "maildir:Maildir",
    "maildir:%h/Maildir": "maildir:Maildir",
    "maildir:/mail/example.org/bob/Maildir:LAYOUT=fs": "maildir:Maildir:LAYOUT=fs",
    "maildir:/mail/%d/%n": "maildir:.",
    "maildir:Maildir:INDEX=/var/index/%u": "maildir:Maildir",
    "mbox:~/mail:INBOX=~/mail/in": "mbox:mail:INBOX=mail/in",
    "maildir:/mail/example.org/bobby": None,
    "maildir:/mail/example.org/bob/../carl": None,
    "maildir:../carl": None,
    "maildir:": None,
    "mbox:mail:INBOX=/var/mail/bob": None,
    "dbox:~/mail": None,
    "Maildir": None,
    "maildir:a\0b": None,
}


@pytest.mark.parametrize(("said", "mailbox"), MAILBOXES.items())
def test_mailboxes(said: str, mailbox: str | None) -> None:
    """A mailbox is below the home, in Dovecot's words or in ours."""
    if mailbox is None:
        with pytest.raises(TempFail, match="mailbox: "):
            made({"mailbox": said})
    else:
        assert made({"mailbox": said}).mailbox == mailbox


@pytest.mark.parametrize("uid", [5000, "5000", Decimal(5000)])
def test_uids(uid: object) -> None:
    """Who has another uid than ours is an account of that uid and gid, with no further groups."""
    user = made({"uid": uid, "gid": 5001, "home": "/srv/bob"})
    assert user.account == Account(BOB, 5000, 5001, "/srv/bob", listed=False)
    assert user.made_below == ""
    assert made({}, uid=5000, gid=5001).account == user.account._replace(
        home="/mail/example.org/bob"
    )


@pytest.mark.parametrize("values", [{}, {"uid": OURS}, {"uid": OURS, "gid": 0 + 8}, {"uid": None}])
def test_our_uid(values: dict[str, object]) -> None:
    """Who has our uid, or none, is written to by us."""
    assert made(values).account is None


EVIL: dict[str, list[object]] = {
    "uid": [0, "0", -1, "-1", 999, 60_001, 1 << 32, (1 << 32) - 1, 1 << 64, "root", "1000 ",
            "0x3e8", 1000.5, True, b"1000", "1" * 30, "١٢٣٤", [1000], Decimal("NaN"),
            Decimal("1000.5")],
    "gid": [0, -1, 8, 42, "mail", True],
    "home": ["relative", "../x", "/mail/../etc", "/mail/..", "/", "//", "/./", "~/x", "/a\0b",
             "/a\nb", b"/x", 7, "/a\x7f"],
    "quota": [-1, "many", "1e9", 1 << 50, "5%", True],
    "quota_messages": [-1, 1.5, "x"],
    "rules": ["/etc/passwd", "../rules", "a/../../b", "~/x"],
    "spam_required": ["many", -1, 1001, "nan", "inf", True, b"5"],
    "timezone": ["../../etc/passwd", "/etc/localtime", "Vienna"],
    "address": ["../x@y", "a b@c", "nobody", "a@b@c", "a\n@b", "@x", 5],
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in EVIL.items() for value in values]
)
def test_evil(name: str, value: object) -> None:
    """What cannot be right is no user: the mail is put off, and the log tells name and user."""
    usual: dict[str, object] = {"uid": 5000, "gid": 5000, "home": "/srv/bob"}
    with pytest.raises(TempFail, match=f"users\\[3\\]: {BOB}: {name}: "):
        made(usual | {name: value})


def test_needed() -> None:
    """A home is needed, and a gid with a uid; that of the source may be any."""
    with pytest.raises(TempFail, match="home: there is none"):
        made({}, home="")
    with pytest.raises(TempFail, match="gid: none"):
        made({"uid": 5000})
    user = made({"uid": 5000}, gid=100)
    assert user.account
    assert user.account.gid == 100


def test_mbox_has_no_quota() -> None:
    """A quota for mbox files cannot be kept."""
    with pytest.raises(TempFail, match="can have no quota"):
        made({"mailbox": "mbox:mail", "quota": 1})
