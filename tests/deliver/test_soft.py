"""Actions that never fail a delivery: remember, log, learn."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from mdaflow.deliver import soft
from mdaflow.deliver.job import Job, Learner, Means, Memory
from mdaflow.deliver.mailbox import Mailbox
from mdaflow.deliver.soft import remembered
from mdaflow.engine.plan import Action
from mdaflow.lang.source import Span
from mdaflow.mail.envelope import Envelope
from mdaflow.mail.message import Message
from mdaflow.store.memory import MemoryStore
from mdaflow.store.sqlite import SqliteStore

BOB, EVE = "bob@example.org", "eve@example.org"


class Broken:
    """A store that is away."""

    def get(self, key: str) -> str | None:
        raise OSError("no store\nhere")

    def put(self, key: str, value: str, seconds: float | None = None) -> None:
        raise OSError("no store\nhere")

    def add(self, key: str, value: str, seconds: float | None = None) -> bool:
        raise OSError("no store\nhere")


class Noted(MemoryStore):
    """A store that notes what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[tuple[str, float | None]] = []

    def put(self, key: str, value: str, seconds: float | None = None) -> None:
        self.told.append((key, seconds))
        super().put(key, value, seconds)


def carry_out(
    action: Action, memory: Memory | None = None, recipient: str = BOB, **learners: Learner
) -> str:
    mailbox = Mailbox("maildir", "/nonexistent", "Maildir")
    envelope = Envelope("ann@example.com", recipient)
    job = Job(
        Message(b"Subject: x\n\n"),
        envelope,
        mailbox,
        "id1",
        Means(memory=memory, learners=learners),
    )
    prepared = soft.prepare(job, action)
    prepared.commit()
    prepared.abort()
    return prepared.where


def remember(key: str, owner: str = "user") -> Action:
    return Action("remember", text=key, owner=owner, options=(("for", 604800.0),))


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Callable[[], list[tuple[str, str]]]:
    """Level and text of every line of the log."""
    logger = logging.getLogger("mdaflow")
    caplog.set_level(logging.INFO, logger.name)
    if not logger.propagate:  # another test has set up the log
        logger.addHandler(caplog.handler)
    return lambda: [(record.levelname, record.getMessage()) for record in caplog.records]


@pytest.mark.parametrize("owner", ["user", "site"])
def test_remember(owner: str) -> None:
    """What is remembered is known afterwards, for as long as was said."""
    memory = Noted()
    assert remembered(memory, owner, BOB, "key") is False
    assert carry_out(remember("key", owner), memory) == "remember"
    assert remembered(memory, owner, BOB, "key") is True
    assert remembered(memory, owner, BOB, "other") is False
    assert [seconds for _, seconds in memory.told] == [604800.0]


def test_remember_for_good() -> None:
    """Without a time a key is kept for good."""
    memory = Noted()
    carry_out(Action("remember", text="key"), memory)
    assert [seconds for _, seconds in memory.told] == [None]


def test_users_have_their_own_keys() -> None:
    """A user's keys are known neither to other users nor to the site, nor the other way."""
    memory = MemoryStore()
    carry_out(remember("mine"), memory)
    carry_out(remember("ours", "site"), memory)
    assert remembered(memory, "user", EVE, "mine") is False
    assert remembered(memory, "site", BOB, "mine") is False
    assert remembered(memory, "user", BOB, "ours") is False
    assert remembered(memory, "site", EVE, "ours") is True


def test_keys_are_never_confused() -> None:
    """Where the address ends and the key begins is no matter of taste."""
    memory = MemoryStore()
    carry_out(remember("b c"), memory, recipient="a")
    assert remembered(memory, "user", "a b", "c") is False
    assert remembered(memory, "user", "a", "b c") is True
    carry_out(remember(f"{len(EVE)} {EVE} x", "site"), memory)
    assert remembered(memory, "user", EVE, "x") is False


def test_keys_without_regard_to_case() -> None:
    """Keys are compared as all text of the rules, addresses literally (P49)."""
    memory = MemoryStore()
    carry_out(remember("Straße"), memory)
    assert remembered(memory, "user", BOB, "STRASSE") is True
    assert remembered(memory, "user", BOB.title(), "straße") is False


@pytest.mark.parametrize("key", ["", "x" * 1_000_000, "a\0b", "\ud800", "\udc80 ä\n"])
def test_odd_keys(tmp_path: Path, key: str) -> None:
    """A key of any length and any characters is remembered, and takes little room."""
    store = SqliteStore(str(tmp_path / "state.sqlite"))
    try:
        carry_out(remember(key), store)
        assert remembered(store, "user", BOB, key) is True
        assert remembered(store, "user", BOB, f"{key}x") is False
    finally:
        store.close()
    assert (tmp_path / "state.sqlite").stat().st_size < 100_000


@pytest.mark.parametrize(
    ("memory", "cause"), [(None, "there is no store"), (Broken(), "no store here")]
)
def test_no_store(
    memory: Memory | None, cause: str, lines: Callable[[], list[tuple[str, str]]]
) -> None:
    """A store that is away costs a warning; whether something is remembered is unknown."""
    assert carry_out(remember("key"), memory) == "remember"
    assert lines() == [("WARNING", f"<{BOB}>: remember failed: {cause}")]
    assert remembered(memory, "user", BOB, "key") is None


def test_log(lines: Callable[[], list[tuple[str, str]]]) -> None:
    """A text of the rules is one clean line of our log, with its place."""
    span = Span("/home/bob/rules", 7, 5, 7, 20)
    text = 'seen\n2025 forged line\x1b[1m \0"' + "x" * 5000
    assert carry_out(Action("log", text=text, span=span)) == "log"
    [(level, line)] = lines()
    assert level == "INFO"
    assert line.startswith(f'<{BOB}>: rules:7: seen 2025 forged line [1m "xxx')
    assert line.isprintable()
    assert len(line) < 1100


def test_log_is_no_format(lines: Callable[[], list[tuple[str, str]]]) -> None:
    """Percent signs and braces are only that."""
    carry_out(Action("log", text="100%s {x} %(name)s"))
    assert lines() == [("INFO", f"<{BOB}>: 100%s {{x}} %(name)s")]


@pytest.mark.parametrize("kind", ["spam", "ham"])
def test_no_classifier(kind: str, lines: Callable[[], list[tuple[str, str]]]) -> None:
    """Without a classifier nothing is learned, and the log says so."""
    where = carry_out(Action("learn", text=kind))
    assert where == "learned nothing: no classifier is configured"
    assert lines() == []


def test_learn() -> None:
    """A classifier learns for the rule's owner from the message as it was when this was planned."""
    seen: list[tuple[bytes, str]] = []

    def learn(job: Job, message: Message, owner: str) -> None:
        seen.append((message.raw[:], owner))

    assert carry_out(Action("learn", text="spam"), spam=learn) == "learned spam"
    changed = Message(b"changed")
    carry_out(Action("learn", text="spam", owner="site", message=changed), spam=learn)
    assert seen == [(b"Subject: x\n\n", "user"), (b"changed", "site")]


def test_learner_that_fails(lines: Callable[[], list[tuple[str, str]]]) -> None:
    """A classifier that breaks costs a warning, never the delivery."""

    def fail(job: Job, message: Message, owner: str) -> None:
        raise ZeroDivisionError("too few words")

    carry_out(Action("learn", text="ham"), ham=fail)
    assert lines() == [("WARNING", f"<{BOB}>: learn failed: too few words")]
