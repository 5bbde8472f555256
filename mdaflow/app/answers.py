"""Who answers what rules ask: one table from a fact to its provider.

A fact that is not in the table is unknown. Programs run only when a message is really
delivered; a dry run says that they were not.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from mdaflow.engine.context import Fact
from mdaflow.engine.plan import Unanswerable
from mdaflow.errors import INTERNAL, MailError, TempFail, from_oserror
from mdaflow.mail.address import without_detail
from mdaflow.mail.envelope import Envelope
from mdaflow.mail.message import Message
from mdaflow.mail.raw import digest
from mdaflow.route.users import User
from mdaflow.store import Store

from . import verdicts
from .lists import ListFiles
from .personal_indexes import PersonalIndexes
from .personal_lists import PersonalLists
from .scanning import Scanning

if TYPE_CHECKING:  # a dry run starts no program
    from mdaflow.deliver.program import Ended
    from mdaflow.scan.dns import Dns

    from .spam import Own

MAX_FILTERED = 50 << 20
"""Bytes that a filter may make of a message."""
COMMAND_SECONDS = 30.0
"""The time limit of a program for which the rules say none."""
EX_TEMPFAIL = 75
SEEN = 7 * 86_400.0
"""Seconds for which a message is known that was here."""

FAR = frozenset({"duplicate", "remembered", "listed", *verdicts.SHARED})
"""The facts that take the store of the site, its scanners, or what it knows of the DNS."""

Answer = Sequence[Any] | None

NO_SPAM: dict[str, Answer] = {
    "spam": [False],
    "spam.score": [0.0],
    "spam.bayes": [0.0],
    "spam.symbols": [],
    "spam.status": ["No, allowed"],
    "spam.unscanned": [False],
}
"""What scanners would say of a message that is allowed: nobody asks them."""


class Far(Protocol):
    """Has the store of the site, which the process that delivers as a user has not."""

    def fact(self, fact: Fact) -> Answer:
        """The answer to one of the facts `FAR`."""

    def seen(self) -> None:
        """The message is known from now on."""


@dataclass(frozen=True, slots=True)
class About:
    """Whose mail it is that is asked about."""

    user: User | None = None
    really: bool = False
    """It is delivered: programs run."""
    message: Message | None = None
    """As it came, whatever rules have done to it since."""
    spared: bool = False
    """It has stopped workers: nothing of it is taken apart here."""
    told: dict[str, Any] = field(default_factory=dict)
    """What scanners have said of it already."""


class Asking:
    """Answers facts about one message to one recipient."""

    def __init__(self, answers: Answers, about: About) -> None:
        self._answers = answers
        self._about = about

    def __call__(self, fact: Fact) -> Answer:
        """The answer; None is unknown. Raises TempFail, Unanswerable."""
        return self._answers.answer(fact, self._about)

    @property
    def asked(self) -> bool:
        """Has somebody asked what scanners say?"""
        return bool(self._about.told)

    @property
    def put_off(self) -> TempFail | None:
        """Why the message would be put off if it were really delivered, by what was asked."""
        return self._about.told.get(verdicts.PUT_OFF)

    def seen(self, message: Message, envelope: Envelope) -> verdicts.Seen:
        """What scanners say of the message, whatever was asked. Raises TempFail."""
        return verdicts.seen(self._answers, Fact("", message, envelope), self._about)


class Answers:
    """Answers the facts of one site; `delimiters` divide user and detail of a local part.

    `rules` is the path of a user's rules, beside which are lists of the user's own; `required` is
    the score from which on a message is spam; `trusted` are the authserv-ids that are believed;
    `own` are our tests of spam.
    """

    def __init__(
        self,
        store: Store,
        delimiters: str = "+",
        rules: str = ".mdaflow/rules",
        scanning: Scanning | None = None,
        required: float = 5.0,
        trusted: Collection[str] = (),
        own: Own | None = None,
    ) -> None:
        self.store = store
        self.own = own
        """Our own tests of spam; None: nothing is known of recipients."""
        self.scanning = scanning or Scanning()
        self.required: float = required
        self.delimiters = delimiters
        self.trusted = trusted
        self.lists = ListFiles()
        self.personal = PersonalLists(rules)
        self.indexes = PersonalIndexes(rules)
        self.dns: Dns | None = None
        """Who asks lists in the DNS; None: nobody does."""
        self.far: Far | None = None
        """Who is asked about the store; None: it is ours."""

    def __call__(self, fact: Fact) -> Answer:
        """The answer without a recipient's mailbox, and without running programs."""
        return self.answer(fact, About())

    def about(
        self,
        user: User | None,
        *,
        really: bool,
        message: Message | None = None,
        spared: bool = False,
    ) -> Asking:
        """What answers facts about the mail of a user; `really`: programs run, and a scanner that
        is down puts mail off."""
        return Asking(self, About(user, really, message, spared))

    def answer(self, fact: Fact, about: About) -> Answer:
        """The answer to a fact about somebody's mail; None is unknown. Raises TempFail."""
        if self.far is not None and fact.name in FAR:
            return self.far.fact(fact)
        if fact.name in NO_SPAM and self.is_allowed(fact, about):
            return NO_SPAM[fact.name]
        provider = _PROVIDERS.get(fact.name)
        return None if provider is None else provider(self, fact, about)

    def is_allowed(self, fact: Fact, about: About) -> bool:
        """Has the site said so, or the list of the user?"""
        if fact.envelope.allowed or about.user is None:
            return fact.envelope.allowed
        return self.personal.allows(about.user, about.message or fact.message, fact.envelope)

    @property
    def provided(self) -> frozenset[str]:
        """The facts that somebody answers here, and `learn`. Raises ConfigError."""
        nobody = verdicts.unanswered(self.scanning) | ({"listed"} if self.dns is None else set())
        return frozenset(_PROVIDERS) - nobody | {"learn"}

    def remember_seen(self, message: Message, user: User) -> None:
        """The message is known from now on: rules have asked. Raises OSError."""
        if self.far is not None:
            self.far.seen()
        else:
            self.store.put(_seen_key(message, user.address), "", SEEN)

    def whose(self, fact: Fact, about: About) -> str:
        """The address of the user whose mail it is, without the detail it came with."""
        found = about.user and about.user.address
        return found or without_detail(fact.envelope.recipient, self.delimiters)


def _types(answers: Answers, fact: Fact, about: About) -> Answer:
    from mdaflow.scan.magic import attachment_types

    return attachment_types(fact)


def _inner(answers: Answers, fact: Fact, about: About) -> Answer:
    from mdaflow.scan.dangers import inner

    return inner(about.message or fact.message)


def _dangers(answers: Answers, fact: Fact, about: About) -> Answer:
    from mdaflow.scan.dangers import dangers

    return dangers(about.message or fact.message)


def _ambiguous(answers: Answers, fact: Fact, about: About) -> Answer:
    readings = fact.message.readings
    return [bool(readings.doubts or readings.limit)]


def _list(answers: Answers, fact: Fact, about: About) -> Answer:
    path = fact.arguments[0]
    home = "" if fact.owner == "site" else _home(path, about.user)
    try:
        return answers.lists.entries(path, home)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise Unanswerable(f"the list {path}: {reason}") from error


def _home(path: str, user: User | None) -> str:
    """The folder from which on a file of a user has to be safe."""
    if user is not None and path.startswith(f"{user.home}/"):
        return user.home
    return os.path.dirname(path) or "."


def _duplicate(answers: Answers, fact: Fact, about: About) -> Answer:
    if fact.envelope.released:
        return [False]  # it was here only to be put aside
    try:
        key = _seen_key(about.message or fact.message, answers.whose(fact, about))
        return [answers.store.get(key) is not None]
    except OSError:
        return None


def _seen_key(message: Message, whose: str) -> str:
    """By Message-ID, as formail does; without one by the whole message."""
    ids = message.header("Message-ID", raw=True)[:1]
    known = ids[0].strip() if ids else ""
    what = known.encode("utf-8", "surrogateescape") if known else message.raw
    return f"seen {whose} {digest([what])}"


def _remembered(answers: Answers, fact: Fact, about: About) -> Answer:
    from mdaflow.deliver.soft import remembered

    whose = answers.whose(fact, about)
    found = remembered(answers.store, fact.owner, whose, fact.arguments[0])
    return None if found is None else [found]


def _folder(answers: Answers, fact: Fact, about: About) -> Answer:
    from mdaflow.deliver.mailbox import elsewhere, in_spool, locate, parse_mailbox

    if about.user is None:
        return None
    name, user = fact.arguments[0], about.user
    try:
        mailbox = parse_mailbox(user.mailbox, user.home)
        mailbox, folder = elsewhere(name) or in_spool(mailbox, name) or (mailbox, name)
        os.lstat(os.path.join(mailbox.home, *locate(mailbox, folder)))
    except (MailError, FileNotFoundError, NotADirectoryError):
        return [False]  # what can be no folder is none
    except OSError as error:
        if about.really:
            raise from_oserror(error) from error
        return None
    return [True]


def _command(answers: Answers, fact: Fact, about: About) -> Answer:
    ended = _run(answers, fact, about, 0)
    if ended is None:
        return None
    if ended.reason or ended.code == EX_TEMPFAIL or ended.code > 128:
        raise _failed(fact, ended, f"ended with {ended.code}")
    return [ended.code == 0]


def _filter(answers: Answers, fact: Fact, about: About) -> Answer:
    ended = _run(answers, fact, about, MAX_FILTERED)
    if ended is None:
        return None
    if ended.reason or ended.code != 0 or not ended.output:
        raise _failed(fact, ended, f"ended with {ended.code}" if ended.code else "gave nothing")
    return [Message.from_wire(ended.output).raw]


def _run(answers: Answers, fact: Fact, about: About, output: int) -> Ended | None:
    """How a program ended that got the message as rules see it; None when it was not run."""
    if about.user is None or not about.really:
        return None
    from mdaflow.deliver.pipe import MAX_SECONDS
    from mdaflow.deliver.program import clean_environment, find, run_program

    home, message = about.user.home, fact.message
    if not find(fact.arguments[0]):
        raise Unanswerable(f"there is no program {fact.arguments[0]}")
    return run_program(
        fact.arguments,
        message.under(message.head),
        seconds=min(fact.within or COMMAND_SECONDS, MAX_SECONDS),
        environment=clean_environment(fact.envelope, home, answers.delimiters, about.user.address),
        directory=home,
        output_limit=output,
    )


def _failed(fact: Fact, ended: Ended, how: str) -> TempFail:
    why = f"{fact.arguments[0]}: {ended.reason or how}"
    return TempFail(INTERNAL, f"{why}{ended.complaint and f': {ended.complaint}'}")


def _known_sender(answers: Answers, fact: Fact, about: About) -> Answer:
    """Those that the site or the user has named, and those to whom the user has written."""
    if answers.is_allowed(fact, about):
        return [True]
    if about.user is None:
        return [False]
    from mdaflow.scan.senders import is_known

    message, own = about.message or fact.message, (about.user.address, *about.user.own)
    try:
        index = answers.indexes.senders(about.user, really=about.really)
        return [index is not None and is_known(message, index, own, answers.trusted)]
    except OSError:
        return None


def _listed(answers: Answers, fact: Fact, about: About) -> Answer:
    if answers.dns is None:
        return None
    message = about.message or fact.message  # the same one, whoever asks: its time is bounded
    found = answers.dns.listed(fact.arguments[0], message, fact.envelope, owner=fact.owner)
    return None if found is None else [found]


_PROVIDERS: dict[str, Callable[[Answers, Fact, About], Answer]] = {
    "attachment.type": _types,
    "attachment.inner": _inner,
    "attachment.danger": _dangers,
    "ambiguous": _ambiguous,
    "list": _list,
    "duplicate": _duplicate,
    "remembered": _remembered,
    "folder": _folder,
    "command": _command,
    "filter": _filter,
    "known_sender": _known_sender,
    "listed": _listed,
    **verdicts.PROVIDERS,
}
