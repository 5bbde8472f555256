"""`mdaflow route`: the way of an address, and what is doubtful in the tables."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
from test_commands import Home, home  # noqa: F401 - a fixture

MAN = Path(__file__).resolve().parents[2] / "contrib" / "man" / "mdaflow.1"
ALIASES = """\
# people and roles
sales:       ann, bob@example.org, "|/bin/cat --new"
staff:       :include:{home}/staff
owner-staff: ann
box:         {home}/box
hole:        :blackhole:
gone:        :fail: 5.2.1 Gone fishing
moving:      :defer: on the road
loop:        pool
pool:        loop
half:        zoe, ann
postmaster:  ann
"""


class Site:
    """A site with ann and bob of example.org, and calls of `mdaflow route` there."""

    def __init__(self, home: Home) -> None:  # noqa: F811
        self.home = home
        self.config()
        home.write("staff", "bob\neve@elsewhere.example\n")

    def config(self, aliases: str = ALIASES, **more: object) -> None:
        """A configuration with these aliases."""
        self.home.write("aliases", aliases.replace("{home}", str(self.home.path)))
        self.home.write("mail/example.org/ann/x", "")
        tables = [str(self.home.path / "aliases")]
        self.path = self.home.config(aliases=tables, **more)

    def user(self, name: str, **files: str) -> None:
        """A user, with files in the home; `_forward` is `.forward`."""
        for file, text in {"x": "", **files}.items():
            self.home.write(f"mail/example.org/{name}/{file.replace('_', '.', 1)}", text)

    def route(self, *arguments: str) -> CompletedProcess[bytes]:
        done = self.home.call("route", "--config", self.path, *arguments)
        assert b"Traceback" not in done.stderr, done.stderr
        return done

    def tree(self, *arguments: str) -> list[str]:
        """The lines of a way, with the folder left out of them."""
        done = self.route(*arguments)
        assert done.stderr == b""
        return done.stdout.decode().replace(str(self.home.path), "").splitlines()

    def json(self, address: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.route("--json", address).stdout)
        return found


@pytest.fixture
def site(home: Home) -> Site:  # noqa: F811
    return Site(home)


# --- the way -------------------------------------------------------------------------------------


def test_tree(site: Site) -> None:
    """Who was asked, what was answered, where that stands, and where it ends."""
    assert site.tree("sales+x@example.org") == [
        "sales+x@example.org",
        '  sales: ann, bob@example.org, "|/bin/cat --new"  [/aliases:2]',
        "    => program /bin/cat --new",
        "    ann@example.org",
        "      aliases in /aliases: no ann@example.org",
        "      folders /mail: ann@example.org (/mail/example.org/ann)",
        "      => user ann@example.org",
        "    bob@example.org",
        "      aliases in /aliases: no bob@example.org",
        "      folders /mail: bob@example.org (/mail/example.org/bob)",
        "      => user bob@example.org",
    ]


def test_list(site: Site) -> None:
    """A list shows its members, and who is told what goes wrong."""
    assert site.tree("staff@example.org")[1:3] == [
        "  staff: :include:/staff  [/aliases:3]",
        "    :include:/staff: 2 members  [/staff]",
    ]
    assert site.tree("staff@example.org")[-1] == (
        "        => sent on to eve@elsewhere.example: errors go to owner-staff@example.org"
    )


def test_several(site: Site) -> None:
    """Several addresses are shown one after the other; a name is one of the host's."""
    lines = site.tree("ann@example.org", "zoe")
    assert [line for line in lines if not line.startswith(" ")] == [
        "ann@example.org",
        "zoe@mx.example.org",
    ]


def test_json(site: Site) -> None:
    """One object for each address: where it ends, and the steps to there."""
    path = site.home.path
    where = f"{path}/staff"
    found = site.json("staff@example.org")
    assert found["recipient"] == "staff@example.org"
    sender = "owner-staff@example.org"
    assert found["destinations"] == [
        {
            "kind": "user",
            "name": "bob@example.org",
            "user": "bob@example.org",
            "home": f"{path}/mail/example.org/bob",
            "mailbox": "maildir:Maildir",
            "sender": sender,
            "where": where,
        },
        {"kind": "address", "name": "eve@elsewhere.example", "sender": sender, "where": where},
    ]
    [step] = found["steps"]
    assert (step["asked"], step["answer"], step["where"]) == ("staff@example.org", "", "")
    [alias] = step["steps"]
    assert (alias["asked"], alias["where"]) == ("staff", f"{path}/aliases:3")


def test_json_of_a_refusal(site: Site) -> None:
    """A refusal has the reply and the cause."""
    assert site.json("gone@example.org")["destinations"] == [
        {
            "kind": "refused",
            "name": "gone",
            "status": "550 5.2.1 Gone fishing",
            "why": ":fail: 5.2.1 Gone fishing",
            "where": f"{site.home.path}/aliases:7",
        }
    ]


KINDS = {
    "ann": "user", "eve@example.com": "refused", "staff": "address", "sales": "program",
    "box": "file", "hole": "nothing", "x@relay.example": "relay",
}  # fmt: skip


def keys(said: object) -> Iterator[str]:
    """The keys of an object, and of all that are in it."""
    if isinstance(said, Mapping):
        for key, value in said.items():
            yield key
            yield from keys(value)
    elif isinstance(said, Sequence) and not isinstance(said, str):
        for value in said:
            yield from keys(value)


def test_json_is_explained(site: Site) -> None:
    """The manual page has each key of the JSON, and each kind of destination."""
    site.home.write("access", "To:relay.example RELAY\nConnect:192.0.2 RELAY\n")
    site.config(access=[str(site.home.path / "access")])
    addresses = [name if "@" in name else f"{name}@example.org" for name in KINDS]
    done = site.route("--json", "--client", "192.0.2.1", *addresses)
    found = [json.loads(line) for line in done.stdout.splitlines()]
    kinds = {d["kind"] for one in found for d in one["destinations"]}
    assert kinds == set(KINDS.values())
    doubts = map(json.loads, site.route("--check", "--json").stdout.splitlines())
    section = MAN.read_text().partition(".Ss route\n")[2].partition("\n.Ss ")[0]
    marked = re.findall(r"^\.(?:Li|Pq each with Li) (.*)", section, re.MULTILINE)
    told = set(re.findall(r"[a-z]+", " ".join(marked)))
    assert told == {*keys(found), *keys(list(doubts)), *kinds}


CODES = {
    "ann@example.org": 0,
    "ann+x@example.org": 0,
    "eve@elsewhere.example": 67,
    "sales@example.org": 0,
    "half@example.org": 0,
    "hole@example.org": 0,
    "zoe@example.org": 67,
    "gone@example.org": 77,
    "moving@example.org": 75,
    "loop@example.org": 75,
}


@pytest.mark.parametrize("address", CODES)
def test_exit_code(site: Site, address: str) -> None:
    """It tells whether anybody has the mail, nobody, or nobody for now."""
    assert site.route(address).returncode == CODES[address]


def test_exit_codes_of_several(site: Site) -> None:
    """Of several addresses the highest counts."""
    some = ("ann@example.org", "gone@example.org", "zoe@example.org")
    assert site.route(*some).returncode == 77
    assert site.route("--json", *some[::2]).returncode == 67


WRONG = [
    (), ("--check", "ann@example.org"), ("--client", "nowhere", "ann@example.org"), ("a b@x.org",),
    ("a@b@c",), ("",), ("ann\x1b[31m@example.org",), (os.fsdecode(b"\xff@example.org"),),
]  # fmt: skip


@pytest.mark.parametrize("arguments", WRONG)
def test_wrong_command_line(site: Site, arguments: Sequence[str]) -> None:
    """What is no address, or not one thing to do, is a mistake of the caller's (64)."""
    done = site.route(*arguments)
    assert (done.returncode, done.stdout) == (64, b"")
    assert b"\x1b" not in done.stderr


def test_wrong_configuration(site: Site) -> None:
    """A configuration that cannot be used is told (78)."""
    site.config(postmaster=[])
    assert site.route("ann@example.org").returncode == 78


def test_access(site: Site) -> None:
    """The access table is asked first, about the client and the sender that are given."""
    site.home.write("access", "From:spam.example REJECT\nConnect:192.0.2.7 ERROR:451 later\n")
    site.config(access=[str(site.home.path / "access")])
    assert site.route("-f", "a@spam.example", "ann@example.org").returncode == 77
    assert site.route("--client", "192.0.2.7", "ann@example.org").returncode == 75
    assert site.route("-f", "<>", "--client", "192.0.2.8", "ann@example.org").returncode == 0
    lines = site.tree("--client", "192.0.2.7", "ann@example.org")
    assert lines[-1].startswith("=> 451 ")


# --- .forward ------------------------------------------------------------------------------------


def test_forward(site: Site) -> None:
    """What a user's `.forward` says stands below the user, with its place; the one for a detail
    comes first."""
    site.config(forward={"file": ".forward"})
    site.user("ann", _forward="\\ann, eve@elsewhere.example\n")
    site.home.write("mail/example.org/ann/.forward+x", "carl@elsewhere.example\n")
    assert site.tree("ann@example.org")[3:] == [
        "  => user ann@example.org",
        "    also forward to eve@elsewhere.example  [/mail/example.org/ann/.forward:1:7]",
        "    \\ann  [/mail/example.org/ann/.forward:1:1]",
        "    and the rules and the inbox of ann@example.org  [/mail/example.org/ann/.forward]",
    ]
    assert site.tree("ann+x@example.org")[4:] == [
        "    forward to carl@elsewhere.example  [/mail/example.org/ann/.forward+x:1:1]"
    ]
    [step] = site.json("ann@example.org")["steps"]
    assert step["steps"][-1]["steps"][0]["asked"] == "also forward to eve@elsewhere.example"


def test_no_forward(site: Site) -> None:
    """Where the site does not read such files, none is shown."""
    site.user("ann", _forward="eve@elsewhere.example\n")
    assert site.tree("ann@example.org")[-1] == "  => user ann@example.org"


def test_wrong_forward(site: Site) -> None:
    """A file that does not count says why."""
    site.config(forward={"file": ".forward"})
    site.user("ann", _forward="eve@elsewhere.example\n")
    path = site.home.path / "mail/example.org/ann/.forward"
    path.chmod(0o666)
    lines = site.tree("ann@example.org")
    [line] = lines[4:]
    assert line.startswith("    /mail/example.org/ann/.forward: writable by others than its owner")


def test_many_homes(site: Site) -> None:
    """Of a large list some homes are looked into, and how many were not is said."""
    for number in range(103):
        site.user(f"u{number}", _forward=f"x{number}@elsewhere.example\n")
    names = ", ".join(f"u{number}" for number in range(103))
    site.config(f"all: {names}\n", forward={"file": ".forward"})
    lines = site.tree("all@example.org")
    assert lines[-1] == "the homes of 3 more users were not looked into"
    assert sum("forward to x" in line for line in lines) == 100


# --- hostile tables ------------------------------------------------------------------------------

HOSTILE = "\u009b31mred\u202e\u2028next"
SAFE = "\ufffd31mred\ufffd"


def test_hostile_names(site: Site) -> None:
    """What tables say cannot talk to the terminal, in the tree or in JSON."""
    site.config(f'a:\n \\ann, "|/tmp/{HOSTILE}"\n')
    done = site.route("a@example.org")
    assert SAFE in done.stdout.decode()
    for out in (done.stdout, site.route("--json", "a@example.org").stdout):
        assert not any(char in out.decode() for char in HOSTILE if not char.isprintable())
    assert site.json("a@example.org")["destinations"][0]["name"] == f"/tmp/{HOSTILE}"


@pytest.mark.parametrize("arguments", [("--check",), ("a@example.org",), ("--json", "b")])
def test_hostile_mistakes(site: Site, arguments: Sequence[str]) -> None:
    """What is wrong in a table cannot, either: there it is told once, and nothing is logged."""
    site.config(f"a: x {HOSTILE}\nb: \x1b]0;title\x07\n")
    done = site.route(*arguments)
    out = (done.stdout + done.stderr).decode()
    assert not any(not char.isprintable() for char in out.replace("\n", ""))
    assert out.count("aliases:1: ") == (2 if "--json" in arguments else 1)
    assert done.returncode == (78 if "--check" in arguments else 75)
    assert (done.stderr == b"") is ("--check" not in arguments)


# --- doubts --------------------------------------------------------------------------------------


def test_check(site: Site) -> None:
    """Each doubt has a line, with file and line, and the exit code says that there are some."""
    done = site.route("--check")
    assert (done.returncode, done.stderr) == (65, b"")
    lines = done.stdout.decode().replace(str(site.home.path), "").splitlines()
    assert lines == [
        "/aliases:9: loop: in a circle, which is passed over",
        "/aliases:10: pool: in a circle, which is passed over",
        "/aliases:11: half: zoe: nobody has this name",
    ]
    said = [json.loads(line) for line in site.route("--check", "--json").stdout.splitlines()]
    assert [f"{one['where']}: {one['text']}" for one in said] == (done.stdout.decode().splitlines())


def test_check_of_good_tables(site: Site) -> None:
    """Where nothing is doubtful, that is said; in JSON there is nothing to say."""
    site.config("postmaster: ann\nsales: ann, bob, eve@elsewhere.example\n")
    done = site.route("--check")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"nothing is doubtful\n", b"")
    done = site.route("--check", "--json")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_check_of_lists(site: Site) -> None:
    """Lists that cannot be read, or have anything wrong in them, are doubtful."""
    path = site.home.path
    site.config(f"postmaster: ann\na: :include:{path}/none\nb: :include:{path}/wrong\n")
    site.home.write("wrong", '"|/bin/sh"\n')
    assert site.tree("--check") == [
        "/aliases:2: a: /none: No such file or directory",
        "/aliases:3: b: /wrong:1: only addresses in an :include:",
    ]


def test_check_of_many(site: Site) -> None:
    """Many thousands of aliases are no matter."""
    lines = "".join(f"a{number}: ann, a{number + 1}\n" for number in range(0, 10_000, 2))
    lines += "".join(f"a{number}: bob\n" for number in range(1, 10_000, 2))
    site.config(f"postmaster: ann\n{lines}last: zoe\n")
    assert site.tree("--check") == ["/aliases:10002: last: zoe: nobody has this name"]
