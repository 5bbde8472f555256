"""Programs: what they are given, how they are fed, and how they end."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from boxes import descriptors, start

from mdaflow.deliver import program
from mdaflow.deliver.mailbox import Chunk
from mdaflow.deliver.program import Ended, clean_environment, find, run_program
from mdaflow.errors import TempFail
from mdaflow.mail.envelope import Client, Envelope

PLENTY = 60.0
"""Seconds; a test that needs them has failed."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def script(folder: Path, text: str, interpreter: str = "/bin/sh") -> str:
    """A program that does what `text` says; its path."""
    path = folder / "program"
    path.write_text(f"#!{interpreter}\n{text}\n")
    path.chmod(0o755)
    return str(path)


def python(folder: Path, text: str) -> str:
    return script(folder, text, sys.executable)


def run(folder: Path, *argv: str, feed: Iterable[Chunk] = (), **options: Any) -> Ended:
    """Run a program with an almost empty environment, and keep what it says."""
    given: dict[str, Any] = {"seconds": PLENTY, "output_limit": 1 << 20, "directory": str(folder)}
    given["environment"] = {"PATH": program.PATH}
    return run_program(argv, feed, **(given | options))


def alive(pid: int) -> bool:
    """A process runs, and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def gone(pid: int) -> bool:
    """A process is dead, or will be in a moment."""
    for _ in range(1000):
        if not alive(pid):
            return True
        time.sleep(0.01)
    return False


def pid_in(path: Path) -> int:
    """The number that a shell has written to a file, 0 before it has."""
    text = path.read_text() if path.exists() else ""
    return int(text) if text.endswith("\n") else 0


def test_what_goes_in_comes_out(folder: Path) -> None:
    """All chunks are fed in order, and all output is had back."""
    feed = (b"one ", memoryview(b"two "), b"", b"three")
    assert run(folder, "cat", feed=feed) == Ended(0, b"one two three", "", "")


def test_exit_code_and_errors(folder: Path) -> None:
    """The exit code is the program's own, and its complaints are kept."""
    ended = run(folder, script(folder, "echo out; echo trouble >&2; exit 67"))
    assert ended == Ended(67, b"out\n", "trouble\n", "")


def test_more_than_pipes_hold(folder: Path) -> None:
    """A program that reads and writes much at once does not block, nor do we."""
    big = bytes(range(256)) * 40_000
    text = "import sys, shutil\nsys.stderr.write('e' * 300_000)\n"
    text += "shutil.copyfileobj(sys.stdin.buffer, sys.stdout.buffer)"
    ended = run(folder, python(folder, text), feed=(big,), output_limit=len(big))
    assert (ended.code, ended.output == big, ended.errors) == (0, True, "e" * 4096)


@pytest.mark.parametrize(
    "text",
    [
        "exit 0",  # never reads
        "exec 0<&-; echo done; sleep 0.1",  # closes its input
        "head -c 10",  # reads a little
        "echo done; exec >&- 2>&-; sleep 0.1",  # closes its outputs and reads nothing
    ],
)
def test_input_need_not_be_read(folder: Path, text: str) -> None:
    """A program that does not read all of its input has done its work all the same."""
    ended = run(folder, script(folder, text), feed=(b"x" * 1_000_000,))
    assert (ended.code, ended.reason) == (0, "")


def test_chunks_are_made_when_needed(folder: Path) -> None:
    """The input may be an iterator that is far larger than what the program reads."""
    made: list[int] = []

    def endless() -> Iterator[bytes]:
        while True:
            made.append(1)
            yield b"x" * 4096

    ended = run(folder, "head", "-c", "5", feed=endless())
    assert ended == Ended(0, b"xxxxx", "", "")
    assert made


def test_broken_input(folder: Path) -> None:
    """When the input cannot be read on, its error is raised and the program is gone."""
    pid = folder / "pid"

    def broken() -> Iterator[bytes]:
        while not pid_in(pid):
            yield b"x"
        raise OSError(errno.EIO, "broken")

    with pytest.raises(OSError, match="broken"):
        run(folder, script(folder, "echo $$ > pid; exec cat"), feed=broken(), output_limit=0)
    assert not alive(pid_in(pid))


def test_unwanted_output(folder: Path) -> None:
    """Output that nobody wants is thrown away, however much it is."""
    ended = run(folder, script(folder, "head -c 1000000 /dev/zero; exit 3"), output_limit=0)
    assert ended == Ended(3, b"", "", "")


@pytest.mark.parametrize("text", ["exec cat /dev/zero", "head -c 1001 /dev/zero"])
def test_too_much_output(folder: Path, text: str) -> None:
    """A program that writes more than it may is ended, and nothing of it is used."""
    ended = run(folder, script(folder, text), output_limit=1000)
    assert ended == Ended(program.FAILED, b"", "", "it wrote more than 1,000 bytes")


def test_output_up_to_its_limit(folder: Path) -> None:
    """Output that just fits is whole."""
    ended = run(folder, "head", "-c", "1000", "/dev/zero", output_limit=1000)
    assert ended == Ended(0, bytes(1000), "", "")


def test_endless_complaints(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that never stops to complain is ended."""
    monkeypatch.setattr(program, "_MOST_ERRORS", 100_000)
    ended = run(folder, script(folder, "exec cat /dev/zero >&2"))
    assert (ended.code, ended.reason) == (program.FAILED, "it wrote more than 100,000 bytes")


def test_time_limit(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the time limit the program and its children are killed."""
    text = "trap '' TERM HUP INT; sleep 1000 & echo $! > child; echo $$ > leader; wait"
    leader, child = folder / "leader", folder / "child"
    begin = [0.0]  # what the first look at the clock sees

    def clock() -> float:
        """The time is over when all of it runs."""
        return begin.pop() if begin else 60.0 * bool(pid_in(leader))

    monkeypatch.setattr(program, "time", SimpleNamespace(monotonic=clock))
    ended = run(folder, script(folder, text))
    assert ended == Ended(program.FAILED, b"", "", "it ran longer than 60 seconds")
    assert not alive(pid_in(leader))
    assert gone(pid_in(child))


def test_nothing_is_left_behind(folder: Path) -> None:
    """What a program leaves in the background is killed, and nobody waits for its output."""
    ended = run(folder, script(folder, "sleep 1000 & echo $! > child; echo done"))
    assert ended == Ended(0, b"done\n", "", "")
    assert gone(pid_in(folder / "child"))


def test_stray_process(folder: Path) -> None:
    """A process that left the group and holds the pipes open is not waited for."""
    text = """
import os, time
child = os.fork()
if child == 0:
    os.setsid()
    time.sleep(1000)
while os.getpgid(child) != child:
    time.sleep(0.001)
with open("child", "w") as file:
    print(child, file=file)
print("done")
"""
    ended = run(folder, python(folder, text))
    stray = pid_in(folder / "child")
    try:
        assert ended == Ended(0, b"done\n", "", "")
        assert alive(stray)
    finally:
        os.kill(stray, signal.SIGKILL)
    assert gone(stray)


def test_signal(folder: Path) -> None:
    """A program that dies of a signal has the code that a shell would give it."""
    ended = run(folder, script(folder, "echo half; kill -SEGV $$"))
    assert ended == Ended(128 + signal.SIGSEGV, b"", "", "it was killed by signal 11")


@pytest.mark.parametrize(
    "name", ["no-such-program", "/no/such/program", "bin/cat", "./cat", "", "."]
)
def test_no_program(folder: Path, name: str) -> None:
    """A program that is not there, or is named by a relative path, is unavailable."""
    ended = run(folder, name)
    assert (ended.code, ended.output) == (program.UNAVAILABLE, b"")
    assert "there is no such program" in ended.reason


def test_no_arguments(folder: Path) -> None:
    """No program at all is unavailable too."""
    assert run(folder).code == program.UNAVAILABLE


@pytest.mark.parametrize("mode", [0o644, 0o755])
def test_not_a_program(folder: Path, mode: int) -> None:
    """A file that cannot be executed is unavailable; no shell guesses what it is."""
    path = folder / "text"
    path.write_text("echo I am a script\n")
    path.chmod(mode)
    assert run(folder, str(path)).code == program.UNAVAILABLE


def test_no_interpreter(folder: Path) -> None:
    """A script whose interpreter is missing is unavailable."""
    ended = run(folder, script(folder, "true", "/no/such/interpreter"))
    assert (ended.code, "No such file" in ended.reason) == (program.UNAVAILABLE, True)


@pytest.mark.parametrize("argument", ["a\0b", "\ud800", "x" * 3_000_000])
def test_impossible_arguments(folder: Path, argument: str) -> None:
    """Arguments that no program can be given make it unavailable, and raise nothing."""
    assert run(folder, "true", argument).code == program.UNAVAILABLE


def test_no_directory(folder: Path) -> None:
    """When its directory is not there, the program does not run elsewhere."""
    ended = run(folder, "pwd", directory=str(folder / "missing"))
    assert ended.code == program.UNAVAILABLE
    assert "missing" in ended.reason


@pytest.mark.parametrize("number", program._MACHINE)
def test_no_room(folder: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """When the machine has no room for a process, the message shall come again."""

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(subprocess, "Popen", refuse)
    with pytest.raises(TempFail, match="cannot start a program"):
        run(folder, "true")


def test_no_descriptors(folder: Path) -> None:
    """When there are no descriptors left, the message shall come again."""
    code = """
import os, resource
from mdaflow.deliver.program import run_program
from mdaflow.errors import TempFail

def run():
    try:
        return run_program(["true"], (), seconds=60, environment={}, directory="/").code
    except TempFail as error:
        return f"{error.status.code} {error}"

before = run(), len(os.listdir("/proc/self/fd"))
resource.setrlimit(resource.RLIMIT_NOFILE, (32, 32))
held = []
try:
    while True:
        held.append(os.dup(0))
except OSError:
    print(run())
for fd in held:
    os.close(fd)
print(before == (run(), len(os.listdir("/proc/self/fd"))))
"""
    said, _ = start(code).communicate(timeout=100)
    assert said == "451 cannot start a program: Too many open files\nTrue\n"


def test_lost_exit_code(folder: Path) -> None:
    """When the system keeps no exit codes of children, that is no success."""
    was = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        with pytest.raises(TempFail, match="exit code was lost"):
            run(folder, "true")
    finally:
        signal.signal(signal.SIGCHLD, was)


def test_only_three_descriptors(folder: Path) -> None:
    """A program has its standard descriptors and no others, whatever we have open."""
    spare = os.open("/dev/null", os.O_RDONLY)
    os.set_inheritable(spare, True)
    try:
        ended = run(folder, python(folder, "import os; print(sorted(os.listdir('/proc/self/fd')))"))
    finally:
        os.close(spare)
    assert ended.output == b"['0', '1', '2', '3']\n"  # 3 is the listing itself


def test_what_surrounds_it(folder: Path) -> None:
    """It has umask 077, a session of its own, its directory, its limits and default signals."""
    text = """
import os, resource, signal
os.umask(mask := os.umask(0))
own = os.getpid() == os.getsid(0) == os.getpgrp()
names = ("CORE", "NOFILE", "AS", "CPU")
limits = [resource.getrlimit(getattr(resource, f"RLIMIT_{name}")) for name in names]
for _ in range(1000):  # they are set when it already runs
    if limits[-1][0] == 60:
        break
    signal.sigtimedwait([], 0.01)
    limits = [resource.getrlimit(getattr(resource, f"RLIMIT_{name}")) for name in names]
print(oct(mask), own, os.getcwd(), limits, signal.getsignal(signal.SIGPIPE) is signal.SIG_IGN)
"""
    ended = run(folder, python(folder, text))
    limits = [(0, 0), (256, 256), (4 << 30, 4 << 30), (60, 60)]
    expected = f"0o77 True {folder} {limits} True"  # Python itself ignores SIGPIPE
    assert ended == Ended(0, f"{expected}\n".encode(), "", "")


def test_limits_are_never_raised(folder: Path) -> None:
    """A hard limit that is in force already stays."""
    code = """
import resource
from mdaflow.deliver.program import run_program

resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))
argv = ["sh", "-c", "sleep 0.2; ulimit -Hn; ulimit -Ht"]
print(run_program(argv, (), seconds=60, environment={}, directory="/", output_limit=99).output)
"""
    said, _ = start(code).communicate(timeout=100)
    assert said == "b'100\\n60\\n'\n"


def test_no_shell(folder: Path) -> None:
    """Arguments arrive as they are, whatever a shell would make of them."""
    odd = ["$(id)", "`id`", ";", "a b", "*", "'", "\n", "-x", "ä"]
    ended = run(folder, python(folder, "import sys; print(ascii(sys.argv[1:]))"), *odd)
    assert ended.output.decode() == f"{odd!a}\n"


def test_environment_is_what_was_said(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of our own environment is inherited."""
    monkeypatch.setenv("SECRET", "x")
    env = {"SENDER": "ann@example.com", "EMPTY": ""}
    assert run(folder, "env", environment=env).output == b"SENDER=ann@example.com\nEMPTY=\n"


def test_found_in_the_fixed_path(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bare name is looked for in the fixed PATH, not in ours nor in the current directory."""
    own = Path(script(folder, "true"))
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.chdir(folder)
    assert find(own.name) == ""
    assert find(str(own)) == str(own)
    assert find("cat") == shutil.which("cat", path=program.PATH)


def test_many_at_once(folder: Path) -> None:
    """Programs run from many threads each hear their own input, and leave no descriptor."""
    before = descriptors()
    heard: dict[int, bytes] = {}

    def one(number: int) -> None:
        for _ in range(5):
            heard[number] = run(folder, "cat", feed=(b"%d" % number * 1000,)).output

    threads = [threading.Thread(target=one, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert heard == {n: b"%d" % n * 1000 for n in range(8)}
    assert descriptors() == before


ENVELOPE = Envelope(
    "ann@example.com", "Bob+lists@example.org", "sales@example.org",
    Client("192.0.2.1", "mx.example.com", "helo.example.com"),
)  # fmt: skip


def test_clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program is told the envelope, its home and little else."""
    monkeypatch.setenv("TZ", "Europe/Berlin")
    assert clean_environment(ENVELOPE, "/home/bob x") == {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "HOME": "/home/bob x",
        "SHELL": "/bin/sh",
        "LANG": "C.UTF-8",
        "TZ": "Europe/Berlin",
        "USER": "Bob",
        "LOGNAME": "Bob",
        "LOCAL": "Bob+lists",
        "EXTENSION": "lists",
        "DOMAIN": "example.org",
        "SENDER": "ann@example.com",
        "RECIPIENT": "Bob+lists@example.org",
        "ORIGINAL_RECIPIENT": "sales@example.org",
        "CLIENT_ADDRESS": "192.0.2.1",
        "CLIENT_HOSTNAME": "mx.example.com",
        "CLIENT_HELO": "helo.example.com",
    }


@pytest.mark.parametrize(
    ("whose", "recipient", "user", "extension"),
    [
        ("bob@example.org", "Bob+lists@Example.ORG", "bob", "lists"),
        ("mary-ann@example.org", "Mary-Ann@example.org", "mary-ann", ""),
        ("mary-ann@example.org", "Mary-Ann-x-y@example.org", "mary-ann", "x-y"),
        ("bob@example.org", "sales-x@example.org", "bob", "x"),
    ],
)
def test_login(whose: str, recipient: str, user: str, extension: str) -> None:
    """The user of a program is the one who was found, as the system writes the name."""
    variables = clean_environment(Envelope("", recipient), "/home/bob", "+-", whose)
    assert (variables["USER"], variables["LOGNAME"]) == (user, user)
    assert variables["EXTENSION"] == extension
    assert variables["LOCAL"] == recipient.partition("@")[0]


def test_sparse_envelope(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the MTA did not say is empty; a recipient without a domain is a user."""
    monkeypatch.delenv("TZ", raising=False)
    variables = clean_environment(Envelope("", "bob"), "/home/bob")
    assert (variables["USER"], variables["DOMAIN"]) == ("bob", "")
    assert (variables["SENDER"], variables["ORIGINAL_RECIPIENT"]) == ("", "bob")
    assert "TZ" not in variables


def test_filtered_characters() -> None:
    """Of what comes from outside only harmless ASCII is left, character by character."""
    hostile = (
        "() { :;}; $(id) `id` 'a' \"b\" \\ | & < > * ? [x] ~ # ^ ä \n \t \0 \udc80 a.B-9_+=%!,/:@"
    )
    variables = clean_environment(Envelope(hostile, hostile, hostile, Client(*[hostile] * 3)), "/")
    kept = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ1234567890!@%-_=+:,./")
    assert set("".join(variables.values())) <= kept
    assert len(variables["SENDER"]) == len(hostile)
    assert variables["SENDER"].endswith("a.B-9_+=%!,/:@")
