"""`mdaflow quarantine`, as an administrator calls it."""

from __future__ import annotations

import json
import os
import quopri
import subprocess
from pathlib import Path

import pytest
from test_commands import PROGRAM, Home, home, unprivileged  # noqa: F401 - fixtures

RULES = 'rule "V" when header "X-Virus" is "yes" { quarantine "{header X-Why}" }\n'
MAIL = """\
X-Virus: yes
X-Why: {why}
From: Ann <ann@example.com>
Subject: {subject}
Content-Type: multipart/mixed; boundary=b

--b

Hello {text}
--b
Content-Type: application/zip; name="{name}"

UEsDBAo=
--b--
"""


class Site:
    """A site with the users ann and bob, and what is in its quarantine."""

    def __init__(self, home: Home) -> None:  # noqa: F811
        self.home = home
        self.quarantine = home.path / "quarantine"
        self.quarantine.mkdir()
        for name in ("ann", "bob"):
            (home.path / "mail/example.org" / name).mkdir(parents=True)
        home.write("before/1.rules", RULES)
        self.config = home.config(quarantine="quarantine", log={"to": str(home.path / "log")})

    def call(self, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        return self.home.call("quarantine", *arguments, "--config", self.config)

    def say(self, *arguments: str) -> str:
        """What a call says that goes well."""
        done = self.call(*arguments)
        assert (done.returncode, done.stderr) == (0, b""), done.stderr
        return done.stdout.decode()

    def put(self, user: str = "bob", **words: str) -> str:
        """Put a message aside; its name."""
        said = {"why": "virus", "subject": "hi", "text": "Bob", "name": "a.zip", **words}
        mail = MAIL.format(**said).encode()
        address = f"{user}@example.org"
        before = set(self.names)
        more = ("-d", address, "-f", "ann@example.com", "--config", self.config)
        done = self.home.call("deliver", *more, stdin=mail)
        assert done.returncode == 0, done.stderr
        [name] = set(self.names) - before
        return name

    @property
    def names(self) -> list[str]:
        """The names of all messages, by their envelopes."""
        return [path.stem for path in self.quarantine.glob("*/envelopes/*")]

    def inbox(self, user: str = "bob") -> list[bytes]:
        folder = self.home.path / "mail/example.org" / user / "Maildir/new"
        return [path.read_bytes() for path in sorted(folder.glob("*"))]


@pytest.fixture
def site(unprivileged: Home) -> Site:  # noqa: F811
    return Site(unprivileged)


def test_list(site: Site) -> None:
    """One line for each message, the last first, with sender, subject, reason and rule."""
    first, second = site.put("ann", subject="one"), site.put(subject="two", why="spam, 7.5")
    lines = site.say("list").splitlines()
    assert [line.split()[0] for line in lines] == [second[:12], first[:12]]
    where = site.home.path / "before/1.rules:1:43"
    rest = f'<ann@example.com> to <bob@example.org>  two  [spam, 7.5, rule "V" ({where})]'
    assert lines[0].endswith(f"  {rest}")
    assert site.say("list", "-u", "ann@example.org").splitlines() == [lines[1]]


def test_list_as_json(site: Site) -> None:
    """One object for each message."""
    name = site.put()
    [said] = map(json.loads, site.say("list", "--json").splitlines())
    assert abs(said.pop("received") - os.stat(site.quarantine).st_mtime) < 3600
    assert said.pop("size") > 100
    assert said == {
        "id": name, "recipient": "bob@example.org", "original": "", "sender": "ann@example.com",
        "client": {"ip": "", "name": ""}, "queue_id": "", "why": "virus", "rule": "V",
        "where": f"{site.home.path}/before/1.rules:1:43",
        "from": "Ann <ann@example.com>", "subject": "hi",
    }  # fmt: skip


def test_nothing(site: Site) -> None:
    """An empty quarantine has no lines; one that is not there is a failure (75)."""
    assert site.say("list") == ""
    site.quarantine.rmdir()
    assert site.call("list").returncode == 75


def test_list_with_what_cannot_be_read(site: Site) -> None:
    """One that is no message, or far too large, stops no other one."""
    name = site.put()
    [message] = site.quarantine.glob("*/new/*")
    with message.with_name("1.huge").open("wb") as file:
        file.truncate(2 << 30)
    os.mkfifo(message.with_name("1.fifo"))
    done = site.call("list")
    assert (done.returncode, done.stdout.split()[0].decode()) == (0, name[:12])
    assert done.stderr.decode().splitlines() == ["bob@example.org/1.huge: 1.huge is no message"]


HOSTILE = "=?utf-8?q?=1B]0;x=07=E2=80=AE=0Arm?="


def test_terminal(site: Site) -> None:
    """Nothing of a message talks to the terminal, or begins a line of its own."""
    name = site.put(subject=HOSTILE, why=HOSTILE, text="\x1b[2J\x07", name="\x1b[31m.zip")
    for said in (site.say("list"), site.say("show", name)):
        assert said.replace("\n", "").isprintable()
        assert "\\x1b" in said
    assert len(site.say("list").splitlines()) == 1
    assert not any(line.startswith("rm") for line in site.say("show", name).splitlines())


def test_show(site: Site) -> None:
    """Envelope, reason, header, text and attachments; no content of these."""
    name = site.put()
    said = site.say("show", name[:8])
    for line in (
        f"id:         {name}",
        "sender:     <ann@example.com>",
        "recipient:  <bob@example.org>",
        "    Subject: hi",
        "    Hello Bob",
        "attachment: a.zip  application/zip  8 bytes",
    ):
        assert line in said.splitlines()
    assert f'why:        virus, rule "V" ({site.home.path}/before/1.rules:1:43)' in said
    assert "UEsDBAo" not in said
    assert "X-mdaflow" not in said


def test_show_raw(site: Site) -> None:
    """With --raw it is the message, as it came."""
    name = site.put()
    raw = site.say("show", "--raw", name)
    assert raw.startswith("Delivered-To: bob@example.org\n")
    assert raw.endswith("UEsDBAo=\n--b--\n")
    assert json.loads(site.say("show", "--json", name))["attachments"] == [
        {"name": "a.zip", "type": "application/zip", "size": 8}
    ]


@pytest.mark.parametrize("called", ["zzzz", "", "../x"])
@pytest.mark.parametrize("what", [("show",), ("release",), ("learn", "ham")])
def test_nobody_is_called_so(site: Site, called: str, what: tuple[str, ...]) -> None:
    """A name of no message is an error (66), and nothing happens."""
    name = site.put()
    done = site.call(*what, called)
    assert (done.returncode, done.stdout) == (66, b"")
    assert b"no message in quarantine is called so" in done.stderr
    assert site.names == [name]


def test_release(site: Site) -> None:
    """Messages are delivered, and are here no more."""
    names = [site.put("ann"), site.put(), site.put()]
    said = site.say("release", *(name[:10] for name in names[:2]))
    assert [line.split(": ")[0] for line in said.splitlines()] == names[:2]
    assert all(" Saved to INBOX" in line for line in said.splitlines())
    assert (len(site.inbox("ann")), len(site.inbox())) == (1, 1)
    assert site.names == names[2:]
    log = (site.home.path / "log").read_text()
    assert log.count("status=delivered (maildir INBOX)") == 2


def test_release_twice_at_once(site: Site) -> None:
    """Named twice, a message is released once."""
    name = site.put()
    site.say("release", name, name[:10])
    assert len(site.inbox()) == 1


def test_release_that_fails(site: Site) -> None:
    """One that cannot be delivered stays, and stops no other one; the worst exit code counts."""
    gone, here = site.put("ann"), site.put()
    (site.home.path / "mail/example.org/ann/Maildir").mkdir(exist_ok=True)
    (site.home.path / "mail/example.org/ann").rename(site.home.path / "aside")
    done = site.call("release", gone, here)
    assert done.returncode == 67
    assert done.stderr.decode() == f"mdaflow: {gone}: No such user here: ann@example.org\n"
    assert site.names == [gone]
    assert len(site.inbox()) == 1
    site.say("release", gone, "--to", "bob@example.org")
    assert len(site.inbox()) == 2


def test_release_to_a_full_mailbox(site: Site) -> None:
    """What has no room stays (75)."""
    name = site.put()
    settings = json.loads(Path(site.config).read_text())
    settings["users"] = [{"folders": "mail", "quota": 10}]
    site.home.write("mdaflow.yaml", json.dumps(settings))
    done = site.call("release", name)
    assert done.returncode == 75
    assert b"452 4.2.2 Over quota" in done.stderr
    assert site.names == [name]


def test_release_without_an_envelope(site: Site) -> None:
    """A message whose envelope is broken is listed, shown, and released to who is named."""
    name = site.put()
    (site.quarantine / "bob@example.org/envelopes" / f"{name}.json").write_text("{")
    assert "to nobody knows whom  hi  [the envelope is broken]" in site.say("list")
    assert "why:        the envelope is broken" in site.say("show", name)
    assert json.loads(site.say("list", "--json"))["error"] == "the envelope is broken"
    done = site.call("release", name)
    assert done.returncode == 65
    assert b"--to ADDRESS" in done.stderr
    site.say("release", name, "--to", "bob@example.org")
    assert len(site.inbox()) == 1


def test_expire(site: Site) -> None:
    """What is too old goes; without --days after the days of the configuration."""
    name = site.put()
    assert site.say("expire") == "bob@example.org: 0 deleted, 1 to come\n"
    [message] = site.quarantine.glob("*/new/*")
    note = site.quarantine / "bob@example.org/envelopes" / f"{name}.json"
    note.write_text(json.dumps(json.loads(note.read_text()) | {"received": 5.0}))
    os.utime(message, (5, 5))
    said = json.loads(site.say("expire", "--days", "1", "--json", "--dry-run"))
    assert said["waiting"] == 1  # its inode was changed just now
    assert site.names == [name]


@pytest.mark.parametrize("days", ["0", "-1", "x"])
def test_wrong_days(site: Site, days: str) -> None:
    """A time that is none is a mistake of the caller (64)."""
    assert site.call("expire", "--days", days).returncode == 64


def test_digest(site: Site) -> None:
    """Users get one mail with what is new, and none about nothing."""
    name = site.put(subject="Hello =?utf-8?q?=1B[31m_b=C3=A4?=", why="bad")
    assert site.say("digest", "--all", "--contact", "help@example.org") == (
        "bob@example.org: told of 1\n"
    )
    assert site.inbox("ann") == []
    [mail] = site.inbox()
    assert mail.startswith(b"Return-Path: <>\nFrom: MAILER-DAEMON@mx.example.org\nTo: bob@")
    assert b"\nSubject: Mail to you in quarantine: 1\n" in mail
    assert b"\nAuto-Submitted: auto-generated (quarantine)\n" in mail
    text = quopri.decodestring(mail.partition(b"\n\n")[2]).decode()
    assert f"  ann@example.com  [{name[:12]}]\n        Hello [31m bä\n        bad\n" in text
    assert "help@example.org can let it out" in text
    assert site.say("digest", "-u", "bob@example.org") == ""


@pytest.mark.parametrize(
    "arguments", [(), ("--all", "-u", "bob@example.org"), ("--all", "--since", "soon")]
)
def test_wrong_digest(site: Site, arguments: tuple[str, ...]) -> None:
    """It is said whom to tell, and from when on (64)."""
    assert site.call("digest", *arguments).returncode == 64


def test_who_may_not_look(site: Site) -> None:
    """Who cannot read the quarantine is told so."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to call as somebody else")
    site.put()
    os.chown(site.quarantine, 0, 0)
    site.quarantine.chmod(0o700)
    who = site.home.user
    done = subprocess.run(
        (PROGRAM, "quarantine", "list", "--config", site.config),
        capture_output=True, timeout=60, cwd="/",
        user=who.pw_uid, group=who.pw_gid, extra_groups=[],
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (75, b"")
    assert b"Permission denied" in done.stderr
