"""Messages handed to programs: what they get, and what their exit codes mean."""

from __future__ import annotations

import fcntl
import os
import stat
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from boxes import descriptors
from need import need

from mdaflow.deliver import pipe
from mdaflow.deliver.job import Job, Means
from mdaflow.deliver.mailbox import Mailbox
from mdaflow.engine.plan import Action
from mdaflow.errors import INTERNAL, LOCKED, REJECTED, UNKNOWN_USER, MailError, PermFail, TempFail
from mdaflow.mail.envelope import Envelope
from mdaflow.mail.message import Message

RAW = b"Return-Path: <forged@example.net>\nSubject: x\n\nbody \xff\r\n\0 end"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    path = tmp_path / "home"
    path.mkdir()
    return path


def job(home: Path, recipient: str = "bob@example.org") -> Job:
    means = Means(hostname="mx.example.org", state=str(home.parent / "state"))
    envelope = Envelope("ann@example.com", recipient)
    return Job(Message(RAW), envelope, Mailbox("maildir", str(home), "Maildir"), "id1", means)


def program(home: Path, text: str) -> str:
    path = home.parent / "program"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def action(*argv: str, owner: str = "site", **options: str | float) -> Action:
    return Action("pipe", owner=owner, targets=argv, options=tuple(options.items()))


def carry_out(home: Path, text: str, owner: str = "site", **options: str | float) -> str:
    """Run a script with a message; where that went."""
    planned = action(program(home, text), owner=owner, **options)
    prepared = pipe.prepare(job(home), planned, lock_wait=0.0)
    prepared.commit()
    return prepared.where


def failure(home: Path, text: str, owner: str = "site", **options: str | float) -> MailError:
    with pytest.raises(MailError) as caught:
        carry_out(home, text, owner, **options)
    return caught.value


def test_message_as_stored(home: Path) -> None:
    """A program reads the message with our trace fields on top, every other byte as it came."""
    assert carry_out(home, "cat > got") == "pipe program"
    head, blank, body = (home / "got").read_bytes().partition(b"\n\n")
    lines = head.split(b"\n")
    assert lines[:2] == [b"Return-Path: <ann@example.com>", b"Delivered-To: bob@example.org"]
    assert lines[2] == b"Received: by mx.example.org (mdaflow) with LMTP id id1"
    assert (lines[4:], blank + body) == ([b"Subject: x"], b"\n\nbody \xff\r\n\0 end")


def test_message_as_changed(home: Path) -> None:
    """A message that rules have changed is handed over as it was when this was planned."""
    planned = action(program(home, "cat > got"))
    changed = Action(planned.verb, targets=planned.targets, message=Message(b"Subject: y\n\nnew\n"))
    pipe.prepare(job(home), changed).commit()
    assert (home / "got").read_bytes().endswith(b"\nSubject: y\n\nnew\n")


def test_surroundings(home: Path) -> None:
    """A program runs in the user's home with the envelope in its environment."""
    carry_out(home, 'echo "$PWD $HOME $SENDER $RECIPIENT $USER" > got')
    assert (home / "got").read_text() == f"{home} {home} ann@example.com bob@example.org bob\n"
    assert stat.S_IMODE((home / "got").stat().st_mode) == 0o600


def test_extension(home: Path) -> None:
    """User and detail are divided as the site divides them."""
    task = job(home)
    envelope = Envelope("", "bob-lists-dev@example.org")
    task = replace(task, envelope=envelope, means=replace(task.means, delimiters="+-"))
    name = program(home, 'echo "$USER $EXTENSION $LOCAL" > got')
    pipe.prepare(task, action(name)).commit()
    assert (home / "got").read_text() == "bob lists-dev bob-lists-dev\n"


def test_arguments(home: Path) -> None:
    """The arguments are the program's, whatever a shell would make of them."""
    name = program(home, 'printf "%s|" "$@" > got')
    pipe.prepare(job(home), action(name, "a b", "$(id)", "")).commit()
    assert (home / "got").read_text() == "a b|$(id)||"


def test_nothing_runs_before_commit(home: Path) -> None:
    """A program that is prepared and aborted has never run, and no lock was taken."""
    prepared = pipe.prepare(job(home), action(program(home, "touch ran"), locked="x"))
    prepared.abort()
    assert not (home / "ran").exists()
    assert not (home.parent / "state").exists()


@pytest.mark.parametrize(
    ("code", "owner", "status"),
    [
        (67, "site", UNKNOWN_USER),
        (77, "site", REJECTED),
        (67, "user", pipe.PROGRAM_FAILED),
        (77, "user", pipe.PROGRAM_FAILED),
        (75, "site", pipe.PROGRAM_FAILED),
        (1, "site", pipe.PROGRAM_FAILED),
        (69, "user", pipe.PROGRAM_FAILED),
        (255, "user", pipe.PROGRAM_FAILED),
    ],
)
def test_exit_codes(home: Path, code: int, owner: str, status: object) -> None:
    """Only a site's program can refuse for good; all other codes are temporary failures."""
    error = failure(home, f"exit {code}", owner)
    assert error.status == status
    assert isinstance(error, TempFail) == error.status.temporary
    assert isinstance(error, PermFail) != error.status.temporary
    assert str(error) == f"pipe program: exit code {code}"


@pytest.mark.parametrize("number", [9, 11, 15])
def test_signals(home: Path, number: int) -> None:
    """A program that dies of a signal failed for the moment."""
    error = failure(home, f"kill -{number} $$")
    assert (error.status, str(error)) == (
        pipe.PROGRAM_FAILED,
        f"pipe program: it was killed by signal {number}",
    )


def test_time_limit(home: Path) -> None:
    """A program that takes longer than it may failed for the moment."""
    error = failure(home, "exec sleep 1000", within=0.05)
    assert (error.status.code, str(error)) == (451, "pipe program: it ran longer than 0.05 seconds")


def test_longest_time_limit(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No rule can give a program more time than we have."""
    monkeypatch.setattr(pipe, "MAX_SECONDS", 0.05)
    assert "longer than 0.05 seconds" in str(failure(home, "exec sleep 1000", within=1e9))


def test_complaint(home: Path) -> None:
    """The first line of its complaints is in our log, cleaned; the peer learns nothing of it."""
    said = r"printf '\n/secret\033[1m path\r\t\0 \377\nmore\n' >&2; exit 1"
    error = failure(home, said)
    assert str(error) == "pipe program: exit code 1: /secret [1m path \ufffd"
    assert error.status.text == "Program failed, try again later"
    long = failure(home, "head -c 3000 /dev/zero | tr '\\0' x >&2; exit 1")
    assert len(str(long)) < 300


def test_unread_input(home: Path) -> None:
    """A program that says that it is done is done, whatever it has read."""
    big = Message(b"Subject: x\n\n" + b"x" * 1_000_000)
    planned = action(program(home, "exit 0"))
    changed = Action(planned.verb, targets=planned.targets, message=big)
    prepared = pipe.prepare(job(home), changed)
    prepared.commit()
    assert prepared.where == "pipe program"


@pytest.mark.parametrize("owner", ["site", "user"])
def test_missing_program(home: Path, owner: str) -> None:
    """A program that is not there is known before anything else is done; it may come back."""
    with pytest.raises(TempFail, match="no program /no/such") as caught:
        pipe.prepare(job(home), action("/no/such", owner=owner))
    assert caught.value.status == INTERNAL


def test_program_removed_meanwhile(home: Path) -> None:
    """A program that goes away before the commit is a temporary failure."""
    name = program(home, "exit 0")
    prepared = pipe.prepare(job(home), action(name))
    Path(name).unlink()
    with pytest.raises(TempFail, match="no such program"):
        prepared.commit()


def test_missing_home(home: Path) -> None:
    """Without the user's home, which may not be mounted, nothing runs."""
    prepared = pipe.prepare(job(home), action(program(home, "exit 0")))
    home.rmdir()
    with pytest.raises(TempFail, match="cannot start"):
        prepared.commit()


def test_locked(home: Path) -> None:
    """While a program runs, its name is locked; afterwards it is free, also when it failed."""
    lock = home.parent / "state" / "locks" / "index"
    try_it = f"{need('flock')} --nonblock {lock} true; echo $? > got"
    before = descriptors()
    carry_out(home, try_it, locked="index")
    assert (home / "got").read_text() == "1\n"
    failure(home, "exit 1", locked="index")
    with lock.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        error = failure(home, "touch ran", locked="index")
        carry_out(home, "touch other", locked="other")
    assert (error.status, str(error)) == (LOCKED, 'pipe program: "index" stayed locked for 0 s')
    assert not (home / "ran").exists()
    assert (home / "other").exists()
    assert descriptors() == before


def test_one_at_a_time(home: Path) -> None:
    """Programs with one name follow each other, however many deliveries want them."""
    name = program(home, "mkdir busy || exit 1; echo x >> done; sleep 0.02; rmdir busy")
    failed: list[BaseException] = []

    def deliver() -> None:
        try:
            pipe.prepare(job(home), action(name, locked="one")).commit()
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=deliver) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (failed, (home / "done").read_text()) == ([], "x\n" * 6)


def test_names_of_users_are_their_own(home: Path) -> None:
    """A user's lock holds up neither another user nor the site, but each address of the user."""
    other = home.parent / "other"
    other.mkdir()
    planned = action(program(home, "touch ran"), owner="user", locked="x")
    pipe.prepare(job(home), planned).commit()
    [lock] = (home.parent / "state" / "locks").iterdir()
    with lock.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for recipient in ("bob@example.org", "bob+lists@example.org"):
            with pytest.raises(TempFail, match="stayed locked"):
                pipe.prepare(job(home, recipient), planned, lock_wait=0.0).commit()
        pipe.prepare(job(other), planned, lock_wait=0.0).commit()
        carry_out(home, "touch ran-site", locked="x")
    assert (other / "ran").exists()
    assert (home / "ran-site").exists()


@pytest.mark.parametrize("name", ["../../etc/x", "a/b", ".", "..", "\0", "ä", "\udc80", "x" * 999])
def test_odd_names(home: Path, name: str) -> None:
    """A lock of any name is a file in the folder of locks."""
    carry_out(home, "exit 0", locked=name)
    [lock] = (home.parent / "state").rglob("*/*")
    assert lock.parent.name == "locks"
    assert stat.S_IMODE(lock.stat().st_mode) == 0o600


def test_lock_that_is_a_link(home: Path) -> None:
    """A link in the place of a lock is not followed."""
    folder = home.parent / "state" / "locks"
    folder.mkdir(parents=True)
    (folder / "x").symlink_to(home / "target")
    assert failure(home, "exit 0", locked="x").status.temporary
    assert not os.path.lexists(home / "target")


def test_no_folder_for_locks(home: Path) -> None:
    """Without a state folder, a program that wants a lock waits for the administrator."""
    task = job(home)
    without = Job(task.message, task.envelope, task.mailbox, task.ident, Means())
    with pytest.raises(TempFail, match="state:"):
        pipe.prepare(without, action("true", locked="x"))
    pipe.prepare(without, action("true")).commit()
