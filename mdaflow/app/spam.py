"""Our own tests of spam, with all that they are told: what the site has learned, its known spam,
its lists, those in the DNS; and what a recipient adds.

What all recipients share is a scanner like any other (scanning.py). What a user has learned, calls
spam or has written to is in the user's home, so it is added by whoever delivers there.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from mdaflow.engine.context import Fact
from mdaflow.errors import ConfigError, MailError
from mdaflow.files import Reading
from mdaflow.mail.envelope import Envelope
from mdaflow.mail.message import Message
from mdaflow.route.users import User
from mdaflow.scan import Hit

from .config import Config
from .homes import is_foreign
from .learn import FILE, own_counts, site_counts
from .lists import ListFiles
from .scanning import Post

if TYPE_CHECKING:  # most mail is sorted without
    from mdaflow.scan.bayes import Classifier, Judgement
    from mdaflow.scan.dns import Dns
    from mdaflow.scan.index import Index
    from mdaflow.scan.spam import Table

    from .answers import About, Answers

MAX_WEIGHTS = 1 << 20
"""Bytes of a site's file with weights."""
MAX_OPEN = 64
"""Users whose own counts a process has open."""
LOOK = 1.0
"""Seconds for which lists in files are not looked at again."""
SECONDS = 30.0
"""For our own tests, of which only questions to the DNS could take long."""

log = logging.getLogger("mdaflow")


class Own:
    """What our own tests of spam need of a site. `kept`: what is indexed is kept, in `state:`."""

    def __init__(self, config: Config, hostname: str, dns: Dns | None, *, kept: bool) -> None:
        self._config = config
        self._hostname = hostname
        self._dns = dns
        self._kept = kept
        self._lists = ListFiles()
        self._open: OrderedDict[str, Classifier] = OrderedDict()
        self._lock = threading.Lock()

    @cached_property
    def table(self) -> Table:
        """What each test is worth. Raises ConfigError."""
        from .weights import read_weights

        path, dns = self._config.spam.tests, self._config.spam.dns
        lists = [f"DNSBL_{name}" for name in dns.clients.values()]
        lists += [f"URIBL_{name}" for name in dns.domains.values()]
        try:
            return read_weights(Reading(MAX_WEIGHTS)(path) if path else b"", path, lists)
        except (OSError, MailError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ConfigError((f"spam.tests: {path}: {reason}",)) from None

    def post(self) -> Post:
        """The scanner. Raises ConfigError."""
        from mdaflow.scan.spam import Spam, own_tests
        from mdaflow.scan.spam.clues import Site

        said = self._config.spam
        ours = {self._hostname, *self._config.domains}
        lists = (Entries(paths, self._lists) for paths in (
            said.bad_senders, said.bad_hosts, said.bad_links
        ))  # fmt: skip
        site = Site(self._config.trusted_authserv_ids, {n.lower() for n in ours}, *lists)
        own_tests()
        scanner = Spam(self.table, site, bayes=self._evidence, others=self._others())
        return Post(scanner, frozenset(("spam",)), SECONDS, "deliver-tagged")

    def judge(self, message: Message) -> Judgement | None:
        """What a message is like by what the site has learned; None when that is nothing."""
        return _judged(self._site, message, "what the site has learned")

    def judge_for(self, user: User, message: Message) -> Judgement | None:
        """The same by what a user has learned."""
        try:
            if is_foreign(user) or not os.path.exists(os.path.join(user.home, ".mdaflow", FILE)):
                return None
            classifier = self._of(user.home)
        except OSError as error:
            log.warning("<%s>: what was learned is not known: %s", user.address, error)
            return None
        return _judged(classifier, message, f"what <{user.address}> has learned")

    # --- what the site knows ------------------------------------------------------------------

    @cached_property
    def _site(self) -> Classifier:
        from mdaflow.scan.bayes import Classifier

        return Classifier(site_counts(self._config))

    def _evidence(self, message: Message) -> float | None:
        found = self.judge(message)
        return None if found is None else found.evidence

    def _others(self) -> list[Callable[[Message, Envelope, float], Iterable[Hit]]]:
        others: list[Callable[[Message, Envelope, float], Iterable[Hit]]] = []
        if self._dns is not None:
            others.append(self._dns.hits)
        if self._config.spam.known and self._kept:
            index = self.known
            others.append(lambda message, envelope, seconds: known_hits(message, index))
        return others

    @cached_property
    def known(self) -> Index:
        """The site's known spam."""
        from mdaflow.scan.known import spam_index
        from mdaflow.scan.letters import Folder

        folders = [Folder(path) for path in self._config.spam.known]
        return spam_index(os.path.join(self._config.state, "known-spam"), folders)

    # --- what users know ----------------------------------------------------------------------

    def _of(self, home: str) -> Classifier:
        from mdaflow.scan.bayes import Classifier

        with self._lock:
            if home not in self._open:
                self._open[home] = Classifier(own_counts(home))
            self._open.move_to_end(home)
            while len(self._open) > MAX_OPEN:
                self._open.popitem(last=False)[1].close()
            return self._open[home]


class Entries:
    """Files of lists: what is in one of them, in lower case. They are looked at once a second. What
    cannot be read has nothing in it, and the log says so."""

    def __init__(self, paths: Sequence[str], files: ListFiles) -> None:
        self._paths = paths
        self._files = files
        self._sets: dict[str, tuple[object, frozenset[str]]] = {}
        self._now: list[frozenset[str]] = []
        self._until = 0.0

    def __contains__(self, entry: object) -> bool:
        if self._paths and time.monotonic() >= self._until:
            self._now = [self._entries(path) for path in self._paths]
            self._until = time.monotonic() + LOOK
        return any(entry in entries for entries in self._now)

    def _entries(self, path: str) -> frozenset[str]:
        try:
            read = self._files.entries(path)
        except (OSError, ValueError, MailError) as error:
            log.warning("%s: %s", path, getattr(error, "strerror", None) or error)
            return frozenset()
        kept = self._sets.get(path)
        if kept is None or kept[0] is not read:  # the same object as long as the file is the same
            kept = self._sets[path] = read, frozenset(entry.lower() for entry in read)
        return kept[1]


def known_hits(message: Message, index: Index, *, fresh: bool = True) -> list[Hit]:
    """What a message is to the known spam of an index, which is brought up to date if `fresh`."""
    from mdaflow.scan.known import HITS, known_spam

    if fresh:
        index.refresh()
    try:
        kind = known_spam(message, index)
    except OSError as error:
        log.warning("known spam: %s", error)
        return []
    return [HITS[kind]] if kind else []


def for_user(answers: Answers, own: Own, hits: Sequence[Hit], fact: Fact, about: About) -> Hits:
    """The hits of a message with what its recipient adds."""
    from mdaflow.scan.spam import KNOWN_SENDER, for_recipient

    user, message = about.user, about.message or fact.message
    judged, spam = None, list[Hit]()
    if user is not None:
        judged = own.judge_for(user, message)
        try:
            index = answers.indexes.spam(user, really=about.really)
            spam = known_hits(message, index, fresh=False) if index is not None else []
        except OSError as error:
            log.warning("<%s>: known spam: %s", user.address, error)
    told = {hit.name for hit in hits}
    spam = [h._replace(score=own.table[h.name].weight) for h in spam if h.name not in told]
    known = answers.answer(fact._replace(name="known_sender", arguments=()), about)
    evidence = None if judged is None else judged.evidence
    is_known = bool(known and known[0]) and KNOWN_SENDER in own.table
    return for_recipient([*hits, *spam], known=is_known, evidence=evidence, table=own.table)


Hits = tuple[Hit, ...]


def _judged(classifier: Classifier, message: Message, what: str) -> Judgement | None:
    try:
        return classifier.judge(message)
    except (OSError, ArithmeticError, TypeError, ValueError) as error:  # a file may say anything
        log.warning("%s is not known: %s", what, error)
        return None
