"""What a test is about."""

from __future__ import annotations

from collections.abc import Hashable

from mdaflow.lang import ir
from mdaflow.lang.subjects import type_of

Key = tuple[Hashable, ...]

ADDRESS_FIELDS = {
    "from": "from", "to": "to", "cc": "cc", "bcc": "bcc", "reply-to": "reply_to",
    "sender": "sender",
}  # fmt: skip
"""Header fields of addresses -> the subjects that read them."""


def aspect(subject: ir.Subject) -> str:
    """What a subject gives: its part, or what it is itself."""
    if type_of(subject.name, "") == "address" and subject.part in ("", "address"):
        return "path" if subject.name.startswith("envelope.") else "address"
    if subject.name == "header" and all(a.lower() in ADDRESS_FIELDS for a in subject.arguments):
        return "address field"
    return subject.part or subject.name


def is_address(subject: ir.Subject) -> bool:
    """It gives whole addresses."""
    return aspect(subject) in ("address", "path")


def shown(subject: ir.Subject) -> str:
    """A subject as it is named in a message."""
    return " ".join((subject.words, *(f'"{name}"' for name in subject.arguments[:1])))


def read_by(subject: ir.Subject, *, wide: bool = False) -> list[Key]:
    """What a subject reads; `wide`: also what is read there under other names."""
    names: tuple[str, ...] = (subject.name,)
    if wide and subject.name == "recipients" and subject.part != "count":
        names = ("recipients", "to", "cc", "bcc")
    part = "" if is_address(subject) else subject.part
    fields = [name.lower() for name in subject.arguments] or [""]
    return [(name, part, field, subject.raw) for name in names for field in fields]
