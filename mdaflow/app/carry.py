"""The second half of a message's way: the rules of a user are run, and their plan carried out.

This is what has to happen as the user whose mail it is: for an account of this machine in a
process of that account (identity.py), else here. What is said of it, and to whom, is for the
caller (pipeline.py).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import NamedTuple

from mdaflow.deliver.execute import Done, execute
from mdaflow.engine.plan import Action, Plan
from mdaflow.engine.run import Stage
from mdaflow.errors import INTERNAL, TempFail
from mdaflow.mail.envelope import Envelope
from mdaflow.mail.message import Message
from mdaflow.route.users import User

from .build import Site
from .decide import decide, decide_spared, stages_for
from .failure import failed
from .homes import make_home
from .notices import Notices

log = logging.getLogger("mdaflow")


class Carried(NamedTuple):
    """What became of a message for a user, and which rule has decided it."""

    done: Done
    rule: str = ""
    where: str = ""
    """File and line of the rule."""


def carry_out(
    site: Site,
    message: Message,
    envelope: Envelope,
    user: User,
    ident: str,
    fence: Callable[[], bool],
    programs: list[Stage] | None = None,
) -> Carried:
    """Run the rules, and do what they say. Never raises.

    `ident` is the id of this delivery, `programs` are run instead of the rules that are installed.
    """
    decided: Plan | None = None
    try:
        if user.account is not None and user.account.uid != os.geteuid():
            why = f"only `mdaflow serve`, started as root, delivers as {user.account.name}"
            raise TempFail(INTERNAL, why)
        make_home(user)
        notice = Notices(site, user)
        with site.noted(message, envelope) as spare:
            if spare:
                decided = decide_spared(site, message, envelope, user)
            else:
                if programs is None:
                    programs = stages_for(site, user, notice.tell, envelope.recipient)
                decided = decide(site, programs, message, envelope, user=user, really=True)
        done = execute(
            decided,
            message,
            envelope,
            site.mailbox(user),
            means=site.means,
            ident=ident,
            user=user.address,
            fence=fence,
        )
        if done.status.ok:
            _afterwards(site, message, user, decided, done, notice)
    except Exception as error:  # nothing may bounce mail, nor stop the other recipients (P4, P7)
        done = failed(error, envelope.recipient)
    action = decided.deciding if decided is not None else Action("keep")
    return Carried(done, action.rule, action.span.short if action.span else "")


def _afterwards(
    site: Site, message: Message, user: User, decided: Plan, done: Done, notice: Notices
) -> None:
    """What a delivered message leaves behind; nothing of it makes the message come again."""
    if decided.asked_duplicate:
        try:
            site.answers.remember_seen(message, user)
        except Exception as error:  # it is delivered already
            log.warning("<%s>: a duplicate may not be known: %s", user.address, error)
    for error_text in decided.errors:
        notice.tell(f"{error_text}; kept in the inbox")
    if done.told:
        notice.tell(done.told)
    if done.use is not None:
        notice.warn_of_quota(done.use)
