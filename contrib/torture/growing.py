"""Many deliveries to one server: it has as much of the machine afterwards as before."""

from __future__ import annotations

from contextlib import ExitStack

from growth import MOST, WARM_UP, Load
from mdaflow_server import Mdaflow
from report import Report, Run


def leaks(run: Run) -> Report:
    """Descriptors, threads, processes, temporary files and memory, before and afterwards."""
    with ExitStack() as stack:
        mdaflow = Mdaflow(run.root / "site", run.root / "lmtp")
        stack.callback(mdaflow.stop)
        mdaflow.start()
        load = Load(mdaflow, run.seed)
        load.deliver(WARM_UP)
        before = load.settled()
        load.deliver(run.count, lambda done: run.progress.show(f"{done} of {run.count}"))
        after = load.settled(before)  # fails when anything that can be counted stays
        mdaflow.check_log()
        percent = round(100 * (after.resident / before.resident - 1), 1)
        wrong = (
            [f"memory has grown by {percent} %"] if after.resident > before.resident * MOST else []
        )
        return Report({**after._asdict(), "growth in percent": percent}, wrong)
