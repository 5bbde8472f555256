"""Attachments: what their headers say, and what those who have looked into them say."""

from __future__ import annotations

from collections.abc import Sequence

from mdaflow.lang.ir import Subject
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
            names = [p.name.rstrip(" .") for p in parts]  # some systems leave those out
            return [[(name.rpartition(".")[2],)] if "." in name else [] for name in names]
        case "sha256":
            return [[(digest(p.pieces()),)] for p in parts]
        case "type" | "inner":
            return _asked_of_attachments(context, f"attachment.{part}")
    return [[(p.name or p.type,)] for p in parts]


def _asked_of_attachments(context: Context, name: str) -> Sequence[Values] | None:
    """One answer for each attachment, as far as somebody looked: a text, or several."""
    found = ask(context, name)
    if found is None:
        return None
    return [[(v,) for v in ([each] if isinstance(each, str) else each)] for each in found]
