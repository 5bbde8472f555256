"""A Dovecot of its own: what was stored, as users read it by IMAP and POP3. Needs root."""

from __future__ import annotations

import imaplib
import poplib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from children import PATIENCE, Child, accepts, free_port
from mdaflow_server import MBOXES
from need import need

CONFIG = """\
base_dir = {root}/dovecot
log_path = {root}/dovecot.log
protocols = imap pop3
listen = 127.0.0.1
ssl = no
disable_plaintext_auth = no
first_valid_uid = 1
mail_location = %{{if;%d;eq;{mboxes};mbox\\:~/mail;maildir\\:~/Maildir}}
passdb {{
  driver = static
  args = password=x
}}
userdb {{
  driver = static
  args = uid=nobody gid=nogroup home={root}/%d/%d/%n
}}
service imap-login {{
  inet_listener imap {{
    port = {imap}
  }}
  inet_listener imaps {{
    port = 0
  }}
}}
service pop3-login {{
  inet_listener pop3 {{
    port = {pop3}
  }}
  inet_listener pop3s {{
    port = 0
  }}
}}
"""

_FETCHED = re.compile(rb"RFC822\.SIZE (\d+)")


class Mail(NamedTuple):
    """A message as IMAP shows it."""

    flags: set[str]
    size: int
    raw: bytes


class Dovecot:
    """A server of the mailboxes below `root`, with `more` lines of configuration."""

    def __init__(self, root: Path, more: str = "") -> None:
        self.root = root
        self._imap, self._pop3 = free_port(), free_port()
        self._child: Child | None = None
        (root / "dovecot").mkdir()
        (root / "dovecot.conf").write_text(
            CONFIG.format(root=root, mboxes=MBOXES, imap=self._imap, pop3=self._pop3) + more
        )

    def start(self) -> None:
        """Start it, and wait until it serves."""
        for program in ("imap", "pop3"):
            need(program)
        command = (need("dovecot"), "-F", "-c", self.root / "dovecot.conf")
        self._child = Child(command, self.root / "dovecot.out")
        ports = (self._imap, self._pop3)
        self._child.wait_for(lambda: all(map(accepts, ports)), "Dovecot serves")

    def stop(self) -> None:
        """End it and all its processes."""
        if self._child is not None:
            child, self._child = self._child, None
            child.stop()

    @contextmanager
    def session(self, user: str) -> Iterator[imaplib.IMAP4]:
        """A session of a user by IMAP."""
        with imaplib.IMAP4("127.0.0.1", self._imap, timeout=PATIENCE) as client:
            client.login(user, "x")
            yield client

    def folders(self, user: str) -> set[str]:
        """The names of all folders, as IMAP spells them."""
        with self.session(user) as client:
            lines = [line for line in client.list()[1] if isinstance(line, bytes)]
        return {line.decode().rpartition(" ")[2].strip('"') for line in lines}

    def fetch(self, user: str, folder: str = "INBOX") -> list[Mail]:
        """All messages of a folder, which stay as they are."""
        with self.session(user) as client:
            code, answer = client.select(f'"{folder}"', readonly=True)
            assert code == "OK", answer
            if answer == [b"0"]:
                return []
            parts = client.fetch("1:*", "(FLAGS RFC822.SIZE BODY.PEEK[])")[1]
        return [_mail(*part) for part in parts if isinstance(part, tuple)]

    def pop3(self, user: str) -> list[bytes]:
        """All messages of the inbox, by POP3."""
        client = poplib.POP3("127.0.0.1", self._pop3, timeout=PATIENCE)
        try:
            client.user(user)
            client.pass_("x")
            count = client.stat()[0]
            return [b"\r\n".join((*client.retr(n + 1)[1], b"")) for n in range(count)]
        finally:
            client.quit()


def _mail(about: bytes, raw: bytes) -> Mail:
    size = _FETCHED.search(about)
    assert size is not None, about
    flags = {flag.decode() for flag in imaplib.ParseFlags(about)} - {"\\Recent"}
    return Mail(flags, int(size[1]), raw)
