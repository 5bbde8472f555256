"""What readers see: hostile messages, every byte of them, and mail that comes while they read."""

from __future__ import annotations

from contextlib import ExitStack

import fidelity
import reading
from dovecot import Dovecot
from mdaflow_server import Mdaflow
from report import Report, Run


def bytes_kept(run: Run) -> Report:
    """From a Maildir, and from an mbox split by Python and by Dovecot."""
    with ExitStack() as stack:
        mdaflow = Mdaflow(run.root / "site", run.root / "lmtp")
        dovecot = Dovecot(mdaflow.root)
        for server in (mdaflow, dovecot):
            stack.callback(server.stop)
            server.start()
        sent = fidelity.send(
            mdaflow, run.count, run.seed, lambda n: run.progress.show(f"{n} of {run.count}")
        )
        mdaflow.check_log()
        found = {
            "in the Maildir": fidelity.in_maildir(sent),
            "in the mbox": fidelity.in_mbox(sent),
            "by Dovecot": fidelity.by_dovecot(sent, dovecot),
        }
        wrong = [f"{where}: {text}" for where, texts in found.items() for text in texts]
        return Report({"messages": run.count, "differences": len(wrong)}, wrong)


def read(run: Run) -> Report:
    """Dovecot reads by IMAP while mail comes: each message is seen once."""
    wrong = reading.read_while_delivered(
        run.root, run.count, run.seed, lambda n: run.progress.show(f"{n} of {run.count}")
    )
    return Report({"messages": 2 * run.count, "wrong": len(wrong)}, wrong)
