"""Release from the quarantine: as if the message had just come, never lost, once."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_clamd import Connection, FakeClamd
from fake_mta import FakeMTA
from here import ANN, BOB, RAW, Here
from need import need

from mdaflow.app import release
from mdaflow.app.config import Clamd, Virus
from mdaflow.app.release import NoRecipient, NotDeleted
from mdaflow.deliver import held, maildir
from mdaflow.deliver.held import Held, NotHeld
from mdaflow.errors import INTERNAL, PermFail, TempFail

VIRUS = b"X-Virus: yes\n"
CAUGHT = 'rule "V" when header "X-Virus" is "yes" { quarantine "virus" }\n'
"""A rule that puts a message aside, as one about `virus.found` does."""


def all_held(here: Here) -> list[Held]:
    return held.held(f"{here.root}/quarantine")


def quarantined(here: Here, raw: bytes = VIRUS + RAW, to: str = BOB) -> Held:
    """A message that has just been put aside."""
    assert here.send(raw, to=to).text.endswith("Quarantined")
    return all_held(here)[0]


def let_go(here: Here, each: Held, to: str = "") -> str:
    """The reply to a release, without the id."""
    status = release.release(here.site, each, to)
    return str(status).replace(f"{status.text.split()[0]} ", "") if status.ok else str(status)


@pytest.mark.parametrize("stage", ["user", "before", "after"])
def test_release(both: Here, stage: str) -> None:
    """The message goes its way, by rules that may have changed, and nothing is left of it."""
    both.set(**{stage: CAUGHT})
    each = quarantined(both)
    both.set(**{stage: f"{CAUGHT}deliver to 'a'".replace("'", '"')})
    assert let_go(both, each) == "250 2.0.0 Saved to a"
    assert all_held(both) == []
    assert [p for p in (both.root / "quarantine").rglob("*") if p.is_file()] == []
    [stored] = both.mails("a")
    assert stored.startswith(f"Return-Path: <{ANN}>\nDelivered-To: {BOB}\nReceived: ".encode())
    assert b"by mx.example.org (mdaflow, released) with local id " in stored
    assert b"X-mdaflow" not in stored
    assert stored.count(b"Return-Path:") == 1
    assert (VIRUS + RAW).rstrip() in stored
    assert (both.entry["status"], both.entry["to"], both.entry["from"]) == ("delivered", BOB, ANN)
    assert any("released from the quarantine" in said for said in both.said)


def test_released_by_whom_it_reaches(here: Here) -> None:
    """What the rules do with it is done: it is sent on, with all that it came with."""
    with FakeMTA() as mta:
        here.hop = mta.hop
        here.set(f'{CAUGHT} forward to "eve@example.net"')
        each = quarantined(here)
        assert let_go(here, each) == "250 2.0.0 Forwarded"
        [sent] = [session.data for session in mta.sessions if session.taken]
    assert b"X-mdaflow-Quarantine" not in sent
    assert VIRUS + RAW in sent.replace(b"\r\n", b"\n")


def test_policies(here: Here, tmp_path: Path) -> None:
    """What the configuration puts aside is let go as well, with what scanners say of it."""

    def answer(connection: Connection) -> None:
        connection.take()
        connection.line.sendall(b"stream: Eicar-Test FOUND\n")

    with FakeClamd(tmp_path / "clamd", answer) as clamd:
        here.more = {
            "scanners": (Clamd((clamd.address,), timeout=5.0),),
            "virus": Virus(tag=True),
        }
        here.set()
        assert let_go(here, quarantined(here, RAW)) == "250 2.0.0 Saved to INBOX"
    [stored] = here.mails()
    assert b"\nX-Virus-Status: " in stored


def test_scanner_that_is_away(here: Here, tmp_path: Path) -> None:
    """What has to be scanned, and cannot be, stays until it can."""
    here.set(CAUGHT)
    each = quarantined(here)
    here.more = {"scanners": (Clamd((f"unix:{tmp_path}/nobody",), timeout=5.0),)}
    here.close()
    assert let_go(here, each).startswith("451 4.7.1 ")
    assert all_held(here) == [each]


def test_rules_that_learn(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rule that caught it does nothing again: what it learns is learned once."""
    learned: list[str] = []
    here.grant = ("learn",)
    here.set(CAUGHT.replace("quarantine", "learn spam quarantine"))
    said = lambda job, message, owner: learned.append("spam")  # noqa: E731
    monkeypatch.setattr(here, "_site", replace(here.site, learners={"spam": said}))
    each = quarantined(here)
    assert let_go(here, each) == "250 2.0.0 Saved to INBOX"
    assert learned == ["spam"]


def test_no_duplicate_of_itself(here: Here) -> None:
    """Rules that drop what was here before do not drop what was put aside."""
    here.set(f"if duplicate {{ discard }}\n{CAUGHT}")
    each = quarantined(here)
    assert let_go(here, each) == "250 2.0.0 Saved to INBOX"


def test_no_loop(here: Here) -> None:
    """A message that made too many hops is released all the same (P37)."""
    here.set(CAUGHT)
    each = quarantined(here)
    path = here.root / "quarantine" / each.folder / each.part / each.file
    first, _, rest = path.read_bytes().partition(b"\n")
    path.write_bytes(first + b"\n" + b"Received: x\n" * 60 + rest)
    assert let_go(here, each) == "250 2.0.0 Saved to INBOX"


@pytest.mark.parametrize(
    ("rules", "reply", "grant"),
    [('defer "later"', "451 4.7.1 later", "defer"), ('reject "no"', "550 5.7.1 no", "reject")],
)
def test_not_delivered(here: Here, rules: str, reply: str, grant: str) -> None:
    """What is not delivered stays in the quarantine."""
    here.grant = (grant,)
    here.set(CAUGHT)
    each = quarantined(here)
    here.set(rules)
    assert let_go(here, each) == reply
    assert all_held(here) == [each]
    here.set()
    assert let_go(here, each) == "250 2.0.0 Saved to INBOX"


def test_user_who_is_gone(here: Here) -> None:
    """Mail of a user who is gone stays, and may be released to another one."""
    other = here.home.parent / "ann"
    other.mkdir()
    here.set(CAUGHT)
    each = quarantined(here)
    here.home.rename(here.home.with_name("carl"))
    here.close()
    with pytest.raises(PermFail, match="No such user"):
        let_go(here, each)
    assert all_held(here) == [each]
    assert let_go(here, each, "ann@example.org") == "250 2.0.0 Saved to INBOX"
    [stored] = [path.read_bytes() for path in other.glob("Maildir/new/*")]
    assert b"\nDelivered-To: ann@example.org\nX-Original-To: bob@example.org\n" in stored


@pytest.mark.parametrize("broken", ["{", ""])
def test_without_an_envelope(here: Here, broken: str) -> None:
    """A message whose envelope is broken or away is released to who is named."""
    here.set(CAUGHT)
    each = quarantined(here)
    [note] = here.root.glob("quarantine/*/envelopes/*")
    note.write_text(broken) if broken else note.unlink()
    with pytest.raises(NoRecipient, match="say for whom"):
        let_go(here, each)
    assert let_go(here, each, BOB) == "250 2.0.0 Saved to INBOX"
    assert all_held(here) == []


def test_forged_field(here: Here) -> None:
    """A field of the sender's that looks like ours leads nowhere."""
    here.set(CAUGHT)
    first = quarantined(here)
    [note] = here.root.glob("quarantine/*/envelopes/*")
    field = f"X-mdaflow-Quarantine: {note.stem}\n".encode()
    second = next(
        e for e in [quarantined(here, field + VIRUS + RAW), *all_held(here)] if e != first
    )
    assert let_go(here, second) == "250 2.0.0 Saved to INBOX"
    assert all_held(here) == [first]
    assert note.exists()


def test_two_at_once(here: Here) -> None:
    """Of those who release a message at once one does; the others are told."""
    here.set(CAUGHT)
    each = quarantined(here)
    site, began = here.site, threading.Barrier(4)

    def once() -> str:
        began.wait(10)
        try:
            return str(release.release(site, each))
        except (TempFail, NotHeld) as error:
            return type(error).__name__

    with ThreadPoolExecutor(4) as pool:
        said = sorted(future.result(20) for future in [pool.submit(once) for _ in range(4)])
    assert sum(text.startswith("250 ") for text in said) == 1
    assert here.folders == {"INBOX": 1}
    assert all_held(here) == []


def test_not_deleted(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    """When a delivered message cannot be deleted, that is said."""
    here.set(CAUGHT)
    each = quarantined(here)

    def refuse(*_: object) -> None:
        raise TempFail(INTERNAL, "read-only")

    monkeypatch.setattr(held.Taken, "remove", refuse)
    with pytest.raises(NotDeleted, match="delivered, but it is still in the quarantine"):
        let_go(here, each)
    assert here.folders == {"INBOX": 1}


# --- trouble -----------------------------------------------------------------------------------

STEPS: dict[str, tuple[Any, str]] = {
    "fsync": (os, "fsync"),
    "unlink": (os, "unlink"),
    "rename": (maildir, "_rename"),
    "remove": (held.Taken, "remove"),
}
"""Where a release may be killed, before and after."""


def killed(here: Here, each: Held, at: int) -> bool:
    """Release a message in a process that is killed at one of its steps; False if it had fewer."""
    pid = os.fork()
    if pid == 0:
        try:
            _kill_at(at)
            site = here.open()
            release.release(site, each)
        finally:
            os._exit(0)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status) == -signal.SIGKILL


def _kill_at(at: int) -> None:
    steps = iter(range(1000))

    def watched(act: Callable[..., Any]) -> Callable[..., Any]:
        def step(*arguments: Any, **more: Any) -> Any:
            _die(next(steps) == at)
            done = act(*arguments, **more)
            _die(next(steps) == at)
            return done

        return step

    for owner, name in STEPS.values():
        setattr(owner, name, watched(getattr(owner, name)))


def _die(now: bool) -> None:
    if now:
        os.kill(os.getpid(), signal.SIGKILL)


def test_killed(here: Here) -> None:
    """Killed at any step, it is in the inbox or in the quarantine; once released again, it is
    there once or twice, and in the quarantine no more."""
    here.set(CAUGHT)
    copies: list[int] = []
    for at in range(100):
        each = quarantined(here)
        here.close()
        was_killed = killed(here, each, at)
        inbox = here.folders.get("INBOX", 0)
        assert inbox or all_held(here) == [each]
        if all_held(here):
            assert let_go(here, each) == "250 2.0.0 Saved to INBOX"
        copies.append(here.folders["INBOX"])
        for path in (here.home / "Maildir").glob("*/*"):
            path.unlink()
        if not was_killed:
            break
    assert len(copies) > 10
    assert set(copies) == {1, 2}
    assert copies[-1] == 1
    assert all_held(here) == []


def test_full_disk(here: Here) -> None:
    """On a full disk it is not delivered, and stays (452)."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to mount a small disk")
    here.set(CAUGHT)
    each = quarantined(here)
    mailbox = here.home / "Maildir"
    mailbox.mkdir()
    mount = ("mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", mailbox)
    subprocess.run((need("mount"), *mount[1:]), check=True)
    try:
        (mailbox / "ballast").write_bytes(bytes(60 << 10))
        big = VIRUS + RAW + b"x" * 100_000
        larger = quarantined(here, big)
        assert let_go(here, larger).startswith("452 4.3.1 ")
        assert set(all_held(here)) == {each, larger}
    finally:
        subprocess.run(("umount", mailbox), check=True)
    assert let_go(here, larger) == "250 2.0.0 Saved to INBOX"


# --- learning ----------------------------------------------------------------------------------


def test_learn(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    """A message is learned for the site, as it came, and stays."""
    seen: list[tuple[str, bytes]] = []
    learner = lambda job, message, owner: seen.append((owner, bytes(message.raw)))  # noqa: E731
    here.set(CAUGHT)
    each = quarantined(here)
    monkeypatch.setattr(here, "_site", replace(here.site, learners={"ham": learner}))
    release.learn(here.site, each, "ham")
    [(whose, raw)] = seen
    assert whose == "site"
    assert raw.startswith(b"Delivered-To: ")
    assert all_held(here) == [each]
