"""Types of attachments, with libmagic and without."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from mdaflow import Envelope, Message, compile_rules, run
from mdaflow.app.answers import Answers
from mdaflow.engine.context import Fact
from mdaflow.scan import magic
from mdaflow.store.memory import MemoryStore

ASK = Answers(MemoryStore())

PDF = Message(
    b'Content-Type: application/octet-stream; name="x.txt"\n'
    b"Content-Transfer-Encoding: base64\n\nJVBERi0xLjQKJeLjz9MK\n"
)
RULES = compile_rules('rule when attachment.type is "application/pdf" { deliver to "PDF" }')


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    magic.available.cache_clear()
    yield
    magic.available.cache_clear()


def test_type_by_content() -> None:
    """The content says what it is, whatever name and header say."""
    assert magic.attachment_types(Fact("attachment.type", PDF, Envelope())) == ["application/pdf"]
    assert run(RULES, PDF, ask=ASK).deciding.folder == "PDF"


def test_without_libmagic(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Without libmagic the type is unknown, which is said once, with what to do."""
    monkeypatch.setitem(sys.modules, "magic", None)
    plan = run(RULES, PDF, ask=ASK, trace=True)
    assert plan.implicit_keep
    assert "unknown" in [value for event in plan.trace for value in event.values or ()]
    run(RULES, PDF, ask=ASK)
    assert caplog.text.count("install it: apt-get install libmagic1") == 1
