"""Senders that are rewritten, and the way back."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import srslib
from hypothesis import given
from hypothesis import strategies as st

from mdaflow.mail.letter import is_address
from mdaflow.mail.srs import DAYS, Srs, keys_of

KEY, OLD = b"the newest secret of all", b"the one that was before it"
HERE = "srs.example.org"
ANN = "ann@example.com"
DAY = 86400.0


def srs(*keys: bytes, domain: str = HERE) -> Srs:
    return Srs(domain, keys or (KEY,), {"example.org"}.__contains__)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The time, as srslib sees it."""
    clock = SimpleNamespace(now=1.8e9)
    monkeypatch.setattr(srslib, "time", SimpleNamespace(time=lambda: clock.now))
    return clock


def test_there_and_back() -> None:
    """A sender gets an address of our domain, which leads back to it."""
    rewritten = srs().forward(ANN)
    local, _, domain = rewritten.partition("@")
    assert domain == HERE
    assert local.startswith("SRS0=")
    assert local.endswith("=example.com=ann")
    assert srs().reverse(rewritten) == ANN


@pytest.mark.parametrize(
    "sender", ["", "postmaster", "bob@example.org", "bob@EXAMPLE.org", f"SRS0=x@{HERE}"]
)
def test_senders_that_stay(sender: str) -> None:
    """The null sender, and senders of domains of ours, are not rewritten."""
    assert srs().forward(sender) == sender


ODD = [
    "jürgen@bücher.example",
    '"a b"@x.org',
    r'"a\"b\\c@d"@x.org',
    '"SRS0= a"@x.org',
    "ann@[192.0.2.1]",
    "ann@[IPv6:2001:db8::1]",
    "a=b=c+d-e@x.org",
    "SRS0x@x.org",
    "SRS1=a=b=c@x.org",
    "SRS0=@x.org",
    "o'neil/x@x.org",
]


@pytest.mark.parametrize("sender", ODD)
def test_odd_senders(sender: str) -> None:
    """Whatever a local part holds, the new address is one, and leads back."""
    rewritten = srs().forward(sender)
    assert rewritten.endswith(f"@{HERE}")
    assert is_address(rewritten)
    assert srs().reverse(rewritten) == sender


@pytest.mark.parametrize(
    "sender", ["a" * 250 + "@x.org", f"a@{'x' * 60}.{'y' * 200}.org", "a@[a=b]"]
)
def test_senders_that_cannot_be_rewritten(sender: str) -> None:
    """What would be no address any more stays as it is."""
    assert srs().forward(sender) == sender


@given(
    st.text(min_size=1, max_size=40), st.sampled_from(["x.org", "[192.0.2.1]", "bücher.example"])
)
def test_any_sender(local: str, domain: str) -> None:
    """Every address is rewritten into an address that leads back to the same mailbox."""
    quoted = local.replace("\\", "\\\\").replace('"', '\\"')
    for sender in filter(is_address, (f"{local}@{domain}", f'"{quoted}"@{domain}')):
        rewritten = srs().forward(sender)
        assert is_address(rewritten)
        back = srs().reverse(rewritten)
        assert back is not None
        assert srs().forward(back) == rewritten


def outcome(address: str) -> str | None:
    """What comes of a recipient; of a reason, how it begins."""
    try:
        return srs().reverse(address)
    except ValueError as error:
        return str(error).replace("a malformed", "an").partition(" address")[0] + " address"


@given(st.text(max_size=60))
def test_any_recipient(text: str) -> None:
    """Any text as a recipient is answered, with a reason or with None."""
    for address in (text, f"{text}@{HERE}", f"SRS0={text}@{HERE}", f"SRS1=aaaa=b={text}@{HERE}"):
        assert outcome(address) in (None, "an SRS address")


@pytest.mark.parametrize("change", [str.lower, str.upper])
def test_case(change: type[str.lower]) -> None:
    """An MTA on the way may change the case."""
    found = srs().reverse(change(srs().forward(ANN)))
    assert found is not None
    assert found.lower() == ANN


def test_chain() -> None:
    """The second forwarder and all behind it lead back to the first, and that to the sender."""
    first, second, third = srs(), srs(OLD, domain="b.example"), srs(KEY + OLD, domain="c.example")
    one = first.forward(ANN)
    two = second.forward(one)
    three = third.forward(two)
    assert two.startswith("SRS1=")
    assert (
        two.partition("=")[2].partition("=")[2] == f"{HERE}={one[4:].partition('@')[0]}@b.example"
    )
    assert len(three) == len(two)
    assert third.reverse(three) == second.reverse(two) == one
    assert first.reverse(one) == ANN
    assert first.reverse(two) is None


def test_other_separators() -> None:
    """An SRS0 address of another forwarder keeps its separator."""
    theirs = "SRS0+abcd=TT=x.org=ann@first.example"
    mine = srs().forward(theirs)
    assert "=first.example=+abcd=" in mine
    assert srs().reverse(mine) == theirs


@pytest.mark.parametrize(
    "address",
    [
        ANN,
        f"ann@{HERE}",
        "SRS0=abcd=TT=x.org=ann@other.example",
        f"SRS0@{HERE}",
        f"SRS2=a@{HERE}",
        f"srs@{HERE}",
        "SRS0=a",
        "",
    ],
)
def test_what_is_not_ours(address: str) -> None:
    """What is no rewritten address of our domain is for others to look at."""
    assert srs().reverse(address) is None


def test_forged() -> None:
    """Nobody makes an address of ours: every part counts, and the hash has its length."""
    local = srs().forward(ANN).partition("@")[0]
    tag, hash_, stamp, domain, user = local.split("=")
    forged = [
        f"{tag}={hash_}={stamp}={domain}=eve",
        f"{tag}={hash_}={stamp}=evil.example={user}",
        f"{tag}={hash_}=22={domain}={user}",
        *(f"{tag}={hash_[:n]}={stamp}={domain}={user}" for n in range(4)),
        f"{tag}={hash_}x={stamp}={domain}={user}",
        f"{tag}={hash_}={stamp}={domain}",
        f"SRS1={hash_}={domain}=={stamp}={user}",
        "SRS0=",
    ]
    for address in forged:
        with pytest.raises(ValueError, match="SRS address"):
            srs().reverse(f"{address}@{HERE}")


@pytest.mark.parametrize("length", [1, 2, 3])
def test_short_hash(length: int) -> None:
    """A part of the right hash is not enough, though srslib says so."""
    tag, hash_, rest = srs().forward(ANN).split("=", 2)
    short = f"{tag}={hash_[:length]}={rest}"
    assert srslib.SRS(KEY).reverse(short) == ANN
    with pytest.raises(ValueError, match="without its hash"):
        srs().reverse(short)


def test_other_key() -> None:
    """The address of a site with another key is not ours."""
    with pytest.raises(ValueError, match="not made here"):
        srs().reverse(srs(OLD).forward(ANN))


def test_rotation() -> None:
    """A new key on top writes; an old one still opens what it has closed."""
    before, now = srs(OLD), srs(KEY, OLD)
    assert now.reverse(before.forward(ANN)) == ANN
    assert now.forward(ANN) == srs().forward(ANN) != before.forward(ANN)


def test_age(clock: SimpleNamespace) -> None:
    """An address can be answered for three weeks, and never again when it is older."""
    mine = srs()
    rewritten = mine.forward(ANN)
    clock.now += (DAYS - 1) * DAY
    assert mine.reverse(rewritten) == ANN
    clock.now += DAY
    with pytest.raises(ValueError, match="too old"):
        mine.reverse(rewritten)
    assert srs().forward(ANN) != rewritten


def test_no_key() -> None:
    """Without a key nobody begins."""
    with pytest.raises(ValueError, match="no key"):
        Srs(HERE, (), bool)


@pytest.mark.parametrize(
    ("content", "keys"),
    [(b"", ()), (b"\n \n", ()), (b"new\r\n\n old \nolder", (b"new", b"old", b"older"))],
)
def test_file_of_keys(content: bytes, keys: tuple[bytes, ...]) -> None:
    """A file has one key a line, the newest first."""
    assert keys_of(content) == keys
