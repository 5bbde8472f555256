"""`mdaflow expire`, as an administrator or a user calls it."""

from __future__ import annotations

import json
import time
from collections.abc import Collection
from pathlib import Path

import pytest
from test_commands import Home, home, unprivileged  # noqa: F401 - fixtures

from mdaflow import deliver
from mdaflow.deliver.mailbox import Mailbox

DAY = 86400.0
FLAG = ("\\Flagged",)


def put(maildir: Path, folder: str = "", days: float = 30, flags: Collection[str] = ()) -> None:
    """Store a message of 31 days ago that expires."""
    maildir.parent.mkdir(parents=True, exist_ok=True)
    box = Mailbox("maildir", str(maildir.parent), maildir.name)
    seconds = days * DAY
    raw = [b"A: b\n\n"]
    deliver.prepare(box, folder, raw, flags, "", time.time() - 31 * DAY, seconds).commit()


def count(maildir: Path) -> int:
    """How many messages there are."""
    return sum(file.parent.name in ("new", "cur") for file in maildir.rglob("*,S=*"))


def test_own_mailbox(unprivileged: Home) -> None:  # noqa: F811
    """Without arguments it is the caller's own mailbox, with a line for each folder."""
    maildir = unprivileged.path / "Maildir"
    for folder, days, flags in (("", 30, ()), ("", 40, ()), ("Junk", 30, ()), ("Junk", 30, FLAG)):
        put(maildir, folder, days, flags)
    done = unprivileged.call("expire", "--config", unprivileged.config())
    assert done.returncode == 0, done.stderr
    name = f"{unprivileged.user.pw_name}@mx.example.org"
    assert sorted(done.stdout.decode().splitlines()) == [
        f"{name}  INBOX: 1 deleted, 0 kept for their flag, 1 to come",
        f"{name}  Junk: 1 deleted, 1 kept for their flag, 0 to come",
    ]
    assert count(maildir) == 2


def test_dry_run(unprivileged: Home) -> None:  # noqa: F811
    """A dry run says what would be deleted, and deletes nothing."""
    maildir = unprivileged.path / "Maildir"
    put(maildir)
    done = unprivileged.call("expire", "--dry-run", "--config", unprivileged.config())
    assert done.stdout.endswith(b"INBOX: 1 to delete, 0 kept for their flag, 0 to come\n")
    assert count(maildir) == 1


@pytest.fixture
def users(unprivileged: Home) -> Home:  # noqa: F811
    """Ann and Bob of example.org, each with a message whose time is over."""
    for name in ("ann", "bob"):
        put(unprivileged.path / "mail/example.org" / name / "Maildir")
    return unprivileged


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (("--all",), ["ann", "bob"]),
        (("-u", "ann@example.org"), ["ann"]),
        (("-u", "ann@example.org", "-u", "bob+x@example.org"), ["ann", "bob"]),
    ],
)
def test_users(users: Home, arguments: tuple[str, ...], names: list[str]) -> None:
    """All users of the configuration, or those that are named; one JSON object a folder."""
    done = users.call("expire", *arguments, "--json", "--config", users.config())
    assert done.returncode == 0, done.stderr
    said = sorted((json.loads(line) for line in done.stdout.splitlines()), key=lambda o: o["user"])
    assert said == [
        {
            "user": f"{name}@example.org", "folder": "INBOX", "expired": 1, "flagged": 0,
            "waiting": 0, "gone": 0, "dry_run": False,
        }
        for name in names
    ]  # fmt: skip
    assert count(users.path / "mail") == 2 - len(names)


def test_absolute_maildir(users: Home) -> None:
    """A Maildir at an absolute path, where site rules may deliver, is named by its place."""
    journal = users.path / "journal"
    put(journal)
    done = users.call("expire", f"maildir:{journal}", "--config", users.config())
    assert done.returncode == 0, done.stderr
    assert done.stdout.decode() == (
        f"maildir:{journal}  INBOX: 1 deleted, 0 kept for their flag, 0 to come\n"
    )
    assert (count(journal), count(users.path / "mail")) == (0, 2)


def test_trouble_stops_nobody_else(users: Home) -> None:
    """A mailbox that cannot be gone through is reported; the others are done: exit code 75."""
    cur = users.path / "mail/example.org/ann/Maildir/cur"
    cur.rename(cur.with_name("aside"))
    cur.symlink_to("aside")
    put(users.path / "mail/example.org/carl/Maildir")
    done = users.call("expire", "--all", "--config", users.config())
    assert done.returncode == 75
    assert done.stderr.startswith(b"mdaflow: ann@example.org: ")
    assert len(done.stderr.splitlines()) == 1
    assert len(done.stdout.splitlines()) == 2
    done = users.call("expire", "--all", "--json", "--config", users.config())
    [said] = [json.loads(line) for line in done.stdout.splitlines()]
    assert said.keys() == {"user", "error"}


WRONG: dict[int, list[tuple[str, ...]]] = {
    67: [("-u", "nobody@example.org"), ("-u", "ann@example.org", "-u", "../x@example.org")],
    64: [("Junk",), ("mbox:/x",), ("maildir:x",)],
    77: [("maildir:/x/../y",)],
    78: [("--config", "/nonexistent")],
}


@pytest.mark.parametrize(
    ("code", "arguments"), [(code, a) for code, many in WRONG.items() for a in many]
)
def test_wrong_arguments(users: Home, code: int, arguments: tuple[str, ...]) -> None:
    """For users and places that are none nothing is deleted, and the exit code says why."""
    done = users.call("expire", "--config", users.config(), *arguments)
    assert done.returncode == code, done.stderr
    assert done.stdout == b""
    assert b"Traceback" not in done.stderr
    assert count(users.path / "mail") == 2


def test_nothing_to_do(unprivileged: Home) -> None:  # noqa: F811
    """Where nothing is recorded nothing is said."""
    done = unprivileged.call("expire", "--config", unprivileged.config())
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
