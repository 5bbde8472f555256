"""The words a test can start with: one table, for `check` and for the engine's facts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

TYPES = {
    "address": "an address",
    "text": "text",
    "number": "a number",
    "truth": "true or false",
    "moment": "a date",
    "day": "a day",
    "clock": "a time of day",
}
"""What a value can be, in words."""

ADDRESS_PARTS = {
    **dict.fromkeys(("address", "user", "detail", "domain", "name"), "text"),
    "count": "number",
}
MOMENT_PARTS = {
    **dict.fromkeys(("year", "month", "day", "hour", "minute"), "number"),
    "weekday": "text",
    "date": "day",
    "time": "clock",
    "zone": "text",
    "age": "number",
}
ATTACHMENT_PARTS = {
    **dict.fromkeys(("name", "extension", "type", "declared_type", "sha256"), "text"),
    **dict.fromkeys(("inner", "danger"), "text"),
    "size": "number",
    "count": "number",
}


class Kind(NamedTuple):
    """What a subject gives: one of `TYPES`, and the types of its parts."""

    type: str
    parts: Mapping[str, str] = {}
    argument: bool = False
    """Followed by one name or a list of names: `header "X"`."""
    raw: bool = False
    """`raw` before it gives the undecoded text."""
    asked: bool = False
    """Neither message nor envelope tell: somebody has to be asked, or it is unknown."""


_ADDRESS = Kind("address", ADDRESS_PARTS)
_FIELD = Kind("text", {"count": "number"}, raw=True)
_TEXT = Kind("text")
_NUMBER = Kind("number")
_TRUTH = Kind("truth")
_MOMENT = Kind("moment", MOMENT_PARTS)
_ASKED = {type: Kind(type, asked=True) for type in ("text", "number", "truth")}

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
    "subject": _FIELD,
    "list_id": _FIELD,
    "message_id": _FIELD,
    "header": _FIELD._replace(argument=True),
    "body": _FIELD,
    "body.html": _TEXT,
    "size": _NUMBER,
    "lines": _NUMBER,
    "attachment": Kind("text", ATTACHMENT_PARTS),
    "date": _MOMENT,
    "received": _MOMENT,
    "client.ip": _TEXT,
    "client.name": _TEXT,
    "client.helo": _TEXT,
    "auth.spf": _TEXT,
    "auth.dkim": _TEXT,
    "auth.dmarc": _TEXT,
    "bounce": _TRUTH,
    "automatic": _TRUTH,
    "mailing_list": _TRUTH,
    "personal": _TRUTH,
    "encrypted": _TRUTH,
    "signed": _TRUTH,
    "multipart": _TRUTH,
    "ambiguous": _ASKED["truth"],
    "duplicate": _ASKED["truth"],
    "known_sender": _ASKED["truth"],
    "unscanned": _ASKED["text"],
    "virus.found": _ASKED["truth"],
    "virus.unscanned": _ASKED["truth"],
    "virus.name": _ASKED["text"],
    "virus.status": _ASKED["text"],
    "spam": _ASKED["truth"],
    "spam.score": _ASKED["number"],
    "spam.bayes": _ASKED["number"],
    "spam.symbols": _ASKED["text"],
    "spam.status": _ASKED["text"],
    "spam.unscanned": _ASKED["truth"],
    "finding": _ASKED["text"]._replace(argument=True),
}

SCORE = "score"
"""The subject whose parts are the running scores that a program keeps."""


def split(words: str) -> tuple[str, str]:
    """Subject and part of a dotted word: `envelope.from.domain` is `envelope.from`, `domain`."""
    if words in SUBJECTS:
        return words, ""
    name, _, part = words.rpartition(".")
    return (name, part) if name in SUBJECTS or name == SCORE else (words, "")


def type_of(name: str, part: str) -> str:
    """What `name.part` gives, one of `TYPES`; a name that is no subject is a variable."""
    if name == SCORE:
        return "number"
    if name not in SUBJECTS:
        return "text"
    return SUBJECTS[name].parts[part] if part else SUBJECTS[name].type


def is_asked(name: str, part: str) -> bool:
    """Does somebody have to be asked for it?"""
    if name == "attachment":
        return part in ("type", "inner", "danger")
    return name in SUBJECTS and SUBJECTS[name].asked
