"""The access table: which key answers, and what that means."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdaflow.errors import ConfigError, Status, TempFail
from mdaflow.mail.envelope import NOBODY, Client
from mdaflow.route import tables
from mdaflow.route.access import Access, Asked, Verdict
from mdaflow.route.access_file import DENIED, MAX_TEXT, parse_access

MX = Client("192.0.2.77", "mx.sub.example.net", "helo.example.com")
ANN, BOB = "ann@mail.example.com", "bob@example.org"
Make = Callable[..., Access]


@pytest.fixture
def access(tmp_path: Path) -> Make:
    """Makes an access table of files, each given by its text."""
    folder = tmp_path / "tables"
    folder.mkdir(mode=0o755)

    def make(*texts: str, delimiters: str = "+") -> Access:
        for number, text in enumerate(texts, 1):
            (folder / str(number)).write_text(text)
            (folder / str(number)).chmod(0o644)
        return Access([str(folder / str(n)) for n in range(1, len(texts) + 1)], delimiters)

    return make


def said(verdict: Verdict | None) -> str:
    """The verdict as `ACTION KEY`; `-` for none."""
    return f"{verdict.action} {verdict.key}" if verdict is not None else "-"


def judged(access: Access, client: Client = MX, sender: str = ANN, recipient: str = BOB) -> str:
    return said(access.judge(client, sender, recipient))


# which keys there are


@pytest.mark.parametrize(
    "key",
    [
        "From:ann@mail.example.com", "from:ANN@Mail.Example.COM", "ann@mail.example.com",
        "From:ann@", "ann@", "mail.example.com", ".example.com", "example.com", "From:.com", "com",
        "To:bob@example.org", "bob@", "TO:example.org", "org",
        "Connect:mx.sub.example.net", ".sub.example.net", "example.net", "connect:NET",
        "192.0.2.77", "Connect:192.0.2", "192.0", "192", "192.0.2.0/24", "192.0.2.64/26",
        "0.0.0.0/0",
    ],
)  # fmt: skip
def test_keys(key: str, access: Make) -> None:
    """A key is found in any case, with its tag or without any."""
    assert judged(access(f"{key} REJECT")).startswith("REJECT ")


@pytest.mark.parametrize(
    "key",
    [
        "From:bob@example.org", "To:ann@", "Connect:com", "From:net", "nn@", "example", "e.com",
        ".mail.example.com", ".mx.sub.example.net", "192.0.2.7", "192.0.3", "192.0.2.0/26", "2",
        "helo.example.com", "IPv6:c000:24d", "<>",
    ],
)  # fmt: skip
def test_other_keys(key: str, access: Make) -> None:
    """A key says nothing of what it does not name: no part of a label, no other question."""
    assert judged(access(f"{key} REJECT")) == "-"


@pytest.mark.parametrize(
    ("ip", "keys"),
    [
        (
            "2001:db8:0:7::1",
            ["2001:db8:0:7::1", "IPv6:2001:DB8:0:7::1", "IPv6:2001:db8", "2001:db8::/32", "::/0",
             "Connect:IPv6:2001:db8:0:7", "2001:0db8:0000:0007:0:0:0:1", "ipv6:2001"],
        ),
        ("::ffff:192.0.2.1", ["192.0.2.1", "192.0.2.0/24"]),
        ("::1", ["::1", "[::1]", "[IPv6:0::1]"]),
    ],
)  # fmt: skip
def test_ipv6(ip: str, keys: list[str], access: Make) -> None:
    """IPv6 addresses are numbers, however they are written; those of IPv4 are of IPv4."""
    for key in keys:
        assert judged(access(f"{key} REJECT"), Client(ip)).startswith("REJECT "), key


@pytest.mark.parametrize("name", ["", "unknown", "[192.0.2.1]"])
def test_client_without_a_name(name: str, access: Make) -> None:
    """A client without a name is called by its address in brackets, and one with a name is not."""
    table = access("Connect:[192.0.2.1] REJECT")
    assert judged(table, Client("192.0.2.1", name)) == "REJECT Connect:[192.0.2.1]"
    assert judged(table, Client("192.0.2.1", "mx.example.net")) == "-"


def test_name_with_a_dot(access: Make) -> None:
    """The name of a client may end as it does in the DNS."""
    assert judged(access("example.net REJECT"), Client("", "mx.Example.net.")).startswith("REJ")


def test_endless_name(access: Make) -> None:
    """Of a name with more labels than there can be the last ones count."""
    table = access("example.net REJECT")
    assert judged(table, Client("", "a." * 1000 + "example.net")) == "REJECT example.net"


def test_address_literal(access: Make) -> None:
    """The domain of an address may be an address in brackets."""
    table = access("[192.0.2.1] REJECT\nann@[IPv6:2001:DB8::1] DISCARD")
    assert judged(table, NOBODY, "x@[192.0.2.1]") == "REJECT [192.0.2.1]"
    assert judged(table, NOBODY, "Ann@[IPv6:2001:db8:0::1]") == "DISCARD ann@[2001:db8::1]"


def test_null_sender(access: Make) -> None:
    """Bounces have a key of their own, and no other."""
    assert judged(access("From:<> REJECT"), sender="") == "REJECT From:<>"
    assert judged(access("<> REJECT"), sender="") == "REJECT <>"
    assert judged(access("From:com REJECT\nann@ REJECT"), sender="") == "-"


def test_postmaster(access: Make) -> None:
    """The one address without a domain has its local part alone."""
    table = access("To:postmaster@ OK\norg REJECT")
    assert judged(table, recipient="postmaster") == "OK To:postmaster@"


# which of them answers

FROM = [
    "ann+x@mail.example.com", "ann+*@mail.example.com", "ann@mail.example.com", "ann+x@", "ann+*@",
    "ann@", "mail.example.com", ".example.com", "example.com", ".com", "com",
]  # fmt: skip
CONNECT = ["a.example.net", ".example.net", "example.net", ".net", "net",
           "192.0.2.77", "192.0.2.64/26", "192.0.2", "192.0", "192", "0.0.0.0/0"]  # fmt: skip


@pytest.mark.parametrize(
    ("tag", "keys"), [("From", FROM), ("To", FROM), ("Connect", CONNECT)], ids=["F", "T", "C"]
)
def test_most_specific(tag: str, keys: list[str], access: Make) -> None:
    """Of any two keys the more specific one answers, whichever stands first and has a tag."""
    address = "Ann+x@mail.Example.com"
    sender, recipient = (address, "x@y") if tag == "From" else ("x@y", address)
    client = Client("192.0.2.77", "a.example.net") if tag == "Connect" else NOBODY
    for first, second in itertools.combinations(keys, 2):
        for lines in ([f"{first} OK", f"{tag}:{second} REJECT"],
                      [f"{tag}:{second} REJECT", f"{first} OK"]):  # fmt: skip
            table = access("\n".join(lines))
            assert judged(table, client, sender, recipient).startswith("OK ")


def test_tagged_before_untagged(access: Make) -> None:
    """Of one key the tagged spelling answers its own question, the other one the rest."""
    table = access("example.com REJECT\nFrom:example.com OK\n192.0.2 REJECT\nConnect:192.0.2 OK")
    assert judged(table) == "OK Connect:192.0.2.0/24"
    assert judged(table, recipient="x@example.com") == "REJECT example.com"


def test_delimiters(access: Make) -> None:
    """The detail of a recipient is divided as the site says; that of a sender by `+`."""
    table = access("bob@example.org REJECT\nbob-*@example.net DISCARD", delimiters="-")
    assert judged(table, recipient="bob-x@example.org") == "REJECT bob@example.org"
    assert judged(table, recipient="bob-x@example.net") == "DISCARD bob-*@example.net"
    assert judged(table, sender="bob-x@example.org", recipient="x@y") == "-"
    assert judged(table, sender="bob+x@example.org", recipient="x@y") == "REJECT bob@example.org"
    assert judged(table, recipient="bob+x@example.org") == "-"


def test_literal(access: Make) -> None:
    """Spellings by which an alias is found are those of its keys; others are never merged (P49)."""
    table = access('ann@x REJECT\n"b,s"@y REJECT\nmünchen.de REJECT\nTo:staff@ REJECT')
    for address in ("ann@x", '"ann"@x', '"\\a\\nn"@X', "ann@x".upper()):
        assert judged(table, NOBODY, address).startswith("REJECT")
    assert judged(table, NOBODY, '"b,s"@y').startswith("REJECT")
    for address in ("staff@z", '"staff"@z', '"staff+ x,y"@z', "\u017ftaff@z", "staff+a@z"):
        assert judged(table, NOBODY, "", address).startswith("REJECT"), address
    assert judged(table, NOBODY, "a@xn--mnchen-3ya.de") == "-"
    assert judged(table, NOBODY, "a@MÜNCHEN.de").startswith("REJECT")


WAYS = ["", "OK", "RELAY", "SKIP", "DISCARD", "REJECT"]


@pytest.mark.parametrize("client", WAYS)
@pytest.mark.parametrize("sender", WAYS)
@pytest.mark.parametrize("recipient", WAYS)
def test_who_wins(client: str, sender: str, recipient: str, access: Make) -> None:
    """The first question that stops the mail decides; else a recipient that is sent on, then the
    first OK, then the first RELAY; an OK makes it no spam whatever else is said."""
    answers = {"Connect": client, "From": sender, "To": recipient}
    keys = {"Connect": "192.0.2", "From": "com", "To": "org"}
    table = access("".join(f"{t}:{keys[t]} {a}\n" for t, a in answers.items() if a))
    found = table.judge(MX, ANN, BOB)
    stops = [tag for tag, answer in answers.items() if answer in ("DISCARD", "REJECT")]
    relays = ["To"] if recipient == "RELAY" else []
    oks = [tag for tag, answer in answers.items() if answer == "OK"]
    others = [tag for tag, answer in answers.items() if answer == "RELAY"]
    first = [*stops, *relays, *oks, *others][:1]
    assert [v.key.partition(":")[0] for v in (found,) if v is not None] == first
    assert found is None or found.action == answers[first[0]]
    assert found is None or (found.stops, found.relays) == (bool(stops), relays == first)
    assert found is None or found.allowed == bool(oks and not stops)


def test_skip(access: Make) -> None:
    """SKIP ends a question without an answer; a client that is skipped by name has an address."""
    table = access("Connect:sub.example.net SKIP\nexample.net REJECT")
    assert judged(table) == "-"
    assert judged(access("Connect:net SKIP\n192 REJECT")) == "REJECT 192.0.0.0/8"
    assert judged(access("192.0.2 SKIP\n192 REJECT\nTo:org DISCARD")) == "DISCARD To:org"


def test_name_before_address(access: Make) -> None:
    """A client that is known by name is not looked up by address."""
    assert judged(access("net OK\n192.0.2.77 REJECT")) == "OK net"


def test_files(access: Make) -> None:
    """Files are asked in their order, each question by itself."""
    table = access("example.com OK\nnet SKIP", "mail.example.com REJECT\nexample.net REJECT")
    assert judged(table) == "OK example.com"
    table = access("To:org OK", "From:com REJECT", "From:com OK")
    found = table.judge(MX, ANN, BOB)
    assert found is not None
    assert found.where == f"{table.tables[1].path}:1"
    assert said(found) == "REJECT From:com"


def test_asked(access: Make) -> None:
    """Who wants to know gets every key that was asked, with its answer and its place."""
    table = access("\ncom OK\nTo:org REJECT no", "192.0.0.0/9 SKIP")
    asked: list[Asked] = []
    found = table.judge(Client("192.0.2.1"), "a@b.com", "c@org", asked)
    assert found is not None
    assert found.stops
    one, two = (t.path for t in table.tables)
    assert asked == [
        ("Connect:[192.0.2.1]", "", one),
        ("Connect:[192.0.2.1]", "", two),
        ("Connect:192.0.0.0/9", "", one),
        ("192.0.0.0/9", "SKIP", f"{two}:1"),
        ("From:a@b.com", "", one),
        ("From:a@", "", one),
        ("From:b.com", "", one),
        ("From:.com", "", one),
        ("com", "OK", f"{one}:2"),
        ("To:c@org", "", one),
        ("To:c@", "", one),
        ("To:org", "REJECT 550 5.7.1 no", f"{one}:3"),
    ]
    assert table.judge(Client("192.0.2.1"), "a@b.com", "c@org") == found


# what a value is


@pytest.mark.parametrize(
    ("value", "action", "status"),
    [
        ("OK", "OK", None),
        ("ok", "OK", None),
        ("RELAY  # our own", "RELAY", None),
        ("DISCARD", "DISCARD", None),
        ("REJECT", "REJECT", Status(550, "5.7.1", DENIED)),
        ("REJECT # why not", "REJECT", Status(550, "5.7.1", DENIED)),
        ("Reject  Go   away #1", "REJECT", Status(550, "5.7.1", "Go away #1")),
        ("ERROR:550 no", "REJECT", Status(550, "5.7.1", "no")),
        ("ERROR:550:no", "REJECT", Status(550, "5.7.1", "no")),
        ("ERROR:5.2.1:550 no: never", "REJECT", Status(550, "5.2.1", "no: never")),
        ("ERROR:5.2.1:553:no", "REJECT", Status(553, "5.2.1", "no")),
        ("error:4.2.2:450 mailbox full", "REJECT", Status(450, "4.2.2", "mailbox full")),
        ('ERROR:"550 We don\'t"', "REJECT", Status(550, "5.7.1", "We don't")),
        ('ERROR:5.7.0:"550 no"', "REJECT", Status(550, "5.7.0", "no")),
        ('"550 no"', "REJECT", Status(550, "5.7.1", "no")),
        ("550 no", "REJECT", Status(550, "5.7.1", "no")),
        ("550 5.7.0 no", "REJECT", Status(550, "5.7.0", "no")),
        ('"450 4.7.0"', "REJECT", Status(450, "4.7.0", DENIED)),
        ("451", "REJECT", Status(451, "4.7.1", DENIED)),
    ],
)
def test_values(value: str, action: str, status: Status | None, access: Make) -> None:
    """A value is what it is to sendmail; a refusal has code, enhanced code and text."""
    found = access(f"To:org\t {value}  \r\n").judge(MX, ANN, BOB)
    assert found is not None
    assert (found.action, found.status) == (action, status)
    assert found.stops == (action in ("REJECT", "DISCARD"))


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("org", "'' is none of OK, RELAY"),
        ("org YES", "'YES' is none of OK, RELAY"),
        ("org OK really", "nothing can stand behind OK"),
        ("org QUARANTINE:x", "is none of"),
        ("org ERROR:250 fine", "is none of"),
        ("org 200 fine", "is none of"),
        ("org ERROR:5.7.1:no", "is none of"),
        ('org "550 no', "is none of"),
        ("org ٥٥٠ no", "is none of"),
        ("org ERROR:5.7.1:450 no", "5.7.1 does not fit 450"),
        ("org 421 no", "421 would end the session; write 450"),
        ("org 550 nö", "the text has to be ASCII, and of at most 400 characters"),
        ("org REJECT a\x07b", "the text has to be ASCII"),
        (f"org REJECT {'x' * (MAX_TEXT + 1)}", "the text has to be ASCII"),
        ("org\xff OK".encode("latin-1").decode("utf-8", "surrogateescape"), "no UTF-8"),
        ("@example.org OK", "'@example.org' is no address, domain or network"),
        ("a@b@c OK", "is no address"),
        ("Spam:friend@ OK", "'spam:friend@' is no address"),
        ("example..org OK", "is no address"),
        ("example.org. OK", "is no address"),
        ("From: OK", "'from:' is no address"),
        ("<ann@x> OK", "is no address"),
        ("192.0.2.300 OK", "'192.0.2.300' does not appear to be an IPv4 or IPv6 network"),
        ("192.000.2 OK", "does not appear"),
        ("192.0.2. OK", "does not appear"),
        ("192.0.2.1/24 OK", "192.0.2.1/24 has host bits set"),
        ("192.0.2.0/33 OK", "does not appear"),
        ("1:2:3:4:5:6:7:8:9 OK", "does not appear"),
        ("::ffff:192.0.2.1 OK", "has to be written as an IPv4 address"),
        ("From:192.0.2 OK", "192.0.2 cannot stand behind From:"),
        ("To:<> OK", "<> cannot stand behind To:"),
        ("Connect:ann@x OK", "ann@x cannot stand behind Connect:"),
    ],
)
def test_problems(line: str, problem: str) -> None:
    """What says nothing is told with its line, and the file does not count."""
    text = f"# a comment\ncom OK\n{line}\n".encode("utf-8", "surrogateescape")
    with pytest.raises(ConfigError) as caught:
        parse_access(text, "access")
    [told] = caught.value.problems
    assert told.startswith("access:3: ")
    assert problem in told


@pytest.mark.parametrize(
    ("first", "second"),
    [("From:a@B", "from:A@b"), ("192.0.2", "192.0.2.0/24"), ("2001:db8::1", "IPv6:2001:DB8:0::1"),
     ("[::1]", "[IPv6:0::1]")],
)  # fmt: skip
def test_twice(first: str, second: str) -> None:
    """A key that stands there twice, however it is spelled, is a mistake of somebody."""
    with pytest.raises(ConfigError, match=r":2: .* stands in line 1 already"):
        parse_access(f"{first} OK\n{second} REJECT".encode(), "access")


def test_many_problems() -> None:
    """Of a file that is something else altogether not everything is said."""
    with pytest.raises(ConfigError) as caught:
        parse_access(b"?\n" * 1000, "access")
    assert len(caught.value.problems) == tables.MAX_PROBLEMS


def test_comments() -> None:
    """Empty lines, comments, a byte order mark and missing line ends are of no account."""
    text = b"\xef\xbb\xbf# sendmail's own\r\n\r\n  \t\n   # indented\n\tcom\t\tOK\t\r\norg REJECT"
    assert [line for _, line in parse_access(text, "f").entries[""].values()] == [5, 6]


README = """\
From:spammer@aol.com			REJECT
From:cyberspammer.com			ERROR:"550 We don't accept mail from spammers"
From:okay.cyberspammer.com		OK
Connect:sendmail.org			RELAY
To:sendmail.org				RELAY
Connect:192.168.212			REJECT
Connect:IPv6:2002:c0a8:02c7		RELAY
Connect:IPv6:2002:c0a8:51d2::23f4	REJECT
Connect:128.32				RELAY
Connect:128.32.2			SKIP
Connect:[127.0.0.3]			OK
From:FREE.STEALTH.MAILER@		ERROR:550 Spam not accepted
To:badlocaluser@			ERROR:550 Mailbox disabled for badlocaluser
To:user@other.my.TLD			ERROR:5.2.1:550 Mailbox disabled for this recipient
"""


@pytest.mark.parametrize(
    ("ip", "name", "sender", "recipient", "verdict"),
    [
        ("", "", "Spammer@AOL.com", "x@y", "REJECT From:spammer@aol.com"),
        ("", "", "x@aol.com", "x@y", "-"),
        ("", "", "x@a.cyberspammer.com", "x@y", "REJECT From:cyberspammer.com"),
        ("", "", "x@a.okay.cyberspammer.com", "x@y", "OK From:okay.cyberspammer.com"),
        ("1.2.3.4", "mail.sendmail.org", "", "x@y", "RELAY Connect:sendmail.org"),
        ("1.2.3.4", "", "", "x@a.sendmail.org", "RELAY To:sendmail.org"),
        ("192.168.212.9", "", "", "x@y", "REJECT Connect:192.168.212.0/24"),
        ("2002:c0a8:2c7:1::1", "", "", "x@y", "RELAY Connect:IPv6:2002:c0a8:2c7::/48"),
        ("2002:c0a8:51d2::23f4", "", "", "x@y", "REJECT Connect:IPv6:2002:c0a8:51d2::23f4"),
        ("128.32.1.1", "h", "", "x@y", "RELAY Connect:128.32.0.0/16"),
        ("128.32.2.1", "h", "", "x@y", "-"),
        ("127.0.0.3", "", "", "x@y", "OK Connect:[127.0.0.3]"),
        ("", "", "free.stealth.mailer@z", "x@y", "REJECT From:free.stealth.mailer@"),
        ("", "", "", "badlocaluser@y", "REJECT To:badlocaluser@"),
        ("", "", "", "user@other.my.tld", "REJECT To:user@other.my.tld"),
    ],
)
def test_examples_of_sendmail(
    ip: str, name: str, sender: str, recipient: str, verdict: str, access: Make
) -> None:
    """The examples of sendmail's own manual do what it says."""
    assert judged(access(README), Client(ip, name), sender, recipient) == verdict


@pytest.mark.parametrize("document", ["README.md", "contrib/man/mdaflow.yaml.5"])
def test_documents(document: str, access: Make) -> None:
    """The examples that we show are tables, and do what the words around them say."""
    text = (Path(__file__).resolve().parents[2] / document).read_text()
    table = access(re.findall(r"^Connect:192.*\n(?:\w+:.*\n)+", text, re.MULTILINE)[0])
    assert judged(table) == "REJECT Connect:192.0.2.0/24"
    assert judged(table, NOBODY, "x@a.offers.example.com") == "REJECT From:offers.example.com"
    assert judged(table, NOBODY, "ann@example.com", "abuse@x") == "OK From:ann@example.com"


# files


def test_changed_file(access: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A changed file counts at the next look, and a broken one leaves the last good version."""
    monkeypatch.setattr(tables, "LOOK", 0.0)
    table = access("org REJECT")
    assert judged(table) == "REJECT org"
    Path(table.tables[0].path).write_text("To:org DISCARD")
    assert judged(table) == "DISCARD To:org"
    Path(table.tables[0].path).write_text("To:org PERHAPS")
    assert judged(table) == "DISCARD To:org"


@pytest.mark.parametrize("spoil", ["gone", "shared", "wrong"])
def test_no_file(spoil: str, access: Make) -> None:
    """A file that cannot count is told when it is loaded, and never read as an empty one (P52)."""
    table = access("org OK").tables[0].path
    if spoil == "gone":
        os.unlink(table)
    elif spoil == "shared":
        os.chmod(table, 0o666)
    else:
        Path(table).write_text("org MAYBE")
    broken = Access([table])
    with pytest.raises(ConfigError, match=table):
        broken.tables[0].load()
    with pytest.raises(TempFail):
        broken.judge(MX, ANN, BOB)


def test_large_table(access: Make) -> None:
    """A hundred thousand keys of every kind are found."""
    lines = [
        line for n in range(25_000) for line in (
            f"From:user{n}@host{n}.example.org REJECT", f"spam{n}.example.net ERROR:550 no",
            f"Connect:10.{n >> 8}.{n & 255} REJECT", f"2001:db8:{n:x}::/48 OK",
        )
    ]  # fmt: skip
    table = access("\n".join(lines))
    assert judged(table, NOBODY, "x@a.spam24999.example.net").startswith("REJECT spam24999.")
    assert judged(table, NOBODY, "user24999@host24999.example.org").startswith("REJECT From:user")
    assert judged(table, Client("10.97.167.1")) == "REJECT Connect:10.97.167.0/24"
    assert judged(table, Client("2001:db8:61a7::1")) == "OK IPv6:2001:db8:61a7::/48"


# hostile input


@given(st.binary(max_size=300) | st.text(max_size=300).map(lambda text: text.encode()))
def test_any_file(content: bytes) -> None:
    """Any bytes are a table, or a ConfigError with lines."""
    problems: tuple[str, ...] = ("f:0",)
    try:
        assert parse_access(content, "f").path == "f"
    except ConfigError as error:
        problems = error.problems
    assert all(re.match(r"f:\d", problem) for problem in problems)


_PIECES = st.sampled_from(
    ["org", "a", "@", ".", "+", "*", ":", "from:", "connect:org", "[", "]", "ipv6:", "::", "1",
     "\0", "\r\n", "<>", '"', " ", "ß", "İ", "\u202e", "\ud800", "x" * 300, "a." * 500, "%", "/8"]
)  # fmt: skip
_HOSTILE = st.text(max_size=20) | st.lists(_PIECES, max_size=12).map("".join)
_TABLE = b"connect:org REJECT\nFrom:a@ OK\n1.0.0.0/8 OK\nIPv6:1 SKIP\n.org DISCARD\n<> OK\n[::1] OK"


@pytest.fixture(scope="module")
def some(tmp_path_factory: pytest.TempPathFactory) -> Access:
    path = tmp_path_factory.mktemp("access") / "some"
    path.write_bytes(_TABLE)
    path.chmod(0o644)
    path.parent.chmod(0o755)
    return Access([str(path)], "+-")


@given(ip=_HOSTILE, name=_HOSTILE, sender=_HOSTILE, recipient=_HOSTILE)
def test_any_address(some: Access, ip: str, name: str, sender: str, recipient: str) -> None:
    """Whatever the addresses are, there is a verdict or none, the same with and without a trace."""
    asked: list[Asked] = []
    verdict = some.judge(Client(ip, name), sender, recipient, asked)
    assert verdict == some.judge(Client(ip, name), sender, recipient)
    assert len(asked) < 1000


@pytest.mark.parametrize("address", ["connect:org", "x@connect:org", "from:a@", "[from:a@]"])
def test_tag_in_an_address(some: Access, address: str) -> None:
    """A tag that somebody writes into an address is none."""
    assert judged(some, NOBODY, address, address) == "-"
