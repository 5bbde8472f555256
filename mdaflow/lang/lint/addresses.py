"""The user's own addresses, and lists of addresses."""

from __future__ import annotations

from collections.abc import Iterator

from mdaflow.lang import ir
from mdaflow.lang.source import Problem
from mdaflow.lang.subjects import split
from mdaflow.mail.letter import address_of

from .view import View

MAX_LABELS = 128
"""Labels of a domain that are looked at: it has no more (RFC 1035 section 2.3.4)."""


def forward_self(view: View) -> Iterator[Problem]:
    """What is forwarded comes back."""
    for act in view.all(ir.Act):
        for text in act.operands if act.verb == "forward" else ():
            if address := _to_self(view, text):
                yield Problem.of(text.span, "forward-self", address=address)


def _to_self(view: View, text: ir.Text) -> str:
    """The text, if it is an address of the user; else nothing."""
    match text.parts:
        case (ir.Hole(name=name, filters=()),):
            mine = split(name)[0] in ("envelope.to", "envelope.original")
            return f"{{{name}}}" if mine else ""
        case (str(address),) if _is_own(view, address):
            return address
    return ""


def reply_from(view: View) -> Iterator[Problem]:
    """A reply from an address that is none of the user's."""
    for act in view.all(ir.Act):
        sender = dict(act.options).get("from") if act.verb == "reply" else None
        said = sender.literal if isinstance(sender, ir.Text) else None
        address = address_of(said or "")
        if sender and address and view.own and not _is_own(view, address):
            yield Problem.of(sender.span, "reply-from", address=address)


def alias_self(view: View) -> Iterator[Problem]:
    """A recipient that stands for itself and nobody else."""
    for alias in view.all(ir.Alias):
        if {target.casefold() for target in alias.targets} == {alias.name.casefold()}:
            yield Problem.of(alias.span, "alias-self", name=alias.name)


def _is_own(view: View, address: str) -> bool:
    return any(entry in view.own for entry in wider(address.casefold()))


def wider(entry: str) -> Iterator[str]:
    """The entries of a list that match all that this one matches, itself first."""
    yield entry
    local, at, domain = entry.rpartition("@")
    if local and domain:
        yield from (f"@{domain}", f"{local}@")
    if domain and (at or domain[0] == "."):
        labels = domain.removeprefix(".").split(".")[-MAX_LABELS:]
        yield from ("." + ".".join(labels[n:]) for n in range(len(labels)))
