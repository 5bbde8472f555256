"""Telling users what is wrong with their rules: a line in a file of theirs, and now and then a
mail.

The line goes to `log` beside the rule file, the mail to the inbox, at most one a day. Nothing
of this fails a delivery. The mail is stored directly: no rule sees it.
"""

from __future__ import annotations

import logging
import os
import time
from typing import TYPE_CHECKING

from mdaflow.errors import MailError
from mdaflow.route.users import User

if TYPE_CHECKING:
    from .build import Site

MAX_LOG = 1 << 20
"""Bytes after which a log begins anew; the last one is kept as `log.old`."""
DAY = 86_400.0

log = logging.getLogger("mdaflow")
_OPEN = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Notices:
    """What is told to one user."""

    def __init__(self, site: Site, user: User) -> None:
        self._site = site
        self._user = user

    def tell(self, text: str) -> None:
        """Tell the user, and our own log. Never raises."""
        said = "".join(char if char.isprintable() else " " for char in text)
        log.warning("<%s>: %s", self._user.address, said)
        try:
            self._write(f"{time.strftime('%Y-%m-%d %H:%M:%S %z')} {said}\n")
            self._mail(said)
        except (OSError, MailError, ValueError) as error:
            log.info("<%s>: could not be told: %s", self._user.address, error)

    def _write(self, line: str) -> None:
        folder = os.path.dirname(os.path.join(self._user.home, self._site.config.rules.user))
        below = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            file = os.open("log", _OPEN, 0o600, dir_fd=below)
            try:
                os.write(file, line.encode("utf-8", "replace"))
                full = os.fstat(file).st_size > MAX_LOG
            finally:
                os.close(file)
            if full:
                os.replace("log", "log.old", src_dir_fd=below, dst_dir_fd=below)
        finally:
            os.close(below)

    def _mail(self, text: str) -> None:
        store, key = self._site.answers.store, f"notice {self._user.address}"
        if store.get(key) is not None:
            return
        store.put(key, "", DAY)
        from mdaflow.deliver import prepare
        from mdaflow.deliver.mailbox import parse_mailbox
        from mdaflow.mail.letter import compose

        now, host = time.time(), self._site.hostname
        letter = compose(
            sender=f"MAILER-DAEMON@{host}",
            recipient=self._user.address,
            subject="Your mail rules need attention",
            text=_TEXT.format(text=text, file=self._site.config.rules.user),
            date=now,
            message_id=f"notice.{time.time_ns()}.{os.getpid()}@{host}",
            fields={"Auto-Submitted": "auto-generated (mail rules)"},
        )
        mailbox = parse_mailbox(self._user.mailbox, self._user.home)
        prepare(mailbox, "", [letter], (), "", now).commit()


_TEXT = """\
Something is wrong with your mail rules ({file}):

    {text}

No mail is lost: what your rules could not decide is in your inbox. `mdaflow check` shows what
to mend. Everything of this kind is written to the file `log` beside your rules; a mail like
this one comes once a day at most.
"""
