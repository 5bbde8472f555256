"""Listening sockets."""

from __future__ import annotations

import grp
import os
import pwd
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from mdaflow.app.config import Lmtp
from mdaflow.errors import ConfigError
from mdaflow.serve.sockets import Listeners, close_all, flat, from_systemd, open_all


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def opened(
    *listen: str, had: Listeners | None = None, mode: str = "0600", owner: str = ""
) -> Listeners:
    return open_all(Lmtp(listen=listen, mode=mode, owner=owner), had or {})


def problem(*listen: str, **options: str) -> str:
    """What open_all says of a list that does not work."""
    with pytest.raises(ConfigError) as raised:
        opened(*listen, **options)  # type: ignore[arg-type]
    [text] = raised.value.problems
    return text


def test_unix(folder: Path) -> None:
    """A socket has its mode whatever the umask is, is connectable, and goes away at the end."""
    path = folder / "lmtp"
    before = os.umask(0o777)
    try:
        made = opened(f"unix:{path}", mode="0660")
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    close_all(made, but={})
    assert not path.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_owner(folder: Path) -> None:
    """A socket is given to a user, with its group or another."""
    user, group = pwd.getpwnam("nobody"), grp.getgrnam("mail")
    for owner, gid in (("nobody", user.pw_gid), ("nobody:mail", group.gr_gid)):
        made = opened(f"unix:{folder}/lmtp", owner=owner)
        found = (folder / "lmtp").stat()
        close_all(made, but={})
        assert (found.st_uid, found.st_gid) == (user.pw_uid, gid)


def test_stale(folder: Path) -> None:
    """A socket that a dead server left is replaced."""
    path = folder / "lmtp"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    made = opened(f"unix:{path}")
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    close_all(made, but={})


def test_in_use(folder: Path) -> None:
    """A socket that answers is left alone, also when its backlog is full."""
    path = folder / "lmtp"
    with socket.socket(socket.AF_UNIX) as busy, socket.socket(socket.AF_UNIX) as waiting:
        busy.bind(str(path))
        busy.listen(0)
        for _ in range(2):
            assert "in use by another program" in problem(f"unix:{path}")
            waiting.setblocking(False)
            waiting.connect_ex(str(path))
        assert path.exists()


def test_foreign_file(folder: Path) -> None:
    """A file that is no socket is never removed."""
    path = folder / "lmtp"
    path.write_text("precious")
    assert problem(f"unix:{path}").endswith("there is a file of that name: remove it")
    path.unlink()
    path.symlink_to("/nowhere")
    assert problem(f"unix:{path}").endswith("there is a file of that name: remove it")
    assert path.is_symlink()


def test_replaced_file(folder: Path) -> None:
    """At the end a socket that another server has put in our place stays."""
    path = folder / "lmtp"
    first = opened(f"unix:{path}")
    path.rename(folder / "old")
    second = opened(f"unix:{path}")
    close_all(first, but={})
    assert path.exists()
    close_all(second, but={})
    assert not path.exists()


def test_kept(folder: Path) -> None:
    """What is open and still wanted is kept, with its new mode; what was removed is made again."""
    first, second = f"unix:{folder}/1", f"unix:{folder}/2"
    before = opened(first, second)
    (folder / "2").unlink()
    after = opened(first, second, had=before, mode="0666")
    assert after[first] == before[first]
    assert after[second] != before[second]
    assert stat.S_IMODE((folder / "1").stat().st_mode) == 0o666
    close_all(before, but=after)
    assert (folder / "1").exists()
    assert (folder / "2").exists()
    close_all(after, but={})
    assert list(folder.iterdir()) == []


def test_all_or_nothing(folder: Path) -> None:
    """When one address does not work, the others are not left open, and what was open stays."""
    first, second = f"unix:{folder}/1", f"unix:{folder}/2"
    had = opened(first)
    with pytest.raises(ConfigError):
        opened(first, second, "unix:/nowhere/3", had=had)
    assert os.listdir(folder) == ["1"]
    close_all(had, but={})


def test_tcp() -> None:
    """A host name, an address, and all interfaces can be listened on."""
    for address in ("127.0.0.1:0", "localhost:0", "*:0", ":0"):
        made = opened(address)
        assert made[address]
        for listener in flat(made):
            family = socket.AF_INET if listener.socket.family == socket.AF_INET else socket.AF_INET6
            with socket.socket(family) as client:
                host = "127.0.0.1" if family == socket.AF_INET else "::1"
                client.connect((host, listener.socket.getsockname()[1]))
        close_all(made, but={})


def test_ipv6() -> None:
    """An IPv6 address stands in brackets."""
    if not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    try:
        made = opened("[::1]:0")
    except ConfigError as error:
        assert "no interface of this machine has that address" in str(error)  # noqa: PT017
    else:
        [listener] = flat(made)
        assert listener.socket.getsockname()[0] == "::1"
        close_all(made, but={})


def test_tcp_in_use() -> None:
    """A port that is taken is reported as such."""
    with socket.create_server(("127.0.0.1", 0)) as busy:
        address = f"127.0.0.1:{busy.getsockname()[1]}"
        assert problem(address) == (
            f"lmtp.listen: {address}: in use by another program: stop that one, or choose another"
        )


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("unix:/nowhere/at/all", "the folder does not exist: create it"),
        ("unix:/etc/passwd/lmtp", "a part of the path is not a folder"),
        ("unix:relative", "a socket needs an absolute path of at most 107 bytes"),
        ("unix:/" + "x" * 107, "a socket needs an absolute path of at most 107 bytes"),
        ("nonsense", "write host:port or unix:/path"),
        ("host:smtp", "write host:port or unix:/path"),
        ("203.0.113.77:0", "no interface of this machine has that address"),
        ("no host:24", "no such host"),
    ],
)
def test_problems(address: str, told: str) -> None:
    """A problem is told with its address, and with what to do."""
    text = problem(address)
    assert text.startswith(f"lmtp.listen: {address}: ")
    assert told in text


def test_unknown_owner(folder: Path) -> None:
    """An owner that does not exist is a problem, and leaves no socket."""
    assert problem(f"unix:{folder}/lmtp", owner="nobody-of-that-name").endswith(
        "no such user or group"
    )
    assert list(folder.iterdir()) == []


def test_no_systemd(monkeypatch: pytest.MonkeyPatch) -> None:
    """What systemd passed to another process is not ours."""
    monkeypatch.setenv("LISTEN_PID", "1")
    monkeypatch.setenv("LISTEN_FDS", "1")
    assert from_systemd() == {}
    monkeypatch.delenv("LISTEN_PID", raising=False)
    assert from_systemd() == {}
