"""The stores: what is kept, for how long, and by whom it is seen."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from mdaflow.store import Store, clock, sqlite
from mdaflow.store.memory import MemoryStore
from mdaflow.store.sqlite import SqliteStore


@pytest.fixture
def file(tmp_path: Path) -> str:
    return str(tmp_path / "state/state.sqlite")


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, file: str) -> Store:
    return MemoryStore() if request.param == "memory" else SqliteStore(file)


class Time:
    """What the clocks of the machine say."""

    def __init__(self) -> None:
        self.up = clock.uptime()
        self.clock = time.time()
        self.boot = "one"

    def pass_by(self, seconds: float) -> None:
        """Time goes by while the machine runs."""
        self.up += seconds
        self.clock += seconds

    def reboot(self, off: float = 0.0) -> None:
        """The machine is off for so many seconds, as far as its clock tells."""
        self.up, self.boot = 0.0, f"{self.boot}-more"
        self.clock += off


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Time:
    """A machine whose time stands still unless a test says otherwise."""
    here = Time()
    monkeypatch.setattr(time, "time", lambda: here.clock)
    monkeypatch.setattr(clock, "uptime", lambda: here.up)
    monkeypatch.setattr(clock, "boot", lambda: here.boot)
    return here


def test_kept(store: Store) -> None:
    """A value is there until it is replaced; others are not touched."""
    assert store.get("a") is None
    store.put("a", "1")
    store.put("b", "ü\0\n" * 100_000)
    store.put("a", "2")
    assert (store.get("a"), store.get("b"), store.get("A")) == ("2", "ü\0\n" * 100_000, None)


def test_time_to_live(store: Store, machine: Time) -> None:
    """A value is gone when its time is over, and can be put again."""
    store.put("a", "1", 10)
    store.put("b", "1", 0)
    store.put("c", "1")
    assert (store.get("a"), store.get("b"), store.get("c")) == ("1", None, "1")
    machine.pass_by(10)
    assert (store.get("a"), store.get("c")) == (None, "1")
    store.put("a", "2", 10)
    assert store.get("a") == "2"


def test_add(store: Store, machine: Time) -> None:
    """A value is added only where there is none, or one whose time is over."""
    assert store.add("a", "1", 10)
    assert not store.add("a", "2", 99)
    assert store.get("a") == "1"
    machine.pass_by(10)
    assert store.add("a", "2")
    machine.pass_by(1e9)
    assert not store.add("a", "3")
    assert store.get("a") == "2"
    store.put("a", "4")
    assert not store.add("a", "5")
    assert store.get("a") == "4"


def test_add_by_many_threads(store: Store) -> None:
    """Of many threads that add the same keys, one does, each time."""
    start = threading.Barrier(8)

    def add(name: int) -> list[bool]:
        start.wait()
        return [store.add(f"{number}", f"{name}") for number in range(25)]

    with ThreadPoolExecutor(8) as pool:
        added = list(pool.map(add, range(8)))
    assert [sum(column) for column in zip(*added, strict=True)] == [1] * 25


def test_after_a_restart(file: str, machine: Time) -> None:
    """What was put is there when the file is opened again, but for what is over by then."""
    store = SqliteStore(file)
    store.put("a", "1")
    store.put("b", "1", 10)
    store.close()
    machine.pass_by(20)
    again = SqliteStore(file)
    assert (again.get("a"), again.get("b")) == ("1", None)
    store.close()
    assert store.get("a") == "1"


def test_nothing_is_opened_before_its_use(file: str) -> None:
    """A store that nobody uses makes no file: a server forks before its first use."""
    SqliteStore(file).close()
    assert not Path(file).exists()


WRITER = """
import sys
from mdaflow.store.sqlite import SqliteStore
store = SqliteStore(sys.argv[1])
for number in range(50):
    store.put(f"{sys.argv[2]} {number}", "x" * 1000)
    store.put("last", sys.argv[2])
"""


def test_many_processes(file: str) -> None:
    """Processes that begin and write at the same time lose nothing and wait for each other."""
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, file, str(n)]) for n in range(4)]
    assert [writer.wait(60) for writer in writers] == [0] * 4
    store = SqliteStore(file)
    assert all(store.get(f"{n} {number}") for n in range(4) for number in range(50))
    assert store.get("last") in ("0", "1", "2", "3")


ADDER = """
import sys
from mdaflow.store.sqlite import SqliteStore
store = SqliteStore(sys.argv[1])
sys.stdin.read()
print(sum(store.add(f"{number}", sys.argv[2], 60) for number in range(50)))
"""


def test_add_by_many_processes(file: str) -> None:
    """Of many processes that add the same keys at the same time, one does, each time."""
    adders = [
        subprocess.Popen(
            [sys.executable, "-c", ADDER, file, str(n)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for n in range(3)
    ]
    for adder in adders:
        assert adder.stdin
        adder.stdin.close()
    counts = []
    for adder in adders:
        assert adder.stdout
        with adder, adder.stdout:
            counts.append(int(adder.stdout.read()))
    assert sum(counts) == 50


@pytest.mark.parametrize("spoil", ["file for a folder", "folder", "no database", "nowhere"])
def test_unusable(file: str, spoil: str) -> None:
    """A store that cannot be used says so with OSError, and works again when it can."""
    path = Path(file)
    if spoil == "file for a folder":
        path.parent.write_text("x")
    elif spoil == "folder":
        path.mkdir(parents=True)
    elif spoil == "no database":
        path.parent.mkdir()
        path.write_text("this is none" * 100)
    else:
        file = "/proc/none/state.sqlite"
    store = SqliteStore(file)
    with pytest.raises(OSError, match=r"state|none"):
        store.get("a")
    with pytest.raises(OSError, match=r"state|none"):
        store.put("a", "1")
    with pytest.raises(OSError, match=r"state|none"):
        store.add("a", "1")
    if spoil == "no database":
        path.unlink()
        store.put("a", "1")
        assert store.get("a") == "1"


def test_bounded(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a store keeps for one user does not grow for ever; what it has can be read."""
    monkeypatch.setattr(sqlite, "MOST_BYTES", 1 << 20)
    store = SqliteStore(file, private=True)
    with pytest.raises(OSError, match="full"):
        [store.put(f"key {n}", "x" * 4000) for n in range(1000)]
    assert store.get("key 0") == "x" * 4000
    store.close()
    assert Path(file).stat().st_size <= 1 << 19
    assert SqliteStore(file, private=True).get("key 0") == "x" * 4000


@contextmanager
def locked(file: str) -> Iterator[None]:
    """Meanwhile somebody writes and comes to no end."""
    other = sqlite3.connect(file, isolation_level=None)
    try:
        other.execute("BEGIN IMMEDIATE")
        yield
    finally:
        other.close()


@pytest.fixture
def waited(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """All waits of the store, for which no time goes by but on its own clock."""
    waits: list[float] = []
    monkeypatch.setattr(time, "monotonic", lambda: 1e6 + sum(waits))
    monkeypatch.setattr(time, "sleep", waits.append)
    return waits


def test_writer_that_never_ends(file: str, waited: list[float]) -> None:
    """Reading goes on, also for a store that is opened only now; writing gives up in 200 ms."""
    first = SqliteStore(file)
    first.put("a", "1")
    with locked(file):
        for store in (first, SqliteStore(file)):
            assert store.get("a") == "1"
            assert waited == []
            for write in (store.put, store.add):
                with pytest.raises(OSError, match="locked"):
                    write("b", "1")
            assert 0.2 <= sum(waited) < 0.22  # the second one has not waited again
            waited.clear()
            store.close()
    first.put("b", "1")
    assert waited == []


def test_rest_is_over(file: str, waited: list[float]) -> None:
    """Some seconds after one has waited in vain, the next one waits again."""
    store = SqliteStore(file)
    store.put("a", "1")
    with locked(file):
        for _ in range(3):
            with pytest.raises(OSError, match="locked"):
                store.put("b", "1")
        assert sum(waited) < 0.22
        waited.append(sqlite.REST)
        with pytest.raises(OSError, match="locked"):
            store.put("b", "1")
    assert sum(waited) > sqlite.REST + 0.4


def test_threads_do_not_queue(file: str) -> None:
    """A thread that does not get its turn gives up as well."""
    store = SqliteStore(file)
    store.put("a", "1")
    with store._file._lock, pytest.raises(OSError, match="others are at it"):
        store.get("a")
    assert store.get("a") == "1"


def test_first_use_while_another_locks_a_new_file(file: str, waited: list[float]) -> None:
    """Even a file that nobody has made ready yet keeps nobody waiting."""
    Path(file).parent.mkdir()
    with locked(file), pytest.raises(OSError, match="locked"):
        SqliteStore(file).get("a")
    assert sum(waited) < 0.22


def test_file_that_cannot_be_written(file: str, waited: list[float]) -> None:
    """A file that is there to be read is read, and nobody waits to write it."""
    SqliteStore(file).put("a", "1")
    store = SqliteStore(file)
    assert store.get("a") == "1"
    assert store._file._connection
    store._file._connection.execute("PRAGMA query_only = ON")
    assert store.get("a") == "1"
    with pytest.raises(OSError, match="readonly"):
        store.put("a", "2")
    assert waited == []


def test_what_is_over_goes(file: str, machine: Time) -> None:
    """Rows whose time is over go while the store is used, also if nobody asks for them."""
    store = SqliteStore(file)
    store.put("stays", "1")
    for number in range(45):
        store.put(f"{number}", "x", 10)
    machine.pass_by(11)
    left = []
    for number in range(6):
        store.put("last", f"{number}", 10)
        with closing(sqlite3.connect(file)) as db:
            left.append(db.execute("SELECT count(*) FROM state").fetchone()[0])
    assert left == [38, 28, 18, 8, 3, 3]  # one is the clock's
    assert store.get("stays") == "1"


YEAR = 365 * 86400.0


@pytest.mark.parametrize("jump", [YEAR, -YEAR])
def test_clock_is_set(store: Store, machine: Time, jump: float) -> None:
    """A clock that is set neither ends what is kept nor keeps it longer (P45)."""
    store.put("a", "1", 10)
    machine.clock += jump
    assert store.get("a") == "1"
    assert not store.add("a", "2", 10)
    machine.pass_by(9)
    assert store.get("a") == "1"
    machine.pass_by(1)
    assert store.add("a", "2", 10)


@pytest.mark.parametrize("jump", [YEAR, -YEAR])
def test_clock_is_set_between_two_processes(file: str, machine: Time, jump: float) -> None:
    """Nor does it for a process that begins only then."""
    SqliteStore(file).put("a", "1", 10)
    machine.clock += jump
    assert SqliteStore(file).get("a") == "1"
    machine.pass_by(10)
    assert SqliteStore(file).get("a") is None


def test_machine_was_off(file: str, machine: Time) -> None:
    """The time for which the machine was off counts."""
    SqliteStore(file).put("a", "1", 3600)
    machine.pass_by(100)
    machine.reboot(off=3400)
    store = SqliteStore(file)
    assert store.get("a") == "1"
    machine.pass_by(200)
    assert store.get("a") is None


@pytest.mark.parametrize(("off", "most"), [(YEAR, 86400.0), (-YEAR, 0.0)])
def test_clock_is_set_while_the_machine_is_off(
    file: str, machine: Time, off: float, most: float
) -> None:
    """A clock that has jumped over a restart is believed for a day at most, and never backwards."""
    SqliteStore(file).put("a", "1", 7 * 86400.0)
    machine.reboot(off)
    store = SqliteStore(file)
    assert store.get("a") == "1"
    machine.pass_by(7 * 86400.0 - most - 1)
    assert store.get("a") == "1"
    machine.pass_by(2)
    assert store.get("a") is None


def test_time_is_noted(file: str, machine: Time) -> None:
    """What is used says now and then what time it is, so that a restart goes on from there."""
    store = SqliteStore(file)
    store.put("old", "1", 7 * 86400.0)
    machine.pass_by(6 * 86400.0)
    store.put("new", "1", 7 * 86400.0)
    store.close()
    machine.reboot(off=86400.0)
    assert SqliteStore(file).get("old") is None
    assert SqliteStore(file).get("new") == "1"


@pytest.mark.parametrize("jump", [0.0, YEAR, -YEAR])
def test_no_boot_id(file: str, machine: Time, monkeypatch: pytest.MonkeyPatch, jump: float) -> None:
    """Without a boot id a restart is known by the uptime."""
    monkeypatch.setattr(clock, "boot", lambda: "")
    SqliteStore(file).put("a", "1", 100)
    machine.clock += jump
    machine.pass_by(50)
    assert SqliteStore(file).get("a") == "1"
    machine.pass_by(50)
    assert SqliteStore(file).get("a") is None


def test_restart_without_a_boot_id(
    file: str, machine: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then the clock tells how long it was since."""
    monkeypatch.setattr(clock, "boot", lambda: "")
    SqliteStore(file).put("a", "1", 3600)
    machine.reboot(off=3000)
    assert SqliteStore(file).get("a") == "1"
    machine.pass_by(600)
    assert SqliteStore(file).get("a") is None


def test_first_use_long_after_a_restart(file: str, machine: Time) -> None:
    """The clock is believed for as long as the machine is on again."""
    SqliteStore(file).put("a", "1", 7 * 86400.0)
    machine.reboot(off=60)
    machine.pass_by(7 * 86400.0)
    assert SqliteStore(file).get("a") is None


@pytest.mark.parametrize(
    "spoilt", ["", "x", "a 1 2", "a b c d", "one 1 2 3 4", "a nan 1 2", "a 1 2 inf"]
)
def test_mark_that_is_none(file: str, machine: Time, spoilt: str) -> None:
    """A mark that cannot be read is made anew."""
    SqliteStore(file).put("a", "1", 10)
    with closing(sqlite3.connect(file)) as db, db:
        db.execute("UPDATE state SET value = ? WHERE key = 'clock'", (spoilt,))
    assert SqliteStore(file).get("a") == "1"
    assert clock.parse(spoilt) is None


def test_new_run_of_the_machine_in_a_locked_file(file: str, machine: Time) -> None:
    """After a restart reading goes on, also while somebody writes."""
    SqliteStore(file).put("a", "1", 10)
    machine.reboot()
    with locked(file):
        assert SqliteStore(file).get("a") == "1"


@pytest.mark.parametrize("how", ["removed", "replaced"])
def test_another_file(file: str, tmp_path: Path, how: str) -> None:
    """A file that somebody removes, or replaces by another one, is let go at the next use."""
    store, other = SqliteStore(file), SqliteStore(str(tmp_path / "other"))
    store.put("a b", "old")
    other.put("a b", "new")
    other.close()
    for more in ("-wal", "-shm", ""):
        Path(f"{file}{more}").unlink(missing_ok=True)
    if how == "replaced":
        (tmp_path / "other").rename(file)
    assert store.get("a b") == (None if how == "removed" else "new")
    store.put("c d", "kept")
    assert SqliteStore(file).get("c d") == "kept"
    store.close()


def test_folder_that_cannot_be_looked_at(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is open stays so while nobody can tell whether it is still there."""
    store = SqliteStore(file)
    store.put("a b", "kept")

    def refuse(*_: object) -> None:
        raise PermissionError

    with monkeypatch.context() as patched:
        patched.setattr("mdaflow.store.sqlite.os.stat", refuse)
        assert store.get("a b") == "kept"
    store.close()
