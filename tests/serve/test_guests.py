"""Who may come in, who has to leave, and what nobody may do to the others."""

from __future__ import annotations

import contextlib
import logging
import os
import pwd
import socket
import struct
from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path

import pytest
from lmtpd import Client, Running, running, until

from mdaflow.app.config import Lmtp
from mdaflow.errors import ConfigError
from mdaflow.serve import service, wire
from mdaflow.serve.sockets import uids

ME = pwd.getpwuid(os.geteuid()).pw_name
V2 = b"\r\n\r\n\0\r\nQUIT\n"


@contextlib.contextmanager
def on_loopback(**limits: object) -> Iterator[tuple[Running, tuple[str, int]]]:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        address = sock.getsockname()
        with running(sock, **limits) as server:
            yield server, address


def lets_in(server: Running) -> bool:
    """Is a new client greeted?"""
    with server.client() as client:
        return client.reply().startswith("220 ")


def test_peers(caplog: pytest.LogCaptureFixture) -> None:
    """The log says who connects to a unix socket; who is not in `peers` is turned away."""
    caplog.set_level(logging.INFO, "mdaflow")
    with running(peers=(ME,)) as server, server.client() as client:
        client.hello()
    assert f"connect from a local process (pid={os.getpid()}, uid={os.geteuid()})" in caplog.text
    other = "daemon" if ME != "daemon" else "bin"
    with running(peers=(other,)) as server, server.client() as client:
        assert client.line() == "421 4.7.1 You may not deliver here"
        assert client.line() == ""
    assert f"uid {os.geteuid()} ({ME}) is not in lmtp.peers" in caplog.text


def test_unknown_peer() -> None:
    """A user in `peers` who does not exist is an error of the configuration."""
    with pytest.raises(ConfigError, match=r"lmtp\.peers: nobody\.at\.all: no such user"):
        uids(Lmtp(peers=("nobody.at.all",)))


@pytest.mark.parametrize(
    ("header", "address"),
    [
        (b"PROXY TCP4 192.0.2.7 192.0.2.1 1234 24\r\n", "192.0.2.7"),
        (b"PROXY TCP6 2001:db8::7 2001:db8::1 1234 24\r\n", "2001:db8::7"),
        (b"PROXY UNKNOWN\r\n", "127.0.0.1"),
        (V2 + struct.pack("!BBH4s4sHH", 0x21, 0x11, 12, b"\xc0\0\2\7", b"\xc0\0\2\1", 9, 24),
         "192.0.2.7"),
        (V2 + struct.pack("!BBH", 0x20, 0, 0), "127.0.0.1"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("pieces", [1, 1000])
def test_proxy(header: bytes, address: str, pieces: int, caplog: pytest.LogCaptureFixture) -> None:
    """Behind a proxy a client has the address that the PROXY header tells, and its trust: who
    speaks for itself has none."""
    caplog.set_level(logging.INFO, "mdaflow")
    with on_loopback(proxies=("127.0.0.0/8",)) as (_, at), Client(at) as client:
        for start in range(0, len(header), pieces):
            client.send(header[start : start + pieces])
        assert client.reply().startswith("220 ")
        assert client.say("LHLO a") == "250 DSN"
        assert client.say("XFORWARD IDENT=x").startswith("550 ")
        assert client.deliver("bob@x") == ["250 2.0.0"]
    assert f"connect from {address}" in caplog.text


@pytest.mark.parametrize(
    "said", [b"LHLO a\r\nMAIL FROM:<>\r\n", b"PROXY" + b"x" * 200, b"PROXY TCP4 a b 1 2\r\n",
             V2 + b"\x99\x11\xff\xff"],
)  # fmt: skip
def test_no_proxy_header(said: bytes) -> None:
    """A proxy that does not say for whom it speaks is not served."""
    with on_loopback(proxies=("127.0.0.0/8",)) as (server, at), Client(at) as client:
        client.send(said)
        assert client.line() == "421 4.7.1 A PROXY header has to come first"
        assert server.courier.checked == []


def test_proxied_clients_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """One address behind a proxy cannot take all connections, another one comes in."""
    monkeypatch.setattr(service, "MAX_PER_ADDRESS", 1)
    with (
        on_loopback(proxies=("127.0.0.0/8",)) as (_, at),
        Client(at) as first,
        Client(at) as second,
        Client(at) as third,
    ):
        for client, address, wanted in ((first, 7, "220"), (second, 7, "421"), (third, 8, "220")):
            client.send(b"PROXY TCP4 192.0.2.%d 192.0.2.1 1 24\r\n" % address)
            assert client.line()[:3] == wanted


def test_proxy_header_of_a_stranger() -> None:
    """Who is no proxy cannot lend itself an address."""
    with on_loopback() as (_, at), Client(at) as client:
        client.line()
        assert client.say("PROXY TCP4 192.0.2.7 192.0.2.1 1 24").startswith("500 ")


def test_idle_clients_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a full worker who is idle gives its place to who comes, the longest idle first; who is
    in a transaction, or at a slow delivery, keeps it."""
    monkeypatch.setattr(service, "IDLE", 0.0)
    with running(max_connections=3) as server, contextlib.ExitStack() as stack:
        busy, opened, idle = (stack.enter_context(server.client()) for _ in range(3))
        for client in (busy, opened, idle):
            client.hello()
        busy.start("slow@x")
        opened.say("MAIL FROM:<>")
        until(lambda: bool(server.courier.hanging))
        late = stack.enter_context(server.client())
        late.hello()
        assert idle.line() == "421 4.3.2 Too many connections, try again later"
        assert idle.line() == ""
        assert late.deliver("bob@x") == ["250 2.0.0"]
        server.courier.go.set()
        assert busy.line().startswith("250 ")
        assert opened.say("RCPT TO:<bob@x>").startswith("250 ")


def test_place_of_who_left() -> None:
    """Who goes away behind the dot keeps its place until its mail is delivered."""
    with running(max_connections=1) as server:
        with server.client() as client:
            client.hello().start("slow@x")
            until(lambda: bool(server.courier.hanging))
        with server.client() as other:
            assert other.line() == "421 4.3.2 Too many connections, try again later"
        server.courier.go.set()

        until(lambda: lets_in(server))


@pytest.mark.parametrize(
    ("address", "trusted"),
    [("127.0.0.9", True), ("::ffff:127.0.0.1", True), ("::1", True), ("192.0.2.1", False),
     ("2001:db8::1", False), ("::ffff:192.0.2.1", False)],
)  # fmt: skip
def test_networks(address: str, trusted: bool) -> None:
    """An IPv4 address is the same when a socket for both families tells it."""
    networks = [ip_network(name) for name in Lmtp().trusted]
    assert service._in(address, networks) == trusted


@pytest.mark.parametrize("said", [b"RCPT", b"RCPT TO:<bob@x>\r\nDATA\r\nhalf a"])
def test_slow_clients_make_room(monkeypatch: pytest.MonkeyPatch, said: bytes) -> None:
    """In a full worker who is slow in a command or in a message is not kept for long."""
    monkeypatch.setattr(service, "FRUITLESS", 0.05)
    with running(max_connections=1) as server, server.client() as slow:
        slow.hello().say("MAIL FROM:<>")
        slow.send(said)

        def served() -> bool:
            slow.send(b"x")
            return lets_in(server)

        until(served)


def test_busy_clients_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a full worker who talks all the time and brings no mail is not kept for long."""
    monkeypatch.setattr(service, "FRUITLESS", 0.1)
    with running(max_connections=2) as server, server.client() as first, server.client() as second:
        first.hello()
        second.hello().say("MAIL FROM:<>")

        def served() -> bool:
            first.send(b"NOOP\r\n")
            second.send(b"RCPT TO:<unknown@x>\r\n")
            return lets_in(server)

        until(served)


def test_handshakes_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a full worker who begins TLS and says no more is not kept for long."""
    monkeypatch.setattr(service, "IDLE", 0.05)
    certificate = str(Path(__file__).with_name("mx.pem"))
    with running(max_connections=1, certificate=certificate) as server, server.client() as silent:
        assert silent.hello().say("STARTTLS").startswith("220 ")

        until(lambda: lets_in(server))


def test_a_thousand_idle_connections() -> None:
    """Whoever holds all connections open keeps nobody out."""
    with running(max_connections=50) as server, contextlib.ExitStack() as stack:
        crowd = [stack.enter_context(server.client()) for _ in range(50)]
        assert all(client.line().startswith("220 ") for client in crowd)

        def served() -> bool:
            with server.client() as good:
                if not good.reply().startswith("220 "):
                    return False
                good.say("LHLO a")
                return good.deliver("bob@x") == ["250 2.0.0"]

        until(served)


def test_useless_commands() -> None:
    """Commands that bring no mail on its way come to an end; mail makes up for them."""
    with running() as server, server.client() as client:
        client.hello()
        for _ in range(3):
            for word in ("NOOP", "RSET", "VRFY x", "HELP", "LHLO a") * 18:
                assert client.say(word)[0] == "2"
            assert client.deliver("bob@x") == ["250 2.0.0"]
        client.send(b"NOOP\r\n" * 200)
        lines = []
        while line := client.line():
            lines.append(line)
        assert lines[-1] == "421 4.7.0 Too many commands without mail"
        assert len(lines) == 100  # one NOOP was said behind the message


def test_too_many_recipients() -> None:
    """Recipients over the limit are put off, and who does not stop is dropped; the same with
    recipients who do not exist."""
    for name, most in (("bob", 20), ("unknown", 10)):
        with running(max_recipients=10) as server, server.client() as client:
            client.hello().say("MAIL FROM:<>")
            client.send(b"".join(b"RCPT TO:<%s@x>\r\n" % name.encode() for _ in range(10_000)))
            lines = []
            while line := client.line():
                lines.append(line)
            assert lines[-1] == "421 4.7.0 Too many errors"
            assert len(lines) == most + 1
            assert len(server.courier.checked) <= 11


def test_long_recipients() -> None:
    """What all recipients of a transaction may say has a limit; the message goes to the others."""
    with running() as server, server.client() as client:
        client.hello().say("MAIL FROM:<>")
        name = "x" * 200
        said = [client.say(f"RCPT TO:<{n}.{name}@x> ORCPT=rfc822;{name}@y")[:9] for n in range(400)]
        taken = said.count("250 2.1.5")
        assert 250 < taken < 330
        assert said == ["250 2.1.5"] * taken + ["452 4.5.3"] * (400 - taken)
        client.say("DATA")
        client.send(b"hello\r\n.\r\n")
        assert client.codes(taken) == ["250 2.0.0"] * taken


def test_deaf_clients_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who never reads what is said is gone in the end, and its place is free."""
    monkeypatch.setattr(wire, "LINGER", 0.1)
    with running(idle=0.3, max_connections=2) as server, contextlib.ExitStack() as stack:
        for _ in range(2):
            deaf = stack.enter_context(server.client())
            recipients = b"RCPT TO:<bob@x>\r\n" * 900
            deaf.sock.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    deaf.sock.send(b"LHLO a\r\nMAIL FROM:<>\r\n" + recipients)

        until(lambda: lets_in(server))
        before = len(os.listdir("/proc/self/fd"))
        until(lambda: len(os.listdir("/proc/self/fd")) <= before - 2)


def test_pipelining_without_reading() -> None:
    """A client that is not read any more costs a bounded number of bytes."""
    with running(idle=0.5) as server, server.client() as client:
        client.hello()
        client.sock.setblocking(False)
        sent = 0
        with contextlib.suppress(BlockingIOError, ConnectionError):
            while sent < 100 << 20:
                sent += client.sock.send(b"RCPT TO:<bob@x>\r\n" * 1000)
        assert sent < 8 << 20
        with server.client() as other:
            assert other.hello().deliver("bob@x") == ["250 2.0.0"]
