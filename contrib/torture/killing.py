"""Mail from many clients while workers, or all processes of the server, are killed or stopped.

What a client or Postfix was told is delivered must be in a mailbox, byte for byte. It may be there
twice only if a connection was lost after the final dot; where the server is stopped by SIGTERM,
none is. Known limit: the machine stays up, so what is not synced is not lost (see powercuts.py).
"""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack

import storm
from mdaflow_server import Mdaflow
from report import Ledger, Report, Run, only_zero

SESSIONS = 8


def workers(run: Run) -> Report:
    """Messages through a real Postfix, while single workers are killed with SIGKILL."""
    with ExitStack() as stack:
        mdaflow, postfix = storm.in_the_storm(run.root)
        for server in (mdaflow, postfix):
            stack.callback(server.stop)
            server.start()
        mails = storm.new_mails(mdaflow, run.seed)
        clients = storm.Clients(mails, storm.by_smtp(postfix.port))

        def go_on() -> bool:
            there = storm.stored(mails)
            run.progress.show(f"{clients.taken} sent, {there} stored of {run.count}")
            return not clients.done or there < run.count * 0.95

        with clients.sending(range(run.count), SESSIONS):
            kills = storm.kill_workers(mdaflow, random.Random(run.seed), go_on)
        postfix.settle()
        mdaflow.check_log()
        doubt = storm.sent_in_doubt(postfix.log.read_text())
        refused = storm.refusals(mdaflow, mails, postfix)
        acknowledged = Counter(range(run.count))  # the queue is empty
        return judge(mails, acknowledged, doubt, kills, refused)


def cycles(run: Run) -> Report:
    """Master and workers are killed at once, and started again."""
    return _again_and_again(run, Mdaflow.kill)


def stops(run: Run) -> Report:
    """The server is stopped by SIGTERM, and started again: nothing is in doubt then."""
    return _again_and_again(run, Mdaflow.stop)


def _again_and_again(run: Run, end: Callable[[Mdaflow], None]) -> Report:
    with ExitStack() as stack:
        mdaflow = Mdaflow(run.root / "site", run.root / "lmtp", storm.WORKERS)
        stack.callback(mdaflow.stop)
        ledger = Ledger(run.root / "ledger")
        stack.callback(ledger.close)
        mails = storm.new_mails(mdaflow, run.seed)
        clients = storm.Clients(mails, storm.by_lmtp(mdaflow.socket), ledger.note)
        with clients.sending(itertools.count(), SESSIONS):
            dice = random.Random(run.seed)
            for number in storm.cycles(mdaflow, dice, run.count, end):
                run.progress.show(f"{number} of {run.count}, {clients.taken} taken")
        mdaflow.stop()
        mdaflow.check_log()
        sent, taken = ledger.numbers("sent"), ledger.numbers("taken")
        doubt = sent - taken if end is Mdaflow.kill else Counter[int]()
        refused = storm.refusals(mdaflow, mails)
        return judge(mails, taken, doubt, run.count, refused)


def judge(
    mails: storm.Mails,
    acknowledged: Counter[int],
    doubt: Counter[int],
    kills: int,
    refused: list[str],
) -> Report:
    """Compare what is there with what was said to be there; `doubt`: how often a message was sent
    without an answer."""
    found = storm.look(mails)
    figures = {
        "kills": kills,
        "acknowledged": len(acknowledged),
        "lost": len(found.lost(acknowledged)),
        "broken": len(found.broken),
        "refused": len(refused),
        "duplicates": found.doubled.total(),
        "unexplained": (found.doubled - doubt).total(),
    }
    return Report(figures, only_zero(figures, "lost", "broken", "refused", "unexplained"))
