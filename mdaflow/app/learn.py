"""Learning what is spam and what is not: for the site, or for one user alone.

What the site has learned is in `STATE/bayes.sqlite`, or in the server that `store:` names. What a
user has learned is in `HOME/.mdaflow/bayes.sqlite`; a home that is not there is not made.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, suppress
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from mdaflow.mail.message import Message
from mdaflow.scan import Unscanned
from mdaflow.store import Store

from .collection import Found
from .config import Config, Rspamd

if TYPE_CHECKING:  # most mail teaches nothing
    from mdaflow.deliver.job import Job, Learner
    from mdaflow.scan.bayes import Counts as Counts
    from mdaflow.scan.bayes import Lesson

BATCH = 100
"""Messages that are learned in one transaction."""
TEACH = 10.0
"""Seconds for somebody else to learn a message."""
PATIENCE = 30.0
"""Seconds that a command waits for others who learn."""
FILE = "bayes.sqlite"
MARKS = "moved.sqlite"


Teach = Callable[[Message, bool], str]
"""Tells somebody else that a message is spam, or ham; returns why that has not learned it."""


class Learned(NamedTuple):
    """What became of a file, or of a message in it."""

    path: str
    bytes: int
    new: bool = False
    trouble: str = ""


def learn(
    counts: Counts, found: Iterable[Found], spam: bool | None, teach: Teach | None = None
) -> Iterator[Learned]:
    """Learn messages as spam, as ham, or (None) forget them, a hundred at once. Whoever stops
    before the end has learned those that were told, and perhaps some more. `teach` tells others of
    each that is new, and returns why they did not learn it. Raises OSError."""
    from mdaflow.scan.bayes import lesson, name_of

    waiting: list[tuple[Found, Lesson]] = []
    for one in found:
        if one.message is None:
            yield Learned(one.path, one.bytes, trouble=one.trouble)
            continue
        if counts.class_of(name_of(one.message)) is spam:
            yield Learned(one.path, one.bytes)
            continue
        trouble = teach(one.message, spam) if teach and spam is not None else ""
        about = one._replace(message=None, trouble=trouble)  # its tokens are enough
        waiting.append((about, lesson(one.message, spam)))
        if len(waiting) == BATCH:
            yield from _told(counts, waiting)
            waiting = []
    yield from _told(counts, waiting)


def _told(counts: Counts, batch: list[tuple[Found, Lesson]]) -> Iterator[Learned]:
    done = counts.learn([each for _, each in batch])
    for (one, _), new in zip(batch, done, strict=True):
        yield Learned(one.path, one.bytes, new, one.trouble)


def site_counts(config: Config, *, patient: bool = False) -> Counts:
    """What the site has learned. `patient`: for a command, that may wait for others."""
    if config.store:
        from mdaflow.store.redis import RedisStore
        from mdaflow.store.redis_counts import RedisCounts

        return RedisCounts(RedisStore(config.store), "site")
    return _counts(os.path.join(config.state, FILE), patient)


def own_counts(home: str, *, patient: bool = False) -> Counts:
    """What the user has learned whose home it is. Raises OSError when there is no home, or when
    its folder `.mdaflow` is not ours."""
    return _counts(_own(home, FILE), patient, many=not patient)


def own_marks(home: str) -> Store:
    """What `mdaflow learn --moved` remembers of that user's mail. Raises OSError as above."""
    from mdaflow.store.sqlite import SqliteStore

    return SqliteStore(_own(home, MARKS), private=True)


def _own(home: str, name: str) -> str:
    """A file for small state of a user."""
    folder = os.path.join(home, ".mdaflow")
    os.stat(home)  # it is not made: its disk may not be mounted
    with suppress(FileNotFoundError):
        about = os.lstat(folder)
        if not stat.S_ISDIR(about.st_mode) or about.st_uid != os.geteuid():
            raise OSError(errno.EPERM, "is no folder of ours", folder)
    return os.path.join(folder, name)


def _counts(path: str, patient: bool, *, many: bool = False) -> Counts:
    from mdaflow.store.counts import SqliteCounts
    from mdaflow.store.sqlite import WAIT

    return SqliteCounts(path, wait=PATIENCE if patient else WAIT, bulk=patient, many=many)


def teacher(config: Config) -> Teach | None:
    """Who tells rspamd what the site learns, if it shall learn. Raises ConfigError."""
    from .scanners import rspamd

    those = (s for s in config.scanners if isinstance(s, Rspamd) and s.controllers)
    clients = [rspamd(said, config) for said in those]

    def teach(message: Message, spam: bool) -> str:
        troubles = []
        for client in clients:
            try:
                client.learn(message, "spam" if spam else "ham", TEACH)
            except Unscanned as error:
                troubles.append(f"{client.name} has not learned it: {error}")
        return "; ".join(troubles)

    return teach if clients else None


def learners(config: Config) -> dict[str, Learner]:
    """What the actions `learn spam` and `learn ham` do: rules of the site teach the site, those of
    a user only that user."""

    @cache
    def of_site() -> tuple[Counts, Teach | None]:  # a process of an account never asks for these
        return site_counts(config), teacher(config)

    def learner(spam: bool) -> Learner:
        def teach(job: Job, message: Message, owner: str) -> None:
            from mdaflow.scan.bayes import lesson

            if owner == "site":
                counts, tell = of_site()
                counts.learn([lesson(message, spam)])
                if tell and (trouble := tell(message, spam)):
                    raise OSError(trouble)
            else:
                with closing(own_counts(job.mailbox.home)) as own:
                    own.learn([lesson(message, spam)])

        return teach

    return {"spam": learner(True), "ham": learner(False)}
