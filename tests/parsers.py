"""Readers of mail that are not ours: email of Python, as strict as can be, and reformime."""

from __future__ import annotations

import email
import email.policy
import re
import subprocess
from email.message import EmailMessage
from typing import NamedTuple

from need import need


class Read(NamedTuple):
    """What a parser found."""

    fields: dict[str, str]
    parts: list[tuple[str, str]]
    """Type and decoded text of each part that has no parts."""


def by_email(raw: bytes) -> Read:
    """As Python's email reads it, which raises for every defect."""
    policy = email.policy.strict
    if raw.isascii():
        found = email.message_from_bytes(raw, policy=policy)
    else:  # RFC 6532
        found = email.message_from_string(raw.decode(), policy=policy.clone(utf8=True))
    assert isinstance(found, EmailMessage)
    fields = {name.lower(): str(value) for name, value in found.items()}
    assert len(fields) == len(found.items())
    leaves = [part for part in found.walk() if not part.is_multipart()]
    return Read(fields, [(p.get_content_type(), text_of(p)) for p in leaves])


def text_of(part: EmailMessage) -> str:
    raw = part.get_payload(decode=True)
    assert isinstance(raw, bytes)
    strict = part.get_content_type().startswith(("text/plain", "text/html"))
    return raw.decode("utf-8", "strict" if strict else "replace")


def by_reformime(raw: bytes) -> Read:
    """As reformime reads it: an independent reader of MIME."""

    def ask(*arguments: str) -> bytes:
        program = [need("reformime"), *arguments]
        return subprocess.run(program, input=raw, stdout=subprocess.PIPE, check=True).stdout

    structure = ask("-i").decode()
    sections = re.findall(r"^section: ([\d.]+)\ncontent-type: (\S+)$", structure, re.MULTILINE)
    parts = []
    for section, kind in sections:
        if not kind.startswith(("multipart/", "message/delivery-status")):
            strict = kind in ("text/plain", "text/html")
            content = ask("-s", section, "-e")
            parts.append((kind, content.decode("utf-8", "strict" if strict else "replace")))
    assert ask("-V") == b""
    return Read({}, parts)
