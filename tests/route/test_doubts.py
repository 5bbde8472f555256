"""What is doubtful in tables of aliases."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from tables import Known, aliases, regexp, router, virtual

from mdaflow.errors import ConfigError, TempFail
from mdaflow.route.aliases import parse_table
from mdaflow.route.doubts import doubts
from mdaflow.route.resolve import Router
from mdaflow.route.tables import Table

GOOD = "postmaster: ann\n"


def told(made: Router, *domains: str) -> list[str]:
    return [f"{where}: {text}" for where, text in doubts(made, domains or ("example.org",))]


def of(text: str) -> list[str]:
    """The doubts of an alias file in which there is a postmaster."""
    made = router(aliases(GOOD + text), lists={"/etc/l": "bob, zoe\n"})
    return [doubt.removeprefix("/etc/aliases:") for doubt in told(made)]


def test_nothing() -> None:
    """Good tables are not doubted: users, lists with owners, readers, detail, other domains."""
    text = """
    sales: ann, bob, eve@elsewhere.example
    sales+eu: bob
    owner-sales: carl
    ann: ann, carl
    bob: \\bob
    "carl \\"the\\\\ cook\\"": carl
    staff: :include:/etc/staff
    gone: :fail: 5.1.1 Gone
    moving: :defer: Soon
    hole: :blackhole:
    mixed: ann, gone
    run: "|SHELL -x; true", "|SHELL -x", "|exec x"
    box: TMP/box, TMP/maildir/
    """
    places = {"SHELL": os.path.realpath(sys.executable), "TMP": "/tmp", "\n    ": "\n"}
    for name, place in places.items():
        text = text.replace(name, place)
    tables = (
        aliases(GOOD + text),
        virtual("x@example.net sales\n@example.net @example.org\n@old.example bob@example.org"),
        regexp("/^(.*)-list@/ $1"),
    )
    made = router(*tables, lists={"/etc/staff": "bob\neve@elsewhere.example\n"})
    assert told(made) == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a: b\nb: a", ["2: a: in a circle, which is passed over",
                        "3: b: in a circle, which is passed over"]),
        ("a: b\nb: c, ann\nc: d\nd: b\ne: b", [f"{line}: {name}: in a circle, which is passed over"
                                               for line, name in ((3, "b"), (4, "c"), (5, "d"))]),
        ("a: ann, zoe", ["2: a: zoe: nobody has this name"]),
        ("a: ann,\n # all\n  \\zoe", ["2: a: zoe: nobody has this name"]),
        ("a: b\nb: zoe", ["3: b: zoe: nobody has this name"]),
        ('"joe smith": zoe', ["2: joe smith: zoe: nobody has this name"]),
        ("a: ann\nA: bob", ["3: A stands in line 2 already"]),
        ("a: :include:/etc/l", ["/etc/l: zoe@example.org: nobody has this name"]),
        ("a: :include:/etc/l\nb: a, :include:/etc/l",
         ["/etc/l: zoe@example.org: nobody has this name"]),
        ("a: :include:/etc/none", ["2: a: /etc/none: No such file or directory"]),
        ('a: "|/no/prog -x"', ["2: /no/prog is no program that can be run"]),
        ('a: "|/etc -x > /dev/null"', ["2: /etc is no program that can be run"]),
        ("a: /no/folder/box, /no/maildir/", ["2: /no/folder/box: there is no folder /no/folder",
                                             "2: /no/maildir/: there is no folder /no"]),
        ("a10: zoe\n" + "".join(f"a{n}: a{n + 1}\n" for n in range(10)),
         ["2: a10: zoe: nobody has this name"]),
    ],
)  # fmt: skip
def test_doubts(text: str, found: list[str]) -> None:
    """What is doubtful stands at its line, once."""
    assert of(text) == found


def test_names_in_several_domains() -> None:
    """A name is dangling when it is that in all domains; a whole one in its own."""
    users = Known("ann@example.org", "bob@example.net", "postmaster@example.org")
    made = router(aliases("a: ann, bob\nb: zoe\nc: bob@example.org\nd: bob\n"), users=users)
    assert told(made, "example.org", "example.net") == [
        "/etc/aliases:2: b: zoe: nobody has this name",
        "/etc/aliases:3: c: bob@example.org: nobody has this name",
        "configuration: nobody is postmaster@example.net (RFC 5321 section 4.5.1): "
        "postmaster@example.net: nobody has this address; set `postmaster:`",
    ]


def test_earlier_tables() -> None:
    """A name that another table answers for is told, by whatever that is."""
    first = aliases(f"{GOOD}sales: bob\nInfo@example.org: carl")
    second = virtual("sales+x@example.org ann\nsales@example.com ann\n@old.example ann@example.org")
    third = regexp("/@elsewhere\\.example$/ ann")
    names = "INFO@example.org", "x@elsewhere.example", "@old.example", "@new.example"
    last = aliases("\n".join(f"{name} ann@example.org" for name in names), "virtual", "/etc/last")
    assert told(router(first, second, third, last)) == [
        "/etc/virtual:1: sales+x@example.org: sales answers before (/etc/aliases:2)",
        "/etc/last:1: info@example.org: info@example.org answers before (/etc/aliases:3)",
        "/etc/last:2: x@elsewhere.example: /@elsewhere\\.example$/ answers before (/etc/regexp:1)",
        "/etc/last:3: @old.example: @old.example answers before (/etc/virtual:3)",
    ]


def test_catch_all_of_nobody() -> None:
    """What a domain is caught by has to be somebody."""
    table = "@example.org ann, zoe@example.net\n@old.example @new.example"
    users = Known("ann@example.org", "bob@example.net")
    assert told(router(virtual(table), users=users)) == [
        "/etc/virtual:1: @example.org: zoe@example.net: nobody has this name"
    ]


def test_no_postmaster() -> None:
    """That nobody is postmaster is told, also where the configured one is nobody."""
    [nobody] = told(router())
    assert nobody.startswith("configuration: nobody is postmaster@example.org (RFC 5321 section")
    assert nobody.endswith("; set `postmaster:`")
    [dangling] = told(router(postmaster="zoe"))
    assert dangling.endswith(": zoe@example.org: nobody has this address")
    assert told(router(postmaster="ann")) == []


def test_users_are_away() -> None:
    """When nobody can tell who is a user, no name is doubted."""
    made = router(aliases("a: ann"), users=Known(away=True))
    with pytest.raises(TempFail, match="the users are away"):
        told(made)


def test_wrong_table(tmp_path: Path) -> None:
    """What is wrong in a table is told instead."""
    path = tmp_path / "aliases"
    path.write_text("a: b c\nd\n")
    made = router(Table(str(path), lambda text, path: parse_table("aliases", text, path)))
    with pytest.raises(ConfigError) as found:
        told(made)
    assert [problem.partition(": ")[0] for problem in found.value.problems] == [
        f"{path}:1",
        f"{path}:2",
    ]


def test_many_names() -> None:
    """Each of many names in many domains is resolved once, when it is good."""
    users = Known("postmaster@example.org", *(f"user{n}@d{n % 50}.example" for n in range(2000)))
    text = "".join(f"alias{n}: user{n}@d{n % 50}.example\n" for n in range(2000))
    made = router(aliases(text + "last: zoe"), users=users, postmaster="postmaster@example.org")
    domains = [f"d{n}.example" for n in range(50)]
    assert told(made, *domains) == ["/etc/aliases:2001: last: zoe: nobody has this name"]
    assert users.asked.count("user7@d7.example") == 1
