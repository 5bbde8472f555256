"""Telling users what is wrong with their rules: a line in a file of theirs, and now and then a
mail; and by a mail that their mailbox is nearly full.

The line goes to `log` beside the rule file, the mail to the inbox, at most one of a kind a day
from all processes together. Nothing of this fails a delivery, and neither needs the other. The
mail is stored directly: no rule sees it, and it has room in a full mailbox.
"""

from __future__ import annotations

import logging
import os
import stat
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from mdaflow.deliver import prepare
from mdaflow.deliver.mailbox import open_directory
from mdaflow.deliver.quota import Use
from mdaflow.engine.plan import printable
from mdaflow.route.users import User

if TYPE_CHECKING:
    from .build import Site

MAX_LOG = 1 << 20
"""Bytes after which a log begins anew; the last one is kept as `log.old`."""
MAX_LINE = 1000
"""Characters of what is told."""
DAY = 86_400.0

log = logging.getLogger("mdaflow")
_FILE = (
    os.O_WRONLY | os.O_APPEND | os.O_CREAT
    | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
)  # fmt: skip


class Notices:
    """What is told to one user."""

    def __init__(self, site: Site, user: User) -> None:
        self._site = site
        self._user = user
        self._rules = user.rules or site.config.rules.user

    def tell(self, text: str) -> None:
        """Tell the user, and our own log. Never raises."""
        said = printable(text)[:MAX_LINE]
        log.warning("<%s>: %s", self._user.address, said)
        said = said.replace(f"{self._user.home}/", "~/")  # where that is, is no matter of theirs
        file = self._rules
        self._try(self._write, said)
        self._try(self._mail, "notice", _RULES, _TEXT.format(text=said, file=file))

    def warn_of_quota(self, use: Use) -> None:
        """Tell the user of a mailbox that a message has nearly filled. Never raises."""
        percent = self._site.config.quota_warning
        if percent and use.crossed(percent):
            said = use.now.of(use.quota)
            log.info("<%s>: %d %% of the quota are reached: %s", self._user.address, percent, said)
            text = _NEARLY_FULL.format(percent=percent, said=said)
            self._try(self._mail, "quota", _QUOTA, text)

    def _try(self, way: Callable[..., None], *what: object) -> None:
        try:
            way(*what)
        except Exception as error:  # telling is worth no mail
            log.info("<%s>: could not be told: %s", self._user.address, error)

    def _write(self, text: str) -> None:
        line = f"{time.strftime('%Y-%m-%d %H:%M:%S %z')} {text}\n".encode("utf-8", "replace")
        *folders, _ = self._rules.split("/")
        below = open_directory(self._user.home, folders, make=False)
        try:
            file = _open_log(below)
            try:
                os.write(file, line)
            finally:
                os.close(file)
        finally:
            os.close(below)

    def _mail(self, kind: str, words: tuple[str, str], text: str) -> None:
        if not self._site.answers.store.add(f"{kind} {self._user.address}", "", DAY):
            return
        from mdaflow.mail.letter import compose  # only here: most users make no mistakes

        subject, about = words
        now, host = time.time(), self._site.hostname
        letter = compose(
            sender=f"MAILER-DAEMON@{host}",
            recipient=self._user.address,
            subject=subject,
            text=text,
            date=now,
            message_id=f"<{kind}.{time.time_ns()}.{os.getpid()}@{host}>",
            fields={"Auto-Submitted": f"auto-generated ({about})"},
        )
        store_letter(self._site, self._user, letter)


def store_letter(site: Site, user: User, letter: bytes) -> None:
    """Store a letter of ours in an inbox, for which it always has room. Raises TempFail."""
    mailbox = site.mailbox(user, refuse=False)
    prepare(mailbox, "", [b"Return-Path: <>\n", letter], (), "", time.time()).commit()


def _open_log(folder: int) -> int:
    """A descriptor of a log that has room. Raises OSError, also for what is no plain file."""
    for _ in range(2):
        file = os.open("log", _FILE, 0o600, dir_fd=folder)
        about = os.fstat(file)
        usable = stat.S_ISREG(about.st_mode) and about.st_nlink == 1
        if usable and about.st_size < MAX_LOG:
            return file
        os.close(file)
        if not usable:
            raise OSError("log is not a plain file with one link")
        os.replace("log", "log.old", src_dir_fd=folder, dst_dir_fd=folder)
    raise OSError("log is full")


_RULES = "Your mail rules need attention", "mail rules"
_QUOTA = "Your mailbox is nearly full", "quota"
_TEXT = """\
Something is wrong with your mail rules ({file}):

    {text}

No mail is lost: what your rules could not decide is in your inbox. Everything of this kind is
written to the file `log` beside your rules; a mail like this one comes once a day at most.
`mdaflow check`, where your rules are or on a copy of them, shows all that is to be mended.
"""
_NEARLY_FULL = """\
Your mailbox has reached {percent} % of its quota:

    {said}

When it is full, mail to you is not taken any more. Please delete what you do not need; mail in
the trash counts until it is gone from there too. A mail like this one comes once a day at most.
"""
