"""The shared store: a real Redis, and all that can be wrong with one."""

from __future__ import annotations

import logging
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from redis_server import RedisServer

pytest.importorskip("redis", reason="needs redis-py (mdaflow[redis])")

from mdaflow.store import Store, redis
from mdaflow.store.memory import MemoryStore
from mdaflow.store.redis import RedisStore, parse_place
from mdaflow.store.shared import Shared
from mdaflow.store.sqlite import SqliteStore


@pytest.fixture(scope="module")
def one_server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
def server(one_server: RedisServer) -> RedisServer:
    """A server that is empty."""
    one_server.say("FLUSHALL")
    return one_server


@pytest.fixture
def store(server: RedisServer) -> Iterator[RedisStore]:
    with closing(RedisStore(server.address)) as store:
        yield store


def test_kept(store: RedisStore) -> None:
    """A value is there until it is replaced or ended; others are not touched."""
    assert store.get("a") is None
    store.put("a", "1")
    store.put("b", "ü\0\n" * 1000)
    store.put("a", "2")
    assert (store.get("a"), store.get("b"), store.get("A")) == ("2", "ü\0\n" * 1000, None)
    store.put("a", "", 0.0)
    assert store.get("a") is None


def test_add(store: RedisStore) -> None:
    """A value is added only where there is none."""
    assert store.add("a", "1", 10)
    assert not store.add("a", "2", 99)
    assert store.get("a") == "1"


def test_times_and_names(server: RedisServer, store: RedisStore) -> None:
    """Keys begin with the name of the site; a time to live is the server's."""
    store.put("a b", "1", 10)
    store.put("for good", "1")
    store.add("ü", "1", 0.0001)
    assert 0 < server.say("PTTL", "mdaflow:a b") <= 10_000
    assert server.say("PTTL", "mdaflow:for good") == -1
    assert set(server.say("KEYS", "*")) <= {
        b"mdaflow:a b",
        b"mdaflow:for good",
        "mdaflow:ü".encode(),
    }


def test_two_sites(server: RedisServer) -> None:
    """Two sites share a server and nothing else."""
    one, two = (RedisStore(f"{server.address}?site={name}") for name in ("one", "two"))
    one.put("a", "1")
    assert two.get("a") is None
    assert server.say("GET", "one:a") == b"=1"
    with (
        closing(one),
        closing(two),
        closing(RedisStore(f"{server.address}?db=5&site=one")) as other,
    ):
        assert other.get("a") is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("redis://h:1/2", ("redis://h:1/2", "mdaflow", "", "redis://h:1")),
        (
            "rediss://u:p@h/2?site=x&ca=/a/b",
            ("rediss://u:p@h/2", "x", "/a/b", "rediss://h"),
        ),
        ("unix:///a/b?db=3&site=x", ("unix:///a/b?db=3", "x", "", "unix:///a/b")),
        ("redis://[::1]:7/0", ("redis://[::1]:7/0", "mdaflow", "", "redis://[::1]:7")),
    ],
)
def test_place(text: str, expected: tuple[str, ...]) -> None:
    """Where the server is; messages name no password."""
    assert tuple(parse_place(text)) == expected


def test_one_connection(server: RedisServer, store: RedisStore) -> None:
    """All threads of a process share one connection, and of many that add one does."""
    start = threading.Barrier(8)

    def add(name: int) -> list[bool]:
        start.wait()
        return [store.add(f"{number}", f"{name}") for number in range(25)]

    with ThreadPoolExecutor(8) as pool:
        added = list(pool.map(add, range(8)))
    assert [sum(column) for column in zip(*added, strict=True)] == [1] * 25
    clients = server.say("CLIENT", "LIST").decode().splitlines()
    assert sum("cmd=set" in client for client in clients) == 1


def test_answers_are_not_mixed_up(store: RedisStore) -> None:
    """Each of many threads gets the answer to its own question."""

    def ask(name: int) -> bool:
        for number in range(50):
            store.put(f"{name}", f"{name} {number}")
            if store.get(f"{name}") != f"{name} {number}":
                return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask, range(8)))


FORK = """
import os, sys
from mdaflow.store.redis import RedisStore
store = RedisStore(sys.argv[1])
store.put("parent", "1")
child = os.fork()
if child == 0:
    store.put("child", "1")
    os._exit(0 if store.get("parent") == "1" else 1)
_, status = os.waitpid(child, 0)
sys.exit(status or store.get("child") != "1")
"""


def test_fork(server: RedisServer) -> None:
    """A process that was forked after the first use has a connection of its own."""
    assert subprocess.run([sys.executable, "-c", FORK, server.address], timeout=60).returncode == 0


def test_end_of_a_process(server: RedisServer) -> None:
    """A process with a connection ends when it wants to."""
    program = f"from mdaflow.store.redis import RedisStore; RedisStore({server.address!r}).get('a')"
    assert subprocess.run([sys.executable, "-c", program], timeout=60).returncode == 0


# --- what can be wrong with it ----------------------------------------------------------------


def fails(store: Store) -> None:
    """No call succeeds."""
    for call in (lambda: store.get("a"), lambda: store.put("a", "1"), lambda: store.add("b", "1")):
        with pytest.raises(OSError, match=r"redis|unix|seconds|moment"):
            call()


@pytest.fixture
def no_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each call asks again."""
    monkeypatch.setattr(redis, "REST", 0.0)


def test_down(no_rest: None) -> None:
    """It goes away, and comes back with nothing in it."""
    with RedisServer() as server, closing(RedisStore(server.address)) as store:
        store.put("a", "1")
        server.stop()
        fails(store)
        server.start()
        assert store.get("a") is None
        assert store.add("a", "1")


def test_restarted_between_two_calls(server: RedisServer, store: RedisStore) -> None:
    """A connection that was lost meanwhile is made anew."""
    store.put("a", "1")
    server.say("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    assert store.get("a") == "1"


def test_frozen(no_rest: None) -> None:
    """It does not answer; when it goes on, nobody gets the answer to another question."""
    with RedisServer() as server, closing(RedisStore(server.address)) as store:
        store.put("a", "1")
        store.put("b", "2")
        server.freeze()
        fails(store)
        server.thaw()
        for _ in range(100):
            try:
                assert store.get("b") == "2"
                break
            except OSError:  # the line is not free yet
                continue
        assert store.get("missing") is None


def test_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who comes after one that has waited in vain does not wait: nothing is asked."""
    monkeypatch.setattr(redis, "REST", 1e6)
    with RedisServer() as server, closing(RedisStore(server.address)) as store:
        store.put("a", "1")
        server.freeze()
        with pytest.raises(OSError, match=r"does not answer|Timeout"):
            store.get("a")
        with pytest.raises(OSError, match="did not answer a moment ago"):
            store.get("a")
        server.thaw()
        with pytest.raises(OSError, match="did not answer a moment ago"):
            store.put("a", "2")


def test_wrong_type(server: RedisServer, store: RedisStore) -> None:
    """What others have put there is no value; the other keys are not concerned."""
    server.say("LPUSH", "mdaflow:list", "x")
    server.say("SET", "mdaflow:bytes", b"\xff\xfe")
    for key in ("list", "bytes"):
        with pytest.raises(OSError, match=r"WRONGTYPE|wrong kind|answers"):
            store.get(key)
    assert not store.add("list", "1")
    store.put("a", "1")
    assert store.get("a") == "1"


def test_full(server: RedisServer, store: RedisStore) -> None:
    """A server without room takes nothing, and tells what it has."""
    store.put("a", "1")
    server.say("CONFIG", "SET", "maxmemory", "1")
    try:
        with pytest.raises(OSError, match=r"OOM|maxmemory"):
            store.put("b", "1")
        with pytest.raises(OSError, match=r"OOM|maxmemory"):
            store.add("b", "1")
        assert store.get("a") == "1"
    finally:
        server.say("CONFIG", "SET", "maxmemory", "0")


def test_read_only(no_rest: None) -> None:
    """A replica takes nothing."""
    with RedisServer() as server, closing(RedisStore(server.address)) as store:
        store.put("a", "1")
        server.say("REPLICAOF", "127.0.0.1", "1")
        with pytest.raises(OSError, match=r"read only|READONLY"):
            store.put("a", "2")
        with pytest.raises(OSError, match=r"read only|READONLY"):
            store.add("b", "2")


def test_flushed(server: RedisServer, store: RedisStore) -> None:
    """Who has forgotten all says so."""
    store.add("a", "1")
    server.say("FLUSHALL")
    assert store.get("a") is None
    assert store.add("a", "1")


DRIP = b"<drip>"


NONSENSE = (
    *(b"-LOADING Redis is loading the dataset in memory\r\n", b"-NOAUTH Who are you?\r\n"),
    *(b"HTTP/1.0 400 Bad\r\n\r\n", b":7\r\n", b"+NO\r\n", b"*1\r\n$1\r\na\r\n", b"\xff" * 100),
    *(b"", DRIP),
)


@pytest.fixture(params=NONSENSE)
def nonsense(request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of a server that says one thing to all, or nothing ever to its end."""
    listener = socket.create_server(("127.0.0.1", 0))
    over = threading.Event()
    open_: list[socket.socket] = []

    def talk(conn: socket.socket) -> None:
        with conn:
            while conn.recv(65536) and not over.is_set():
                if request.param == DRIP:
                    conn.sendall(b"$1000\r\n")
                    while not over.wait(0.05):
                        conn.sendall(b"x")
                elif not request.param:
                    return
                else:
                    conn.sendall(request.param)

    def serve() -> None:
        threads = []
        while True:
            try:
                conn, _ = listener.accept()
            except OSError:
                break
            open_.append(conn)
            threads.append(threading.Thread(target=quietly, args=(conn,)))
            threads[-1].start()
        for thread in threads:
            thread.join()

    def quietly(conn: socket.socket) -> None:
        try:
            talk(conn)
        except OSError:
            return

    thread = threading.Thread(target=serve)
    thread.start()
    yield f"redis://127.0.0.1:{listener.getsockname()[1]}"
    over.set()
    for sock in (listener, *open_):
        try:
            sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            continue
    thread.join()
    listener.close()


def test_nonsense(nonsense: str, no_rest: None) -> None:
    """Whatever answers there, it is an error, and never a value."""
    with closing(RedisStore(nonsense)) as store:
        fails(store)


def test_nobody_there(no_rest: None) -> None:
    """A name that is none and a port where nobody listens are errors as well."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    for place in (f"redis://127.0.0.1:{port}", "redis://nowhere.invalid", "unix:///nowhere"):
        with closing(RedisStore(place)) as store:
            fails(store)


# --- two stores, one of them shared -----------------------------------------------------------


class Away(MemoryStore):
    """A store that is away when one says so."""

    def __init__(self) -> None:
        super().__init__()
        self.away = False

    def _there(self) -> None:
        if self.away:
            raise OSError("away")

    def get(self, key: str) -> str | None:
        self._there()
        return super().get(key)

    def put(self, key: str, value: str, seconds: float | None = None) -> None:
        self._there()
        super().put(key, value, seconds)

    def add(self, key: str, value: str, seconds: float | None = None) -> bool:
        self._there()
        return super().add(key, value, seconds)


class Two:
    """Two machines with a store each, and one that they share."""

    def __init__(self) -> None:
        self.far = Away()
        self.near = Away(), Away()
        self.one, self.two = (Shared(self.far, near, self.stays) for near in self.near)

    @staticmethod
    def stays(key: str) -> bool:
        return key.startswith("own ")


@pytest.fixture
def both() -> Two:
    return Two()


def test_shared(both: Two) -> None:
    """What one machine keeps the other one knows, and adds no more."""
    both.one.put("a", "1")
    assert both.two.get("a") == "1"
    assert both.one.add("b", "1")
    assert not both.two.add("b", "2")
    assert not both.one.add("b", "2")


def test_shared_store_is_away(both: Two, caplog: pytest.LogCaptureFixture) -> None:
    """Then each machine knows what it has done itself, and may do nothing that happens once."""
    with caplog.at_level(logging.INFO, "mdaflow"):
        both.one.put("a", "1")
        both.far.away = True
        assert both.one.get("a") == "1"
        assert both.two.get("a") is None
        both.one.put("b", "1")
        assert both.one.get("b") == "1"
        for machine in (both.one, both.two):
            with pytest.raises(OSError, match="away"):
                machine.add("c", "1")
        both.far.away = False
        assert both.two.add("c", "1")
    said = [r.message for r in caplog.records]
    assert said == ["the shared store is away: away"] * 2 + ["the shared store is back"]


def test_shared_store_forgets(both: Two) -> None:
    """What it has lost each machine still knows of itself."""
    assert both.one.add("a", "1")
    both.far = Away()
    one = Shared(both.far, both.near[0], both.stays)
    assert one.get("a") == "1"
    assert not one.add("a", "2")


def test_own_store_is_away(both: Two) -> None:
    """What cannot be kept here can be kept there, but nobody may do what happens once."""
    both.near[0].away = True
    both.one.put("a", "1")
    assert both.one.get("a") == "1"
    with pytest.raises(OSError, match="away"):
        both.one.add("b", "1")
    both.far.away = True
    with pytest.raises(OSError, match="away"):
        both.one.put("a", "1")


def test_what_stays(both: Two) -> None:
    """Some keys are never asked of others, nor told them."""
    both.far.put("own a", "1")
    assert both.one.get("own a") is None
    assert both.one.add("own a", "2")
    both.one.put("own b", "1")
    assert both.far.get("own b") is None
    both.far.away = True
    assert both.one.get("own b") == "1"
    assert both.one.add("own c", "1")


def test_real_ones(server: RedisServer, tmp_path: Path) -> None:
    """Two machines with their files and one server."""
    far = [RedisStore(server.address) for _ in range(2)]
    near = [SqliteStore(str(tmp_path / name / "state.sqlite")) for name in ("one", "two")]
    one, two = (Shared(f, n, lambda key: False) for f, n in zip(far, near, strict=True))
    assert one.add("a", "1", 60)
    assert not two.add("a", "1", 60)
    assert two.get("a") == "1"
    server.say("FLUSHALL")
    assert not one.add("a", "1", 60)
    for store in (*far, *near):
        store.close()
