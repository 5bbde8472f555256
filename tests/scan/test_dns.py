"""Lists in the DNS, asked of a name server that does what a test wants. Nothing leaves the
machine."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest
from fake_dns import FAULTS, FakeDNS
from hypothesis import given
from hypothesis import strategies as st

from mdaflow.mail.envelope import Client, Envelope
from mdaflow.mail.message import Message
from mdaflow.scan import dns as lists
from mdaflow.scan import hosts, resolver
from mdaflow.scan.dns import Dns
from mdaflow.scan.hosts import registered, url_hosts
from mdaflow.scan.resolver import Resolver

IP = "11.22.33.44"
LISTED = "44.33.22.11.zen.example"
BODY = Message(b"From: a@sender.example\n\nhttp://www.bad.co.uk/x and https://good.example.\n")


def envelope(ip: str = IP, sender: str = "") -> Envelope:
    return Envelope(sender, "bob@example.org", client=Client(ip, "", ""))


def ask(server: FakeDNS, seconds: float = 5.0, **more: Any) -> Dns:
    zones = {"dnsbl": {"zen.example": "zen"}, "uribl": {"dbl.example": "dbl"}} | more
    return Dns(**zones, nameservers=[server.address], seconds=seconds)


def names(dns: Dns, message: Message = BODY, ip: str = IP) -> list[str]:
    return [hit.name for hit in dns.hits(message, envelope(ip))]


# what lists say


def test_lists() -> None:
    """The client, and the domains of senders and URLs, are looked up; hits say what was found."""
    zone = {LISTED: "127.0.0.4", "bad.co.uk.dbl.example": "127.0.1.2"}
    with FakeDNS(zone) as server:
        found = ask(server).hits(BODY, envelope(sender="x@mail.bounce.example"))
    assert [(hit.name, hit.why) for hit in found] == [
        ("DNSBL_ZEN", "zen.example lists 11.22.33.44 (127.0.0.4)"),
        ("URIBL_DBL", "dbl.example lists bad.co.uk (127.0.1.2)"),
    ]
    domains = ("bounce.example", "sender.example", "bad.co.uk", "good.example")
    assert sorted(server.asked) == sorted([LISTED, *(f"{d}.dbl.example" for d in domains)])


def test_client_of_the_received_field() -> None:
    """Without XFORWARD the client is that of the topmost Received field."""
    head = b"Received: from x (y [11.22.33.44])\n\tby mx (Postfix) with ESMTP id 1; x\n\n"
    with FakeDNS({LISTED: "127.0.0.2"}) as server:
        assert names(ask(server), Message(head), ip="") == ["DNSBL_ZEN"]


@pytest.mark.parametrize(
    "answer",
    [
        *("", "127.255.255.254", "127.255.255.252", "127.0.0.1", "127.0.1.255"),
        *("10.0.0.1", "93.184.216.34"),
    ],
)
def test_neutral_answers(answer: str) -> None:
    """An error code of a list, or an address that is no answer of one, says nothing."""
    with FakeDNS({LISTED: answer}) as server:
        dns = ask(server)
        assert names(dns) == []
        assert dns.listed("zen.example", BODY, envelope()) is False


def test_one_answer_of_several() -> None:
    """Of several addresses those that say something count."""
    with FakeDNS({LISTED: "127.255.255.254 10.0.0.1 127.0.0.3"}) as server:
        assert names(ask(server)) == ["DNSBL_ZEN"]


@pytest.mark.parametrize(
    ("ip", "name"),
    [
        ("2600:1f18::7", f"7{'.0' * 23}.8.1.f.1.0.0.6.2"),
        ("::ffff:11.22.33.44", "44.33.22.11"),
        *((ip, "") for ip in ("10.1.2.3", "127.0.0.1", "192.0.2.1", "fe80::1", "::1", "ff0e::1")),
        *((ip, "") for ip in ("", "unknown", "1.2.3", "fe80::1%eth0", "169.254.1.1", "100.64.0.1")),
    ],
)
def test_addresses(ip: str, name: str) -> None:
    """IPv6 goes by its nibbles; what is not public is not asked about."""
    with FakeDNS({f"{name}.zen.example": "127.0.0.2"}) as server:
        dns = ask(server, uribl={})
        assert names(dns, ip=ip) == (["DNSBL_ZEN"] if name else [])
        assert dns.listed("zen.example", BODY, envelope(ip)) is bool(name)
    assert server.asked == ([f"{name}.zen.example"] if name else [])


def test_only_so_many_domains() -> None:
    """Of many domains the first and the last are looked up, each once for each list."""
    urls = "".join(f"http://d{n}.example/ http://x.d{n}.example/ " for n in range(30))
    message = Message(f"\n{urls}\n".encode())
    with FakeDNS({"d29.example.b.example": "127.0.0.2"}) as server:
        found = names(ask(server, dnsbl={}, uribl={"a.example": "a", "b.example": "b"}), message)
    assert found == ["URIBL_B"]
    assert len(server.asked) == len(set(server.asked)) == 2 * lists.MAX_DOMAINS


# a resolver that fails


@pytest.mark.parametrize("fault", FAULTS)
def test_faults(fault: str) -> None:
    """Whatever a server does wrong is neutral, and a list that is not asked again is in peace."""
    with FakeDNS({LISTED: fault}) as server:
        dns = ask(server, 0.4)
        assert names(dns) == []
        count = len(server.asked)
        assert dns.listed("zen.example", BODY, envelope()) is None
        assert names(dns, Message(b"\n")) == []
    assert len(server.asked) == count


@pytest.mark.parametrize("how", ["late", "truncated", "noisy"])
def test_answers_after_all(how: str) -> None:
    """A lost packet is sent again, a truncated answer got by TCP, garbage passed over."""
    with FakeDNS({LISTED: f"{how}: 127.0.0.2"}) as server:
        assert names(ask(server, 2.0)) == ["DNSBL_ZEN"]


@pytest.mark.parametrize("fault", ["silence", "garbage", "loop"])
def test_faults_by_tcp(fault: str) -> None:
    """A server that fails by TCP is neutral, too."""
    with FakeDNS({LISTED: f"truncated: {fault}"}) as server:
        assert names(ask(server, 0.4)) == []


def test_another_server() -> None:
    """What one server cannot tell the next one is asked."""
    with FakeDNS({LISTED: "servfail"}) as first, FakeDNS({LISTED: "127.0.0.2"}) as second:
        dns = Dns({"zen.example": "zen"}, {}, [first.address, second.address], 5.0)
        assert names(dns) == ["DNSBL_ZEN"]
    assert first.asked == [LISTED]


def test_nobody_there() -> None:
    """Where no server listens nobody waits."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    assert Resolver([f"127.0.0.1:{port}"]).addresses(["a.example"], 60.0) == {}


def test_time_is_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """All questions together wait as long as one, and never longer than P42 allows."""
    waits = list[float]()
    real = Resolver.addresses

    def noted(self: Resolver, names: Any, seconds: float) -> Any:
        waits.append(seconds)
        return real(self, names, 0.1)

    monkeypatch.setattr(Resolver, "addresses", noted)
    silent = {f"z{n}.example": f"z{n}" for n in range(20)}
    with FakeDNS({f"44.33.22.11.{zone}": "silence" for zone in silent}) as server:
        dns = Dns(silent, {}, [server.address], seconds=3600.0)
        assert dns.hits(BODY, envelope(), 1800.0) == ()
        dns = Dns(silent, {}, [server.address])
        assert dns.hits(BODY, envelope(), 1.5) == ()
    assert waits == [5.0, 1.5]
    assert len(server.asked) == 80  # each twice, by both


def test_time_of_a_message(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many questions rules ask about a message, it waits no longer in all (P42)."""
    now, waits = [0.0], list[float]()

    def silent(self: Resolver, names: Any, seconds: float) -> dict[str, Any]:
        waits.append(seconds)
        now[0] += seconds
        return {}

    monkeypatch.setattr(Resolver, "addresses", silent)
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    dns = Dns({"zen.example": "zen"}, {}, ["127.0.0.1:9"], seconds=2.0)
    for number in range(10):
        assert dns.listed(f"z{number}.example", BODY, envelope()) is None
    assert dns.hits(BODY, envelope()) == ()
    assert waits == [2.0, 2.0, 1.0]
    dns.hits(Message(b""), envelope())
    assert waits[3:] == [2.0]


def test_users_do_not_take_from_the_site(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever lists a user asks, and how slow they are, the site's are asked as before."""
    now, waits = [0.0], list[tuple[str, float]]()

    def slow(self: Resolver, names: Any, seconds: float) -> dict[str, Any]:
        waits.append((names[0].split(".")[-2], round(seconds, 2)))
        now[0] += min(seconds, 1.9)
        return {}

    monkeypatch.setattr(Resolver, "addresses", slow)
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    dns = Dns({"zen.example": "zen"}, {}, ["127.0.0.1:9"], seconds=2.0)
    for zone in ("z1.example", "z2.example", "zen.example"):
        assert dns.listed(zone, BODY, envelope(), owner="user") is None
    dns.hits(BODY, envelope())
    assert waits == [("z1", 2.0), ("z2", 2.0), ("zen", 1.2), ("zen", 2.0)]


def test_list_that_rests(monkeypatch: pytest.MonkeyPatch) -> None:
    """A list that was silent is asked again after a while; the others go on."""
    with FakeDNS({LISTED: "silence", "bad.co.uk.dbl.example": "127.0.1.2"}) as server:
        dns = ask(server, 1.0)
        assert names(dns) == ["URIBL_DBL"]
        server.zone[LISTED] = "127.0.0.2"
        assert names(dns) == ["URIBL_DBL"]
        now = time.monotonic()
        monkeypatch.setattr(time, "monotonic", lambda: now + lists.REST + 1)
        assert names(dns) == ["DNSBL_ZEN", "URIBL_DBL"]


def test_silence_is_told(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """The log tells once that a list is silent, and that it answers again."""
    caplog.set_level("INFO", "mdaflow")
    later = 0.0
    monotonic = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: monotonic() + later)
    with FakeDNS({LISTED: "silence"}) as server:
        dns = ask(server, 0.3)
        for _ in range(2):
            assert names(dns) == []
            later += lists.REST + 1
        server.zone[LISTED] = "127.0.0.2"
        assert names(dns) == ["DNSBL_ZEN"]
    zone = "zen.example"
    assert [r.getMessage() for r in caplog.records] == [
        f"the list {zone} does not answer, and counts for nothing",
        f"the list {zone} answers again",
    ]


def test_answers_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer is kept for its time, of all of them the last ones; a failure is not."""
    monkeypatch.setattr(resolver, "MAX_KEPT", 2)
    with FakeDNS({"a.example": "127.0.0.2", "c.example": "servfail"}) as server:
        asks = Resolver([server.address])
        for _ in range(3):
            found = asks.addresses(["a.example", "b.example", "c.example"], 1.0)
            assert found == {"a.example": ("127.0.0.2",), "b.example": ()}
        assert [server.asked.count(f"{x}.example") for x in "abc"] == [1, 1, 6]
        asks.addresses(["d.example"], 1.0)
        asks.addresses(["a.example"], 1.0)
        assert server.asked.count("a.example") == 2
        now = time.monotonic()
        monkeypatch.setattr(time, "monotonic", lambda: now + 61)
        asks.addresses(["a.example"], 1.0)
    assert server.asked.count("a.example") == 3


@pytest.mark.parametrize("zone", ["", "a" * 64 + ".example", "x y.example", "..", "a" * 10_000])
def test_zone_that_is_none(zone: str) -> None:
    """What can be no zone is unknown, and nobody is asked."""
    with FakeDNS({}) as server:
        assert ask(server).listed(zone, BODY, envelope()) is None
    assert server.asked == []


@pytest.mark.parametrize("text", ["", "ns.example", "1.2.3.4:x", "1.2.3.4:0", "1.2.3.4:99999"])
def test_name_server_that_is_none(text: str) -> None:
    """A name server is an address, perhaps with a port."""
    with pytest.raises(ValueError, match=r"name server|IPv4|IPv6|address"):
        Resolver([text])


def test_spellings_of_name_servers() -> None:
    """IPv6 with a port stands in brackets."""
    texts = ["1.2.3.4", "1.2.3.4:54", "::1", "[::1]", "[::1]:54"]
    servers = [("1.2.3.4", 53), ("1.2.3.4", 54), ("::1", 53), ("::1", 53), ("::1", 54)]
    assert [resolver._server(text) for text in texts] == servers


# hosts


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("http://Example.COM/", "example.com"),
        ("http:\\\\example.com\\x", "example.com"),
        ("https://user:pw@example.com:8080/x", "example.com"),
        ("https://good.example@bad.example", "bad.example"),
        ("<a href='https://example.com?x'>", "example.com"),
        ("see www.example.com.", "www.example.com"),
        ("http://ex%61mple.com", "example.com"),
        ("http://bücher.example/", "xn--bcher-kva.example"),
        ("http://example。com/", "example.com"),
        ("http://93.184.216.34/x", "93.184.216.34"),
        ("http://localhost/", ""),
        ("http://[::1]/", ""),
        ("http://999.1.1.1/", ""),
        ("http://-/", ""),
        ("http://" + "ä" * 200 + ".example/", ""),
        ("http://" + "a" * 10_000 + "/", ""),
        ("mailto:a@www.example.com", ""),
    ],
)
def test_hosts(url: str, host: str) -> None:
    """The host of a URL is what a browser would ask for."""
    head = b"Content-Type: text/plain; charset=utf-8\n\n"
    assert url_hosts(Message(head + f"x {url}\n".encode())) == ([host] if host else [])


def test_hosts_of_many_parts() -> None:
    """URLs are looked for in text and HTML, not in what is attached, and not without an end."""
    part = "--b\nContent-Type: {}\n\nhttp://{}.example/\n"
    texts = "".join(part.format(t, h) for t, h in (("text/plain", "a"), ("text/html", "b")))
    more = part.format("text/plain; name=x", "c")
    raw = f"Content-Type: multipart/mixed; boundary=b\n\n{texts}{more}--b--\n"
    assert url_hosts(Message(raw.encode())) == ["a.example", "b.example"]
    many = "".join(f"http://x{n}.example/\n" for n in range(2000))
    assert len(url_hosts(Message(f"\n{many}".encode()))) == hosts.MAX_HOSTS


@pytest.fixture
def _no_suffixes(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(__import__("sys").modules, "publicsuffixlist", None)
    hosts._suffixes.cache_clear()
    yield
    hosts._suffixes.cache_clear()


HOSTS = {
    "a.b.example.com": "example.com",
    "a.example.co.uk": "example.co.uk",
    "example.com": "example.com",
    "a.b.example.de": "example.de",
    "93.184.216.34": "93.184.216.34",
}


@pytest.mark.parametrize("host", HOSTS)
def test_registered(host: str) -> None:
    """What somebody has registered is one label more than a public suffix."""
    assert registered(host) == HOSTS[host]


@pytest.mark.usefixtures("_no_suffixes")
@pytest.mark.parametrize("host", HOSTS)
def test_registered_without_the_list(host: str) -> None:
    """Without the list of public suffixes it is guessed."""
    assert registered(host) == HOSTS[host]


@given(st.binary(max_size=400))
def test_any_bytes(raw: bytes) -> None:
    """Any bytes have hosts, of which each can be asked for."""
    for text in (b"\nhttp://" + raw, b"\n" + b"www." + raw * 3, raw):
        for host in url_hosts(Message(text)):
            assert len(host) <= hosts.LONGEST
            assert registered(host)
            assert resolver._query(f"{host}.a", ()) is not None
