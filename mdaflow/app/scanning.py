"""Scanners at work: each looks once at a message, however many recipients that has.

Postfix's local(8) hands over one recipient at a time, in transactions of their own, some at once
(T20). So a report is kept for a while by the content of the message, with what else a scanner
knows of it; the first who asks is alone at it, and the others wait for what it says. Each process
keeps some reports in memory, too: while the store is full or broken, one message to many would
else be scanned for one recipient after the other, and most of them put off.

A scanner that fails, for whatever reason, is a report that says so, never a clean one (P41). A
message whose scan has stopped two workers is spared that scanner (inflight.py).
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from mdaflow.mail.envelope import Envelope
from mdaflow.mail.message import Message
from mdaflow.mail.raw import digest
from mdaflow.scan import Report, Scanner, Unscanned
from mdaflow.scan.verdict import cleaned, dumps, loads
from mdaflow.store import Store

if TYPE_CHECKING:
    from .inflight import InFlight

KEPT = 300.0
"""Seconds for which a report counts for the same message."""
FAILED = 10.0
"""The same for one that tells of a failure: who waits for it need not fail again."""
OWN = "spam"
"""The name of the scanner that is ours, which finds nothing but spam."""
MOST = 100
"""Reports that a process keeps in memory, and the characters of one that is."""
LONGEST = 20_000
STOPPED = "it has stopped mdaflow twice"
"""Why a scanner is spared a message."""

log = logging.getLogger("mdaflow")


class Post(NamedTuple):
    """A scanner with what the configuration says of it."""

    scanner: Scanner
    looks_for: frozenset[str]
    """Of `virus` and `spam`."""
    seconds: float
    """For one message."""
    on_error: str
    """`defer`, `deliver-tagged` or `quarantine`."""
    bare: Scanner | None = None
    """The same, as it never takes a message apart here; None when there is no such."""
    per_recipient: bool = False
    """Its report is about one recipient."""

    @property
    def name(self) -> str:
        """The scanner's."""
        return self.scanner.name


class Scanning:
    """The scanners of a site, which `open_posts` makes when the first is asked for: the process of
    an account never asks. `state` is the folder of small state, empty when there is none."""

    def __init__(
        self,
        open_posts: Callable[[], Sequence[Post]] = tuple,
        store: Store | None = None,
        state: str = "",
        inflight: InFlight | None = None,
        told: Callable[[], str] = str,
    ) -> None:
        """`told` is what scanners were told: with another configuration they are asked again."""
        self._open = open_posts
        self._tell = told
        self._store = store
        self._state = state
        self._inflight = inflight
        self._recent: OrderedDict[str, tuple[float, str]] = OrderedDict()
        """By key: until when a report counts, and the report."""
        self._lock = threading.Lock()

    @cached_property
    def posts(self) -> tuple[Post, ...]:
        """The scanners in their order. Raises ConfigError."""
        return tuple(self._open())

    @cached_property
    def _told(self) -> str:
        return self._tell()

    def load(self) -> None:
        """Raise ConfigError for a scanner that cannot be had."""
        _ = self.posts

    def posted(self, looks_for: str) -> tuple[Post, ...]:
        """Those that look for `virus`, or `spam`."""
        return tuple(post for post in self.posts if looks_for in post.looks_for)

    def named(self, name: str) -> Post | None:
        """The scanner of a name."""
        return next((post for post in self.posts if post.name == name), None)

    def reports(
        self, looks_for: str, message: Message, envelope: Envelope, *, spared: bool = False
    ) -> list[tuple[Post, Report]]:
        """What each of those says. Never raises.

        `spared`: the message has stopped workers, so nothing of it is taken apart here.
        """
        posts = self.posted(looks_for)
        return [(post, self.report(post, message, envelope, spared=spared)) for post in posts]

    def report(
        self, post: Post, message: Message, envelope: Envelope, *, spared: bool = False
    ) -> Report:
        """What a scanner says of a message, now or a moment ago. Never raises."""
        key = _key(self._told, post, message, envelope)
        report = self._kept(key)
        if report is not None:
            return report
        from mdaflow.deliver import underway  # a dry run that asks no scanner needs nothing of it

        with underway.alone(self._state, key, post.seconds) as alone:
            report = self._kept(key)
            if report is None and not alone:
                report = Report(unscanned="another process is at it")
            elif report is None:
                report = self._scan(post, message, envelope, spared)
                self._keep(key, report)
        return report

    def _scan(self, post: Post, message: Message, envelope: Envelope, spared: bool) -> Report:
        with self._noted(post, message, envelope) as out:
            scanner = post.bare if out or spared else post.scanner
            if scanner is None:
                return Report(unscanned=STOPPED)
            began = time.monotonic()
            try:
                report = scanner.scan(message, envelope, post.seconds)
            except Exception as error:  # whatever it is, nobody has looked (P41)
                report = Report(unscanned=cleaned(str(error) or type(error).__name__))
                if not isinstance(error, Unscanned):
                    log.exception("%s failed", post.name)
            if (out or spared) and not (report.viruses or report.unscanned):
                report = Report(unscanned=STOPPED)  # it has not seen what others might
        if report.unscanned:
            took = time.monotonic() - began
            log.warning("%s: not scanned after %.1f s: %s", post.name, took, report.unscanned)
        return report

    def _noted(
        self, post: Post, message: Message, envelope: Envelope
    ) -> AbstractContextManager[bool]:
        if self._inflight is None:
            return nullcontext(False)
        return self._inflight.noted(message, envelope, 1 + self.posts.index(post))

    # --- what was said a moment ago ----------------------------------------------------------

    def _kept(self, key: str) -> Report | None:
        if self._store is None:
            return None
        text = self._remembered(key)
        if text is None:
            try:
                text = self._store.get(key)
            except OSError:  # then it is scanned once more
                return None
        return None if text is None else loads(text)

    def _keep(self, key: str, report: Report) -> None:
        if self._store is None:
            return
        text, seconds = dumps(report), FAILED if report.unscanned else KEPT
        self._remember(key, text, seconds)
        try:
            self._store.put(key, text, seconds)
        except OSError as error:
            log.warning("what %s says is not kept: %s", key.split()[1], error)

    def _remembered(self, key: str) -> str | None:
        until, text = self._recent.get(key, (0.0, None))
        return text if time.monotonic() < until else None

    def _remember(self, key: str, text: str, seconds: float) -> None:
        if len(text) > LONGEST:
            return
        with self._lock:
            self._recent.pop(key, None)
            self._recent[key] = time.monotonic() + seconds, text
            if len(self._recent) > MOST:
                self._recent.popitem(last=False)


def _key(told: str, post: Post, message: Message, envelope: Envelope) -> str:
    """The whole message, and what else of it a scanner may look at."""
    e, c = envelope, envelope.client
    whose = e.recipient if post.per_recipient else ""
    about = "\0".join((told, message.digest, e.sender, c.ip, c.name, c.helo, whose))
    return f"scan {post.name} {digest([about.encode('utf-8', 'surrogatepass')])}"


def names(posts: Sequence[tuple[Post, Report]]) -> Iterator[tuple[str, Report]]:
    """The same by name, as `verdict.combined` takes them."""
    return ((post.name, report) for post, report in posts)
