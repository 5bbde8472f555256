"""Looking up the triggers of many rules in one subject at once.

Whole values are looked up in a hash table, parts of values by one automaton, regular
expressions by the literal texts that RE2 knows they cannot do without. (One automaton of the
expressions themselves can need 10 ms for one Subject field; their texts need some µs.)
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from mdaflow.lang import ir
from mdaflow.lang.patterns import compile_regex
from mdaflow.lang.source import Span

from .match import address_keys
from .state import Run
from .triggers import Atom

MAX_LOOKED = 1 << 18
"""Bytes of a text that is searched: each takes an automaton 1 µs at worst, and nothing ends it."""
MEMORY = 64 << 20
"""Bytes that one automaton may take."""
ROOM = {"part": 1 << 19, "regex": 1 << 17}
"""Characters that one automaton is made of, so that it fits; for expressions RE2 takes 8 MiB."""


class Look:
    """All that rules look for in one subject."""

    def __init__(
        self, subject: ir.Subject, atoms: Mapping[Atom, list[int]], rules: list[int], span: Span
    ) -> None:
        self.subject, self.span = subject, span
        self.first, self.last = rules[0], rules[-1]
        by_kind: dict[str, list[tuple[Atom, list[int]]]] = defaultdict(list)
        for atom, found in atoms.items():
            by_kind[_KINDS.get(atom.how, atom.how)].append((atom, found))
        self.present = {at for _, found in by_kind["any"] for at in found}
        self.whole = {atom.text: found for atom, found in by_kind["whole"]}
        self.parts = _finders(_parts, by_kind["part"], ROOM["part"])
        self.patterns = _finders(_patterns, by_kind["regex"], ROOM["regex"])

    def up(self, run: Run) -> Collection[int]:
        """The numbers of the rules that may hold."""
        found = set[int]()
        for value in run.watched(self.span, run.values(self.subject) or ()):
            found |= self.present
            # all that an entry of a list can be, and first of all the value itself
            for key in address_keys(run.fold(value[0])) if self.whole else ():
                found.update(self.whole.get(key, ()))
            for text in value:
                for rules in self.search(run, text):
                    found.update(rules)
        return found

    def search(self, run: Run, text: str) -> Iterator[Iterable[int]]:
        """What each automaton finds in a text."""
        for finders, encode in ((self.parts, _folded), (self.patterns, _as_it_is)):
            octets = encode(run, text) if finders else b""
            for finder in finders:
                run.watch(self.span)
                yield finder.search(octets)


def _folded(run: Run, text: str) -> bytes:
    return run.fold(text).encode("utf-8", "surrogatepass")


def _as_it_is(run: Run, text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


_KINDS = dict.fromkeys(("contains", "starts", "ends"), "part")

Match = Callable[[bytes], Sequence[int] | None]
"""The numbers of all that is found in a text, and always the number behind the last one: RE2's
binding does not tell when an automaton has run out of memory."""


class Finder(NamedTuple):
    """An automaton, and the rules that look for each of its texts."""

    match: Match
    rules: Sequence[Sequence[int]]

    def search(self, text: bytes) -> Iterable[int]:
        """The rules whose text is found, or may be there."""
        last = len(self.rules)
        found = self.match(text) or () if len(text) <= MAX_LOOKED else ()
        if last not in found:
            found = range(last)
        return (at for number in found if number != last for at in self.rules[number])


def _finders(
    make: Callable[[Sequence[Atom]], Match], wanted: Sequence[tuple[Atom, list[int]]], room: int
) -> list[Finder]:
    """As many automata as it takes."""
    if not wanted:
        return []
    import re2

    if len(wanted) == 1 or sum(len(atom.text) for atom, _ in wanted) <= room:
        try:
            return [Finder(make([atom for atom, _ in wanted]), [rules for _, rules in wanted])]
        except re2.error:
            if len(wanted) == 1:
                return [Finder(lambda text: None, [wanted[0][1]])]
    half = len(wanted) // 2
    return [*_finders(make, wanted[:half], room), *_finders(make, wanted[half:], room)]


def _parts(atoms: Sequence[Atom]) -> Match:
    """Parts of folded text, as octets: what cannot be encoded is compared, too."""
    import re2

    options = re2.Options()
    options.log_errors = False
    options.max_mem = MEMORY
    options.encoding = re2.Options.Encoding.LATIN1
    automaton = re2.Set.SearchSet(options)
    for atom in atoms:
        octets = re2.escape(atom.text.encode("utf-8", "surrogatepass"))
        automaton.Add(_ANCHORED.get(atom.how, b"%s") % octets)
    automaton.Add(b"")
    automaton.Compile()
    match: Match = automaton.Match
    return match


_ANCHORED = {"starts": rb"\A%s", "ends": rb"%s\z"}


def _patterns(atoms: Sequence[Atom]) -> Match:
    """Regular expressions that may match, because the literal texts that they need are there."""
    import re2

    needed = re2.Filter()
    flagged = {flags: compile_regex("", flags) for flags in {atom.flags for atom in atoms}}
    for atom in atoms:
        nothing = flagged[atom.flags]
        needed.Add(nothing.pattern + atom.text, nothing.options)
    needed.Add(_END)
    needed.Compile()
    return lambda text: needed.Match(text + _END, potential=True)


_END = b"\x00end\x00"
"""What is put behind a text, and always found."""
