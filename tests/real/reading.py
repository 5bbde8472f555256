"""Mail that Dovecot reads by IMAP while it is delivered, into a Maildir with a quota and an mbox.

A reader asks for what is new again and again, as a mail program that stays connected does, and
marks each message that it sees. Each has to come once, whole, with the flags that its rule gave it;
and in the end Dovecot has to count what `maildirsize` says.
"""

from __future__ import annotations

import imaplib
import re
import subprocess
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from children import PATIENCE
from dovecot import Dovecot
from letters import numbered
from mdaflow_server import MBOXES, Lmtp, Mdaflow, User
from need import need

PLUGIN = """\
mail_plugins = quota
protocol imap {
  mail_plugins = quota imap_quota
}
plugin {
  quota = maildir:User quota
}
"""
RULES = """\
rule "Third" when header "X-Number" matches /[147]$/ {{ deliver to "INBOX" with flag "{flag}" }}
"""
FLAG = "\\Flagged"
SHORTEST, LONGEST = 200, 4000

_NUMBER = re.compile(rb"X-Number: (\d+)\r\n")
_UID = re.compile(rb"\(UID (\d+) FLAGS \(([^)]*)\)")


class Seen(NamedTuple):
    """A message as a reader has seen it."""

    uid: int
    number: int
    flagged: bool


class Reader:
    """A mail program that stays in the inbox of a user."""

    def __init__(self, dovecot: Dovecot, user: User) -> None:
        self.user = user
        self.seen: list[Seen] = []
        self.trouble: list[str] = []
        self._dovecot = dovecot
        self._last = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def finish(self) -> None:
        """Read what is there, and end."""
        self._done.set()
        self._thread.join(PATIENCE)
        if self._thread.is_alive():
            self.trouble.append("the reader hangs")

    def _read(self) -> None:
        try:
            with self._dovecot.session(self.user.address) as client:
                client.select("INBOX")
                while not self._done.wait(0.02):
                    self._look(client)
                self._look(client)
        except (imaplib.IMAP4.error, OSError) as error:
            self.trouble.append(f"{self.user.address}: {error!r}")

    def _look(self, client: imaplib.IMAP4) -> None:
        """Whatever has come since: a client that is told of new mail fetches and marks it."""
        client.noop()
        what = f"{self._last + 1}:*", "(FLAGS BODY.PEEK[HEADER.FIELDS (X-Number)])"
        _, parts = client.uid("fetch", *what)
        new = []
        for part in parts:
            if isinstance(part, tuple) and (found := _UID.search(part[0])):
                uid, number = int(found[1]), _NUMBER.search(part[1])
                if uid > self._last:
                    flagged = FLAG.encode() in found[2]
                    new.append(Seen(uid, int(number[1]) if number else -1, flagged))
        for seen in new:
            client.uid("store", str(seen.uid), "+FLAGS.SILENT", "(\\Seen)")
        self._last = max([self._last, *(seen.uid for seen in new)])
        self.seen += new


def read_while_delivered(
    root: Path, count: int, seed: int, shown: Callable[[int], object] = lambda number: None
) -> list[str]:
    """Deliver so many messages to each of two users whom Dovecot reads; what is wrong."""
    mdaflow = Mdaflow(root, root / "lmtp", quota="1G")
    dovecot = Dovecot(root, PLUGIN)
    rules = RULES.format(flag=FLAG.replace("\\", "\\\\"))
    users = [mdaflow.user(rules), mdaflow.user(rules, domain=MBOXES)]
    try:
        mdaflow.start()
        dovecot.start()
        with Lmtp(mdaflow.socket) as client:  # the inboxes are there
            replies = [_send(client, user, 0, seed) for user in users]
        readers = [Reader(dovecot, user) for user in users]
        for reader in readers:
            reader.start()
        senders = [
            threading.Thread(target=_send_all, args=(mdaflow, user, count, seed, replies, shown))
            for user in users
        ]
        for sender in senders:
            sender.start()
        for sender in senders:
            sender.join()
        for reader in readers:
            reader.finish()
        bad = [reply for reply in replies if not reply.startswith("250 ")]
        wrong = [f"not taken: {reply}" for reply in bad]
        for reader in readers:
            wrong += reader.trouble + _judged(reader, count)
        mdaflow.check_log()
        return wrong + _quota(dovecot, users[0])
    finally:
        dovecot.stop()
        mdaflow.stop()


def _send(client: Lmtp, user: User, number: int, seed: int) -> str:
    return client.deliver(user.address, numbered(number, seed, user.address, SHORTEST, LONGEST))


def _send_all(
    mdaflow: Mdaflow,
    user: User,
    count: int,
    seed: int,
    replies: list[str],
    shown: Callable[[int], object],
) -> None:
    with Lmtp(mdaflow.socket) as client:
        for number in range(1, count):
            replies.append(_send(client, user, number, seed))
            shown(number)


def _judged(reader: Reader, count: int) -> list[str]:
    """What the reader should have seen and has not, or otherwise."""
    name, times = reader.user.address, Counter(seen.number for seen in reader.seen)
    wrong = [
        f"{name}: message {n} was seen {times[n]} times" for n in range(count) if times[n] != 1
    ]
    wrong += [f"{name}: {n} is no message" for n in times if not 0 <= n < count]
    wrong += [
        f"{name}: the flags of message {seen.number} are wrong"
        for seen in reader.seen
        if seen.flagged != (seen.number % 10 in (1, 4, 7))
    ]
    return wrong


def _quota(dovecot: Dovecot, user: User) -> list[str]:
    """What maildirsize says and Dovecot does not count."""
    command = (need("doveadm"), "-c", str(dovecot.root / "dovecot.conf"), "-f", "tab")
    ask = ("quota", "get", "-u", user.address)
    told = subprocess.run([*command, *ask], capture_output=True, text=True, timeout=PATIENCE)
    again = subprocess.run([*command, "quota", "recalc", "-u", user.address], timeout=PATIENCE)
    counted = subprocess.run([*command, *ask], capture_output=True, text=True, timeout=PATIENCE)
    assert told.returncode == again.returncode == counted.returncode == 0, told.stderr
    if told.stdout == counted.stdout and "MESSAGE" in told.stdout:
        return []
    return [f"maildirsize: {told.stdout}counted: {counted.stdout}"]
