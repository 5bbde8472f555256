"""What actions are given: programs, addresses, flags and folders."""

from __future__ import annotations

import re

from mdaflow.lang import ir
from mdaflow.lang.source import Span, one_of
from mdaflow.mail.letter import is_address

from .scope import Scope

_KEYWORD = re.compile(r"[!#$&'+-\[^-z|}~]{1,60}")  # RFC 3501, flag-keyword
_ADDRESS = re.compile(r"[^\s@<>,;:\"\\]+@[^\s@<>,;:\"\\]+")


def check_program(scope: Scope, span: Span, program: tuple[ir.Text, ...]) -> None:
    """A program is named literally: what it is must not come out of the mail."""
    if not program or not program[0].literal:
        scope.problem(program[0].span if program else span, "program-literal")


def check_address(scope: Scope, span: Span, address: str) -> None:
    """Can it be an address to send to?"""
    if not _ADDRESS.fullmatch(address) and not ("@" in address and is_address(address)):
        scope.problem(span, "no-address", address=address)


def check_flags(scope: Scope, span: Span, flags: tuple[str, ...]) -> None:
    """System flags and keywords of IMAP (RFC 3501 section 2.3.2)."""
    known = {name.lower() for name in ir.FLAGS}
    for flag in flags:
        if flag.lower() not in known and not _KEYWORD.fullmatch(flag):
            names = one_of([name.replace("\\", "\\\\") for name in ir.FLAGS])
            scope.problem(span, "unknown-flag", flag=flag, known=names)


def check_folder(scope: Scope, folder: ir.Text) -> None:
    """A folder name as far as it is literal, or the whole path of a mailbox."""
    first = folder.parts[0] if folder.parts else ""
    meant = _plain_levels(folder.literal or "") or "a/b"
    if not folder.parts:
        scope.problem(folder.span, "folder-empty", meant=meant)
    if isinstance(first, str) and first.startswith("/"):
        scope.problem(folder.span, "folder-absolute", meant=meant)
        return
    if isinstance(first, str) and first.startswith(("mbox:", "maildir:")):
        path = folder.literal
        if scope.power(folder.span, "files", first) and not (path and is_mailbox(path)):
            scope.problem(folder.span, "folder-path")
        return
    for part in folder.parts:
        if isinstance(part, str) and (wrong := _folder_problem(part, folder)):
            scope.problem(folder.span, wrong, meant=meant)


def _plain_levels(name: str) -> str:
    """The levels of a name as they may be written."""
    return "/".join(filter(None, (level.lstrip(".") for level in name.split("/"))))


def _folder_problem(piece: str, folder: ir.Text) -> str:
    """What is wrong with a literal piece of a folder name; empty when nothing is."""
    whole = folder.literal is not None
    if any(ord(char) < 32 or 127 <= ord(char) < 160 for char in piece):
        return "folder-control"
    if "\\" in piece:
        return "folder-backslash"
    levels = piece.split("/")
    inner = levels if whole else levels[1:-1]
    if any(level.startswith(".") for level in (levels if whole else levels[1:])):
        return "folder-dot"
    return "folder-empty" if not all(inner) else ""


def is_mailbox(path: str) -> bool:
    """Is it the whole path of a mailbox, `mbox:/path` or `maildir:/path`?"""
    kind, _, rest = path.partition(":")
    levels = rest.split("/")
    whole = kind in ("mbox", "maildir") and not levels[0] and len(levels) > 1
    return whole and all(
        level not in ("", ".", "..") and level.isprintable() for level in levels[1:]
    )
