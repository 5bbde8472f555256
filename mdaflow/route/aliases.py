"""Tables of recipients that stand for others, in three formats.

`aliases` is aliases(5) as sendmail, Postfix and Exim read it: `name: targets`. `virtual` is
virtual(5) of Postfix: `pattern targets`, addresses only, where `@domain` is whatever else comes in
that domain. `regexp` is a line `/pattern/flags targets` each, asked from top to bottom (RE2; with
the flag `i` case counts); `$1` and `${1}` in a target are what a group matched, and
then only an address can come of it.

In all of them `#` begins a comment line, and a line that begins with a blank continues the one
before. A name without a domain is a local part in every domain of ours, one with a domain is that
address. Names are compared without regard to case. Of a name that is there twice the first counts.

Targets are read when they are asked for; what is wrong in them is found when the table is read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

from mdaflow.errors import ConfigError
from mdaflow.mail.address import split_local
from mdaflow.mail.targets import Target, TargetError, parse_targets

from .tables import MAX_PROBLEMS

_ATOMS = r"(?![^,]{200})[\w+=-]+(?:\.[\w+=-]+)*(?:@[\w-]+(?:\.[\w-]+)*)?"
_PLAIN = re.compile(rf"{_ATOMS}(?:,[ \t]*{_ATOMS})*", re.ASCII)
"""Addresses alone, and nothing unusual in them: almost all lines of almost all tables."""
_ALIAS = re.compile(r'(?:"((?:[^"\\]|\\.)*)"|([^":#\s][^":]*?))[ \t]*:(.*)', re.DOTALL)
_VIRTUAL = re.compile(r'("(?:[^"\\]|\\.)*"(?:@\S+)?|\S+)\s+(.*)', re.DOTALL)
_REGEXP = re.compile(r"(.)((?:\\.|(?!\1).)*)\1([a-z]*)\s+(.*)", re.DOTALL)
_LINE = re.compile(r".*\n?")
_PAIR = re.compile(r"\\(.)", re.DOTALL)
_GROUP = re.compile(r"\$(?:(\$)|([0-9]{1,4})|\{([0-9]{1,4})\}|\(([0-9]{1,4})\))")
_FIRST, _MOST = 0xE000, 99  # groups in targets are characters that no address has
_MARK = re.compile(f"[{chr(_FIRST)}-{chr(_FIRST + _MOST)}]")


LONG = 1000
"""Characters of targets that are read anew each time, so that what is kept stays small."""


class Alias(NamedTuple):
    """What stands in a table: a name, and where."""

    name: str
    text: str
    """Its targets, as they are written."""
    where: str
    """File and line."""
    kind: str
    match: Any = None
    """Of a regular expression that has matched."""

    @property
    def targets(self) -> tuple[Target, ...]:
        """What it stands for."""
        found = _parsed(self.text) if len(self.text) < LONG else parse_targets(self.text)
        if self.match is None:
            return found
        return tuple(target._replace(value=_filled(target.value, self.match)) for target in found)


@lru_cache(4096)
def _parsed(text: str) -> tuple[Target, ...]:
    if _PLAIN.fullmatch(text):
        return tuple([Target("address", said.strip()) for said in text.split(",")])
    return parse_targets(text)


def _filled(text: str, match: Any) -> str:
    return _MARK.sub(lambda mark: match.group(ord(mark[0]) - _FIRST) or "", text)


@dataclass(slots=True)
class AliasTable:
    """The aliases of one file."""

    path: str
    kind: str
    names: dict[str, str] = field(default_factory=dict)
    """Names, folded -> line, or file and line; a line break; targets. One string is half of what
    a tuple of them takes."""
    patterns: list[tuple[Any, str, str]] = field(default_factory=list)
    """Regular expressions -> line and targets."""
    any_pattern: Any = None
    """One expression that matches what any of them matches, if there is one."""
    shadowed: list[tuple[str, str]] = field(default_factory=list)
    """Lines that nothing reaches, and why."""

    def find(self, keys: Iterable[str], address: str) -> Alias | None:
        """The alias of the first key that is there, or of the first expression that matches an
        address, if there is one; all folded."""
        names = self.names
        for key in keys:
            if key in names:
                line, _, text = names[key].partition("\n")
                return Alias(key, text, self.where(line), self.kind)
        return self._match(address) if address and self.patterns else None

    def _match(self, address: str) -> Alias | None:
        if self.any_pattern is not None and self.any_pattern.search(address) is None:
            return None
        for pattern, line, text in self.patterns:
            match = pattern.search(address)
            if match is not None:
                return Alias(f"/{pattern.pattern}/", text, self.where(line), self.kind, match)
        return None

    def all(self) -> Iterator[Alias]:
        """Everything that stands in it."""
        for name, said in self.names.items():
            line, _, text = said.partition("\n")
            yield Alias(name, text, self.where(line), self.kind)
        for pattern, line, text in self.patterns:
            yield Alias(f"/{pattern.pattern}/", text, self.where(line), self.kind)

    def where(self, line: str) -> str:
        """File and line of what stands in a line, or where it says that it stands."""
        return f"{self.path}:{line}" if line.isdecimal() else line


def keys_of(local: str, domain: str, delimiters: str, *, ours: bool) -> tuple[str, ...]:
    """The names by which an address is looked up, folded and without quotes, in their order."""
    local = bare(local.casefold())
    user, detail = split_local(local, delimiters)
    whole = f"{local}@{domain}"
    if not detail and user == local:
        return (whole, local) if ours else (whole,)
    addresses = whole, f"{user}@{domain}"
    return (*addresses, local, user) if ours else addresses


def bare(local: str) -> str:
    return _PAIR.sub(r"\1", local[1:-1]) if local[:1] == '"' else local


class _Reader:
    """One file on its way into a table."""

    def __init__(self, path: str, kind: str) -> None:
        self.table = AliasTable(path, kind)
        self.problems: list[str] = []

    def problem(self, line: int, text: str) -> None:
        self.problems.append(f"{self.table.path}:{line}: {text}")

    def add(self, line: int, name: str, text: str) -> None:
        key, names = name.casefold(), self.table.names
        if key in names:
            before = names[key].partition("\n")[0]
            self.table.shadowed.append((str(line), f"{name} stands in line {before} already"))
        elif self.good(line, text):
            names[key] = f"{line}\n{text}"

    def good(self, line: int, text: str) -> bool:
        if _PLAIN.fullmatch(text):
            return True
        try:
            targets = parse_targets(text)
        except TargetError as error:
            at = line + text.count("\n", 0, error.start)
            self.problem(at, str(error))
            return False
        wrong = next((t for t in targets if not _may(self.table.kind, t)), None)
        if wrong is not None:
            self.problem(line, f"{wrong}: only whole addresses and names here")
        elif not targets:
            self.problem(line, "no targets")
        return wrong is None and bool(targets)


def _may(kind: str, target: Target) -> bool:
    if kind != "virtual" and target.value.startswith("@"):
        return False
    if kind == "aliases":
        return True
    return target.kind in ("address", "fail", "defer", "nothing")


def _aliases(reader: _Reader, line: int, said: str) -> None:
    found = _ALIAS.fullmatch(said)
    if found is None:
        reader.problem(line, "this is no `name: targets`")
        return
    name = found[2] if found[1] is None else _PAIR.sub(r"\1", found[1])
    reader.add(line, name, found[3].strip())


def _virtual(reader: _Reader, line: int, said: str) -> None:
    found = _VIRTUAL.fullmatch(said)
    if found is None:
        reader.problem(line, "this is no `address targets`")
    elif found[1].endswith(":"):
        reader.problem(line, "names end without a colon here: is this a file of `aliases`?")
    else:
        reader.add(line, _unquoted(found[1]), found[2].strip())


def _unquoted(name: str) -> str:
    """A name as `keys_of` has it."""
    local, at, domain = name.rpartition("@") if name[-1:] != '"' else (name, "", "")
    return f"{bare(local)}{at}{domain}"


def _regexp(reader: _Reader, line: int, said: str) -> None:
    found = _REGEXP.fullmatch(said)
    if found is None or found[1].isalnum():
        reader.problem(line, "this is no `/pattern/flags targets`")
        return
    _, source, flags, text = found.groups()
    if flags.strip("i"):
        reader.problem(line, f"the only flag is i, not {flags}")
        return
    import re2  # only who has such tables pays for it

    options = re2.Options()
    options.log_errors, options.max_mem = False, 2 << 20
    options.case_sensitive = "i" in flags  # as Postfix has it: the flag turns the folding off
    try:
        pattern = re2.compile(source, options)
    except re2.error as error:
        why = error.args[0]
        told = why.decode("utf-8", "replace") if isinstance(why, bytes) else why
        reader.problem(line, f"/{source}/: {told}")
        return
    numbers = [int("".join(n[1:])) for n in _GROUP.findall(text) if any(n[1:])]
    if max(numbers, default=0) > min(pattern.groups, _MOST):
        reader.problem(line, f"there is no group {max(numbers)} in /{source}/")
    elif _MARK.search(text):
        reader.problem(line, "a character for private use")
    elif reader.good(line, marked := _GROUP.sub(_mark, text)):
        reader.table.patterns.append((pattern, str(line), marked.strip()))


def _mark(group: re.Match[str]) -> str:
    dollar, *numbers = group.groups("")
    return dollar or chr(_FIRST + int("".join(numbers)))


def _any_of(patterns: Sequence[Any]) -> Any:
    """One expression for all of them, when that can be; most addresses match none.

    Their options stay theirs. A quotation without an end (`\\Q`) would go on behind its bracket.
    """
    if len(patterns) < 2 or any(r"\Q" in pattern.pattern for pattern in patterns):
        return None
    import re2

    options = re2.Options()
    options.log_errors, options.max_mem = False, 16 << 20
    options.never_capture = True
    flags = ("i" if not pattern.options.case_sensitive else "-i" for pattern in patterns)
    each = (f"(?{f}:{pattern.pattern})" for f, pattern in zip(flags, patterns, strict=True))
    try:
        return re2.compile("|".join(each), options)
    except re2.error:  # too large
        return None


FORMATS = {"aliases": _aliases, "virtual": _virtual, "regexp": _regexp}
"""The formats of files -> who reads a line of one."""


def parse_table(kind: str, text: bytes, path: str) -> AliasTable:
    """The table of a file. Raises ConfigError with all that is wrong in it."""
    reader, read = _Reader(path, kind), FORMATS[kind]
    for line, said in logical_lines(_decoded(text, path)):
        if len(reader.problems) >= MAX_PROBLEMS:
            break
        read(reader, line, said)
    if reader.problems:
        raise ConfigError(tuple(reader.problems))
    reader.table.any_pattern = _any_of([pattern for pattern, _, _ in reader.table.patterns])
    return reader.table


def _decoded(text: bytes, path: str) -> str:
    try:
        return text.decode().removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = text.count(b"\n", 0, error.start) + 1
        raise ConfigError((f"{path}:{line}: this is no UTF-8",)) from error


def logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """The lines of a table with their numbers, each with those that continue it.

    Comments and empty lines may stand in between.
    """
    begun, parts = 0, [""]
    for number, found in enumerate(_LINE.finditer(text), 1):  # a list of all would stay in memory
        line = found[0]
        said = line.strip()
        if not said or said[0] == "#":
            continue
        if line[0] in " \t" and begun:
            parts += [""] * (number - begun - len(parts))  # so that lines can be counted
            parts.append(said)
            continue
        if begun:
            yield begun, "\n".join(parts)
        begun, parts = number, [said]
    if begun:
        yield begun, "\n".join(parts)


def parse_members(text: bytes, path: str, foreign: bool = True) -> tuple[Target, ...]:
    """The members of an `:include:`: addresses, and other lists. Raises ConfigError.

    Whoever may write such a file may not for that run programs or write files; nor, if it is a
    `foreign` one, have us read others.
    """
    kinds = ("address", "user") if foreign else ("address", "user", "include")
    decoded = _decoded(text, path)
    try:
        found = parse_targets(decoded, by_line=True)
    except TargetError as error:
        line = decoded.count("\n", 0, error.start) + 1
        raise ConfigError((f"{path}:{line}: {error}",)) from error
    for target in found:
        if target.kind not in kinds:
            line = decoded.count("\n", 0, target.start) + 1
            whose = " that is not root's" if target.kind == "include" else ""
            raise ConfigError((f"{path}:{line}: only addresses in an :include:{whose}",))
    return found


def of_rules(found: Iterable[tuple[str, Iterable[str], str]]) -> AliasTable:
    """The table of the statements `alias` in rules: names, targets, and where they stand.

    A name that is there twice stands for the targets of both.
    """
    table = AliasTable("the rules", "aliases")
    for name, targets, where in found:
        key = name.casefold()
        first, _, before = table.names.get(key, f"{where}\n").partition("\n")
        table.names[key] = f"{first}\n{', '.join(filter(None, (before, *targets)))}"
    return table
