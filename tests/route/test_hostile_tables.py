r"""Tables that nobody should write: any bytes, circles, tables that name each other without end."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Sequence

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tables import Known, aliases, regexp, router, virtual, way

from mdaflow.errors import INTERNAL, ConfigError, TempFail
from mdaflow.mail.letter import is_address
from mdaflow.mail.targets import Target
from mdaflow.route.aliases import FORMATS, AliasTable, parse_members, parse_table
from mdaflow.route.resolve import MAX_TARGETS, Router, Tables
from mdaflow.route.tables import Table

PLACE = re.compile(r"/t:[1-9][0-9]*: .", re.DOTALL)
NAMES = ["ann", "bob", "x", "owner-x", "x+y", "postmaster", "", "@example.org", "ann@example.org"]
ITEMS = [
    *NAMES, "x@example.org", "x@elsewhere.example", r"\ann", r"\x", '"a b"', '"x"@example.org',
    ":include:/l", ":include:/m", ":fail: 5.1.1 no", ":defer: 4.0.0", ":blackhole:", "/dev/null",
    "/var/x", '"|/bin/x"', "$1", "${1}@$2.example", "$(1)", "$$", "$99999", "jörg", "\u2028", "(x)",
]  # fmt: skip
KEYS = [*NAMES, "/^(.*)@(.*)$/", "/x/i", "!/x/", ":(.):", "/(/", "/(x*)*y/", '"a b"', "# x", "jörg"]

lines = st.builds(
    "{}{}{}{}".format,
    st.sampled_from(KEYS),
    st.sampled_from([": ", " ", "\t", "", ":", "\n ", ":\n\t"]),
    st.lists(st.sampled_from(ITEMS), max_size=4).map(", ".join),
    st.sampled_from(["\n", "\n\n", "\r\n", ",\n  ann\n", "\n# c\n", "", "\n \t\n"]),
)
texts = st.lists(lines, max_size=6).map("".join).map(str.encode) | st.binary(max_size=200)
kinds = st.sampled_from(sorted(FORMATS))


@given(kinds, texts)
@example("regexp", b"/(x)/ $%s" % (b"1" * 5000))
@example("regexp", "/(x)/ \ue001@x".encode())
@example("aliases", b"x: %s" % (b"(" * 5000))
def test_any_table(kind: str, text: bytes) -> None:
    """Any bytes are a table, or errors that have a line each."""
    problems: tuple[str, ...] = ()
    try:
        problems = tuple(f"{alias.where}: good" for alias in parse_table(kind, text, "/t").all())
    except ConfigError as error:
        problems = error.problems or ("no problem",)
    assert all(map(PLACE.match, problems))


@given(texts)
def test_any_members(text: bytes) -> None:
    """So is what is in a list."""
    problems: tuple[str, ...] = ()
    kinds: set[str] = set()
    try:
        kinds = {target.kind for target in parse_members(text, "/t")}
    except ConfigError as error:
        problems = error.problems or ("no problem",)
    assert all(map(PLACE.match, problems))
    assert kinds <= {"address", "user", "include"}


def table_of(kind: str, text: bytes) -> AliasTable:
    """The table of the lines that are good, each for itself."""
    good = b""
    for line in text.split(b"\n"):
        try:
            parse_table(kind, good + line + b"\n", "/t")
        except ConfigError:
            continue
        good += line + b"\n"
    return parse_table(kind, good, "/t")


tables = st.builds(table_of, kinds, texts)
locals_ = st.sampled_from(["ann", "x", "X+y", "owner-x", '"a b"', "postmaster", "jörg", "nobody"])
domains = st.sampled_from(["example.org", "EXAMPLE.org", "elsewhere.example"])


@given(st.lists(tables, max_size=3), texts, locals_, domains, st.booleans())
def test_any_way(
    found: list[AliasTable], members: bytes, local: str, domain: str, away: bool
) -> None:
    """Whatever tables say, there is a destination, each is there once, and addresses are such."""

    def read(path: str) -> Sequence[Target]:
        try:
            return parse_members(members, path, False)
        except ConfigError as error:
            raise TempFail(INTERNAL, str(error)) from error

    known = Known("ann@example.org", "bob@example.org", away=away)
    made = Router(Tables((known,), [*map(Table.fixed, found)], read), "mx", (), "+", "ann")
    destinations = made.resolve(f"{local}@{domain}")
    assert 1 <= len(destinations) <= MAX_TARGETS
    assert len({d.key for d in destinations}) == len(destinations)
    for destination in destinations:
        assert (destination.status is None) == (destination.kind != "refused")
        assert destination.kind not in ("user", "address") or is_address(destination.name)
    assert made.resolve(f"{local}@{domain}", []) == destinations
    assert made.only(f"{local}@{domain}")


MANY = 10_000


def line(name: str, targets: Iterable[object]) -> str:
    return f"{name}: {', '.join(map(str, targets))}\n"


def names(letter: str, number: int = MANY) -> list[str]:
    return [f"{letter}{n}" for n in range(number)]


HUNDRED = names("a", 100)
HOSTILE = {
    "all name each other": "".join(line(name, HUNDRED) for name in HUNDRED),
    "all name a list of all": line("all", names("a"))
    + "".join(line(f"a{n}", ("all", f"a{(n * 7 + 1) % MANY}")) for n in range(MANY)),
    "a ring": "".join(line(f"a{n}", [f"a{(n + 1) % MANY}"]) for n in range(MANY)),
    "a fan": "".join(line(f"a{n}", (f"a{2 * n + 1}", f"a{2 * n + 2}")) for n in range(MANY // 2)),
    "too many": line("a0", ("b", "c"))
    + line("b", (f"{name}@elsewhere.example" for name in names("x", MANY)))
    + line("c", (f"{name}@elsewhere.example" for name in names("y", MANY))),
    "many owners": "".join(f"a{n}: all\nowner-a{n}: ann\n" for n in range(MANY))
    + line("all", names("a")),
    "lists of lists with owners": line("a0", names("l"))
    + "".join(line(f"l{n}", (*HUNDRED, f"x{n}")) for n in range(MANY))
    + "".join(f"owner-l{n}: ann\nx{n}: bob\n" for n in range(MANY)),
    "itself": line("a0", ["a0"] * MANY),
    "quotes": line("a0", ['"' + r"\\" * 2000 + '" <a1>']),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile(name: str) -> None:
    """Tables that lead nowhere, or to everybody, take less than two seconds of CPU."""
    made = router(aliases(HOSTILE[name]))
    began = time.process_time()
    found = made.resolve("a0@example.org")
    assert time.process_time() - began < 2
    assert 1 <= len(found) <= MAX_TARGETS
    assert len({d.key for d in found}) == len(found)


@pytest.mark.parametrize(
    ("pattern", "address"),
    [("(x+x+)+y", "x" * 60), ("(a|aa)+$", "a" * 60 + "b"), (".*.*.*.*=.*.*", "b" * 200)],
)
def test_hostile_patterns(pattern: str, address: str) -> None:
    """An expression that looks at an address in exponentially many ways looks once (P34)."""
    began = time.process_time()
    assert way(router(regexp(f"/{pattern}/ ann\n" * 100)), address)
    assert time.process_time() - began < 2


def test_what_a_group_may_be() -> None:
    """What a group has matched is a part of an address and nothing more, wherever it stands."""
    made = router(regexp(r"/^(.*)@([a-z]*)\.in$/ ${1}@$(2).example, $2-$$-x@x.example"))
    assert way(made, "ann@b.in") == ["address ann@b.example", "address b-$-x@x.example"]
    for hostile in ('"|/bin/sh"', '":include:/etc/passwd"', '"/etc/passwd"', r'"\\ann"', '"a,b"'):
        kinds = {d.kind for d in made.resolve(f"{hostile}@b.in")}
        assert kinds <= {"refused", "address"}
    assert virtual("x@example.org a$1b@x.example").get().names


def test_lists_that_name_each_other() -> None:
    """Lists of lists are read once each, however many name them."""
    lists = {f"/l{n}": f":include:/l{n + 1}\n" * 100 for n in range(8)} | {"/l8": "ann\n"}
    read: list[str] = []

    class Counted(dict[str, str]):
        def __getitem__(self, path: str) -> str:
            read.append(path)
            return super().__getitem__(path)

    assert way(router(aliases("x: :include:/l0"), lists=Counted(lists)), "x") == [
        "user ann@example.org"
    ]
    assert sorted(read) == sorted(lists)
