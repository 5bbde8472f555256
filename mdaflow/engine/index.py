"""Which rules of a block can hold, looked up for all of them at once.

For each rule a *trigger* is derived from its condition, if there is one: texts of which some
must be found in a subject of the message for the condition to hold. The triggers of all rules
are looked up together: whole values in a hash table, parts of values by one automaton, regular
expressions by the literal texts that RE2 knows they cannot do without. (One automaton of the
expressions themselves can need 10 ms for one Subject field; their texts need some µs.) Only
rules whose trigger is found are tried, in their order, and by the same functions as ever. So
what is looked up may say too much, never too little: 5,000 rules cost about what 50 do, and
they decide the same.

A rule is passed over only if trying it could do nothing but say no. What stands before its
trigger neither fails nor asks the outside world: no hole, no list from a file, no scanner. A
subject is read when a run comes to the first rule that may need it, and looked up anew when a
rule has changed the message. A traced run tries every rule, because it shows them.

Known limits: a rule is always tried when its condition has no trigger (a negation, a number, an
expression that can do without three letters in a row), when few others ask for the same
subject, and when the text is longer than `MAX_LOOKED`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from heapq import heappop, heappush
from operator import attrgetter
from threading import Lock
from typing import Any, NamedTuple

from mdaflow.lang import ir
from mdaflow.lang.patterns import compile_regex, glob_pattern
from mdaflow.lang.source import Span
from mdaflow.lang.subjects import SUBJECTS, is_asked, type_of

from .match import Lists, address_keys
from .state import Run, Step

ENABLED = True
"""Else every rule is tried."""
MIN_RULES = 8
"""Rules of a block from which on they are looked up."""
MIN_SHARED = 4
"""Rules that need the same subject, from which on it is looked up for them."""
MAX_ATOMS = 256
"""Texts of one trigger."""
MAX_PART = 64
"""Characters of a part that is looked for; the rule itself looks for the rest."""
MAX_PATTERN = 4096
"""Characters of a regular expression, or of a whole value."""
MAX_LOOKED = 1 << 18
"""Bytes of a text that is searched: each takes an automaton 1 µs at worst, and nothing ends it."""
MEMORY = 64 << 20
"""Bytes that one automaton may take."""
ROOM = {"part": 1 << 19, "regex": 1 << 17}
"""Characters that one automaton is made of, so that it fits; for expressions RE2 takes 8 MiB."""
DEAR = 64
"""A body is read in the time in which so many rules are tried."""

Lookable = tuple[Span, Callable[[Run], Step]]
Choose = Callable[[Run], Iterable[Lookable]]
"""The steps of a block that a run has to take, in their order."""


def compile_choice(
    steps: Sequence[Lookable], statements: Sequence[ir.Statement], lists: Lists
) -> Choose:
    """How a run chooses from the steps of a block, made of these statements."""
    tests = {
        at: node.test
        for at, node in enumerate(statements)
        if isinstance(node, ir.Branch) and node.test is not None and not node.otherwise
    }
    if len(tests) < MIN_RULES:
        return lambda run: steps
    return _Index(steps, tests, dict(lists)).choose


# triggers


class Atom(NamedTuple):
    """A text to be found in a subject: one of `_WORTH` says how."""

    subject: ir.Subject
    how: str
    text: str = ""
    flags: str = ""


Trigger = frozenset[Atom]
"""One of them must be found; if there are none, the test never holds."""
Found = tuple[list[Trigger], bool]
"""The triggers of a test, each of which is enough, and whether the test is harmless: it neither
fails nor asks. If a trigger is not found, the test says no before it could do that."""

_WORTH = ("whole", "starts", "ends", "contains", "regex", "any")
"""How an atom is found; the first ones tell most."""


def triggers(test: ir.Test, lists: Lists) -> Found:
    """What must be found for a test to hold."""
    return _TESTS[type(test)](test, lists)


def _constant(node: ir.Constant, lists: Lists) -> Found:
    return ([] if node.value else [frozenset()]), True


def _question(node: ir.Question, lists: Lists) -> Found:
    return [], False


def _some(node: ir.Some, lists: Lists) -> Found:
    return [], triggers(node.test, lists)[1]


def _join(node: ir.Join, lists: Lists) -> Found:
    sides = [triggers(inner, lists) for inner in node.tests]
    harmless = all(harmless for _, harmless in sides)
    if node.word == "and":
        return list(_all_of(sides)), harmless
    if node.word == "or" and all(found for found, _ in sides):
        return [frozenset[Atom]().union(*(min(found, key=_cost) for found, _ in sides))], harmless
    return [], harmless


def _all_of(sides: Sequence[Found]) -> Iterator[Trigger]:
    """Each side is tested only if those before it hold; a body is not read before its turn."""
    for at, (found, harmless) in enumerate(sides):
        yield from (trigger for trigger in found if at == 0 or not _is_dear(trigger))
        if not harmless:
            return


def _compare(node: ir.Compare, lists: Lists) -> Found:
    name, part = node.subject.name, node.subject.part
    operands = [lists.get(o.name, o) if isinstance(o, ir.Items) else o for o in node.operands]
    if is_asked(name, part) or any(map(_is_open, operands)):
        return [], False
    is_text = name in SUBJECTS and type_of(name, part) in ("text", "address")
    if not is_text or any(isinstance(operand, ir.Number) for operand in operands):
        return [], True
    atoms = [atom for operand in operands for atom in _atoms(node, operand)]
    if node.relation == "exists":
        atoms = [Atom(_anywhere(node.subject), "any")]
    if len(atoms) > MAX_ATOMS or any(len(atom.text) > MAX_PATTERN for atom in atoms):
        return [], True
    if node.all and node.relation != "in":
        return [frozenset((atom,)) for atom in atoms], True
    return [frozenset(atoms)], True


def _is_open(operand: ir.Value) -> bool:
    """Is it known only when the test is made?"""
    if isinstance(operand, ir.Items):
        return bool(operand.file)
    return isinstance(operand, ir.Text) and operand.literal is None


def _atoms(node: ir.Compare, operand: ir.Value) -> list[Atom]:
    subject, exact = _anywhere(node.subject), "c" * node.exact
    if isinstance(operand, ir.Pattern):
        return [Atom(subject, "regex", operand.source, operand.flags + exact)]
    assert isinstance(operand, ir.Text | ir.Items)
    entries = operand.entries if isinstance(operand, ir.Items) else (operand.literal or "",)
    if node.relation == "glob":
        return [Atom(subject, "regex", glob_pattern(entry), "s" + exact) for entry in entries]
    return [Atom(subject, *_LITERALS[node.relation](entry.casefold())) for entry in entries]


_LITERALS: dict[str, Callable[[str], tuple[str, str]]] = {
    "is": lambda text: ("whole", text),
    "in": lambda text: ("whole", text),
    "contains": lambda text: ("contains", text[:MAX_PART]),
    "starts": lambda text: ("starts", text[:MAX_PART]),
    "ends": lambda text: ("ends", text[-MAX_PART:]),
}
"""How a literal is looked for. What is equal `exactly` is also equal without regard to case."""


def _anywhere(subject: ir.Subject) -> ir.Subject:
    """The subject, which is the same wherever it is written."""
    return subject._replace(span=Span("", 0, 0, 0, 0))


_TESTS: dict[type, Callable[[Any, Lists], Found]] = {
    ir.Constant: _constant,
    ir.Join: _join,
    ir.Compare: _compare,
    ir.Question: _question,
    ir.Some: _some,
}


def _is_dear(trigger: Trigger) -> bool:
    return any(atom.subject.name in ("body", "body.html", "attachment") for atom in trigger)


def _cost(trigger: Trigger, shared: Mapping[Atom, int] | None = None) -> tuple[int, int, int]:
    """What a trigger costs: the rules that it stands for, as far as they are known."""
    rules = sum(shared[atom] for atom in trigger) if shared else len(trigger)
    worst = max((_WORTH.index(atom.how) for atom in trigger), default=0)
    shortest = min((len(atom.text) for atom in trigger), default=0)
    return rules + DEAR * _is_dear(trigger), worst, -shortest


# looking up


class _Index:
    """The steps of a block, by what must be found for them. Several threads may share it."""

    def __init__(
        self, steps: Sequence[Lookable], tests: Mapping[int, ir.Test], lists: Lists
    ) -> None:
        self.steps = steps
        self.source: tuple[Mapping[int, ir.Test], Lists] | None = (tests, lists)
        """What the look-ups are made of when a run first needs them."""
        self.lock = Lock()
        self.always: list[int] = []
        """The numbers of the steps that are always taken."""
        self.looks: list[_Look] = []

    def choose(self, run: Run) -> Iterable[Lookable]:
        """The steps that a run has to take, in their order."""
        if run.trace is not None or not ENABLED:
            return self.steps
        with self.lock:
            if self.source is not None:
                self.build(*self.source)
                self.source = None
        return map(self.steps.__getitem__, self.candidates(run)) if self.looks else self.steps

    def build(self, tests: Mapping[int, ir.Test], lists: Lists) -> None:
        """Choose a trigger for each rule, and gather them by subject."""
        known = {at: found for at, test in tests.items() if (found := triggers(test, lists)[0])}
        shared = Counter(atom for found in known.values() for one in found for atom in one)
        wanted: dict[ir.Subject, dict[Atom, list[int]]] = defaultdict(lambda: defaultdict(list))
        for at, found in known.items():
            for atom in min(found, key=lambda one: _cost(one, shared)):
                wanted[atom.subject][atom].append(at)
        alone = set[int]()
        for subject, atoms in wanted.items():
            rules = {at for found in atoms.values() for at in found}
            if len(rules) < MIN_SHARED:
                alone |= rules
            else:
                self.looks.append(_Look(subject, atoms, sorted(rules), self.steps[min(rules)][0]))
        self.looks.sort(key=attrgetter("first"))
        self.always = [at for at in range(len(self.steps)) if at not in known or at in alone]

    def candidates(self, run: Run) -> Iterator[int]:
        """The numbers of the steps to take."""
        taken, message = -1, None
        while message is not run.context.message:
            message = run.context.message
            for at in self.ahead(run, taken):
                yield at
                taken = at
                if run.context.message is not message:
                    break

    def ahead(self, run: Run, at: int) -> Iterator[int]:
        """The numbers behind `at`, as long as the message is the same."""
        found = self.always[bisect_right(self.always, at) :]  # a sorted list is a heap
        looks = [look for look in reversed(self.looks) if look.last > at]
        while found or looks:
            if looks and (not found or looks[-1].first <= found[0]):
                for number in looks.pop().up(run):
                    heappush(found, number)
            elif (number := heappop(found)) > at:  # it may have been found more than once
                at = number
                yield at


class _Look:
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


class _Finder(NamedTuple):
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
) -> list[_Finder]:
    """As many automata as it takes."""
    if not wanted:
        return []
    import re2

    if len(wanted) == 1 or sum(len(atom.text) for atom, _ in wanted) <= room:
        try:
            return [_Finder(make([atom for atom, _ in wanted]), [rules for _, rules in wanted])]
        except re2.error:
            if len(wanted) == 1:
                return [_Finder(lambda text: None, [wanted[0][1]])]
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
