"""What stock aiosmtpd does, and what our server does instead (T1 to T11).

When a test here fails on the stock side, aiosmtpd has changed: our side must hold anyway.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import socket
import tempfile
import threading
import tracemalloc
from collections.abc import Callable, Iterator

import pytest
from aiosmtpd.lmtp import LMTP
from aiosmtpd.smtp import SMTP, Envelope
from lmtpd import Client, running, until


class Stock:
    """A handler as aiosmtpd's documentation shows it."""

    def __init__(self) -> None:
        self.envelopes: list[Envelope] = []
        self.started = 0
        self.finished = 0
        self.fails = False
        self.hold: Callable[[], bool] = lambda: False

    async def handle_DATA(self, server: SMTP, session: object, envelope: Envelope) -> str:
        self.started += 1
        while self.hold():
            await asyncio.sleep(0.005)
        if self.fails:
            raise OSError(28, "No space left on device")
        self.envelopes.append(envelope)
        self.finished += 1
        return "250 OK"


@contextlib.contextmanager
def stock(handler: Stock | None = None) -> Iterator[tuple[Client, Stock]]:
    """A client of stock aiosmtpd, past LHLO, and its handler."""
    handler = handler or Stock()
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "stock")

        async def begin() -> asyncio.Server:
            return await loop.create_unix_server(lambda: LMTP(handler, hostname="stock"), path)

        async def end() -> None:
            server.close()
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

        thread.start()
        server = asyncio.run_coroutine_threadsafe(begin(), loop).result(10)
        try:
            with Client(path) as client:
                yield client.hello(), handler
        finally:
            asyncio.run_coroutine_threadsafe(end(), loop).result(10)
            loop.call_soon_threadsafe(loop.stop)
            thread.join(10)
            loop.close()


@contextlib.contextmanager
def ours() -> Iterator[Client]:
    with running() as server, server.client() as client:
        yield client.hello()


def transaction(client: Client, *recipients: str) -> None:
    client.say("MAIL FROM:<a@x>")
    for recipient in recipients:
        client.say(f"RCPT TO:<{recipient}>")
    client.say("DATA")
    client.send(b"hello\r\n.\r\n")


def test_t1_encoded_words() -> None:
    """T1: nothing in an address is decoded."""
    with stock() as (client, handler):
        client.say("MAIL FROM:<=?utf-8?q?a=0D=0AX-Inj=3A=201?=@x>")
        client.say("RCPT TO:<=?utf-8?q?root?=@x>")
        client.say("DATA")
        client.send(b".\r\n")
        client.line()
        [envelope] = handler.envelopes
        assert envelope.rcpt_tos == ["root@x"]
        assert "\r\n" in (envelope.mail_from or "")
    with running() as server, server.client() as client:
        client.hello().say("MAIL FROM:<=?utf-8?q?a=0D=0AX-Inj=3A=201?=@x>")
        client.say("RCPT TO:<=?utf-8?q?root?=@x>")
        client.say("DATA")
        client.send(b".\r\n")
        client.line()
        [(ours, _)] = server.courier.delivered
        assert ours.sender == "=?utf-8?q?a=0D=0AX-Inj=3A=201?=@x"
        assert ours.recipient == "=?utf-8?q?root?=@x"


@pytest.mark.parametrize("path", ["<a@x", "<a@x\0>"])
def test_t2_malformed_paths(path: str) -> None:
    """T2: a path without its end, or with a NUL, is refused."""
    with stock() as (client, _):
        assert client.say(f"MAIL FROM:{path}").startswith("250")
    with ours() as client:
        assert client.say(f"MAIL FROM:{path}").startswith("5")


def test_t2_quotes() -> None:
    """T2: a quoted local part keeps its quotes."""
    with stock() as (client, handler):
        transaction(client, '"../../etc/x"@x')
        client.line()
        assert handler.envelopes[0].rcpt_tos == ["../../etc/x@x"]
    with running() as server, server.client() as client:
        transaction(client.hello(), '"../../etc/x"@x')
        client.line()
        assert server.courier.recipients() == ['"../../etc/x"@x']


def test_t3_t4_exceptions() -> None:
    """T3, T4: an exception is 451 without its text, once for each recipient."""
    with stock() as (client, handler):
        handler.fails = True
        transaction(client, "full@x", "full@y")
        assert client.line() == "500 Error: (OSError) [Errno 28] No space left on device"
        assert client.say("NOOP") == "250 OK"  # one reply for two recipients
    with ours() as client:
        transaction(client, "full@x", "full@y")
        assert client.line() == "451 4.3.0 <full@x> Internal error, try again later"
        assert client.line() == "451 4.3.0 <full@y> Internal error, try again later"
        assert client.say("NOOP") == "250 2.0.0 Ok"


def test_t5_half_close() -> None:
    """T5: a client that closes its half does not cancel its delivery."""
    with stock() as (client, handler):
        held = [True]
        handler.hold = lambda: held[0]
        transaction(client, "bob@x")
        until(lambda: handler.started == 1)
        client.sock.shutdown(socket.SHUT_WR)
        assert client.line() == ""
        held.clear()
        assert handler.finished == 0
    with running() as server, server.client() as client:
        transaction(client.hello(), "slow@x")
        until(lambda: bool(server.courier.hanging))
        client.sock.shutdown(socket.SHUT_WR)
        server.courier.go.set()
        assert client.line().startswith("250 ")
        assert server.courier.recipients() == ["slow@x"]


def peak(client: Client, lines: int) -> int:
    """Bytes that are allocated at most while a message of empty lines comes in."""
    client.say("MAIL FROM:<a@x>")
    client.say("RCPT TO:<bob@x>")
    client.say("DATA")
    tracemalloc.start()
    try:
        client.send(b"\r\n" * lines + b".\r\n")
        assert client.line().startswith("250 ")
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_t6_memory() -> None:
    """T6: empty lines cost about their bytes, not a hundred each."""
    lines = 100_000
    with stock() as (client, _):
        assert peak(client, lines) > 50 * lines
    with ours() as client:
        assert peak(client, lines) < 10 * lines  # two bytes to send, buffers, one to store


def test_t6_long_lines() -> None:
    """T6: a line over 1001 bytes is no reason to refuse a message."""
    for served, wanted in ((stock, "500"), (ours, "250")):
        with served() as made:
            client = made if isinstance(made, Client) else made[0]
            client.say("MAIL FROM:<a@x>")
            client.say("RCPT TO:<bob@x>")
            client.say("DATA")
            client.send(b"x" * 2000 + b"\r\n.\r\n")
            assert client.line()[:3] == wanted


def test_t7_bare_line_feed() -> None:
    """T7: two commands with a bare LF between them are none."""
    with stock() as (client, _):
        client.say("MAIL FROM:<a@x>")
        client.send(b"RCPT TO:<u@x>\nRCPT TO:<v@x>\r\n")
        assert [client.line() for _ in range(2)] == ["250 OK"] * 2
    with ours() as client:
        client.say("MAIL FROM:<a@x>")
        client.send(b"RCPT TO:<u@x>\nRCPT TO:<v@x>\r\n")
        assert client.line().startswith("500 5.5.2 ")
        assert client.say("DATA").startswith("503 5.5.1 ")


def test_t8_caps() -> None:
    """T8: recipients and connections are limited."""
    with stock() as (client, _):
        client.say("MAIL FROM:<a@x>")
        assert all(client.say(f"RCPT TO:<{n}@x>") == "250 OK" for n in range(1500))
        with contextlib.ExitStack() as stack:
            path = client.sock.getpeername()
            for _ in range(250):
                assert stack.enter_context(Client(path)).line().startswith("220 ")
    with running() as server, server.client() as client:
        client.hello().say("MAIL FROM:<a@x>")
        said = [client.say(f"RCPT TO:<{n}@x>")[:9] for n in range(1100)]
        assert said == ["250 2.1.5"] * 1000 + ["452 4.5.3"] * 100
        with contextlib.ExitStack() as stack:
            greetings = [stack.enter_context(server.client()).line()[:9] for _ in range(250)]
            assert greetings.count("421 4.3.2") >= 51


def test_t9_extensions() -> None:
    """T9: PIPELINING and ENHANCEDSTATUSCODES are announced, and every reply has such a code."""

    def announced(client: Client) -> list[str]:
        client.send(b"LHLO again\r\n")
        lines = [client.line()]
        while lines[-1][3] == "-":
            lines.append(client.line())
        return [line[4:] for line in lines]

    asked = ("NOOP", "RSET", "DATA", "NONSENSE", "MAIL FROM:<a@x> FOO=1", "VRFY x", "HELP")
    code = re.compile(r"[245][0-9]{2} [245]\.[0-9]+\.[0-9]+ ")
    with stock() as (client, _):
        assert not {"PIPELINING", "ENHANCEDSTATUSCODES"} & set(announced(client))
        assert not any(code.match(client.say(command)) for command in asked)
    with ours() as client:
        assert {"PIPELINING", "ENHANCEDSTATUSCODES"} <= set(announced(client))
        assert all(code.match(client.say(command)) for command in asked)


def test_t10_parameters() -> None:
    """T10: the parameters of DSN are taken as they are, and the null sender is none."""
    mail = "MAIL FROM:<> RET=HDRS ENVID=QQ314159"
    rcpt = "RCPT TO:<bob@x> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;Sales+2BTeam@example.org"
    with stock() as (client, handler):
        assert client.say(mail).startswith("555 ")
        client.say("MAIL FROM:<>")
        assert client.say(rcpt).startswith("555 ")
        transaction(client, "bob@x")
        client.line()
        assert handler.envelopes[0].mail_from == "<>"
    with running() as server, server.client() as client:
        assert client.hello().say(mail).startswith("250 ")
        assert client.say(rcpt).startswith("250 ")
        client.say("DATA")
        client.send(b"hello\r\n.\r\n")
        assert client.line().startswith("250 ")
        [(envelope, _)] = server.courier.delivered
        assert (envelope.sender, envelope.ret, envelope.envid) == ("", "HDRS", "QQ314159")
        assert envelope.original == "Sales+Team@example.org"
        assert set(envelope.notify) == {"SUCCESS", "FAILURE"}


def test_t10_limits_are_shared() -> None:
    """T10: with aiosmtpd, what one client says changes the limits of the others."""
    loop = asyncio.new_event_loop()
    one, other = (SMTP(Stock(), hostname="a", loop=loop) for _ in range(2))
    loop.close()
    assert one.command_size_limits is other.command_size_limits


def test_t11_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """T11: no connection asks the resolver for our name."""
    asked: list[str] = []

    def getfqdn(name: str = "") -> str:
        asked.append(name)
        return "slow.example"

    monkeypatch.setattr(socket, "getfqdn", getfqdn)
    loop = asyncio.new_event_loop()
    LMTP(Stock(), loop=loop)
    loop.close()
    assert asked == [""]
    with running() as server:
        for _ in range(3):
            with server.client() as client:
                client.hello()
    assert asked == [""]
