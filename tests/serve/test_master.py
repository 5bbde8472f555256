"""The master and its workers, as real processes."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from lmtpd import Client, until
from mastered import USER, Mastered, mastered
from need import need

SYSTEMD = """
import os, socket, sys
sock = socket.socket(socket.AF_UNIX)
sock.bind(sys.argv[2] + "/passed")
sock.listen()
os.dup2(sock.fileno(), 3)
os.set_inheritable(3, True)  # it may have been 3 already
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1"}
os.execv(sys.executable, [sys.executable, sys.argv[1], sys.argv[2]])
"""
FEW_DESCRIPTORS = """
import os, resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (100, 120))
os.execv(sys.executable, [sys.executable, sys.argv[1], sys.argv[2]])
"""

NO_CORE = """
import os, runpy, sys

def refuse(pid, cores):
    raise PermissionError(1, "Operation not permitted")

os.sched_setaffinity = refuse
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture
def server() -> Iterator[Mastered]:
    with mastered() as made:
        yield made


def deliver(server: Mastered, raw: bytes = b"hello\r\n", path: str = "") -> list[str]:
    """Deliver to one recipient; process id, user id and host name of the worker."""
    with Client(path or server.path) as client:
        client.hello().start("bob@x", raw=raw)
        reply = client.line()
        assert reply.startswith("250 2.0.0 <bob@x> "), reply
        return reply.split()[3:]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_workers_are_nobody(server: Mastered) -> None:
    """As many workers as wanted serve, none of them as root, and systemd is told."""
    server.start()
    assert len(server.workers()) == 2
    pid, uid, host = deliver(server)
    assert int(pid) in server.workers()
    assert int(uid) == os.stat("/proc/self").st_uid or (USER and int(uid) != 0)
    assert host == "one.example"
    assert server.stored() == [b"hello\n"]


def test_smtp_source(server: Mastered) -> None:
    """Postfix's load generator is served: every message is stored."""
    program = need("smtp-source")
    server.start()
    command = [program, "-L", "-d", "-s", "4", "-m", "100", "-l", "1000", "-r", "2"]
    command += ["-t", "u@example.org", f"unix:{server.path}"]
    subprocess.run(command, check=True, timeout=60)
    assert len(server.stored()) == 200


def test_connections_are_shared(server: Mastered) -> None:
    """All workers take connections."""
    server.start()
    pids: set[str] = set()
    with contextlib.ExitStack() as stack:

        def both() -> bool:
            client = stack.enter_context(Client(server.path))
            client.hello().start("bob@x")
            pids.add(client.line().split()[3])
            return len(pids) == 2

        until(both)


def test_dead_worker_is_replaced(server: Mastered) -> None:
    """A worker that is killed is replaced; the other one served on."""
    server.start()
    victim, other = server.workers()
    os.kill(victim, signal.SIGKILL)
    until(lambda: len(server.workers()) == 2 and victim not in server.workers())
    assert other in server.workers()
    deliver(server)
    assert f"worker {victim} ended with -9" in server.log()


def stop_a_worker(server: Mastered, recipient: str = "dies@x", raw: bytes = b"poison\r\n") -> None:
    """A message that ends the worker it comes to; wait for the next one."""
    dead = server.log().count(" ended with ")
    with Client(server.path) as client:
        client.hello().start(recipient, raw=raw)
        assert client.line() == ""
    until(lambda: server.log().count(" ended with ") == dead + 1 and len(server.workers()) == 2)


def survives(server: Mastered, recipient: str = "dies@x", raw: bytes = b"poison\r\n") -> bool:
    """Is the message delivered?"""
    with Client(server.path) as client:
        client.hello().start(recipient, raw=raw)
        return client.line().startswith("250 2.0.0 ")


def test_poison(server: Mastered) -> None:
    """A message that has killed two workers is delivered without rules; others have theirs."""
    server.start()
    before = server.descriptors()
    for _ in range(2):
        stop_a_worker(server)
        deliver(server)
    assert survives(server)
    assert server.stored().count(b"poison\n") == 1
    stop_a_worker(server, raw=b"other poison\r\n")
    assert server.log().count("was at the rules of 1 messages when it died") == 3
    until(lambda: server.descriptors() <= before)


def test_poison_for_many(server: Mastered) -> None:
    """A message gets one strike for a death, however many recipients it had."""
    server.start()
    with Client(server.path) as client:
        client.hello().start(*(f"dies@{n}" for n in "abc"), raw=b"poison\r\n")
        assert client.line() == ""
    until(lambda: " ended with " in server.log() and len(server.workers()) == 2)
    stop_a_worker(server)
    assert survives(server)


def test_poison_for_one_of_many(server: Mastered) -> None:
    """That the rules of another recipient end well does not make a message harmless."""
    server.start()
    for _ in range(2):
        with Client(server.path) as client:
            client.hello().start("dies@x", raw=b"poison\r\n")
            assert client.line() == ""
        survives(server, "bob@x")
    assert survives(server)


def kill_at_rules(server: Mastered) -> None:
    """A worker is killed while it is at an innocent message; wait for the next one."""
    with Client(server.path) as client:
        client.hello().start("waits@x", raw=b"innocent\r\n")
        until(server.slow)
        [file] = (server.folder / "spool").glob("slow.*")
        file.unlink()
        os.kill(victim := int(file.suffix[1:]), signal.SIGKILL)
        assert client.line() == ""
    until(lambda: victim not in server.workers() and len(server.workers()) == 2)


def test_taken_back(server: Mastered) -> None:
    """A message that ran well between two deaths that others caused keeps its rules."""
    server.start()
    kill_at_rules(server)
    server.go()
    assert survives(server, "waits@x", raw=b"innocent\r\n")
    (server.folder / "go").unlink()
    for path in (server.folder / "spool").glob("slow.*"):
        path.unlink()
    for _ in range(2):  # each finds it at its rules
        kill_at_rules(server)
    assert server.log().count("was at the rules of 1 messages when it died") == 3
    assert survives(server, "waits@x", raw=b"innocent\r\n")  # no rules that wait


def test_poison_and_reload(server: Mastered) -> None:
    """Strikes outlive a reload, also with other numbers of workers and threads."""
    server.start()
    stop_a_worker(server)
    server.reload(lmtp={"workers": 3, "threads": 9})
    until(lambda: len(server.workers()) == 3)
    server.reload(lmtp={"workers": 2, "threads": 2})
    until(lambda: len(server.workers()) == 2)
    stop_a_worker(server)
    server.reload(hostname="two.example")
    assert survives(server)


def test_hang(server: Mastered, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker whose interpreter is held is replaced; its message gets a strike, others flow."""
    monkeypatch.setenv("HANG", "1.5")
    server.start()
    with Client(server.path) as client:
        client.hello().start("hangs@x", raw=b"poison\r\n")
        until(server.slow)
        time.sleep(0.1)  # until it really holds the interpreter, and takes no more connections
        deliver(server)
        assert client.line() == ""
    until(lambda: " ended with -9" in server.log() and len(server.workers()) == 2)
    assert " has not moved for 2 seconds, it is killed" in server.log()
    stop_a_worker(server)
    assert survives(server)


def test_hang_in_drain(server: Mastered, monkeypatch: pytest.MonkeyPatch) -> None:
    """What holds a worker that shall end gets its strike, too."""
    monkeypatch.setenv("DRAIN", "0.3")
    server.start()
    with Client(server.path) as client:
        client.hello().start("hangs@x", raw=b"poison\r\n")
        until(server.slow)
        server.reload()
        assert client.line() == ""
    until(lambda: "when it died" in server.log() and len(server.workers()) == 2)
    stop_a_worker(server)
    assert survives(server)


def test_stopped_worker(server: Mastered, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that is stopped for long is replaced; what it was not at gets no strike."""
    monkeypatch.setenv("HANG", "1.5")
    server.start()
    victim = server.workers()[0]
    os.kill(victim, signal.SIGSTOP)
    until(lambda: len(server.workers()) == 2 and victim not in server.workers())
    deliver(server)
    assert f"worker {victim} has not moved" in server.log()
    assert "when it died" not in server.log()


def test_all_stopped(server: Mastered, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who was stopped together with the master, as on a machine that sleeps, lives on."""
    monkeypatch.setenv("HANG", "1.5")
    server.start()
    workers = server.workers()
    server.kill(signal.SIGSTOP)
    for pid in workers:
        os.kill(pid, signal.SIGSTOP)
    time.sleep(2)
    server.kill(signal.SIGCONT)
    time.sleep(0.1)  # the master sees them before they run again
    for pid in workers:
        os.kill(pid, signal.SIGCONT)
    deliver(server)
    assert server.workers() == workers


def test_no_core_of_its_own(server: Mastered) -> None:
    """Where the system does not let a worker choose its core, it serves all the same."""
    wrapper = server.folder / "wrapper.py"
    wrapper.write_text(NO_CORE)
    import mastered as module

    server.start(str(wrapper), str(module.__file__))
    assert deliver(server)


def test_few_descriptors(server: Mastered) -> None:
    """All descriptors that are allowed are used; when they do not suffice, less is promised."""
    wrapper = server.folder / "wrapper.py"
    wrapper.write_text(FEW_DESCRIPTORS)
    import mastered as module

    server.start(str(wrapper), str(module.__file__), lmtp={"workers": 1})
    said = "120 descriptors (LimitNOFILE=) are not enough for 200 connections, a worker takes 8"
    assert server.log().count(said) == 1
    [pid] = server.workers()
    limits = Path(f"/proc/{pid}/limits").read_text()
    assert re.search(r"^Max open files +120 +120 ", limits, re.M)
    with contextlib.ExitStack() as stack:
        greetings = [stack.enter_context(Client(server.path)).line()[:3] for _ in range(9)]
        assert greetings == ["220"] * 8 + ["421"]
    server.reload(lmtp={"workers": 1, "max_connections": 8})
    assert server.log().count(said) == 1


def test_stop(server: Mastered) -> None:
    """SIGTERM lets a running delivery end, dismisses idle clients, and leaves nothing."""
    server.start()
    with Client(server.path) as busy, Client(server.path) as idle:
        idle.hello().deliver("bob@x")
        busy.hello().start("slow@x")
        until(server.slow)
        workers = server.workers()
        server.kill(signal.SIGTERM)
        assert server.said() == "STOPPING=1"
        assert idle.line() == "421 4.3.2 Shutting down, try again later"
        with pytest.raises(FileNotFoundError):
            Client(server.path)
        server.kill(signal.SIGTERM)
        server.go()
        assert busy.line().startswith("250 2.0.0 <slow@x>")
        assert busy.line().startswith("421 4.3.2 ")
        assert server.ended() == 0
        assert not any(alive(pid) for pid in workers)
    assert len(server.stored()) == 2


def test_stop_has_an_end(server: Mastered, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that does not end is killed."""
    monkeypatch.setenv("DRAIN", "0.3")
    server.start()
    workers = server.workers()
    os.kill(workers[0], signal.SIGSTOP)
    server.kill(signal.SIGINT)
    assert server.ended() == 0
    assert f"worker {workers[0]} does not end" in server.log()
    assert not any(alive(pid) for pid in workers)


def test_reload(server: Mastered) -> None:
    """SIGHUP brings new workers with the new configuration; the old ones finish their work."""
    server.start()
    with Client(server.path) as busy:
        busy.hello().start("slow@x")
        until(server.slow)
        old = server.workers()
        server.reload(hostname="two.example", lmtp={"workers": 1})
        until(lambda: deliver(server)[2] == "two.example")
        pid = deliver(server)[0]
        assert int(pid) not in old
        server.go()
        assert busy.line().endswith(" one.example")
        until(lambda: server.workers() == [int(pid)])


@pytest.mark.parametrize(
    ("trouble", "told"),
    [
        ("config", "ERROR mdaflow.yaml:2:1: this, too"),
        ("courier", "ERROR state: cannot be used"),
        ("bug", "ZeroDivisionError: a bug"),
    ],
)
def test_bad_reload(server: Mastered, trouble: str, told: str) -> None:
    """A configuration that cannot be used changes nothing: the old workers serve on."""
    server.start()
    workers = server.workers()
    server.reload(trouble=trouble, hostname="two.example")
    assert server.workers() == workers
    assert deliver(server)[2] == "one.example"
    assert told in server.log()
    assert "ERROR the new configuration is not used" in server.log()
    server.reload(trouble="")
    until(lambda: deliver(server)[2] == "two.example")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stop_in_reload(
    server: Mastered, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    """Who shall stop does not wait for new workers that never serve."""
    monkeypatch.setenv("START", "600")
    server.start()
    server.configure(trouble="never")
    server.kill(signal.SIGHUP)
    until(lambda: server.never() == 2)
    workers = server.workers()
    assert len(workers) == 4
    server.kill(number)
    assert server.ended() == 0  # in less than these 600 seconds
    assert "is not used: told to stop before the workers served" in server.log()
    assert not any(alive(pid) for pid in workers)


def test_stop_in_start(server: Mastered, monkeypatch: pytest.MonkeyPatch) -> None:
    """A start whose workers never serve can be stopped, and leaves nothing."""
    monkeypatch.setenv("START", "600")
    server.spawn(trouble="never")
    until(lambda: server.never() == 2)
    workers = server.workers()
    server.kill(signal.SIGTERM)
    assert server.ended() == -signal.SIGTERM
    assert not any(alive(pid) for pid in workers)
    assert not os.path.exists(server.path)


def test_start_has_an_end(server: Mastered, monkeypatch: pytest.MonkeyPatch) -> None:
    """New workers have one time together; after it those that never serve are ended."""
    monkeypatch.setenv("START", "1")
    server.start()
    workers = server.workers()
    server.reload(trouble="never")
    assert "is not used: 2 workers did not serve after 1 seconds" in server.log()
    assert server.workers() == workers
    deliver(server)


def test_grown_worker_is_replaced(server: Mastered, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has grown too much gets a successor, and ends when its work is done."""
    monkeypatch.setenv("HANG", "1.5")
    server.start(lmtp={"workers": 2, "memory": 60 << 20})
    workers = server.workers()
    with Client(server.path) as busy:
        busy.hello().start("grows@x", "slow@x")
        until(lambda: len(server.workers()) == 3 and "it is replaced" in server.log())
        assert server.slow()
        assert set(workers) < set(server.workers())
        server.go()
        assert busy.line().startswith("250 2.0.0 <grows@x>")
        assert busy.line().startswith("250 2.0.0 <slow@x>")
        until(lambda: len(server.workers()) == 2)
    [old] = set(workers) - set(server.workers())
    [line] = [line for line in server.log().splitlines() if not line.startswith("INFO")]
    assert re.fullmatch(rf"WARNING worker {old} has grown by \d+ MiB, it is replaced", line)


def test_no_successor(server: Mastered, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has grown too much serves on when no successor can."""
    monkeypatch.setenv("HANG", "1.5")
    server.start(lmtp={"workers": 1, "memory": 60 << 20})
    server.configure(trouble="bug")
    workers = server.workers()
    assert survives(server, "grows@x")
    until(lambda: "no new worker: a worker ended with 70 before it served" in server.log())
    deliver(server)
    until(lambda: server.workers() == workers)


def test_reload_of_sockets(server: Mastered) -> None:
    """SIGHUP opens new sockets and removes old ones; a bad list changes nothing."""
    server.start()
    first, second = f"unix:{server.path}", f"unix:{server.path}2"
    server.reload(listen=[second, "unix:/nowhere/lmtp"])
    deliver(server)
    assert not os.path.exists(f"{server.path}2")
    server.reload(listen=[first, second])
    deliver(server)
    deliver(server, path=f"{server.path}2")
    server.reload(listen=[second])
    assert not os.path.exists(server.path)
    deliver(server, path=f"{server.path}2")
    os.unlink(f"{server.path}2")
    server.reload()
    deliver(server, path=f"{server.path}2")


def test_reload_under_load(server: Mastered) -> None:
    """While clients deliver, reloads and killed workers lose nothing that was acknowledged."""
    server.start()
    acknowledged: list[bytes] = []
    end = threading.Event()

    def send(name: str) -> None:
        number = 0
        while not end.is_set():
            with contextlib.suppress(OSError, AssertionError), Client(server.path) as client:
                client.hello()
                for _ in range(20):
                    number += 1
                    raw = f"{name} {number}".encode()
                    client.start("bob@x", raw=raw + b"\r\n")
                    assert client.line().startswith("250 ")
                    acknowledged.append(raw + b"\n")

    threads = [threading.Thread(target=send, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    try:
        for number in range(4):
            until(lambda number=number: len(acknowledged) > 30 * number)  # type: ignore[misc]
            server.reload(hostname=f"{number}.example")
            with contextlib.suppress(ProcessLookupError):  # an old one, that has just ended
                os.kill(server.workers()[0], signal.SIGKILL)
    finally:
        end.set()
        for thread in threads:
            thread.join(20)
    stored = server.stored()
    assert set(acknowledged) <= set(stored)
    assert len(set(stored)) == len(stored)


def test_master_is_killed(server: Mastered) -> None:
    """Workers notice that their master is gone: they finish their work and end."""
    server.start()
    workers = server.workers()
    with Client(server.path) as busy:
        busy.hello().start("slow@x")
        until(server.slow)
        server.kill(signal.SIGKILL)
        server.ended()
        until(lambda: sum(alive(pid) for pid in workers) == 1)
        server.go()
        assert busy.line().startswith("250 2.0.0 <slow@x>")
    until(lambda: not any(alive(pid) for pid in workers))
    server.start()  # over the socket that was left
    deliver(server)


@pytest.mark.parametrize(("trouble", "code"), [("config", 1), ("courier", 78), ("bug", 70)])
def test_bad_start(server: Mastered, trouble: str, code: int) -> None:
    """A worker that cannot start ends the start, with a code that says why."""
    server.spawn(trouble=trouble)
    assert server.ended() == code
    assert not os.path.exists(server.path)


def test_in_use(server: Mastered) -> None:
    """A second server on the same socket is refused, and the first one is not disturbed."""
    server.start()
    with mastered() as second:
        second.spawn(listen=[f"unix:{server.path}"])
        assert second.ended() == 78
        assert f"unix:{server.path}: in use by another program" in second.log()
    deliver(server)


@pytest.mark.skipif(os.geteuid() != 0, reason="about root")
@pytest.mark.parametrize("user", ["", "root"])
def test_never_as_root(server: Mastered, user: str) -> None:
    """Started as root without a user, or with root as the user, nothing runs."""
    server.spawn(user=user)
    assert server.ended() == 78
    assert "name the unprivileged user of the mail" in server.log()
    assert not os.path.exists(server.path)


def test_systemd_sockets(server: Mastered) -> None:
    """Sockets that systemd passes are used instead of those of the configuration."""
    wrapper = server.folder / "wrapper.py"
    wrapper.write_text(SYSTEMD)
    import mastered as module

    server.start(str(wrapper), str(module.__file__))
    deliver(server, path=str(server.folder / "passed"))
    assert not os.path.exists(server.path)
    server.reload(hostname="two.example")
    passed = str(server.folder / "passed")
    until(lambda: deliver(server, path=passed)[2] == "two.example")
    server.kill(signal.SIGTERM)
    assert server.ended() == 0
    assert os.path.exists(server.folder / "passed")


def test_tcp(server: Mastered) -> None:
    """A TCP port works like a socket file, also after a restart."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    for _ in range(2):
        server.start(listen=[f"127.0.0.1:{port}"])
        with Client(("127.0.0.1", port)) as client:
            assert client.hello().deliver("bob@x") == ["250 2.0.0"]
        server.kill(signal.SIGTERM)
        assert server.said() == "STOPPING=1"
        assert server.ended() == 0
