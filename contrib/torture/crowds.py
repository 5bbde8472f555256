"""Mail for many accounts of the machine at once, and accounts that swap files with links while it
is delivered. Is all owned as it should be, and does nothing get out?"""

from __future__ import annotations

import crowd
import races
from accounts import system
from report import Report, Run, only_zero

ACCOUNTS, CLIENTS = 50, 8
TRIES = 10 / 3
"""Messages of each race, for each of the others."""


def accounts(run: Run) -> Report:
    """Deliveries to many accounts, and races of one account against what is delivered to it."""
    with system(spool=races.SPOOLS[0], domains=crowd.DOMAINS) as server:
        many = crowd.Crowd(server, ACCOUNTS, run.seed)
        server.start()
        refused = many.send(run.count, CLIENTS, lambda n: run.progress.show(f"{n} of {run.count}"))
        wrong = [*refused, *many.wrong(run.count)]
    tries = round(run.count * TRIES)
    figures = {"deliveries": run.count, "wrong": len(wrong), "races": 0, "lost": 0, "escaped": 0}
    for name, swap in races.SWAPS.items():
        run.progress.show(f"{name}: {tries} tries")
        mailbox = "mbox:mail:INBOX={spool}/%u" if swap.in_spool else "maildir:Maildir"
        spools = races.SPOOLS if swap.in_spool else races.SPOOLS[:1]
        for spool in spools:
            with system(mailbox, spool) as server:
                server.start()
                found = races.race(server, swap, tries)
            figures["races"] += tries
            figures["lost"] += found.lost
            figures["escaped"] += found.escaped
    return Report(figures, wrong + only_zero(figures, "lost", "escaped"))
