"""The first half of a message's way: whose it is, and what the rules make of it.

Nothing happens here: `mdaflow test` goes as far as this, a delivery goes on in pipeline.py.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from mdaflow.engine.context import Ask, Settings
from mdaflow.engine.plan import EvaluationError, Plan
from mdaflow.engine.run import Stage, run
from mdaflow.errors import INTERNAL, UNKNOWN_USER, PermFail, TempFail, from_oserror
from mdaflow.files import exists
from mdaflow.mail.address import split_local
from mdaflow.mail.envelope import Envelope
from mdaflow.mail.message import Message
from mdaflow.route.users import User

from .build import Site
from .homes import is_foreign
from .personal_lists import personal_stage

log = logging.getLogger("mdaflow")
_FILE_NAME = re.compile(r"[\w=@-][\w.+=@-]{0,100}")
"""What a sender may make a part of the name of a file."""

SPARED = "this message has stopped mdaflow twice, so no rule was run on it"
"""What users are told of a message that may stop mdaflow once more."""


def sender_of(message: Message, nobody: str = "") -> str:
    """Who has probably sent a message that is only a file: its Return-Path, else its author.

    Empty for a bounce, `nobody` when neither is there.
    """
    returned = message.header("Return-Path", raw=True)[:1]
    if returned == ["<>"]:
        return ""
    for name in ("Return-Path", "From"):
        for found in message.addresses(name)[:1]:
            return found.address
    return nobody


def find_user(site: Site, address: str) -> User:
    """The user of an address. Raises PermFail 550 5.1.1, or TempFail when it cannot be told."""
    if "@" not in address:
        address = f"{address}@{site.hostname}"
    user = site.router.find_user(address)
    if user is None:
        raise PermFail(UNKNOWN_USER, f"{UNKNOWN_USER.text}: {address}")
    return user


def stages_for(
    site: Site,
    user: User,
    tell: Callable[[str], object] = log.warning,
    recipient: str = "",
) -> list[Stage]:
    """The rules for a user: the site's before, the user's own, the site's after.

    The user's own are the `.forward` for this recipient, and the rules. What is wrong with a new
    version of a file is told.
    """
    own: Iterable[Stage | None] = ()
    if is_foreign(user):
        log.warning("<%s>: the home belongs to somebody else, so no rules are run", user.address)
    else:
        rules = os.path.join(user.home, rules_of(site, user))
        own = (
            personal_stage(site, user, tell),
            forward_stage(site, user, tell, recipient),
            site.rules.stage(rules, tell, home=user.home),
        )
    return [*site.before, *filter(None, own), *site.after]


def forward_stage(
    site: Site, user: User, tell: Callable[[str], object], recipient: str
) -> Stage | None:
    """The user's `.forward+detail` for a recipient with a detail, if it is there, whatever is in
    it; else the `.forward`. Raises TempFail."""
    name, delimiters = site.config.forward.file, site.config.recipient_delimiter
    if not name:
        return None
    path = os.path.join(user.home, name)
    _, detail = split_local(recipient.rpartition("@")[0], delimiters)
    try:
        special = bool(_FILE_NAME.fullmatch(detail)) and exists(f"{path}+{detail}")
    except OSError as error:
        raise from_oserror(error) from error
    if special:
        path = f"{path}+{detail}"
    about = {"whose": user.address, "delimiters": delimiters}
    return site.forwards.stage(path, tell, home=user.home, kept=not special, **about)


def rules_of(site: Site, user: User) -> str:
    """The path of the user's own rules below the home."""
    return user.rules or site.config.rules.user


def decide(
    site: Site,
    programs: list[Stage],
    message: Message,
    envelope: Envelope,
    *,
    user: User | None = None,
    really: bool = False,
    trace: bool = False,
    ask: Ask | None = None,
    given: Mapping[tuple[str, str], Sequence[Any]] | None = None,
) -> Plan:
    """What the rules make of a message for a user; `really`: programs that they ask run.

    `ask` answers instead of the site, `given` comes before all answers (see `run`). Raises
    TempFail for a rule of the site that fails, and for what cannot be told for now.
    """
    ask = ask or site.answers.about(user, really=really, message=message)
    try:
        return run(
            programs,
            message,
            envelope,
            ask,
            trace=trace,
            settings=_settings(site, user),
            given=given,
        )
    except EvaluationError as error:
        raise TempFail(INTERNAL, str(error)) from error


def decide_spared(site: Site, message: Message, envelope: Envelope, user: User) -> Plan:
    """The plan for a message that may stop mdaflow once more: nobody's rules see it, and nothing of
    it is taken apart here; only who looks for viruses elsewhere gets it. Raises TempFail."""
    ask = site.answers.about(user, really=True, message=message, spared=True)
    stages = list(site.spared)
    return replace(decide(site, stages, message, envelope, user=user, ask=ask), errors=(SPARED,))


def _settings(site: Site, user: User | None) -> Settings:
    """What the rules of a user are run with."""
    settings = site.settings
    if user is None:
        return settings
    if ":SEPARATOR=" in user.mailbox:  # seldom, and else nothing is imported
        settings = settings._replace(separator=site.mailbox(user).separator)
    if user.spam_required:
        settings = settings._replace(spam_score=user.spam_required)
    if user.timezone:
        from zoneinfo import ZoneInfo

        settings = settings._replace(zone=ZoneInfo(user.timezone))
    return settings._replace(own=(*settings.own, *user.own)) if user.own else settings
