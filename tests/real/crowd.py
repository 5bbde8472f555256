"""Mail for many accounts at once, each with a Maildir, mbox files and an inbox in the spool of the
system, with and without rules: all that was made has the right owner, group and mode, and each
message is where it belongs, once, and nowhere else.
"""

from __future__ import annotations

import itertools
import random
import re
import stat
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import mailboxes
from accounts import MAIL, Account, System
from letters import numbered
from mdaflow_server import Lmtp

DOMAINS = {
    "maildir.example": "maildir:Maildir",
    "mbox.example": "mbox:mail",
    "spool.example": "mbox:mail:INBOX={spool}/%u",
}
SIZES = 100, 20_000
"""The shortest and the longest message, in bytes."""
RULES = (
    "",
    'also deliver to "Copy"\n',
    'also pipe to ["/bin/sh", "-c", "cat > piped.$$.$(date +%N)"]\n',
)
"""Of the accounts, in turns: nothing, one more copy in a folder, one more by a program."""

_NUMBER = re.compile(rb"^X-Number: (\d+)\n", re.MULTILINE)


class Crowd:
    """Accounts, and what was sent to them: message `n` has the number `n`."""

    def __init__(self, server: System, accounts: int, seed: int) -> None:
        self.server, self.seed = server, seed
        self.accounts = [server.account(rules=RULES[n % len(RULES)]) for n in range(accounts)]

    def address(self, number: int) -> str:
        """To whom a message goes."""
        domain = random.Random(f"{self.seed} {number}").choice(list(DOMAINS))
        return f"{self.whose(number).name}@{domain}"

    def whose(self, number: int) -> Account:
        return self.accounts[number % len(self.accounts)]

    def raw(self, number: int) -> bytes:
        return numbered(number, self.seed, self.address(number), *SIZES)

    def send(
        self, count: int, clients: int, shown: Callable[[int], object] = lambda done: None
    ) -> list[str]:
        """Send messages from several clients at once; all replies that are none of success."""
        waiting, done = iter(range(count)), itertools.count(1)

        def session(client: int) -> Iterator[str]:
            with Lmtp(self.server.socket) as lmtp:
                for number in waiting:  # an iterator of a range is one for all threads
                    reply = lmtp.deliver(self.address(number), self.raw(number))
                    shown(next(done))
                    if not reply.startswith("250 "):
                        yield reply

        with ThreadPoolExecutor(clients) as pool:
            found = pool.map(lambda client: list(session(client)), range(clients))
            return [reply for replies in found for reply in replies]

    # --- what is there ---------------------------------------------------------------------

    def wrong(self, count: int) -> list[str]:
        """What is lost, doubled, somebody else's, not whole, or not owned as it should be."""
        found = [problem for account in self.accounts for problem in self._of(account, count)]
        known = {account.name for account in self.accounts}
        spool = {path.name for path in self.server.spool.iterdir()}
        return found + [f"{name} in the spool" for name in spool - known]

    def _of(self, account: Account, count: int) -> Iterator[str]:
        copies: Counter[tuple[str, int]] = Counter()
        for kind, mail in self._mails(account):
            match = _NUMBER.search(mail)
            number = int(match[1]) if match else -1
            body = mail[match.start() :] if match else mail
            if number < 0 or body != self.raw(number).replace(b"\r\n", b"\n"):
                yield f"{account.name}: {kind}: not whole"
            elif self.whose(number) != account:
                yield f"{account.name}: {kind}: message {number} is another's"
            copies[kind, number] += 1
        wanted: Counter[tuple[str, int]] = Counter()
        rules = RULES[self.accounts.index(account) % len(RULES)]
        for number in range(self.accounts.index(account), count, len(self.accounts)):
            kinds = ["inbox"]
            kinds += ["copy"] if "Copy" in rules else []
            kinds += ["piped"] if "pipe" in rules else []
            wanted.update((kind, number) for kind in kinds)
        yield from (f"{account.name}: lost {what}" for what in wanted - copies)
        yield from (f"{account.name}: too much {what}" for what in copies - wanted)
        yield from self._owned(account)

    def _mails(self, account: Account) -> Iterator[tuple[str, bytes]]:
        home, spool = account.home, self.server.spool / account.name
        places = {"inbox": [home / "mail/inbox", spool], "copy": [home / "mail/Copy"]}
        for kind, files in places.items():
            for file in filter(Path.exists, files):
                yield from ((kind, mail.raw) for mail in mailboxes.mbox(file))
        for kind, folder in (("inbox", "Maildir"), ("copy", "Maildir/.Copy")):
            yield from ((kind, mail.raw) for mail in mailboxes.maildir(home / folder))
        yield from (("piped", file.read_bytes()) for file in home.glob("piped.*"))

    def _owned(self, account: Account) -> Iterator[str]:
        for path in (account.home, *account.home.rglob("*")):
            about = path.lstat()
            mode = 0o700 if stat.S_ISDIR(about.st_mode) else 0o600
            mode = 0o755 if path.name == ".mdaflow" else mode  # the test has made it
            if (about.st_uid, about.st_gid) != (account.uid,) * 2:
                yield f"{path}: owned by {about.st_uid}:{about.st_gid}"
            if stat.S_IMODE(about.st_mode) != mode:
                yield f"{path}: mode {about.st_mode:o}"
        inbox = self.server.spool / account.name
        if inbox.exists():
            about = inbox.lstat()
            found = about.st_uid, about.st_gid, about.st_mode, about.st_nlink
            if found != (account.uid, MAIL, stat.S_IFREG | 0o600, 1):
                yield f"{inbox}: {found}"
