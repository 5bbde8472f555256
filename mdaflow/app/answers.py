"""Who answers what rules ask: one table from a fact to its provider.

A fact that is not in the table is unknown. Programs run only when a message is really
delivered; a dry run says that they were not.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

from mdaflow.engine.facts import Fact
from mdaflow.engine.plan import Unanswerable
from mdaflow.errors import INTERNAL, MailError, TempFail
from mdaflow.mail.envelope import Envelope
from mdaflow.mail.message import Message
from mdaflow.route.users import User
from mdaflow.store import Store

from .rulefiles import ListFiles, Unsafe

MAX_FILTERED = 50 << 20
"""Bytes that a filter may make of a message."""
COMMAND_SECONDS = 30.0
EX_TEMPFAIL = 75
SEEN = 7 * 86_400.0
"""Seconds for which a message is known that was here."""

Answer = Sequence[Any] | None


class Answers:
    """Answers the facts of one site."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.lists = ListFiles()

    def __call__(self, fact: Fact) -> Answer:
        """The answer without a recipient's mailbox, and without running programs."""
        return self.about(None, really=False)(fact)

    def about(self, user: User | None, *, really: bool) -> Callable[[Fact], Answer]:
        """What answers facts about the mail of a user; `really`: programs run."""

        def ask(fact: Fact) -> Answer:
            provider = _PROVIDERS.get(fact.name)
            return None if provider is None else provider(self, fact, user if really else None)

        def look(fact: Fact) -> Answer:
            if fact.name == "folder":
                return _folder(fact, user)
            return ask(fact)

        return look

    def remember_seen(self, message: Message, envelope: Envelope) -> None:
        """The message is known from now on: rules have asked. Raises OSError."""
        self.store.put(_seen_key(message, envelope), "", SEEN)


PROVIDED = frozenset(
    ("attachment.type", "duplicate", "remembered", "folder", "command", "filter", "list")
)
"""The facts that somebody answers."""


def _types(answers: Answers, fact: Fact, user: User | None) -> Answer:
    from mdaflow.scan.magic import attachment_types

    return attachment_types(fact)


def _list(answers: Answers, fact: Fact, user: User | None) -> Answer:
    path = fact.arguments[0]
    try:
        return answers.lists.entries(path, fact.owner)
    except (Unsafe, FileNotFoundError, NotADirectoryError) as error:
        raise Unanswerable(f"the list {path}: {error.strerror}") from error
    except OSError as error:
        raise TempFail(INTERNAL, f"the list {path}: {error.strerror}") from error


def _duplicate(answers: Answers, fact: Fact, user: User | None) -> Answer:
    try:
        return [answers.store.get(_seen_key(fact.message, fact.envelope)) is not None]
    except OSError:
        return None


def _seen_key(message: Message, envelope: Envelope) -> str:
    """By Message-ID, as formail does; without one by the whole message."""
    from hashlib import sha256

    ids = message.header("Message-ID", raw=True)[:1]
    what = ids[0].encode("utf-8", "surrogateescape") if ids else message.raw
    return f"seen {envelope.recipient} {sha256(what).hexdigest()}"


def _remembered(answers: Answers, fact: Fact, user: User | None) -> Answer:
    from mdaflow.deliver.soft import remembered

    found = remembered(answers.store, fact.owner, fact.envelope.recipient, fact.arguments[0])
    return None if found is None else [found]


def _folder(fact: Fact, user: User | None) -> Answer:
    from mdaflow.deliver.mailbox import elsewhere, locate, parse_mailbox

    if user is None:
        return None
    try:
        mailbox, folder = elsewhere(fact.arguments[0]) or (
            parse_mailbox(user.mailbox, user.home),
            fact.arguments[0],
        )
        path = os.path.join(mailbox.home, *locate(mailbox, folder))
    except MailError:
        return [False]  # it can be no folder, so there is none
    return [os.path.lexists(path)]


def _command(answers: Answers, fact: Fact, user: User | None) -> Answer:
    if user is None:
        return None
    ended = _run(fact, user, 0)
    if ended.reason or ended.code == EX_TEMPFAIL or ended.code > 128:
        raise _failed(fact, ended)
    return [ended.code == 0]


def _filter(answers: Answers, fact: Fact, user: User | None) -> Answer:
    if user is None:
        return None
    ended = _run(fact, user, MAX_FILTERED)
    if ended.reason or ended.code != 0 or not ended.output:
        raise _failed(fact, ended)
    return [ended.output]


def _run(fact: Fact, user: User, output: int) -> Any:
    from mdaflow.deliver.program import clean_environment, find, run_program

    if not find(fact.arguments[0]):
        raise Unanswerable(f"there is no program {fact.arguments[0]}")
    message = fact.message
    return run_program(
        fact.arguments,
        message.under(message.head),
        seconds=fact.within or COMMAND_SECONDS,
        environment=clean_environment(fact.envelope, user.home),
        directory=user.home,
        output_limit=output,
    )


def _failed(fact: Fact, ended: Any) -> TempFail:
    why = ended.reason or f"ended with {ended.code}"
    said = ended.errors.strip().splitlines()[:1]
    return TempFail(INTERNAL, f"{fact.arguments[0]}: {why}{': ' if said else ''}{''.join(said)}")


_PROVIDERS: dict[str, Callable[[Answers, Fact, User | None], Answer]] = {
    "attachment.type": _types,
    "list": _list,
    "duplicate": _duplicate,
    "remembered": _remembered,
    "command": _command,
    "filter": _filter,
}
