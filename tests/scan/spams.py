"""Messages that are copies of each other, or not, and folders to put them into."""

from __future__ import annotations

import random
from pathlib import Path

WORDS = (
    *("about", "after", "again", "almost", "always", "amount", "angle", "animal"),
    *("answer", "appear", "apple", "around", "autumn", "balance", "basket", "because"),
    *("before", "behind", "between", "bottle", "bridge", "bright", "broken", "brother"),
    *("button", "camera", "candle", "carpet", "castle", "center", "chance", "change"),
    *("circle", "clever", "cloud", "coffee", "collar", "common", "copper", "corner"),
    *("cotton", "cousin", "danger", "debate", "desert", "dinner", "doctor", "dollar"),
    *("double", "dragon", "effort", "engine", "enough", "error", "escape", "family"),
    *("farmer", "feather", "finger", "flower", "forest", "fortune", "garden", "gentle"),
    *("giant", "golden", "grammar", "ground", "hammer", "handle", "harbor"),
)


def text(seed: int, words: int = 120) -> str:
    """Some words; other ones for another seed."""
    return " ".join(random.Random(seed).choices(WORDS, k=words))


def mail(body: str, header: str = "Subject: hello\n") -> bytes:
    """A message of one text."""
    return f"From: ann@example.com\n{header}\n{body}\n".encode()


def maildir(path: Path, *messages: bytes) -> Path:
    """A Maildir with some messages."""
    for name in ("new", "cur", "tmp"):
        (path / name).mkdir(parents=True, exist_ok=True)
    for message in messages:
        put(path, message)
    return path


def put(path: Path, message: bytes) -> Path:
    """One more message of a Maildir."""
    number = sum(1 for _ in path.glob("*/*"))
    new = path / "new" / f"{1_700_000_000 + number}.M{number}P1.host"
    new.write_bytes(message)
    return new
