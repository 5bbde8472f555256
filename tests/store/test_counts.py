"""Counts of tokens: what is counted, for how long, and by whom at once."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from hashlib import blake2b
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis_server import RedisServer

from mdaflow.scan.bayes import Counts, MemoryCounts
from mdaflow.store import sqlite
from mdaflow.store.counts import Lesson, SqliteCounts

KINDS = ["sqlite", "redis"]


def number(n: int) -> int:
    """Any key."""
    return int.from_bytes(blake2b(b"%d" % n, digest_size=8).digest(), "big", signed=True)


def lesson(n: int, spam: bool | None = True, keys: Sequence[int] = (1, 2, -3)) -> Lesson:
    return b"name %d" % n, spam, keys


@pytest.fixture
def file(tmp_path: Path) -> str:
    return str(tmp_path / "new/bayes.sqlite")


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@contextmanager
def opened(kind: str, request: pytest.FixtureRequest, file: str, **bounds: int) -> Iterator[Counts]:
    """Counts in which there is nothing."""
    if kind == "sqlite":
        with closing(SqliteCounts(file, **bounds)) as counts:
            yield counts
        return
    server: RedisServer = request.getfixturevalue("server")
    from mdaflow.store.redis import RedisStore
    from mdaflow.store.redis_counts import RedisCounts

    server.say("FLUSHALL")
    with closing(RedisStore(server.address)) as store:
        yield RedisCounts(store, "site", **bounds)


@pytest.fixture(params=KINDS)
def counts(request: pytest.FixtureRequest, file: str) -> Iterator[Counts]:
    with opened(request.param, request, file) as found:
        yield found


def test_empty(counts: Counts, file: str) -> None:
    """Who only asks finds nothing, and makes nothing."""
    assert counts.totals() == (0, 0)
    assert counts.get([1, 2]) == {}
    assert counts.get([]) == {}
    assert counts.class_of(b"x") is None
    assert not os.path.exists(file)


def test_learned(counts: Counts) -> None:
    """Each token counts once for each message, in the class of the message."""
    assert counts.learn([lesson(1), lesson(2, keys=[1, 1, 7])]) == [True, True]
    assert counts.learn([lesson(3, spam=False, keys=[1, -(2**63), 2**63 - 1])]) == [True]
    assert counts.totals() == (2, 1)
    known = {1: (2, 1), 2: (1, 0), -3: (1, 0), 7: (1, 0), -(2**63): (0, 1), 2**63 - 1: (0, 1)}
    assert counts.get([*known, 8]) == known
    assert [counts.class_of(b"name %d" % n) for n in (1, 3, 4)] == [True, False, None]


def test_once(counts: Counts) -> None:
    """What is known changes nothing; another class moves it; forgetting takes it back."""
    counts.learn([lesson(9, spam=False)])
    assert counts.learn([lesson(1), lesson(1)]) == [True, False]
    assert counts.learn([lesson(1)]) == [False]
    assert counts.get([1]) == {1: (1, 1)}
    assert counts.learn([lesson(1, spam=False)]) == [True]
    assert counts.get([1]) == {1: (0, 2)}
    assert counts.totals() == (0, 2)
    assert counts.learn([lesson(1, None), lesson(9, None), lesson(8, None)]) == [True, True, False]
    assert counts.get([1, 2, -3]) == {}
    assert counts.totals() == (0, 0)


lessons = st.lists(
    st.builds(
        lambda n, spam: lesson(n, spam, [number(n), number(n + 1), 7]),
        st.integers(0, 5),
        st.sampled_from([True, False, None]),
    ),
    max_size=12,
)


@pytest.mark.parametrize("kind", KINDS)
@given(batches=st.lists(lessons, max_size=4))
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_as_in_memory(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path, batches: list[list[Lesson]]
) -> None:
    """Whatever is learned and forgotten in whatever order, the counts are those of a plain dict."""
    plain = MemoryCounts()
    name = f"{len(list(tmp_path.iterdir()))}/bayes.sqlite"
    with opened(kind, request, str(tmp_path / name)) as counts:
        for batch in batches:
            assert counts.learn(batch) == plain.learn(batch)
        keys = [7, *map(number, range(7))]
        assert counts.get(keys) == plain.get(keys)
        assert counts.totals() == plain.totals()


@pytest.mark.parametrize("kind", KINDS)
def test_bounded(kind: str, request: pytest.FixtureRequest, file: str) -> None:
    """Tokens and names have an end; what is common stays, and so does what is new."""
    with opened(kind, request, file, most=2000, names=50) as counts:
        for n in range(200):
            own = [number(k) for k in range(n * 50, n * 50 + 50)]
            counts.learn([lesson(n, n % 2 == 0, [*range(20), *own])])
        known = counts.get([number(k) for k in range(10_000)])
        assert len(known) <= 2000
        assert len(counts.get(range(20))) == 20
        assert len(counts.get(own)) > 25
        assert counts.totals() == (100, 100)
        names = [counts.class_of(b"name %d" % n) for n in range(200)]
        assert sum(spam is not None for spam in names) <= 51
        if kind == "sqlite":
            assert names[-1] is False
            with closing(sqlite3.connect(file)) as db:
                assert len({*db.execute("SELECT COUNT(*) FROM tokens"),
                            *db.execute("SELECT tokens FROM state")}) == 1  # fmt: skip


def test_file_is_private(file: str) -> None:
    """The file is its owner's alone, whatever the umask."""
    before = os.umask(0)
    try:
        SqliteCounts(file).learn([lesson(1)])
    finally:
        os.umask(before)
    assert {os.stat(file + more).st_mode & 0o777 for more in ("", "-wal", "-shm")} == {0o600}


def test_link(file: str, tmp_path: Path) -> None:
    """A link is not followed."""
    Path(file).parent.mkdir()
    Path(file).symlink_to(tmp_path / "other")
    with pytest.raises(OSError, match="no file of ours"):
        SqliteCounts(file).learn([lesson(1)])
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("kind", ["fifo", "folder", "other"])
def test_no_file_of_ours(file: str, kind: str) -> None:
    """What is no file, or belongs to somebody else, is not opened, and nobody waits for it."""
    Path(file).parent.mkdir()
    if kind == "fifo":
        os.mkfifo(file)
    elif kind == "folder":
        Path(file).mkdir()
    elif os.geteuid() == 0:
        Path(file).touch()
        os.chown(file, 65534, 65534)
    else:
        pytest.skip("only root can give a file away")
    with pytest.raises(OSError, match="no file of ours"):
        SqliteCounts(file).totals()


def test_no_database(file: str) -> None:
    """A file that is none is an OSError, to all who ask."""
    Path(file).parent.mkdir()
    Path(file).write_bytes(b"nonsense" * 1000)
    counts = SqliteCounts(file)
    for ask in (counts.totals, lambda: counts.get([1]), lambda: counts.learn([lesson(1)])):
        with pytest.raises(OSError, match="not a database"):
            ask()


@pytest.mark.parametrize("kind", ["view", "trigger", "table"])
def test_other_schema(file: str, kind: str) -> None:
    """A file in which there is anything else is none of ours: a view can give rows without end."""
    SqliteCounts(file).learn([lesson(1)])
    more = {
        "view": "DROP TABLE state; CREATE VIEW state AS SELECT 30 AS spam, 30 AS ham",
        "trigger": "CREATE TRIGGER t AFTER INSERT ON names BEGIN DELETE FROM tokens; END",
        "table": "CREATE TABLE more (a)",
    }
    with closing(sqlite3.connect(file)) as db:
        db.executescript(more[kind])
    counts = SqliteCounts(file)
    for ask in (counts.totals, lambda: counts.get([1]), lambda: counts.learn([lesson(2)])):
        with pytest.raises(OSError, match="no file of ours"):
            ask()


def test_other_values(file: str) -> None:
    """Whatever is in the place of numbers, numbers are what is read."""
    SqliteCounts(file).learn([lesson(1)])
    with closing(sqlite3.connect(file)) as db:
        db.executescript("UPDATE state SET spam = 'x', ham = X'00'; UPDATE tokens SET spam = 'x'")
    assert SqliteCounts(file).totals() == (0, 0)
    assert SqliteCounts(file).get([1]) == {1: (0, 0)}


@pytest.mark.parametrize("what", ["count(*)", "zeroblob(9000000)"])
def test_bounded_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    """Nothing that a file of others makes us do takes long, or much memory."""
    monkeypatch.setattr(sqlite, "LONGEST", 0.1)
    endless = "WITH RECURSIVE c (n) AS (SELECT 1 UNION ALL SELECT n FROM c)"
    file = sqlite.File(str(tmp_path / "file"), lambda db: None, 0.1, ["CREATE TABLE a (b)"])
    with closing(file), pytest.raises(OSError, match=r"interrupted|too big"):
        file.do(lambda db: db.execute(f"{endless} SELECT {what} FROM c").fetchone())


def test_huge_file(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is larger than any of ours is not opened."""
    SqliteCounts(file).learn([lesson(1)])
    monkeypatch.setattr(sqlite, "MOST_BYTES", 100)
    with pytest.raises(OSError, match="no file of ours"):
        SqliteCounts(file).totals()


def test_one_of_many(file: str) -> None:
    """Where the files of many users are open, each takes little memory, and tells the same."""
    keys = [number(n) for n in range(30_000)]
    pieces = [keys[n : n + 1000] for n in range(0, len(keys), 1000)]
    SqliteCounts(file, bulk=True).learn([(b"%d" % n, True, of) for n, of in enumerate(pieces)])
    tracemalloc.start()
    try:
        with closing(SqliteCounts(file, many=True)) as counts:
            before, _ = tracemalloc.get_traced_memory()
            assert all(counts.get(of) == dict.fromkeys(of, (1, 0)) for of in pieces * 2)
            after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 1_500_000


@contextmanager
def locked(file: str) -> Iterator[None]:
    """Somebody writes."""
    with closing(sqlite3.connect(file, isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        yield
        db.execute("ROLLBACK")


def test_readers_do_not_wait(file: str) -> None:
    """While one learns, others judge; a second one that learns gives up soon."""
    counts = SqliteCounts(file)
    counts.learn([lesson(1)])
    with locked(file):
        assert counts.get([1]) == {1: (1, 0)}
        assert SqliteCounts(file).totals() == (1, 0)
        with pytest.raises(OSError, match="locked"):
            SqliteCounts(file, wait=0.01).learn([lesson(2)])


@pytest.mark.parametrize("kind", KINDS)
def test_many_at_once(kind: str, request: pytest.FixtureRequest, file: str) -> None:
    """Of many who learn the same at once nothing is counted twice, and nothing is lost."""
    with opened(kind, request, file) as first:
        others = (
            [SqliteCounts(file, wait=60) for _ in range(4)] if kind == "sqlite" else [first] * 4
        )

        def learn(counts: Counts) -> int:
            return sum(sum(counts.learn([lesson(n, n % 3 == 0)])) for n in range(60))

        with ThreadPoolExecutor(4) as pool:
            new = sum(pool.map(learn, others))
        assert new == 60
        assert first.totals() == (20, 40)
        assert first.get([1]) == {1: (20, 40)}


LEARNS = """
import sys
from mdaflow.store.counts import SqliteCounts
counts = SqliteCounts(sys.argv[1])
for n in range(10**6):
    counts.learn([(b"%d %d" % (n, k), True, [*range(n * 100, n * 100 + 100), 7]) for k in range(3)])
    print(n, flush=True)
"""


def test_killed(file: str) -> None:
    """Who is killed leaves whole messages."""
    with subprocess.Popen([sys.executable, "-c", LEARNS, file], stdout=subprocess.PIPE) as process:
        assert process.stdout
        for line in process.stdout:
            if int(line) >= 5:
                process.send_signal(signal.SIGKILL)
                break
    counts = SqliteCounts(file)
    learned, ham = counts.totals()
    assert learned >= 18
    assert (learned % 3, ham) == (0, 0)
    assert counts.get([7])[7] == (learned, 0)
    assert set(counts.get(range(8, learned // 3 * 100)).values()) == {(3, 0)}
    assert counts.get([learned // 3 * 100]) == {}


def test_redis_is_away(server: RedisServer) -> None:
    """Without a server, or with nonsense in it, there is no telling, and nobody waits."""
    from mdaflow.store.redis import RedisStore
    from mdaflow.store.redis_counts import RedisCounts

    server.say("FLUSHALL")
    server.say("SET", "mdaflow:totals site", "x")
    with closing(RedisStore(server.address)) as store, pytest.raises(OSError, match="WRONGTYPE"):
        RedisCounts(store, "site").totals()
    server.say("FLUSHALL")
    server.say("HSET", "mdaflow:totals site", "s", "x")
    with closing(RedisStore(server.address)) as store, pytest.raises(OSError, match="answers"):
        RedisCounts(store, "site").totals()
    nowhere = RedisStore("unix:///nowhere/redis.sock")
    with closing(nowhere) as store, pytest.raises(OSError, match="nowhere"):
        RedisCounts(store, "site").learn([lesson(1)])


def test_threads(file: str) -> None:
    """Threads share one object."""
    counts = SqliteCounts(file, wait=60)
    threads = [threading.Thread(target=lambda n=n: counts.learn([lesson(n)])) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts.totals() == (8, 0)
