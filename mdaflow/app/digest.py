"""A mail that tells a user what came into the quarantine since the last one.

It is stored in the inbox, as notices are: no rule sees it, and it has room in a full mailbox. There
is none about nothing, and at most one within an hour. The store keeps up to when the last one told,
and which of the latest messages it named: one that is written before a digest and seen after
it is in the next. Where the store forgets, the time that the caller says counts.

The text has words of senders in it, each on a line of its own, cut and without controls.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime, tzinfo

from mdaflow.deliver.held import Entry, Held, Note, NotHeld, folders, held, look, messages
from mdaflow.deliver.quarantine import component
from mdaflow.engine.plan import one_line
from mdaflow.errors import PermFail, TempFail, from_oserror
from mdaflow.mail.letter import compose
from mdaflow.route.users import User

from .build import Site
from .decide import find_user
from .notices import store_letter
from .release import check_reach

MOST = 60
"""Messages that a digest names; with their lines these are less than 200."""
MAX_WORDS = 100
"""Characters of a sender, a subject or a reason."""
HOUR = 3600.0
KEEP = 90 * 86_400.0
"""Seconds for which the time of the last digest is kept."""
LATE = 600.0
"""Seconds in which a message that is written has to be seen."""
MOST_LATE = 1000
"""Messages of this time that are kept in mind; of more, some are told of twice."""

_SUBJECT = "Mail to you in quarantine: {count}"
_TEXT = """\
This mail to you was put in quarantine, and is deleted there {days} days after it came:

{lines}

{contact} can let it out for you: name the letters and digits that stand in brackets. Do not ask for
mail that you do not expect; it may do harm.
"""
_MORE = "    and {more} more"


def digest(site: Site, user: User, contact: str, since: float, now: float | None = None) -> int:
    """Tell a user what is new, at the first time from `since` on; how many messages these are, or
    0 when there is nothing to tell, or not yet. Times are seconds since the epoch.

    Raises MailError, ValueError for a contact that cannot be written.
    """
    check_reach(site, user)
    now = time.time() if now is None else now
    try:
        return _digest(site, user, contact, since, now)
    except OSError as error:
        raise from_oserror(error) from error


def who_has_some(site: Site) -> Iterator[User]:
    """The users who have mail in the quarantine, by the notes there: a source need not list its
    users, nor all of their domains. Who is gone is none. Raises OSError."""
    root = site.config.quarantine
    for folder in folders(root):
        notes = (_note(root, each) for each in messages(root, folder))
        found = next((note for note in notes if note is not None), None)
        with suppress(PermFail):
            user = None if found is None else find_user(site, found.envelope.recipient)
            if user is not None and component(user.address) == folder:
                yield user


def _note(root: str, each: Held) -> Note | None:
    try:
        return look(root, each).note
    except NotHeld:  # gone by now
        return None


def _digest(site: Site, user: User, contact: str, since: float, now: float) -> int:
    store, key = site.answers.store, f"digest of {user.address}"
    until, told = _last(store.get(key), since, now)
    all_held = held(site.config.quarantine, component(user.address))
    new = [each for each in all_held if each.put > until and _unique(each) not in told]
    if not new or not store.add(f"digest to {user.address}", "", HOUR):
        return 0
    letter = _letter(site, user, contact, new, now)
    if user.account is not None and site.identities is not None:
        site.identities.store_letter(user, letter)
    else:
        store_letter(site, user, letter)
    late = [_unique(each) for each in all_held if each.put > now - LATE]
    store.put(key, json.dumps([now - LATE, late[:MOST_LATE]]), KEEP)
    return len(new)


def _unique(each: Held) -> str:
    """The part of a file's name that never changes."""
    return each.file.partition(":")[0]


def _last(kept: str | None, since: float, now: float) -> tuple[float, frozenset[str]]:
    """Up to when was told, and what of the time behind that; a store may hold anything (P43)."""
    try:
        until, told = json.loads(kept or "")
        if math.isfinite(until) and until <= now:  # else the clock was set
            return float(until), frozenset(map(str, told))
    except (ValueError, TypeError, RecursionError):
        pass
    return since, frozenset()


def _letter(site: Site, user: User, contact: str, new: list[Held], now: float) -> bytes:
    zone = _zone(user, site)
    lines = [line for each in new[:MOST] for line in _lines(site.config.quarantine, each, zone)]
    if len(new) > MOST:
        lines.append(_MORE.format(more=len(new) - MOST))
    host = site.hostname
    return compose(
        sender=f"MAILER-DAEMON@{host}",
        recipient=user.address,
        subject=_SUBJECT.format(count=len(new)),
        text=_TEXT.format(
            days=site.config.quarantine_days, lines="\n".join(lines), contact=one_line(contact)
        ),
        date=now,
        message_id=f"<digest.{time.time_ns()}.{os.getpid()}@{host}>",
        fields={"Auto-Submitted": "auto-generated (quarantine)"},
    )


def _lines(root: str, each: Held, zone: tzinfo | None) -> Iterator[str]:
    try:
        entry = look(root, each)
    except (NotHeld, TempFail):  # released meanwhile
        return
    yield f"    {_when(entry.since, zone)}  {_words(_sender(entry))}  [{entry.short}]"
    yield f"        {_words(' '.join(entry.message.header('Subject')[:1])) or '(no subject)'}"
    yield f"        {_words(entry.note.why if entry.note else '') or '(no reason)'}"


def _sender(entry: Entry) -> str:
    authors = entry.message.addresses("From")[:1]
    return authors[0].address if authors else "(nobody)"


def _words(text: str) -> str:
    return one_line(text[: 4 * MAX_WORDS])[:MAX_WORDS]


def _when(seconds: float, zone: tzinfo | None) -> str:
    try:
        return f"{datetime.fromtimestamp(seconds, zone):%Y-%m-%d %H:%M}"
    except (ValueError, OverflowError, OSError):
        return "at some time"


def _zone(user: User, site: Site) -> tzinfo | None:
    if not user.timezone:
        return site.settings.zone
    from zoneinfo import ZoneInfo

    return ZoneInfo(user.timezone)
