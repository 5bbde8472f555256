"""Whose mail a user always wants, and whose never: the files `allow` and `block` beside the rules.

One entry a line, as in lists of rules: `a@d`, `@d`, `.d` (its subdomains, too), `word@`. They are
compared with the sender of the envelope and with the authors (From), of which anybody can write
any: what is allowed is no spam to rules, whatever a scanner says, and no more than that. What is
blocked goes to the folder Junk before `.forward` and rules of the user see it. Who is in both is
allowed.

They become a small program, so that `mdaflow test` shows them and the log names them. A file that
is not safe, too large or no text is told to the user and passed over (P27); an entry that matches
nothing is told, too. What cannot be read for now puts the mail off: never "no list".
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from mdaflow.engine.match import address_keys
from mdaflow.engine.run import Stage
from mdaflow.errors import from_oserror
from mdaflow.files import Cache, Made, Reading, exists
from mdaflow.lang import ir
from mdaflow.lang.source import Span
from mdaflow.mail.envelope import Envelope
from mdaflow.mail.message import Message
from mdaflow.route.users import User

from .homes import is_foreign
from .lists import parse_list

if TYPE_CHECKING:
    from .build import Site

JUNK = "Junk"
"""Where mail goes that is blocked."""
MAX_FILE = 1 << 20
"""Bytes of a list."""
MAX_KEPT = 10_000
"""Users whose lists are kept in memory."""
MAX_TEXT = 4 << 20
"""Bytes of all of them together, as they stand in files (P30)."""

log = logging.getLogger("mdaflow")
_ENTRY = re.compile(r"\S+@\S*|@\S+|\.\S+")


class Lists(NamedTuple):
    """The lists of one user."""

    stage: Stage | None
    """What they do; None when there is nothing in them."""
    allowed: frozenset[str]
    """Folded."""


class PersonalLists:
    """The lists of all users; `rules` is the path of a user's rules below the user's folder."""

    def __init__(self, rules: str) -> None:
        self._folder = os.path.dirname(rules)
        self._kept: Cache[Lists] = Cache(MAX_KEPT, MAX_TEXT)

    def get(self, user: User, tell: Callable[[str], object] = log.warning) -> Lists | None:
        """The lists of a user; None for who has none. What is wrong in a new version is told once.

        Raises TempFail when a file is there and cannot be read now.
        """
        paths = [os.path.join(user.home, self._folder, name) for name in ("allow", "block")]
        try:
            if not any(list(map(exists, paths))) or is_foreign(user):
                return None
            return self._kept.get(user.home, lambda: _read(paths, user.home, tell))
        except OSError as error:
            raise from_oserror(error) from error

    def allows(self, user: User, message: Message, envelope: Envelope) -> bool:
        """Does the user want this mail, whatever others think of it? Raises TempFail."""
        lists = self.get(user)
        if lists is None or not lists.allowed:
            return False
        senders = (envelope.sender, *(author.address for author in message.addresses("From")))
        return any(key in lists.allowed for s in senders for key in address_keys(s.casefold()))


def personal_stage(
    site: Site, user: User, tell: Callable[[str], object] = log.warning
) -> Stage | None:
    """What the lists of a user do, before all that is the user's own; None when there are none.

    Costs two lstat for who has none. Raises TempFail when that cannot be told now.
    """
    lists = site.answers.personal.get(user, tell)
    return lists and lists.stage


def _read(paths: list[str], home: str, tell: Callable[[str], object]) -> Made[Lists]:
    reading = Reading(MAX_FILE, home=home)
    allow, block = (_entries(path, reading, tell) for path in paths)
    body = (_rule(paths[0], allow, _stop), _rule(paths[1], block, _junk))
    kept = tuple(rule for rule, entries in zip(body, (allow, block), strict=True) if entries)
    stage = Stage(ir.Program(os.path.dirname(paths[0]), kept)) if kept else None
    lists = Lists(stage, frozenset(map(str.casefold, allow)))
    return Made(lists, reading.versions, sum(reading.sizes.values()))


def _entries(path: str, reading: Reading, tell: Callable[[str], object]) -> tuple[str, ...]:
    """What stands in a file; nothing if there is no file, or one that must not count."""
    try:
        text = reading(path)
        if len(text) > MAX_FILE:
            raise ValueError(f"larger than {MAX_FILE >> 20} MiB")
        entries = parse_list(text)
    except FileNotFoundError:
        return ()
    except (OSError, ValueError) as error:
        tell(f"{path}: {getattr(error, 'strerror', None) or error}, so it is ignored")
        return ()
    wrong = [entry for entry in entries if not _ENTRY.fullmatch(entry)]
    if wrong:
        more = f" (and {len(wrong) - 1} more)" if wrong[1:] else ""
        tell(f"{path}: '{wrong[0]}' is no address{more}: a domain is written @example.org")
    return entries


# the program


def _rule(path: str, entries: tuple[str, ...], act: Callable[[Span], ir.Statement]) -> ir.Statement:
    """`rule "block" when envelope.from in block or from in block { ... }`"""
    span, name = Span(path, 1, 1, 1, 1), os.path.basename(path)
    items = (ir.Items(span, entries),)
    tests = tuple(
        ir.Compare(span, f"{subject} in {name}", ir.Subject(span, subject), "in", items)
        for subject in ("envelope.from", "from")
    )
    text = f'rule "{name}" when {tests[0].text} or {tests[1].text}'
    return ir.Branch(span, text, name, ir.Join(span, "or", tests), (act(span),))


def _stop(span: Span) -> ir.Statement:
    return ir.Stop(span, "stop")


def _junk(span: Span) -> ir.Statement:
    folder = ir.Text(span, (JUNK,))
    return ir.Act(span, f'deliver to "{JUNK}"', "deliver", True, True, (folder,))
