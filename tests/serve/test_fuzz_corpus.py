"""What the fuzzer of contrib/fuzz once found, played to the LMTP server again."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

FUZZ = Path(__file__).parents[2] / "contrib" / "fuzz"
CORPUS = sorted((FUZZ / "corpus" / "lmtp").iterdir())


@pytest.fixture(scope="module")
def target() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fuzz_lmtp", FUZZ / "lmtp.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_corpus(target: ModuleType) -> None:
    """Whatever is sent, replies and deliveries are in order."""
    assert 0 < len(CORPUS) <= 300
    for path in CORPUS:
        raw = path.read_bytes()
        assert len(raw) <= target.MAX_INPUT
        try:
            target.check(raw)
        except Exception as error:
            error.add_note(f"from {path}")
            raise


@pytest.mark.parametrize(
    ("sent", "written", "delivered"),
    [
        (b"NOOP\r\n", b"220 x\r\n", []),
        (b"", b"220 x\r\n250 2.0.0 Ok\r\n", []),
        (b"NOOP\r\n", b"220 x\r\n250 Ok\r\n", []),
        (b"NOOP\r\n", b"220 x\r\n250 2.0.0 Ok", []),
        (b"NOOP\r\n", b"220 x\r\n250 2.0.0 a\nb\r\n", []),
        (b"NOOP\r\n", b"220 x\r\n250-2.0.0 Ok\r\n", []),
        (b"DATA\r\n", b"220 x\r\n354 go\r\n", []),
        (b"NO\rOP\r\n", b"220 x\r\n250 2.0.0 Ok\r\n", []),
        (b"RCPT TO:<a@x>\r\nDATA\r\na\r\n.\r\n", b"220 x\r\n250 2.1.5 Ok\r\n354 go\r\n", []),
        (
            b"RCPT TO:<a@x>\r\nDATA\r\na\r\n.\r\n",
            b"220 x\r\n250 2.1.5 Ok\r\n354 go\r\n250 2.0.0 <a@x> Saved\r\n",
            [("a@x", b"a\n"), ("a@x", b"a\n")],
        ),
        (
            b"RCPT TO:<a@x>\r\nDATA\r\n..a\r\n.\r\n",
            b"220 x\r\n250 2.1.5 Ok\r\n354 go\r\n250 2.0.0 <a@x> Saved\r\n",
            [("a@x", b"..a\n")],
        ),
    ],
)
def test_target_sees(
    target: ModuleType, sent: bytes, written: bytes, delivered: list[tuple[str, bytes]]
) -> None:
    """The target is blind to none of what it looks for."""
    crew = target.Crew()
    crew.accepted = ["a@x"]
    crew.delivered = delivered
    with pytest.raises(target.Broken):
        target.judge(target.Play("EOF", sent, written, crew))
