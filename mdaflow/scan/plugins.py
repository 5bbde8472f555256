"""Scanners of other packages: the entry-point group `mdaflow.scanners`.

An entry point names a callable `make(options) -> Scanner`, which has the options of the
configuration as a mapping and raises ValueError for those that it cannot use.

What comes from elsewhere may hang, fail, or talk nonsense. So each scan is a thread of its own,
which is left behind at the deadline; its report is checked there, too; and whatever is not exactly
a report is `Unscanned`.

Known limits: a thread cannot be ended. One that hangs keeps its message in memory, and
`MAX_HUNG` of them, with those who asked at the same moment, are all that a scanner gets. What
stops the interpreter itself, or the process, nobody can guard against in here.
"""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib.metadata import EntryPoint, entry_points
from itertools import islice
from queue import Empty, SimpleQueue
from types import MappingProxyType
from typing import TypeVar

from mdaflow.errors import ConfigError
from mdaflow.mail.envelope import Envelope
from mdaflow.mail.message import Message

from . import Hit, Report, Scanner, Unscanned

GROUP = "mdaflow.scanners"
MAX_HUNG = 8
"""Threads that a scanner may leave behind."""
MAX_ITEMS = 100
"""Of each kind in a report, and values of a finding."""
MAX_TEXT = 500
"""Characters of anything that is said."""
MAX_SCORE = 1e6

_HIT = re.compile(r"[A-Z][A-Z0-9_]{0,63}")
_FINDING = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_Value = TypeVar("_Value")


def installed() -> tuple[str, ...]:
    """The names of all such scanners."""
    return tuple(sorted({entry.name for entry in entry_points(group=GROUP)}))


def load(name: str, options: Mapping[str, object] = MappingProxyType({})) -> Guarded:
    """The scanner of that name, with its options. Raises ConfigError."""
    entry = _find(name)
    try:
        scanner = entry.load()(MappingProxyType(dict(options)))
    except (Exception, SystemExit) as error:  # whatever a module does when it is imported
        raise ConfigError((f"scanner {name!r} ({entry.value}): {_reason(error)}",)) from error
    if not callable(getattr(scanner, "scan", None)):
        raise ConfigError((f"scanner {name!r} ({entry.value}) makes no scanner",))
    return Guarded(scanner, name)


def fetch(name: str) -> None:
    """Import the module of that scanner, if it can be had: later its files may be out of reach."""
    with suppress(Exception, SystemExit):  # `load` tells
        _find(name).load()


def _find(name: str) -> EntryPoint:
    found = {entry.value: entry for entry in entry_points(group=GROUP, name=name)}
    if not found:
        raise ConfigError((f"no scanner {name!r} is installed: {_near(name)}",))
    if len(found) > 1:
        raise ConfigError((f"scanner {name!r} is installed twice: {', '.join(sorted(found))}",))
    return next(iter(found.values()))


def _near(name: str) -> str:
    from difflib import get_close_matches  # only errors pay for it

    there = installed()
    if close := get_close_matches(name, there, 1):
        return f"did you mean {close[0]!r}?"
    return f"there are {', '.join(there)}" if there else "there is none of another package"


class Guarded:
    """A scanner of another package, kept within bounds; see `Scanner`."""

    def __init__(self, scanner: Scanner, name: str) -> None:
        self.name = name
        self.per_recipient = getattr(scanner, "per_recipient", False) is True
        """What is found for one recipient is not true for the next."""
        self._scanner = scanner
        self._lock = threading.Lock()
        self._hung: list[threading.Thread] = []

    def scan(self, message: Message, envelope: Envelope, seconds: float) -> Report:
        """What it finds. Raises Unscanned."""
        self._check_hung()
        answers: SimpleQueue[Report | Unscanned] = SimpleQueue()
        thread = threading.Thread(
            target=lambda: answers.put(self._answer(message, envelope, seconds)),
            name=f"scanner {self.name}",
            daemon=True,
        )
        try:
            thread.start()
            answer = answers.get(timeout=max(seconds, 0))
        except Empty:
            with self._lock:
                self._hung.append(thread)
            raise Unscanned("it does not answer") from None
        except RuntimeError as error:  # no more threads
            raise Unscanned(str(error)) from error
        if isinstance(answer, Unscanned):
            raise answer
        return answer

    def _check_hung(self) -> None:
        with self._lock:
            self._hung = [thread for thread in self._hung if thread.is_alive()]
            if len(self._hung) >= MAX_HUNG:
                raise Unscanned(f"it hangs in {len(self._hung)} messages, and is left alone")

    def _answer(self, message: Message, envelope: Envelope, seconds: float) -> Report | Unscanned:
        try:
            return checked(self._scanner.scan(message, envelope, seconds))
        except Unscanned as error:
            return Unscanned(_line(str(error)))
        except BaseException as error:  # SystemExit ends nothing here
            return Unscanned(_reason(error))


def checked(report: object) -> Report:
    """A report with what a report may say. Raises ValueError, or what else wrong types do."""
    if not isinstance(report, Report):
        raise ValueError(f"{type(report).__name__} is no Report")
    return Report(
        viruses=_each(report.viruses, _text),
        hits=_each(report.hits, _hit),
        findings=dict(_each(tuple(islice(report.findings.items(), MAX_ITEMS + 1)), _finding)),
        unscanned=_text(report.unscanned) if report.unscanned else "",
    )


def _each(values: object, check: Callable[[object], _Value]) -> tuple[_Value, ...]:
    if not isinstance(values, tuple | list) or len(values) > MAX_ITEMS:
        raise ValueError(f"no tuple, or one of more than {MAX_ITEMS}")
    return tuple(map(check, values))


def _hit(hit: object) -> Hit:
    if not isinstance(hit, Hit) or not _HIT.fullmatch(hit.name):
        raise ValueError("no Hit, or one without a name in capitals")
    if not math.isfinite(hit.score) or abs(hit.score) > MAX_SCORE:
        raise ValueError(f"the score of {hit.name} is no number")
    return Hit(hit.name, float(hit.score), _text(hit.why) if hit.why else "")


def _finding(item: object) -> tuple[str, tuple[str, ...]]:
    assert isinstance(item, tuple)
    name, values = item
    if not _FINDING.fullmatch(name):
        raise ValueError("the name of a finding is no word")
    return name, _each(values, _text)


def _text(value: object) -> str:
    if not isinstance(value, str) or not value.isprintable() or not 0 < len(value) <= MAX_TEXT:
        raise ValueError("no text, an empty one, one with controls, or one too long")
    return str(value)


def _line(text: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in text[:MAX_TEXT])


def _reason(error: BaseException) -> str:
    return _line(f"{type(error).__name__}: {error}")
