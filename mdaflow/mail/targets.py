r"""What an address stands for, as aliases(5) and .forward files write it.

    ann, "ann smith"@example.org, \bob, "|/usr/bin/prog -x", /var/mail/archive, /srv/archive/,
    :include:/etc/lists/staff, :fail: 5.2.1 Ann has left, :defer: moving, :blackhole:

Items stand between commas; in files with an item a line, a line ends one, too. What a blank or a
comma is part of stands in double quotes. This is what sendmail, Postfix and Exim have in common,
with Exim's `:fail:`, `:defer:` and `:blackhole:`, whose text goes to the end. Programs are split
into words here, or left to a shell where a shell is wanted, as Postfix does. No I/O.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from typing import NamedTuple

from .letter import is_address

MAX_ITEM = 4096
"""Characters of an item."""
MAX_ITEMS = 10_000
"""Items of a text."""


class _Form(NamedTuple):
    """How a text is cut. A match takes memory for each round of a group: so these are bounded."""

    gap: re.Pattern[str]
    """What stands between items, or some of it."""
    part: re.Pattern[str]
    """A part of an item."""


_COMMENT = re.compile(r"^[ \t]*#[^\n]*", re.M)
_MOST = f"{{0,{MAX_ITEM}}}"
_ITEMS = _Form(
    re.compile(r"[\s,]+"),
    re.compile(rf'"(?:[^"\\]|\\.){_MOST}"|<[^<>"]{_MOST}>|<|[^,"<]+', re.DOTALL),
)
_LINES = _Form(
    re.compile(r"(?:^[ \t]*#[^\n]*|[\s,]){1,1000}", re.M),
    re.compile(rf'"(?:[^"\\\n]|\\.){_MOST}"|<[^<>"\n]{_MOST}>|<|[^,"<\n]+', re.DOTALL),
)
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_PAIR = re.compile(r"\\(.)", re.DOTALL)
_NAMED = re.compile(r'(?:"(?:[^"\\]|\\.)*"\s*|[^"<>@]*)<([^<>]*)>', re.DOTALL)
_NOTE = re.compile(r"(?<!\s)\s*\([^()\"\\]*\)\Z")
_NEEDLESS = re.compile(r'"((?:[^"\\]|\\.)*)"(@.*)?', re.DOTALL)
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f\ud800-\udfff]")
_BREAKING = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
"""What no address and no path has: it could make a line of its own in a log."""
_CLOSED = re.compile(r"""(?:[^\\'"]|\\.|'[^']*'|"(?:[^"\\]|\\.)*")*""", re.DOTALL)
"""A command that shlex takes, which is much slower."""
_FOR_A_SHELL = re.compile(r"[;&|<>()$`*?\[\]{}~!#\n]|\A\s*(?:exec|cd|export|test|\[|\w+=)")
_ENHANCED = re.compile(r"([245]\.[0-9]{1,3}\.[0-9]{1,3})(?:\s+|\Z)")


class TargetError(ValueError):
    """An item that is none, with its place in the text."""

    def __init__(self, reason: str, start: int, end: int) -> None:
        super().__init__(reason)
        self.start, self.end = start, end


class Target(NamedTuple):
    """One item, and where it stands in the text."""

    kind: str
    """One of `KINDS`."""
    value: str
    """An address or a local part; a command; a path; a text for the sender."""
    start: int = 0
    end: int = 0

    def __str__(self) -> str:
        before, after = KINDS[self.kind]
        return f"{before}{self.value}{after}"


KINDS = {
    "address": ("", ""),
    "user": ("\\", ""),
    "program": ('"|', '"'),
    "file": ("", ""),
    "include": (":include:", ""),
    "fail": (":fail: ", ""),
    "defer": (":defer: ", ""),
    "nothing": (":blackhole:", ""),
}
"""The kinds of targets, and how they are written: what stands before and behind the value."""
_WORDS = {":include:": "include", ":blackhole:": "nothing", ":fail:": "fail", ":defer:": "defer"}
_ALONE = ("fail", "defer")
_ON_A_LINE = ("address", "user", "file", "include")
_TOO_LONG = f"an item of more than {MAX_ITEM} characters"
_NOT_CLOSED = f"a quote is not closed in {MAX_ITEM} characters"


def parse_targets(text: str, *, by_line: bool = False, most: int = MAX_ITEMS) -> tuple[Target, ...]:
    """The items of a text. `by_line`: of a file, where a line ends an item and `#` begins one that
    says nothing. Raises TargetError, also for more than `most` items."""
    form = _LINES if by_line else _ITEMS
    start = _behind(form.gap, text, 0)
    opening = text[start : start + MAX_ITEM].lower()
    word = next((word for word in _WORDS if opening.startswith(word)), "")
    if _WORDS.get(word) in _ALONE:
        return (_alone(word, text, start, by_line),)
    found: list[Target] = []
    for target in _targets(text, start, form):
        if len(found) == most:
            raise TargetError(f"more than {most:,} items", target.start, target.end)
        found.append(target)
    return tuple(found)


def _alone(word: str, text: str, start: int, by_line: bool) -> Target:
    """What takes all that follows."""
    end = len(text.rstrip())
    if end - start > MAX_ITEM:
        raise TargetError(_TOO_LONG, start, start + MAX_ITEM)
    said = text[start + len(word) : end]
    return Target(_WORDS[word], _line(_COMMENT.sub("", said) if by_line else said), start, end)


def _behind(gap: re.Pattern[str], text: str, at: int) -> int:
    """Where what begins at a place and is no item ends."""
    while found := gap.match(text, at):
        at = found.end()
    return at


def _targets(text: str, at: int, form: _Form) -> Iterator[Target]:
    while at < len(text):
        end = _end(text, at, form.part)
        said = text[at:end].rstrip()
        yield _target(said, at, at + len(said))
        at = _behind(form.gap, text, end)


def _end(text: str, start: int, part: re.Pattern[str]) -> int:
    """Where the item that begins at a place ends."""
    end = start
    while found := part.match(text, end):
        end = found.end()
        if end - start > MAX_ITEM and len(text[start:end].rstrip()) > MAX_ITEM:
            raise TargetError(_TOO_LONG, start, end)
    if text[end : end + 1] == '"':
        raise TargetError(_NOT_CLOSED, end, end + 1)
    return end


def _target(said: str, start: int, end: int) -> Target:
    try:
        kind, value = _kind(said)
        if kind in _ON_A_LINE and _BREAKING.search(value):
            raise ValueError("a control character")
    except ValueError as error:
        raise TargetError(str(error), start, end) from None
    return Target(kind, value, start, end)


def _kind(said: str) -> tuple[str, str]:
    """What an item is. Raises ValueError."""
    whole = _QUOTED.fullmatch(said)
    inner = _bare(whole[1]) if whole else ""
    if inner[:1] in ("|", "/", ":", "\\"):
        said = inner
    if _CONTROL.search(said.replace("\n", " ") if said[:1] != "|" else said):
        raise ValueError("a control character")
    if said.startswith("#"):
        raise ValueError("`#` begins a comment only at the start of a line")
    if said.startswith("|"):
        return "program", _command(said[1:].strip())
    if said.startswith("/"):
        return _file(said)
    if said.startswith("\\"):
        return "user", _address(said[1:])
    for word, kind in _WORDS.items():
        if said.lower().startswith(word):
            return _special(kind, said[len(word) :].strip())
    if said.startswith(":"):
        raise ValueError(f"{said.split()[0][:40]} is none of {', '.join(_WORDS)}")
    named = _NAMED.fullmatch(said)
    return "address", _address(named[1].strip() if named else said)


def _special(kind: str, value: str) -> tuple[str, str]:
    if kind in _ALONE:
        raise ValueError(f":{kind}: stands alone")
    if kind == "include":
        if not value.startswith("/"):
            raise ValueError("the path of an :include: begins with /")
        return kind, _file(value)[1]
    if value:
        raise ValueError(":blackhole: takes nothing behind it")
    return kind, ""


def _file(path: str) -> tuple[str, str]:
    if any(part in (".", "..") for part in path.split("/")):
        raise ValueError("a path has no . and .. in it")
    return ("nothing", "") if path == "/dev/null" else ("file", path)


def _command(said: str) -> str:
    whole = _QUOTED.fullmatch(said)
    said = _bare(whole[1]) if whole else said
    if not said:
        raise ValueError("no program")
    if not _CLOSED.fullmatch(said):
        words(said)
    return said


def words(command: str) -> tuple[str, ...]:
    """The program of a command with its arguments; a shell's, if the command is one for a shell.

    Raises ValueError.
    """
    if _FOR_A_SHELL.search(command):
        return "/bin/sh", "-c", command
    try:
        return tuple(shlex.split(command))
    except ValueError as error:
        raise ValueError(f"the program's arguments: {error}".lower()) from None


def mailbox_of(path: str) -> str:
    """The path of a file as a mailbox of rules: a `/` at the end is that of a Maildir."""
    return f"maildir:{path.rstrip('/')}" if path.endswith("/") else f"mbox:{path}"


def _address(said: str) -> str:
    """An address, or a local part alone; or a domain alone, for the tables that know such.

    A note behind it says nothing, and quotes that it does not need are no part of it (RFC 5322
    section 3.2.4).
    """
    said = _NOTE.sub("", said)
    needless = _NEEDLESS.fullmatch(said)
    if needless is not None:
        bare = _bare(needless[1])
        whole = needless[2] is None and "@" in bare
        if is_address(bare if whole else f"{bare}@x"):
            said = f"{bare}{needless[2] or ''}"
    if is_address(f"x{said}" if said.startswith("@") else said) or (
        "@" not in said.rpartition('"')[2] and is_address(f"{said}@x")
    ):
        return said
    if re.search(r"\s", said):
        raise ValueError(f"{_line(said)[:60]} is no address: is there a comma missing?")
    raise ValueError(f"{said[:60]} is no address")


def _bare(quoted: str) -> str:
    """What stands in quotes without its backslashes."""
    return "".join(_PAIR.split(quoted))  # what `sub` does, in a tenth of the time


def _line(text: str) -> str:
    return " ".join(text.split())


def enhanced(text: str, default: str) -> tuple[str, str]:
    """The enhanced code that a text for the sender begins with (RFC 3463), and the rest of it."""
    found = _ENHANCED.match(text)
    if found is None or found[1][0] != default[0]:
        return default, text
    return found[1], text[found.end() :]
