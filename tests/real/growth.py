"""What a server has of the machine, before and after many deliveries of all kinds.

A client delivers to a Maildir, to an mbox, to users whose rules make copies with flags, refuse and
put off, and goes away in the middle of a message now and then.
"""

from __future__ import annotations

import itertools
import random
import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from children import until
from letters import letter
from mdaflow_server import MBOXES, Lmtp, Mdaflow
from storm import ODD

WARM_UP = 600
"""Messages until a server has all that it needs."""
MOST = 1.05
"""How much of the memory it may have afterwards."""
SESSIONS = 4
PER_CONNECTION = 25
"""Messages."""
RULES = {
    "250 ": (
        ODD,
        'also deliver to "Copy" with flags ["\\\\Seen", "invoice"]\nremember "x" for 1 hour\n',
        'if body contains "Grüße" { deliver to "Found" expire 2 days }\n',
    ),
    "550 ": ('reject "no"\n',),
    "451 ": ('defer "later"\n',),
}
"""The reply, and the rules of the users who give it."""

_RESIDENT = re.compile(r"^VmRSS:\s+(\d+) kB$", re.MULTILINE)


class Usage(NamedTuple):
    """What a server has."""

    processes: int
    threads: int
    descriptors: int
    files: int
    """Temporary ones: in `tmp/` of Maildirs, and locks. Those of the spool have no name."""
    resident: int
    """KiB of memory of all processes."""

    @property
    def countable(self) -> Usage:
        """All but the memory."""
        return self._replace(resident=0)


class Load:
    """Users of a server, and a client for them."""

    def __init__(self, mdaflow: Mdaflow, seed: int) -> None:
        self._mdaflow, self._seed = mdaflow, seed
        users = [(mdaflow.user(text), code) for code, texts in RULES.items() for text in texts]
        users += [(mdaflow.user(domain=MBOXES), "250 "), (mdaflow.user(), "250 ")]
        self._mails = [(user.address, letter(user.address), code) for user, code in users]

    def deliver(self, count: int, shown: Callable[[int], object] = lambda done: None) -> None:
        """Deliver so many messages, in several sessions at once; all replies are as they should
        be. `shown` is told how far we are."""
        done = itertools.count(1)
        with ThreadPoolExecutor(SESSIONS) as pool:
            numbers = range(0, count, PER_CONNECTION)
            for _ in pool.map(lambda first: self._session(first, shown, done), numbers):
                pass

    def _session(
        self, first: int, shown: Callable[[int], object], done: itertools.count[int]
    ) -> None:
        dice = random.Random(f"{self._seed}/{first}")
        with Lmtp(self._mdaflow.socket) as client:
            for _ in range(PER_CONNECTION):
                address, raw, code = dice.choice(self._mails)
                reply = client.deliver(address, raw)
                assert reply.startswith(code), reply
                shown(next(done))
            if dice.random() < 0.2:
                client.say("MAIL FROM:<a@example.com>")
                client.say(f"RCPT TO:<{self._mails[0][0]}>")
                client.say("DATA")
                client.hang_up()

    def settled(self, before: Usage | None = None) -> Usage:
        """What the server has once it is idle: for some time nothing changes, or all that can
        be counted is as it was `before`."""
        found = [self._usage()]

        def again() -> bool:
            time.sleep(0.2)
            found.append(self._usage())
            if before is not None:
                return found[-1].countable == before.countable
            return len({usage.countable for usage in found[-5:]}) == 1 and len(found) > 5

        until(again, "an idle server", lambda: (before, found[-1]))
        return found[-1]

    def _usage(self) -> Usage:
        mdaflow = self._mdaflow
        processes = [Path("/proc", str(pid)) for pid in mdaflow.processes()]
        status = [(process / "status").read_text() for process in processes]
        return Usage(
            len(processes),
            sum(len(list((process / "task").iterdir())) for process in processes),
            sum(len(list((process / "fd").iterdir())) for process in processes),
            len(_temporary(mdaflow.root)),
            sum(int(size) for text in status for size in _RESIDENT.findall(text)),
        )


def _temporary(root: Path) -> list[Path]:
    """Files that should be there only while a message is delivered."""
    return [*root.rglob("tmp/*"), *root.rglob("*.lock")]
