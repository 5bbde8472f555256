"""The client of clamd, and a clamd that misbehaves: whatever it does, nothing is called clean."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from itertools import repeat
from pathlib import Path
from typing import Protocol

import pytest
from fake_clamd import OK, Connection, FakeClamd
from mapped import mapped

from mdaflow import Envelope, Message
from mdaflow.scan import Report, Unscanned
from mdaflow.scan.clamd import Clamd

FOUND = b"stream: Win.Test.EICAR_HDB-1 FOUND\n"
NAME = "Win.Test.EICAR_HDB-1"
LIMIT = b"stream: Heuristics.Limits.Exceeded.MaxFileSize FOUND\n"
TOO_LARGE = b"INSTREAM size limit exceeded. ERROR\n"
MAIL = Message(b"From: a@example.org\n\nHello\n")
PATIENCE = 60.0
SHORT = 0.2
"""Seconds for what will not answer."""

Act = bytes | Callable[[Connection], None]


class Start(Protocol):
    """Starts a fake clamd."""

    def __call__(self, act: Act, host: str = "") -> FakeClamd: ...


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Fakes, which end with the test."""
    with ExitStack() as running:
        count = iter(range(10))

        def start(act: Act, host: str = "") -> FakeClamd:
            return running.enter_context(FakeClamd(host or tmp_path / str(next(count)), act))

        yield start


def scan(
    *servers: FakeClamd | str,
    mail: Message = MAIL,
    seconds: float = PATIENCE,
    parts: Callable[[Message], Iterable[bytes | Iterable[bytes]]] | None = None,
    max_size: int = 1 << 30,
) -> Report:
    """What these servers say together."""
    addresses = [getattr(server, "address", server) for server in servers]
    return Clamd(addresses, parts=parts, max_size=max_size).scan(mail, Envelope(), seconds)


# --- answers ---


def test_clean(start: Start) -> None:
    """A message of which clamd says OK has no virus, and clamd was sent all of it."""
    clamd = start(OK)
    assert scan(clamd) == Report()
    assert clamd.streams == [MAIL.raw]


@pytest.mark.parametrize(
    ("said", "name"),
    [
        (FOUND, NAME),
        (b"stream: Mine.UNOFFICIAL FOUND\n", "Mine.UNOFFICIAL"),
        (b"stream: Heuristics.Encrypted.Zip FOUND\n", "Heuristics.Encrypted.Zip"),
        (b"stream: A%s\rB\x1b[2J FOUND\n", r"A%s\rB\x1b[2J"),
        ("stream: Bös FOUND\n".encode(), "Bös"),
        (b"stream: " + b"x" * 3000 + b" FOUND\n", "x" * 200),
    ],
)
def test_virus(start: Start, said: bytes, name: str) -> None:
    """A virus has the name that clamd gives it, fit to be shown."""
    assert scan(start(said)) == Report(viruses=(name,))


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"\n",
        b"OK\n",
        b"PONG\n",
        b"stream: ok\n",
        b"stream: OK",
        b"stream: OK\0",
        b"stream: OK\r\n",
        b"stream: NOT OK\n",
        b"stdin: OK\n",
        b"stream: x: OK\n",
        b"stream: FOUND\n",
        b"stream: \xff\xfe FOUND\n",
        b"stream: Evil\nName FOUND\n",
        b"stream: OK\nEICAR FOUND\n",
        b"stream: EICAR FOUND\nstream: OK\n",
        OK + OK,
        OK + FOUND,
        OK + b"x",
        b"stream: " + b"x" * 5000 + b" FOUND\n",
        b"stream: " + b"x" * (10 << 20) + b" FOUND\n",
        b"x" * (10 << 20) + b"\n" + OK,
        b"stream: Can't allocate memory ERROR\n",
        b"COMMAND READ TIMED OUT. ERROR\n",
        b"UNKNOWN COMMAND\n",
        TOO_LARGE,
        LIMIT,
        b"stream: Heuristics.Limits.Exceeded FOUND\n",
    ],
    ids=lambda said: repr(said[:30]),
)
def test_anything_else(start: Start, said: bytes) -> None:
    """What is not exactly an answer is no verdict, and can be shown."""
    with pytest.raises(Unscanned) as raised:
        scan(start(said))
    assert str(raised.value).isprintable()


# --- a server in trouble ---


def test_absent(tmp_path: Path) -> None:
    """Where nobody listens, nothing is scanned."""
    with pytest.raises(Unscanned, match="No such file"):
        scan(f"unix:{tmp_path}/nobody")
    with pytest.raises(Unscanned, match="refused"):
        scan("127.0.0.1:1")


def test_host_that_drops_packets(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that does not even refuse a connection does not hold us beyond our time."""
    monkeypatch.setattr("mdaflow.scan.servers.CONNECT", 1e6)
    with ExitStack() as full:
        listener = full.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        address = listener.getsockname()
        with suppress(TimeoutError):
            while True:
                full.enter_context(socket.create_connection(address, SHORT))
        with pytest.raises(Unscanned, match="timed out"):
            scan(f"127.0.0.1:{address[1]}", seconds=SHORT)


def test_flood(start: Start) -> None:
    """A server that talks without end is not heard out."""

    def flood(connection: Connection) -> None:
        connection.take()
        while True:
            connection.line.sendall(b"x" * 1000)

    with pytest.raises(Unscanned, match="answers"):
        scan(start(flood))


def test_none_left(tmp_path: Path) -> None:
    """When no server is left, no more parts are decoded."""
    parts = iter([b"one", b"two"])
    with pytest.raises(Unscanned, match="No such file"):
        scan(f"unix:{tmp_path}/nobody", parts=lambda message: parts)
    assert list(parts) == [b"one", b"two"]


@pytest.mark.parametrize("act", [Connection.hang, Connection.drip])
def test_slow(start: Start, act: Act) -> None:
    """A server that never comes to an end does not hold us beyond our time (A02, A03, A09)."""
    with pytest.raises(Unscanned, match="timed out"):
        scan(start(act), seconds=SHORT)


def test_reads_nothing(start: Start) -> None:
    """Nor does one that does not read what we send."""
    over = threading.Event()

    def read_no_more(connection: Connection) -> None:
        connection.take(1)
        over.wait()

    try:
        with pytest.raises(Unscanned, match="timed out"):
            scan(start(read_no_more), mail=Message(b"x" * (8 << 20)), seconds=SHORT)
    finally:
        over.set()


@pytest.mark.parametrize("host", ["", "127.0.0.1"])
def test_leaves(start: Start, host: str) -> None:
    """A server that is gone in the middle of the stream has given no verdict (A04)."""

    def leave(connection: Connection) -> None:
        connection.take(1)

    with pytest.raises(Unscanned):
        scan(start(leave, host), mail=Message(b"x" * (8 << 20)))


def early(said: bytes) -> Callable[[Connection], None]:
    """Says it when the stream has only begun, and leaves."""

    def act(connection: Connection) -> None:
        connection.take(1)
        connection.line.sendall(said)

    return act


@pytest.mark.parametrize("host", ["", "127.0.0.1"])
def test_answers_early(start: Start, host: str) -> None:
    """A verdict or an error that comes while we send is heard; but an early OK counts nothing."""
    mail = Message(b"x" * (8 << 20))
    assert scan(start(early(FOUND), host), mail=mail).viruses == (NAME,)
    with pytest.raises(Unscanned, match="StreamMaxLength"):
        scan(start(early(TOO_LARGE), host), mail=mail)
    with pytest.raises(Unscanned, match="answers"):
        scan(start(early(OK), host), mail=mail)


def test_early_answer_ends_the_stream(start: Start) -> None:
    """What clamd wants no more of is not read to its end."""

    def act(connection: Connection) -> None:
        if len(clamd.connections) == 1:
            connection.answer(OK)
        else:
            early(FOUND)(connection)

    clamd = start(act)
    endless = repeat(b"x" * (1 << 20))
    assert scan(clamd, parts=lambda message: [endless], max_size=1 << 60).viruses == (NAME,)


# --- several servers ---


@pytest.mark.parametrize("act", [b"", b"x", Connection.hang, Connection.drip, Connection.reset])
def test_next_server(start: Start, act: Act) -> None:
    """When one server cannot tell, the next one is asked, in time; when one can, no other is."""
    bad, good, unused = start(act), start(FOUND), start(OK)
    seconds = 3 if callable(act) else PATIENCE  # a third of it for the first
    assert scan(bad, good, unused, seconds=seconds).viruses == (NAME,)
    assert good.streams == [MAIL.raw]
    assert not unused.streams


def test_hung_one_is_spared(start: Start) -> None:
    """A server that has failed is asked last for a while: it does not delay each message."""
    bad, good = start(Connection.hang), start(OK)
    client = Clamd([bad.address, good.address])
    for _ in range(3):
        assert client.scan(MAIL, Envelope(), 3) == Report()
    assert [len(server.connections) for server in (bad, good)] == [1, 3]


def test_fail_over_is_logged(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    """That a server has failed is said even when another one has answered."""
    assert scan("127.0.0.1:1", start(OK)) == Report()
    assert "clamd: 127.0.0.1:1: [Errno 111] Connection refused; unix:/" in caplog.text


def test_poison(start: Start) -> None:
    """A message that brings servers down does so once for each; others are scanned (A05)."""

    def poisoned(connection: Connection) -> None:
        if b"poison" in connection.take():
            connection.reset()
        else:
            connection.line.sendall(OK)

    servers = start(poisoned, "127.0.0.1"), start(poisoned)
    with pytest.raises(Unscanned):
        scan(*servers, mail=Message(b"poison"), parts=lambda message: [b"poison"] * 5)
    assert [len(server.streams) for server in servers] == [1, 1]
    assert scan(*servers) == Report()


def test_addresses(start: Start) -> None:
    """A server may be a unix socket, or a host by IPv4, IPv6 or name."""
    try:
        six = start(FOUND, "::1")
    except OSError:
        pytest.skip("needs IPv6 on the loopback interface")
    four = start(FOUND, "127.0.0.1")
    named = four.address.replace("127.0.0.1", "localhost")
    for server in (six, four, named):
        assert scan(server).viruses == (NAME,)


# --- sizes and parts ---


def test_too_large(start: Start) -> None:
    """What is over our size is not sent at all, and not clean; its parts are looked at."""
    clamd = start(FOUND)
    with pytest.raises(Unscanned, match="larger than 10 bytes"):
        scan(clamd, max_size=10)
    assert not clamd.streams
    with pytest.raises(Unscanned, match="larger than 10 bytes"):
        scan(clamd, max_size=10, parts=lambda message: [iter([b"12345678", b"90", b"x"])])
    report = scan(clamd, max_size=10, parts=lambda message: [b"x"])
    assert report == Report(viruses=(NAME,), unscanned="larger than 10 bytes")


def test_exact_size(start: Start) -> None:
    """A message of exactly that size is scanned."""
    assert scan(start(OK), max_size=MAIL.size) == Report()


@pytest.mark.parametrize("size", [0, 1, 1 << 20, (1 << 20) + 1, 5 << 20])
def test_all_is_sent(start: Start, size: int) -> None:
    """Every byte comes to clamd, in pieces, from memory or from a file."""
    raw = bytes(range(251)) * (size // 251 + 1)
    clamd = start(OK)
    for mail in (Message(raw[:size]), Message(mapped(raw[:size]))):
        assert scan(clamd, mail=mail) == Report()
    assert clamd.streams == [raw[:size], raw[:size]]


def virus_in(what: bytes) -> Act:
    """A clamd that finds a virus in streams that have `what`."""

    def act(connection: Connection) -> None:
        connection.line.sendall(FOUND if what in connection.take() else OK)

    return act


def test_parts(start: Start) -> None:
    """A virus in any part is one of the message; clamd is asked until there is one."""
    clamd = start(virus_in(b"evil"))

    def parts(message: Message) -> Iterator[bytes | Iterable[bytes]]:
        yield b"good"
        yield memoryview(b"fine")
        yield (chunk for chunk in (b"ev", b"", b"il"))
        yield b"unseen"

    assert scan(clamd, parts=parts).viruses == (NAME,)
    assert clamd.streams == [MAIL.raw, b"good", b"fine", b"evil"]


def test_virus_beside_trouble(start: Start) -> None:
    """What was not scanned is said beside a virus that was found elsewhere."""

    def act(connection: Connection) -> None:
        data = connection.take()
        connection.line.sendall(LIMIT if b"bomb" in data else FOUND if b"evil" in data else OK)

    clamd = start(act)
    report = scan(clamd, parts=lambda message: [b"bomb", b"evil"])
    assert report == Report((NAME,), unscanned="Heuristics.Limits.Exceeded.MaxFileSize")
    with pytest.raises(Unscanned, match="MaxFileSize"):
        scan(clamd, parts=lambda message: [b"bomb", b"good"])


def test_part_that_comes_once(start: Start) -> None:
    """Chunks that come only once are not half shown to the next server."""

    def trouble(connection: Connection) -> None:
        if b"Hello" in connection.take():
            connection.line.sendall(OK)

    first, second = start(trouble), start(OK)
    with pytest.raises(Unscanned, match="without an answer"):
        scan(first, second, parts=lambda message: [iter([b"evil"])])
    assert not second.streams
    assert scan(first, second, parts=lambda message: [[b"e", b"vil"]]) == Report()
    assert second.streams == [b"evil"]


def test_parts_that_cannot_be_read(start: Start) -> None:
    """When the parts raise, a virus in the message itself is still found, and nothing is clean."""

    def parts(message: Message) -> Iterator[bytes]:
        raise RecursionError
        yield b""

    with pytest.raises(RecursionError):
        scan(start(OK), parts=parts)
    assert scan(start(FOUND), parts=parts).viruses == (NAME,)


# --- the package ---


def test_many_threads(start: Start) -> None:
    """One Clamd serves many threads at once, and none gets the answer of another."""
    clamd = Clamd([start(virus_in(b"evil")).address])

    def viruses(n: int) -> bool:
        mail = Message(b"evil" if n % 2 else b"good")
        return bool(clamd.scan(mail, Envelope(), PATIENCE).viruses)

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(viruses, range(64))) == [bool(n % 2) for n in range(64)]


def test_import_is_quick() -> None:
    """The package comes without setuptools, which is slow and warns; others can still have it."""
    program = "import sys, mdaflow.scan.clamd; sys.exit('pkg_resources' in sys.modules)"
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True)
