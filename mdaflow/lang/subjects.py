"""The words a test can start with: one table, for `check` and for the engine's facts."""

from __future__ import annotations

from dataclasses import dataclass

ADDRESS_PARTS = ("address", "user", "detail", "domain", "name", "count")


@dataclass(frozen=True, slots=True)
class Kind:
    """What a subject gives: `type` is "address", "text", "number" or "truth"."""

    type: str
    parts: tuple[str, ...] = ()
    argument: bool = False
    """Followed by one name or a list of names: `header "X"`."""
    raw: bool = False
    """`raw` before it gives the undecoded text."""


_ADDRESS = Kind("address", ADDRESS_PARTS)
_TEXT = Kind("text", ("count",), raw=True)
_NUMBER = Kind("number")

SUBJECTS: dict[str, Kind] = {
    "from": _ADDRESS,
    "to": _ADDRESS,
    "cc": _ADDRESS,
    "bcc": _ADDRESS,
    "reply_to": _ADDRESS,
    "sender": _ADDRESS,
    "recipients": _ADDRESS,
    "envelope.from": _ADDRESS,
    "envelope.to": _ADDRESS,
    "envelope.original": _ADDRESS,
    "subject": _TEXT,
    "list_id": _TEXT,
    "message_id": _TEXT,
    "header": Kind("text", ("count",), argument=True, raw=True),
    "body": _TEXT,
    "size": _NUMBER,
    "lines": _NUMBER,
    "attachment": Kind("text", ("name", "extension", "type", "declared_type", "size", "count")),
    "client.ip": Kind("text"),
    "client.name": Kind("text"),
    "client.helo": Kind("text"),
}

NUMBER_PARTS = ("count", "size")


def split(words: str) -> tuple[str, str]:
    """Subject and part of a dotted word: `envelope.from.domain` is `envelope.from`, `domain`."""
    if words in SUBJECTS:
        return words, ""
    name, _, part = words.rpartition(".")
    return (name, part) if name in SUBJECTS else (words, "")


def type_of(name: str, part: str) -> str:
    """What `name.part` gives: "address", "text" or "number"."""
    if part in NUMBER_PARTS:
        return "number"
    return "text" if part else SUBJECTS[name].type
