"""Reply automatically, by the rules of RFC 3834: to people who wrote to the recipient, rarely.

`SILENT` says to whom no reply goes (P38). What a rule has done to the header does not make a
reply possible: the message counts as it came, too. The letter has the null sender (P39) and goes
to the envelope sender only. That it is sent is remembered right before, so that a crash means
fewer replies, never more, and of two deliveries at the same instant one replies; without a
memory there are none. Nothing of this fails a delivery.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import NamedTuple

from mdaflow.engine.plan import Action
from mdaflow.mail import letter
from mdaflow.mail.address import without_detail
from mdaflow.mail.message import Message

from .job import Job, Memory
from .mailbox import Prepared

EVERY = 7 * 86400.0
"""Seconds between two replies to one sender, unless a rule says otherwise."""
LEAST = 60.0
"""Whatever a rule says."""
HAD_ONE, NO_MEMORY = "had one", "no memory"
"""What the memory has against a reply."""

SYSTEM = (
    *("mailer-daemon", "mailerdaemon", "daemon", "postmaster", "root", "nobody"),
    *("listserv", "listproc", "majordomo", "mailman", "owner-*", "*-owner", "*-request"),
    *("bounce", "bounces", "bounce[-+=]*", "bounces[-+=]*", "*-bounce", "*-bounces"),
    *("noreply*", "no-reply*", "donotreply*", "do-not-reply*", "*-noreply", "*-no-reply"),
)
"""Local parts, in lower case and with `-` for `_` and `.`, that nobody reads."""

LISTS = (b"list-", b"mailing-list", b"x-mailing-list", b"x-beenthere")
"""How the names of fields of mailing lists begin."""

MARKS = (
    ("Auto-Submitted", r"(?!no\Z)", "automatic mail"),
    ("Precedence", r"(?:bulk|junk|list|auto_reply)\b", "bulk mail"),
    ("X-Auto-Response-Suppress", r"(?:.*[\s,])?(?:all|dr|autoreply|oof)\b", "not wanted"),
    ("Content-Type", r"multipart/report\b", "automatic mail"),
    ("X-Spam-Flag", r"yes\b", "spam"),
    ("X-Spam-Status", r"yes\b", "spam"),
    ("X-Virus-Status", r"(?:yes|infected)\b", "virus"),
)
"""A field, how its value begins in lower case and without comments, and what that means."""

_COMMENT = re.compile(r"\([^()]*\)")


class Case(NamedTuple):
    """What a reply depends on. All addresses are in lower case."""

    messages: tuple[Message, ...]
    """As it came, and as rules have changed it."""
    sender: str
    """Of the envelope."""
    authors: tuple[str, ...]
    """The addresses in From."""
    own: frozenset[str]
    """The recipient's own addresses."""
    mine: frozenset[str]
    """The same, and the one that the message came by: what it says is not the recipient's word,
    but whoever writes from there is not answered."""
    addressed: frozenset[str]
    """Whom the header says it is for."""


def prepare(job: Job, action: Action) -> Prepared:
    """A reply that is sent at commit, or nothing, and `where` says why. Never raises."""
    from .send import Letter, Nothing  # smtplib and socket: 30 ms, and only for what is sent

    memory, sender = job.means.memory, job.envelope.sender
    whose = without_detail(job.envelope.recipient, job.means.delimiters)
    key = f"reply {whose.lower()} {sender.lower()}"
    every = max(LEAST, float(dict(action.options).get("every", EVERY)))
    reason = why_not(_case(job, action)) or _against(memory, key)
    if reason or memory is None:
        return Nothing(f"no reply: {reason}")

    def remember() -> str:
        try:
            return "" if memory.add(key, job.ident, every) else HAD_ONE
        except OSError:
            return NO_MEMORY

    return Letter(job, "reply", sender, lambda: _write(job, action), remember)


def why_not(case: Case) -> str:
    """The reason why this message gets no automatic reply; empty when it may have one."""
    return next((reason for reason, applies in SILENT if applies(case)), "") or _mark(case)


SILENT: tuple[tuple[str, Callable[[Case], bool]], ...] = (
    ("null sender", lambda case: not case.sender),
    ("system sender", lambda case: any(map(_of_system, (case.sender, *case.authors)))),
    ("own address", lambda case: not case.mine.isdisjoint((case.sender, *case.authors))),
    ("not addressed", lambda case: case.own.isdisjoint(case.addressed)),
    ("mailing list", lambda case: any(map(_of_list, case.messages))),
)
"""What is true of a message that gets no reply."""


def _lower(*addresses: str) -> frozenset[str]:
    return frozenset(address.lower() for address in addresses if address)


def _case(job: Job, action: Action) -> Case:
    message, envelope = job.message, job.envelope
    own = (*job.own, envelope.recipient)
    fields = ("To", "Cc", "Resent-To", "Resent-Cc")
    return Case(
        (message, action.message or message),
        envelope.sender.lower(),
        tuple(a.address.lower() for a in message.addresses("From")),
        _lower(*own),
        _lower(*own, envelope.original),
        frozenset(a.address.lower() for field in fields for a in message.addresses(field)),
    )


def _of_system(address: str) -> bool:
    local = (address.rpartition("@")[0] or address).strip('"').replace("_", "-").replace(".", "-")
    return any(fnmatchcase(local.partition("+")[0], glob) for glob in SYSTEM)


def _of_list(message: Message) -> bool:
    return any(name.startswith(LISTS) for name in message.fields)


def _mark(case: Case) -> str:
    for field, begins, reason in MARKS:
        values = (v for message in case.messages for v in message.header(field))
        if any(re.match(begins, _plain(value)) for value in values):
            return reason
    return ""


def _plain(value: str) -> str:
    """A value in lower case, without comments and parameters (RFC 3834 section 5)."""
    return _COMMENT.sub(" ", value).partition(";")[0].strip().lower()


def _against(memory: Memory | None, key: str) -> str:
    """Why the memory is against a reply; empty when it is not."""
    if memory is None:
        return NO_MEMORY
    try:
        return "" if memory.get(key) is None else HAD_ONE
    except OSError:
        return NO_MEMORY


def _write(job: Job, action: Action) -> bytes:
    from .send import message_id

    message, options = job.message, dict(action.options)
    theirs = (message.header("Subject") or [""])[0]
    return letter.compose(
        sender=str(options.get("from") or job.envelope.recipient),
        recipient=job.envelope.sender,
        subject=str(options.get("subject") or f"Auto: {theirs}"),
        text=action.text,
        date=time.time(),
        message_id=message_id(job),
        references=_references(message),
        fields={"Auto-Submitted": "auto-replied (mdaflow)"},
    )


def _references(message: Message) -> list[str]:
    """The thread, down to the message itself (RFC 5322 section 3.6.4)."""
    this, above, parents = (
        letter.message_ids(" ".join(message.header(name, raw=True)))
        for name in ("Message-ID", "References", "In-Reply-To")
    )
    if not above and len(parents) == 1:
        above = parents
    return [*above, this[0]] if this else []
