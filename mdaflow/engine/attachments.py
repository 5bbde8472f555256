"""Attachments: what their headers say, and what those who have looked into them say.

A name has a value for each of its readings, and so has an extension: a test that is true of one of
them holds, and `every` asks all of them.
"""

from __future__ import annotations

from collections.abc import Sequence

from mdaflow.lang.ir import Subject
from mdaflow.mail.names import extensions, names
from mdaflow.mail.raw import digest

from .context import Context, Values, ask


def attachment(context: Context, subject: Subject) -> Values:
    """The values of all attachments together."""
    if subject.part == "count":
        return [float(len(context.message.attachments))]
    found = attachment_values(context, subject.part)
    return None if found is None else [value for several in found for value in several or ()]


def attachment_values(context: Context, part: str) -> Sequence[Values] | None:
    """The values of a part, for each attachment; None is unknown."""
    parts = context.message.attachments
    match part:
        case "count":  # of all, also in a test of one
            return [[float(len(parts))] for _ in parts]
        case "size":
            return [[float(sum(map(len, p.pieces())))] for p in parts]
        case "declared_type":
            return [[(p.type,)] for p in parts]
        case "extension":
            return [[(e,) for e in extensions(names(p))] for p in parts]
        case "sha256":
            return [[(digest(p.pieces()),)] for p in parts]
        case "type" | "inner" | "danger":
            return _asked_of_attachments(context, f"attachment.{part}")
    return [[(name,) for name in names(p) or (p.type,)] for p in parts]


def _asked_of_attachments(context: Context, name: str) -> Sequence[Values] | None:
    """One answer for each attachment, as far as somebody looked: a text, or several."""
    found = ask(context, name)
    if found is None:
        return None
    return [[(v,) for v in ([each] if isinstance(each, str) else each)] for each in found]
