"""`mdaflow test`, `deliver` and `check`, as a user calls them."""

from __future__ import annotations

import json
import os
import pwd
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

PROGRAM = Path(sys.executable).with_name("mdaflow")
MAIL = b"From: Ann <ann@example.com>\nSubject: =?utf-8?q?Urgent=3A_tea?=\n\nNow.\n"
RULES = """\
rule "Board" when from is "ann@example.com" and subject starts with "urgent" {
    flag "\\\\Flagged"
    deliver to "Board"
}
"""


class Home:
    """A home directory, and calls of the program by who lives there: if we are root, nobody."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.user = pwd.getpwnam("nobody") if os.geteuid() == 0 else pwd.getpwuid(os.geteuid())
        self.mail = self.write("m.eml", MAIL)

    def write(self, name: str, text: str | bytes) -> str:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        path.chmod(0o600)
        return str(path)

    def call(
        self, *arguments: str, stdin: bytes = b"", program: Sequence[str] = (str(PROGRAM),)
    ) -> subprocess.CompletedProcess[bytes]:
        environment = {"HOME": str(self.path), "PATH": os.environ["PATH"], "LANG": "C.UTF-8"}
        become: dict[str, Any] = {}
        if os.geteuid() == 0:
            uid, gid = self.user.pw_uid, self.user.pw_gid
            become = {"user": uid, "group": gid, "extra_groups": []}
            for path in (self.path, *self.path.rglob("*")):
                os.lchown(path, uid, gid)
        return subprocess.run(
            [*program, *arguments],
            input=stdin, env=environment, capture_output=True, timeout=60, cwd="/", **become,
        )  # fmt: skip

    def config(self, **more: object) -> str:
        """A site with bob@example.org, in a folder of root's or ours."""
        (self.path / "mail/example.org/bob").mkdir(parents=True, exist_ok=True)
        settings = {
            "hostname": "mx.example.org",
            "users": [{"folders": "mail"}],
            "rules": {"before": "before", "after": "after"},
            "state": "state",
            **more,
        }
        return self.write("mdaflow.yaml", json.dumps(settings))


@pytest.fixture
def home() -> Iterator[Home]:
    with TemporaryDirectory(prefix="mdaflow-") as path:  # others may not enter pytest's
        home = Home(Path(path))
        try:
            home.call("--version").check_returncode()
        except PermissionError:  # the program is out of reach for nobody
            home.user = pwd.getpwuid(0)
        yield home


@pytest.fixture
def unprivileged(home: Home) -> Home:
    """A home of somebody who may deliver."""
    if home.user.pw_uid == 0:
        pytest.skip("root delivers nothing, and nobody cannot reach the program")
    return home


def test_tree(home: Home) -> None:
    """Without a server and without a configuration: every test with what it saw, and why."""
    done = home.call("test", "--rules", home.write("my.rules", RULES), home.mail)
    lines = done.stdout.decode().splitlines()
    assert (done.returncode, done.stderr) == (0, b"")
    assert lines[0].endswith(f"  {len(MAIL)} bytes")
    assert 'my.rules:1    from is "ann@example.com"' in lines[2]
    assert lines[2].endswith("yes  Ann <ann@example.com>")
    assert lines[3].endswith("yes  Urgent: tea")
    assert lines[-1] == ('  => deliver to "Board" with flags \\Flagged  (rule "Board", my.rules:3)')


def test_own_rules(home: Home) -> None:
    """Without --rules the caller's own file runs."""
    home.write(".mdaflow/rules", RULES)
    assert b'=> deliver to "Board"' in home.call("test", home.mail).stdout


def test_no_rules(home: Home) -> None:
    """Without rules the message is kept, and that is said."""
    assert home.call("test", home.mail).stdout.endswith(
        b'=> deliver to "INBOX"  (no rule finished it: kept in the inbox)\n'
    )


def test_json(home: Home) -> None:
    """One JSON object for each recipient, with place, value and result of every test."""
    rules = home.write("my.rules", RULES)
    done = home.call("test", "--json", "-r", "a@x", "-r", "b@x", "--rules", rules, home.mail)
    first, second = map(json.loads, done.stdout.splitlines())
    assert (first["recipient"], second["recipient"]) == ("a@x", "b@x")
    assert first["outcome"] == "delivered"
    assert first["actions"] == [
        {
            "action": "deliver",
            "folder": "Board",
            "flags": ["\\Flagged"],
            "also": False,
            "rule": "Board",
            "where": f"{rules}:3:5",
        }
    ]
    assert first["trace"][2] == {
        "where": f"{rules}:1:49",
        "test": 'subject starts with "urgent"',
        "value": ["Urgent: tea"],
        "result": True,
    }
    assert first["message"] == {"size": len(MAIL), "header_edits": []}
    assert (first["implicit_keep"], first["errors"]) == (False, [])


def test_site_rules(home: Home) -> None:
    """--site tries rules that may refuse mail; others may not."""
    rules = home.write("my.rules", 'reject "no"')
    assert b'=> reject "no"' in home.call("test", "--site", "--rules", rules, home.mail).stdout
    refused = home.call("test", "--rules", rules, home.mail)
    assert (refused.returncode, refused.stdout) == (65, b"")
    assert b"my.rules:1:1: 'reject' is not allowed" in refused.stderr


def test_standard_input(home: Home) -> None:
    """A message on standard input, with the line ends of the wire."""
    rules = home.write("my.rules", 'rule when body is "Now.\\n" { deliver to "A" }')
    wire = MAIL.replace(b"\n", b"\r\n")
    assert b'=> deliver to "A"' in home.call("test", "--rules", rules, "-", stdin=wire).stdout


def test_users_of_a_site(home: Home) -> None:
    """-r finds the user of a site, whose rules run; who is none would be refused."""
    config = home.config()
    home.write("mail/example.org/bob/.mdaflow/rules", 'deliver to "Bob"')
    done = home.call("test", "--config", config, "-r", "bob+x@example.org", home.mail)
    assert b'=> deliver to "Bob"' in done.stdout
    refused = home.call("test", "--config", config, "-r", "eve@example.org", home.mail)
    assert refused.returncode == 67
    assert b"<eve@example.org>: refused at RCPT: 550 5.1.1" in refused.stderr


def test_separator_of_a_user(home: Home) -> None:
    """The folders of a user are divided as a delivery divides them."""
    config = home.config(users=[{"folders": "mail", "mailbox": "maildir:Mail:SEPARATOR=."}])
    home.write("m.eml", b"Subject: b.c\n\n")
    rules = home.write("my.rules", 'deliver to "a.{subject}"')
    done = home.call(
        "test", "--config", config, "-r", "bob@example.org", "--rules", rules, home.mail
    )
    assert b'=> deliver to "a.b-c"' in done.stdout


def test_errors_of_rules(home: Home) -> None:
    """Wrong rules are shown with their line and a caret."""
    rules = home.write("my.rules", 'rule when subjct is "x" { keep }\n')
    done = home.call("test", "--rules", rules, home.mail)
    assert done.returncode == 65
    assert done.stderr.decode() == (
        f"mdaflow: {rules}:1:11: unknown subject 'subjct'; did you mean 'subject'?\n"
        '    rule when subjct is "x" { keep }\n'
        "              ^^^^^^\n"
    )


def test_no_value(home: Home) -> None:
    """Where a test saw no value stands a dash; what is true or false by itself has none."""
    rules = home.write(
        "my.rules", 'rule when cc is "a@b" or header "X" exists or bounce or size > 1K { keep }'
    )
    done = home.call("test", "-f", "a@b.org", "--rules", rules, home.mail)
    lines = [" ".join(line.split()) for line in done.stdout.decode().splitlines()[2:6]]
    assert lines == [
        'my.rules:1 cc is "a@b" no -',
        'my.rules:1 header "X" exists no -',
        "my.rules:1 bounce no",
        f"my.rules:1 size > 1K no {len(MAIL)}",
    ]


SITE = """
set header "X-A: {subject}"
also forward to ["a@b.org", "c@d.org"]
reply "Away" subject "s" every 2 days
remember "key" for 1 day
deliver to "F" expire 1 day
"""


def test_json_of_all_that_is_said(home: Home) -> None:
    """Targets, options and header edits are in the JSON."""
    rules = home.write("my.rules", SITE)
    done = home.call("test", "--json", "--site", "--rules", rules, home.mail)
    found = json.loads(done.stdout)
    actions = [{k: v for k, v in a.items() if k not in ("rule", "where")} for a in found["actions"]]
    assert actions == [
        {"action": "forward", "targets": ["a@b.org", "c@d.org"], "also": True},
        {
            "action": "reply",
            "text": "Away",
            "options": {"subject": "s", "every": 172800.0},
            "also": False,
        },
        {"action": "remember", "text": "key", "options": {"for": 86400.0}, "also": False},
        {
            "action": "deliver",
            "folder": "F",
            "flags": [],
            "options": {"expire": 86400.0},
            "also": False,
        },
    ]
    assert found["message"]["header_edits"] == ['set header "X-A: {subject}"']


GIVEN = """
rule "A" when spam.score > 5 and remembered "a=b" and header "X-A" is "b=c" { deliver to "A" }
rule "B" when envelope.to.user is "ann" and received.year = 2026 and not bounce { deliver to "B" }
"""


def test_given(home: Home) -> None:
    """--given sets facts: of the message, of the envelope, of the world, with an argument."""
    rules = home.write("my.rules", GIVEN)
    facts = ["spam.score=7", "remembered:a=b=true", "header:X-A=b=c"]
    given = [word for fact in facts for word in ("--given", fact)]
    done = home.call("test", "--rules", rules, *given, home.mail)
    assert b'=> deliver to "A"' in done.stdout
    facts = ["envelope.to=ann@x.org", "envelope.from=a@b.org", "received=2026-02-03"]
    given = [word for fact in facts for word in ("--given", fact)]
    done = home.call("test", "--rules", rules, *given, home.mail)
    assert b'=> deliver to "B"' in done.stdout


@pytest.mark.parametrize(
    ("fact", "message"),
    [
        ("virus.fond=true", "unknown subject 'virus.fond'; did you mean 'virus.found'?"),
        ("virus.found=maybe", "'virus.found' is true or false; this is not"),
        ("subject", "write NAME=VALUE"),
    ],
)
def test_given_that_fits_not(home: Home, fact: str, message: str) -> None:
    """An unknown name gets a near miss, a value is of its type; exit code 64."""
    done = home.call("test", "--given", fact, home.mail)
    assert (done.returncode, done.stdout) == (64, b"")
    assert message in done.stderr.decode()


def test_offline(home: Home) -> None:
    """--offline asks nobody: what is not given is unknown, files of the rules are read."""
    home.write("list.txt", "@example.com\n")
    rules = home.write(
        "my.rules",
        'list known from "list.txt"\n'
        'rule when (remembered "k" or duplicate or spam.score < 5) { discard }\n'
        'rule when virus.found and from in known { deliver to "F" }\n',
    )
    done = home.call(
        "test", "--offline", "--given", "virus.found=true", "--rules", rules, home.mail
    )
    assert done.stdout.count(b"no   unknown") == 3
    assert b'=> deliver to "F"' in done.stdout


def test_broken_rules_of_a_user(home: Home) -> None:
    """Installed rules that do not compile are shown, and what a server does instead."""
    home.write(".mdaflow/rules", "deliver nowhere")
    done = home.call("test", "--config", home.config(), home.mail)
    assert done.returncode == 65
    assert done.stderr.decode().splitlines()[1:] == [
        "    deliver nowhere",
        "            ^^^^^^^",
        "mdaflow: mail goes to the inbox",
    ]
    assert b'=> deliver to "INBOX"' in done.stdout


def test_last_good_rules_of_a_user(unprivileged: Home) -> None:
    """They are those that were in force when mail last came, if there were any."""
    home, config = unprivileged, unprivileged.config()
    home.write("mail/example.org/bob/.mdaflow/rules", 'deliver to "Good"')
    to_bob = ("--config", config, "-d", "bob@example.org")
    home.call("deliver", *to_bob, stdin=MAIL).check_returncode()
    home.write("mail/example.org/bob/.mdaflow/rules", "deliver nowhere")
    done = home.call("test", "--config", config, "-r", "bob@example.org", home.mail)
    assert done.returncode == 65
    assert done.stderr.endswith(b"mdaflow: its last good version stays in force\n")
    assert b'=> deliver to "Good"' in done.stdout


def test_unsafe_rules_of_a_user(home: Home) -> None:
    """Rules that somebody else could have written are ignored, and that is said."""
    Path(home.write(".mdaflow/rules", 'deliver to "A"')).chmod(0o666)
    done = home.call("test", "--config", home.config(), home.mail)
    assert done.returncode == 65
    assert b"writable by others than its owner (chmod go-w), so its rules are" in done.stderr
    assert b'=> deliver to "INBOX"' in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["test", "/nonexistent"], 66),
        (["test", "--rules", "/nonexistent", "m.eml"], 66),
        (["test", "--rules", "/dev/zero", "m.eml"], 66),
        (["test"], 64),
        (["test", "-e", "--offline", "m.eml"], 64),
        (["test", "-e", "--given", "spam=true", "m.eml"], 64),
        (["nonsense"], 64),
        (["test", "--config", "/nonexistent", "m.eml"], 78),
        (["deliver", "--nonsense"], 75),  # for the MTA to try again
    ],
)
def test_exit_codes(home: Home, arguments: list[str], code: int) -> None:
    """A mistake of the caller has its code of sysexits.h and a message, never a traceback."""
    done = home.call(*[home.mail if word == "m.eml" else word for word in arguments])
    assert done.returncode == code
    assert done.stderr
    assert b"Traceback" not in done.stderr


def test_deliver(unprivileged: Home) -> None:
    """As a drop-in for procmail: standard input goes to the caller's Maildir."""
    unprivileged.write(".mdaflow/rules", RULES)
    done = unprivileged.call("deliver", "-f", "ann@example.com", stdin=MAIL)
    assert (done.returncode, done.stdout) == (0, b"")
    [path] = (unprivileged.path / "Maildir/.Board/cur").iterdir()
    assert path.name.endswith(":2,F")
    assert path.read_bytes().startswith(b"Return-Path: <ann@example.com>\n")
    assert path.read_bytes().endswith(MAIL)
    assert b"status=delivered (maildir Board)" in done.stderr


def test_deliver_from_postfix(unprivileged: Home) -> None:
    """What Postfix's local(8) puts before a message, the line of an mbox, is none of it."""
    before = b"From ann@example.com  Sat Nov 21 10:00:00 2026\nReturn-Path: <eve@example.com>\n"
    assert (
        unprivileged.call("deliver", "-f", "ann@example.com", stdin=before + MAIL).returncode == 0
    )
    [path] = (unprivileged.path / "Maildir/new").iterdir()
    raw = path.read_bytes()
    assert raw.endswith(MAIL)
    assert raw.count(b"Return-Path") == 1
    assert b"\nFrom " not in raw


def test_program_as_a_module(home: Home) -> None:
    """`python -m mdaflow` is the same program."""
    done = home.call("test", home.mail, program=(sys.executable, "-m", "mdaflow"))
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == home.call("test", home.mail).stdout


def test_deliver_with_broken_rules(unprivileged: Home) -> None:
    """Rules that do not compile lose nothing: the mail is in the inbox."""
    unprivileged.write(".mdaflow/rules", "deliver nowhere")
    assert unprivileged.call("deliver", stdin=MAIL).returncode == 0
    mails = [file.read_bytes() for file in (unprivileged.path / "Maildir/new").iterdir()]
    notices = [mail for mail in mails if b"Subject: Your mail rules need attention" in mail]
    assert (len(mails), len(notices)) == (2, 1)


def test_deliver_refused(unprivileged: Home) -> None:
    """A rule of the site that refuses is told by exit code 77, and its text."""
    unprivileged.write("before/1.rules", 'reject "no thanks"')
    done = unprivileged.call(
        "deliver", "--config", unprivileged.config(), "-d", "bob@example.org", stdin=MAIL
    )
    assert done.returncode == 77
    assert b"no thanks" in done.stderr


def test_deliver_to_nobody(unprivileged: Home) -> None:
    """A user who is not there: 67."""
    done = unprivileged.call(
        "deliver", "--config", unprivileged.config(), "-d", "eve@example.org", stdin=MAIL
    )
    assert done.returncode == 67


@pytest.mark.parametrize("mistake", [{"nonsense": 1}, {"log": {"to": "/nonexistent/log"}}])
def test_deliver_with_a_broken_configuration(home: Home, mistake: dict[str, object]) -> None:
    """A mistake of the administrator holds the mail (75) and bounces none."""
    done = home.call("deliver", "--config", home.config(**mistake), stdin=MAIL)
    assert done.returncode == 75
    assert done.stderr


def test_deliver_as_root(home: Home) -> None:
    """Root never delivers: without a user to become, the mail is held."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    home.user = pwd.getpwuid(0)
    done = home.call("deliver", stdin=MAIL)
    assert done.returncode == 75
    assert b"name the unprivileged user of the mail" in done.stderr
    assert not (home.path / "Maildir").exists()


def test_completeness_of_help(home: Home) -> None:
    """Every command explains itself."""
    for command in ("serve", "deliver", "test", "check", "config"):
        done = home.call(command, "--help")
        assert done.returncode == 0
        assert done.stdout.startswith(f"Usage: mdaflow {command}".encode())


def test_sender_of_a_file(home: Home) -> None:
    """Without -f the sender is the one that the message names; '' is a bounce."""
    rules = home.write("r", 'if bounce { deliver to "Bounces" } deliver to "{envelope.from.user}"')
    for name, sender, folder in (
        ("a", "", "ann"),
        ("b", "Return-Path: <carl@example.net>\n", "carl"),
        ("c", "Return-Path: <>\n", "Bounces"),
    ):
        mail = home.write(name, sender.encode() + MAIL)
        assert (
            f'=> deliver to "{folder}"' in home.call("test", "--rules", rules, mail).stdout.decode()
        )
    empty = home.call("test", "--rules", rules, "-f", "", home.mail)
    assert b'=> deliver to "Bounces"' in empty.stdout


def test_alias(home: Home) -> None:
    """Of a recipient that is an alias all is told that it stands for, and its users are shown."""
    home.write("before/1.rules", 'alias "sales" to ["bob", "carl@elsewhere.example"]')
    done = home.call("test", "--config", home.config(), "-r", "sales@example.org", home.mail)
    said = done.stderr.decode()
    assert "<sales@example.org> is an alias for bob@example.org, carl@elsewhere.example" in said
    assert done.stdout.startswith(b"bob@example.org")


def test_state_of_who_may_not_write_to_the_site(unprivileged: Home) -> None:
    """A user's own `deliver` remembers in ~/.mdaflow/state: a duplicate is known as one."""
    unprivileged.write(".mdaflow/rules", "rule when duplicate { discard }")
    config = unprivileged.config(state="/proc/none")
    for _ in range(2):
        unprivileged.call("deliver", "--config", config, stdin=MAIL).check_returncode()
    assert len(list((unprivileged.path / "Maildir/new").iterdir())) == 1
    assert (unprivileged.path / ".mdaflow/state/state.sqlite").exists()


def test_scanner_that_is_down(unprivileged: Home) -> None:
    """What a server would put off is shown so, and not as delivered."""
    scanners = [{"clamd": [f"unix:{unprivileged.path}/none"]}]
    arguments = ("test", "-r", "bob@example.org", unprivileged.mail, "--config")
    config = unprivileged.config(scanners=scanners, quarantine=str(unprivileged.path))
    said = unprivileged.call(*arguments, config).stdout.decode()
    assert "  => put off: 451 4.7.1 Content cannot be checked now, try again later  (" in said
    assert "=> deliver" not in said
    told = json.loads(unprivileged.call(*arguments, config, "--json").stdout)
    assert (told["outcome"], told["actions"], told["implicit_keep"]) == ("deferred", [], False)
    assert told["errors"][0].startswith("clamd: unix:")
    given = unprivileged.call(*arguments, config, "--given", "virus.found=false").stdout
    assert b'=> deliver to "INBOX"' in given
    scanners[0]["on_error"] = "deliver-tagged"  # type: ignore[assignment]
    config = unprivileged.config(scanners=scanners, quarantine=str(unprivileged.path))
    assert b'=> deliver to "INBOX"' in unprivileged.call(*arguments, config).stdout
