"""The way from a recipient to its destinations."""

from __future__ import annotations

import pytest
from tables import Known, aliases, regexp, router, steps, virtual, way

from mdaflow.mail.letter import is_address
from mdaflow.route import resolve
from mdaflow.route.destination import Step
from mdaflow.route.resolve import MAX_DEPTH, MAX_TARGETS

TABLE = """
# people and roles
sales:      ann, bob@example.org
Info@example.org: sales, carl
postmaster: root
root:       \\ann
ann:        ann, archive@elsewhere.example
loop:       pool
pool:       loop
list+detail: dora@elsewhere.example
"joe smith": bob
staff:      :include:/etc/staff
owner-staff: carl
prog:       "|/usr/bin/prog -x, y"
box:        /var/mail/box, /srv/box/
gone:       :fail: 5.2.1 Gone fishing
moving:     :defer: on the road
hole:       :blackhole:
null:       /dev/null
dave@gmail.example: bob@example.org
dangling:   nobody
"""


@pytest.mark.parametrize(
    ("recipient", "found"),
    [
        ("bob", ["user bob@example.org"]),
        ("bob+x", ["user bob+x@example.org"]),
        ("nobody", ["550 5.1.1 No such user here (nobody has this address)"]),
        ("sales", ["user ann@example.org", "address archive@elsewhere.example",
                   "user bob@example.org"]),
        ("SALES+eu", ["user ann@example.org", "address archive@elsewhere.example",
                      "user bob@example.org"]),
        ("info", ["user ann@example.org", "address archive@elsewhere.example",
                  "user bob@example.org", "user carl@example.org"]),
        ("info@elsewhere.example", ["550 5.1.1 No such user here (nobody has this address)"]),
        ("postmaster", ["user ann@example.org"]),
        ("ann", ["user ann@example.org", "address archive@elsewhere.example"]),
        ("loop", ["451 4.3.0 Alias expansion too large, or a loop "
                  "(only loops and empty lists)"]),
        ("list+detail", ["address dora@elsewhere.example"]),
        ("list", ["550 5.1.1 No such user here (nobody has this address)"]),
        ('"joe smith"', ["user bob@example.org"]),
        ("prog", ["program /usr/bin/prog -x, y"]),
        ("box", ["file /var/mail/box", "file /srv/box/"]),
        ("gone", ["550 5.2.1 Gone fishing (:fail: 5.2.1 Gone fishing)"]),
        ("moving", ["451 4.3.0 on the road (:defer: on the road)"]),
        ("hole", ["nothing"]),
        ("null", ["nothing"]),
        ("dave@gmail.example", ["user bob@example.org"]),
        ("dangling", ["550 5.1.1 No such user here (nobody has this address)"]),
        ("staff", ["user bob@example.org from owner-staff@example.org",
                   "address eve@elsewhere.example from owner-staff@example.org"]),
        ("owner-staff", ["user carl@example.org"]),
    ],
)  # fmt: skip
def test_way(recipient: str, found: list[str]) -> None:
    """A recipient stands for its targets, theirs, and so on; each once."""
    made = router(
        aliases(TABLE), lists={"/etc/staff": "# staff\nbob\neve@elsewhere.example, bob\n"}
    )
    assert sorted(way(made, recipient)) == sorted(found)


def test_names_are_of_our_domains_only() -> None:
    """A name without a domain says nothing about addresses elsewhere, though a user has it, too."""
    made = router(aliases("carl: bob\nann: carl@gmail.example, bob@gmail.example"))
    assert way(made, "ann") == ["address carl@gmail.example", "address bob@gmail.example"]
    assert way(made, "carl") == ["user bob@example.org"]


DOMAINS = "Example.NET", "example.org"


def test_names_count_where_the_site_says() -> None:
    """With domains configured a name without one is an alias in these alone, as mydestination."""
    table, domains = aliases("ann: carl\nbob@example.org: carl"), ("example.net",)
    made = router(table, domains=domains)  # type: ignore[arg-type]
    assert way(made, "ann") == ["user ann@example.org"]
    assert way(made, "bob") == ["user carl@example.org"]
    assert way(made, "ann@example.net")[0].startswith("550 5.1.1")
    assert way(router(table), "ann") == ["user carl@example.org"]


def test_domains_of_ours() -> None:
    """Ours is what a recipient came with, what is configured, and what a source of users knows."""
    made = router(aliases("ann: bob@example.net, carl@example.com"), domains=DOMAINS)  # type: ignore[arg-type]
    assert way(made, "ann") == [
        "550 5.1.1 No such user here (nobody has this address)",
        "address carl@example.com",
    ]
    assert way(made, "carl@example.com")[0].startswith("550 ")
    assert way(made, "bob@mx.example.org")[0].startswith("550 ")


def test_plain_user() -> None:
    """A backslash leads past all aliases."""
    made = router(aliases("ann: bob\nbob: \\ann\ncarl: \\sales\nsales: bob"))
    assert way(made, "ann") == way(made, "bob") == ["user ann@example.org"]
    assert way(made, "carl")[0].startswith("550 5.1.1")


def test_tables_in_their_order() -> None:
    """The first table that knows a recipient answers."""
    first, second = aliases("sales: ann"), virtual("sales@example.org bob\nx@example.org sales")
    assert way(router(first, second), "sales") == ["user ann@example.org"]
    assert way(router(second, first), "sales") == ["user bob@example.org"]
    assert way(router(first, second), "x") == ["user ann@example.org"]


def test_virtual() -> None:
    """As in virtual(5): whole addresses, details that go along, all that a domain gets."""
    made = router(
        virtual(
            "sales@example.org    bob, eve@elsewhere.example\n"
            "@example.org         ann\n"
            "@old.example         @example.org\n"
            "x+y@example.org      carl\n"
        )
    )
    assert way(made, "sales+q") == ["user bob+q@example.org", "address eve+q@elsewhere.example"]
    assert way(made, "x+y") == ["user carl@example.org"]
    assert way(made, "carl") == ["user carl@example.org"]  # a user is not caught
    assert way(made, "whoever") == ["user ann@example.org"]
    assert way(made, "bob@old.example") == ["user bob@example.org"]
    assert way(made, "whoever@old.example") == ["user ann@example.org"]


def test_catch_all_that_leads_nowhere() -> None:
    """What catches all does not catch itself."""
    assert way(router(virtual("@example.org nobody")), "x")[0].startswith("550 5.1.1")


def test_regexp() -> None:
    """A group goes into a target; what comes of it is an address or nothing."""
    made = router(
        regexp(
            r"/^(\w+)-list@example\.org$/  $1, ${1}@lists.example" + "\n"
            r"/^(.*)@odd\.example$/        $1@example.org" + "\n"
            r"/^Case@/i                    carl"
        )
    )
    assert way(made, "Bob-List") == ["user Bob@example.org", "address Bob@lists.example"]
    assert way(made, "Case") == ["user carl@example.org"]
    assert way(made, "case")[0].startswith("550")
    [refused] = way(made, '"|/bin/sh"@odd.example')
    assert refused.startswith("550 5.1.1")
    for hostile in ("|/bin/sh", ":include:/etc/passwd", "/etc/passwd", "\\ann", "a b"):
        found = made.resolve(f"{hostile}@odd.example")
        assert all(d.kind in ("refused", "user", "address") for d in found)
        assert all(d.kind != "address" or is_address(d.name) for d in found)


def test_required_names() -> None:
    """Where nobody is postmaster, the configured one is; users and aliases come first."""
    made = router(aliases("abuse: bob"), postmaster="ann")
    assert way(made, "Postmaster") == way(made, "MAILER-DAEMON") == ["user ann@example.org"]
    assert way(made, "abuse") == ["user bob@example.org"]
    assert way(made, "hostmaster")[0].startswith("550")
    assert way(router(postmaster="nobody"), "postmaster")[0].startswith("550")
    assert way(router(postmaster="postmaster"), "postmaster")[0].startswith("550")
    assert way(router(postmaster="root@isp.example"), "postmaster") == ["address root@isp.example"]


def test_users_are_away() -> None:
    """Who cannot be asked puts the mail off, and only for who needs to be asked."""
    made = router(aliases("sales: bob, eve@elsewhere.example"), users=Known(away=True))
    assert way(made, "bob") == ["451 4.3.0 Internal error, try again later (the users are away)"]
    assert way(made, "sales")[1] == "address eve@elsewhere.example"


def test_list_is_away() -> None:
    """A list that cannot be read puts the mail off."""
    made = router(aliases("staff: :include:/etc/none, bob"))
    assert way(made, "staff") == [
        "451 4.3.0 Internal error, try again later (/etc/none: No such file or directory)",
        "user bob@example.org",
    ]


def test_lists_in_lists() -> None:
    """Lists may name lists, in circles, too; there is an end to their depth."""
    lists = {"/a": ":include:/b, ann", "/b": ":include:/a, :include:/b, bob"}
    made = router(aliases("all: :include:/a"), lists=lists)
    assert way(made, "all") == ["user bob@example.org", "user ann@example.org"]
    deep = {f"/{n}": f":include:/{n + 1}" for n in range(30)}
    [found] = way(router(aliases("all: :include:/0"), lists=deep), "all")
    assert found.startswith("451 4.3.0")
    assert "too deep" in found


def test_owner_of_a_list_in_a_list() -> None:
    """The innermost owner is told."""
    made = router(aliases("all: staff, bob\nowner-all: carl\nstaff: ann\nowner-staff: bob"))
    assert sorted(way(made, "all")) == [
        "user ann@example.org from owner-staff@example.org",
        "user bob@example.org from owner-all@example.org",
    ]


def test_too_deep() -> None:
    """Aliases of aliases have an end, which is no reason to refuse the mail for good."""
    chain = "\n".join(f"a{n}: a{n + 1}" for n in range(MAX_DEPTH + 1)) + "\n"
    end = f"a{MAX_DEPTH + 1}: bob"
    made = router(aliases(chain + end))
    assert way(made, "a2") == ["user bob@example.org"]
    assert way(made, "a0")[0].startswith("451 4.3.0")


def test_too_many() -> None:
    """So has their number, however they multiply (P35)."""
    names = ", ".join(f"a{n}" for n in range(300))
    wide = "\n".join(f"a{n}: {names}, u{n}@elsewhere.example" for n in range(300))
    found = way(router(aliases(wide)), "a0")
    assert sum(target.startswith("address ") for target in found) == 300
    half = MAX_TARGETS // 2 + 1
    some, more = (", ".join(f"{p}{n}@e.example" for n in range(half)) for p in "uv")
    [found] = way(router(aliases(f"all: a, b\na: {some}\nb: {more}")), "all")
    assert found.startswith("451 4.3.0")
    doubling = "\n".join(f"b{n}: b{n + 1}, b{n + 1}+x, c{n}@e.example" for n in range(20))
    assert len(way(router(aliases(doubling)), "b0")) <= MAX_DEPTH + 3


def drawn(found: list[Step], depth: int = 0) -> list[str]:
    """Steps as lines."""
    return [
        line
        for s in found
        for line in (
            f"{'  ' * depth}{s.asked} | {s.answer} | {s.where}",
            *drawn(s.below, depth + 1),
        )
    ]


def test_steps() -> None:
    """Each step says who was asked, what was answered, and where that stands."""
    made = router(aliases("# roles\nsales: bob, eve@elsewhere.example"))
    found = drawn(steps(made, "sales@example.org"))
    assert found == [
        "sales@example.org |  | ",
        "  sales | bob, eve@elsewhere.example | /etc/aliases:2",
        "    bob@example.org |  | ",
        "      aliases in /etc/aliases | no bob@example.org | ",
        "      known users | bob@example.org (/home/bob@example.org) | ",
        "      => user bob@example.org |  | /etc/aliases:2",
        "    eve@elsewhere.example |  | ",
        "      aliases in /etc/aliases | no eve@elsewhere.example | ",
        "      => sent on to eve@elsewhere.example |  | /etc/aliases:2",
    ]


def test_quick() -> None:
    """To know whether anybody can have mail, the first who can is enough."""
    known = Known("zoe@example.org")
    table = aliases("all: nobody, zoe, " + ", ".join(f"u{n}" for n in range(50)) + "\nnone: x, y")
    made = router(table, users=known)
    assert made.resolve("all@example.org", quick=True)[-1].kind == "user"
    assert len(known.asked) <= 3
    assert all(d.status is not None for d in made.resolve("none@example.org", quick=True))


def test_quick_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who looks through a long list of nobodies for too long takes it for granted."""
    monkeypatch.setattr(resolve, "QUICK", -1.0)
    [found] = router(aliases("all: x, y")).resolve("all@example.org", quick=True)
    assert found.status is None
    [found] = router(aliases("all: x, y")).resolve("all@example.org")[:1]
    assert found.status is not None


def test_one_destination() -> None:
    """What is one destination, and what only looks alike."""
    table = aliases(
        "all: Bob, bob, gro\u00df@r.example, gross@r.example, x@R.example, x@r.example\n"
        'p: "|tee P", "|tee p"\nq: "|tee a@X", "|tee a@x"'
    )
    assert sorted(way(router(table), "all")) == [
        *("address gross@r.example", "address gro\u00df@r.example", "address x@R.example"),
        "user Bob@example.org",
    ]
    assert way(router(table), "p") == ["program tee P", "program tee p"]
    assert way(router(table), "q") == ["program tee a@X", "program tee a@x"]


def test_empty_group() -> None:
    """A group that matched nothing makes no address of a domain alone."""
    made = router(regexp(r"/^list-(.*)@example\.org$/ $1@new.example"))
    assert way(made, "list-x") == ["address x@new.example"]
    assert way(made, "list-")[0].startswith("451 ")


class Senders:
    """Knows one rewritten sender."""

    domain = "Srs.example.org"

    def reverse(self, address: str) -> str | None:
        return "eve@elsewhere.example" if address.startswith("SRS0=") else None


def test_domain_of_rewritten_senders() -> None:
    """Only bounces go back to a rewritten sender, and nobody else has a name in that domain."""
    made = router(aliases("staff: ann\nabuse: bob"), postmaster="carl@example.org")
    made.tables = made.tables._replace(srs=Senders())
    address = "SRS0=x=y=elsewhere.example=eve@srs.example.org"
    assert way(made, address) == ["address eve@elsewhere.example"]
    [refused] = made.resolve(address, bounce=False)
    assert str(refused.status).startswith("550 5.7.1")
    assert way(made, "staff@srs.example.org")[0].startswith("550 5.1.1")
    assert way(made, "abuse@srs.example.org") == ["user carl@example.org"]


def test_sub_list_that_is_too_long() -> None:
    """A list with too many members is put off, and the others have the mail."""
    many = "\n".join(f"u{n}@e.example" for n in range(MAX_TARGETS))
    made = router(aliases("all: bob, :include:/club"), lists={"/club": many})
    refused, bob = sorted(way(made, "all"))
    assert refused.startswith("451 4.3.0")
    assert bob == "user bob@example.org"
