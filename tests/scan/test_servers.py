"""Asking servers: their addresses, their order, their failures."""

from __future__ import annotations

from itertools import pairwise

import pytest

from mdaflow import Unscanned
from mdaflow.scan.servers import Server, Servers, parse_server


@pytest.mark.parametrize(
    ("text", "server"),
    [
        ("127.0.0.1:783", Server("127.0.0.1", 783)),
        ("http://scan.example.org:11333/", Server("scan.example.org", 11333)),
        ("[::1]:783", Server("::1", 783)),
        ("[fe80::1%eth0]:783", Server("fe80::1%eth0", 783)),
        ("unix:/run/spamd.sock", Server(path="/run/spamd.sock")),
    ],
)
def test_address(text: str, server: Server) -> None:
    """An address is host:port, http://host:port or unix:/path."""
    assert parse_server(text) == server
    assert parse_server(str(server)) == server


@pytest.mark.parametrize(
    "text",
    [
        *("", "host", "host:", "host:0", "host:65536", "::1:783", "unix:run/s", "unix:/a\0b"),
        *("https://host:1", "http://host:1/path", "host:783\n", "user@host:1", "h:783 "),
        f"unix:/{'x' * 107}",
    ],
)
def test_no_address(text: str) -> None:
    """What is no address is said to be none."""
    with pytest.raises(ValueError, match="neither host:port nor"):
        parse_server(text)


def test_none_at_all() -> None:
    """Somebody has to be asked."""
    with pytest.raises(ValueError, match="no server"):
        Servers(())


def test_order(caplog: pytest.LogCaptureFixture) -> None:
    """Each is asked once, in order, and the next one when one fails, which is logged."""
    asked: list[str] = []

    def question(server: Server, deadline: float) -> str:
        asked.append(str(server))
        if server.port < 3:
            raise OSError("down")
        return "fine"

    servers = Servers(["a:1", "b:2", "c:3", "d:4"])
    assert servers.ask(question, 1) == "fine"
    assert asked == ["a:1", "b:2", "c:3"]
    assert caplog.messages == ["c:3 answers instead of a:1: down; b:2: down"]
    assert servers.ask(question, 1) == "fine"
    assert asked[3:] == ["c:3"], "those that failed a moment ago come last"


def test_all_fail() -> None:
    """When nobody can tell, the reason of each is told, on one line."""

    def question(server: Server, deadline: float) -> None:
        raise (KeyError() if server.host == "a" else OSError(f"{server.host} is\r\n\x1b[2J" * 99))

    servers = Servers(["a:1", "b:2"])
    for _ in range(2):
        with pytest.raises(Unscanned) as caught:
            servers.ask(question, 1)
        assert str(caught.value).startswith("a:1: KeyError; b:2: b is??")
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 250


def test_shares() -> None:
    """A server cannot use up the time of the next, and all together have no more than there is."""
    deadlines: list[float] = []

    def question(server: Server, deadline: float) -> None:
        deadlines.append(deadline)
        raise OSError

    with pytest.raises(Unscanned):
        Servers(["a:1", "b:2", "c:3"]).ask(question, 9000)
    gaps = [later - sooner for sooner, later in pairwise(deadlines)]
    assert gaps == pytest.approx([1500, 4500], rel=0.01), "a third, a half of the rest, and all"
