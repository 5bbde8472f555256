"""Senders rewritten as postsrsd rewrites them, which is what most sites have."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, unquote

import pytest
from children import Child, accepts, free_port
from need import need

from mdaflow.mail.srs import Srs

KEY, OLD = b"the newest secret of all", b"the one that was before it"
HERE = "srs.example.org"
DAY = 86400.0


def srs(*keys: bytes) -> Srs:
    return Srs(HERE, keys or (KEY,), {"example.org"}.__contains__)


class PostSRSd:
    """The rewriting daemon of Postfix, with our keys."""

    def __init__(self, root: Path, *keys: bytes) -> None:
        (root / "keys").write_bytes(b"\n".join(keys) + b"\n")
        self._ports = free_port(), free_port()
        forward, reverse = map(str, self._ports)
        command = (need("postsrsd"), "-4", "-s", root / "keys", "-d", HERE)
        self.child = Child((*command, "-f", forward, "-r", reverse), root / "said")
        self.child.wait_for(lambda: all(map(accepts, self._ports)), "postsrsd")

    def forward(self, address: str) -> str:
        return self._ask(self._ports[0], address)

    def reverse(self, address: str) -> str:
        return self._ask(self._ports[1], address)

    def _ask(self, port: int, address: str) -> str:
        with socket.create_connection(("127.0.0.1", port), timeout=30) as line:
            line.sendall(f"get {quote(address, safe='@=+/')}\n".encode())
            answer = line.makefile().readline()
        return unquote(answer[4:].rstrip("\n")) if answer.startswith("200 ") else ""


@pytest.fixture
def postsrsd(tmp_path: Path) -> Iterator[PostSRSd]:
    """One with two keys."""
    daemon = PostSRSd(tmp_path, KEY, OLD)
    yield daemon
    daemon.child.stop()


ADDRESSES = [
    *("ann@example.com", "Ann.Smith+x@Example.COM", "jürgen@bücher.example", "a=b@x.org"),
    *("SRS0=abcd=TT=x.org=ann@first.example", "SRS0+abcd=TT=x.org=ann@first.example"),
    "SRS1=HHHH=first.example==abcd=TT=x.org=ann@second.example",
]


def test_as_postsrsd(postsrsd: PostSRSd) -> None:
    """postsrsd writes the same addresses, and each reads those of the other, also by an old key."""
    for sender in ADDRESSES:
        before = time.time() // DAY
        mine, theirs, older = (
            srs().forward(sender),
            postsrsd.forward(sender),
            srs(OLD).forward(sender),
        )
        if time.time() // DAY == before:  # not at midnight
            assert mine == theirs
        back = srs().reverse(mine)
        assert srs(KEY, OLD).reverse(theirs) == back
        assert postsrsd.reverse(mine) == postsrsd.reverse(older) == back
        assert postsrsd.reverse(srs(b"a key that it has not").forward(sender)) == ""
