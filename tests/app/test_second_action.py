"""`also deliver`, and a second action that fails: every action, wherever and however it fails.

The rules, the mailbox, the store and the next hop are real ones. The deliverer of the second action
fails as it is told, twice; then it works.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from importlib import import_module
from itertools import product
from typing import Any, NamedTuple

import pytest
from fake_mta import FakeMTA
from here import Here

from mdaflow import deliver
from mdaflow.deliver.execute import DELIVERERS
from mdaflow.deliver.mailbox import Prepared
from mdaflow.engine.plan import OUTCOMES, STORING
from mdaflow.errors import LOCKED, PermFail, Status, TempFail

NEVER = Status(550, "5.7.1", "Never")


class Second(NamedTuple):
    """A second action, where its message is besides, and how many are sent."""

    rules: str
    folders: tuple[str, ...] = ()
    sent: int = 0


KEPT = ("INBOX",)
SECOND = {
    "deliver": Second('deliver to "b"', ("b",)),
    "keep": Second("keep", KEPT),
    "forward": Second('forward to "x@example.com"', sent=1),
    "pipe": Second('pipe to ["/bin/sh", "-c", "echo >> ran"]'),
    "quarantine": Second('quarantine "odd"'),
    "reply": Second('reply "Gone"', KEPT, 1),
    "notify": Second('notify "x@example.com" "News"', KEPT, 1),
    "remember": Second('remember "it" for 1 day', KEPT),
    "learn": Second("learn spam", KEPT),
    "log": Second('log "x"', KEPT),
}
NOTHING_TO_DO = {"discard", "reject", "defer"}
FAILURES: dict[str, tuple[Callable[[], Exception], str]] = {
    "temporary": (lambda: TempFail(LOCKED), "451 4.2.0"),
    "permanent": (lambda: PermFail(NEVER), "550 5.7.1"),
    "disk": (lambda: OSError(errno.ENOSPC, "No space left on device"), "452 4.3.1"),
    "bug": (lambda: ZeroDivisionError(), "451 4.3.0"),
}


class Trouble:
    """What stands before a deliverer: it fails `left` times, at a stage, with a failure."""

    def __init__(self, real: Callable[..., Prepared], stage: str, fail: Callable[[], Exception]):
        self.real, self.stage, self.fail = real, stage, fail
        self.left = 2
        self.done = 0

    def about(self, verb: str) -> Callable[..., Prepared]:
        """The deliverer of an action; of copies, only that of the second action fails."""
        folder = {"deliver": "b", "keep": ""}.get(verb)

        def prepare(*arguments: Any) -> Prepared:
            if folder is not None and arguments[1] != folder:
                return self.real(*arguments)
            self.raise_at("prepare")
            return _Watched(self.real(*arguments), self)

        return prepare

    def raise_at(self, stage: str) -> None:
        if stage == self.stage and self.left:
            self.left -= 1
            raise self.fail()


class _Watched:
    """Something prepared, whose commit may fail; then it has cleaned up."""

    def __init__(self, prepared: Prepared, trouble: Trouble) -> None:
        self._prepared, self._trouble = prepared, trouble

    @property
    def where(self) -> str:
        return self._prepared.where

    def commit(self) -> None:
        try:
            self._trouble.raise_at("commit")
        except BaseException:
            self._prepared.abort()
            raise
        self._prepared.commit()
        self._trouble.done += 1

    def abort(self) -> None:
        self._prepared.abort()


def trouble(
    here: Here, patch: pytest.MonkeyPatch, verb: str, stage: str, fail: Callable[[], Exception]
) -> Trouble:
    """Let the deliverer of an action have trouble."""
    if verb in STORING:
        found = Trouble(deliver.FORMATS[here.format], stage, fail)
        patch.setitem(deliver.FORMATS, here.format, found.about(verb))
    else:
        module = import_module(f"mdaflow.deliver.{DELIVERERS[verb]}")
        found = Trouble(module.prepare, stage, fail)
        patch.setattr(module, "prepare", found.about(verb))
    return found


def test_every_action_is_here() -> None:
    """The table has every action that there is something to do for."""
    assert set(SECOND) | NOTHING_TO_DO == set(OUTCOMES) | set(DELIVERERS)


def possible(verb: str, stage: str, failure: str, first: str) -> bool:
    """Two copies for the inbox are one, and no mailbox refuses at commit (see `Prepared`)."""
    return (verb, first) != ("keep", "INBOX") and not (
        verb in STORING and (stage, failure) == ("commit", "permanent")
    )


@pytest.mark.parametrize(
    ("verb", "stage", "failure", "first"),
    [
        case
        for case in product(SECOND, ("prepare", "commit"), FAILURES, ("a", "INBOX"))
        if possible(*case)
    ],
)
def test_second_action_fails(
    verb: str, stage: str, failure: str, first: str, both: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the commits nothing is stored, later what was done is not done again; the reply is
    that of the failure; what can never work is kept, unless it is the mailbox itself (P10, P11)."""
    second, (fail, reply) = SECOND[verb], FAILURES[failure]
    watched = trouble(both, monkeypatch, verb, stage, fail)
    both.grant = ("pipe", "learn")
    copy = 'also deliver to "a"' if first == "a" else "also keep"
    copies = {first, *second.folders} - ({"b", *KEPT} - {first} if verb in STORING else set())
    with FakeMTA() as mta:
        both.hop = mta.hop
        both.set(f"{copy} {second.rules}")
        if failure == "permanent":
            status = both.send()
            if verb in STORING:
                assert str(status).startswith(reply)
                assert both.folders == {}
            else:
                assert status.ok
                assert both.folders == {**dict.fromkeys({first, *KEPT}, 1), "notices": 1}
            assert mta.taken == []
        else:
            for _ in range(2):
                assert str(both.send()).startswith(reply)
                done = copies if stage == "commit" else ()
                assert both.folders == dict.fromkeys(done, 1)
            assert mta.taken == []
            assert both.send().ok
            assert both.folders == dict.fromkeys({first, *second.folders}, 1)
            assert len(mta.taken) == second.sent
            assert watched.done == 1
    ran = both.home / "ran"
    assert (ran.read_text() if ran.exists() else "") == "\n" * watched.done * (verb == "pipe")
    quarantined = list(both.root.glob("quarantine/*/new/*"))
    assert len(quarantined) == watched.done * (verb == "quarantine")
    assert both.leftovers() == []


ALL = """\
also pipe to ["/bin/sh", "-c", "echo >> ran"]
also forward to "x@example.com"
also quarantine "odd"
deliver to "b"
"""


@pytest.mark.parametrize(
    ("verb", "done"),
    [
        ("deliver", ()),
        ("quarantine", ("b",)),
        ("forward", ("b", "quarantine")),
        ("pipe", ("b", "quarantine", "forward")),
    ],
)
def test_what_cannot_be_taken_back_comes_last(
    verb: str, done: tuple[str, ...], both: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the order of the rules, copies come before what is sent, and programs run last;
    when one fails, those behind it have not begun, and in the end each was done once."""
    both.grant = ("pipe",)
    both.set(ALL)
    trouble(both, monkeypatch, verb, "commit", lambda: TempFail(LOCKED))
    ran = both.home / "ran"
    with FakeMTA() as mta:
        both.hop = mta.hop

        def seen() -> set[str]:
            return {
                *both.folders,
                *["quarantine"] * len(list(both.root.glob("quarantine/*/new/*"))),
                *["forward"] * len(mta.taken),
                *["pipe"] * ran.exists(),
            }

        for _ in range(2):
            assert str(both.send()).startswith("451 4.2.0")
            assert seen() == set(done)
        assert both.send().ok
        assert seen() == {"b", "quarantine", "forward", "pipe"}
        assert (len(mta.taken), ran.read_text(), both.folders) == (1, "\n", {"b": 1})
    assert both.leftovers() == []
